"""The security schemes and the refusals in OpenAPI documents."""

import django_app
import pytest
from django.test import override_settings
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.validation import validate_schema
from fastapi import APIRouter, Depends, FastAPI
from rest_framework.decorators import api_view, authentication_classes, throttle_classes
from rest_framework.views import APIView

from keytally.fastapi import REFUSALS, document_refusals, limit, require_key
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

BOTH = ["X-API-Key", "Authorization: Bearer", "X-Token"]


class Optional(KeyAuthentication):
    required = False


class Writing(KeyAuthentication):
    need = "write"


class Replaced(LimiterThrottle):
    def refusal(self, refused, request):
        return refused


def view_of(authentications, throttles, **documented):
    view = extend_schema(**{"responses": None, **documented})(lambda request: None)
    for decorate in (authentication_classes(authentications), throttle_classes(throttles)):
        view = decorate(view)
    return api_view()(view)


class Contacts(APIView):
    throttle_classes = (Replaced,)

    @extend_schema(responses=None)
    def get(self, request): ...

    @extend_schema(responses={201: None, 429: str})
    def post(self, request): ...


def document(**section):
    assert django_app.settings.configured
    urls = [
        path("key", view_of([KeyAuthentication], [])),
        path("both", view_of([KeyAuthentication], [LimiterThrottle])),
        path("limited", view_of([], [LimiterThrottle])),
        path("optional", view_of([Optional], [])),
        path("open", view_of([], [])),
        path("write", view_of([Writing], [])),
        path("contacts", Contacts.as_view()),
    ]
    with override_settings(KEYTALLY={"GATE": {"PATH": "/nowhere/api.gate", **section}}):
        found = SchemaGenerator(patterns=urls).get_schema(request=None, public=True)
    validate_schema(found)
    return found


def test_refusals_of_rest_framework_are_documented():
    paths = document()["paths"]
    statuses = {
        path: sorted(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        if method == "get"
    }
    # The default is 200.
    assert {path: found[1:] for path, found in statuses.items()} == {
        "/key": ["401", "429", "503"],
        "/both": ["401", "429", "503"],
        "/limited": ["429", "503"],
        "/optional": ["401", "429", "503"],
        "/open": [],
        "/write": ["401", "403", "429", "503"],
        "/contacts": ["401", "429", "503"],
    }
    assert paths["/key"]["get"]["responses"]["401"] == REFUSALS[401]
    own = paths["/contacts"]["post"]["responses"]["429"]
    assert "Retry-After" not in own.get("headers", {})
    # Authentication comes first: its refusal is the documented one.
    assert "content" in paths["/contacts"]["get"]["responses"]["429"]


def test_replaced_refusals_have_no_content(gate, limiter):
    found = SchemaGenerator(patterns=[path("x", view_of([], [Replaced]))]).get_schema(public=True)
    refused = found["paths"]["/x"]["get"]["responses"]["429"]
    assert refused == {name: REFUSALS[429][name] for name in ("description", "headers")}

    app = FastAPI()
    document_refusals(app)
    app.get("/", dependencies=[Depends(limit(limiter, refusal=lambda it, _: it))])(lambda: "")
    assert app.openapi()["paths"]["/"]["get"]["responses"]["429"] == refused


def test_schemes_of_rest_framework_are_those_of_key_from():
    found = document(KEY_FROM=BOTH)
    assert found["components"]["securitySchemes"] == {
        "APIKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
        "X-Token": {"type": "apiKey", "in": "header", "name": "X-Token"},
    }
    alternatives = [{"APIKey": []}, {"Bearer": []}, {"X-Token": []}]
    assert found["paths"]["/key"]["get"]["security"][:3] == alternatives
    assert found["paths"]["/optional"]["get"]["security"][:4] == [*alternatives, {}]


def test_requests_without_key_have_an_empty_requirement(tmp_path):
    without = {"PATH": tmp_path / "a.limiter", "POLICY": "5/minute"}
    found = document(WITHOUT_KEY=without)["paths"]["/key"]["get"]
    assert found["security"][:2] == [{"APIKey": []}, {}]
    assert "503" in found["responses"]
    # No table is opened for the document.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("early", [True, False])
def test_refusals_of_nested_and_mounted_routers_are_documented(gate, limiter, early):
    app, mounted = FastAPI(), FastAPI()
    if early:
        document_refusals(app)
    inner = APIRouter(prefix="/inner", dependencies=[Depends(limit(limiter))])
    inner.get("/{number}")(lambda number: "")
    outer = APIRouter(prefix="/outer", dependencies=[Depends(require_key(gate, key_from=BOTH))])
    outer.include_router(inner)
    outer.post("/only")(lambda: "")
    app.include_router(outer, prefix="/v1")
    mounted.get("/x", dependencies=[Depends(require_key(gate))])(lambda: "")
    document_refusals(mounted)
    app.mount("/sub", mounted)
    if not early:
        document_refusals(app)
    paths = app.openapi()["paths"]
    nested = paths["/v1/outer/inner/{number}"]["get"]
    assert sorted(nested["responses"]) == ["200", "401", "422", "429", "503"]
    assert sorted(map(list, nested["security"])) == [["APIKey"], ["Bearer"], ["X-Token"]]
    assert sorted(paths["/v1/outer/only"]["post"]["responses"]) == ["200", "401", "429", "503"]
    of_mounted = mounted.openapi()["paths"]["/x"]["get"]
    assert sorted(of_mounted["responses"]) == ["200", "401", "429", "503"]
    assert of_mounted["security"] == [{"APIKey": []}]
