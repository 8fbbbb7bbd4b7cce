"""Every screen of the page, with something to see on each."""

from steps import copy_secret, make_key, sign_in

# The screens that a link or an address opens.
ADDRESSES = {
    "keys": "/keys",
    "key": "/keys/k/ID",
    "key-hour": "/keys/k/ID?range=1h",
    "new": "/keys/new",
    "rotate": "/keys/k/ID/rotate",
    "end": "/keys/k/ID/end-grace",
    "edit": "/keys/k/ID/edit",
    "revoke": "/keys/k/ID/revoke",
    "bulk": "/keys/bulk?id=ID",
    "team": "/keys/team",
    "team-month": "/keys/team?range=30d",
    "remove": "/keys/team/remove?user=1",
    "delete-with-keys": "/keys/team/delete",
    "log": "/keys/log",
    "log-wrong-key": "/keys/log?key=x",
    "me": "/keys/me",
    "teams": "/keys/teams",
    "no-match": "/keys?search=nothing",
    "missing": "/keys/nothing",
    "in": "/keys/in",
}


def visit_screens(service, page):
    """Opens every screen, one after the other. Yields the name of each."""
    page.on("dialog", lambda dialog: dialog.accept())
    link = service.link()
    sign_in(page, service)
    yield "empty"

    secret = make_key(page, service, "billing service", "live")
    assert secret.startswith("kt_live_")
    yield "secret"
    page.goto(service.url + "/keys/new")
    page.fill("#name", "sent twice")
    page.click("text=Make key")
    copy_secret(page)
    page.reload()
    assert "was sent before" in page.content()
    yield "again"
    page.goto(service.url + "/keys")
    page.click("text=billing service")
    key_id = page.url[-11:]
    page.click("text=Rotate")
    page.check("text=24 hours")
    page.click("text=Rotate and show")
    yield "rotated"
    page.click("text=I have stored it")
    service.use("billing service", {0: (60, 3), 70: (40, 20), 500: (90, 0), 2000: (400, 50)})
    make_key(page, service, "never ends", lifetime="never")
    page.click("text=I have stored it")
    page.goto(service.url + "/keys/team")
    page.fill("#user", "ann@example.com")
    page.click("text=Make the invitation")
    yield "invited"
    page.goto(service.url + "/keys/team")
    page.fill("#user", "ann@example.com")
    page.select_option("#role", "owner")
    page.click("text=Make the invitation")
    assert "is a member already" in page.inner_text("h1")
    yield "member-again"

    for name, address in ADDRESSES.items():
        page.goto(service.url + address.replace("ID", key_id))
        yield name

    cookies = page.context.cookies()
    page.context.clear_cookies()
    page.goto(service.url + "/keys/in?left=1")
    assert page.inner_text("h1") == "Signed out"
    yield "left"
    page.context.add_cookies(cookies)

    page.goto(service.url + "/keys/me")
    page.click("[aria-label^='End the session']")
    assert page.inner_text("h1") == "End this session"
    yield "end-session"

    page.goto(service.url + "/keys/new")
    page.fill("#name", "late")
    page.check("text=Until a date")
    page.fill("#date", "2020-01-01")
    page.click("text=Make key")
    assert "later than today" in page.inner_text("[role=alert]")
    yield "new-wrong"
    page.goto(service.url + f"/keys/k/{key_id}/revoke")
    page.fill("#typed", "bill")
    page.click("text=Revoke key")
    assert "Type its name exactly" in page.inner_text("[role=alert]")
    yield "revoke-wrong"
    page.goto(service.url + "/keys/team")
    page.fill("#longest", "0")
    page.click("text=Save the rules")
    assert "1 to 3650" in page.inner_text("[role=alert]")
    yield "team-wrong"
    # For this screen, the list takes all keys for expired ones.
    ends = 'update "key" set not_after_s = case when not_after_s {} then {} else -not_after_s end'
    service.change(ends.format("is null", "1"))
    page.goto(service.url + "/keys/team/delete")
    assert page.locator("#typed").count() == 1
    yield "delete"
    service.change(ends.format("= 1", "null"))
    page.goto(service.url + f"/keys/k/{key_id}/end-grace")
    page.click("text=End it now")
    assert "The old secret ended" in page.inner_text("[role=status]")
    yield "done"
    service.change("update session set proved_s = proved_s - 700")
    page.goto(service.url + f"/keys/k/{key_id}/revoke")
    page.fill("#typed", "billing service")
    page.click("text=Revoke key")
    assert page.locator("h1").inner_text() == "Confirm that it is you"
    yield "confirm"
    page.fill("#code", "x")
    page.click("text=Confirm and continue")
    assert "was not accepted" in page.inner_text("[role=alert]")
    yield "confirm-wrong"
    page.fill("#code", service.link())
    page.click("text=Confirm and continue")
    assert page.locator("h1 .state").inner_text() == "revoked"
    yield "revoked"

    # The first link was not used, so it is used now, and then a second time.
    other = page.context.browser.new_context()
    for expected in (303, 403):
        code = {"code": link.partition("#")[2]}
        sent = other.request.post(
            f"{service.url}/keys/in", form=code, headers={"Origin": service.url}, max_redirects=0
        )
        assert sent.status == expected
    other.close()
    page.goto(link)
    page.click("main form[action$='/in'] button")
    assert "This link is not valid" in page.inner_text("[role=alert]")
    yield "link-used"
    for _ in range(5):
        page.fill("#code", "x")
        page.click("main form[action$='/in'] button")
        if page.locator("#code").count() == 0:
            break
    assert page.locator("h1").inner_text() == "Too many attempts"
    yield "too-many"
    service.change("alter table team rename to gone")
    page.goto(service.url + "/keys")
    assert "Requests with keys are still answered" in page.inner_text("main")
    yield "no-database"
