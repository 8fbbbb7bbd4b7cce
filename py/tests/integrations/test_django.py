"""Django's middleware and REST framework's classes, by their test clients."""

import asyncio
import re
import sys
import traceback

import contract
import django_app
import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client, override_settings
from rest_framework.decorators import api_view, authentication_classes, throttle_classes
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory

from keytally import Gate, Limiter
from keytally.django import GateMiddleware, LimiterMiddleware, check_settings
from keytally.rest_framework import KeyAuthentication, LimiterThrottle


@pytest.fixture
def gate(tmp_path, pepper):
    return Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans={"default": "2/31d"})


@pytest.fixture
def configured(gate, pepper):
    """Return a function that changes the settings until the test ends."""
    changes = []

    def configure(middleware=django_app.MIDDLEWARE, limiter=None, **options):
        tables = {"GATE": {"PATH": gate.path, "PEPPER": pepper, **options}}
        if limiter is not None:
            tables["LIMITER"] = limiter
        changes.append(override_settings(KEYTALLY=tables, MIDDLEWARE=middleware))
        changes[-1].enable()

    configure()
    yield configure
    for change in reversed(changes):
        change.disable()


class Synchronous:
    client = Client

    def fetch(self, path, headers, address="127.0.0.1"):
        client = self.client(raise_request_exception=False, REMOTE_ADDR=address)
        response = client.get(path, headers=headers)
        body = response.content if not response.streaming else b"".join(response)
        return response.status_code, list(response.items()), body


class OfRestFramework(Synchronous):
    client = APIClient


class ClientAt(AsyncClient):
    """A client with an address. That of Django has no such option."""

    def __init__(self, address):
        super().__init__(raise_request_exception=False)
        self.address = address

    def _base_scope(self, **request):
        return {**super()._base_scope(**request), "client": [self.address, 0]}


class Asynchronous:
    def fetch(self, path, headers, address="127.0.0.1"):
        async def fetch():
            response = await ClientAt(address).get(path, headers=headers)
            body = (
                response.content
                if not response.streaming
                else b"".join([part async for part in response])
            )
            return response.status_code, list(response.items()), body

        return asyncio.run(fetch())


@pytest.fixture(params=[Synchronous, Asynchronous])
def fetch(request, configured):
    def fetch(path, key=None, **headers):
        if key is not None:
            headers["X-API-Key"] = key.expose()
        return request.param().fetch(path, headers)

    return fetch


# The calls of `notify`.
notified = []


def notify(verdict, request):
    notified.append((verdict.outcome, request.path))


def cost(request):
    return int(request.headers["cost"])


@pytest.mark.parametrize("path", ["/", "/later"])
def test_each_outcome_has_its_response(fetch, gate, key, path):
    contract.assert_each_outcome(
        lambda text: fetch(path, **contract.presenting(text)), gate, key, b'"account": 42'
    )


def test_every_response_has_header_fields(fetch, gate):
    for path, expected in {"/own": 200, "/gone": 404, "/fail": 500, "/nowhere": 404}.items():
        status, headers, _ = fetch(path, gate.issue(1))
        assert (status, contract.fields(headers)["x-ratelimit-remaining"]) == (expected, "1")


def test_streamed_bodies_pass_unbuffered(gate, configured, key):
    status, headers, body = Synchronous().fetch("/stream", {"X-API-Key": key.expose()})
    contract.assert_admitted(status, headers, remaining=1)
    assert body == b"part 0\npart 1\npart 2\n"


def test_exempt_paths_need_no_key(fetch, configured):
    configured(EXEMPT=["/health"])
    assert fetch("/health")[0] == 200
    assert fetch("/healthy")[0] == 401


def test_settings_name_functions_by_import_path(fetch, configured, key):
    configured(COST="test_django.cost", ON_VERDICT="test_django.notify", SHADOW=True)
    notified.clear()
    contract.assert_admitted(*fetch("/", key, cost="2")[:2], remaining=0)
    status, headers, _ = fetch("/", key, cost="1")
    assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, "denied")
    assert "retry-after" not in contract.fields(headers)
    assert notified == [("admitted", "/"), ("denied", "/")]


def cors(get_response):
    """Add a CORS field, as middleware for CORS does."""

    def middleware(request):
        response = get_response(request)
        response["Access-Control-Allow-Origin"] = "*"
        return response

    return middleware


def test_refusals_pass_outer_middleware(fetch, configured, key):
    configured(middleware=["test_django.cors", *django_app.MIDDLEWARE])
    for presented, expected in [(None, 401), (key, 200), (key, 200), (key, 429)]:
        status, headers, _ = fetch("/", presented)
        assert (status, contract.fields(headers)["access-control-allow-origin"]) == (expected, "*")


def sending_wrong_keys(client, path):
    def send_wrong_key(text, address="203.0.113.9", forwarded_for=None):
        return client.fetch(path, contract.presenting(text, forwarded_for), address)

    return send_wrong_key


@pytest.mark.parametrize(
    ("client", "middleware", "path"),
    [
        (Synchronous(), django_app.MIDDLEWARE, "/"),
        (Asynchronous(), django_app.MIDDLEWARE, "/"),
        (OfRestFramework(), django_app.REST_FRAMEWORK_MIDDLEWARE, "/rest"),
    ],
)
def test_wrong_keys_beyond_the_limit_are_refused(
    configured, gate, tmp_path, client, middleware, path
):
    send_wrong_key = sending_wrong_keys(client, path)
    configured(middleware=middleware, FAILURES="2/31d")
    contract.assert_wrong_keys_are_limited(send_wrong_key, gate)
    table = {"PATH": tmp_path / "guesses", "POLICY": "2/31d"}
    configured(middleware=middleware, FAILURES=table, TRUSTED_PROXIES=contract.PROXIES)
    contract.assert_trusted_proxies_are_read(send_wrong_key)
    configured(middleware=middleware, FAILURES=None)
    assert {send_wrong_key("nonsense")[0] for _ in range(50)} == {401}


def test_wrong_key_limit_without_middleware_has_retry_after(configured):
    configured(middleware=[], FAILURES="1/31d")
    fetch = lambda: OfRestFramework().fetch("/rest", {"X-API-Key": "nonsense"})  # noqa: E731
    assert fetch()[0] == 401
    status, headers, body = fetch()
    assert (status, body) == (429, b'{"error":"Rate limit exceeded. Please try again later."}')
    assert int(contract.fields(headers)["retry-after"]) >= 1
    assert "www-authenticate" not in contract.fields(headers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"FAILURES": "many"}, 'KEYTALLY."GATE".: .*many'),
        ({"FAILURES": 5}, "failures must be a policy"),
        ({"FAILURES": {"POLICY": "2/31d"}}, '"FAILURES". as a dict must have "PATH"'),
        ({"TRUSTED_PROXIES": "10.0.0.0/8"}, "trusted_proxies must be a list"),
        ({"TRUSTED_PROXIES": ["10.0.0.0/33"]}, "trusted_proxies.0. must be an address"),
    ],
)
def test_invalid_failures_setting_is_reported(configured, options, message):
    configured(**options)
    [error] = check_settings()
    assert re.search(message, error.msg)


LIMITER = {"POLICY": "2/31d", "CAPACITY": 100, "WORKERS": 1}
BOTH = [*django_app.MIDDLEWARE, "keytally.django.LimiterMiddleware"]


def test_limiter_counts_client_addresses(fetch, configured):
    configured(middleware=["keytally.django.LimiterMiddleware"], limiter=LIMITER)
    for remaining in (1, 0):
        contract.assert_admitted(*fetch("/own")[:2], remaining=remaining)
    contract.assert_exceeded(*fetch("/own"))


def test_limiter_counts_results_of_key(fetch, configured, tmp_path):
    table = {
        "POLICY": "2/31d",
        "PATH": tmp_path / "limiter",
        "KEY": lambda request: request.headers.get("who"),
    }
    configured(middleware=["keytally.django.LimiterMiddleware"], limiter=table)
    assert [fetch("/own", who="a")[0] for _ in range(3)] == [200, 200, 429]
    assert [fetch("/own")[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("argv", "environment", "expected"),
    [
        (["gunicorn", "-w", "4", "app"], {}, "E002"),
        (["gunicorn", "--workers=4", "app"], {}, "E002"),
        (["uvicorn", "--workers", "4", "app"], {}, "E002"),
        (["gunicorn", "app"], {"GUNICORN_CMD_ARGS": "--bind :80 -w4"}, "E002"),
        (["uvicorn", "app"], {"WEB_CONCURRENCY": "4"}, "E002"),
        (["gunicorn", "-w", "1", "app"], {}, None),
        (["gunicorn", "app"], {}, "W001"),
    ],
)
def test_limiter_in_memory_is_rejected_for_several_workers(
    configured, monkeypatch, argv, environment, expected
):
    table = {"POLICY": "2/31d", "CAPACITY": 100}
    configured(limiter=table)
    monkeypatch.setattr(sys, "argv", argv)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = [message.id for message in checks.run_checks() if message.id.startswith("keytally")]
    assert found == ([f"keytally.{expected}"] if expected else [])
    if expected == "E002":
        # gunicorn does not run the checks, but its workers do not start.
        with pytest.raises(ImproperlyConfigured, match="4 workers"):
            LimiterMiddleware(lambda request: None)


@pytest.mark.parametrize("setting", [{"FLEET": "api.limiter.fleet"}, {"CREDIT_WAIT": 0.01}])
def test_limiter_in_memory_cannot_be_in_a_fleet(configured, setting):
    configured(limiter={"POLICY": "2/31d", "WORKERS": 1, **setting})
    with pytest.raises(ImproperlyConfigured, match="only a limiter in a file can share its limits"):
        LimiterMiddleware(lambda request: None)


@pytest.mark.parametrize("setting", ["FAILURES", "WITHOUT_KEY", None])
def test_limiters_of_the_settings_open_their_fleet_files(configured, tmp_path, setting):
    path = tmp_path / "api.limiter"
    Limiter.create(path, "2/31d", 8)
    value = {"PATH": path, "POLICY": "2/31d", "CAPACITY": 8, "FLEET": tmp_path / "missing.fleet"}
    middleware = LimiterMiddleware if setting is None else GateMiddleware
    configured(**{setting or "limiter": value})
    with pytest.raises(ImproperlyConfigured, match=r"missing\.fleet"):
        middleware(lambda request: None)


def test_limiter_file_is_accepted_for_several_workers(configured, monkeypatch, tmp_path):
    configured(limiter={"POLICY": "2/31d", "PATH": tmp_path / "limiter"})
    monkeypatch.setattr(sys, "argv", ["gunicorn", "-w", "4"])
    assert check_settings() == []


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"GATE": {}}, "PATH"),
        ({"GATE": {"PATH": "/nowhere/api.gate"}}, "pepper"),
        ({"GATE": {"PATH": "/nowhere/api.gate", "PEPPER": "ab" * 32}}, "/nowhere/api.gate"),
        ({"GATE": {"PATHS": "api.gate"}}, "PATHS.*PATH"),
        ({"LIMITER": {}}, "POLICY"),
        ({"LIMITER": {"POLICY": "many"}}, "many"),
    ],
)
def test_invalid_tables_in_settings_are_reported(configured, tables, message):
    with override_settings(KEYTALLY=tables):
        [error] = check_settings()
        assert isinstance(error, checks.Error)
        assert re.search(message, error.msg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"EXEMPT": ["bad//x"]}, 'KEYTALLY."SECTION".: .*bad//x'),
        ({"EXEMPT": "/health"}, 'KEYTALLY."SECTION".: .*exempt is a list'),
        ({"COST": -5}, 'KEYTALLY."SECTION".: .*cost'),
        ({"ON_VERDICT": "no.such.fn"}, 'KEYTALLY."SECTION".: .*no.such.fn'),
        ({"ON_VERDICT": "os.no_such_function"}, 'KEYTALLY."SECTION".: .*no_such_function'),
        ({"ON_VERDICT": "nonsense"}, 'KEYTALLY."SECTION".: .*nonsense'),
        ({"COST": "no.such.fn"}, 'KEYTALLY."SECTION".: .*no.such.fn'),
    ],
)
@pytest.mark.parametrize("section", ["GATE", "LIMITER"])
@pytest.mark.parametrize("middleware", [[], BOTH])
def test_invalid_values_in_settings_are_reported(configured, section, options, message, middleware):
    if section == "GATE":
        configured(middleware, **options)
    else:
        configured(middleware, {**LIMITER, **options})
    [error] = [found for found in check_settings() if found.level >= checks.ERROR]
    assert re.search(message.replace("SECTION", section), error.msg)


def test_key_that_is_not_importable_is_reported(configured):
    configured(BOTH, {**LIMITER, "KEY": "no.such.fn"})
    [error] = check_settings()
    assert re.search('KEYTALLY."LIMITER".: .*no.such.fn', error.msg)


class Own(GateMiddleware):
    """A subclass of the middleware in a project."""


@pytest.mark.parametrize("name", ["EXEMPT", "COST", "ON_VERDICT", "KEY"])
def test_setting_without_its_middleware_is_reported(configured, name):
    value = ["/health"] if name == "EXEMPT" else cost
    if name != "KEY":
        configured(django_app.REST_FRAMEWORK_MIDDLEWARE, **{name: value})
        [warning] = check_settings()
        assert (warning.id, warning.level) == ("keytally.W002", checks.WARNING)
        assert f'KEYTALLY["GATE"]["{name}"] has no effect' in warning.msg
        for middleware in (django_app.MIDDLEWARE, ["test_django.cors", "test_django.Own"]):
            configured(middleware, **{name: value})
            assert check_settings() == []
    configured(django_app.MIDDLEWARE, {**LIMITER, name: value})
    [warning] = check_settings()
    assert f'KEYTALLY["LIMITER"]["{name}"] has no effect' in warning.msg
    configured(BOTH, {**LIMITER, name: value})
    assert check_settings() == []


def test_default_setting_without_middleware_is_accepted(configured):
    configured(django_app.REST_FRAMEWORK_MIDDLEWARE, EXEMPT=[], COST=1, ON_VERDICT=None)
    assert check_settings() == []


SECRET = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM"
TABLES = {
    "GATE": {"PATH": "own.gate", "PEPPER": "ab" * 32, "EXEMPT": [], "COST": 1, "ON_VERDICT": None},
    "LIMITER": {
        "POLICY": "2/31d",
        "CAPACITY": 8,
        "KEY": len,
        "WORKERS": 1,
        "EXEMPT": [],
        "COST": 1,
    },
}


def outcome(call):
    """Return the representation of a result, or the traceback of an exception."""
    try:
        return repr(call())
    except Exception as error:
        return repr(error) + "".join(
            traceback.format_exception(type(error), error, error.__traceback__)
        )


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section in TABLES
        for name in [*TABLES[section], "PATH", "PEPPER_FILE", "FLEET", "CREDIT_WAIT", SECRET]
    ],
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], SECRET + ".function"])
def test_secret_in_settings_is_not_repeated(
    configured, monkeypatch, tmp_path, section, name, value
):
    monkeypatch.chdir(tmp_path)
    middleware = {"GATE": GateMiddleware, "LIMITER": LimiterMiddleware}[section]
    Gate.create(tmp_path / "own.gate", pepper="ab" * 32, keys=8)
    table = {**TABLES[section], name: value}
    shown = ""
    with override_settings(KEYTALLY={section: table}):
        for call in (check_settings, lambda: middleware(lambda request: None)):
            shown += outcome(call)
    assert SECRET[8:] not in shown
    assert SECRET[20:32] not in shown


@pytest.fixture
def rest(configured):
    def fetch(
        path,
        key=None,
        *,
        middleware=django_app.REST_FRAMEWORK_MIDDLEWARE,
        limiter=LIMITER,
        **headers,
    ):
        if middleware is not None:
            configured(middleware=middleware, limiter=limiter)
        if key is not None:
            headers["X-API-Key"] = key.expose()
        return OfRestFramework().fetch(path, headers)

    return fetch


def test_rest_framework_authenticates_and_charges(rest, gate, key):
    contract.assert_missing(*rest("/rest"))
    contract.assert_invalid(*rest("/rest", **{"X-API-Key": "nonsense"}))
    for remaining in (1, 0):
        status, headers, body = rest("/rest", key)
        contract.assert_admitted(status, headers, remaining=remaining)
        assert b'"account":42' in body
    contract.assert_exceeded(*rest("/rest", key))


def test_refusal_without_middleware_has_status_and_fields(rest, key):
    status, headers, body = rest("/rest", middleware=[])
    assert (status, body) == (401, b'{"error":"Missing X-API-Key header"}')
    assert "www-authenticate" in contract.fields(headers)
    for _ in range(2):
        rest("/rest", key, middleware=[])
    status, headers, body = rest("/rest", key, middleware=[])
    assert (status, body) == (429, b'{"error":"Rate limit exceeded. Please try again later."}')
    assert int(contract.fields(headers)["retry-after"]) >= 1


def test_rest_framework_behind_gate_middleware_charges_once(rest, key):
    contract.assert_admitted(*rest("/rest", key, middleware=django_app.MIDDLEWARE)[:2], remaining=1)


def test_throttle_refuses_beyond_the_limit(rest, gate):
    # The settings do not change after the first request, so the test has one limiter.
    first = rest("/throttled", gate.issue(1))
    contract.assert_admitted(*first[:2], remaining=1)
    contract.assert_admitted(*rest("/throttled", gate.issue(2), middleware=None)[:2], remaining=1)
    contract.assert_exceeded(*rest("/throttled", gate.issue(3), middleware=None), remaining=2)


def answered_by(*, authentication=(), throttles=(), **fields):
    """Return status and account of a view with these classes, for a request with these fields."""

    @api_view()
    @authentication_classes(authentication)
    @throttle_classes(throttles)
    def view(request):
        return Response({"account": getattr(request.user, "account", None)})

    response = view(APIRequestFactory().get("/", **fields))
    return response.status_code, response.data.get("account")


def test_optional_authentication_passes_without_key(configured, gate, key):
    class Optional(KeyAuthentication):
        required = False
        cost = 2

    assert answered_by(authentication=[Optional]) == (200, None)
    assert answered_by(authentication=[Optional], HTTP_X_API_KEY="nonsense") == (401, None)
    assert answered_by(authentication=[Optional], HTTP_X_API_KEY=key.expose()) == (200, 42)
    assert answered_by(authentication=[Optional], HTTP_X_API_KEY=key.expose()) == (429, None)


def test_shadow_mode_makes_refused_request_anonymous(configured, key):
    configured(SHADOW=True, limiter={**LIMITER, "SHADOW": True})
    for presented, account in [
        ("nonsense", None),
        (key.expose(), 42),
        (key.expose(), 42),
        (key.expose(), None),
    ]:
        fields = {"HTTP_X_API_KEY": presented}
        found = answered_by(
            authentication=[KeyAuthentication], throttles=[LimiterThrottle], **fields
        )
        assert found == (200, account)


def test_throttle_counts_results_of_key(configured):
    class ByName(LimiterThrottle):
        cost = 2

        def key(self, request, view):
            return request.headers.get("who")

    configured(limiter=LIMITER)
    statuses = [answered_by(throttles=[ByName], HTTP_WHO=who)[0] for who in ("a", "b", "a")]
    assert statuses == [200, 200, 429]
    assert [answered_by(throttles=[ByName])[0] for _ in range(3)] == [200, 200, 200]
