"""API-key checks and rate limits in the server's own process.

A `Gate` is a table of API keys: it verifies a key and charges its quotas. A `Limiter` charges the
quotas of any other subject: an address, a user, a route. Any number of processes may share a table
by its file, without a server. Together they admit exactly the limit. A check returns a `Verdict`
with the status, the header fields and the body of the HTTP response.

>>> from keytally import Limiter
>>> limiter = Limiter.in_memory("100/minute, 1000/hour")
>>> limiter.check("203.0.113.9").remaining
999
"""

from __future__ import annotations

from keytally._native import (
    AccountInfo,
    AddressPolicy,
    Charge,
    Compound,
    Flaw,
    Gate,
    Key,
    KeyInfo,
    KeyUsage,
    Limiter,
    Part,
    Policy,
    Quota,
    QuotaState,
    Report,
    SectionQuotas,
    Sections,
    TallyVerdict,
    Verdict,
    __version__,
    check_all,
    generate_pepper,
    peek_all,
)
from keytally.exceptions import (
    AdminError,
    AlreadyImportedError,
    BusyError,
    CreateError,
    DeniedError,
    ForbiddenError,
    FullError,
    GateFullError,
    InvalidKeyError,
    KeyIdError,
    KeytallyError,
    MissingKeyError,
    NoSuchAccountError,
    NoSuchKeyError,
    NoSuchPlanError,
    NoSuchScopeError,
    PepperError,
    PolicyError,
    RefusedError,
    RevokedError,
    TableError,
    TeamsFullError,
    TooCostlyError,
    UnavailableError,
)

__all__ = [
    "AccountInfo",
    "AddressPolicy",
    "AdminError",
    "AlreadyImportedError",
    "BusyError",
    "Charge",
    "Compound",
    "CreateError",
    "DeniedError",
    "Flaw",
    "ForbiddenError",
    "FullError",
    "Gate",
    "GateFullError",
    "InvalidKeyError",
    "Key",
    "KeyIdError",
    "KeyInfo",
    "KeyUsage",
    "KeytallyError",
    "Limiter",
    "MissingKeyError",
    "NoSuchAccountError",
    "NoSuchKeyError",
    "NoSuchPlanError",
    "NoSuchScopeError",
    "Part",
    "PepperError",
    "Policy",
    "PolicyError",
    "Quota",
    "QuotaState",
    "Refusal",
    "RefusedError",
    "Report",
    "RevokedError",
    "SectionQuotas",
    "Sections",
    "Sent",
    "TableError",
    "TallyVerdict",
    "TeamsFullError",
    "TooCostlyError",
    "UnavailableError",
    "Verdict",
    "__version__",
    "acheck_all",
    "check_all",
    "generate_pepper",
    "peek_all",
]

# Only web integrations and event loops need these. Their modules take most of an import's time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from keytally._fleet import acheck_all
    from keytally._refusal import Refusal
    from keytally._settle import Sent


def __getattr__(name: str) -> object:
    if name == "Refusal":
        from keytally._refusal import Refusal

        return Refusal
    if name == "acheck_all":
        from keytally._fleet import acheck_all

        return acheck_all
    if name == "Sent":
        from keytally._settle import Sent

        return Sent
    raise AttributeError(f"module 'keytally' has no attribute {name!r}")
