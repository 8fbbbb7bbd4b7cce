"""What browsers say of where a form comes from, and what they let others know."""

import http.server
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

from steps import leave, make_key, sign_in

from conftest import Service


class Quiet(http.server.BaseHTTPRequestHandler):
    """A server whose requests are not printed."""

    def log_message(self, *_):
        pass


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


@contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_forms_work_in_a_browser_that_sends_the_origin_alone(tmp_path, open_page):
    """A proxy removes `Sec-Fetch-*`, which browsers before 2023 do not send."""
    service, sent = None, []

    class Proxy(Quiet):
        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = f"http://127.0.0.1:{service.port}{self.path}"
            request = urllib.request.Request(url, body or None, method=self.command)
            for name, value in self.headers.items():
                if not name.lower().startswith(("sec-", "connection", "accept-encoding")):
                    request.add_header(name, value)
            sent.append((self.command, self.headers.get("Origin"), self.headers.get("Referer")))
            try:
                answer = urllib.request.build_opener(NoRedirect).open(request)
            except urllib.error.HTTPError as error:
                answer = error
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.forward()

        def do_POST(self):
            self.forward()

    with serving(Proxy) as proxy:
        url = f"http://localhost:{proxy.server_port}"
        service = Service(tmp_path, "--public-url", url)
        service.url = url
        page = open_page()
        sign_in(page, service)
        make_key(page, service, "billing")
        leave(page)
        page.goto(url + "/keys/team")
        page.fill("#name", "Ours")
        page.click("button:text-is('Rename')")
        page.wait_for_url(url + "/keys/team?done=renamed")
        assert page.inner_text("h1") == "Team Ours"
        posts = [origin for method, origin, _ in sent if method == "POST"]
        assert len(posts) >= 4
        assert set(posts) == {url}
        service.stop()


def test_other_sites_do_not_see_from_where_a_link_leads(service, open_page):
    seen = []

    class Other(Quiet):
        def do_GET(self):
            if self.path == "/":
                seen.append(self.headers.get("Referer"))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            # No request for an icon, which could meet the end of this server.
            self.wfile.write(b"<link rel=icon href='data:,'>")

    with serving(Other) as other:
        page = open_page()
        sign_in(page, service)
        page.goto(service.url + "/keys?search=private")
        # As a link in a note would, if the page made links of texts.
        page.evaluate(f"location.href = 'http://localhost:{other.server_port}/'")
        page.wait_for_url(f"http://localhost:{other.server_port}/")
    assert seen == [None]


def test_sign_out_leaves_what_other_products_stored(service, open_page):
    page = open_page()
    sign_in(page, service)
    page.context.add_cookies(
        [
            {"name": "theirs", "value": "1", "url": service.url},
            {"name": "wide", "value": "1", "domain": "localhost", "path": "/"},
        ]
    )
    page.evaluate("localStorage.setItem('theirs', '1')")
    # The page itself stores nothing but the cookie of its session.
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [1, 0]
    page.click("text=Sign out")
    page.wait_for_url(service.url + "/keys/in?left=1")
    assert {cookie["name"] for cookie in page.context.cookies()} == {"theirs", "wide"}
    assert page.evaluate("localStorage.getItem('theirs')") == "1"
    # The button Back shows nothing of the team.
    page.go_back()
    assert page.url == service.url + "/keys/in"
