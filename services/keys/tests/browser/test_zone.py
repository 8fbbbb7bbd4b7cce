"""Dates and times: in the reader's zone with script, and in UTC without, by one rule everywhere."""

import re
from datetime import datetime, timedelta, timezone

import pytest
from playwright.sync_api import expect
from screens import ADDRESSES
from steps import leave, make_key, sign_in

# Half an hour apart from whole hours, and never at the hour of UTC.
ZONE, OFFSET = "Asia/Kabul", timedelta(hours=4, minutes=30)


@pytest.fixture
def key_page(service, open_page, has_script):
    page = open_page(timezone_id=ZONE, locale="en-GB", java_script_enabled=has_script)
    sign_in(page, service)
    make_key(page, service, "billing")
    if has_script:
        leave(page)
    else:
        page.click("text=I have stored it")
    # Each second minute has its own row in the table of an hour.
    minutes = dict.fromkeys(range(2, 60, 2), (1, 0))
    service.use("billing", {0: (6, 1), 70: (4, 2), **minutes})
    return page


def test_every_date_is_in_the_zone_that_the_page_names(service, key_page, has_script):
    page, key_id = key_page, key_page.url[-11:]
    local = r"\d{1,2} [A-Z][a-z]{2,3} \d{4}"
    if has_script:
        rule = rf"{local}(, \d\d:\d\d)?"
        named = rf"time zone of your browser, {ZONE} \(UTC\+4:30 now\)"
    else:
        rule, named = r"\d{4}-\d\d-\d\d( \d\d:\d\d)? UTC", r"are in UTC\."
    found = 0
    for name in ("keys", "key", "key-hour", "edit", "rotate", "revoke", "team", "log", "me"):
        page.goto(service.url + ADDRESSES[name].replace("ID", key_id))
        assert re.search(named, page.inner_text("footer")), name
        for time in page.locator("time").all():
            text, machine = time.text_content(), time.get_attribute("datetime")
            found += 1
            if re.fullmatch(r"just now|\d+ \w+ ago", text):
                continue
            assert re.fullmatch(rule, text), f"{name}: {text}"
            at = datetime.fromisoformat(machine)
            if has_script:
                shown = at.astimezone(timezone(OFFSET)).strftime("%-d %b %Y")
                assert text.replace("Sept", "Sep").startswith(shown), f"{name}: {text}"
                title = time.get_attribute("title")
                assert title.endswith(at.strftime("(%Y-%m-%d %H:%M UTC)")), f"{name}: {title}"
            else:
                assert text.startswith(at.strftime("%Y-%m-%d")), f"{name}: {text}"
    assert found > 100


def test_days_of_the_log_are_those_of_the_zone_that_is_shown(service, key_page, has_script):
    page = key_page
    own = timezone(OFFSET) if has_script else timezone.utc
    day = datetime(2027, 1, 31, tzinfo=own)
    rows = {"first second": day, "last second": day + timedelta(seconds=86399)}
    rows |= {"second before": day - timedelta(seconds=1), "second after": day + timedelta(days=1)}
    for number, (name, at) in enumerate(rows.items(), 10_000):
        service.change(
            "insert into log (seq, at_s, team_id, actor_kind, actor, action, detail) "
            "values (?, ?, 1, 'operator', 'shell', 'team.rename', ?)",
            number,
            int(at.timestamp()),
            name,
        )
    page.goto(service.url + "/keys/log")
    label = f"({ZONE})" if has_script else "(UTC)"
    for field in ("from", "to"):
        assert page.inner_text(f"label[for={field}] small") == label
        page.fill(f"#{field}", "2027-01-31")
    page.click("text=Filter")
    page.wait_for_url(re.compile("from=2027-01-31"))
    assert page.locator("tbody tr td:last-child").all_inner_texts() == [
        "last second",
        "first second",
    ]
    # The days and their zone stay in the form, and are sent again as they are.
    for field in ("from", "to"):
        assert page.input_value(f"#{field}") == "2027-01-31"
        assert page.inner_text(f"label[for={field}] small") == label
    before = page.url
    with page.expect_navigation():
        page.click("text=Filter")
    assert page.url == before


def test_days_of_another_zone_keep_it_until_they_are_changed(service, open_page):
    page = open_page(timezone_id=ZONE)
    sign_in(page, service)
    page.goto(service.url + "/keys/log?from=2027-01-31-03:00&to=2027-02-01")
    label = page.locator("label[for=from] small")
    expect(label).to_have_text("(UTC-03:00)")
    expect(page.locator("label[for=to] small")).to_have_text("(UTC)")
    with page.expect_navigation():
        page.click("text=Filter")
    assert page.url.endswith("from=2027-01-31-03%3A00&to=2027-02-01")
    page.fill("#from", "2027-01-30")
    expect(label).to_have_text(f"({ZONE})")
    with page.expect_navigation():
        page.click("text=Filter")
    assert "from=2027-01-30%2B04%3A30&" in page.url


def test_day_has_the_offset_that_holds_at_its_ends(service, open_page):
    page = open_page(timezone_id="Europe/Berlin")
    sign_in(page, service)
    page.goto(service.url + "/keys/log")
    # On this day, summer time begins.
    page.fill("#from", "2027-03-28")
    page.fill("#to", "2027-03-28")
    with page.expect_navigation():
        page.click("text=Filter")
    assert page.url.endswith("from=2027-03-28%2B01%3A00&to=2027-03-28%2B02%3A00")


def test_expiry_on_a_day_is_its_beginning_in_the_zone_that_is_shown(service, open_page, has_script):
    page = open_page(timezone_id=ZONE, locale="en-GB", java_script_enabled=has_script)
    sign_in(page, service)
    page.goto(service.url + "/keys/new")
    label = page.locator("label[for=date]")
    expect(label).to_be_visible()
    zone = ZONE if has_script else "UTC"
    assert label.inner_text() == f"It ends at 0:00 of ({zone})"
    page.fill("#name", "billing")
    page.check("text=Until a date")
    page.fill("#date", "2099-06-01")
    page.fill("#env", "Live!")
    page.evaluate("document.querySelector('form.card').noValidate = true")
    page.click("text=Make key")
    # The form with an error keeps the day and its zone.
    assert page.input_value("#date") == "2099-06-01"
    assert label.inner_text() == f"It ends at 0:00 of ({zone})"
    page.fill("#env", "test")
    page.click("text=Make key")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=I have stored it")
    expires = page.locator("dt:text('Expires') + dd time").get_attribute("datetime")
    assert expires == ("2099-05-31T19:30:00Z" if has_script else "2099-06-01T00:00:00Z")
