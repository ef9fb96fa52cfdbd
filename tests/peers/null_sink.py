"""A sound server with a null sink, started by the test and ended by its pid."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PATIENCE = 30.0
"""Seconds until a wait is given up; only a failing test gets near it."""


def missing(what: str) -> None:
    """Skip by name, or fail where a peer must be there."""
    if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
        pytest.fail(f"{what} is required here")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    """The environment of programs that shall use it: what is played is heard by the microphone.

    It ends with the module: later ones count the processes that are left.
    """
    if shutil.which("pulseaudio") is None:
        missing("pulseaudio")
    if not Path("/usr/share/alsa/alsa.conf.d/pulse.conf").exists() and not list(
        Path("/etc/alsa/conf.d").glob("*pulse*")
    ):
        missing("libasound2-plugins")
    with null_sink(tmp_path_factory.mktemp("pulse")) as environment:
        yield environment


@contextmanager
def null_sink(home: Path) -> Generator[dict[str, str]]:
    """The same while a block runs, with its files in this folder."""
    socket = home / "native"
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PULSE_RUNTIME_PATH": str(home),
        "PULSE_SERVER": f"unix:{socket}",
    }
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                "pulseaudio",
                "-n",
                "--daemonize=no",
                "--exit-idle-time=-1",
                "--use-pid-file=no",
                "--disable-shm=yes",
                f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
                "--load=module-null-sink sink_name=nowhere rate=48000",
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        ready = ["pactl", "set-default-source", "nowhere.monitor"]
        # It waits for nobody: asked until it answers.
        for _ in range(int(PATIENCE * 10)):
            if server.poll() is not None:
                raise RuntimeError((home / "log").read_text("utf-8", "replace"))
            if (
                socket.exists()
                and not subprocess.run(
                    ready, env=environment, capture_output=True, timeout=PATIENCE, check=False
                ).returncode
            ):
                break
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.1)
        yield environment
    finally:
        server.terminate()
        server.wait(PATIENCE)
