"""What can go wrong, by kind. Each message is a sentence that says what was found and what would be right.

No message holds a key or a pepper. What the operating system refuses is an `OSError` as everywhere in Python:
`FileNotFoundError`, `FileExistsError`, `PermissionError` and so on.
"""

from __future__ import annotations

# Not typing.TYPE_CHECKING, which would make the import take three times as long.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from keytally._native import Verdict


class KeytallyError(Exception):
    """The base of what Keytally raises but for `OSError`, and `TypeError` and `ValueError` of arguments."""


class PolicyError(KeytallyError, ValueError):
    """There is no such policy."""


class PepperError(KeytallyError, ValueError):
    """A pepper is missing, or can't be one."""


class CreateError(KeytallyError, ValueError):
    """There can be no such table, plan, prefix or environment."""


class KeyIdError(KeytallyError, ValueError):
    """The text is no key id."""


class TableError(KeytallyError):
    """The file is no table, is damaged, isn't what was asked for, or others can get at it."""


class AdminError(KeytallyError):
    """A change to a gate can't be made, and nothing was changed."""


class NoSuchKeyError(AdminError):
    """The gate has no such key."""


class NoSuchPlanError(AdminError):
    """The gate has no plan of that name."""


class GateFullError(AdminError):
    """All records that the key could have are taken."""


class RevokedError(AdminError):
    """The key was revoked and can't be changed."""


class AlreadyImportedError(AdminError):
    """The key is in the gate already, for another account."""


class RefusedError(KeytallyError):
    """A request was not admitted: what `Verdict.raise_for_status` raises.

    Attributes:
        verdict: The verdict, with all that the HTTP response needs.

    """

    verdict: Verdict

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        retry = f"; try again in {verdict.retry_after} s" if verdict.retry_after else ""
        super().__init__(f"{verdict.outcome} ({verdict.status}){retry}")


class MissingKeyError(RefusedError):
    """No key was presented."""


class InvalidKeyError(RefusedError):
    """The key is no good. Why, is for the log only: ``verdict.reason``."""


class DeniedError(RefusedError):
    """Some window lacks room."""


class TooCostlyError(RefusedError):
    """The cost is above a limit and can never be admitted."""


class FullError(RefusedError):
    """The limiter has no slot for a new subject."""
