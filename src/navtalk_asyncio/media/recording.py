"""What a recording's thread does: frames of a call in, one file or a row of segments out.

The header names the streams, so frames wait until both kinds of media came, :data:`START_SECONDS`
at most, and then a little for their sender reports: :data:`REPORT_SECONDS` at most, since nothing
can be played before. From then on each frame gets its place from the
:class:`~navtalk_asyncio.media.timeline.Timeline`.

What is missing is explicit. Missing sound (lost packets, or a sender that is silent by sending
nothing) becomes packets of silence, so that no player closes the gap and is out of step from
then on. A missing picture leaves the one before it standing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Final, Literal

from attrs import define, field, frozen

from navtalk_asyncio.media.claimed_file import ClaimedFile
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.muxing import CONTAINERS, PacketFile
from navtalk_asyncio.media.opus_packets import opus_samples, silence
from navtalk_asyncio.media.own_voice import BEHIND_TICKS, OwnVoice, Said
from navtalk_asyncio.media.recording_error import CodecMisfitError
from navtalk_asyncio.media.timeline import Timeline
from navtalk_asyncio.media.transcoding import Transcoder
from navtalk_proto.media import MediaKind

__all__ = [
    "REPORT_SECONDS",
    "START_SECONDS",
    "Plan",
    "Recording",
    "Segment",
    "misfit",
]

START_SECONDS: Final = 3.0
"""How long, in arrival time, the header waits. A kind of media that comes later is not recorded."""

REPORT_SECONDS: Final = 1.0
"""How long the header waits for sender reports once each kind came. Senders make the first within
half a second to one and a half; the picture is fitted to what a later one says, unseen."""

WAITING_BYTES: Final = 16 * 1024 * 1024
"""Encoded bytes that wait for the header: a minute of a 2 Mb/s call."""

GAP_SECONDS: Final = 0.5
"""A picture that stands longer than this is counted as a gap."""

LONGEST_SILENCE: Final = 3600 * 48_000
"""Samples. A hole that is longer is a mistake of somebody's clock, and is left a hole."""

_VOICE: Final = "own voice"


def misfit(path: str, codec: str) -> CodecMisfitError | None:
    """Why a file cannot hold a codec; None where it can."""
    suffix = PurePath(path).suffix.lower()
    if codec in CONTAINERS[suffix].codecs:
        return None
    holds = " and ".join(CONTAINERS[suffix].codecs)
    return CodecMisfitError(f"this call's {codec} does not fit a {suffix} file, which has {holds}")


@frozen(kw_only=True)
class Plan:
    """What is to be recorded, and into what."""

    path: str
    kinds: frozenset[MediaKind]
    own_voice: bool = False
    segment_seconds: float | None = None
    segment_bytes: int | None = None
    transcode: bool = False

    @property
    def segmented(self) -> bool:
        """Whether the recording is a row of files."""
        return self.segment_seconds is not None or self.segment_bytes is not None

    def file(self, number: int) -> str:
        """The path of a file: `path` itself, or ``call-0001.mp4`` of ``call.mp4``.

        What is not cut has a second file only after a reconnection.
        """
        if number == 1 and not self.segmented:
            return self.path
        path = PurePath(self.path)
        return str(path.with_name(f"{path.stem}-{number:04}{path.suffix}"))


@frozen(kw_only=True)
class Segment:
    """A finished file of a recording. Seconds are on the recording's clock; `start` is 0 first."""

    path: str
    start: float
    end: float
    gap: float = 0.0
    """Seconds before it of which there is nothing: the connection was lost, and another opened."""


@define
class _Track:
    """A kind of media of the file."""

    name: str
    codec: str
    clock_rate: int
    first: bytes
    """What the stream of the next segment is made from."""
    stereo: bool = True
    end: int | None = None
    """Where the newest frame ends, in ticks of the recording's clock."""
    step: int = 3000
    """From one picture to the next: what the newest is thought to last."""


@define
class _File:
    """The segment that is being written."""

    claim: ClaimedFile
    packets: PacketFile
    start: float
    gap: float = 0.0
    bytes: int = 0
    keyframe_asked: float = field(default=float("-inf"))


class Recording:
    """Writes a call by a plan; used by one thread. The counters may be read by others.

    :meth:`open` raises OSError, and RecordingError where another recording writes the file. The
    others raise what the muxer raises, and CodecMisfitError. :meth:`close` is to be called after an
    :meth:`open` that returned, whatever happened in between.
    """

    def __init__(self, plan: Plan, *, ask_keyframe: Callable[[], None]) -> None:
        self._plan = plan
        self._container = CONTAINERS[PurePath(plan.path).suffix.lower()]
        self._ask_keyframe = ask_keyframe
        self._waiting: deque[EncodedFrame | Said] = deque()
        self._waiting_bytes = 0
        self._timeline = Timeline()
        self._offsets: dict[str, float] = {}
        """Of tracks that waited for the header: the sender's time of timestamp 0."""
        self._origin: float | None = None
        """Of the recording's clock, on the clock of the arrivals; None before the first file."""
        self._claim: ClaimedFile | None = None
        self._file: _File | None = None
        self._tracks: dict[MediaKind, _Track] = {}
        self._voice: OwnVoice | None = None
        self._transcoder: Transcoder | None = None
        self._end = 0.0
        self._undecodable = 0
        self.segments: tuple[Segment, ...] = ()
        self.written: int = 0
        self.too_late: int = 0
        self.wrong_codec: int = 0
        self.silence: int = 0
        self.gaps: int = 0

    @property
    def source(self) -> Literal["sender-reports", "arrival"]:
        """What relates sound and picture."""
        return self._timeline.source

    @property
    def undecodable(self) -> int:
        """Frames that could not be encoded anew, because they could not be decoded."""
        now = 0 if self._transcoder is None else self._transcoder.undecodable
        return self._undecodable + now

    # ---- the thread's steps

    def open(self) -> None:
        """See whether the (first) file can be written, and create it."""
        self._claim = ClaimedFile(self._plan.file(1))

    def add(self, item: EncodedFrame | Said) -> None:
        """Write a frame or a piece of voice, or keep it until the header can be written."""
        if isinstance(item, EncodedFrame):
            fitting = self._fitting(item)
            if fitting is None:
                return
            item = fitting
        if self._file is not None:
            self._write(item)
            return
        self._waiting.append(item)
        self._waiting_bytes += len(item.data if isinstance(item, EncodedFrame) else item.pcm)
        if self._ready():
            self.start()

    def start(self) -> None:
        """Write the header and what waits for it, if that has not happened and there is any."""
        frames = [item for item in self._waiting if isinstance(item, EncodedFrame)]
        if self._file is not None or not frames:
            return
        begins = []
        for kind in (MediaKind.AUDIO, MediaKind.VIDEO):
            mine = [frame for frame in frames if frame.kind is kind]
            if mine:
                first = mine[0]
                self._tracks[kind] = _Track(kind.value, first.codec, first.clock_rate, first.data)
                if kind is MediaKind.AUDIO and first.data:
                    self._tracks[kind].stereo = bool(first.data[0] & 4)
                begins.append(self._place_first(mine))
        start = 0.0
        if self._origin is None:
            self._origin = min(begins)
        else:
            start = max(min(begins) - self._origin, self._end)
        if self._plan.own_voice:
            self._voice = OwnVoice(begins=round(start * 48_000))
        self._begin_file(start, gap=start - self._end)
        while self._waiting:
            self._write(self._waiting.popleft())
        self._waiting_bytes = 0

    def resume(self) -> None:
        """Another connection takes this one's place: what comes of it begins a file of its own.

        Its tracks have other clocks, and may have other codecs and sizes. Only the arrivals know
        how long there was nothing.
        """
        self.start()
        if self._file is not None:
            self._end_file()
        self._undecodable, self._transcoder = self.undecodable, None
        self._tracks.clear()
        self._offsets.clear()
        self._timeline, self._voice = Timeline(), None

    def close(self) -> None:
        """Complete the file; one that nothing was written into is removed if it is ours."""
        if self._file is not None:
            self._end_file()
        elif self._claim is not None:
            try:
                self._claim.remove_if_ours()
            finally:
                self._claim.release()

    # ---- what fits

    def _fitting(self, frame: EncodedFrame) -> EncodedFrame | None:
        if frame.codec in self._container.codecs:
            return frame
        if frame.codec not in ("VP8", "H264"):
            self.wrong_codec += 1
            return None
        error = misfit(self._plan.path, frame.codec)
        if error is not None and not self._plan.transcode:
            raise error
        if self._transcoder is None:
            target = next(codec for codec in self._container.codecs if codec != "opus")
            self._transcoder = Transcoder(frame.codec, target)
        return self._transcoder.convert(frame)

    # ---- the beginning

    def _ready(self) -> bool:
        frames = [item for item in self._waiting if isinstance(item, EncodedFrame)]
        if not frames:
            return False
        newest = {frame.kind: frame for frame in frames}
        oldest = {frame.kind: frame for frame in reversed(frames)}
        related = len(self._plan.kinds) == 1 or all(
            frame.sender_time is not None for frame in newest.values()
        )
        complete = max(frame.arrival for frame in oldest.values())
        related = related or frames[-1].arrival - complete >= REPORT_SECONDS
        return (
            (newest.keys() == self._plan.kinds and related)
            or frames[-1].arrival - frames[0].arrival >= START_SECONDS
            or self._waiting_bytes > WAITING_BYTES
        )

    def _place_first(self, frames: list[EncodedFrame]) -> float:
        """Place a track's first frame by all that is known of the track; returns its time."""
        first = frames[0]
        same = [frame for frame in frames if frame.track_id == first.track_id]
        for frame in same:
            if frame.sender_time is not None:
                self._offsets[frame.track_id] = frame.sender_time - _seconds(frame)
        earliest = min(frame.arrival - _seconds(frame) for frame in same)
        return _seconds(first) + self._shift(first, earliest=earliest)

    def _shift(self, frame: EncodedFrame, *, earliest: float | None = None) -> float:
        sender_time = frame.sender_time
        if sender_time is None and frame.track_id in self._offsets:
            sender_time = self._offsets[frame.track_id] + _seconds(frame)
        return self._timeline.place(
            frame.kind,
            frame.track_id,
            _seconds(frame),
            arrival=frame.arrival,
            sender_time=sender_time,
            earliest=earliest,
        )

    # ---- frames

    def _write(self, item: EncodedFrame | Said) -> None:
        assert self._origin is not None
        if isinstance(item, Said):
            if self._voice is not None:
                at = round((item.at - self._origin) * 48_000)
                self._write_voice(self._voice.say(item.pcm, at))
            return
        track = self._tracks.get(item.kind)
        if track is None:
            self.too_late += 1
            return
        if item.codec != track.codec:
            self.wrong_codec += 1
            return
        # The shift in whole ticks: timestamps that rise evenly go on doing so.
        ticks = item.timestamp + round((self._shift(item) - self._origin) * track.clock_rate)
        if item.keyframe:
            track.first = item.data
        self._cut(item, ticks / track.clock_rate)
        if item.kind is MediaKind.AUDIO:
            self._write_sound(track, item.data, ticks)
        else:
            self._write_picture(track, item, ticks)
        if self._voice is not None:
            self._write_voice(self._voice.silent(round(self._end * 48_000)))

    def _write_sound(self, track: _Track, data: bytes, ticks: int) -> None:
        if track.end is not None and ticks - track.end <= LONGEST_SILENCE:
            for packet, length in silence(ticks - track.end, stereo=track.stereo):
                self._put(track, packet, track.end, length, keyframe=True)
                self.silence += 1
        self._put(track, data, ticks, opus_samples(data), keyframe=True)
        self.written += 1

    def _write_picture(self, track: _Track, frame: EncodedFrame, ticks: int) -> None:
        if track.end is not None:
            begun = track.end - track.step
            if ticks - begun > GAP_SECONDS * track.clock_rate:
                self.gaps += 1
            track.step = max(ticks - begun, 1)
        self._put(track, frame.data, ticks, track.step, keyframe=frame.keyframe)
        self.written += 1

    def _put(self, track: _Track, data: bytes, ticks: int, length: int, *, keyframe: bool) -> None:
        assert self._file is not None
        start = round(self._file.start * track.clock_rate)
        at = start + self._file.packets.write(
            track.name, data, pts=ticks - start, duration=length, keyframe=keyframe
        )
        track.end = at + length
        self._file.bytes += len(data)
        self._end = max(self._end, track.end / track.clock_rate)

    def _write_voice(self, packets: Iterable[tuple[bytes, int, int]]) -> None:
        assert self._file is not None
        start = round(self._file.start * 48_000)
        for data, at, length in packets:
            self._file.packets.write(_VOICE, data, pts=at - start, duration=length, keyframe=True)
            self._file.bytes += len(data)

    # ---- segments

    def _cut(self, frame: EncodedFrame, time: float) -> None:
        """End the segment before this frame, if it is long enough and the next can begin here."""
        assert self._file is not None
        seconds, size = self._plan.segment_seconds, self._plan.segment_bytes
        if not (
            (seconds is not None and time - self._file.start >= seconds)
            or (size is not None and self._file.bytes >= size)
        ):
            return
        if MediaKind.VIDEO in self._tracks and not (
            frame.kind is MediaKind.VIDEO and frame.keyframe
        ):
            if time - self._file.keyframe_asked >= 1.0:
                self._file.keyframe_asked = time
                self._ask_keyframe()
            return
        ends = [
            track.end / track.clock_rate
            for kind, track in self._tracks.items()
            if kind is MediaKind.AUDIO and track.end is not None
        ]
        if self._voice is not None:
            self._write_voice(self._voice.silent(round(time * 48_000), after=BEHIND_TICKS))
            ends.append(self._voice.end / 48_000)
        self._end_file()
        # What of the sound is still to come belongs to the new segment: none of it begins before.
        self._begin_file(min([time, *ends]))

    def _begin_file(self, start: float, *, gap: float = 0.0) -> None:
        if self._claim is None:
            self._claim = ClaimedFile(self._plan.file(len(self.segments) + 1))
        packets = PacketFile(self._claim.path, self._container)
        self._file = _File(self._claim, packets, start, gap)
        for kind in (MediaKind.VIDEO, MediaKind.AUDIO):
            if (track := self._tracks.get(kind)) is not None:
                packets.add(track.name, track.codec, track.first)
        if self._voice is not None:
            packets.add(_VOICE, "opus", b"", title=_VOICE)

    def _end_file(self) -> None:
        assert self._file is not None
        file, self._file, self._claim = self._file, None, None
        try:
            file.packets.close()
        finally:
            file.claim.release()
        segment = Segment(path=file.claim.path, start=file.start, end=self._end, gap=file.gap)
        self.segments += (segment,)


def _seconds(frame: EncodedFrame) -> float:
    return frame.timestamp / frame.clock_rate
