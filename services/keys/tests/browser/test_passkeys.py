"""Passkeys in Chromium, with its virtual authenticator."""

import os
import re
import subprocess

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SIGN_IN = "text=Sign in with a passkey"
CONFIRM = "text=Confirm with a passkey"


class Device:
    """An authenticator of a page's browser, which verifies its owner by itself."""

    def __init__(self, page):
        self.session = page.context.new_cdp_session(page)
        self.session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "ctap2Version": "ctap2_1",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        added = self.session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        self.id = added["authenticatorId"]

    def send(self, method, **parameters):
        return self.session.send(f"WebAuthn.{method}", {"authenticatorId": self.id} | parameters)

    def passkeys(self):
        return self.send("getCredentials")["credentials"]


@pytest.fixture
def member(service, open_page):
    """Returns a function that opens a page in which a member is signed in, by a link."""
    service.run("keys", "team", "create", "Acme")

    def member(**options):
        page = open_page(**options)
        link = service.link("--team", "1", "--user", "ann@example.com", "--role", "admin")
        page.goto(link)
        page.fill("#code", link)
        page.click("main form[data-code] button")
        assert page.url == service.url + "/keys"
        return page

    return member


def add_passkey(page, service, name):
    page.goto(service.url + "/keys/me")
    page.fill("#passkey-name", name)
    page.click("text=Add a passkey")
    page.click("text=Make the passkey")
    expect(page.locator(".done")).to_contain_text("The passkey was added")


def sign_out(page):
    page.click("text=Sign out")
    page.wait_for_url(re.compile(r"/keys/in"))


def let_proof_end(service):
    """Lets 11 minutes pass since all proofs."""
    service.change("update session set proved_s = proved_s - 660")


def violations(page):
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    return found.response["violations"]


def test_passkey_is_added_and_signs_in(service, member):
    page = member()
    device = Device(page)
    add_passkey(page, service, "Laptop")
    [passkey] = device.passkeys()
    assert passkey["isResidentCredential"]
    assert passkey["rpId"] == "localhost"
    assert passkey["userName"] == "ann@example.com (Acme)"
    sign_out(page)
    before = page.context.cookies()
    page.click(SIGN_IN)
    page.wait_for_url(service.url + "/keys")
    [cookie] = page.context.cookies()
    assert cookie not in before
    assert "ann@example.com, admin" in page.inner_text("header")
    page.goto(service.url + "/keys/me")
    row = page.locator("section[aria-labelledby=passkeys] tbody tr")
    assert "just now" in row.inner_text()
    page.goto(service.url + "/keys/log")
    assert "passkey Laptop" in page.locator("tbody tr", has_text="signed in").first.inner_text()
    # The counter that the device sends is kept, so that it can sign in again.
    sign_out(page)
    page.click(SIGN_IN)
    page.wait_for_url(service.url + "/keys")


def test_passkey_is_renamed_with_script_and_without(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop of Ann")
    state = page.context.storage_state()
    for has_script, name in ((True, "Laptop at work"), (False, "Laptop at home")):
        page = member(java_script_enabled=has_script, storage_state=state)
        page.goto(service.url + "/keys/me")
        page.click("text=Rename…")
        page.fill("#name", " ")
        page.evaluate("document.querySelector('form.card').noValidate = true")
        page.click("main button")
        assert "The name cannot be used" in page.inner_text("[role=alert]")
        page.fill("#name", name)
        page.click("main button")
        assert page.inner_text("[role=status] >> nth=0") == "The passkey has its new name."
        assert page.locator("tbody th").last.inner_text() == name


def test_passkey_signs_in_by_keyboard_alone(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    sign_out(page)
    for _ in range(8):
        if page.evaluate("document.activeElement.textContent") == "Sign in with a passkey":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(service.url + "/keys")


def test_old_session_continues_after_a_passkey(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    let_proof_end(service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "kept name")
    page.fill("#env", "test")
    page.click("text=Make key")
    assert page.locator("h1").inner_text() == "Confirm that it is you"
    [before] = page.context.cookies()
    page.click(CONFIRM)
    expect(page.locator("h1")).to_have_text("Key kept name")
    assert page.input_value("#secret").startswith("kt_test_")
    [after] = page.context.cookies()
    assert before["value"] != after["value"]
    page.once("dialog", lambda dialog: dialog.accept())
    page.goto(service.url + "/keys/log")
    assert "passkey Laptop" in page.locator("tbody tr", has_text="confirmed").inner_text()


def test_new_passkey_keeps_its_name_until_the_proof(service, member):
    page = member()
    device = Device(page)
    let_proof_end(service)
    page.goto(service.url + "/keys/me")
    page.fill("#passkey-name", "Phone")
    page.click("text=Add a passkey")
    assert page.locator("h1").inner_text() == "Confirm that it is you"
    # There is no passkey yet to confirm with.
    assert page.locator(CONFIRM).count() == 0
    page.fill("#code", service.link("--team", "1", "--user", "ann@example.com", "--role", "admin"))
    page.click("text=Confirm and continue")
    page.click("text=Make the passkey")
    expect(page.locator(".done")).to_contain_text("The passkey was added")
    assert page.locator("th", has_text="Phone").count() == 1
    assert len(device.passkeys()) == 1


def test_removed_passkey_signs_in_no_longer(service, member):
    page = member()
    device = Device(page)
    add_passkey(page, service, "Laptop")
    page.click("[aria-label='Remove the passkey Laptop']")
    assert "You have no other passkey that works here" in page.inner_text(".warn")
    page.click("text=Cancel")
    page.click("[aria-label='Remove the passkey Laptop']")
    page.click("main button")
    expect(page.locator(".done")).to_contain_text("The passkey was removed")
    assert len(device.passkeys()) == 1
    sign_out(page)
    page.click(SIGN_IN)
    expect(page.locator("[role=alert]")).to_contain_text("it was removed")
    assert page.context.cookies() == []


def test_passkey_leads_to_the_page_that_was_opened(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    sign_out(page)
    page.goto(service.url + "/keys/log?what=passkey")
    page.wait_for_url(service.url + "/keys/in")
    page.click(SIGN_IN)
    page.wait_for_url(service.url + "/keys/log?what=passkey")


def test_replayed_sign_in_is_refused(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    sign_out(page)
    with page.expect_request("**/keys/passkey/in") as sent:
        page.click(SIGN_IN)
    page.wait_for_url(service.url + "/keys")
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": service.url}
    page.context.clear_cookies()
    again = page.request.post(
        sent.value.url, data=sent.value.post_data, headers=headers, max_redirects=0
    )
    assert again.status == 403
    assert "was answered before" in again.text()
    assert page.context.cookies() == []


def test_device_that_refuses_is_explained(service, member):
    page = member()
    device = Device(page)
    add_passkey(page, service, "Laptop")
    # The browser does not make a second one on the device.
    page.fill("#passkey-name", "Again")
    page.click("text=Add a passkey")
    page.click("text=Make the passkey")
    expect(page.locator("[data-said]")).to_contain_text("has a passkey of yours")
    device.send("setUserVerified", isUserVerified=False)
    page.goto(service.url + "/keys/me")
    sign_out(page)
    page.click(SIGN_IN)
    expect(page.locator("[data-said]")).to_contain_text("Try again, or use a link")
    device.send("setUserVerified", isUserVerified=True)
    page.click(SIGN_IN)
    page.wait_for_url(service.url + "/keys")


def test_too_many_sign_ins_are_explained(service, open_page):
    page = open_page()
    Device(page)
    page.goto(service.url + "/keys/in")
    for _ in range(5):
        page.fill("#code", "x")
        with page.expect_navigation():
            page.click("main form[data-code] button")
    page.goto(service.url + "/keys/in")
    page.click(SIGN_IN)
    expect(page.locator("[data-said]")).to_contain_text("Too many sign-ins from your address")


def test_passkeys_need_script_and_links_do_not(service, member):
    page = member(java_script_enabled=False)
    page.goto(service.url + "/keys/me")
    page.fill("#passkey-name", "Laptop")
    page.click("text=Add a passkey")
    assert page.locator("text=Make the passkey").is_hidden()
    assert "Passkeys need script" in page.inner_text("main")
    page.goto(service.url + "/keys/in")
    assert page.locator(SIGN_IN).is_hidden()
    assert "Passkeys need script" in page.inner_text("main")


def test_page_at_an_ip_address_names_the_link(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    page.goto(service.url.replace("localhost", "127.0.0.1") + "/keys/in")
    page.click(SIGN_IN)
    expect(page.locator("[data-said]")).to_contain_text("Use a link")


def test_start_names_passkeys_of_another_host(service, member):
    page = member()
    Device(page)
    add_passkey(page, service, "Laptop")
    service.stop()
    arguments = ["serve", "--listen", "127.0.0.1:0", "--data", "data"]
    started = subprocess.Popen(
        [os.environ["KEYTALLY_TEST_PROGRAM"], *arguments, "--public-url", "https://keys.example"],
        cwd=service.folder,
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    note = started.stderr.readline()
    started.terminate()
    started.communicate()
    assert "1 passkey of the page of keys has the host localhost" in note


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_screens_with_passkeys_have_no_barrier(service, member, scheme, width):
    page = member(color_scheme=scheme, viewport={"width": width, "height": 900})
    Device(page)
    add_passkey(page, service, "Laptop of Ann")
    pictures = os.environ.get("KEYTALLY_TEST_PICTURES")

    def check(name):
        assert violations(page) == [], name
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, f"{name} is wider than the window by {beyond} pixels"
        if pictures:
            page.screenshot(path=f"{pictures}/{name}-{scheme}-{width}.png", full_page=True)

    check("me-passkeys")
    page.click("text=Rename…")
    check("name-passkey")
    page.goto(service.url + "/keys/me")
    page.click("[aria-label='Remove the passkey Laptop of Ann']")
    check("remove-passkey")
    page.goto(service.url + "/keys/me")
    page.click("[aria-label^='End the session']")
    check("end-session-passkey")
    page.goto(service.url + "/keys/me")
    page.fill("#passkey-name", "Phone")
    page.click("text=Add a passkey")
    check("new-passkey")
    let_proof_end(service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "billing")
    page.click("text=Make key")
    check("confirm-passkey")
    sign_out(page)
    check("in-passkey")
