"""NAVTALK_LOG: quiet by default, the same lines on both loops, never a licence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LICENCE = "sk_navtalk_EXAMPLE_of_the_log"
SCRIPT = """
import sys, {loop}, {package}
from navtalk_proto import ConnectFailedError, Endpoint
from navtalk_proto.transport import TransportClosedError

class Transport:
    said = False
    async def send_text(self, text): self.said = True
    async def receive(self):
        while not self.said:  # which of two tasks is the first to run is the loop's
            await {loop}.sleep(0)
        raise TransportClosedError(1011, "no wss://h/?license={licence} today")
    async def close(self, code, reason): pass
    async def aclose(self): pass

async def opened(endpoint): return Transport()

async def main():
    endpoint = Endpoint(base_url="ws://127.0.0.1:1", license="{licence}", name="x")
    try:
        async with {package}.connect(endpoint, transport=opened, media=False, prompt="hidden"):
            pass
    except ConnectFailedError as error:
        print(type(error).__name__)

{loop}.run(main{called})
"""
LOOPS = [("asyncio", "()"), ("trio", "")]


def run(folder: Path, loop: str, called: str, **environment: str) -> tuple[str, str]:
    code = SCRIPT.format(loop=loop, package=f"navtalk_{loop}", called=called, licence=LICENCE)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**{k: v for k, v in os.environ.items() if k != "NAVTALK_LOG"}, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(("loop", "called"), LOOPS)
def test_nothing_is_said_unless_asked_for(loop: str, called: str, tmp_path: Path) -> None:
    assert run(tmp_path, loop, called) == ("ConnectFailedError\n", "")


@pytest.mark.parametrize("level", ["debug", "info:navtalk.log"])
def test_the_lines_are_the_same_on_both_loops(level: str, tmp_path: Path) -> None:
    told = []
    for loop, called in LOOPS:
        folder = tmp_path / loop
        folder.mkdir()
        _, text = run(folder, loop, called, NAVTALK_LOG=level)
        if ":" in level:
            assert text == ""
            text = (folder / "navtalk.log").read_text()
        assert LICENCE not in text
        assert "hidden" not in text
        lines = [re.sub(r"^\S+ \S+ ", "", line) for line in text.splitlines()]
        told.append([line for line in lines if line.startswith("navtalk.session ")])
    assert told[0] == told[1]
    kinds = {line.split()[1] for line in told[0]}
    assert kinds >= {"!", "x"}
    assert any("license=***" in line for line in told[0])


@pytest.mark.parametrize(("loop", "called"), LOOPS)
@pytest.mark.parametrize(
    ("asked", "problem"),
    [("loud", "NAVTALK_LOG is a level"), ("debug:nowhere/x.log", "No such file")],
)
def test_a_mistake_in_it_is_one_line(
    loop: str, called: str, asked: str, problem: str, tmp_path: Path
) -> None:
    out, err = run(tmp_path, loop, called, NAVTALK_LOG=asked)
    assert out == "ConnectFailedError\n"
    assert problem in err.splitlines()[0]
