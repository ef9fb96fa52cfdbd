"""What an adapter's ``connect()`` makes of events until the session is usable.

Policy above one connection, the same for every adapter: which event decides, and as which exception
it leaves.
"""

from __future__ import annotations

from collections.abc import Callable

from navtalk_proto.errors import (
    ConnectError,
    ConnectFailedError,
    ConnectTimeoutError,
    MediaError,
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
from navtalk_proto.media import MediaState, MediaStateChanged

__all__ = ["Opening", "connect_error"]


def connect_error(event: Event) -> ConnectError | None:
    """The exception that `event` means to somebody who waits for Usable; None: keep waiting.

    The first event that is not None decides. Called with every event in order, before Usable.
    """
    match event:
        case Refused() | Notice():
            return RefusedError.of(event.kind, event.text)
        case TimedOut():
            return ConnectTimeoutError(event.waiting_for, event.seconds)
        case ConnectFailed():
            why = f"{event.code} {event.reason}".strip() if event.code else "connection lost"
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
        case ProtocolViolation(fatal=True):
            return ConnectFailedError(
                _said("the server broke the protocol", _said(event.type or "", event.reason)),
                stage="closing",
            )
        case MediaStateChanged(state=MediaState.FAILED):
            pairs = "; ".join(f"{p.local} -> {p.remote} {p.state}" for p in event.pairs)
            return MediaError(
                f"{_said('no media connection', event.reason)}; "
                f"candidate pairs tried: {pairs or 'none'}"
            )
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

    def observe(self, event: Event) -> None:
        """See every event in order."""
        if not self._decided.is_set():
            self._failure = self._error(event)
            if self._failure is not None or isinstance(event, Usable):
                self._decided.set()

    async def wait(self) -> None:
        """Wait for the session to be usable. Raises ConnectError when it will not be."""
        await self._decided.wait()
        if self._failure is not None:
            raise self._failure

    def _error(self, event: Event) -> ConnectError | None:
        if isinstance(event, NegotiationFailed):
            # Not the end: the server may offer again. But it is why, when nothing more comes.
            self._negotiation = f"the last negotiation failed: {event.reason}"
        if not isinstance(event, TimedOut):
            return connect_error(event)
        seconds = event.seconds
        if self._timeout is not None and seconds == self._armed:
            seconds = self._timeout
        return ConnectTimeoutError(event.waiting_for, seconds, self._negotiation)
