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

    def __init__(self, flag: Callable[[], Flag]) -> None:
        self._decided = flag()
        self._failure: ConnectError | None = None

    def observe(self, event: Event) -> None:
        """See every event in order."""
        if not self._decided.is_set():
            self._failure = connect_error(event)
            if self._failure is not None or isinstance(event, Usable):
                self._decided.set()

    async def wait(self) -> None:
        """Wait for the session to be usable. Raises ConnectError when it will not be."""
        await self._decided.wait()
        if self._failure is not None:
            raise self._failure
