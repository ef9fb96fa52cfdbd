"""``navtalk serve``: what it prints, whom it lets in, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.cli.serve import logged
from navtalk_asyncio.client import connect
from navtalk_proto.errors import ConnectRefusedError
from navtalk_proto.events import MessageReceived
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import TranscriptDone

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds until a process is given up; only a failing test gets near it."""

PACKAGES = ("navtalk_asyncio", "navtalk_trio")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Serving:
    """A running ``navtalk serve`` and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.page = process.stdout.readline().partition("demo page: ")[2].strip()
        self.programs = process.stdout.readline().partition("programs:  ")[2].strip()
        self.avatar = process.stdout.readline().partition("avatar:    ")[2].strip()
        self.log: list[str] = []

    def endpoint(self, licence: str = "sk_navtalk_EXAMPLE") -> Endpoint:
        return Endpoint(base_url=self.programs, license=licence, name=self.avatar)

    def until(self, text: str) -> None:
        """Reads its log until a line has this text."""
        assert self._process.stderr is not None
        while text not in (line := self._process.stderr.readline()):
            assert line, f"it ended before {text!r}: {self.log}"
            self.log.append(line)
        self.log.append(line)

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.log += self._process.stderr.read().splitlines()
        assert self._process.stdout.read() == ""
        return self._process.wait(PATIENCE)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        return bytes(reply.read())


@contextmanager
def serving(package: str, *arguments: str, folder: Path | None = None) -> Iterator[Serving]:
    with subprocess.Popen(
        [sys.executable, "-m", package, "serve", "--port", "0", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


@pytest.mark.parametrize("package", PACKAGES)
async def test_it_serves_people_and_programs_until_ctrl_c(package: str) -> None:
    with serving(package) as server:
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", server.programs)
        assert server.page == f"http{server.programs.removeprefix('ws')}/"
        page = await asyncio.to_thread(fetched, server.page)
        assert b'<script src="app.js" defer>' in page
        async with connect(server.endpoint(), proxy=None) as session:
            server.until("= session 1 began")
            async for frame in session.video:
                assert (frame.width, frame.height) == (512, 512)
                break
        server.until("x session 1 ended: 1000")
        assert server.interrupt() == 0
        assert server.log[-1].endswith("ended       every session was closed")
        assert not any("Traceback" in line or "EXAMPLE" in line for line in server.log)


async def test_ctrl_c_tells_the_clients() -> None:
    with serving("navtalk_asyncio") as server:
        async with connect(server.endpoint(), media=False, proxy=None) as session:
            server.until("= session 1 began")
            assert server.interrupt() == 0
            async for _ in session.events():
                pass
            assert session.end is not None
            assert session.end.code == 1001


def clean_traces(folder: Path) -> int:
    """How many there are. Each replays, and has no licence."""
    traces = list(folder.iterdir())
    for trace in traces:
        assert "EXAMPLE" not in trace.read_text("utf-8")
        assert run(AsyncioBackend(), ["replay", str(trace)]) == 0
    return len(traces)


async def test_licences_of_ones_own_are_let_in_and_never_written(tmp_path: Path) -> None:
    ours = ("sk_navtalk_ONE_EXAMPLE", "sk_navtalk_TWO_EXAMPLE")
    arguments = ("--license", ours[0], "--license", ours[1], "--trace", str(tmp_path))
    with serving("navtalk_trio", *arguments) as server:
        for licence in ours:
            async with connect(server.endpoint(licence), media=False, proxy=None):
                pass
        with pytest.raises(ConnectRefusedError):
            async with connect(server.endpoint(), media=False, proxy=None):
                pass
        assert server.interrupt() == 0
        log = "".join(server.log)
        assert "session 3 began" in log
        assert "EXAMPLE" not in log
    assert clean_traces(tmp_path) == 3


def test_traces_that_could_never_be_written_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    assert run(AsyncioBackend(), ["serve", "--port=0", f"--trace={nowhere}/call.jsonl"]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {nowhere}\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_port_that_is_taken_is_told_in_one_line(package: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", package, "serve", "--port", port],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 4
    assert done.stdout == ""
    *_, problem, hint = done.stderr.splitlines()
    assert problem.startswith(f"error: cannot listen at 127.0.0.1, port {port}: ")
    assert hint == "hint: --port 0 takes a free one"


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_a_usage_error(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(AsyncioBackend(), ["serve", f"--port={port}"]) == 2
    assert "--port" in capsys.readouterr().err


SCRIPT = """
[[line]]
when = "breakfast"
say = "At seven."
"""

BRAIN = """
from navtalk_asyncio.emulator import Reply

class Curt:
    async def hear(self, conversation):
        return ""

    async def reply(self, conversation):
        return Reply(text="At seven.")
"""


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("file", "text", "brain"),
    [("lines.toml", SCRIPT, "lines.toml"), ("curt.py", BRAIN, "curt:Curt")],
    ids=["a script", "a class"],
)
async def test_it_answers_as_its_brain_does(
    package: str, file: str, text: str, brain: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text, "utf-8")
    with serving(package, "--brain", brain, folder=tmp_path) as server:
        async with connect(server.endpoint(), media=False, proxy=None) as session:
            await session.send_text("What time is breakfast?")
            async for event in session.events():
                if isinstance(event, MessageReceived) and isinstance(event.message, TranscriptDone):
                    assert event.message.content == "At seven."
                    break
        assert server.interrupt() == 0


@pytest.mark.parametrize(
    ("brain", "problem"),
    [
        ("nothing.toml", "error: nothing.toml cannot be read: "),
        ("no_such_module_here:Brain", "error: there is no module 'no_such_module_here'"),
        ("json:loads_not", "error: 'json' has no 'loads_not'"),
        ("neither", "error: 'neither' is neither "),
    ],
)
def test_a_brain_that_is_not_there_is_a_usage_error(
    brain: str, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert run(AsyncioBackend(), ["serve", "--port=0", f"--brain={brain}"]) == 2
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith(problem)
    assert hint.startswith("hint: ")


def test_every_address_comes_with_a_word_about_the_microphone() -> None:
    with serving("navtalk_asyncio", "--host", "0.0.0.0") as server:
        assert server.page.startswith("http://127.0.0.1:")
        server.until("through https only")
        assert server.interrupt() == 0


def test_what_the_emulator_logs_is_reported_while_it_serves() -> None:
    told: list[tuple[str, str]] = []
    logger = logging.getLogger("navtalk.emulator")
    level = logger.level
    with logged(lambda step, text: told.append((step, text))):
        logger.info("= session %d began", 1)
        logger.debug("not this")
        logger.warning("! no answer", exc_info=ValueError("the brain's"))
    logger.warning("nobody listens")
    assert logger.level == level
    assert told[0] == ("session", "= session 1 began")
    assert told[1][0] == "warning"
    assert told[1][1].endswith("\nValueError: the brain's")
    assert len(told) == 2
