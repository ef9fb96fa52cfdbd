"""What happens to a connection, as values: one class per input method of the core.

A driver gives its core nothing else, so that whoever sees these in order, with their times, has all
that the core's actions follow from (:mod:`navtalk_proto.tracing`).
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from navtalk_proto.actions import MediaResult
from navtalk_proto.connection import Connection
from navtalk_proto.intents import Intent
from navtalk_proto.media import MediaEvent, OpId

__all__ = [
    "BinaryReceived",
    "Input",
    "IntentGiven",
    "MediaDone",
    "MediaFailed",
    "MediaHappened",
    "TextReceived",
    "TimePassed",
    "TransportClosed",
    "TransportOpened",
]


@frozen(kw_only=True)
class TransportOpened:
    """The WebSocket handshake is done."""

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.transport_opened`."""
        core.transport_opened(now=now)


@frozen(kw_only=True)
class TextReceived:
    """One whole WebSocket text message was received."""

    text: str | bytes = field(repr=lambda text: f"<{len(text)} long>")

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.receive_text`."""
        core.receive_text(self.text, now=now)


@frozen(kw_only=True)
class BinaryReceived:
    """A binary message of `size` bytes was received."""

    size: int

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.receive_binary`."""
        core.receive_binary(self.size, now=now)


@frozen(kw_only=True)
class TransportClosed:
    """The WebSocket is gone; `code` None where no close frame was received."""

    code: int | None
    reason: str
    violation: bool = False

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.transport_closed`."""
        core.transport_closed(code=self.code, reason=self.reason, violation=self.violation, now=now)


@frozen(kw_only=True)
class IntentGiven:
    """The application, or our server's handler, wants something. The core may refuse it."""

    intent: Intent

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.send`. Raises what that raises."""
        core.send(self.intent, now=now)


@frozen(kw_only=True)
class MediaDone:
    """The engine carried out a command."""

    op: OpId
    result: MediaResult = None

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.media_done`. Raises what that raises."""
        core.media_done(self.op, self.result, now=now)


@frozen(kw_only=True)
class MediaFailed:
    """The engine could not carry out a command."""

    op: OpId
    reason: str

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.media_failed`."""
        core.media_failed(self.op, self.reason, now=now)


@frozen(kw_only=True)
class MediaHappened:
    """Something happened to the media on its own."""

    event: MediaEvent

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.media_event`."""
        core.media_event(self.event, now=now)


@frozen(kw_only=True)
class TimePassed:
    """The timer fired."""

    def give(self, core: Connection, *, now: float) -> None:
        """Call :meth:`Connection.handle_timeout`."""
        core.handle_timeout(now=now)


Input: TypeAlias = (
    TransportOpened
    | TextReceived
    | BinaryReceived
    | TransportClosed
    | IntentGiven
    | MediaDone
    | MediaFailed
    | MediaHappened
    | TimePassed
)
