"""Every exception of navtalk.

Local mistakes and what the far end does wrong are different classes. Receiving never raises: the
far end's mistakes are events (:class:`navtalk_proto.events.ProtocolViolation`). Adapters turn the
end of a connection into a :class:`ConnectError` where a caller waits for it.

Each class has a stable `code`, says whether trying again may help (`retryable`), and has a `hint`:
the first thing to do about it.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final

__all__ = [
    "NavTalkError",
    "LocalProtocolError",
    "NotReadyError",
    "UnsupportedByProviderError",
    "SessionClosedError",
    "SessionLostError",
    "MalformedMessageError",
    "EndpointError",
    "ConnectError",
    "ConnectFailedError",
    "HandshakeRefusedError",
    "ProxyRefusedError",
    "ObsoleteProtocolError",
    "ProtocolViolatedError",
    "ConnectTimeoutError",
    "MediaError",
    "BufferOverrunError",
    "RefusedError",
    "ConnectRefusedError",
    "InsufficientBalanceError",
    "ConnectionLimitExceededError",
    "GpuFullError",
    "BackendRefusedError",
    "RefusalKind",
    "handshake_error",
    "HistoryError",
    "AvatarLookupError",
    "AvatarNotFoundError",
    "LicenseRefusedError",
    "AvatarLookupFailedError",
    "AvatarLookupTimeoutError",
    "AvatarReplyError",
    "ToolError",
    "ToolFailedError",
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
    """For programs: the same in every version, and no other class has it."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without anybody changing anything."""
    hint: ClassVar[str] = "the message says what went wrong"
    """For people: the first thing to do about it."""


class LocalProtocolError(NavTalkError):
    """We asked for something the protocol does not allow now. Nothing changed; the call lives."""

    code = "local-protocol"
    hint = "check the order of calls; the session is unharmed"


class NotReadyError(LocalProtocolError):
    """Audio or a picture before READY: no server expects it yet (protocol.md 3.1 rule 4)."""

    code = "not-ready"
    hint = "wait for the Ready event; an adapter's send_audio() does"


class UnsupportedByProviderError(LocalProtocolError):
    """Tools or pictures for an avatar whose provider is known not to take them (protocol.md 2.4).

    `what` is ``tools`` or ``images``, `provider` the provider's name.
    """

    code = "unsupported-by-provider"
    hint = "choose an avatar of the OpenAI provider, or leave tools and pictures out"

    def __init__(self, what: str, provider: str) -> None:
        super().__init__(f"the provider of this avatar, {provider}, takes no {what}")
        self.what = what
        self.provider = provider


class SessionClosedError(NavTalkError):
    """The session is over; nothing can be sent any more."""

    code = "session-closed"
    hint = "open a new session"


class SessionLostError(SessionClosedError):
    """The session that a call had begun in was lost, and another is being opened in its place.

    With ``connect(reconnect=...)`` only. Nothing of the call reaches the new session; what the old
    one heard of it is not known. The same call made again waits for the new session.
    """

    code = "session-lost"
    retryable = True
    hint = "make the call again: it waits until the session is back"


class MalformedMessageError(NavTalkError):
    """A text is not a message: broken JSON, a wrong field, a known type in the wrong direction.

    `type` is the message's type string where it was readable, `field` the path of the offending
    field, as in ``data.sdp.sdp``. The offending value itself is not shown: it may be a secret.
    """

    code = "malformed-message"
    hint = "the far end sent it: report it there, with the type and the field that are named"

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
    hint = "`navtalk doctor` looks at each step of the way there"


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


class HandshakeRefusedError(ConnectFailedError):
    """The WebSocket handshake was answered with a refusal that trying again does not change.

    `status` is the HTTP status, 401 or 403; whatever guards the server said it, for the protocol's
    own refusals are a :class:`RefusedError`.
    """

    code = "handshake-refused"
    retryable = False
    hint = "check the URL, and what the gateway in front of the server wants to let this client in"

    def __init__(self, message: str, *, status: int | None) -> None:
        super().__init__(message, stage="open")
        self.status = status


class ProxyRefusedError(HandshakeRefusedError):
    """The proxy on the way does not let us through, or does not know us.

    `status` is what it answered: 401, 403 or 407 over HTTP, 2 over SOCKS5 (RFC 1928 section 6),
    None where a SOCKS proxy refused the user.
    """

    code = "proxy-refused"
    hint = (
        "check the user and password in the proxy's URL and whether it lets this host through; "
        "proxy=None goes direct"
    )


_REFUSING_STATUS: Final = (401, 403, 407)
_NOT_ALLOWED: Final = 2  # "connection not allowed by ruleset", RFC 1928 section 6


def handshake_error(message: str, status: int | None, *, proxy: bool) -> ConnectFailedError:
    """The error of a handshake that was answered, with what a retry would do about it.

    For transports. `status` is of the HTTP answer, or of a SOCKS one where `proxy` says that the
    proxy gave it. A SOCKS proxy that refuses a user says so in words only.
    """
    if proxy or status == _REFUSING_STATUS[-1]:
        stranger = status is None and "authentication" in message.lower()
        if status in (*_REFUSING_STATUS, _NOT_ALLOWED) or stranger:
            return ProxyRefusedError(message, status=status)
    elif status in _REFUSING_STATUS:
        return HandshakeRefusedError(message, status=status)
    return ConnectFailedError(message, stage="open")


class ObsoleteProtocolError(ConnectFailedError):
    """The server speaks version 1 of the protocol (protocol.md 6.1)."""

    code = "obsolete-protocol"
    retryable = False
    hint = "connect to /wss/v2/realtime-chat; the endpoints of version 1 are another protocol"


class ProtocolViolatedError(ConnectFailedError):
    """The server broke the protocol too badly, or too often, before the session was usable."""

    code = "protocol-violated"
    hint = "is this a NavTalk server of version 2? if so, report the message that is named"


class ConnectTimeoutError(ConnectError, TimeoutError):
    """The deadline passed. `waiting_for` names the step that did not happen."""

    code = "connect-timeout"
    hint = (
        "it is the server, or the network between: `navtalk doctor` looks at each step of the way"
    )

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
    hint = "the pairs that were tried say which path is missing; `navtalk doctor` looks closer"


class BufferOverrunError(NavTalkError):
    """A reader with the policy ``raise`` was slower than the media, and frames were lost.

    `buffer` is the name of what was full, `size` how many frames it holds, `lost` how many the
    reader will not get. It goes on with the newest frame: the next read gives that.
    """

    code = "buffer-overrun"
    retryable = True
    hint = "read again for the newest frame; a larger size or another policy avoids it"

    def __init__(self, buffer: str, *, size: int, lost: int) -> None:
        super().__init__(f"{buffer}: full at {size} frames, {lost} were lost")
        self.buffer = buffer
        self.size = size
        self.lost = lost


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


class HistoryError(NavTalkError, ValueError):
    """A text is not an exported history. `field` is the path of what is wrong, as in
    ``entries[3].text``, None where it is the whole."""

    code = "history"
    hint = "give the text that History.to_json() made, unchanged"

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason = reason
        self.field = field


class AvatarLookupError(NavTalkError):
    """An avatar could not be looked up. One of its subclasses is raised."""

    code = "avatar-lookup"
    hint = "check the avatar's id or name, the licence and the URL"


class AvatarNotFoundError(AvatarLookupError):
    """There is no avatar of this id or name. `text` is the service's own, without the licence."""

    code = "avatar-not-found"
    hint = "check the avatar's id or name in the console; a name is case-sensitive"

    def __init__(self, text: str) -> None:
        super().__init__(f"there is no such avatar: {text or 'no text'}")
        self.text = text


class LicenseRefusedError(AvatarLookupError):
    """The look-up service does not take the licence. `text` is its own, without the licence."""

    code = "license-refused"
    hint = "check the licence"

    def __init__(self, text: str) -> None:
        super().__init__(f"the licence was refused: {text or 'no text'}")
        self.text = text


class AvatarLookupFailedError(AvatarLookupError):
    """The look-up service could not be reached, or said that it failed.

    `status` is the code of the reply's envelope, else the HTTP status, else None: nothing came.
    """

    code = "avatar-lookup-failed"
    retryable = True
    hint = "check the URL of the look-up service, the network and the proxy"

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(f"the avatar could not be looked up: {reason}")
        self.status = status


class AvatarLookupTimeoutError(AvatarLookupError, TimeoutError):
    """The look-up took longer than its `seconds`."""

    code = "avatar-lookup-timeout"
    retryable = True
    hint = "check the network, or give it more time"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the avatar was not looked up within {seconds:g} s")
        self.seconds = seconds


class AvatarReplyError(AvatarLookupError):
    """The reply is no look-up reply: not JSON, too big, or a field of another type.

    `field` is the path of what is wrong, as in ``data.name``; its value is not shown.
    """

    code = "avatar-reply"
    hint = "check that the URL is that of the look-up service"

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        super().__init__(f"the look-up's reply: {f'{field}: ' if field else ''}{reason}")
        self.reason = reason
        self.field = field


class ToolError(NavTalkError, TypeError):
    """A function cannot be made a tool; the text names it, and the parameter and type at fault.

    Raised where the tool is made, or given to ``connect()``: before anything is opened.
    """

    code = "tool"
    hint = "docs/tools.md lists the types that a tool's parameters may have"


class ToolFailedError(NavTalkError):
    """Raised by a tool to tell the model why it has no result: its text is what the model reads.

    Of any other exception the model is told the class only.
    """

    code = "tool-failed"
    hint = "the text is the tool's own; the model was told it"


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
