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
    """The base of what Keytally raises but for `OSError`, and `TypeError` and `ValueError` of arguments.

    >>> import keytally
    >>> try:
    ...     keytally.Limiter("100/fortnight")
    ... except keytally.KeytallyError as error:
    ...     print(error)
    "fortnight" is no unit; ...

    """


class PolicyError(KeytallyError, ValueError):
    """There is no such policy.

    >>> import keytally
    >>> keytally.Policy("100/fortnight")
    Traceback (most recent call last):
    keytally.exceptions.PolicyError: "fortnight" is no unit; ...

    """


class PepperError(KeytallyError, ValueError):
    """A pepper is missing, can't be one, cannot be read, or is not the gate's.

    >>> import keytally
    >>> keytally.Gate.in_memory(pepper="letmein!")
    Traceback (most recent call last):
    keytally.exceptions.PepperError: pepper 1 of 1 is neither hex nor base64

    """


class CreateError(KeytallyError, ValueError):
    """There can be no such table, plan, prefix or environment.

    >>> import keytally
    >>> keytally.Limiter("5/minute", capacity=0)
    Traceback (most recent call last):
    keytally.exceptions.CreateError: a capacity of 0 can't be; it is 1 to 1073741824

    """


class KeyIdError(KeytallyError, ValueError):
    """The text is no key id.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.revoke("no key id")
    Traceback (most recent call last):
    keytally.exceptions.KeyIdError: a key id is 11 characters of 0-9, A-Z and a-z, as `list` shows it

    """


class TableError(KeytallyError):
    """The file is no table, is damaged, isn't what was asked for, or others can get at it.

    >>> import keytally
    >>> keytally.Limiter.open("/")
    Traceback (most recent call last):
    keytally.exceptions.TableError: /: this is a directory, not a regular file

    """


class AdminError(KeytallyError):
    """A change to a gate can't be made, and nothing was changed.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.set_plan("quick", "1/second")
    Traceback (most recent call last):
    keytally.exceptions.AdminError: the plan's windows and algorithm must be those of the gate's other plans

    """


class BusyError(AdminError, TimeoutError):
    """Another administrator did not end within ``timeout``, and nothing was changed.

    Attributes:
        pid: The process that administers the gate; ``None`` for one of another container.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    >>> try:
    ...     key = gate.issue(42, timeout=0.5)
    ... except keytally.BusyError as error:
    ...     print(f"process {error.pid} administers the gate")

    """

    def __init__(self, message: str, pid: int | None) -> None:
        self.pid = pid
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (str(self), self.pid)


class NoSuchKeyError(AdminError):
    """The gate has no such key.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.revoke("00000000001")
    Traceback (most recent call last):
    keytally.exceptions.NoSuchKeyError: the gate has no key 00000000001; `list` shows all

    """


class NoSuchPlanError(AdminError):
    """The gate has no plan of that name.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.issue(42, plan="gold")
    Traceback (most recent call last):
    keytally.exceptions.NoSuchPlanError: the gate has no plan of that name; `list` shows the plans

    """


class GateFullError(AdminError):
    """All records that the key could have are taken.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> keys = [gate.issue(account) for account in range(100)]
    Traceback (most recent call last):
    keytally.exceptions.GateFullError: the gate is full: all 1 records hold keys; ...

    """


class RevokedError(AdminError):
    """The key was revoked and can't be changed.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> key = gate.issue(42)
    >>> gate.revoke(key.key_id)
    >>> gate.rotate(key.key_id, grace=0)
    Traceback (most recent call last):
    keytally.exceptions.RevokedError: key ... was revoked and can't be changed; issue a new one

    """


class AlreadyImportedError(AdminError):
    """The key is in the gate already, for another account.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=8)
    >>> key_ids = gate.import_keys(["customer-key-0001"], 42)
    >>> gate.import_keys(["customer-key-0001"], 43)
    Traceback (most recent call last):
    keytally.exceptions.AlreadyImportedError: key 1: this key is in the gate already, as ...

    """


class RefusedError(KeytallyError):
    """A request was not admitted: what `Verdict.raise_for_status` raises.

    Attributes:
        verdict: The verdict, with all that the HTTP response needs.

    >>> import keytally
    >>> limiter = keytally.Limiter("1/minute")
    >>> try:
    ...     limiter.check("203.0.113.9", 2).raise_for_status()
    ... except keytally.RefusedError as refused:
    ...     print(refused.verdict.status)
    429

    """

    verdict: Verdict

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        retry = f"; try again in {verdict.retry_after} s" if verdict.retry_after else ""
        super().__init__(f"{verdict.outcome} ({verdict.status}){retry}")

    def __reduce__(self) -> tuple[type, tuple[Verdict]]:
        return type(self), (self.verdict,)


class MissingKeyError(RefusedError):
    """No key was presented.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.check(None).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.MissingKeyError: missing_key (401)

    """


class InvalidKeyError(RefusedError):
    """The key is no good. Why, is for the log only: ``verdict.reason``.

    >>> import keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=1)
    >>> gate.check("kt_live_mistyped").raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.InvalidKeyError: invalid_key (401)

    """


class DeniedError(RefusedError):
    """Some window lacks room.

    >>> import keytally
    >>> limiter = keytally.Limiter("1/minute")
    >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.DeniedError: denied (429); try again in 40 s

    """


class TooCostlyError(RefusedError):
    """The cost is above a limit and can never be admitted.

    >>> import keytally
    >>> keytally.Limiter("1/minute").check("203.0.113.9", 2).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.TooCostlyError: too_costly (429)

    """


class FullError(RefusedError):
    """The limiter has no slot for a new subject.

    >>> import keytally
    >>> limiter = keytally.Limiter("1/day", capacity=1)
    >>> for number in range(100):
    ...     limiter.check(str(number)).raise_for_status()
    Traceback (most recent call last):
    keytally.exceptions.FullError: full (503); try again in ... s

    """
