"""The table of ``navtalk serve``: what it shows of each session, and where it gets it from."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
from attrs import evolve
from rich.console import Console

from navtalk_asyncio.cli.session_table import SessionTable
from navtalk_asyncio.client import connect
from navtalk_asyncio.emulator import VisitStatus, emulate
from navtalk_proto.events import UserSpeaking

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def status(**given: object) -> VisitStatus:
    return evolve(
        VisitStatus(
            peer="127.0.0.1:5000",
            avatar="navtalk.Lea",
            since=100.0,
            state="ready",
            audio_in=0.0,
            pictures_out=0,
            speaking=False,
        ),
        **given,
    )


class Shown:
    """A table on paper, with a clock that is set."""

    def __init__(self, faults: str = "") -> None:
        self.now = 100.0
        self._paper = Console(file=io.StringIO(), width=100, color_system=None)
        self._table = SessionTable(self._paper, faults, lambda: self.now)

    def lines(self, *visits: VisitStatus) -> list[list[str]]:
        with self._paper.capture() as captured:
            self._paper.print(self._table.drawn(visits))
        return [line.split() for line in captured.get().splitlines() if line.strip()]


def test_rates_are_over_the_time_between_two_looks() -> None:
    shown = Shown()
    shown.lines(status())
    shown.now = 102.0
    _, _, row = shown.lines(status(pictures_out=50, audio_in=1.24))
    assert row == ["127.0.0.1:5000", "navtalk.Lea", "0:02", "ready", "1.2", "s", "25", "fps"]


def test_the_oldest_is_first_and_who_speaks_is_told() -> None:
    shown = Shown(faults="loss=5%")
    shown.now = 100.0 + 3725
    head, _, first, second = shown.lines(
        status(peer="[::1]:6000", since=3700.0, speaking=True), status(state="closing")
    )
    assert head[-1] == "faults"
    assert first[2:4] == ["1:02:05", "closing"]
    assert second[:4] == ["[::1]:6000", "navtalk.Lea", "2:05", "speaking"]
    assert first[-1] == second[-1] == "loss=5%"


def test_without_a_session_it_says_so() -> None:
    assert " ".join(Shown().lines()[0]).startswith("no session now")


async def test_what_a_visit_says_of_itself() -> None:
    async with emulate() as human, connect(human.endpoint(), proxy=None) as session:
        [visit] = human.visits
        host, _, port = visit.status.peer.rpartition(":")
        assert (host, visit.status.avatar, visit.status.state) == (
            "127.0.0.1",
            human.directory.avatars[0].name,
            "ready",
        )
        assert port.isdigit()
        assert visit.status.audio_in == 0.0
        await session.send_audio(b"\x00\x40\x00\xc0" * 6_000)
        async for event in session.events():
            if isinstance(event, UserSpeaking):
                break
        assert visit.status.audio_in == 0.5
        async for _ in session.video:
            break
        assert visit.status.pictures_out > 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("package", ["navtalk_asyncio", "navtalk_trio"])
def test_a_terminal_has_the_table_and_is_given_back(package: str) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", package, "serve", "--port", "0"],
        env={**os.environ, "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        seen = b""
        while b"no session now" not in seen:
            seen += os.read(ours, 4096)  # EIO where it ended before
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        while b"every session was closed" not in seen:
            seen += os.read(ours, 4096)
        assert seen.count(b"\x1b[?25h") == seen.count(b"\x1b[?25l") > 0  # The cursor is back.
    finally:
        process.kill()
        process.wait()
        os.close(ours)
