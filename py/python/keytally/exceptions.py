"""The exceptions of Keytally.

A message names the value that was found, and the values that are valid. No message contains a key
or a pepper, except a secret of common words that was passed as a path. An error of the operating
system is an `OSError`: `FileNotFoundError`, `FileExistsError`, `PermissionError` and so on.
"""

from __future__ import annotations

# typing.TYPE_CHECKING would make the import three times as slow.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from keytally._native import Verdict


class KeytallyError(Exception):
    """The base class of the exceptions of Keytally.

    Keytally also raises `OSError`, and `TypeError` and `ValueError` for arguments.

    >>> import keytally
    >>> try:
    ...     keytally.Limiter.in_memory("100/fortnight")
    ... except keytally.KeytallyError as error:
    ...     print(error)
    "fortnight" is ...

    """


class PolicyError(KeytallyError, ValueError):
    """A text is not a policy.

    >>> import keytally
    >>> keytally.Policy("100/fortnight")
    Traceback (most recent call last):
    keytally.exceptions.PolicyError: "fortnight" is ...

    """


class PepperError(KeytallyError, ValueError):
    """A pepper is missing, is not valid, cannot be read, or belongs to another gate.

    >>> import keytally
    >>> keytally.Gate.in_memory(pepper="letmein!")
    Traceback (most recent call last):
    keytally.exceptions.PepperError: pepper 1 of 1 is neither hex nor base64

    """


class CreateError(KeytallyError, ValueError):
    """A capacity, plan, prefix or environment is not valid.

    >>> import keytally
    >>> keytally.Limiter.in_memory("5/minute", capacity=0)
    Traceback (most recent call last):
    keytally.exceptions.CreateError: capacity is 0, and must be 1 to 1073741824

    """


class KeyIdError(KeytallyError, ValueError):
    """A text is not a key id.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.revoke("not a key id")
    Traceback (most recent call last):
    keytally.exceptions.KeyIdError: a key id is 11 characters of 0-9, A-Z and a-z, ...

    """


class TableError(KeytallyError):
    """A file is not the table that was requested, is damaged, or has an unsafe owner or mode.

    It must belong to root or the user of the process, unless that is root. Its group may have
    access to it, but not all users. The error is also raised for a change to a file that was
    removed.

    >>> import keytally
    >>> keytally.Limiter.open("/")
    Traceback (most recent call last):
    keytally.exceptions.TableError: /: this is a directory, not a regular file

    """


class AdminError(KeytallyError):
    """A change to a gate was rejected. The gate did not change.

    Keys that the same call of `Gate.import_keys` imported before the error are in the gate.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.set_plan("quick", "1/second")
    Traceback (most recent call last):
    keytally.exceptions.AdminError: the plan's sections, windows and algorithms must be ...

    """


class BusyError(AdminError, TimeoutError):
    """Another thread or process kept changing the gate for all of ``wait``.

    The gate did not change, except that `Gate.import_keys` may have imported earlier batches.

    Attributes:
        pid: The id of the other process; ``None`` if it is in another container.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    >>> try:
    ...     key = gate.issue(42, wait=0.5)
    ... except keytally.BusyError as error:
    ...     print(f"process {error.pid} administers the gate")

    """

    def __init__(self, message: str, pid: int | None) -> None:
        self.pid = pid
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (str(self), self.pid)


class NoSuchKeyError(AdminError):
    """The gate does not have the key.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.revoke("00000000001")
    Traceback (most recent call last):
    keytally.exceptions.NoSuchKeyError: the gate has no key 00000000001; `list` shows all

    """


class NoSuchPlanError(AdminError):
    """The gate does not have the plan.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.issue(42, plan="gold")
    Traceback (most recent call last):
    keytally.exceptions.NoSuchPlanError: the gate has no plan "gold"; its plans are: default

    """


class NoSuchAccountError(AdminError):
    """The gate does not have the account: it was created without teams, or no key has the account.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1, teams=1)
    >>> gate.suspend(42)
    Traceback (most recent call last):
    keytally.exceptions.NoSuchAccountError: the gate has no account 42; ...

    """


class NoSuchScopeError(AdminError):
    """The gate does not have a scope that a key should have.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1, scopes=["read"])
    >>> gate.issue(42, scopes=["admin"])
    Traceback (most recent call last):
    keytally.exceptions.NoSuchScopeError: the gate has no scope "admin"; its scopes are: read

    """


class TeamsFullError(AdminError):
    """The gate has no room for another account.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=9, teams=1)
    >>> keys = gate.issue(42), gate.issue(42)
    >>> gate.issue(43)
    Traceback (most recent call last):
    keytally.exceptions.TeamsFullError: the gate has room for 1 teams and has them all; ...

    """


class GateFullError(AdminError):
    """The gate is full, so it cannot have another key.

    The record of a revoked or expired key is free once its longest window has passed.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> keys = [gate.issue(account) for account in range(100)]
    Traceback (most recent call last):
    keytally.exceptions.GateFullError: the gate is full: all 1 records hold keys, and ...

    """


class RevokedError(AdminError):
    """The key was revoked, so it cannot be changed.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> key = gate.issue(42)
    >>> gate.revoke(key.key_id)
    >>> gate.rotate(key.key_id, grace=0)
    Traceback (most recent call last):
    keytally.exceptions.RevokedError: key ... was revoked ...

    """


class AlreadyImportedError(AdminError):
    """The key to import is in the gate already, for another account.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=8)
    >>> key_ids = gate.import_keys(["customer-key-0001"], 42)
    >>> gate.import_keys(["customer-key-0001"], 43)
    Traceback (most recent call last):
    keytally.exceptions.AlreadyImportedError: key 1: this key is in the gate already, as ...

    """


class RefusedError(KeytallyError):
    """A request was refused. `Verdict.raise_for_status` raises one of the subclasses.

    Attributes:
        verdict: The verdict, with the values for the HTTP response.

    >>> import keytally
    >>> limiter = keytally.Limiter.in_memory("1/minute")
    >>> try:
    ...     limiter.check("203.0.113.9", 2).raise_for_status()
    ... except keytally.RefusedError as refused:
    ...     print(refused.verdict.http_status)
    429

    """

    verdict: Verdict

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        retry = f"; try again in {verdict.retry_after_s} s" if verdict.retry_after_s else ""
        super().__init__(f"{verdict.outcome} ({verdict.http_status}){retry}")

    def __reduce__(self) -> tuple[type, tuple[Verdict]]:
        return type(self), (self.verdict,)


class MissingKeyError(RefusedError):
    """The request has no key.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.check(None).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.MissingKeyError: missing_key (401)

    """


class InvalidKeyError(RefusedError):
    """The key is invalid. ``verdict.reason`` has the reason, which only logs may contain.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.check("kt_live_mistyped").raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.InvalidKeyError: invalid_key (401)

    """


class ForbiddenError(RefusedError):
    """The key lacks a scope that the request needs.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1, scopes=["write"])
    >>> gate.check(gate.issue(42).expose(), need="write").raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.ForbiddenError: forbidden (403)

    """


class DeniedError(RefusedError):
    """A window lacks room for the cost.

    >>> import keytally
    >>> limiter = keytally.Limiter.in_memory("1/minute")
    >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.DeniedError: denied (429); try again in 40 s

    """


class TooCostlyError(RefusedError):
    """The cost is above a limit, so it can never be admitted.

    >>> import keytally
    >>> keytally.Limiter.in_memory("1/minute").check("203.0.113.9", 2).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.TooCostlyError: too_costly (429)

    """


class UnavailableError(RefusedError):
    """The counts of the key are being moved to another file, which is not in force yet.

    >>> import keytally
    >>> issubclass(keytally.UnavailableError, keytally.RefusedError)
    True

    """


class FullError(RefusedError):
    """The limiter has no free slot for a new subject, and refuses it: ``on_full="refuse"``.

    >>> import keytally
    >>> limiter = keytally.Limiter.in_memory("1/day", capacity=1, on_full="refuse")
    >>> for number in range(100):
    ...     limiter.check(str(number)).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.FullError: full (503); try again in ... s

    """
