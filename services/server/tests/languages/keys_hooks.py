"""Hooks of schemathesis for the description of the list of keys.

A request that the description permits may name what only a running service knows: a team, a plan,
the scopes, and which times a gate keeps. These hooks set such values in requests that must succeed.
Tokens take turns, since each has limits.
"""

import itertools
import os

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

TOKENS = itertools.cycle(os.environ["KEYTALLY_TOKENS"].split())

# The id of a key that no gate has.
KEY_ID = "0000000000A"

# Values for the members of bodies and for parameters that are texts.
VALUES = {
    "plan": "default",
    "expires": "2090-01-31T12:00:00Z",
    "from": "2026-01-31T12:00:00Z",
    "to": "2026-01-31T18:00:00Z",
    "key_ids": [KEY_ID],
    "scopes": [],
    "grace_s": 60,
}


@schemathesis.auth(refresh_interval=None)
class Token:
    """The next token."""

    def get(self, case: Case, context: object) -> str:
        """Return the token of a request."""
        return next(TOKENS)

    def set(self, case: Case, data: str, context: object) -> None:
        """Add the token to a request."""
        case.headers["X-API-Key"] = data


def possible(values: dict[str, object]) -> None:
    """Replace values by ones that the service has."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            # JSON has one kind of numbers: 1.0 is an integer in a schema.
            values[name] = int(value)
        if name in VALUES:
            values[name] = VALUES[name]
        elif name in {"name", "user", "search", "env"} and isinstance(value, str):
            # A text of blanks alone is not a name.
            values[name] = value.strip() or "a"


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, object]) -> None:
    """Make a request possible that must succeed."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    case.query = {**(case.query or {}), "team": 1}
    possible(case.query)
    # A range between one time of VALUES and the present may have too many buckets.
    if "from" in case.query or "to" in case.query:
        case.query.update({name: VALUES[name] for name in ("from", "to")})
    if isinstance(case.body, dict):
        possible(case.body)
        # Keys expire later than such a rule of the team permits.
        case.body.pop("longest_days", None)
        if case.method.upper() == "PATCH" and not any(
            value is not None for value in case.body.values()
        ):
            case.body["name"] = "a"
    # A cursor is that of an order.
    if isinstance(case.query.get("after"), str) and "." in case.query["after"]:
        case.query.update({"after": f"1700000000.{KEY_ID}", "sort": "-created"})
    # A key id stands for a number of 64 bits that is not 0.
    for values in (case.path_parameters or {}, case.query):
        for name in ("id", "key", "after"):
            text = values.get(name)
            if isinstance(text, str) and "." not in text and len(text) != len(KEY_ID):
                # Another answer supplied a text that is not a key id.
                values[name] = KEY_ID
            elif isinstance(text, str):
                text = text.replace("L", "K")
                values[name] = text[:-1] + "A" if text.endswith("0" * 11) else text
