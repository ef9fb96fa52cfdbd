"""Every exception of navtalk.

Local mistakes and what the far end does wrong are different classes. Receiving never raises: the
far end's mistakes are events (:class:`navtalk_proto.events.ProtocolViolation`). Adapters turn the
end of a connection into a :class:`ConnectError` where a caller waits for it.

Each class has a stable `code`, says whether trying again may help (`retryable`), and has a `hint`:
the first thing to do about it.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

__all__ = [
    "NavTalkError",
    "LocalProtocolError",
    "NotReadyError",
    "SessionClosedError",
    "MalformedMessageError",
    "EndpointError",
    "ConnectError",
    "ConnectFailedError",
    "ConnectTimeoutError",
    "MediaError",
    "RefusedError",
    "ConnectRefusedError",
    "InsufficientBalanceError",
    "ConnectionLimitExceededError",
    "GpuFullError",
    "BackendRefusedError",
    "RefusalKind",
]


class RefusalKind(Enum):
    """Why a server does not want us (protocol.md 5.3)."""

    FAIL = "fail"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    CONNECTION_LIMIT_EXCEEDED = "connection_limit_exceeded"
    GPU_FULL = "gpu_full"
    BACKEND_ERROR = "backend_error"

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without anybody doing anything."""
        return self in (
            RefusalKind.CONNECTION_LIMIT_EXCEEDED,
            RefusalKind.GPU_FULL,
            RefusalKind.BACKEND_ERROR,
        )


class NavTalkError(Exception):
    """The root of navtalk's exceptions."""

    code: ClassVar[str] = "navtalk"
    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""


class LocalProtocolError(NavTalkError):
    """We asked for something the protocol does not allow now. Nothing changed; the call lives."""

    code = "local-protocol"
    hint = "check the order of calls; the session is unharmed"


class NotReadyError(LocalProtocolError):
    """Audio or a picture before READY: no server expects it yet (protocol.md 3.1 rule 4)."""

    code = "not-ready"
    hint = "wait for the Ready event; an adapter's send_audio() does"


class SessionClosedError(NavTalkError):
    """The session is over; nothing can be sent any more."""

    code = "session-closed"
    hint = "open a new session"


class MalformedMessageError(NavTalkError):
    """A text is not a message: broken JSON, a wrong field, a known type in the wrong direction.

    `type` is the message's type string where it was readable, `field` the path of the offending
    field, as in ``data.sdp.sdp``. The offending value itself is not shown: it may be a secret.
    """

    code = "malformed-message"

    def __init__(self, reason: str, *, type: str | None = None, field: str | None = None) -> None:
        where = ": ".join(part for part in (type, field) if part)
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.type = type
        self.field = field


class EndpointError(NavTalkError, ValueError):
    """A URL or its parameters do not make an endpoint. The licence is never part of the text."""

    code = "endpoint"
    hint = "give a wss:// or ws:// base URL, a licence, and an avatar id or name"


class ConnectError(NavTalkError):
    """A session could not be opened."""

    code = "connect"
    retryable = True


class ConnectFailedError(ConnectError):
    """The transport failed or was closed before the session was ready.

    `stage` is the lifecycle state in which it happened; `close_code` the WebSocket close code, None
    where there was none.
    """

    code = "connect-failed"
    hint = "check the URL, the network and the proxy"

    def __init__(self, message: str, *, stage: str, close_code: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.close_code = close_code


class ConnectTimeoutError(ConnectError, TimeoutError):
    """The deadline passed. `waiting_for` names the step that did not happen."""

    code = "connect-timeout"
    hint = "waiting_for says which step is stuck: the server, or the network between"

    def __init__(self, waiting_for: str, seconds: float, detail: str = "") -> None:
        super().__init__(
            f"no usable session within {seconds:g} s: still waiting for {waiting_for}"
            + (f" ({detail})" if detail else "")
        )
        self.waiting_for = waiting_for
        self.seconds = seconds


class MediaError(ConnectError):
    """The media connection could not be made or was lost."""

    code = "media"
    hint = "the candidate pairs that were tried say which network path is missing"


class RefusedError(ConnectError):
    """The server said no. One subclass per :class:`RefusalKind`; `text` is the server's own."""

    code = "refused"
    retryable = False
    kind: ClassVar[RefusalKind] = RefusalKind.FAIL

    def __init__(self, text: str) -> None:
        super().__init__(f"the server refused the session ({self.kind.value}): {text or 'no text'}")
        self.text = text

    @staticmethod
    def of(kind: RefusalKind, text: str) -> RefusedError:
        """The exception for a refusal."""
        return _REFUSED[kind](text)


class ConnectRefusedError(RefusedError):
    """Licence, avatar or connection error."""

    code = "refused-fail"
    kind = RefusalKind.FAIL
    hint = "check the licence and the avatar's name or id"


class InsufficientBalanceError(RefusedError):
    """No credit left."""

    code = "refused-balance"
    kind = RefusalKind.INSUFFICIENT_BALANCE
    hint = "add credit to the account"


class ConnectionLimitExceededError(RefusedError):
    """Too many sessions for this licence."""

    code = "refused-limit"
    retryable = True
    kind = RefusalKind.CONNECTION_LIMIT_EXCEEDED
    hint = "close another session of this licence, or wait for one to end"


class GpuFullError(RefusedError):
    """No worker is free."""

    code = "refused-gpu-full"
    retryable = True
    kind = RefusalKind.GPU_FULL
    hint = "try again later"


class BackendRefusedError(RefusedError):
    """The service failed inside."""

    code = "refused-backend"
    retryable = True
    kind = RefusalKind.BACKEND_ERROR
    hint = "try again; if it stays, ask the service's support"


_REFUSED: dict[RefusalKind, type[RefusedError]] = {
    cls.kind: cls
    for cls in (
        ConnectRefusedError,
        InsufficientBalanceError,
        ConnectionLimitExceededError,
        GpuFullError,
        BackendRefusedError,
    )
}
