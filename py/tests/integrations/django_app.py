"""A Django project with views of each kind, also of REST framework."""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseNotFound, JsonResponse, StreamingHttpResponse
from django.urls import path

MIDDLEWARE = ["keytally.django.GateMiddleware"]
REST_FRAMEWORK_MIDDLEWARE = ["keytally.django.VerdictMiddleware"]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
        INSTALLED_APPS=["keytally.django.KeytallyConfig", "rest_framework", "drf_spectacular"],
        MIDDLEWARE=MIDDLEWARE,
        KEYTALLY={
            "GATE": {"PATH": os.environ.get("KEYTALLY_TEST_GATE", ""), "EXEMPT": ["/health"]}
        },
        REST_FRAMEWORK={
            "UNAUTHENTICATED_USER": None,
            "DEFAULT_AUTHENTICATION_CLASSES": ["keytally.rest_framework.KeyAuthentication"],
            "DEFAULT_SCHEMA_CLASS": "keytally.spectacular.AutoSchema",
        },
    )
    django.setup()

from rest_framework.decorators import api_view, throttle_classes  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from keytally.rest_framework import LimiterThrottle  # noqa: E402


def health(request):
    return JsonResponse({"pid": os.getpid()})


def home(request):
    return JsonResponse({"pid": os.getpid(), "account": request.verdict.account})


async def later(request):
    return JsonResponse({"account": request.verdict.account})


def own(request):
    return HttpResponse("mine", headers={"x-ratelimit-remaining": "7"})


def gone(request):
    return HttpResponseNotFound("gone")


def fail(request):
    raise LookupError("of the application")


def stream(request):
    return StreamingHttpResponse(f"part {part}\n" for part in range(3))


@api_view()
def rest(request):
    return Response(
        {"pid": os.getpid(), "account": request.user.account, "left": request.auth.remaining}
    )


@api_view()
def failing(request):
    raise LookupError("of the application")


@api_view()
@throttle_classes([LimiterThrottle])
def throttled(request):
    return Response({"account": request.user.account})


def served():
    """Return the project of a synchronous worker."""
    return get_wsgi_application()


def served_async():
    """Return the project of an asynchronous worker."""
    return get_asgi_application()


def served_rest():
    """Return the project of a worker, with authentication by REST framework."""
    settings.MIDDLEWARE = REST_FRAMEWORK_MIDDLEWARE
    urlpatterns.insert(0, path("", rest))
    return get_wsgi_application()


urlpatterns = [
    path("health", health),
    path("", home),
    path("later", later),
    path("own", own),
    path("gone", gone),
    path("fail", fail),
    path("stream", stream),
    path("rest", rest),
    path("throttled", throttled),
    path("failing", failing),
]
