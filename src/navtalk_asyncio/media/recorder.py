"""Recording of a call by copying its encoded packets into mp4, Matroska or WebM.

Nothing is decoded or encoded while recording, unless it is asked for. Encoding on the fly costs a
core and loses frames; copying costs a twentieth of that (benchmarks/cpu.py).

The file is written by one thread per recorder: a muxed packet takes 20 microseconds, but a disk may
take seconds, and nothing on the loop may wait for it. The engine's sink only appends to a bounded
queue. When the thread falls behind, packets are dropped and counted, video up to the next keyframe.
What the thread does is in :mod:`~navtalk_asyncio.media.recording`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import PurePath
from types import TracebackType
from typing import Final, Literal, Self

from attrs import frozen

try:
    import av  # noqa: F401 - said here, and not where it is used first
except ModuleNotFoundError as _missing:
    if _missing.name != "av":
        raise
    raise ImportError(
        "recording needs PyAV: pip install 'navtalk[asyncio]'", name=_missing.name
    ) from _missing

from navtalk_asyncio.media.interface import EncodedFrame, EncodedSource
from navtalk_asyncio.media.muxing import CONTAINERS
from navtalk_asyncio.media.own_voice import Said
from navtalk_asyncio.media.recording import Plan, Recording, Segment, misfit
from navtalk_asyncio.media.recording_error import CodecMisfitError, RecordingError
from navtalk_proto.media import MediaKind

__all__ = [
    "QUEUE_BYTES",
    "CodecMisfitError",
    "Recorder",
    "RecorderCounters",
    "RecordingError",
    "Segment",
]

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Encoded bytes waiting for the disk: a minute of a 2 Mb/s call."""

KEYFRAME_SECONDS: Final = 1.0
"""Between two requests for the keyframe that the video must start with."""


@frozen(kw_only=True)
class RecorderCounters:
    """What a recorder has written and what it could not. Frames, not bytes."""

    written: int = 0
    before_keyframe: int = 0
    """Video that came before the first keyframe, or before the one after a gap."""
    queue_full: int = 0
    too_late: int = 0
    """Media of a kind that was not there when the header was written."""
    wrong_codec: int = 0
    """Frames of a codec that no file here holds, or other than its stream's."""
    silence: int = 0
    """Packets of silence put where sound was missing; not among the written."""
    gaps: int = 0
    """Pictures that stood longer than half a second, because those after them were missing."""
    undecodable: int = 0
    """Pictures that could not be decoded in order to be encoded anew."""


class _Resumed:
    """In the queue: what follows comes by another connection."""


class Recorder:
    """Copies the first video and the first audio track of an engine into a file.

    ``async with Recorder(engine, "call.mkv"):`` records until the block ends and then completes the
    file. Entering raises RecordingError where the file cannot be opened for writing, or where
    another recorder of this process writes it; CodecMisfitError where the call's codec is known and
    does not fit. Leaving raises RecordingError if writing failed; where the block raised itself,
    its exception gets a note instead. After a failure nothing more is written: :attr:`failure`
    tells it while the block runs.

    The suffix decides: ``.mp4`` (fragmented) takes H.264 with Opus, ``.mkv`` VP8 or H.264 with
    Opus, ``.webm`` VP8 with Opus. Another suffix is a ValueError. `transcode` encodes pictures anew
    that do not fit, on the recorder's thread; 720p takes a core.

    Each track's timestamps are its RTP timestamps. The tracks are related by their sender reports,
    and where there are none by their arrival: :attr:`source` says which. `kinds` are what to
    record; a recording of one kind does not wait for the other. `own_voice` adds an audio track
    for what is given to :meth:`say`. If no media came at all, no file is left; one that was there
    before is overwritten by the first media, and else stays as it is.

    `segment_seconds` and `segment_bytes` make a row of files of it, ``call-0001.mp4`` and so on:
    the first keyframe after a limit begins the next one, and is asked for. Each is complete and
    begins at zero; :attr:`segments` says where on the recording's clock. Files of these names are
    overwritten. A lost connection that another one takes the place of, see :meth:`follow`, ends a
    file too: after ``call.mkv`` comes ``call-0002.mkv``, and its :attr:`Segment.gap` says how long
    there was nothing.
    """

    def __init__(
        self,
        engine: EncodedSource,
        path: str | PathLike[str],
        *,
        kinds: Sequence[MediaKind] = (MediaKind.VIDEO, MediaKind.AUDIO),
        own_voice: bool = False,
        segment_seconds: float | None = None,
        segment_bytes: int | None = None,
        transcode: bool = False,
    ) -> None:
        self._path = fspath(path)
        suffix = PurePath(self._path).suffix.lower()
        if suffix not in CONTAINERS:
            known = ", ".join(CONTAINERS)
            raise ValueError(f"cannot record into {suffix or 'a file without suffix'}: {known}")
        if not kinds:
            raise ValueError("nothing to record")
        if segment_seconds is not None and not segment_seconds > 0:
            raise ValueError("segment_seconds must be positive")
        if segment_bytes is not None and segment_bytes < 1:
            raise ValueError("segment_bytes must be positive")
        self._engine = engine
        self._plan = Plan(
            path=self._path,
            kinds=frozenset(kinds),
            own_voice=own_voice,
            segment_seconds=segment_seconds,
            segment_bytes=segment_bytes,
            transcode=transcode,
        )
        self._recording = Recording(self._plan, ask_keyframe=self._keyframe_for_segment)
        self._queue: queue.SimpleQueue[EncodedFrame | Said | _Resumed | None]
        self._queue = queue.SimpleQueue()
        self._queued = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._opened: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._removers: list[Callable[[], None]] = []
        self._ended = False
        self._synced = False
        self._track_id: str | None = None
        self._asked = float("-inf")
        self._before_keyframe = 0
        self._queue_full = 0
        self._error: Exception | None = None

    @property
    def counters(self) -> RecorderCounters:
        """Counted so far; final after the block."""
        return RecorderCounters(
            written=self._recording.written,
            before_keyframe=self._before_keyframe,
            queue_full=self._queue_full,
            too_late=self._recording.too_late,
            wrong_codec=self._recording.wrong_codec,
            silence=self._recording.silence,
            gaps=self._recording.gaps,
            undecodable=self._recording.undecodable,
        )

    @property
    def source(self) -> Literal["sender-reports", "arrival"]:
        """What relates the sound and the picture in the file; ``arrival`` is the fallback."""
        return self._recording.source

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The files that are complete, in order; after the block one, where nothing was cut and no
        connection lost."""
        return self._recording.segments

    @property
    def failure(self) -> Exception | None:
        """Why nothing is written any more: what leaving the block will raise as its cause."""
        return self._error

    def say(self, pcm: bytes) -> None:
        """A piece of the user's own voice, sent now: PCM16, mono, 24,000 Hz. From any thread.

        Lost with ``own_voice=False``, and before there is any other media.
        """
        if self._plan.own_voice:
            self._put(Said(pcm, time.monotonic()), len(pcm))

    def follow(self, engine: EncodedSource) -> None:
        """Go on with another engine, which took a lost one's place: in a file of its own.

        To be called on the loop that both are of. After the block it does nothing.
        """
        if self._ended:
            return
        self._stop_taking()
        self._engine = engine
        self._synced = False
        self._queue.put(_Resumed())
        self._begin_taking()

    async def __aenter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("a Recorder records once")
        error = self._misfit()
        if error is not None:
            raise error
        self._loop = loop = asyncio.get_running_loop()
        self._opened, self._finished = loop.create_future(), loop.create_future()
        self._thread = threading.Thread(
            target=self._write, args=(loop, self._opened, self._finished), name="navtalk-recorder"
        )
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
            self._check_opened()
            self._begin_taking()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()
        if self._error is not None:
            if exc is None:
                kind = type(self._error) if isinstance(self._error, RecordingError) else None
                text = f"{self._path} is incomplete: {self._error}"
                raise (kind or RecordingError)(text) from self._error
            exc.add_note(f"the recording {self._path} is incomplete: {self._error}")

    def _misfit(self) -> CodecMisfitError | None:
        """The codecs that are known to come, before anything is opened."""
        if self._plan.transcode:
            return None
        codecs = [self._engine.codec(kind) for kind in self._plan.kinds]
        errors = [misfit(self._path, codec) for codec in codecs if codec in ("VP8", "H264")]
        return next((error for error in errors if error is not None), None)

    def _check_opened(self) -> None:
        if self._error is not None:
            text = f"cannot record into {self._path}: {self._error}"
            raise RecordingError(text) from self._error

    def _keyframe_for_segment(self) -> None:
        """Called by the thread."""
        self._loop.call_soon_threadsafe(self._engine.request_keyframe)

    def _begin_taking(self) -> None:
        for kind in self._plan.kinds:
            self._removers.append(self._engine.add_encoded_sink(kind, self._take))
        self._engine.request_keyframe()

    def _stop_taking(self) -> None:
        while self._removers:
            self._removers.pop()()

    async def _end(self) -> None:
        self._ended = True
        self._stop_taking()
        self._queue.put(None)
        assert self._thread is not None
        assert self._finished is not None
        # The thread is joined even if we are cancelled: it owns the file.
        try:
            await asyncio.shield(self._finished)
        finally:
            self._thread.join()

    def _take(self, frame: EncodedFrame) -> None:
        """The engine's sink, on the loop."""
        if frame.kind is MediaKind.VIDEO and not self._may_follow(frame):
            self._before_keyframe += 1
            return
        if not self._put(frame, len(frame.data)) and frame.kind is MediaKind.VIDEO:
            self._synced = False

    def _put(self, item: EncodedFrame | Said, size: int) -> bool:
        with self._lock:
            full = self._queued + size > QUEUE_BYTES
            if full:
                self._queue_full += 1
            else:
                self._queued += size
        if not full:
            self._queue.put(item)
        return not full

    def _may_follow(self, frame: EncodedFrame) -> bool:
        if frame.keyframe:
            self._synced, self._track_id = True, frame.track_id
        elif frame.track_id != self._track_id:
            self._synced = False
        if not self._synced and frame.arrival - self._asked >= KEYFRAME_SECONDS:
            self._asked = frame.arrival
            self._engine.request_keyframe()
        return self._synced

    def _write(
        self,
        loop: asyncio.AbstractEventLoop,
        opened: asyncio.Future[None],
        finished: asyncio.Future[None],
    ) -> None:
        """The thread."""
        try:
            try:
                self._attempt(self._recording.open)
            finally:
                loop.call_soon_threadsafe(_finish, opened)
            opened_file = self._error is None
            while (item := self._queue.get()) is not None:
                if isinstance(item, _Resumed):
                    self._attempt(self._recording.resume)
                    continue
                with self._lock:
                    self._queued -= len(item.pcm if isinstance(item, Said) else item.data)
                self._attempt(self._recording.add, item)
            self._attempt(self._recording.start)
            if opened_file:
                self._attempt(self._recording.close, always=True)
        finally:
            loop.call_soon_threadsafe(_finish, finished)

    def _attempt(
        self, step: Callable[..., None], *arguments: EncodedFrame | Said, always: bool = False
    ) -> None:
        """Nothing is written after the first failure; leaving the block raises it."""
        if self._error is not None and not always:
            return
        try:
            step(*arguments)
        except Exception as exc:  # noqa: BLE001 - raised as RecordingError where the user waits
            self._error = self._error or exc


def _finish(finished: asyncio.Future[None]) -> None:
    if not finished.done():
        finished.set_result(None)
