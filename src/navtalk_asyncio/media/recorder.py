"""Recording of a call into Matroska by copying the encoded packets.

Nothing is decoded or encoded while recording (the one picture that FFmpeg's H.264 prober looks at
to learn the size is the exception). Encoding on the fly costs a core and loses frames (engine.md
section 4); copying costs five per cent of one.

The file is written by one thread per recorder: a muxed packet takes 20 microseconds, but a disk may
take seconds, and nothing on the loop may wait for it. The engine's sink only appends to a bounded
queue. When the thread falls behind, packets are dropped and counted, video up to the next keyframe.
"""

from __future__ import annotations

import asyncio
import io
import os
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from os import PathLike, fspath
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, Self

from attrs import frozen

try:
    import av
except ModuleNotFoundError as _missing:
    if _missing.name != "av":
        raise
    raise ImportError(
        "recording needs PyAV: pip install 'navtalk[asyncio]'", name=_missing.name
    ) from _missing

from navtalk_asyncio.media.interface import EncodedFrame, EncodedSource
from navtalk_proto.errors import NavTalkError
from navtalk_proto.media import MediaKind

__all__ = ["QUEUE_BYTES", "START_SECONDS", "Recorder", "RecorderCounters", "RecordingError"]

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Encoded bytes waiting for the disk: a minute of a 2 Mb/s call."""

START_SECONDS: Final = 3.0
"""How long, in arrival time, the file waits for the second kind of media. Matroska names its
streams in its header; what comes later than this is not recorded."""

KEYFRAME_SECONDS: Final = 1.0
"""Between two requests for the keyframe that the video must start with."""

_FORMATS: Final = {".mkv": "matroska", ".webm": "webm"}
_CODECS: Final = {MediaKind.VIDEO: ("VP8", "H264"), MediaKind.AUDIO: ("opus",)}

_being_written: Final[set[str]] = set()
"""The files that recorders of this process have open, links resolved."""
_being_written_lock: Final = threading.Lock()


class RecordingError(NavTalkError):
    """A recording could not be begun, or is incomplete.

    The text names the file and why. The cause, if there is one, is FFmpeg's or the disk's error.
    """

    code = "recording"
    hint = "check the disk's room and rights, and that the suffix fits the codecs"


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
    """Frames of a codec that the file cannot hold, or other than its stream's."""


class Recorder:
    """Copies the first video and the first audio track of an engine into a file.

    ``async with Recorder(engine, "call.mkv"):`` records until the block ends and then completes the
    file. Entering raises RecordingError where the file cannot be opened for writing, or where
    another recorder of this process writes it. Leaving raises RecordingError if writing failed;
    where the block raised itself, its exception gets a note instead.
    The suffix decides: ``.mkv`` takes VP8 or H.264 with Opus, ``.webm`` VP8 with Opus. Another
    suffix is a ValueError.

    Each track's timestamps are its RTP timestamps; the tracks are aligned by the arrival of their
    first packets. Clock drift between the tracks is not corrected. `kinds` are what to record; a
    recording of one kind does not wait for the other. If no media came at all, no file is left; one
    that was there before is overwritten by the first media, and else stays as it is.
    """

    def __init__(
        self,
        engine: EncodedSource,
        path: str | PathLike[str],
        *,
        kinds: Sequence[MediaKind] = (MediaKind.VIDEO, MediaKind.AUDIO),
    ) -> None:
        self._path = fspath(path)
        suffix = PurePath(self._path).suffix.lower()
        if suffix not in _FORMATS:
            raise ValueError(f"cannot record into {suffix or 'a file without suffix'}: .mkv, .webm")
        if not kinds:
            raise ValueError("nothing to record")
        self._engine = engine
        self._kinds = frozenset(kinds)
        self._file = _File(self._path, _FORMATS[suffix], self._kinds)
        self._queue: queue.SimpleQueue[EncodedFrame | None] = queue.SimpleQueue()
        self._queued = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._opened: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._removers: list[Callable[[], None]] = []
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
            written=self._file.written,
            before_keyframe=self._before_keyframe,
            queue_full=self._queue_full,
            too_late=self._file.too_late,
            wrong_codec=self._file.wrong_codec,
        )

    async def __aenter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("a Recorder records once")
        loop = asyncio.get_running_loop()
        self._opened, self._finished = loop.create_future(), loop.create_future()
        self._thread = threading.Thread(
            target=self._write, args=(loop, self._opened, self._finished), name="navtalk-recorder"
        )
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
            self._check_opened()
            for kind in self._kinds:
                self._removers.append(self._engine.add_encoded_sink(kind, self._take))
        except BaseException:
            await self._end()
            raise
        self._engine.request_keyframe()
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
                raise RecordingError(f"{self._path} is incomplete: {self._error}") from self._error
            exc.add_note(f"the recording {self._path} is incomplete: {self._error}")

    def _check_opened(self) -> None:
        if self._error is not None:
            text = f"cannot record into {self._path}: {self._error}"
            raise RecordingError(text) from self._error

    async def _end(self) -> None:
        for remove in self._removers:
            remove()
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
        with self._lock:
            full = self._queued + len(frame.data) > QUEUE_BYTES
            if not full:
                self._queued += len(frame.data)
        if full:
            self._queue_full += 1
            if frame.kind is MediaKind.VIDEO:
                self._synced = False
            return
        self._queue.put(frame)

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
                self._attempt(self._file.open)
            finally:
                loop.call_soon_threadsafe(_finish, opened)
            while (frame := self._queue.get()) is not None:
                with self._lock:
                    self._queued -= len(frame.data)
                self._attempt(self._file.add, frame)
            self._attempt(self._file.start)
            self._attempt(self._file.close)
        finally:
            loop.call_soon_threadsafe(_finish, finished)

    def _attempt(self, step: Callable[..., None], *arguments: EncodedFrame) -> None:
        """Nothing is written after the first failure; leaving the block raises it."""
        if self._error is not None and step != self._file.close:
            return
        try:
            step(*arguments)
        except Exception as exc:  # noqa: BLE001 - raised as RecordingError where the user waits
            self._error = self._error or exc


def _finish(finished: asyncio.Future[None]) -> None:
    if not finished.done():
        finished.set_result(None)


class _Track:
    """One stream of the file and where its clock stands."""

    def __init__(self, stream: Any, frame: EncodedFrame) -> None:
        self.stream = stream
        self.codec = frame.codec
        self.clock_rate = frame.clock_rate
        self.track_id = ""
        self.offset = 0
        self.last = -1
        self.step = 0


class _File:
    """A Matroska file, used by the writing thread only (the counters are read by the loop)."""

    def __init__(self, path: str, format: str, kinds: frozenset[MediaKind]) -> None:
        self._path = path
        self._real_path = os.path.realpath(path)
        self._format = format
        self._opened = self._created = False
        self._kinds = kinds
        self._waiting: deque[EncodedFrame] = deque()
        self._waiting_bytes = 0
        self._output: av.container.OutputContainer | None = None
        self._tracks: dict[MediaKind, _Track] = {}
        self._origin = 0.0
        self.written = 0
        self.too_late = 0
        self.wrong_codec = 0

    def open(self) -> None:
        """See whether the file can be written, and create it; what it holds is not touched yet.

        Raises OSError, and RecordingError where another recorder writes it.
        """
        with _being_written_lock:
            if self._real_path in _being_written:
                raise RecordingError("another recording writes this file now")
            _being_written.add(self._real_path)
        self._opened = True
        created = not os.path.exists(self._real_path)
        with open(self._real_path, "ab"):
            self._created = created

    def add(self, frame: EncodedFrame) -> None:
        """Write a frame, or keep it until the header can be written."""
        if frame.codec not in _CODECS[frame.kind]:
            self.wrong_codec += 1
            return
        if self._format == "webm" and frame.codec == "H264":
            raise ValueError("a .webm file holds VP8 and Opus, not H264: name it .mkv")
        if self._output is not None:
            self._mux(frame)
            return
        self._waiting.append(frame)
        self._waiting_bytes += len(frame.data)
        if (
            {waiting.kind for waiting in self._waiting} == self._kinds
            or frame.arrival - self._waiting[0].arrival >= START_SECONDS
            or self._waiting_bytes > QUEUE_BYTES
        ):
            self.start()

    def start(self) -> None:
        """Write the header and what waits for it, if that has not happened and there is any."""
        if self._output is not None or not self._waiting:
            return
        self._output = av.open(self._path, "w", format=self._format)
        self._origin = min(frame.arrival for frame in self._waiting)
        for kind in (MediaKind.VIDEO, MediaKind.AUDIO):
            first = next((frame for frame in self._waiting if frame.kind is kind), None)
            if first is not None:
                self._tracks[kind] = _Track(_add_stream(self._output, first), first)
        while self._waiting:
            self._mux(self._waiting.popleft())
        self._waiting_bytes = 0

    def close(self) -> None:
        """Complete the file; one that nothing was written into is removed if it is ours."""
        if not self._opened:
            return
        try:
            if self._output is not None:
                self._output.close()
            elif self._created:
                os.unlink(self._real_path)
        finally:
            with _being_written_lock:
                _being_written.discard(self._real_path)

    def _mux(self, frame: EncodedFrame) -> None:
        assert self._output is not None
        track = self._tracks.get(frame.kind)
        if track is None:
            self.too_late += 1
            return
        if frame.codec != track.codec:
            self.wrong_codec += 1
            return
        if frame.track_id != track.track_id:
            # The first frame, or the first of a rebuilt connection whose clock starts anew.
            track.track_id = frame.track_id
            since = round((frame.arrival - self._origin) * track.clock_rate)
            track.offset = since - frame.timestamp
        pts = frame.timestamp + track.offset
        if track.last >= 0:
            # Decoding times must rise; a millisecond is Matroska's resolution.
            pts = max(pts, track.last + track.clock_rate // 1000)
            track.step = pts - track.last
        if frame.codec == "opus":
            track.step = _opus_samples(frame.data)
        track.last = pts
        packet = av.Packet(frame.data)
        packet.stream = track.stream
        packet.time_base = Fraction(1, track.clock_rate)
        packet.pts = packet.dts = pts
        packet.duration = track.step
        packet.is_keyframe = frame.keyframe
        self._output.mux(packet)
        self.written += 1


def _add_stream(output: av.container.OutputContainer, first: EncodedFrame) -> Any:
    """The file's stream for a codec, with its size and codec private data."""
    match first.codec:
        case "VP8":
            source = av.open(io.BytesIO(_ivf(first.data)), format="ivf")
        case "H264":
            # The prober finds size, SPS and PPS; from them the muxer writes an avcC record, and
            # turns the start codes of every packet into lengths (ISO/IEC 14496-15).
            source = av.open(io.BytesIO(first.data), format="h264")
        case _:
            # The encoder is opened for its OpusHead (RFC 7845 section 5.1) and encodes nothing.
            stream = output.add_stream("libopus", rate=48000)
            stream.layout = "stereo"
            return stream
    with source:
        return output.add_stream_from_template(source.streams.video[0])


def _ivf(keyframe: bytes) -> bytes:
    """An IVF file of one VP8 keyframe, whose header has the size (RFC 6386 section 9.1)."""
    if len(keyframe) < 10 or keyframe[3:6] != b"\x9d\x01\x2a":
        raise ValueError("a VP8 keyframe has no start code")
    width, height = struct.unpack_from("<HH", keyframe, 6)
    header = struct.pack(
        "<4sHH4sHHIIII", b"DKIF", 0, 32, b"VP80", width & 0x3FFF, height & 0x3FFF, 30, 1, 1, 0
    )
    return header + struct.pack("<IQ", len(keyframe), 0) + keyframe


def _opus_samples(packet: bytes) -> int:
    """Length of an Opus packet in samples of 48,000 Hz (RFC 6716 section 3.1)."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    counts = {0: 1, 1: 2, 2: 2, 3: packet[1] & 0x3F if len(packet) > 1 else 0}
    return frame * counts[code]
