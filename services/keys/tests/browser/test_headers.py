"""Every response of the page: its header fields, its cookies and where its links lead."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from screens import visit_screens
from steps import leave, make_key, sign_in

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FIELDS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def assert_secure(response, what):
    """Checks a response of the page. An asset is kept for a year, and all else not at all."""
    headers = response.headers
    for name, value in FIELDS.items():
        assert headers.get(name) == value, f"{what}: {name}"
    is_asset = "/keys/assets/" in what and response.status == 200
    cache = "public, max-age=31536000, immutable" if is_asset else "no-store"
    assert headers["cache-control"] == cache, what
    assert "access-control-allow-origin" not in headers, what
    assert "server" not in headers, what
    # A method of the browser's responses, and an attribute of others.
    fields = response.headers_array
    for field in fields() if callable(fields) else fields:
        if field["name"].lower() == "set-cookie":
            for part in ("HttpOnly", "SameSite=Lax", "Path=/"):
                assert f"; {part}" in field["value"], what


class Links(HTMLParser):
    """The addresses in a page, and what it must not have."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.forms, self.inline = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        address = attributes.get("href") or attributes.get("src") or attributes.get("hx-get")
        if address:
            self.addresses.append(address)
        if tag == "form":
            self.forms.append(attributes["action"])
        is_inline = tag == "style" or (tag == "script" and "src" not in attributes)
        is_handler = any(name == "style" or re.match("on|hx-on", name) for name in attributes)
        if is_inline or is_handler:
            self.inline.append(self.get_starttag_text())


def test_every_link_leads_to_a_response_with_all_fields(service, open_page):
    page = open_page()
    sign_in(page, service)
    for name in ("billing", "web shop"):
        make_key(page, service, name)
        leave(page)
    service.make_keys(51)
    request = page.context.request
    waiting, seen, forms = [service.url + "/keys"], {}, set()
    while waiting:
        address = waiting.pop()
        # Rows have the same links with other ids.
        shape = re.sub(r"k/[^/?]{11}|(id|user|after|before|key)=[^&]+", "ID", address)
        if shape in seen:
            continue
        response = request.get(address, max_redirects=0)
        seen[shape] = response.status
        assert_secure(response, address)
        if "text/html" in response.headers.get("content-type", ""):
            links = Links(response.text())
            assert links.inline == [], address
            forms.update(urljoin(address, action) for action in links.forms)
            for found in links.addresses:
                target = urljoin(address, found).partition("#")[0]
                assert target.startswith(service.url + "/keys"), f"{address} leads to {target}"
                waiting.append(target)
    paths = {urlsplit(address).path for address in seen}
    missing = {"/keys", "/keys/new", "/keys/team", "/keys/log", "/keys/log.csv", "/keys/me"}
    assert missing <= paths, missing - paths
    assert len([path for path in paths if "/assets/" in path]) == 4
    assert set(seen.values()) == {200}
    # A form without its values, and one that is too long, are refused as securely.
    others = [f"/keys/k/{name}" for name in ("00000000001", "x", "%ff")]
    others += ["/keys/nothing", "/keys/assets/nothing", "/keys/bulk?id=x", "/keys/k/x/rotate"]
    for other in others:
        response = request.get(service.url + other, max_redirects=0)
        assert response.status in (400, 404), other
        assert_secure(response, other)
        assert "<h1>" in response.text(), other
    own = {"Origin": service.url}
    statuses = set()
    for action in sorted(forms - {service.url + "/keys/out"}):
        for fields, headers in (
            ({"user": "99"}, own),
            ({"name": "x" * 70_000}, own),
            ({"name": "stolen"}, {"Origin": "http://evil.example"}),
        ):
            response = request.post(action, form=fields, headers=headers, max_redirects=0)
            assert_secure(response, action)
            statuses.add(response.status)
        for method in ("PUT", "DELETE", "PATCH"):
            response = request.fetch(action, method=method, headers=own, max_redirects=0)
            assert response.status == 405, action
            assert_secure(response, action)
    assert {400, 403, 404, 413} <= statuses
    response = request.post(f"{service.url}/keys/out", headers=own, max_redirects=0)
    assert_secure(response, "/keys/out")
    assert response.headers["clear-site-data"] == '"cache"'
    # Without a session, a page leads to the entrance and nowhere else.
    for shape in ("/keys", "/keys/team", "/keys/new", "/keys/log.csv"):
        response = request.get(service.url + shape, max_redirects=0)
        assert_secure(response, shape)
        assert (response.status, response.headers["location"]) == (303, "/keys/in")


def test_every_response_of_every_screen_has_all_fields(service, open_page):
    page = open_page()
    responses = []
    page.on("response", lambda response: responses.append(response))
    for _ in visit_screens(service, page):
        pass
    assert len(responses) > 100
    for response in responses:
        assert_secure(response, f"{response.request.method} {response.url}")
