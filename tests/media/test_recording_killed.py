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
from typing import Any

import av
import pytest

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
    with av.open(str(path)) as container:
        pictures = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        sounds = [float(f.pts * f.time_base) for f in container.decode(audio=0)]
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
