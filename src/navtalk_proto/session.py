"""The session that an application holds: the same names and signatures on every loop.

Nothing here knows a loop. An adapter's driver, which is a Pump, gives the few things that do.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Final

from attrs import define, field

from navtalk_proto.connection import Counters
from navtalk_proto.errors import ConnectError, NavTalkError, SessionClosedError
from navtalk_proto.event_buffer import Flag
from navtalk_proto.events import Closed, Event
from navtalk_proto.intents import Intent, Negotiate, SayText, SendAudio
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaLine
from navtalk_proto.pump import Pump
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH
from navtalk_proto.wishes import PendingWishes

__all__ = [
    "PACE_MS",
    "SESSION_ENDED",
    "TRAILING_SILENCE",
    "ClientCalls",
    "SessionCalls",
    "is_farewell",
]

PACE_MS: Final = 64
"""One paced piece of a recording: 3,072 bytes, the message size of the stock clients (5.12)."""

TRAILING_SILENCE: Final = 1.0
"""Silence after a recording, in seconds: the server's voice activity detection needs it."""


SESSION_ENDED: Final = (ConnectError, SessionClosedError)
"""What those who wait for a session learn when it ends, also because its driver failed: beside the
failure itself they say nothing new."""


def is_farewell(error: Exception) -> bool:
    """Whether an exception, or everything in a group, says that a session is over."""
    if isinstance(error, ExceptionGroup):
        return all(map(is_farewell, error.exceptions))
    return isinstance(error, SessionClosedError)


@define(eq=False)
class _Wish:
    """A negotiation that somebody waits for."""

    told: Flag
    error: NavTalkError | None = field(default=None)


def _tell(wish: _Wish, error: NavTalkError | None) -> None:
    wish.error = error
    wish.told.set()


class SessionCalls:
    """A running session, client or server: what both can do."""

    def __init__(self, driver: Pump) -> None:
        self._pump = driver
        self._wishes: PendingWishes[_Wish] = PendingWishes(_tell)

    # ---- what the core knows

    @property
    def id(self) -> str | None:
        """The session's id, None before connected.success."""
        return self._pump.core.session_id

    @property
    def state(self) -> State:
        """The lifecycle state."""
        return self._pump.core.state

    @property
    def end(self) -> Closed | None:
        """How the session ended; None while it lives."""
        return self._pump.end

    @property
    def counters(self) -> Counters:
        """What the protocol core counted; a live object."""
        return self._pump.core.counters

    @property
    def events_dropped(self) -> int:
        """Events that gave way because nobody reads :meth:`events`."""
        return self._pump.events.dropped

    # ---- events

    def events(self) -> AsyncIterator[Event]:
        """Every event since the session began, in order; ends after Closed. One reader.

        An application that reads slowly slows the far end down. While nobody reads, the oldest
        events give way, counted in :attr:`events_dropped`: before the first reader, and after a
        loop over the events was left. One that keeps the iterator without reading from it stops
        the session at 1024 events, until it reads on, closes or drops the iterator.
        """
        return aiter(self._pump.events)

    def observe(self, event: Event) -> None:
        """Called by the driver with each event, before :meth:`events` gives it out."""
        self._wishes.observe(event)

    # ---- sending

    async def send(self, intent: Intent) -> None:
        """Carry out an intent: a message of our role, SayText, SendAudio, Negotiate or Close.

        Waits while the socket is slow. Raises LocalProtocolError where the protocol does not allow
        the intent now, SessionClosedError after the end.
        """
        await self._pump.room()
        self._pump.send(intent)

    async def negotiate(self, *media: MediaLine) -> None:
        """Offer these m-lines and wait for the exchange to complete (seed step 5).

        Raises MediaError when it does not: no answer in time, the engine or the far end failed.
        What media runs keeps running then. Raises SessionClosedError when the session ends.
        """
        await self._pump.room()
        wish = _Wish(type(self._pump).flag())
        self._wishes.add(media, wish)
        try:
            self._pump.send(Negotiate(media=media))
            await wish.told.wait()
        finally:
            self._wishes.forget(wish)
        if wish.error is not None:
            raise wish.error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when it is closed, bounded by ``close_timeout``. Idempotent."""
        await self._pump.close(code, reason)


class ClientCalls(SessionCalls):
    """What a client can do besides."""

    async def send_text(self, text: str, *, respond: bool = True) -> None:
        """Say something in writing, and ask for a response unless `respond` is False."""
        await self.send(SayText(text=text, respond=respond))

    async def send_audio(self, pcm: bytes) -> None:
        """Send the user's voice: PCM16 little-endian, mono, 24,000 Hz. Not paced.

        Waits while the socket is slow. Raises LocalProtocolError for an odd number of bytes.
        """
        await self.send(SendAudio(pcm=pcm))

    async def _sleep_until(self, when: float) -> None:
        """Wait for a point in time of the driver's clock; filled in by the adapter."""
        raise NotImplementedError

    async def _say_piece(self, start: float, sent: int, piece: bytes) -> int:
        """Send a piece when its first sample, number `sent`, is due; returns the next number."""
        await self._sleep_until(start + sent / SAMPLE_RATE)
        await self.send_audio(piece)
        return sent + len(piece) // SAMPLE_WIDTH

    @staticmethod
    def _check_silence(seconds: float) -> None:
        """Raise ValueError for a silence that is no length of time; before anything is opened."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"trailing_silence is a number of seconds, not {seconds}")

    async def _say_silence(self, start: float, sent: int, seconds: float) -> float:
        spoken = sent / SAMPLE_RATE
        silence = bytes(PACE_MS * SAMPLE_RATE // 1000 * SAMPLE_WIDTH)
        until = sent + seconds * SAMPLE_RATE
        while sent < until:
            sent = await self._say_piece(start, sent, silence)
        return spoken
