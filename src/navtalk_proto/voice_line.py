"""A voice that never stops: what is written is sent in real time, and silence in between.

Nothing here knows a loop. A session makes the line, an adapter runs :meth:`VoiceLine.run` in a task
of its own for as long as its ``voice_line()`` block lasts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from navtalk_proto.errors import LocalProtocolError, SessionClosedError, SessionLostError
from navtalk_proto.event_buffer import Flag
from navtalk_proto.wire.audio import FRAME_BYTES, MIN_FRAME_BYTES, SAMPLE_RATE, SAMPLE_WIDTH

__all__ = ["LINE_SECONDS", "TAIL_SECONDS", "VoiceLine"]

LINE_SECONDS: Final = 1.0
"""How much may be written ahead of real time before write() waits: enough for a hiccup of a speech
service."""

TAIL_SECONDS: Final = 0.25
"""Silence that belongs to an utterance (protocol.md 6.2)."""

_LINE_BYTES: Final = int(LINE_SECONDS * SAMPLE_RATE) * SAMPLE_WIDTH
_TAIL_BYTES: Final = int(TAIL_SECONDS * SAMPLE_RATE) * SAMPLE_WIDTH
_SILENCE: Final = bytes(MIN_FRAME_BYTES)
"""One piece of silence. The shortest message, because what is written waits for the end of it."""


class VoiceLine:
    """A session's voice in real time, with silence while nothing is written.

    ``async with session.voice_line() as line:``, then :meth:`write` whenever there is something to
    say. The human's video stalls without audio in audioBack mode, and a server that listens hears
    by the silence that a turn has ended (protocol.md 5.12, 6.2). One task writes.

    `due` waits until the next piece may leave, `speak` sends one, `interrupt` has the server drop
    what it holds; each raises SessionClosedError after the end.
    """

    def __init__(
        self,
        *,
        due: Callable[[], Awaitable[None]],
        speak: Callable[[bytes], None],
        interrupt: Callable[[], Awaitable[None]],
        flag: Callable[[], Flag],
    ) -> None:
        self._due = due
        self._speak = speak
        self._interrupt = interrupt
        self._queue = bytearray()
        self._clears = 0
        self._losses = 0
        self._quiet = 0
        """Bytes of silence since the last piece that was written."""
        self._pending = False
        """Something was written and is not sent, or its silence is not."""
        self._ended = False
        self._dropped = 0
        self._room = flag()
        self._drained = flag()
        self._drained.set()

    @property
    def queued(self) -> float:
        """Seconds of what was written that are not sent yet; at most LINE_SECONDS."""
        return len(self._queue) / (SAMPLE_RATE * SAMPLE_WIDTH)

    @property
    def dropped(self) -> float:
        """Seconds of what was written that were never sent: cleared, or the line ended before."""
        return self._dropped / (SAMPLE_RATE * SAMPLE_WIDTH)

    async def write(self, pcm: bytes) -> None:
        """Say something: PCM16 little-endian, mono, 24,000 Hz, of any length.

        Returns when all of it is on the line, which is up to LINE_SECONDS before it is sent; a
        :meth:`clear` lets it return at once. Cancelled, it has put a part of it on the line.

        Raises LocalProtocolError for an odd number of bytes; SessionLostError when the connection
        is lost while this waits: the line goes on with silence on the next one; SessionClosedError
        when the session has ended, or the block of the line was left.
        """
        if len(pcm) % SAMPLE_WIDTH:
            raise LocalProtocolError("PCM16 audio has an even number of bytes")
        self._check_open()
        clears, losses = self._clears, self._losses
        at = 0
        while at < len(pcm):
            while not (room := _LINE_BYTES - len(self._queue)):
                self._room.clear()
                await self._room.wait()
                if clears != self._clears or losses != self._losses:
                    self._dropped += len(pcm) - at
                    self._check_kept(losses)
                    return
                self._check_open()
            self._pending = True
            self._drained.clear()
            self._queue += pcm[at : at + room]
            at += room

    async def drain(self) -> None:
        """Wait until all that was written is sent, and TAIL_SECONDS of silence after it.

        Raises SessionLostError when the connection is lost before that, SessionClosedError when the
        line ends.
        """
        losses = self._losses
        await self._drained.wait()
        self._check_kept(losses)
        if self._pending:
            self._check_open()

    async def clear(self) -> None:
        """Stop talking: drop what was written, here and at the server (AudioClear).

        Silence goes on. Raises SessionClosedError after the end.
        """
        self._clears += 1
        self._drop()
        self._room.set()
        await self._interrupt()

    async def run(self) -> None:
        """Send, until cancelled or until the session ends. Run by an adapter, in one task."""
        try:
            while True:
                try:
                    await self._due()
                    self._speak(self._take())
                except SessionLostError:
                    self._lose()
        except SessionClosedError:
            pass  # Whoever writes is told; a line on which nobody does has nothing to say.
        finally:
            self._ended = True
            self._drop()
            self._room.set()
            self._drained.set()

    async def leave(self) -> None:
        """The end of the block: drain, unless the session is over. Called by an adapter."""
        with suppress(SessionClosedError):
            await self.drain()

    def _take(self) -> bytes:
        """The next piece, as late as can be: what was written by now, or silence."""
        if not self._queue:
            self._quiet += len(_SILENCE)
            if self._quiet >= _TAIL_BYTES:
                self._pending = False
                self._drained.set()
            return _SILENCE
        piece = bytes(self._queue[:FRAME_BYTES])
        del self._queue[:FRAME_BYTES]
        self._quiet = 0
        self._room.set()
        return piece

    def _lose(self) -> None:
        """The connection is lost: what was written for it is not said on another."""
        self._losses += 1
        self._drop()
        self._pending = False
        self._room.set()
        self._drained.set()

    def _drop(self) -> None:
        self._dropped += len(self._queue)
        self._queue.clear()

    def _check_kept(self, losses: int) -> None:
        if losses != self._losses:
            raise SessionLostError("the connection was lost; what was on the line is dropped")

    def _check_open(self) -> None:
        if self._ended:
            raise SessionClosedError("the session is over, or its voice line")
