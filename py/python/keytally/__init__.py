"""May the holder of this API key make this request now?

`Gate` checks API keys and charges their quotas, `Limiter` does the same for any subject without keys: an
address, a user, a route. Both may be shared by any number of processes through a file, and together these
admit exactly the limit: no server is run for it. Each check returns a `Verdict` with all that an HTTP
response needs.

>>> from keytally import Limiter
>>> limiter = Limiter("100/minute, 1000/hour")
>>> limiter.check("203.0.113.9").remaining
999
"""

from keytally._native import (
    Charge,
    Flaw,
    Gate,
    Key,
    KeyInfo,
    Limiter,
    Policy,
    Quota,
    QuotaState,
    Report,
    Verdict,
    __version__,
    generate_pepper,
)
from keytally.exceptions import (
    AdminError,
    AlreadyImportedError,
    BusyError,
    CreateError,
    DeniedError,
    FullError,
    GateFullError,
    InvalidKeyError,
    KeyIdError,
    KeytallyError,
    MissingKeyError,
    NoSuchKeyError,
    NoSuchPlanError,
    PepperError,
    PolicyError,
    RefusedError,
    RevokedError,
    TableError,
    TooCostlyError,
)

__all__ = [
    "AdminError",
    "AlreadyImportedError",
    "BusyError",
    "Charge",
    "CreateError",
    "DeniedError",
    "Flaw",
    "FullError",
    "Gate",
    "GateFullError",
    "InvalidKeyError",
    "Key",
    "KeyIdError",
    "KeyInfo",
    "KeytallyError",
    "Limiter",
    "MissingKeyError",
    "NoSuchKeyError",
    "NoSuchPlanError",
    "PepperError",
    "Policy",
    "PolicyError",
    "Quota",
    "QuotaState",
    "RefusedError",
    "Report",
    "RevokedError",
    "TableError",
    "TooCostlyError",
    "Verdict",
    "__version__",
    "generate_pepper",
]
