"""The kiosk survives: its server is killed and started again three times during one run."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

KIOSK = Path(__file__).parents[2] / "examples" / "kiosk.py"
LICENCE = "sk_navtalk_EXAMPLE"
PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""


class Program:
    """A process whose output is waited for, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line that matches; those before it are only kept."""
        assert self.process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while text := (await self.process.stdout.readline()).decode():
                    self.lines.append(text.rstrip("\n"))
                    if found := re.fullmatch(pattern, self.lines[-1]):
                        return found
        raise AssertionError(f"no line {pattern!r} in {self.lines}")

    async def each(self, *patterns: str) -> None:
        """A line that matches, for each of the patterns, in whatever order they come."""
        missing = list(patterns)
        while missing:
            found = await self.line("|".join(missing))
            missing = [each for each in missing if not re.fullmatch(each, found[0])]

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())

    async def kill(self) -> None:
        """SIGKILL: no goodbye on any socket."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def program(*arguments: str) -> AsyncGenerator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "NAVTALK_LICENSE": LICENCE},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Program(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def emulator(port: int = 0) -> AsyncGenerator[tuple[Program, int]]:
    """A digital human in a process of its own, and its port."""
    serve = ("-m", "navtalk_asyncio", "serve", "--port", str(port))
    async with program(*serve) as server:
        found = await server.line(r"programs: *ws://127\.0\.0\.1:(\d+)")
        yield server, int(found[1])


async def survive() -> list[str]:
    """Play it; what the kiosk printed."""
    async with AsyncExitStack() as servers:
        server, port = await servers.enter_async_context(emulator())
        url = f"ws://127.0.0.1:{port}"
        async with program("-W", "error", str(KIOSK), url, "navtalk.Lea") as kiosk:
            await kiosk.line(r"picture: \d+ x \d+")
            kiosk.say("My name is Ana.")
            await kiosk.line(r"human: You wrote: My name is Ana\..*")
            for number in (1, 2, 3):
                await server.kill()
                await kiosk.line(r"lost: the connection was lost.*; attempt \d+")
                # Typed while nobody is there: asked when somebody is.
                kiosk.say(f"Question {number}?")
                await kiosk.line(r"lost: cannot open .*; attempt \d+")
                server, _ = await servers.enter_async_context(emulator(port))
                await kiosk.line(r"back: \d+ entries remembered")
                # The answer in writing and the picture take different ways.
                await kiosk.each(rf"human: You wrote: Question {number}\?.*", r"picture: \d+ x \d+")
            kiosk.say("What did I say?")
            await kiosk.line(r"human: You said .*")
            assert kiosk.process.stdin is not None
            kiosk.process.stdin.write_eof()
            await kiosk.line(r"closed: \d+ entries remembered")
            _, errors = await kiosk.process.communicate()
            assert (kiosk.process.returncode, errors) == (0, b"")
            return kiosk.lines


def test_the_kiosk_survives_its_server_three_times() -> None:
    lines = asyncio.run(survive())
    # The last server was told what was said to the three that are gone.
    (recalled,) = (line for line in lines if line.startswith("human: You said "))
    assert "4 things: My name is Ana.; Question 1?; Question 2?; Question 3?" in recalled
    # One loop over the pictures sees them all.
    assert [line.split(":")[0] for line in lines if line.startswith(("back", "picture"))] == [
        "picture",
        *["back", "picture"] * 3,
    ]
    # A question and an answer each, and what was asked last and may still be spoken.
    remembered = int(lines[-1].split()[1])
    assert remembered >= 9
