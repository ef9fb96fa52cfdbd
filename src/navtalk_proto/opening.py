"""What an adapter's ``connect()`` makes of events until the session is usable.

Policy above one connection, the same for every adapter: which event decides, and as which exception
it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import evolve

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import (
    ConnectError,
    ConnectFailedError,
    ConnectTimeoutError,
    MediaError,
    ObsoleteProtocolError,
    ProtocolViolatedError,
    RefusedError,
)
from navtalk_proto.event_buffer import Flag
from navtalk_proto.events import (
    CloseCause,
    Closed,
    ConnectFailed,
    Event,
    NegotiationFailed,
    Notice,
    PeerClosing,
    ProtocolViolation,
    Refused,
    TimedOut,
    Usable,
)
from navtalk_proto.media import CandidatePair, IceServerFailed, MediaState, MediaStateChanged
from navtalk_proto.roles import Role
from navtalk_proto.wire import obsolete

__all__ = ["Opening", "connect_error", "opened"]


ICE_FAILURES: Final = 8
"""ICE servers that an error's text names. A list of more than a few is nobody's to read."""


def connect_error(event: Event, ice_failures: str = "") -> ConnectError | None:
    """The exception that `event` means to somebody who waits for Usable; None: keep waiting.

    The first event that is not None decides. Called with every event in order, before Usable.
    `ice_failures` says which ICE servers were of no use, for an error that they may explain.
    """
    match event:
        case Refused() | Notice():
            return RefusedError.of(event.kind, event.text)
        case TimedOut():
            return ConnectTimeoutError(event.waiting_for, event.seconds)
        case ConnectFailed():
            lost = _said("connection lost", event.reason)
            why = f"{event.code} {event.reason}".strip() if event.code else lost
            return ConnectFailedError(
                f"the session ended before it was ready, in {event.stage}: {why}",
                stage=event.stage,
                close_code=event.code,
            )
        case PeerClosing():
            return ConnectFailedError(
                _said("the server ended the session before it was usable", event.text),
                stage="closing",
            )
        case ProtocolViolation(fatal=True, reason=obsolete.REASON):
            return ObsoleteProtocolError(
                f"the server said {event.type}: {event.reason}", stage="closing"
            )
        case ProtocolViolation(fatal=True):
            return ProtocolViolatedError(
                _said("the server broke the protocol", _said(event.type or "", event.reason)),
                stage="closing",
            )
        case MediaStateChanged(state=MediaState.FAILED):
            told = [_said("no media connection", event.reason), _tried(event.pairs)]
            if ice_failures:
                told.append(ice_failures)
            return MediaError("; ".join(told))
        case Closed():
            return ConnectFailedError(
                _said(
                    f"the session ended before it was usable, by {event.cause.value}", event.reason
                ),
                # Lost while ready; every other way here leads through CLOSING.
                stage="ready" if event.cause is CloseCause.REMOTE else "closing",
                close_code=event.code,
            )
        case _:
            return None


def _tried(pairs: Iterable[CandidatePair]) -> str:
    listed = "; ".join(f"{pair.local} -> {pair.remote} {pair.state}" for pair in pairs)
    return f"candidate pairs tried: {listed or 'none'}"


def _said(what: str, why: str) -> str:
    return ": ".join(part for part in (what, why) if part)


class Opening:
    """What ``connect()`` waits for: the first event that decides."""

    def __init__(
        self, flag: Callable[[], Flag], *, timeout: float | None = None, armed: float | None = None
    ) -> None:
        """`armed` is what CONNECT was armed with: what was left of the caller's `timeout`."""
        self._decided = flag()
        self._failure: ConnectError | None = None
        self._timeout = timeout
        self._armed = armed
        self._negotiation = ""
        self._ice_failures: dict[str, str] = {}
        self._pairs: tuple[CandidatePair, ...] = ()
        """What ICE was last known to try; empty once it has found a pair."""

    def observe(self, event: Event) -> None:
        """See every event in order."""
        if not self._decided.is_set():
            self._failure = self._error(event)
            if self._failure is not None or isinstance(event, Usable):
                self._decided.set()

    @property
    def failure(self) -> ConnectError | None:
        """Why the session will not be usable; None: not known yet, or it is."""
        return self._failure

    async def wait(self) -> None:
        """Wait for the session to be usable. Raises ConnectError when it will not be."""
        await self._decided.wait()
        if self._failure is not None:
            raise self._failure

    def _error(self, event: Event) -> ConnectError | None:
        if isinstance(event, NegotiationFailed):
            # Not the end: the server may offer again. But it is why, when nothing more comes.
            self._negotiation = f"the last negotiation failed: {event.reason}"
        if isinstance(event, MediaStateChanged):
            self._pairs = event.pairs
        if isinstance(event, IceServerFailed) and len(self._ice_failures) < ICE_FAILURES:
            self._ice_failures[event.url] = event.reason
        ice_failures = ""
        if self._ice_failures:
            listed = "; ".join(f"{url}: {reason}" for url, reason in self._ice_failures.items())
            ice_failures = f"ICE servers of no use: {listed}"
        if not isinstance(event, TimedOut):
            return connect_error(event, ice_failures)
        seconds = event.seconds
        if self._timeout is not None and seconds == self._armed:
            seconds = self._timeout
        tried = _tried(self._pairs) if self._pairs else ""
        detail = "; ".join(part for part in (self._negotiation, tried, ice_failures) if part)
        return ConnectTimeoutError(event.waiting_for, seconds, detail)


def opened(
    config: ClientConfig,
    flag: Callable[[], Flag],
    *,
    timeout: float,
    deadline: float,
    now: float,
) -> tuple[Connection, Opening]:
    """The connection for a transport that has just been opened, and what is to be waited for.

    It has what is left until `deadline` of the `timeout` seconds that the caller gave.
    """
    remaining = max(deadline - now, 0.001)
    core = Connection(Role.CLIENT, evolve(config, connect_timeout=remaining), now=now)
    return core, Opening(flag, timeout=timeout, armed=remaining)
