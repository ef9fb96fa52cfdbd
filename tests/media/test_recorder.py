"""Recordings of calls between two engines, read back with PyAV."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from navtalk_asyncio.media import recorder as recorder_module
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.recorder import (
    CodecMisfitError,
    Recorder,
    RecorderCounters,
    RecordingError,
)
from navtalk_proto.media import Direction, MediaKind, MediaLine

pytestmark = pytest.mark.anyio

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO


class Source:
    """An engine that gives away what a test says."""

    def __init__(self) -> None:
        self.sinks: dict[MediaKind, list[Callable[[EncodedFrame], None]]] = {VIDEO: [], AUDIO: []}
        self.keyframes_asked = 0
        self.known: dict[MediaKind, str] = {}

    def codec(self, kind: MediaKind) -> str | None:
        return self.known.get(kind)

    def add_encoded_sink(
        self, kind: MediaKind, sink: Callable[[EncodedFrame], None], on_end: Any = None
    ) -> Callable[[], None]:
        self.sinks[kind].append(sink)
        return lambda: self.sinks[kind].remove(sink)

    def request_keyframe(self) -> bool:
        self.keyframes_asked += 1
        return True

    def give(
        self,
        clip: Any,
        number: int,
        *,
        arrival: float = 0.0,
        track: str = "t",
        codec: str = "VP8",
        sender_time: float | None = None,
    ) -> None:
        frame = EncodedFrame(
            kind=MediaKind(clip.kind),
            track_id=track,
            codec={"video": codec, "audio": "opus"}[clip.kind],
            data=clip.frames[number % len(clip.frames)],
            timestamp=number * clip.ticks,
            clock_rate=clip.rate,
            keyframe=clip.keyframes[number % len(clip.frames)],
            arrival=arrival + number * clip.seconds,
            sender_time=sender_time,
        )
        for sink in list(self.sinks[frame.kind]):
            sink(frame)


def packets(path: Path, kind: str) -> list[tuple[bytes, float, float]]:
    """Payload, time and length in seconds of each packet of a file's only stream of a kind."""
    with av.open(str(path)) as container:
        [stream] = [stream for stream in container.streams if stream.type == kind]
        return [
            (bytes(p), float(p.pts * p.time_base), float(p.duration * p.time_base))
            for p in container.demux(stream)
            if p.size
        ]


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an access unit with start codes of three or four bytes."""
    units = data.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01")
    return units[1:]


def avc_units(data: bytes) -> list[bytes]:
    """The NAL units of an access unit with four-byte lengths (ISO/IEC 14496-15 section 5.3)."""
    units = []
    while data:
        length = int.from_bytes(data[:4], "big")
        units.append(data[4 : 4 + length])
        data = data[4 + length :]
    return units


def position(sent: list[Any], recorded: list[Any]) -> int:
    """Where the recorded run is in what was sent; asserts that it is there, gapless."""
    starts = [at for at, item in enumerate(sent) if item == recorded[0]]
    runs = [at for at in starts if sent[at : at + len(recorded)] == recorded]
    assert runs, "what was recorded is no run of what was sent"
    return runs[0]


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("vp8", ".mkv"), ("vp8", ".webm"), ("h264", ".mkv"), ("h264", ".mp4")],
)
@pytest.mark.replaces("receiving")
async def test_a_call_is_copied_bit_for_bit(
    media: Any, tmp_path: Path, codec: str, suffix: str
) -> None:
    video_track = media.track(getattr(media, codec))
    audio_track = media.track(media.opus)
    server, client = media.driver(tracks=[video_track, audio_track]), media.driver()
    line = MediaLine(kind=VIDEO, direction=Direction.SENDONLY, codecs=(codec,))
    await server.open((line, MediaLine(kind=AUDIO, direction=Direction.SENDONLY)))
    await client.open(media.receive)
    await media.connect(server, client)
    path = tmp_path / f"call{suffix}"
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20), Recorder(client.engine, path) as recorder:
        started = loop.time()
        enough = asyncio.Event()
        client.engine.add_encoded_sink(
            VIDEO, lambda _frame: enough.set() if loop.time() - started > 2.0 else None
        )
        await enough.wait()
        elapsed = loop.time() - started
    video, audio = packets(path, "video"), packets(path, "audio")
    assert recorder.counters.written == len(video) + len(audio)
    assert recorder.counters.queue_full == recorder.counters.too_late == 0

    if codec == "h264":
        sent = [nal_units(data) for data in video_track.sent]
        recorded: list[Any] = [avc_units(data) for data, _, _ in video]
    else:
        sent, recorded = list(video_track.sent), [data for data, _, _ in video]
    assert video_track.clip.keyframes[position(sent, recorded) % 60]
    position(list(audio_track.sent), [data for data, _, _ in audio])

    # A picture may be moved by a millisecond with each frame, and Matroska rounds to one.
    steps = [b - a for (_, a, _), (_, b, _) in pairwise(video)]
    assert max(abs(step - 1 / 30) for step in steps) <= 0.0025
    assert {round(b - a, 3) for (_, a, _), (_, b, _) in pairwise(audio)} == {0.02}
    assert recorder.source == "sender-reports"
    with av.open(str(path)) as container:
        assert sorted(stream.type for stream in container.streams) == ["audio", "video"]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (176, 144)
        assert container.streams.video[0].codec_context.name == codec
        assert container.duration is not None
        assert container.duration / 1_000_000 == pytest.approx(elapsed, abs=0.6)
        assert len(list(container.decode(video=0))) == len(video)


async def test_tracks_are_aligned_by_arrival(media: Any, tmp_path: Path) -> None:
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path):
        for number in range(50):
            source.give(media.opus, number, arrival=100.0)
        for number in range(30):
            source.give(media.vp8, number, arrival=100.25)
    audio, video = packets(path, "audio"), packets(path, "video")
    assert (len(audio), len(video)) == (50, 30)
    assert audio[0][1] == 0.0
    assert video[0][1] == 0.25
    assert audio[-1][1] == pytest.approx(0.98)
    assert audio[-1][2] == pytest.approx(0.02)
    assert video[-1][1] == pytest.approx(0.25 + 29 / 30, abs=0.001)
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(1_250_000, abs=2_000)


async def test_video_begins_with_a_keyframe_and_one_is_asked_for(
    media: Any, tmp_path: Path
) -> None:
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path, kinds=[VIDEO]) as recorder:
        assert source.keyframes_asked == 1
        assert source.sinks[AUDIO] == []
        for number in range(3, 25):
            source.give(media.vp8, number)
    assert source.sinks[VIDEO] == []
    assert [data for data, _, _ in packets(path, "video")] == media.vp8.frames[10:25]
    assert recorder.counters == RecorderCounters(written=15, before_keyframe=7)
    assert source.keyframes_asked == 2


async def test_a_rebuilt_connection_continues_the_file(media: Any, tmp_path: Path) -> None:
    """Its RTP clock starts anew, and its video must begin with a keyframe again."""
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path, kinds=[VIDEO]) as recorder:
        for number in range(10):
            source.give(media.vp8, number, arrival=7.0, track="one")
        for number in range(5, 20):
            source.give(media.vp8, number, arrival=9.0, track="two")
    video = packets(path, "video")
    assert [data for data, _, _ in video] == media.vp8.frames[:20]
    assert video[9][1] == pytest.approx(0.3)
    assert video[10][1] == pytest.approx(2.333, abs=0.002)
    assert recorder.counters.before_keyframe == 5


async def test_one_kind_alone_is_recorded_when_the_other_never_comes(
    media: Any, tmp_path: Path
) -> None:
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path) as recorder:
        for number in range(160):  # 3.2 s: the header is written after 3.0
            source.give(media.opus, number)
        source.give(media.vp8, 0)
    assert len(packets(path, "audio")) == 160
    assert recorder.counters == RecorderCounters(written=160, too_late=1)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio"]


async def test_a_short_recording_of_one_kind_is_written_at_the_end(
    media: Any, tmp_path: Path
) -> None:
    source = Source()
    path = tmp_path / "call.webm"
    async with Recorder(source, path):
        for number in range(5):
            source.give(media.opus, number)
    assert [data for data, _, _ in packets(path, "audio")] == media.opus.frames[:5]


async def test_no_media_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "call.mkv"
    async with Recorder(Source(), path) as recorder:
        pass
    assert not path.exists()
    assert recorder.counters == RecorderCounters()


async def test_a_slow_disk_costs_packets_and_not_memory(
    media: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing thread is held while twelve frames come; there is room for eight."""
    budget = sum(len(frame) for frame in media.vp8.frames[:8])
    monkeypatch.setattr(recorder_module, "QUEUE_BYTES", budget)
    held, release = threading.Event(), threading.Event()
    add = recorder_module.Recording.add

    def slow(self: Any, frame: EncodedFrame) -> None:
        held.set()
        release.wait(20)
        add(self, frame)

    monkeypatch.setattr(recorder_module.Recording, "add", slow)
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path, kinds=[VIDEO]) as recorder:
        source.give(media.vp8, 0)
        await asyncio.get_running_loop().run_in_executor(None, held.wait, 20)
        # Frame 0 is out of the queue. 1 to 8 fit if they are not larger than 0 to 7.
        for number in range(1, 12):
            source.give(media.vp8, number)
        release.set()
    written = [data for data, _, _ in packets(path, "video")]
    counters = recorder.counters
    assert counters.queue_full >= 1
    assert counters.written + counters.queue_full + counters.before_keyframe == 12
    assert len(written) == counters.written
    assert written == media.vp8.frames[: len(written)]


async def test_a_codec_the_file_cannot_hold_is_counted(media: Any, tmp_path: Path) -> None:
    source = Source()
    path = tmp_path / "call.mkv"
    async with Recorder(source, path, kinds=[AUDIO]) as recorder:
        source.give(media.opus, 0)
        source.sinks[AUDIO][0](
            EncodedFrame(
                kind=AUDIO,
                track_id="t",
                codec="PCMU",
                data=bytes(160),
                timestamp=0,
                clock_rate=8000,
                keyframe=True,
                arrival=0.0,
            )
        )
    assert recorder.counters == RecorderCounters(written=1, wrong_codec=1)


def full(tmp_path: Path) -> Path:
    """A file on a disk without room."""
    path = tmp_path / "full.mkv"
    path.symlink_to("/dev/full")
    return path


async def test_a_failure_is_raised_at_the_end_and_says_why(media: Any, tmp_path: Path) -> None:
    path = full(tmp_path)
    source = Source()

    async def record() -> None:
        async with Recorder(source, path, kinds=[AUDIO]):
            source.give(media.opus, 0)
            source.give(media.opus, 1)

    with pytest.raises(RecordingError) as caught:
        await record()
    assert str(caught.value).startswith(f"{path} is incomplete: [Errno 28] No space left on device")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_failure_does_not_hide_the_blocks_own(media: Any, tmp_path: Path) -> None:
    source = Source()

    async def record() -> None:
        async with Recorder(source, full(tmp_path), kinds=[AUDIO]):
            source.give(media.opus, 0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        await record()
    assert "is incomplete: [Errno 28]" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/call.mkv", "[Errno 2] No such file or directory"),
        ("folder.mkv", "[Errno 21] Is a directory"),
        ("file.txt/call.mkv", "[Errno 20] Not a directory"),
    ],
)
async def test_a_file_that_cannot_be_opened_fails_at_once(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "folder.mkv").mkdir()
    (tmp_path / "file.txt").write_text("kept")
    source = Source()
    with pytest.raises(RecordingError) as caught:
        async with Recorder(source, tmp_path / name):
            pytest.fail("it records")
    assert str(caught.value).startswith(f"cannot record into {tmp_path / name}: {reason}")
    assert isinstance(caught.value.__cause__, OSError)
    assert source.sinks == {VIDEO: [], AUDIO: []}
    assert source.keyframes_asked == 0
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder.mkv"]


async def test_the_file_is_there_while_nothing_came(tmp_path: Path) -> None:
    path = tmp_path / "call.mkv"
    async with Recorder(Source(), path):
        assert path.read_bytes() == b""
    assert not path.exists()


async def test_no_media_leaves_an_older_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "call.mkv"
    path.write_bytes(b"an older call")
    async with Recorder(Source(), path):
        pass
    assert path.read_bytes() == b"an older call"


async def test_an_older_file_is_overwritten(media: Any, tmp_path: Path) -> None:
    path = tmp_path / "call.mkv"
    path.write_bytes(bytes(1_000_000))
    source = Source()
    async with Recorder(source, path, kinds=[AUDIO]):
        source.give(media.opus, 0)
    assert [data for data, _, _ in packets(path, "audio")] == media.opus.frames[:1]
    assert path.stat().st_size < 10_000


async def test_two_recorders_do_not_write_one_file(media: Any, tmp_path: Path) -> None:
    """Also by another name; once the first has ended, the file is free again."""
    path = tmp_path / "call.mkv"
    (tmp_path / "link.mkv").symlink_to(path)
    source = Source()
    async with Recorder(source, path, kinds=[AUDIO]):
        for name in (path, tmp_path / "link.mkv", tmp_path / "." / "call.mkv"):
            with pytest.raises(RecordingError, match="another recording writes this file now"):
                async with Recorder(source, name, kinds=[AUDIO]):
                    pytest.fail("it records")
        source.give(media.opus, 0)
    assert len(packets(path, "audio")) == 1
    async with Recorder(source, tmp_path / "link.mkv", kinds=[AUDIO]):
        source.give(media.opus, 0)
        source.give(media.opus, 1)
    assert len(packets(path, "audio")) == 2


async def test_entering_may_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk takes its time: the thread is awaited, and the file is gone and free."""
    held, release = threading.Event(), threading.Event()
    opened = recorder_module.Recording.open

    def slow(self: Any) -> None:
        held.set()
        release.wait(20)
        opened(self)

    monkeypatch.setattr(recorder_module.Recording, "open", slow)
    path = tmp_path / "call.mkv"
    source = Source()
    entering = asyncio.ensure_future(Recorder(source, path).__aenter__())
    await asyncio.get_running_loop().run_in_executor(None, held.wait, 20)
    entering.cancel()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not path.exists()
    assert source.sinks == {VIDEO: [], AUDIO: []}
    async with Recorder(source, path):
        pass


async def test_h264_does_not_fit_webm(media: Any, tmp_path: Path) -> None:
    source = Source()
    path = tmp_path / "call.webm"
    with pytest.raises(RecordingError) as caught:
        async with Recorder(source, path, kinds=[VIDEO]):
            source.sinks[VIDEO][0](
                EncodedFrame(
                    kind=VIDEO,
                    track_id="t",
                    codec="H264",
                    data=media.h264.frames[0],
                    timestamp=0,
                    clock_rate=90_000,
                    keyframe=True,
                    arrival=0.0,
                )
            )
    assert str(caught.value) == (
        f"{path} is incomplete: this call's H264 does not fit a .webm file, which has VP8 and opus"
    )
    assert isinstance(caught.value, CodecMisfitError)
    assert not path.exists()


async def test_vp8_does_not_fit_mp4_and_that_is_said_at_once(tmp_path: Path) -> None:
    source = Source()
    source.known = {VIDEO: "VP8", AUDIO: "opus"}
    path = tmp_path / "call.mp4"
    with pytest.raises(CodecMisfitError, match=r"VP8 does not fit a \.mp4 file") as caught:
        async with Recorder(source, path):
            pytest.fail("it records")
    assert "recording_media(path)" in caught.value.hint
    assert not path.exists()
    async with Recorder(source, path, kinds=[AUDIO]):
        pass


async def test_what_cannot_be_recorded_is_refused_at_once(media: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot record into \.avi: \.mp4, \.mkv, \.webm"):
        Recorder(Source(), tmp_path / "call.avi")
    with pytest.raises(ValueError, match="nothing to record"):
        Recorder(Source(), tmp_path / "call.mkv", kinds=[])
    recorder = Recorder(Source(), tmp_path / "call.mkv")
    async with recorder:
        pass
    with pytest.raises(RuntimeError, match="records once"):
        async with recorder:
            pass
