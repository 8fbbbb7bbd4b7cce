"""Every flow by keyboard alone: the tests never point at anything."""

import re

import pytest
from playwright.sync_api import expect
from steps import status

# The most elements that a person passes by before the one that is wanted.
PATIENCE = 200


class Keyboard:
    """The keyboard of a person who reads what is focused."""

    def __init__(self, page):
        self.page = page
        self.press = page.keyboard.press
        self.type = page.keyboard.type

    def focused(self):
        """Returns the name of the focused element, and checks that it is seen to be focused."""
        found = self.page.evaluate(
            """() => {
                const element = document.activeElement;
                if (!element || element === document.body) return null;
                const box = element.getBoundingClientRect();
                const style = getComputedStyle(element);
                const label = element.labels?.[0]?.innerText;
                const name = element.getAttribute("aria-label") ?? label ?? element.innerText;
                const inside = box.bottom > 0 && box.top < innerHeight;
                const shown = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return { name: name.trim(), inside, shown, type: element.type ?? element.tagName };
            }"""
        )
        if found:
            assert found["shown"], f"the focus on {found['name']!r} is not visible"
            assert found["inside"], f"{found['name']!r} is focused out of sight"
        return found and found["name"]

    def reach(self, name, back=False):
        """Presses Tab until an element is focused whose name begins so."""
        for _ in range(PATIENCE):
            if (self.focused() or "").startswith(name):
                return
            self.press("Shift+Tab" if back else "Tab")
        raise AssertionError(f"Tab never reaches {name!r}")

    def use(self, name):
        """Follows the link or presses the button of this name, and waits for its page."""
        self.reach(name)
        with self.page.expect_navigation():
            self.press("Enter")

    def fill(self, name, text):
        self.reach(name)
        self.press("Control+A")
        self.type(text)

    def choose(self, group, name):
        """Chooses a radio button, by the arrows from the one that Tab reaches."""
        self.reach(group)
        for _ in range(10):
            if self.focused().startswith(name):
                return
            self.press("ArrowDown")
        raise AssertionError(f"no arrow reaches {name!r}")

    def sign_in(self, service, *arguments):
        self.open(service.link(*arguments))

    def open(self, link):
        """Opens a link, of which a script fills in the code, and signs in."""
        self.page.goto(link)
        self.use("Code or link")

    def make(self, name):
        """Makes a key from the list. Returns its secret."""
        self.use("New key")
        self.fill("Name", name)
        self.fill("Environment", "test")
        self.use("Make key")
        return self.page.input_value("#secret")


@pytest.fixture
def keyboard(open_page):
    page = open_page(
        permissions=["clipboard-read", "clipboard-write"],
        viewport={"width": 1280, "height": 720},
    )
    return Keyboard(page)


def test_first_key_is_made_copied_and_used_by_keyboard(service, keyboard):
    page = keyboard.page
    keyboard.sign_in(service)
    keyboard.fill("Name", "Acme")
    keyboard.use("Make team")
    keyboard.use("Make the first key")
    # The link before the menu leads to the content.
    keyboard.reach("Skip to the content")
    keyboard.press("Enter")
    keyboard.press("Tab")
    assert keyboard.focused() == "Name"
    keyboard.type("billing")
    keyboard.fill("Environment", "live")
    keyboard.choose("default", "pro")
    keyboard.reach("read")
    keyboard.press("Space")
    keyboard.press("Space")
    keyboard.choose("90 days", "30 days")
    keyboard.fill("Note", "for the\nmonthly bill")
    keyboard.use("Make key")
    secret = page.input_value("#secret")
    keyboard.reach("Copy")
    keyboard.press("Enter")
    expect(page.locator("#copied")).to_have_text("Copied.")
    # The focus stays on the button, and the text is copied.
    assert keyboard.focused() == "Copy"
    assert page.evaluate("navigator.clipboard.readText()") == secret
    assert status(service, secret) == 200
    keyboard.use("I have stored it")
    assert page.locator("h1 bdi").inner_text() == "billing"
    assert "pro" in page.inner_text(".facts")
    # From the last element, the focus leaves the page and returns to its top.
    keyboard.reach("The whole log of this key")
    keyboard.press("Tab")
    if keyboard.focused() is None:
        keyboard.press("Tab")
    assert keyboard.focused() == "Skip to the content"


def test_key_is_rotated_and_revoked_by_keyboard(service, keyboard):
    page = keyboard.page
    keyboard.sign_in(service)
    keyboard.fill("Name", "Acme")
    keyboard.use("Make team")
    keyboard.use("Make the first key")
    keyboard.fill("Name", "billing")
    keyboard.use("Make key")
    old = page.input_value("#secret")
    keyboard.reach("Copy")
    keyboard.press("Space")
    expect(page.locator("#copied")).to_have_text("Copied.")
    keyboard.use("I have stored it")

    keyboard.use("Rotate")
    keyboard.choose("24 hours", "1 hour")
    keyboard.use("Rotate and show")
    new = page.input_value("#secret")
    keyboard.reach("Copy")
    keyboard.press("Enter")
    expect(page.locator("#copied")).to_have_text("Copied.")
    keyboard.use("I have stored it")
    assert [status(service, old), status(service, new)] == [200, 200]
    keyboard.use("End it now")
    # Another way out, and back.
    keyboard.use("Cancel")
    keyboard.use("End it now")
    keyboard.use("End it now")
    assert [status(service, old), status(service, new)] == [401, 200]

    keyboard.use("Change")
    keyboard.fill("Name", "billing 2")
    keyboard.choose("As it is", "30 days from now")
    keyboard.use("Save")
    service.use("billing 2", {1: (5, 0)})
    keyboard.use("Revoke")
    keyboard.fill("Reason", "leaked")
    keyboard.fill("Name of the key", "wrong")
    keyboard.use("Revoke key")
    keyboard.fill("Name of the key", "billing 2")
    keyboard.use("Revoke key")
    assert status(service, new) == 401
    assert page.locator("h1 .state").inner_text() == "revoked"


def test_keys_are_found_paged_and_revoked_by_keyboard(service, keyboard):
    page = keyboard.page
    keyboard.sign_in(service)
    keyboard.fill("Name", "Acme")
    keyboard.use("Make team")
    secrets = service.make_keys(53)
    page.reload()
    assert page.locator("tbody tr").count() == 50
    keyboard.use("Next page")
    assert page.locator("tbody tr").count() == 3
    keyboard.use("First page")

    keyboard.fill("Search by name", "key 5")
    expect(page.locator("tbody tr")).to_have_count(4)
    # The list changed, and the focus is where it was.
    assert keyboard.focused() == "Search by name, id or hint"
    keyboard.reach("State")
    keyboard.press("End")
    expect(page.locator("#rows")).to_contain_text("No key matches")
    assert keyboard.focused() == "State"
    keyboard.press("Home")
    keyboard.press("ArrowDown")
    page.wait_for_url(re.compile(r"search=key%205&state=all$"))
    keyboard.press("ArrowDown")
    page.wait_for_url(re.compile(r"search=key%205&state=active$"))
    expect(page.locator("tbody tr")).to_have_count(4)
    keyboard.reach("Filter")

    for name in ("key 52", "key 51"):
        keyboard.reach(f"Choose {name}")
        keyboard.press("Space")
    keyboard.use("Revoke the chosen keys")
    keyboard.fill("To revoke them, type their number", "2")
    keyboard.use("Revoke them")
    assert "Revoked 2 keys" in page.inner_text("[role=status]")
    assert [status(service, secret) for secret in secrets[50:]] == [200, 401, 401]


def test_members_and_sessions_are_managed_by_keyboard(service, keyboard, open_page):
    page = keyboard.page
    keyboard.sign_in(service)
    keyboard.fill("Name", "Acme")
    keyboard.use("Make team")
    keyboard.use("Team")
    keyboard.fill("Name of the person", "ann@example.com")
    keyboard.reach("Role")
    keyboard.type("adm")
    keyboard.use("Make the invitation")
    link = page.input_value("#secret")
    keyboard.reach("Copy")
    keyboard.press("Enter")
    expect(page.locator("#copied")).to_have_text("Copied.")

    other = Keyboard(open_page())
    other.open(link)
    assert "ann@example.com, admin" in other.page.inner_text("header")

    keyboard.use("To the team")
    keyboard.reach("Role of ann@example.com")
    keyboard.type("vie")
    keyboard.use("Save the role of ann@example.com")
    assert "Role of ann" in page.content()
    other.page.reload()
    assert "ann@example.com, viewer" in other.page.inner_text("header")
    keyboard.fill("Longest lifetime in days", "60")
    keyboard.use("Save the rules")
    keyboard.use("Remove ann@example.com")
    keyboard.use("Remove member")
    other.page.goto(service.url + "/keys")
    assert other.page.url == service.url + "/keys/in"

    # A second session of the operator ends from the first.
    other.sign_in(service)
    keyboard.use("Me")
    assert page.locator("tbody tr").count() == 2
    this = page.locator("tbody tr").nth(0).locator(".chip").count()
    ends = page.locator("tbody td a")
    keyboard.reach("End the session")
    while page.evaluate("document.activeElement.closest('tr').querySelector('.chip') !== null"):
        keyboard.press("Tab")
    assert ends.count() == 2
    assert this in (0, 1)
    with page.expect_navigation():
        keyboard.press("Enter")
    assert page.inner_text("h1") == "End another session"
    keyboard.use("End session")
    assert page.locator("tbody tr").count() == 1
    other.page.reload()
    assert other.page.url == service.url + "/keys/in"
    keyboard.use("Sign out")
    assert page.url == service.url + "/keys/in?left=1"


def test_focus_stays_when_numbers_are_refreshed(service, keyboard):
    page = keyboard.page
    keyboard.sign_in(service)
    keyboard.fill("Name", "Acme")
    keyboard.use("Make team")
    (secret,) = service.make_keys(1)
    page.reload()
    keyboard.use("key 0")
    for name in ("The numbers as a table", "24 h"):
        keyboard.reach(name, back=name == "24 h")
        assert status(service, secret) == 200
        with page.expect_response(re.compile("range=")):
            pass
        expect(page.locator(".sums")).to_contain_text(re.compile("admitted"))
        page.wait_for_timeout(100)
        assert keyboard.focused().startswith(name)
