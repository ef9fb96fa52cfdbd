"""Packets written into a file have the times they were given, however unevenly they come.

FFmpeg believes the durations it is told: a packet that begins before the one before has ended gets
another time, and in mp4 the whole process is aborted when a fragment ends there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from navtalk_asyncio.media.muxing import CONTAINERS, PacketFile

SOUND = b"\xf8\xff\xfe"
"""Opus, 20 ms of silence."""

SUFFIXES = {".mp4": "H264", ".mkv": "H264", ".webm": "VP8"}


def written(
    path: Path, clip: list[bytes], pictures: list[int], sounds: list[int], guess: int
) -> dict[str, list[int]]:
    """The times in ms of what was given: pictures and sounds that begin so many ms after another.

    Each picture is said to last `guess` ms, and each sound 20, whatever comes then.
    """
    file = PacketFile(str(path), CONTAINERS[path.suffix])
    file.add("video", SUFFIXES[path.suffix], clip[0])
    file.add("audio", "opus", SOUND)
    given: list[tuple[int, str]] = []
    for name, steps in (("video", pictures), ("audio", sounds)):
        at = 0
        for step in steps:
            given.append((at, name))
            at += step
    times: dict[str, list[int]] = {"video": [], "audio": []}
    for at, name in sorted(given):
        number, ticks = len(times[name]), 90 if name == "video" else 48
        picture = name == "video"
        got = file.write(
            name,
            clip[number % len(clip)] if picture else SOUND,
            pts=at * ticks,
            duration=(guess if picture else 20) * ticks,
            keyframe=not picture or number % len(clip) == 0,
        )
        assert got == at * ticks
        times[name].append(at)
    file.close()
    return times


def read(path: Path, kind: str) -> list[int]:
    with av.open(str(path)) as container:
        stream: Any = getattr(container.streams, kind)[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [round(packet.pts * packet.time_base * 1000) for packet in packets]
    return [time - times[0] for time in times]


def clip_of(clips: Any, suffix: str) -> list[bytes]:
    frames: list[bytes] = {"H264": clips.h264, "VP8": clips.vp8}[SUFFIXES[suffix]].frames
    return frames[:10]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    pictures=st.lists(st.sampled_from([1, 12, 33, 40, 400, 3000]), min_size=1, max_size=60),
    sounds=st.lists(st.sampled_from([2, 19, 20, 21, 700]), min_size=1, max_size=200),
    guess=st.sampled_from([1, 40, 3500]),
)
@example(pictures=[40] * 20 + [3500] + [40] * 40, sounds=[20] * 400, guess=3500)
@example(pictures=[40, 3000] * 10, sounds=[20] * 400, guess=40)
def test_times_are_what_they_were(
    clips: Any, tmp_path: Path, suffix: str, pictures: list[int], sounds: list[int], guess: int
) -> None:
    path = tmp_path / f"call{suffix}"
    times = written(path, clip_of(clips, suffix), pictures, sounds, guess)
    assert read(path, "video") == times["video"]
    assert read(path, "audio") == times["audio"]


def test_in_mp4_a_packet_lasts_until_the_next_one(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    pictures = [40] * 10 + [80] * 10
    written(path, clip_of(clips, ".mp4"), pictures, [20] * 30 + [700] + [20], 33)
    lasting: dict[str, list[int]] = {"video": [], "audio": []}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.duration and packet.time_base:
                length = round(packet.duration * packet.time_base * 1000)
                lasting[packet.stream.type].append(length)
    assert lasting["video"] == [*pictures[:-1], 33]
    assert lasting["audio"] == [20] * 30 + [700] + [20]


@pytest.mark.parametrize(
    "suffix",
    [
        ".mp4",
        ".mkv",
        pytest.param(
            ".webm",
            marks=pytest.mark.xfail(reason="FFmpeg's interleaving waits for VP8", strict=True),
        ),
    ],
)
def test_a_track_that_pauses_holds_nothing_of_the_other_one_back(
    clips: Any, tmp_path: Path, suffix: str
) -> None:
    path, cut = tmp_path / f"call{suffix}", tmp_path / f"cut{suffix}"
    clip = clip_of(clips, suffix)
    file = PacketFile(str(path), CONTAINERS[suffix])
    file.add("video", SUFFIXES[suffix], clip[0])
    file.add("audio", "opus", SOUND)
    file.write("video", clip[0], pts=0, duration=3600, keyframe=True)
    file.write("video", clip[1], pts=3600, duration=3600, keyframe=False)
    for number in range(200):
        file.write("audio", SOUND, pts=number * 960, duration=960, keyframe=True)
    cut.write_bytes(path.read_bytes())
    file.close()
    assert len(read(path, "audio")) == 200
    assert len(read(cut, "video")) >= 1
    assert len(read(cut, "audio")) >= 140


def test_a_hole_that_no_file_can_tell_is_an_error(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    clip = clip_of(clips, ".mp4")
    file = PacketFile(str(path), CONTAINERS[".mp4"])
    file.add("video", "H264", clip[0])
    file.write("video", clip[0], pts=0, duration=3600, keyframe=True)
    with pytest.raises(ValueError, match="hole of 7 hours"):
        file.write("video", clip[1], pts=7 * 3600 * 90_000, duration=3600, keyframe=False)
    file.write("video", clip[1], pts=7200, duration=3600, keyframe=False)
    file.close()
    assert read(path, "video") == [0, 80]
