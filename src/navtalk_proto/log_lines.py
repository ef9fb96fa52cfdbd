"""What a session's log says: one line for an event or a message, with a prefix for its kind.

``<`` received, ``>`` sent, ``=`` state, ``%`` timer, ``!`` error, ``x`` close. Pure: an adapter
brings the logger. What people say, pictures, descriptions and raw texts are not in them,
and neither is a licence or a credential: such are hidden by their type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import attrs
from attrs import frozen

from navtalk_proto.events import (
    AnswerIgnored,
    BinaryIgnored,
    CandidateFailed,
    Closed,
    ConnectFailed,
    ErrorReported,
    Event,
    FunctionCall,
    MediaLost,
    MediaNotStarted,
    MediaStalled,
    MessageReceived,
    NegotiationFailed,
    Notice,
    OutOfOrder,
    PeerClosing,
    PictureFrozen,
    ProtocolViolation,
    Reconnecting,
    Refused,
    ResponseFailed,
    ResponseText,
    ServerWarning,
    TimedOut,
    UnknownMessage,
)
from navtalk_proto.media import CandidatePair, IceServerFailed, MediaState, MediaStateChanged
from navtalk_proto.redaction import redact

__all__ = [
    "DEBUG",
    "INFO",
    "WARNING",
    "Log",
    "LogLine",
    "LogSetting",
    "event_line",
    "log_sent",
    "logged",
    "sent_line",
]

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
"""The levels, as the standard library numbers them."""

_LEVELS: Final = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": 40}

_ERRORS: Final = (
    CandidateFailed,
    ConnectFailed,
    ErrorReported,
    IceServerFailed,
    MediaLost,
    MediaNotStarted,
    MediaStalled,
    NegotiationFailed,
    Notice,
    OutOfOrder,
    PictureFrozen,
    ProtocolViolation,
    Reconnecting,
    Refused,
    ResponseFailed,
    ServerWarning,
)
_RECEIVED: Final = (AnswerIgnored, BinaryIgnored, UnknownMessage, ResponseText)

_SAID: Final = frozenset({"text", "delta", "heard", "arguments"})
"""Fields with what people, the model or a tool's caller said."""
_TEXT_OF_THE_SERVER: Final = (ServerWarning, Refused, Notice, PeerClosing, ErrorReported)

_SHOWN: Final = 200
"""Characters of a text of the far end."""

_TYPE: Final = re.compile(r'\{"type":\s?"([^"]{1,80})"')


@frozen(kw_only=True)
class LogLine:
    """A line and its level, as in the standard library."""

    level: int
    text: str


def event_line(event: Event) -> LogLine:
    """The line for an event."""
    match event:
        case MessageReceived():
            return LogLine(level=DEBUG, text=f"< {type(event.message).__name__}")
        case TimedOut():
            return LogLine(level=WARNING, text=f"% {_told(event)}")
        case Closed() | PeerClosing() | NegotiationFailed(session_ended=True):
            return LogLine(level=INFO, text=f"x {_told(event)}")
        case MediaStateChanged(state=MediaState.FAILED):
            return LogLine(level=WARNING, text=f"! {_told(event)}")
        case _ if isinstance(event, _ERRORS):
            return LogLine(level=WARNING, text=f"! {_told(event)}")
        case FunctionCall():
            return LogLine(level=INFO, text=f"< {_told(event)}")
        case _ if isinstance(event, _RECEIVED):
            return LogLine(level=DEBUG, text=f"< {_told(event)}")
        case _:
            return LogLine(level=INFO, text=f"= {_told(event)}")


def sent_line(text: str) -> LogLine:
    """The line for a message of ours, of which its type and its size are shown."""
    found = _TYPE.match(text)
    return LogLine(level=DEBUG, text=f"> {found[1] if found else '?'}, {len(text)} characters")


def _told(event: Event) -> str:
    """The name of an event, and those of its fields that may be shown."""
    parts = [type(event).__name__]
    for one in attrs.fields(type(event)):
        value = getattr(event, one.name)
        if one.name == "wish" or value in (None, (), ""):
            continue
        if one.name in _SAID and not isinstance(event, _TEXT_OF_THE_SERVER):
            parts.append(f"{one.name}=<{len(value)} characters>")
        elif one.name == "ice_servers":
            parts.append(f"ice_servers={len(value)}")
        elif one.name == "pairs":
            parts.append(f"pairs=[{_pairs(value)}]")
        elif isinstance(value, Enum):
            parts.append(f"{one.name}={value.value}")
        elif isinstance(value, str) and one.repr:
            parts.append(f"{one.name}={redact(value)[:_SHOWN]!r}")
        elif isinstance(value, int | float):
            parts.append(f"{one.name}={value:g}" if type(value) is float else f"{one.name}={value}")
    return " ".join(parts)


def _pairs(pairs: tuple[CandidatePair, ...]) -> str:
    return "; ".join(f"{pair.local} -> {pair.remote} {pair.state}" for pair in pairs)


@frozen(kw_only=True)
class LogSetting:
    """What NAVTALK_LOG asks for: a level, and the file to write to instead of standard error."""

    level: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> LogSetting:
        """Read ``level`` or ``level:path``. Raises ValueError."""
        name, _, path = text.partition(":")
        level = _LEVELS.get(name.strip().lower())
        if level is None:
            raise ValueError(f"NAVTALK_LOG is a level ({', '.join(_LEVELS)}), or level:path")
        return cls(level=level, path=path or None)


class Log(Protocol):
    """Where lines go: a ``logging.Logger`` is one."""

    def isEnabledFor(self, level: int, /) -> bool:  # noqa: N802 - the standard library's name
        """Whether lines of this level are wanted; nothing is made for others."""
        ...

    def log(self, level: int, msg: str, /, *args: object) -> None:
        """Take a line: `msg` with `args` put in, as ``%`` does."""
        ...


def logged(observe: Callable[[Event], None], log: Log) -> Callable[[Event], None]:
    """An observer that logs each event, and tells `observe`."""

    def observer(event: Event) -> None:
        if log.isEnabledFor(WARNING):
            line = event_line(event)
            if log.isEnabledFor(line.level):
                log.log(line.level, "%s", line.text)
        observe(event)

    return observer


def log_sent(text: str, log: Log) -> None:
    """Log a message that the transport took."""
    if log.isEnabledFor(DEBUG):
        line = sent_line(text)
        log.log(line.level, "%s", line.text)
