"""What other people and other sites try: none of it succeeds."""

import re
from urllib.parse import quote

from steps import assert_not_wide, leave, make_key, sign_in, status

# Names of 64 characters at most: markup, right-to-left text, emoji of several characters, quotes
# and patterns.
NAMES = [
    "<script>document.title = 'stolen'</script>",
    '"><img src=x onerror="document.title=\'stolen\'">',
    "</textarea></title><svg onload=alert(1)>",
    "שלום עולם txt.exe",
    "مفتاح الفواتير (٢)",
    "👩🏽‍💻🇨🇭 ключ 键 🔑",
    "W" * 64,
    "ÄÖÜß" * 16,
    "100%_\\ 'or' 1=1 --",
    "{{7*7}} ${7*7} <%= 7*7 %> javascript:alert(1)",
    "=cmd|' /C calc'!A0",
]


def test_any_text_is_shown_as_it_was_typed(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script, viewport={"width": 390, "height": 800})
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    # What the server writes is the same without script.
    names = NAMES if has_script else NAMES[:2]
    for name in names:
        page.goto(service.url + "/keys/new")
        page.fill("#name", name)
        page.fill("#note", f"{name}\n{name}")
        page.click("text=Make key")
        assert page.locator("h1 bdi").text_content() == name
        page.click("text=I have stored it")
        at = page.url.partition("?")[0]
        assert_shown(page, at, [name])
        assert page.locator("dd.note").text_content() == f"{name}\n{name}"
        assert_shown(page, f"{at}/edit", [])
        assert page.input_value("#name") == name
        assert page.input_value("#note") == f"{name}\n{name}"
        page.goto(service.url + "/keys/team")
        page.fill("#name", name)
        page.click("form[action$='/team/rename'] button")
        assert page.locator("header .of").text_content() == name
        page.fill("#user", name)
        page.click("text=Make the invitation")
        assert page.locator("h1 bdi").text_content() == name
        assert_shown(page, f"{service.url}/keys?search={quote(name, safe='')}", [name])
        assert page.input_value("#search") == name
        assert page.locator("tbody th bdi").all_text_contents() == [name]
    for path in ("rotate", "revoke"):
        assert_shown(page, f"{at}/{path}", [name])
    assert_shown(page, f"{service.url}/keys", names)
    assert_shown(page, f"{service.url}/keys/team", names)
    assert_shown(page, f"{service.url}/keys/log", [])
    assert_shown(page, f"{service.url}/keys/me", [name])
    assert_shown(page, f"{service.url}/keys/teams", [name])
    file = page.context.request.get(service.url + "/keys/log.csv").text()
    assert not re.search(r'(^|,)"?[=+@-]', file, re.MULTILINE)


def test_name_that_turns_what_follows_is_refused(service, open_page):
    page = open_page()
    sign_in(page, service)
    page.goto(service.url + "/keys/new")
    page.fill("#name", "annexe\u202etxt.exe")
    page.click("text=Make key")
    assert "changes the order of others" in page.inner_text("main")
    page.goto(service.url + "/keys")
    assert "annexe" not in page.inner_text("main")


def assert_shown(page, address, names):
    """Checks that a page shows these names as they are, and that none of them acts."""
    page.goto(address)
    texts = page.locator("bdi").all_text_contents()
    assert [name for name in names if name not in texts] == [], address
    assert page.title().endswith("Keytally"), address
    assert page.locator("main script, main img, main [onload]").count() == 0, address
    assert_not_wide(page, address)


def test_session_of_another_person_is_not_taken_over(service, open_page):
    page = open_page()
    page.goto(service.url + "/keys/in")
    # A cookie that an attacker planted before is not the session that begins.
    planted = "a" * 64
    page.context.add_cookies([{"name": "keytally", "value": planted, "url": service.url}])
    sign_in(page, service)
    (first,) = [one["value"] for one in page.context.cookies() if one["name"] == "keytally"]
    assert first != planted
    assert page.context.cookies()[0]["httpOnly"]
    assert page.evaluate("document.cookie") == ""

    # A new proof gives the session a new token, and the token before it ends.
    service.change("update session set proved_s = proved_s - 700")
    page.goto(service.url + "/keys/new")
    page.fill("#name", "billing")
    page.click("text=Make key")
    page.fill("#code", service.link())
    page.click("text=Confirm and continue")
    leave(page)
    (second,) = [one["value"] for one in page.context.cookies() if one["name"] == "keytally"]
    assert second != first
    thief = open_page()
    for token in (planted, first):
        thief.context.add_cookies([{"name": "keytally", "value": token, "url": service.url}])
        thief.goto(service.url + "/keys")
        assert thief.url == service.url + "/keys/in"

    # A sign-in ends the session that the browser had.
    sign_in(page, service)
    thief.context.add_cookies([{"name": "keytally", "value": second, "url": service.url}])
    thief.goto(service.url + "/keys")
    assert thief.url == service.url + "/keys/in"


def test_stolen_session_reads_names_and_changes_nothing(service, open_page):
    page = open_page()
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    at = leave(page)
    service.change("update session set proved_s = proved_s - 700")
    thief = open_page(storage_state=page.context.storage_state())
    for path in ("/keys", "/keys/log", "/keys/team", "/keys/me"):
        thief.goto(service.url + path)
        assert secret not in thief.content()
    for path, fields in [
        ("/keys/new", {"form_id": "0" * 64, "name": "mine", "env": "test", "lifetime": "90"}),
        (f"{at}/rotate", {"form_id": "0" * 64, "grace": "0"}),
        (f"{at}/end-grace", {}),
        (f"{at}/revoke", {"typed": "billing"}),
        (f"{at}/edit", {"name": "billing", "scope": "read", "lifetime": "never"}),
        ("/keys/bulk", {"id": at[-11:], "typed": "1"}),
        ("/keys/team/invite", {"user": "thief", "role": "owner"}),
        ("/keys/team/set", {"longest": "", "live_role": "member"}),
        ("/keys/teams/new", {"name": "mine"}),
    ]:
        address = path if path.startswith("http") else service.url + path
        headers = {"Origin": service.url}
        answer = thief.context.request.post(address, form=fields, headers=headers, max_redirects=0)
        assert answer.status == 403, path
        assert "Confirm that it is you" in answer.text(), path
    assert status(service, secret) == 200
    page.goto(service.url + "/keys")
    assert page.locator("tbody tr").count() == 1


def test_no_address_leads_to_another_site(service, open_page):
    page = open_page()
    code = service.link().partition("#")[2]
    evil = ["https://evil.example", "//evil.example", "/\\evil.example", "/%5Cevil.example"]
    names = ("next", "to", "return", "url", "redirect", "return_to")
    query = "&".join(f"{name}=//evil.example" for name in names)
    for address in [f"/keys/in?{query}", f"/keys?{query}"]:
        page.goto(service.url + address)
        assert page.url.startswith(service.url + "/keys/in")
        assert "evil" not in page.content()
    answer = page.context.request.post(
        f"{service.url}/keys/in?{query}",
        form={"code": code, **dict.fromkeys(names, "//evil.example")},
        headers={"Origin": service.url, "X-Forwarded-Host": "evil.example"},
        max_redirects=0,
    )
    assert (answer.status, answer.headers["location"]) == (303, "/keys")
    for path in evil:
        target = service.url + "/keys/" + path
        answer = page.context.request.get(target, max_redirects=0)
        assert "evil" not in answer.headers.get("location", ""), path
    for method, path in [("get", "/keys/new"), ("get", "/keys/teams"), ("post", "/keys/me/end")]:
        call = getattr(page.context.request, method)
        answer = call(
            f"{service.url}{path}?{query}", headers={"Origin": service.url}, max_redirects=0
        )
        assert answer.headers.get("location", "/keys").startswith("/keys"), path


def test_form_of_another_site_changes_nothing(service, open_page):
    page = open_page()
    sign_in(page, service)
    secret = make_key(page, service, "billing")
    at = leave(page)
    other = page.context.new_page()
    forms = [
        (f"{at}/revoke", "typed=billing"),
        (f"{service.url}/keys/new", "form_id=" + "0" * 64 + "&name=x&env=test&lifetime=90"),
        (f"{service.url}/keys/team/invite", "user=thief&role=owner"),
        (f"{service.url}/keys/out", ""),
        (f"{service.url}/keys/in", "code=" + service.link().partition("#")[2]),
    ]
    # Another site, another port of the same host, and a sandbox without an origin.
    for origin in ("http://evil.example/", "http://localhost:1/"):
        for action, body in forms:
            fields = "".join(
                "<input name='{}' value='{}'>".format(*pair.split("="))
                for pair in body.split("&")
                if pair
            )
            form = f"<form method=post action='{action}'>{fields}<button>Go</button></form>"

            def answer(route, request, form=form):
                assert request.method == "GET"
                route.fulfill(content_type="text/html", body=form)

            other.route(origin, answer)
            other.goto(origin)
            with other.expect_navigation():
                other.click("button")
            assert "not sent from this page" in other.content(), (origin, action)
            other.unroute(origin)
    assert status(service, secret) == 200
    page.goto(service.url + "/keys")
    assert page.locator("tbody tr").count() == 1
