"""What a recording makes of a call: one clock, silence, gaps, segments. Frames are synthetic, and
ten minutes of a call take as long as writing them down."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from attrs import evolve

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.own_voice import Said
from navtalk_asyncio.media.recording import Plan, Recording, Segment
from navtalk_asyncio.media.sender_reports import SenderReports, ntp_timestamp
from navtalk_proto.media import MediaKind

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
NTP = 3_990_000_000.0


class Track:
    """One track of a sender: what it sends, by its own clock, and what its reports say."""

    def __init__(
        self,
        kind: MediaKind,
        codec: str,
        *,
        rate: int,
        period: float,
        ppm: float = 0.0,
        delay: float = 0.05,
        noise: float = 0.0,
        reports: bool = True,
    ) -> None:
        self.kind, self.codec, self.rate, self.period = kind, codec, rate, period
        self.speed, self.delay, self.noise = 1 + ppm / 1e6, delay, noise
        self.with_reports = reports
        self.reports = SenderReports(kind.value)
        self._random = random.Random(kind.value)
        self._reported = 0.2 if kind is AUDIO else 0.7

    def time(self, number: int) -> float:
        """The sender's time of a frame, whose timestamps rise evenly on a clock of its own."""
        return number * self.period / self.speed

    def frame(self, number: int, data: bytes, *, keyframe: bool = True) -> EncodedFrame:
        at = self.time(number)
        timestamp = round(number * self.period * self.rate)
        if self.with_reports and at >= self._reported:
            self._reported += 1.0
            error = self._random.uniform(0, self.noise)
            self.reports.report(ntp=ntp_timestamp(NTP + at + error), rtp=timestamp % 2**32)
        arrival = 500 + at + self.delay
        return EncodedFrame(
            kind=self.kind,
            track_id=self.kind.value,
            codec=self.codec,
            data=data,
            timestamp=timestamp,
            clock_rate=self.rate,
            keyframe=keyframe,
            arrival=arrival,
            sender_time=self.reports.frame(
                rtp=timestamp % 2**32, timestamp=timestamp, clock_rate=self.rate, arrival=arrival
            ),
        )


def record(path: Path, items: Iterator[Any], **options: Any) -> Recording:
    options.setdefault("kinds", frozenset({VIDEO, AUDIO}))
    asked: list[None] = []
    recording = Recording(Plan(path=str(path), **options), ask_keyframe=lambda: asked.append(None))
    recording.open()
    try:
        for item in items:
            recording.add(item)
        recording.start()
    finally:
        recording.close()
    recording.asked = len(asked)  # type: ignore[attr-defined]
    return recording


def interleaved(*streams: Iterator[EncodedFrame]) -> Iterator[EncodedFrame]:
    return iter(sorted((frame for stream in streams for frame in stream), key=lambda f: f.arrival))


def times(path: Path | str, index: int = 0, kind: str = "audio") -> list[tuple[bytes, float]]:
    with av.open(str(path)) as container:
        stream = [stream for stream in container.streams if stream.type == kind][index]
        return [(bytes(p), float(p.pts * p.time_base)) for p in container.demux(stream) if p.size]


def sounds() -> tuple[bytes, bytes]:
    """A packet of silence and the first of a tone; 60 ms."""
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.format, context.layout = 48_000, "s16", "stereo"
    context.options = {"frame_duration": "60", "application": "lowdelay"}
    found = []
    for loud in (0, 0, 0, 12_000):
        frame = av.AudioFrame(format="s16", layout="stereo", samples=2880)
        samples = (loud if n // 50 % 2 else -loud for n in range(2880))
        frame.planes[0].update(b"".join(n.to_bytes(2, "little", signed=True) * 2 for n in samples))
        frame.sample_rate = 48_000
        frame.pts = 2880 * len(found)
        found += [bytes(packet) for packet in context.encode(frame)]
    assert len(found) == 4
    return found[2], found[3]


def pictures(codec: str, width: int = 64, height: int = 48) -> tuple[bytes, bytes]:
    """A black and a white keyframe."""
    found = []
    for luma in (16, 235):
        context: Any = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 30)
        if codec == "libx264":
            context.profile = "Baseline"
            context.options = {"tune": "zerolatency", "x264-params": "repeat-headers=1"}
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = 0
        [packet] = [*context.encode(frame), *context.encode(None)]
        found.append(bytes(packet))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder"), [(".mp4", "H264", "libx264"), (".mkv", "VP8", "libvpx")]
)
def test_tone_and_flash_stay_together_for_ten_minutes(
    clips: Any, tmp_path: Path, suffix: str, codec: str, encoder: str
) -> None:
    """The sound's clock is 150 ppm fast and the picture's 50 ppm slow: 0.12 s apart at the end, if
    nobody looked. The picture arrives 180 ms late, and each report is up to 10 ms wrong."""
    black, white = pictures(encoder)
    quiet, tone = sounds()
    audio = Track(AUDIO, "opus", rate=48_000, period=0.06, ppm=150, noise=0.01)
    video = Track(VIDEO, codec, rate=90_000, period=0.1, ppm=-50, delay=0.23, noise=0.01)

    def event(track: Track, number: int) -> bool:
        """Whether this frame is the first of a minute."""
        return number > 0 and int(track.time(number) / 60) != int(track.time(number - 1) / 60)

    flashes = [number for number in range(6_010) if event(video, number)]
    tones = [number for number in range(10_010) if event(audio, number)]
    assert len(flashes) == len(tones) == 10
    path = tmp_path / f"call{suffix}"
    recording = record(
        path,
        interleaved(
            (video.frame(n, white if n in flashes else black) for n in range(6_010)),
            (audio.frame(n, tone if n in tones else quiet) for n in range(10_010)),
        ),
    )
    assert recording.written == 16_020
    assert recording.silence == 0
    assert recording.source == "sender-reports"
    with av.open(str(path)) as container:
        flashed = [
            float(frame.pts * frame.time_base)
            for frame in container.decode(video=0)
            if bytes(frame.planes[0])[0] > 200
        ]
    with av.open(str(path)) as container:
        toned: list[float] = []
        for frame in container.decode(audio=0):
            at = float(frame.pts * frame.time_base)
            if abs(frame.to_ndarray()).max() > 0.05 and (not toned or at - toned[-1] > 1):
                toned.append(at)
    assert len(flashed) == len(toned) == 10
    for n, flash, sound in zip(range(10), flashed, toned, strict=True):
        apart = video.time(flashes[n]) - audio.time(tones[n])
        assert abs((flash - sound) - apart) < 0.02, n


def test_lost_packets_shift_nothing(clips: Any, tmp_path: Path) -> None:
    """A tenth of the frames of both kinds is lost. The others are where they were sent, and what
    was lost of the sound is silence."""
    chance = random.Random(11)
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    video = Track(VIDEO, "VP8", rate=90_000, period=1 / 30)
    clip, sound = clips.vp8, clips.opus
    kept_video = [n for n in range(600) if n == 0 or chance.random() > 0.1]
    kept_audio = [n for n in range(1000) if n in (0, 999) or chance.random() > 0.1]
    path = tmp_path / "call.mkv"
    recording = record(
        path,
        interleaved(
            (video.frame(n, clip.frames[n % 60], keyframe=n % 10 == 0) for n in kept_video),
            (audio.frame(n, sound.frames[n % 100]) for n in kept_audio),
        ),
    )
    assert recording.silence == 1000 - len(kept_audio)
    assert recording.gaps == 0
    heard = times(path)
    assert [round(at, 3) for _, at in heard] == [round(n * 0.02, 3) for n in range(1000)]
    assert [heard[n][0] for n in kept_audio] == [sound.frames[n % 100] for n in kept_audio]
    seen = times(path, kind="video")
    assert [data for data, _ in seen] == [clip.frames[n % 60] for n in kept_video]
    for (_, at), n in zip(seen, kept_video, strict=True):
        assert at == pytest.approx(n / 30, abs=0.007)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_silence_and_a_standing_picture_are_explicit(
    clips: Any, tmp_path: Path, suffix: str
) -> None:
    """A sender that sends nothing while it is silent, and a picture gone for two seconds."""
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    video = Track(VIDEO, "H264", rate=90_000, period=1 / 30)
    path = tmp_path / f"call{suffix}"
    recording = record(
        path,
        interleaved(
            (
                video.frame(n, clips.h264.frames[n % 60], keyframe=n % 10 == 0)
                for n in range(180)
                if not 60 <= n < 120
            ),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(300) if not 50 <= n < 250),
        ),
    )
    assert recording.silence == 200
    assert recording.gaps == 1
    heard = times(path)
    assert len(heard) == 300
    assert {round(b - a, 3) for (_, a), (_, b) in pairwise(heard)} == {0.02}
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    silent = [f for f in frames if 1.1 < float(f.pts * f.time_base) < 4.9]
    assert len(silent) > 180
    assert max(abs(frame.to_ndarray()).max() for frame in silent) == 0
    seen = times(path, kind="video")
    assert max(b - a for (_, a), (_, b) in pairwise(seen)) == pytest.approx(61 / 30, abs=0.01)


def test_a_picture_that_begins_late_is_late_in_the_file(clips: Any, tmp_path: Path) -> None:
    """In mp4 the place of a track's beginning is in an edit list."""
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    video = Track(VIDEO, "H264", rate=90_000, period=1 / 30)
    path = tmp_path / "call.mp4"
    record(
        path,
        interleaved(
            (
                video.frame(n, clips.h264.frames[n % 60], keyframe=n % 10 == 0)
                for n in range(20, 90)
            ),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(150)),
        ),
    )
    assert times(path)[0][1] == pytest.approx(0.0, abs=0.001)
    assert times(path, kind="video")[0][1] == pytest.approx(20 / 30, abs=0.001)


def test_without_reports_the_fallback_is_named(clips: Any, tmp_path: Path) -> None:
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02, reports=False)
    video = Track(VIDEO, "VP8", rate=90_000, period=1 / 30, delay=0.15)
    path = tmp_path / "call.mkv"
    recording = record(
        path,
        interleaved(
            (video.frame(n, clips.vp8.frames[n % 60], keyframe=n % 10 == 0) for n in range(150)),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(250)),
        ),
    )
    assert recording.source == "arrival"
    assert times(path, kind="video")[0][1] - times(path)[0][1] == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_segments_by_time(clips: Any, tmp_path: Path, suffix: str) -> None:
    """Each begins with a keyframe; together they have every packet once, on one clock."""
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    video = Track(VIDEO, "H264", rate=90_000, period=1 / 30)
    recording = record(
        tmp_path / f"call{suffix}",
        interleaved(
            (video.frame(n, clips.h264.frames[n % 60], keyframe=n % 10 == 0) for n in range(300)),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(500)),
        ),
        segment_seconds=2.9,
    )
    names = [f"call-{n:04}{suffix}" for n in (1, 2, 3, 4)]
    assert [Path(segment.path).name for segment in recording.segments] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    starts = [segment.start for segment in recording.segments]
    assert starts == pytest.approx([0, 3, 6, 9], abs=0.03)
    assert recording.segments[-1].end == pytest.approx(10.0, abs=0.04)
    assert recording.asked >= 3  # type: ignore[attr-defined]
    heard: list[tuple[bytes, float]] = []
    seen: list[float] = []
    for segment in recording.segments:
        heard += [(data, segment.start + at) for data, at in times(segment.path)]
        found = times(segment.path, kind="video")
        seen += [segment.start + at for _, at in found]
        with av.open(segment.path) as container:
            assert len(list(container.decode(video=0))) == len(found)
    assert [data for data, _ in heard] == [clips.opus.frames[n % 100] for n in range(500)]
    for n, (_, at) in enumerate(heard):
        assert at == pytest.approx(heard[0][1] + n * 0.02, abs=0.0015)
    for n, at in enumerate(seen):
        assert at == pytest.approx(seen[0] + n / 30, abs=0.007)
    with av.open(recording.segments[1].path) as container:
        assert next(iter(container.demux(video=0))).is_keyframe


def test_segments_by_size_and_of_sound_alone(clips: Any, tmp_path: Path) -> None:
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    size = sum(map(len, clips.opus.frames[:40]))
    recording = record(
        tmp_path / "call.webm",
        (audio.frame(n, clips.opus.frames[n]) for n in range(100)),
        kinds=frozenset({AUDIO}),
        segment_bytes=size,
    )
    counts = [len(times(segment.path)) for segment in recording.segments]
    assert sum(counts) == 100
    assert 36 <= counts[0] <= 44
    assert len(counts) == 3
    assert recording.asked == 0  # type: ignore[attr-defined]


def test_a_recording_that_is_not_cut_is_one_segment(clips: Any, tmp_path: Path) -> None:
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    recording = record(
        tmp_path / "call.mkv",
        (audio.frame(n, clips.opus.frames[n]) for n in range(50)),
        kinds=frozenset({AUDIO}),
    )
    assert recording.segments == (Segment(path=str(tmp_path / "call.mkv"), start=0.0, end=1.0),)


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder", "transcode"),
    [
        (".mp4", "H264", "libx264", False),
        (".mkv", "H264", "libx264", False),
        (".mkv", "VP8", "libvpx", False),
        (".webm", "VP8", "libvpx", False),
        (".mp4", "VP8", "libvpx", True),
        (".webm", "H264", "libx264", True),
    ],
)
def test_pictures_may_change_their_size(
    clips: Any, tmp_path: Path, suffix: str, codec: str, encoder: str, transcode: bool
) -> None:
    """In the middle of a file: each keyframe says its size, and players go by that."""
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
    video = Track(VIDEO, codec, rate=90_000, period=1 / 30)
    sizes = [(64, 48), (128, 96), (32, 32)]
    frames = [frame for size in sizes for frame in pictures(encoder, *size) * 15]
    path = tmp_path / f"call{suffix}"
    recording = record(
        path,
        interleaved(
            (video.frame(n, data) for n, data in enumerate(frames)),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(150)),
        ),
        transcode=transcode,
    )
    assert recording.written == 90 + 150
    assert len(recording.segments) == 1
    with av.open(str(path)) as container:
        seen = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert seen == [size for size in sizes for _ in range(30)]


@pytest.mark.parametrize(
    ("suffix", "second"), [(".mp4", "H264"), (".mkv", "H264"), (".mkv", "VP8"), (".webm", "VP8")]
)
def test_another_connection_begins_a_file_and_says_how_long_there_was_nothing(
    clips: Any, tmp_path: Path, suffix: str, second: str
) -> None:
    """Its timestamps begin anew, under the same track ids at worst; its codec may be another."""
    path = tmp_path / f"call{suffix}"
    first = "VP8" if suffix == ".webm" else "H264"
    recording = Recording(
        Plan(path=str(path), kinds=frozenset({VIDEO, AUDIO}), own_voice=True),
        ask_keyframe=lambda: None,
    )
    recording.open()
    recording.resume()  # A connection of which nothing came.
    for codec, begins in ((first, 0.0), (second, 7.5)):
        if begins:
            recording.resume()
            recording.resume()
        video = Track(VIDEO, codec, rate=90_000, period=1 / 30)
        audio = Track(AUDIO, "opus", rate=48_000, period=0.02)
        frames = getattr(clips, codec.lower()).frames
        said = False
        for frame in interleaved(
            (video.frame(n, frames[n % 60], keyframe=n % 10 == 0) for n in range(150)),
            (audio.frame(n, clips.opus.frames[n % 100]) for n in range(250)),
        ):
            if frame.arrival > 503 and not said:
                said = True
                recording.add(Said(b"\x10\x20" * 12_000, 503 + begins))
            recording.add(evolve(frame, arrival=frame.arrival + begins))
    recording.start()
    recording.close()
    one, other = recording.segments
    assert [one.path, other.path] == [str(path), str(path.with_name(f"call-0002{suffix}"))]
    assert (one.start, one.gap) == (0.0, 0.0)
    assert one.end == pytest.approx(5.0, abs=0.04)
    assert other.start == pytest.approx(7.5, abs=0.01)
    assert other.gap == pytest.approx(other.start - one.end)
    assert other.end == pytest.approx(12.5, abs=0.04)
    assert recording.written == 800
    assert recording.silence == 0
    for segment in recording.segments:
        heard, seen = times(segment.path), times(segment.path, kind="video")
        assert (len(heard), len(seen)) == (250, 150)
        assert min(heard[0][1], seen[0][1]) == pytest.approx(0.0, abs=0.001)
        assert seen[-1][1] == pytest.approx(149 / 30, abs=0.01)
        with av.open(segment.path) as container:
            assert next(iter(container.demux(video=0))).is_keyframe
        said_at = [at for data, at in times(segment.path, 1) if len(data) > 3]
        assert said_at[0] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_users_own_voice_is_a_second_track(clips: Any, tmp_path: Path, suffix: str) -> None:
    """Spoken from 2 s to 3 s in pieces of 64 ms, and all at once at 6 s, for a second."""
    audio = Track(AUDIO, "opus", rate=48_000, period=0.02, delay=0.0)
    wave = [int(12_000 * ((n % 48) / 24 - 1)) for n in range(24_000)]
    pcm = b"".join(value.to_bytes(2, "little", signed=True) for value in wave)
    pieces = [pcm[at : at + 3072] for at in range(0, len(pcm), 3072)]

    def items() -> Iterator[Any]:
        for n in range(500):
            at = 500 + n * 0.02
            while pieces and at >= 502 + 0.064 * (16 - len(pieces)):
                yield Said(pieces.pop(0), at)
            if n == 300:
                yield Said(pcm, at)
            yield audio.frame(n, clips.opus.frames[n % 100])

    path = tmp_path / f"call{suffix}"
    recording = record(path, items(), kinds=frozenset({AUDIO}), own_voice=True)
    assert recording.written == 500
    assert [data for data, _ in times(path)] == [clips.opus.frames[n % 100] for n in range(500)]
    said = times(path, 1)
    assert {round(b - a, 3) for (_, a), (_, b) in pairwise(said)} <= {
        0.02,
        0.01,
        0.005,
        0.003,
        0.002,
    }
    assert said[0][1] == pytest.approx(0.0, abs=0.001)
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 2
        if suffix != ".mp4":
            assert container.streams.audio[1].metadata["title"] == "own voice"
        loud = [
            float(frame.pts * frame.time_base)
            for frame in container.decode(audio=1)
            if abs(frame.to_ndarray()).max() > 0.1
        ]
    first = [at for at in loud if at < 4.5]
    second = [at for at in loud if at > 4.5]
    assert (first[0], first[-1]) == (pytest.approx(2.0, abs=0.1), pytest.approx(3.0, abs=0.1))
    assert (second[0], second[-1]) == (pytest.approx(6.0, abs=0.1), pytest.approx(7.0, abs=0.1))


@pytest.mark.parametrize(
    ("source", "codec", "suffix", "decoded"),
    [("vp8", "VP8", ".mp4", "h264"), ("h264", "H264", ".webm", "vp8")],
)
def test_pictures_that_do_not_fit_are_encoded_anew_when_asked(
    clips: Any, tmp_path: Path, source: str, codec: str, suffix: str, decoded: str
) -> None:
    clip = getattr(clips, source)
    video = Track(VIDEO, codec, rate=90_000, period=1 / 30)
    path = tmp_path / f"call{suffix}"
    recording = record(
        path,
        (video.frame(n, clip.frames[n], keyframe=n % 10 == 0) for n in range(60)),
        kinds=frozenset({VIDEO}),
        transcode=True,
    )
    assert recording.written == 60
    seen = times(path, kind="video")
    for n, (_, at) in enumerate(seen):
        assert at == pytest.approx(n / 30, abs=0.001)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == decoded
        assert len(list(container.decode(video=0))) == 60


def test_what_cannot_be_decoded_is_left_out_when_encoding_anew(clips: Any, tmp_path: Path) -> None:
    video = Track(VIDEO, "VP8", rate=90_000, period=1 / 30)
    frames = [*clips.vp8.frames[:20]]
    frames[5] = b"\x01\x00"
    path = tmp_path / "call.mp4"
    recording = record(
        path,
        (video.frame(n, data, keyframe=n % 10 == 0) for n, data in enumerate(frames)),
        kinds=frozenset({VIDEO}),
        transcode=True,
    )
    assert recording.undecodable >= 1
    assert recording.written == 20 - recording.undecodable
