"""Groups, costs of their own and scopes, in every framework."""

import contract
import frameworks
import pytest
from django.core.exceptions import ImproperlyConfigured
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from werkzeug.test import Client

from keytally import Gate, Limiter, fastapi, flask, wsgi
from keytally.fastapi import REFUSALS, document_refusals, require_key

PLAN = "9/31d; team: 20/31d; group write: 2/31d; group tokens: 900/31d"
FORBIDDEN = b'{"error": "Forbidden"}'


@pytest.fixture
def gate(tmp_path, pepper):
    gate = Gate.create(
        tmp_path / "api.gate",
        pepper=pepper,
        keys=64,
        plans={"default": PLAN},
        scopes=["read", "write", "contacts.read"],
    )
    frameworks.PEPPER[gate.path] = pepper
    return gate


@pytest.fixture
def key(gate):
    return gate.issue(42, scopes=["read", "contacts.read"])


@pytest.fixture
def left(gate, key):
    """Return a function that returns the units left in each section."""

    def left():
        tallies = gate.peek(key.expose(), 0, groups=["write", "tokens"]).tallies
        return {tally.section: tally.verdict.remaining for tally in tallies}

    return left


UNUSED = {"key": 9, "team": 20, "write": 2, "tokens": 900}


@pytest.mark.parametrize("make", frameworks.ALL)
def test_request_charges_groups(make, gate, headers, left):
    fetch = make(gate, group="write", costs={"tokens": 400})
    status, found, _ = fetch("/200", headers)
    assert status == 200
    assert left() == {"key": 8, "team": 19, "write": 1, "tokens": 500}
    fields = contract.fields(found)
    assert fields["x-ratelimit-remaining"] == "8"
    names = [item.partition(";")[0] for item in fields["ratelimit"].split(", ")]
    assert names == ['"2678400s"', '"team-2678400s"', '"write-2678400s"', '"tokens-2678400s"']
    assert fetch("/200", headers).status == 200
    status, found, body = fetch("/200", headers)
    assert (status, body) == (429, contract.EXCEEDED)
    assert int(contract.fields(found)["retry-after"]) > 0
    assert left() == {"key": 7, "team": 18, "write": 0, "tokens": 100}


@pytest.mark.parametrize("make", frameworks.ALL)
def test_functions_return_groups_and_costs(make, gate, headers, left):
    groups = [None, "write", ["write"], ()]
    costs = [{"tokens": 1}, None, {}, {"tokens": 2}]
    fetch = make(gate, group=lambda _: groups.pop(), costs=lambda _: costs.pop())
    assert [fetch("/200", headers).status for _ in range(4)] == [200] * 4
    assert left() == {"key": 5, "team": 16, "write": 0, "tokens": 897}


@pytest.mark.parametrize("make", frameworks.AWAITING)
def test_async_functions_are_awaited(make, gate, headers, left):
    async def group(_):
        return "write"

    async def costs(_):
        return {"tokens": 5}

    async def need(_):
        return "read"

    assert make(gate, group=group, costs=costs, need=need)("/200", headers).status == 200
    assert left() == {"key": 8, "team": 19, "write": 1, "tokens": 895}


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize("need", ["write", ["read", "write"], lambda _: "write"])
def test_key_without_a_scope_gets_403(make, gate, headers, left, need):
    status, found, body = make(gate, group="write", need=need)("/200", headers)
    assert (status, body) == (403, FORBIDDEN)
    fields = contract.fields(found)
    assert [name for name in contract.QUOTA + contract.REFUSAL if name in fields] == []
    assert left() == UNUSED


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize("need", ["read", ["contacts.read"], lambda _: ["read", "contacts.read"]])
def test_key_with_the_scopes_is_admitted(make, gate, headers, left, need):
    fetch = make(gate, need=need)
    assert fetch("/200", headers).status == 200
    assert left()["key"] == 8
    status, _, body = fetch("/200")
    assert (status, body) == (401, contract.MISSING)


@pytest.mark.parametrize("make", frameworks.ALL)
def test_shadow_mode_reports_missing_scope(make, gate, headers):
    status, found, _ = make(gate, need="write", shadow=True)("/200", headers)
    assert status == 200
    assert contract.fields(found)["x-keytally-shadow"] == "forbidden"


@pytest.mark.parametrize("make", frameworks.ALL)
def test_suspended_account_gets_401(make, gate, headers):
    fetch = make(gate)
    assert fetch("/200", headers).status == 200
    gate.suspend(42)
    assert fetch("/200", headers).status == 401
    gate.resume(42)
    assert fetch("/200", headers).status == 200


@pytest.mark.parametrize("make", frameworks.ALL)
def test_refund_returns_all_tallies(make, gate, headers, left):
    fetch = make(gate, cost=0, group="write", costs={"tokens": 400}, refund="5xx")
    assert fetch("/503", headers).status == 503
    assert left() == UNUSED
    fetch = make(gate, cost=2, group="write", costs={"tokens": 400}, refund="5xx")
    assert fetch("/503", headers).status == 503
    assert left() == UNUSED
    assert fetch("/200", headers).status == 200
    assert left() == {"key": 7, "team": 18, "write": 0, "tokens": 500}


@pytest.mark.parametrize("make", frameworks.ALL)
def test_settle_returns_costs_of_groups(make, gate, headers, left):
    seen, actual = [], [{"key": 1, "tokens": 150}, {"tokens": 250}, 3, {"key": 2}]

    def settle(_, sent):
        seen.append((sent.cost, sent.costs))
        return actual.pop(0)

    fetch = make(gate, cost=2, costs={"tokens": 200}, settle=settle)
    for expected in [
        {"key": 8, "team": 19, "write": 2, "tokens": 750},
        {"key": 6, "team": 17, "write": 2, "tokens": 500},
        {"key": 3, "team": 14, "write": 2, "tokens": 300},
        {"key": 1, "team": 12, "write": 2, "tokens": 100},
    ]:
        assert fetch("/200", headers).status == 200
        assert left() == expected
    assert seen == [(2, {"tokens": 200})] * 4


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize("actual", [{"tokens": -1}, {"tokens": "5"}, {"delete": 5}])
def test_failing_settle_keeps_the_estimates(make, gate, headers, left, caplog, actual):
    fetch = make(gate, costs={"tokens": 200}, settle=lambda *_: actual)
    assert fetch("/200", headers).status == 200
    assert left() == {"key": 8, "team": 19, "write": 2, "tokens": 700}
    assert "settle raised an exception" in caplog.text


@pytest.mark.parametrize("make", frameworks.ALL)
def test_cost_of_a_group_out_of_range_gets_400(make, gate, headers, left):
    fetch = make(gate, costs=lambda _: {"tokens": 2**32})
    assert fetch("/200", headers).status == 400
    assert left() == UNUSED
    fetch = make(gate, costs=lambda _: {"tokens": 2**32}, need=lambda _: "write")
    assert fetch("/200", headers).status == 403


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "delete"}, 'no group "delete"'),
        ({"group": ["write", "team"]}, 'no group "team"'),
        ({"costs": {"delete": 1}}, 'no group "delete"'),
        ({"need": "admin"}, 'no scope "admin"'),
    ],
)
def test_unknown_group_or_scope_is_an_error(make, gate, headers, options, message, caplog):
    if make is frameworks.in_rest_framework:
        # It opens the gate at the first request.
        assert make(gate, **options)("/200", headers).status == 500
        assert message in caplog.text
        return
    with pytest.raises((ValueError, ImproperlyConfigured), match=message):
        make(gate, **options)


@pytest.mark.parametrize("make", frameworks.ALL)
def test_request_without_a_key_has_no_scope(make, gate, tmp_path):
    without = {"PATH": str(tmp_path / "open.limiter"), "POLICY": "5/31d"}
    if make.__name__ not in ("in_django", "in_django_async", "in_rest_framework"):
        without = Limiter.open_or_create(without["PATH"], without["POLICY"])
    assert make(gate, without_key=without)("/200").status == 200
    assert make(gate, without_key=without, need="read")("/200").status == 401
    assert make(gate, without_key=without, need=lambda _: ["read"])("/200").status == 401


def in_fastapi(gate, outer, inner):
    app = FastAPI(dependencies=[Depends(require_key(gate, **outer))])

    @app.get("/", dependencies=[Depends(require_key(gate, **inner))])
    async def view(): ...

    client = TestClient(app)
    return lambda headers: client.get("/", headers=headers)


def in_flask_and_wsgi(gate, outer, inner):
    app = Flask("tests")
    app.add_url_rule("/", view_func=flask.require_key(gate, **inner)(lambda: ""))
    client = Client(wsgi.GateMiddleware(app, gate, **outer))
    return lambda headers: client.get("/", headers=headers)


STACKS = [in_fastapi, in_flask_and_wsgi]


@pytest.mark.parametrize("stack", STACKS)
def test_several_integrations_are_one_charge_of_all_groups(stack, gate, headers, left):
    fetch = stack(gate, {"costs": {"tokens": 100}}, {"group": "write", "costs": {"tokens": 50}})
    response = fetch(headers)
    assert response.status_code == 200
    assert left() == {"key": 8, "team": 19, "write": 1, "tokens": 800}
    assert "write-2678400s" in response.headers["RateLimit"]


@pytest.mark.parametrize("stack", STACKS)
def test_inner_integration_that_needs_a_scope_charges_nothing(stack, gate, headers, left):
    fetch = stack(gate, {"costs": {"tokens": 100}}, {"need": "write"})
    assert fetch(headers).status_code == 403
    assert left() == UNUSED
    assert stack(gate, {"need": "read"}, {"need": "contacts.read"})(headers).status_code == 200
    assert left()["key"] == 8


@pytest.mark.parametrize("stack", STACKS)
def test_inner_group_without_room_charges_nothing(stack, gate, headers, left):
    fetch = stack(gate, {"costs": {"tokens": 100}}, {"group": "write"})
    statuses = [fetch(headers).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert left() == {"key": 7, "team": 18, "write": 0, "tokens": 700}


@pytest.mark.parametrize("order", ["gate first", "limiter first"])
def test_limiter_that_refuses_returns_all_tallies(order, gate, headers, left):
    limiter = Limiter.in_memory("1/31d")
    app = Flask("tests")
    app.add_url_rule("/", view_func=lambda: "")
    made = [
        lambda: flask.GateExtension(gate, app, group="write"),
        lambda: flask.LimiterExtension(limiter, app),
    ]
    for make in made if order == "gate first" else reversed(made):
        make()
    client = app.test_client()
    assert client.get("/", headers=headers).status_code == 200
    response = client.get("/", headers=headers)
    assert response.status_code == 429
    assert left() == {"key": 8, "team": 19, "write": 1, "tokens": 900}
    if order == "gate first":
        listed = response.headers["RateLimit"]
        assert '"2678400s";r=8' in listed
        assert '"team-2678400s";r=19' in listed
        assert '"write-2678400s";r=1' in listed


def test_missing_scope_returns_the_charge_of_a_limiter(gate, headers):
    limiter = Limiter.in_memory("5/31d")
    app = Flask("tests")
    app.add_url_rule("/", view_func=lambda: "")
    flask.LimiterExtension(limiter, app, key=lambda _: "all")
    flask.GateExtension(gate, app, need="write")
    assert app.test_client().get("/", headers=headers).status_code == 403
    assert limiter.peek("all").remaining == 5


def test_forbidden_is_documented_where_a_scope_is_needed(gate):
    app = FastAPI()

    @app.get("/read", dependencies=[Depends(require_key(gate))])
    async def read(): ...

    @app.get("/write", dependencies=[Depends(require_key(gate, need="write"))])
    async def write(): ...

    document_refusals(app)
    paths = app.openapi()["paths"]
    assert sorted(paths["/read"]["get"]["responses"]) == ["200", "401", "429", "503"]
    responses = paths["/write"]["get"]["responses"]
    assert sorted(responses) == ["200", "401", "403", "429", "503"]
    assert responses["403"] == REFUSALS[403]
    example = responses["403"]["content"]["application/json"]["example"]
    assert example == {"error": "Forbidden"}


def test_fastapi_route_has_the_verdict_of_all_tallies(gate, headers):
    app = FastAPI()

    @app.get("/")
    async def view(verdict=Depends(fastapi.require_key(gate, group="write"))):  # noqa: B008
        return [tally.section for tally in verdict.tallies]

    assert TestClient(app).get("/", headers=headers).json() == ["key", "team", "write"]
