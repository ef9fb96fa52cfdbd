"""The media half of a session on asyncio: frames, recording, counters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import Engine
from navtalk_asyncio.succession import Succession
from navtalk_proto.engine import TrackCounters
from navtalk_proto.errors import LocalProtocolError, SessionClosedError
from navtalk_proto.media import MediaKind
from navtalk_proto.session import SessionCalls

if TYPE_CHECKING:
    import av

    from navtalk_asyncio.media.interface import EncodedSource
    from navtalk_asyncio.media.recorder import Recorder

__all__ = ["Session"]


class Session(SessionCalls):
    """A running session, client or server. Made by ``connect()`` and ``serve()``."""

    def __init__(self, driver: Driver | Succession) -> None:
        super().__init__(driver)
        self._media_driver = driver

    @property
    def engine(self) -> Engine:
        """The media engine. Raises LocalProtocolError on a session without media."""
        driver = (
            self._media_driver.driver
            if isinstance(self._media_driver, Succession)
            else self._media_driver
        )
        if driver.engine is None:
            raise LocalProtocolError("this session was opened without media")
        return driver.engine

    def _frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        _ = self.engine  # Raises where there is no media: here, and not at the first frame.
        return self._pump.renewed(lambda: self.engine.frames(kind))

    @property
    def video(self) -> AsyncIterator[av.VideoFrame]:
        """The human's picture as decoded PyAV frames, the newest ones; ends with the media.

        A slow reader sees fewer frames, never old ones. On a session that reconnects it goes on
        with the next connection's, after a gap.
        """
        return self._frames(MediaKind.VIDEO)

    @property
    def audio(self) -> AsyncIterator[av.AudioFrame]:
        """The human's voice as decoded PyAV frames: s16, 48,000 Hz stereo, 20 ms each."""
        return self._frames(MediaKind.AUDIO)

    def record(self, path: str | PathLike[str]) -> AbstractAsyncContextManager[Recorder]:
        """Copy the encoded video and voice into a Matroska or WebM file, re-encoding nothing.

        ``async with session.record("call.mkv"):`` records until the block ends, or the connection:
        after a reconnection there is nothing more in it, and another recording can be begun.

        Raises ValueError for a suffix other than .mkv and .webm, LocalProtocolError on a session
        without media, SessionClosedError after the end, SessionLostError while reconnecting.
        Entering and leaving raise RecordingError: see
        :class:`~navtalk_asyncio.media.recorder.Recorder`.
        """
        if self.end is not None:
            raise SessionClosedError("the session is over")
        self._pump.check_up()
        from navtalk_asyncio.media.recorder import Recorder
        from navtalk_asyncio.thread_engine import ThreadEngine

        if isinstance(self.engine, ThreadEngine):
            return self.engine.record(path)
        return Recorder(cast("EncodedSource", self.engine), path)

    def track_counters(self) -> Mapping[str, TrackCounters]:
        """Packet, frame and last-arrival counters of each received track, by track id."""
        return self.engine.counters()
