"""The media half of a session on trio: frames, recording, counters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

from navtalk_proto.engine import TrackCounters
from navtalk_proto.errors import LocalProtocolError, SessionClosedError
from navtalk_proto.media import MediaKind
from navtalk_proto.session import ClientCalls, SessionCalls
from navtalk_trio.driver import Driver, Engine
from navtalk_trio.succession import Succession
from navtalk_trio.trace_file import trace_file

if TYPE_CHECKING:
    import av

    from navtalk_proto.tracing.output import TraceOptions
    from navtalk_proto.tracing.recorder import Recorder as TraceRecorder
    from navtalk_trio.engine_thread import (
        AvFrame,
        AvSync,
        FrameFeed,
        FramePolicy,
        PacketFeed,
        Recorder,
        ThreadEngine,
    )

__all__ = ["MediaCalls", "Session"]


class MediaCalls(SessionCalls):
    """What a session offers of its media."""

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

    @overload
    def frames(
        self,
        kind: Literal[MediaKind.VIDEO],
        *,
        policy: FramePolicy = "latest",
        size: int | None = None,
    ) -> FrameFeed[av.VideoFrame]: ...

    @overload
    def frames(
        self,
        kind: Literal[MediaKind.AUDIO],
        *,
        policy: FramePolicy = "latest",
        size: int | None = None,
    ) -> FrameFeed[av.AudioFrame]: ...

    def frames(
        self, kind: MediaKind, *, policy: FramePolicy = "latest", size: int | None = None
    ) -> FrameFeed[Any]:
        """Decoded PyAV frames of a kind, by what is to happen when the reader is slow.

        At most `size` frames wait: pictures (2 unless given), or pieces of sound of 20 ms (20).
        Then, with the policy ``latest``, the oldest gives way, as with :attr:`video`. With
        ``raise``, reading raises BufferOverrunError, all that waited is lost, and the next read
        gives the newest frame. With ``block``, the decoder waits, and all other readers of this
        kind with it; a second of encoded frames waits for the decoder, and beyond that pictures
        give way up to the next keyframe, and the oldest sound.

        Counters and settings are attributes of what is returned. Each call is a reader of its own;
        one that is not read on with ``block`` is to be dropped or closed. Ends with the media; goes
        on after a reconnection. Raises ValueError for a size below 1, LocalProtocolError on a
        session without media, or whose engine does not give frames to such readers.
        """
        self._thread_engine()  # Raises where there is nothing to read, at once.
        from navtalk_trio.engine_thread import FrameFeed

        return FrameFeed(kind, policy, size, self._pump.renewed, lambda: self._thread_engine().tap)

    def _trace_file(self, options: TraceOptions) -> AbstractAsyncContextManager[TraceRecorder]:
        return trace_file(options, self._pump.secrets)

    def record(
        self,
        path: str | PathLike[str],
        *,
        kinds: Sequence[MediaKind] = (MediaKind.VIDEO, MediaKind.AUDIO),
        own_voice: bool = False,
        segment_seconds: float | None = None,
        segment_bytes: int | None = None,
        transcode: bool = False,
    ) -> AbstractAsyncContextManager[Recorder]:
        """Copy the encoded video and voice into an mp4, Matroska or WebM file, encoding nothing.

        ``async with session.record("call.mkv"):`` records until the block ends, or the session. A
        session that reconnects goes on in a file of its own, ``call-0002.mkv``, whose place in
        ``recorder.segments`` says how long there was nothing. The file can be played whenever the
        process dies. See docs/recording.md.

        An mp4 file needs H.264, which is asked for when the session opens:
        ``connect(media=recording_media("call.mp4"))``; `transcode` encodes pictures anew that do
        not fit, off the loop, for a core. `kinds` are what of the human to record. `own_voice`
        makes what is sent to the human a second audio track (client sessions). `segment_seconds`
        and `segment_bytes` make a row of files of it, ``call-0001.mkv`` and so on, each from a
        keyframe on.

        Raises ValueError for another suffix or a limit that is not positive, LocalProtocolError on
        a session without media or without a voice of its own, SessionClosedError after the end,
        SessionLostError while reconnecting. Entering and leaving raise RecordingError, entering
        CodecMisfitError where the call's codec does not fit: see
        :class:`~navtalk_asyncio.media.recorder.Recorder`.
        """
        if self.end is not None:
            raise SessionClosedError("the session is over")
        self._pump.check_up()
        if own_voice and not isinstance(self, ClientCalls):
            raise LocalProtocolError("only a client has a voice of its own to record")
        recording: AbstractAsyncContextManager[Recorder] = self._thread_engine().record(
            path,
            kinds=kinds,
            own_voice=own_voice,
            segment_seconds=segment_seconds,
            segment_bytes=segment_bytes,
            transcode=transcode,
        )
        recording = self._following(recording)
        if own_voice and isinstance(self, ClientCalls):
            return self.with_own_voice(recording)
        return recording

    @asynccontextmanager
    async def _following(
        self, recording: AbstractAsyncContextManager[Recorder]
    ) -> AsyncGenerator[Recorder]:
        """A recording that goes on with each connection that takes a lost one's place."""
        first = self.engine
        async with recording as recorder:

            def follow() -> None:
                tap = self._thread_engine().tap
                tap.run(partial(recorder.follow, tap.engine))

            stop = self._pump.follow(follow)
            if self.engine is not first:  # It was lost while the file was opened.
                follow()
            try:
                yield recorder
            finally:
                stop()

    def _thread_engine(self) -> ThreadEngine:
        """The engine as what gives frames away. Raises LocalProtocolError for one that does not."""
        from navtalk_trio.engine_thread import ThreadEngine

        engine = self.engine
        if not isinstance(engine, ThreadEngine):
            raise LocalProtocolError("this session's engine has no encoded packets")
        return engine

    def packets(self) -> PacketFeed:
        """Encoded packets of voice and video as they come, for relays: EncodedFrame objects.

        A picture is whole (H.264 with start codes, VP8), a sound is one Opus packet. Timestamps
        count from each track's first frame; `sender_time` relates the tracks once their sender
        reports came. Video begins with a keyframe, which is asked for. A slow reader loses what is
        older than the newest keyframe (docs/recording.md); ``packets().counters`` says how much.
        Nothing is decoded. Ends with the media; on a session that reconnects it goes on with the
        next connection's, whose timestamps begin anew under other track ids.

        Each call is a reader of its own. Raises LocalProtocolError on a session without media, or
        whose engine has no encoded packets.
        """
        self._thread_engine()  # Raises where there is nothing to read, at once.
        from navtalk_trio.engine_thread import PacketCounters, PacketFeed, packet_feed

        counters = PacketCounters()
        feed = self._pump.renewed(lambda: packet_feed(self._thread_engine().tap, counters))
        return PacketFeed(feed, counters)

    def av(self) -> AsyncIterator[AvFrame]:
        """Decoded sound and picture in the order and at the times in which they belong.

        For players: each AvFrame has a `time` on one clock, and is to be played a constant time
        after that. Related by sender reports, or by arrival where there are none: :attr:`av_sync`
        says which. The kind that arrives early is held back until the other has come as far, at
        most 0.25 s. Every frame comes, in contrast to :attr:`video`; where the reader is slow the
        oldest give way, at 12 pictures or a second of sound. Ends with the media; goes on after a
        reconnection. Raises as :meth:`packets` does.
        """
        self._thread_engine()  # Raises where there is nothing to read, at once.
        from navtalk_trio.engine_thread import av_feed

        return self._pump.renewed(lambda: av_feed(self._thread_engine().tap))

    @property
    def av_sync(self) -> AvSync:
        """How sound and picture are related, and by how much the picture arrives later."""
        from navtalk_trio.engine_thread import av_sync

        engine = self._thread_engine()
        return av_sync(engine.timing(MediaKind.AUDIO), engine.timing(MediaKind.VIDEO))

    def track_counters(self) -> Mapping[str, TrackCounters]:
        """Packet, frame and last-arrival counters of each received track, by track id."""
        return self.engine.counters()


Session = MediaCalls
"""Any session on trio, client or server."""
