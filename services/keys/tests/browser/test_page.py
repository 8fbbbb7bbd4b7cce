"""The API Keys page in Chromium, as people use it."""

import re
import subprocess
import time
import urllib.request

import pytest
from playwright.sync_api import Error, expect
from steps import leave, make_key, sign_in, status, total


def test_first_minute_ends_with_a_key_that_answers_200(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    assert page.locator("text=No keys yet").is_visible()
    page.click("text=Make the first key")
    page.fill("#name", "billing")
    page.click("text=Make key")
    line = page.locator("#curl").text_content()
    output = subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout
    assert output.startswith("HTTP/1.1 200")
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
    assert page.inner_text("#copied") == "Select the text to copy it."
    page.click("[data-copy=secret]")
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == secret


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

    page.once("dialog", stay)
    page.click("text=I have stored it")
    page.wait_for_timeout(200)
    assert dialogs == ["beforeunload"]
    assert page.locator("#secret").is_visible()
    page.evaluate("document.dispatchEvent(new Event('copy'))")
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
        admitted = page.locator("#numbers tbody td:nth-of-type(1)").all_inner_texts()
        denied = page.locator("#numbers tbody td:nth-of-type(2)").all_inner_texts()
        assert (total(admitted), total(denied)) == (100, 50)


def test_unfinished_bucket_is_drawn_open(service, open_page):
    page = open_page()
    sign_in(page, service)
    make_key(page, service, "billing")
    at = leave(page)
    service.use("billing", {0: (60, 30), 1500: (40, 20)})
    page.goto(f"{at}?range=30d")
    assert page.locator("svg.large .open").count() == 1
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
    assert page.url.endswith("search=%25_s&env=&state=&plan=")
    # The other filters, the keys to look at and the orders are before the keys.
    for _ in range(20):
        if focused() == "100%_sure":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/keys/k/"))
    assert page.locator("h1 bdi").inner_text() == "100%_sure"
    # The address of a filtered list can be sent to others.
    page.goto(service.url + "/keys?search=shop")
    assert page.locator("tbody th a").all_inner_texts() == ["web shop"]


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
