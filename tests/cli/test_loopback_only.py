"""The demo where the machine has no network but 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import pytest

NAMESPACE = (
    "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
    "sh", "-c", 'ip link set lo up; exec "$@"', "sh",
)  # fmt: skip


def obstacle() -> str | None:
    """Why there is no network namespace to be had here; None if there is one."""
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(
        [*NAMESPACE, "true"], capture_output=True, text=True, timeout=30, check=False
    )
    return None if tried.returncode == 0 else f"unshare is not permitted: {tried.stderr.strip()}"


def test_the_demo_works_with_loopback_only(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    if reason := obstacle():
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    listed = subprocess.run(
        [*NAMESPACE, "ip", "-br", "link"], capture_output=True, text=True, timeout=30, check=True
    )
    interfaces = {line.split()[0] for line in listed.stdout.splitlines() if " UP" in line}
    assert interfaces <= {"lo"}

    done = command("demo", "--text", "Is anybody there?", prefix=NAMESPACE)
    assert done.returncode == 0, done.stderr
    assert "You wrote: Is anybody there?" in done.stdout
    with av.open(str(tmp_path / "answer.mkv")) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]
        assert len([packet for packet in file.demux(video=0) if packet.size]) > 25
