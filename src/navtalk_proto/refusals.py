"""How a server refuses: the messages that say so, the closes that follow, and closes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navtalk_proto.errors import RefusalKind
from navtalk_proto.wire.messages import (
    BackendError,
    ConnectedFail,
    ConnectionLimitExceeded,
    GpuFull,
    InsufficientBalance,
    Message,
    Refusal,
    Unknown,
)

__all__ = ["REFUSALS", "REFUSAL_CLOSES", "refusal_in", "refusal_of"]

REFUSALS: Final[Mapping[type, RefusalKind]] = {
    ConnectedFail: RefusalKind.FAIL,
    InsufficientBalance: RefusalKind.INSUFFICIENT_BALANCE,
    ConnectionLimitExceeded: RefusalKind.CONNECTION_LIMIT_EXCEEDED,
    GpuFull: RefusalKind.GPU_FULL,
    BackendError: RefusalKind.BACKEND_ERROR,
}
"""The messages that refuse a session, or end one that runs (protocol.md 5.3)."""

REFUSAL_CLOSES: Final[Mapping[RefusalKind, tuple[int, str]]] = {
    RefusalKind.FAIL: (1008, "refused"),
    RefusalKind.INSUFFICIENT_BALANCE: (1008, "Insufficient points"),
    RefusalKind.CONNECTION_LIMIT_EXCEEDED: (1008, "connection limit exceeded"),
    RefusalKind.GPU_FULL: (1013, "no worker is free"),
    RefusalKind.BACKEND_ERROR: (1011, "backend error"),
}
"""The code and the reason with which a server closes after a refusal (protocol.md 2.5)."""

_REASONS: Final[tuple[tuple[str, RefusalKind], ...]] = (
    ("insufficient points", RefusalKind.INSUFFICIENT_BALANCE),
    ("insufficient balance", RefusalKind.INSUFFICIENT_BALANCE),
    ("connection limit exceeded", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
    ("maximum concurrent connections", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
    ("gpu full", RefusalKind.GPU_FULL),
    ("no worker is free", RefusalKind.GPU_FULL),
    ("backend error", RefusalKind.BACKEND_ERROR),
    ("invalid license", RefusalKind.FAIL),
    ("avatar not found", RefusalKind.FAIL),
    ("connected.fail", RefusalKind.FAIL),
    ("refused", RefusalKind.FAIL),
)
"""What a close reason says when it is all that tells of a refusal, folded to lower case with spaces
for underscores. The first is what stock clients recognise (protocol.md 2.5); the others are the
wire's own names (5.3) and what our server closes with."""


def refusal_of(message: Message | Unknown) -> tuple[RefusalKind, str]:
    """What a message that is in :data:`REFUSALS` says, and its text."""
    assert isinstance(message, Refusal)
    return REFUSALS[type(message)], message.message


def refusal_in(reason: str) -> RefusalKind | None:
    """The refusal that the reason of a close frame speaks of; None where it is no refusal."""
    folded = reason.lower().replace("_", " ")
    return next((kind for text, kind in _REASONS if text in folded), None)
