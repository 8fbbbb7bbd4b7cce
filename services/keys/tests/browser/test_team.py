"""The pages Team and Log: members, invitations, what all keys were used for, and who did what."""

from playwright.sync_api import expect
from steps import leave, make_key, sign_in


def line(page, name):
    return page.locator("tr", has=page.locator(f"th:has-text('{name}')")).first


def invite(page, service, name, role):
    page.goto(service.url + "/keys/team")
    page.fill("#user", name)
    page.select_option("#role", role)
    page.click("text=Make the invitation")


def test_second_invitation_needs_a_confirmation_and_keeps_the_role(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    invite(page, service, "ann@example.com", "viewer")
    page.once("dialog", lambda dialog: dialog.accept())
    link = page.input_value("#secret")
    page.click("text=To the team")
    expect(line(page, "ann@example.com")).to_contain_text("not yet")
    invite(page, service, "ann@example.com", "admin")
    assert "has not signed in yet" in page.inner_text("main")
    assert "A link does not change the role" in page.inner_text("main")
    page.click("text=Make another link")
    assert "signs in once as viewer" in page.inner_text("main")
    second = page.input_value("#secret")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=To the team")
    # The second link replaced the first one.
    assert page.locator("button:text-is('Withdraw')").count() == 1
    ann = open_page(java_script_enabled=has_script)
    for code, text in ((link, "This link is not valid"), (second, "ann@example.com, viewer")):
        ann.goto(link)
        ann.fill("#code", code)
        ann.click("main form[action$='/in'] button")
        assert text in ann.inner_text("body")
    assert "ann@example.com, viewer" in ann.inner_text("header")
    page.reload()
    expect(line(page, "ann@example.com")).not_to_contain_text("not yet")
    expect(line(page, "ann@example.com")).to_contain_text("just now")


def test_use_of_all_keys_is_a_picture_with_its_numbers(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    for name, env in (("billing", "live"), ("web shop", "test")):
        make_key(page, service, name, env)
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("text=I have stored it")
    service.use("billing", {0: (60, 3), 130: (40, 0)})
    service.use("web shop", {0: (7, 0), 2000: (500, 0)})
    page.goto(service.url + "/keys/team")
    picture = page.locator("#team-use svg.large")
    expect(picture).to_have_attribute("aria-label", "107 requests admitted, 3 denied")
    page.click("text=The numbers as a table")
    rows = page.locator("#numbers tbody tr")
    admitted = page.locator("#numbers td[data-label=Admitted]").all_inner_texts()
    assert sum(int(text) for text in admitted) == 107
    # Each hour is in one row, and hours without requests that follow each other share theirs.
    assert rows.count() == len(admitted) + page.locator("#numbers td[colspan]").count()
    assert rows.last.inner_text().split("\t")[-1] == "no requests"
    page.click("#team-use >> text=30 days")
    expect(picture).to_have_attribute("aria-label", "607 requests admitted, 3 denied")
    envs = page.locator("#team-use table", has=page.locator("caption")).locator("tbody tr")
    assert [text.split() for text in envs.all_inner_texts()] == [
        ["test", "507", "0"],
        ["live", "100", "3"],
    ]


def test_open_numbers_of_the_team_stay_open_when_they_are_refreshed(service, open_page):
    page = open_page()
    sign_in(page, service)
    make_key(page, service, "billing")
    leave(page)
    service.use("billing", {0: (60, 3)})
    page.goto(service.url + "/keys/team")
    page.click("text=The numbers as a table")
    service.change("update usage set requests = 65")
    sums = page.locator("#team-use .sums")
    expect(sums).to_have_text("65 admitted 3 denied by a limit", timeout=15_000)
    assert page.locator("#numbers").get_attribute("open") is not None
    assert page.evaluate("document.querySelectorAll('time:not([data-done])').length") == 0


def test_log_finds_parts_of_names_and_takes_no_key_into_its_address(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    secret = make_key(page, service, "billing service")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=I have stored it")
    key_id = page.url[-11:]
    service.run("keys", "member", "set", "1", "Ann Baker", "--role", "admin")
    ann = open_page()
    sign_in(ann, service, "--team", "1", "--user", "Ann Baker")
    page.goto(service.url + "/keys/log")
    assert "Ann Baker has the role admin" in page.inner_text(".log")
    page.fill("#actor", "baker")
    page.click("text=Filter")
    expect(page.locator(".log tbody td:nth-child(3)")).to_have_text(["signed in"])
    for text in ("BILLING", key_id, secret):
        page.goto(service.url + "/keys/log")
        page.fill("#key", text)
        page.click("text=Filter")
        expect(page.locator(".log tbody td:nth-child(3)")).to_have_text(["created the key"])
        assert f"billing service {key_id}" in page.inner_text(".log")
        assert secret not in page.url
