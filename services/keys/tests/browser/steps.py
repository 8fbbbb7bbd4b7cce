"""What people do on the page, for all tests."""

import re
import urllib.error
import urllib.request

from axe_playwright_python.sync_playwright import Axe

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def sign_in(page, service, *arguments):
    """Signs in by a link, with script or without."""
    link = service.link(*arguments)
    page.goto(link)
    if page.input_value("#code") == "":
        page.fill("#code", link)
    page.click("main form[action$='/in'] button")
    if page.url.endswith("/keys/teams"):
        page.fill("#name", "Acme")
        page.click("text=Make team")
    assert page.url == service.url + "/keys"


def make_key(page, service, name, env="test", lifetime="90"):
    """Makes a key. Returns its secret."""
    page.goto(service.url + "/keys/new")
    page.fill("#name", name)
    page.fill("#env", env)
    page.check(f"input[name=lifetime][value='{lifetime}']")
    page.click("text=Make key")
    return page.input_value("#secret")


def copy_secret(page):
    """Copies the secret by the keyboard, as a person without the button does."""
    page.locator("#secret").select_text()
    page.keyboard.press("ControlOrMeta+c")


def leave(page):
    """Leaves the page of a secret, and confirms it if the page warns."""
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=I have stored it")
    page.wait_for_url(re.compile(r"/keys/k/"))
    return page.url


def total(texts):
    """Returns the sum of numbers with commas."""
    return sum(int(text.replace(",", "")) for text in texts)


def status(service, key):
    """Returns the status of a request with a key."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/api/v1/contacts", headers={"X-API-Key": key}
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def assert_no_barrier(page, name):
    """Checks a screen by the rules of WCAG 2.2 AA that axe has, and that headings have a text."""
    options = {
        "runOnly": {"type": "tag", "values": WCAG},
        "rules": {"empty-table-header": {"enabled": True}},
    }
    found = Axe().run(page, options=options)
    violations = found.response["violations"]
    assert violations == [], f"{name}: {violations}"


def assert_not_wide(page, name):
    """Checks that nothing is beyond the right edge of the window."""
    beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert beyond <= 0, f"{name} is wider than the window by {beyond} pixels"


def add_many_keys(service, count):
    """Adds keys to the list of the first team alone, in one statement: the gate has none of them.

    Their names are `Service 00001 of 1`, and so on. Each third is of another environment, each
    seventh is revoked, and each fifth has a plan of its own.
    """
    if service.database:
        numbers = f"with n as (select i from generate_series(1, {count}) as i) "
        tag = "decode(repeat('00', 16), 'hex')"
    else:
        numbers = (
            f"with recursive n (i) as (select 1 union all select i + 1 from n where i < {count}) "
        )
        tag = "zeroblob(16)"
    insert = (
        'insert into "key" (key_id, team_id, env, name, note, plan, scopes, state, imported, tag, '
        "pepper, created_s, created_by, seq) "
    )
    rows = (
        "select (cast(i as bigint) * 2654435761) % 4611686018427387904, 1, "
        "case when i % 3 = 0 then 'live' else 'test' end, "
        "'Service ' || substr(cast(100000 + i as text), 2) || ' of ' || cast(i % 100 as text), "
        "'', case when i % 5 = 0 then 'pro' else 'default' end, '', "
        "case when i % 7 = 0 then 'revoked' else 'active' end, "
        f"0, {tag}, 0, 1700000000 + i, 'operator shell', -i from n"
    )
    with service.connect() as database:
        database.execute(insert + numbers + rows)
        database.commit()
