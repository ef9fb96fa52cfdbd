"""A recording whose process is killed in the middle is a file that plays."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import av
import pytest

from navtalk_asyncio.media.muxing import CONTAINERS, PacketFile

PROGRAM = Path(__file__).with_name("recorded_process.py")


def ffprobe(path: Path) -> dict[str, Any] | None:
    """What a player that is not ours reads of a file; None where there is no ffprobe."""
    if shutil.which("ffprobe") is None:
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            pytest.fail("ffprobe is not installed")
        return None
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def played(path: Path, kind: Literal["video", "audio"]) -> list[float]:
    """When each picture or sound of a file is shown, by a player that reads to its end.

    A kill in the middle of a write leaves the packet that was being written in part. A demuxer
    says so of it, and nothing may come after it; whether its decoder takes it is the decoder's.
    """
    times: list[float] = []
    with av.open(str(path)) as container:
        cut = False
        for packet in container.demux(getattr(container.streams, kind)):
            if packet.size == 0:
                times += [float(f.pts * f.time_base) for f in packet.decode()]
                break
            assert not cut, "what follows a cut packet is not the end of the file"
            cut = packet.is_corrupt
            if not cut:
                times += [float(f.pts * f.time_base) for f in packet.decode()]
    return times


@pytest.mark.parametrize("seconds", [2, 20])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "H264"), (".mkv", "VP8"), (".webm", "VP8")])
def test_what_was_recorded_before_a_kill_plays(
    clips: Any, tmp_path: Path, suffix: str, codec: str, seconds: int
) -> None:
    video = {"H264": clips.h264, "VP8": clips.vp8}[codec]
    frames, path = tmp_path / "frames", tmp_path / f"call{suffix}"
    frames.write_bytes(pickle.dumps((codec, video.frames, clips.opus.frames)))
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(path), str(frames), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "going\n"
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    pictures, sounds = played(path, "video"), played(path, "audio")
    # So much was given at least; a fragment or cluster, and what is interleaved, is lost.
    kept = seconds - 1.1
    assert pictures[-1] >= kept
    assert sounds[-1] >= kept
    assert len(pictures) >= pictures[-1] * 25
    assert abs(pictures[-1] - sounds[-1]) <= 1.0
    probed = ffprobe(path)
    if probed is not None:
        counts = {s["codec_type"]: int(s["nb_read_packets"]) for s in probed["streams"]}
        assert counts["video"] >= kept * 25
        assert counts["audio"] >= kept * 50


def test_a_file_that_ends_within_a_picture_plays_up_to_it(clips: Any, tmp_path: Path) -> None:
    """What a kill within one write leaves, at each of many places of the last fragment."""
    path, cut = tmp_path / "call.mp4", tmp_path / "cut.mp4"
    file = PacketFile(str(path), CONTAINERS[".mp4"])
    file.add("video", "H264", clips.h264.frames[0])
    for number in range(50):
        data = clips.h264.frames[number % len(clips.h264.frames)]
        file.write("video", data, pts=number * 3600, duration=3600, keyframe=number % 10 == 0)
    file.close()
    data = path.read_bytes()
    media = data.rindex(b"mdat", 0, data.rindex(b"mfra")) + 4
    whole = len(played(path, "video"))
    assert whole == 50
    fewest = whole
    for end in range(media, len(data), 211):
        cut.write_bytes(data[:end])
        shown = len(played(cut, "video"))
        assert shown >= whole - 25
        fewest = min(fewest, shown)
    assert fewest < whole
