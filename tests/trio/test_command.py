"""``python -m navtalk_trio``: the same command line, and the same kind of file, on trio."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

PATIENCE = 60.0
"""Seconds of real time until a process is given up; only a failing test gets near it."""


def command(folder: Path, package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def kind_of(path: Path) -> tuple[str, list[tuple[str, str, Any]]]:
    """The container and the streams of a recording: all that two takes have in common."""
    with av.open(str(path)) as file:
        streams = []
        for stream in file.streams:
            packets = sum(1 for packet in file.demux(stream) if packet.size)
            assert packets > 20
            file.seek(0)
            codec: Any = stream.codec_context
            shape = (codec.width, codec.height) if stream.type == "video" else codec.sample_rate
            streams.append((stream.type, codec.name, shape))
        return file.format.name, sorted(streams)


@pytest.mark.replaces("receiving")
def test_the_demo_writes_the_same_kind_of_file_on_both(tmp_path: Path) -> None:
    kinds, pictures = [], []
    for package in ("navtalk_asyncio", "navtalk_trio"):
        folder = tmp_path / package
        folder.mkdir()
        done = command(folder, package, "demo")
        assert done.returncode == 0, done.stderr
        kinds.append(kind_of(folder / "answer.mkv"))
        with Image.open(folder / "answer.png") as picture:
            pictures.append(picture.size)
    assert kinds[0] == kinds[1]
    assert pictures[0] == pictures[1]


def test_a_session_that_cannot_be_opened_has_the_same_exit_code(tmp_path: Path) -> None:
    (tmp_path / "question.wav").touch()
    arguments = ("talk", "question.wav", "--url", "ws://127.0.0.1:1", "--avatar", "navtalk.Leo")
    os_environment = {"NAVTALK_LICENSE": "sk_navtalk_EXAMPLE"}
    done = [
        subprocess.run(
            [sys.executable, "-m", package, *arguments],
            cwd=tmp_path,
            env={**os.environ, **os_environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        for package in ("navtalk_asyncio", "navtalk_trio")
    ]
    assert done[0].returncode == done[1].returncode != 0
    assert all("sk_navtalk_EXAMPLE" not in one.stderr + one.stdout for one in done)


def test_help_is_the_same(tmp_path: Path) -> None:
    helps = [
        command(tmp_path, package, "--help") for package in ("navtalk_asyncio", "navtalk_trio")
    ]
    assert helps[0].returncode == helps[1].returncode == 0
    assert "demo" in helps[0].stdout
    assert helps[0].stdout == helps[1].stdout


@pytest.mark.parametrize(
    "step", ["starting", "connecting", "connected", "asking", "heard", "voice"]
)
@pytest.mark.replaces("receiving")
def test_ctrl_c_ends_the_process(step: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "navtalk_trio", "demo"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stderr is not None
            while step not in (line := process.stderr.readline()).split():
                assert line, "the demo ended before this step"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=15)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert "Error" not in err
