"""The human as a mouth: it says the sound that it is sent (protocol.md 6.2).

Transparency (``model=transparency``) and audioBack (``audioBack=true``) have no turns, so nothing
but ``append``, ``clear`` and ``commit`` means anything, and nothing about a turn is sent.
"""

from __future__ import annotations

import asyncio
from typing import Final

from navtalk_asyncio.emulator.mouthpiece import Mouthpiece, MouthpieceError
from navtalk_asyncio.server import ServerSession
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH
from navtalk_proto.wire.messages import AudioAppend, AudioClear, AudioCommit, Message, ServerError

__all__ = ["LEAD_SECONDS", "Repeater"]

LEAD_SECONDS: Final = 0.2
"""Sound that waits before speech begins: a client that is paced sends pieces of 64 ms, and the next
one may be late. A commit, or as long a time without more, says what is shorter."""

_LEAD_BYTES: Final = int(LEAD_SECONDS * SAMPLE_RATE) * SAMPLE_WIDTH


class Repeater:
    """Says what it is sent, at the pace of the voice track."""

    def __init__(self, session: ServerSession, mouthpiece: Mouthpiece) -> None:
        self._session = session
        self._mouthpiece = mouthpiece
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self.dropped: int = 0
        """Bytes of PCM that came while too much waited to be said."""

    async def take(self, message: Message) -> None:
        """One message of the client; those of a conversation pass by (E7)."""
        match message:
            case AudioAppend(audio=pcm):
                self._waiting += pcm
                if self._mouthpiece.speaking or len(self._waiting) >= _LEAD_BYTES:
                    await self._told(self._say())
                elif self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(LEAD_SECONDS, self._say)
            case AudioCommit():
                await self._told(self._say())
            case AudioClear():
                self.hush()
            case _:
                pass

    def hush(self) -> None:
        """Say nothing of what was sent until now."""
        self._stop_timer()
        self._waiting.clear()
        self._mouthpiece.interrupt()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> MouthpieceError | None:
        """Pass on what waits; the first error of several."""
        self._stop_timer()
        pcm = bytes(self._waiting)
        self._waiting.clear()
        try:
            self._mouthpiece.say(pcm)
        except MouthpieceError as error:
            self.dropped += len(pcm)
            first, self._full = not self._full, True
            return error if first else None
        self._full = False
        return None

    async def _told(self, error: MouthpieceError | None) -> None:
        if error is not None:
            await self._session.send(ServerError(message=str(error), code=error.code))
