"""The API Keys page in Chromium, as people use it."""

import re
import subprocess
import time
import urllib.request
from datetime import datetime

import pytest
from playwright.sync_api import Error, expect
from steps import copy_secret, leave, make_key, sign_in, status, total


def test_first_minute_ends_with_a_key_that_answers_200(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    assert page.locator("text=No keys yet").is_visible()
    page.click("text=Make the first key")
    page.fill("#name", "billing")
    page.click("text=Make key")
    line = page.locator("#curl").text_content()
    secret = page.input_value("#secret")
    # The line reads the key from the terminal, so no history and no list of processes has it.
    assert secret not in line
    output = subprocess.run(
        ["sh", "-c", line], input=f"{secret}\n", capture_output=True, text=True, check=True
    ).stdout
    assert output.startswith("HTTP/1.1 200")
    assert page.locator("#dotenv").text_content() == f"BILLING_API_KEY={secret}"
    page.goto(service.url + "/keys")
    assert page.locator("tbody th a").text_content() == "billing"


def test_link_is_used_up_by_the_button_and_not_by_a_preview(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    link = service.link()
    urllib.request.urlopen(link.split("#")[0]).read()
    page.goto(link)
    page.reload()
    page.fill("#code", link)
    page.click("main button")
    assert page.url.endswith("/keys/teams")
    again = open_page(java_script_enabled=has_script)
    again.goto(service.url + "/keys/in")
    again.fill("#code", link)
    again.click("main button")
    assert "This link is not valid" in again.inner_text("[role=alert]")


def test_code_leaves_the_address(service, open_page):
    page = open_page()
    page.goto(service.link())
    assert page.url == service.url + "/keys/in"
    assert len(page.input_value("#code")) == 64


def test_secret_is_shown_once(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    page.reload()
    assert secret not in page.content()
    assert "was sent before" in page.content()
    page.goto(service.url + "/keys")
    # Chromium has no copy of the page, and does not send the form by itself.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        page.go_back()
    page.wait_for_timeout(300)
    assert secret not in page.content()
    page.goto(service.url + "/keys")
    assert page.locator("tbody tr").count() == 1


def test_copy_reports_what_happened(service, open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    assert page.inner_text("#copied") == ""
    notices = {"secret": "#copied", "dotenv": "#dotenv-copied", "curl": "#curl-copied"}
    for name, copied in notices.items():
        page.click(f"[data-copy={name}]")
        expect(page.locator(copied)).to_have_text("Copied.")
        text = page.evaluate("navigator.clipboard.readText()")
        assert text == page.locator(f"#{name}").text_content()
        assert (secret in text) == (name != "curl")
        # What happened is said where the person looks.
        at, said = (page.locator(one).bounding_box() for one in (f"[data-copy={name}]", copied))
        assert abs(at["y"] - said["y"]) < 60


def test_text_to_copy_is_named_without_script(service, open_page):
    page = open_page(java_script_enabled=False)
    sign_in(page, service)
    make_key(page, service, "billing")
    assert page.inner_text("#copied") == "Select the text to copy it."
    assert not page.locator("[data-copy=curl]").is_visible()


def test_secret_has_the_focus_and_is_shown_whole(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script, viewport={"width": 390, "height": 800})
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    make_key(page, service, "billing")

    def assert_reached():
        field = page.locator("#secret")
        expect(field).to_be_focused()
        # A screen reader reads its label, its value, and that it is shown once.
        assert field.evaluate("field => field.labels[0].textContent") in ("Key", "Link")
        noted = page.locator(f"#{field.get_attribute('aria-describedby')}").inner_text()
        assert "shown this once" in noted
        assert field.evaluate("field => field.scrollHeight <= field.clientHeight")
        assert field.evaluate("field => field.scrollWidth <= field.clientWidth")

    assert_reached()
    page.click("text=I have stored it")
    page.click("text=Rotate")
    page.click("text=Rotate and show")
    assert_reached()
    page.goto(service.url + "/keys/team")
    page.fill("#user", "ann@example.com")
    page.click("text=Make the invitation")
    assert_reached()


def test_id_of_a_key_is_copied_while_its_page_is_refreshed(service, open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, service)
    make_key(page, service, "billing")
    key_id = leave(page)[-11:]
    with page.expect_response(re.compile("range=")):
        pass
    page.click("[data-copy=key-id]")
    expect(page.locator("#key-id-copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == key_id
    # A refresh leaves the button and what it said.
    with page.expect_response(re.compile("range=")):
        pass
    page.wait_for_timeout(100)
    assert page.locator("[data-copy=key-id]").is_visible()
    assert page.inner_text("#key-id-copied") == "Copied."
    page.evaluate("delete Navigator.prototype.clipboard")
    page.click("[data-copy=key-id]")
    expect(page.locator("#key-id-copied")).to_contain_text("Ctrl+C")
    assert page.evaluate("getSelection().toString()") == key_id


def test_page_that_was_opened_is_shown_after_the_sign_in(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    make_key(page, service, "billing")
    at = leave(page)
    page.click("text=Sign out")
    for address in (at, f"{at}?range=1h", service.url + "/keys/log?what=key"):
        page.goto(address)
        assert page.url == service.url + "/keys/in"
        assert "you get to the page that you opened" in page.inner_text("main")
        # The link may open in another tab.
        link = service.link()
        other = page.context.new_page()
        other.goto(link)
        if other.input_value("#code") == "":
            other.fill("#code", link)
        other.click("main form[action$='/in'] button")
        assert other.url == address
        other.click("text=Sign out")
        assert page.context.cookies() == []


def test_copy_without_clipboard_selects_the_text(service, open_page):
    page = open_page()
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    page.click("[data-copy=secret]")
    expect(page.locator("#copied")).to_contain_text("Ctrl+C")
    assert page.evaluate("getSelection().toString()") == secret


def test_page_warns_before_an_uncopied_secret_is_left(service, open_page):
    page = open_page()
    sign_in(page, service)
    make_key(page, service, "billing")
    page.click("h1")
    dialogs = []

    def stay(dialog):
        dialogs.append(dialog.type)
        dialog.dismiss()

    # The curl line has no secret.
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("[data-copy=curl]")
    expect(page.locator("#curl-copied")).to_have_text("Copied.")
    page.once("dialog", stay)
    page.click("text=I have stored it")
    page.wait_for_timeout(200)
    assert dialogs == ["beforeunload"]
    assert page.locator("#secret").is_visible()
    # Another text that is copied is not the secret.
    page.locator("h1").select_text()
    page.keyboard.press("ControlOrMeta+c")
    page.once("dialog", stay)
    page.click("text=I have stored it")
    page.wait_for_timeout(200)
    assert dialogs == ["beforeunload"] * 2
    copy_secret(page)
    page.click("text=I have stored it")
    page.wait_for_url(re.compile(r"/keys/k/"))


def test_double_click_makes_one_key(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "billing")
    page.dblclick("text=Make key")
    expect(page.locator("h1")).not_to_have_text("New key")
    page.wait_for_load_state("networkidle")
    page.goto(service.url + "/keys")
    assert page.locator("tbody tr").count() == 1


def test_rotation_has_two_secrets_until_the_old_one_ends(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    old = make_key(page, service, "billing")
    at = leave(page)
    page.click("text=Rotate")
    page.check("text=1 hour")
    page.click("text=Rotate and show")
    new = page.input_value("#secret")
    assert [status(service, old), status(service, new)] == [200, 200]
    assert leave(page) == at
    page.click("text=End it now")
    page.click("text=End it now")
    assert [status(service, old), status(service, new)] == [401, 200]
    assert "The old secret ended" in page.inner_text("[role=status]")


def test_key_in_use_is_revoked_with_its_name(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    leave(page)
    service.use("billing", {1: (5, 0)})
    page.click("text=Revoke")
    page.fill("#typed", "bill")
    page.click("text=Revoke key")
    assert "Type its name exactly" in page.inner_text("[role=alert]")
    assert status(service, secret) == 200
    page.fill("#typed", "billing")
    page.click("text=Revoke key")
    assert status(service, secret) == 401
    assert page.locator("h1 .state").inner_text() == "revoked"


def test_fifty_keys_are_revoked_at_once(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    secrets = service.make_keys(50)
    page.goto(service.url + "/keys")
    for box in page.locator("input[name=id]").all():
        box.check()
    page.click("text=Revoke the chosen keys")
    page.fill("#typed", "50")
    page.click("main button")
    assert "Revoked 50 keys" in page.inner_text("[role=status]")
    assert {status(service, secret) for secret in secrets} == {401}


def test_table_has_what_the_requests_came_to(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    at = leave(page)
    # All requests are in one minute, of which the plan admits 100.
    if time.time() % 60 > 50:
        time.sleep(10)
    answers = [status(service, secret) for _ in range(150)]
    assert (answers.count(200), answers.count(429)) == (100, 50)
    deadline = time.monotonic() + 30
    while True:
        page.goto(f"{at}?range=1h")
        label = page.locator(".sums").inner_text()
        if label.startswith("100 admitted") or time.monotonic() > deadline:
            break
        time.sleep(1)
    for width in ("1h", "24h", "30d"):
        page.goto(f"{at}?range={width}")
        label = page.locator("svg.large").get_attribute("aria-label")
        assert label == "100 requests admitted, 50 denied"
        page.click("summary")
        admitted = page.locator("#numbers td[data-label=Admitted]").all_inner_texts()
        denied = page.locator("#numbers td[data-label=Denied]").all_inner_texts()
        assert (total(admitted), total(denied)) == (100, 50)


def test_unfinished_bucket_is_drawn_open(service, open_page):
    page = open_page()
    sign_in(page, service)
    make_key(page, service, "billing")
    at = leave(page)
    service.use("billing", {0: (60, 30), 1500: (40, 20)})
    page.goto(f"{at}?range=30d")
    # With its denied requests.
    parts = [part.get_attribute("class") for part in page.locator("svg.large .open").all()]
    assert parts == ["open admitted", "open denied"]
    assert page.locator("#numbers tbody tr").first.locator("small").text_content() == "not complete"


def test_use_appears_in_the_picture_without_a_reload(service, open_page):
    page = open_page()
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    leave(page)
    page.click("summary")
    assert page.locator("text=No request in this time").is_visible()
    assert [status(service, secret) for _ in range(7)] == [200] * 7
    # The service reads counts every 10 seconds, and the page refreshes every 5. The rest is for a
    # machine that is busy.
    expect(page.locator("svg.large")).to_have_attribute(
        "aria-label", "7 requests admitted, 0 denied", timeout=30_000
    )
    assert page.locator("#numbers").get_attribute("open") is not None
    page.goto(service.url + "/keys")
    assert "just now" in page.locator("tbody tr").inner_text()


def test_keys_are_found_and_opened_by_keyboard_alone(service, open_page):
    page = open_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    for name in ("billing", "web shop", "100%_sure", "<script>x</script>"):
        make_key(page, service, name)
    page.goto(service.url + "/keys")

    def focused():
        return page.evaluate("document.activeElement.id || document.activeElement.textContent")

    page.keyboard.press("Tab")
    assert "Skip" in focused()
    page.keyboard.press("Enter")
    for _ in range(3):
        if focused() == "search":
            break
        page.keyboard.press("Tab")
    assert focused() == "search"
    page.keyboard.type("%_s")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.url.endswith("/keys?search=%25_s")
    # The other filters, the keys to look at, the orders and a box are before the keys.
    for _ in range(22):
        if focused() == "100%_sure":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/keys/k/"))
    assert page.locator("h1 bdi").inner_text() == "100%_sure"
    # The address of a filtered list can be sent to others.
    page.goto(service.url + "/keys?search=shop")
    assert page.locator("tbody th a").all_inner_texts() == ["web shop"]


def test_pasted_key_is_found_and_is_in_no_address(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    make_key(page, service, "web shop")
    page.goto(service.url + "/keys")
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("framenavigated", lambda frame: addresses.append(frame.url))
    key_id = secret.split("_")[2][:11]
    page.fill("#search", f" X-API-Key: {secret} ")
    if not has_script:
        page.press("#search", "Enter")
    expect(page.locator("tbody th bdi")).to_have_text(["billing"])
    page.wait_for_url(f"{service.url}/keys?search={key_id}")
    # The field has the id, so nothing of the key is sent again.
    expect(page.locator("#search")).to_have_value(key_id)
    page.select_option("#state", "active")
    if not has_script:
        page.click("text=Filter")
    page.wait_for_url(f"{service.url}/keys?search={key_id}&state=active")
    page.click("tbody th a")
    page.go_back()
    expect(page.locator("tbody th bdi")).to_have_text(["billing"])
    for text in ("51H8Tq3JxWm9Zc7Va2Nb", secret[:-9] + "123456789"):
        page.fill("#search", text)
        if not has_script:
            page.press("#search", "Enter")
        found = key_id if text.startswith("kt_") else ""
        expect(page.locator("#search")).to_have_value(found)
        addresses.append(page.url)
        assert text not in page.content()
    assert len(addresses) > 5
    for address in addresses:
        assert secret[19:] not in address, address
        assert "51H8" not in address, address
    # A hint is found too.
    page.fill("#search", f"kt_test_…{secret[-4:]}")
    page.press("#search", "Enter")
    expect(page.locator("tbody th bdi")).to_have_text(["billing"])


def test_live_search_keeps_its_chips_and_says_what_it_found(service, open_page):
    page = open_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    for name in ("billing", "web shop", "web site"):
        make_key(page, service, name)
    page.goto(service.url + "/keys")
    assert page.inner_text("#count") == "3 keys"
    page.evaluate("document.getElementById('count').stays = true")
    page.fill("#search", "web")
    expect(page.locator("#count")).to_have_text("2 of 3 keys found")
    # A screen reader says a change of the element that it knows, and not the whole table.
    assert page.evaluate("document.getElementById('count').stays")
    assert page.locator("[aria-live]").count() == 0
    assert page.get_attribute("#count", "role") == "status"
    page.click("text=never expires")
    assert page.url == service.url + "/keys?search=web&flag=never_expires"
    expect(page.locator("#count")).to_have_text("0 of 3 keys found")
    page.fill("#search", "")
    page.wait_for_url(service.url + "/keys?flag=never_expires")
    page.click(".chips [aria-current]")
    assert page.url == service.url + "/keys"


def test_date_and_hours_that_are_typed_are_not_ignored(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "billing")
    page.fill("#date", "2030-01-31")
    if has_script:
        assert page.is_checked("[value=date]")
        page.check("text=30 days")
        assert page.input_value("#date") == ""
        page.fill("#date", "2030-01-31")
    page.click("text=Make key")
    if not has_script:
        assert "another time is chosen" in page.inner_text("#date-problem")
        assert page.input_value("#name") == "billing"
        assert page.input_value("#date") == "2030-01-31"
        page.check("text=Until a date")
        page.click("text=Make key")
    page.click("text=I have stored it")
    assert "2030" in page.locator("dt:text('Expires') + dd").inner_text()
    page.click("text=Rotate")
    page.fill("#hours", "3")
    if has_script:
        assert page.is_checked("[value=own]")
    page.click("text=Rotate and show")
    if not has_script:
        assert "another time is chosen" in page.inner_text("#hours-problem")
        page.check("text=Another number of hours")
        page.click("text=Rotate and show")
    page.click("text=I have stored it")
    text = page.locator(".rotation time").get_attribute("datetime")
    until = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    assert abs(until - time.time() - 3 * 3600) < 120


def test_summary_of_errors_has_the_focus_and_leads_to_the_field(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "\u200b")
    page.fill("#note", "kept")
    page.click("text=Make key")
    assert page.title().startswith("Error: New key")
    summary = page.locator("#problem")
    expect(summary).to_be_focused()
    assert "Name: it has only characters that are not visible" in summary.inner_text()
    described = page.get_attribute("#name", "aria-describedby").split()
    assert "It has only characters" in page.inner_text(f"#{described[0]}")
    assert page.get_attribute("#name", "aria-invalid") == "true"
    assert page.input_value("#note") == "kept"
    summary.locator("a").click()
    page.keyboard.press("Tab")
    assert page.url.endswith("#name")


def test_keys_to_revoke_are_counted_and_chosen_at_once(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    service.make_keys(3)
    page.goto(service.url + "/keys")
    button = page.locator("text=Revoke the chosen keys")
    if has_script:
        expect(button).to_be_disabled()
        page.locator("[name=id]").first.check()
        expect(button).to_have_text("Revoke the chosen keys (1)…")
        page.check("text=Choose all on this page")
        expect(button).to_have_text("Revoke the chosen keys (3)…")
        page.uncheck("text=Choose all on this page")
        expect(button).to_be_disabled()
        page.fill("#search", "key 1")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(button).to_be_disabled()
        page.check("text=Choose all on this page")
    else:
        button.click()
        assert "No key is ticked" in page.inner_text("[role=alert]")
        page.goto(service.url + "/keys?search=key+1")
        page.click("a:text('Choose all on this page')")
        assert page.locator("[name=id]").first.is_checked()
    button.click()
    assert page.locator("h1").inner_text() == "Revoke 1 key"


def test_rotation_and_last_use_are_refreshed_with_the_picture(service, open_page):
    page = open_page(timezone_id="Asia/Tokyo", locale="en-GB")
    sign_in(page, service)
    old = make_key(page, service, "billing")
    leave(page)
    page.click("text=Rotate")
    page.click("text=Rotate and show")
    leave(page)
    banner = page.locator(".rotation")
    assert "0 requests used it" in banner.inner_text()
    assert status(service, old) == 200
    expect(banner).to_contain_text("1 request used it", timeout=30_000)
    expect(page.locator("dt:text('Last use') + dd")).to_contain_text("just now")
    expect(page.locator("svg.large .open.old")).to_have_count(1)
    # A bar says its numbers, with its time in the reader's zone.
    title = page.locator("svg.large title").last.text_content()
    assert title.startswith("1 admitted (1 with an old secret), 0 denied, from ")
    assert "UTC" not in title


def test_sign_in_elsewhere_is_seen_without_losing_a_form(service, open_page):
    page = open_page()
    sign_in(page, service)
    sign_in(open_page(), service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "half")
    notice = page.locator("text=An operator signed in elsewhere")
    assert notice.is_visible()
    page.click("text=I have seen it")
    expect(notice).to_have_count(0)
    assert page.input_value("#name") == "half"
    page.reload()
    assert notice.count() == 0


def test_old_session_continues_after_a_proof(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    service.change("update session set proved_s = proved_s - 700")
    page.goto(service.url + "/keys/new")
    page.fill("#name", "kept name")
    page.click("text=Make key")
    assert page.locator("h1").inner_text() == "Confirm that it is you"
    page.fill("#code", service.link())
    page.click("text=Confirm and continue")
    assert page.input_value("#secret").startswith("kt_test_")
    assert page.locator("h1").inner_text() == "Key kept name"


def test_first_load_is_small_and_strict(service, open_page):
    page = open_page()
    sign_in(page, service)
    for number in range(3):
        make_key(page, service, f"key {number}")
        leave(page)
    fresh = open_page(storage_state=page.context.storage_state())
    session = fresh.context.new_cdp_session(fresh)
    session.send("Network.enable")
    sizes, responses = [], []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    fresh.on("response", lambda response: responses.append(response))
    fresh.goto(service.url + "/keys", wait_until="networkidle")
    assert len(responses) >= 4
    assert sum(sizes) <= 32 * 1024, sizes
    for response in responses:
        headers = response.all_headers()
        assert headers["content-security-policy"].startswith("default-src 'none'"), response.url
        assert headers["x-content-type-options"] == "nosniff", response.url


def test_other_sites_cannot_send_forms_or_show_the_page_in_a_frame(service, open_page):
    page = open_page()
    sign_in(page, service)
    other = page.context.new_page()
    other.route(
        "http://evil.example/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f"<iframe src='{service.url}/keys'></iframe>"
            f"<form method=post action='{service.url}/keys/team/rename'>"
            "<input name=name value=Stolen><button>Go</button></form>",
        ),
    )
    other.goto("http://evil.example/")
    assert 'id="search"' not in other.frames[1].content()
    other.click("button")
    page.goto(service.url + "/keys/team")
    assert page.locator("h1").inner_text() == "Team Acme"
