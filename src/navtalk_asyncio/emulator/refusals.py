"""How the emulator turns clients away: at connect, or in the middle of a session (protocol.md 5.3).

A refusal is planned by name, ``gpu_full``, or by name and time, ``insufficient_balance@20s``: at
connect, or so long after the session was ready. The names are those of RefusalKind, and ``close``
for connected.close, the end of a session by its own time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from attrs import frozen

from navtalk_proto.errors import RefusalKind
from navtalk_proto.wire.messages import (
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectionLimitExceeded,
    GpuFull,
    InsufficientBalance,
    Refusal,
)

__all__ = ["Farewell", "PlannedRefusal", "farewell", "plan"]

Farewell: TypeAlias = Refusal | ConnectedClose
"""A message after which the server closes the socket (rule E8)."""

_FAREWELLS: Final[dict[str, tuple[type[Farewell], str]]] = {
    RefusalKind.FAIL.value: (ConnectedFail, "Connection failed"),
    RefusalKind.INSUFFICIENT_BALANCE.value: (
        InsufficientBalance,
        "Insufficient balance to continue service",
    ),
    RefusalKind.CONNECTION_LIMIT_EXCEEDED.value: (
        ConnectionLimitExceeded,
        "Maximum concurrent connections (5) exceeded.",
    ),
    RefusalKind.GPU_FULL.value: (GpuFull, "No GPU worker is free, try again later."),
    RefusalKind.BACKEND_ERROR.value: (BackendError, "Backend error"),
    "close": (ConnectedClose, "Session timeout"),
}
"""The messages by name, with the texts of protocol.md 5.3."""

_PLAN: Final = re.compile(r"([a-z_]+)(?:@(\d{1,6}(?:\.\d{1,6})?)(ms|s)?)?")


def farewell(name: str | RefusalKind, message: str | None = None) -> Farewell:
    """The message of that name, with its usual text unless one is given. Raises ValueError."""
    name = name.value if isinstance(name, RefusalKind) else name
    if name not in _FAREWELLS:
        raise ValueError(f"{name!r} is no refusal; there are {', '.join(_FAREWELLS)}")
    kind, text = _FAREWELLS[name]
    return kind(message=text if message is None else message)


@frozen(kw_only=True)
class PlannedRefusal:
    """A refusal that is to come. `after` None: at connect, else seconds from a ready session."""

    name: str
    after: float | None = None


def plan(refuse: str | Iterable[str] | None) -> tuple[PlannedRefusal, ...]:
    """Read ``"gpu_full"``, ``"insufficient_balance@20s"``, or several. Raises ValueError."""
    planned = []
    for one in () if refuse is None else (refuse,) if isinstance(refuse, str) else refuse:
        match = _PLAN.fullmatch(one)
        if match is None:
            raise ValueError(f"{one!r} is not a name, nor a name and seconds as in gpu_full@20s")
        farewell(match[1])
        after = None if match[2] is None else float(match[2])
        if after is not None and match[3] == "ms":
            after /= 1000
        planned.append(PlannedRefusal(name=match[1], after=after))
    if sum(one.after is None for one in planned) > 1:
        raise ValueError("a session is refused once: two refusals are planned for the connect")
    return tuple(planned)
