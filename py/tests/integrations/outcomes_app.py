"""The application of `frameworks` in each framework, for servers.

A charge of 3 is refunded after a failure, and settled at 1 otherwise. Each settlement is a line of
a file.
"""

import json
import os

import frameworks

from keytally import Gate


def settle(request, sent):
    line = json.dumps([sent.status, sent.is_complete, sent.exception is not None, sent.cost])
    with open(os.environ["KEYTALLY_TEST_GATE"] + ".settled", "a") as file:
        file.write(line + "\n")
    return 1


def made(make):
    """Return the application of a worker."""
    gate = Gate.open(os.environ["KEYTALLY_TEST_GATE"])
    frameworks.PEPPER[gate.path] = os.environ["KEYTALLY_PEPPER"]
    return make(gate, cost=3, refund="5xx", settle=settle).serve()


def in_asgi():
    return made(frameworks.in_asgi)


def in_fastapi():
    return made(frameworks.in_fastapi)


def in_wsgi():
    return made(frameworks.in_wsgi)


def in_flask():
    return made(frameworks.in_flask)


def in_flask_that_propagates():
    return made(frameworks.in_flask_that_propagates)


def in_django():
    return made(frameworks.in_django)


def in_django_async():
    return made(frameworks.in_django_async)


def in_rest_framework():
    return made(frameworks.in_rest_framework)
