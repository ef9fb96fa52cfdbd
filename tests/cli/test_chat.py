"""``navtalk chat``: by microphone, loudspeaker and keys, on a sound server without a sound card.

What is played there is heard by the microphone: a tone that another program plays is the user.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from navtalk_asyncio.emulator import Conversation, Emulator, Reply, emulate

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals, no PulseAudio", allow_module_level=True)

import termios

pytestmark = pytest.mark.anyio

LICENCE = "sk_navtalk_EXAMPLE_of_the_chat"
PATIENCE = 60.0
"""Seconds until a process is given up; only a failing test gets near it."""

NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"


def on(*packages: str) -> pytest.MarkDecorator:
    """Which adapter the command uses, nightly either; the test itself is on asyncio."""
    return pytest.mark.parametrize(
        "package", ["navtalk_asyncio", "navtalk_trio"] if NIGHTLY else packages
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def hertz(frequency: float, seconds: float) -> bytes:
    """A tone at -13 dBFS, PCM16 at 24 kHz."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    return bytes(np.round(10_000 * np.sin(2 * np.pi * frequency * t)).astype("<i2"))


class Talkative:
    """Answers with a minute of a tone, which nobody waits for."""

    async def hear(self, conversation: Conversation) -> str:
        return "a tone"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="I could go on. And on.", pcm=hertz(300, 60.0))


class Chat:
    """A running ``navtalk chat``."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.log: list[str] = []

    async def until(self, step: str) -> str:
        """Reads on until this step; returns its text."""
        assert self.process.stderr is not None
        while True:
            line = (await self.process.stderr.readline()).decode()
            assert line, f"it ended before {step!r}: {self.log}"
            self.log.append(line)
            print(line, end="")  # pytest shows it where the test fails
            found = re.match(r" *[\d.]+ s  (\w+) +(.*)\n", line)
            if found is not None and found[1] == step:
                return found[2]

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())


@asynccontextmanager
async def chatting(
    environment: dict[str, str], human: Emulator, *arguments: str, package: str, keys: bool = True
) -> AsyncIterator[Chat]:
    """The command with its keys on a pseudo-terminal, and its lines in a pipe."""
    ours, theirs = os.openpty()
    try:
        before = termios.tcgetattr(theirs)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", package, "chat", "--url", human.url,
            "--avatar", "navtalk.Lea", *arguments,
            env={**environment, "NAVTALK_LICENSE": LICENCE},
            stdin=theirs if keys else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                chat = Chat(process, ours)
                yield chat
                out, err = await process.communicate()
            assert out == b""
            chat.log += err.decode().splitlines()
            assert not any("Traceback" in line or LICENCE in line for line in chat.log)
            assert termios.tcgetattr(theirs) == before
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(ours)
        os.close(theirs)


@asynccontextmanager
async def a_tone(environment: dict[str, str], folder: Path) -> AsyncIterator[None]:
    """Is played without an end, for the microphone to hear."""
    file = folder / "tone.raw"
    file.write_bytes(hertz(500, PATIENCE))
    process = await asyncio.create_subprocess_exec(
        "pacat", "--playback", "--raw", "--format=s16le", "--rate=24000", "--channels=1", str(file),
        env=environment,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@on("navtalk_trio")
async def test_a_conversation_by_voice_and_keys(
    package: str, sound_server: dict[str, str], tmp_path: Path
) -> None:
    async with (
        emulate(brain=Talkative(), licenses=[LICENCE]) as human,
        chatting(sound_server, human, package=package) as chat,
    ):
        assert await chat.until("keys") == "m mutes, i interrupts, q ends it"
        async with a_tone(sound_server, tmp_path):
            await chat.until("heard")
            chat.press("m")
            assert (await chat.until("muted")).startswith("m unmutes")
            # The tone goes on: that the user is silent is the mute.
            await chat.until("silence")
            assert await chat.until("understood") == "the human understood: a tone"
            assert await chat.until("says") == "I could go on."
            assert not any("interrupted" in line for line in chat.log)
            chat.press("i")
            await chat.until("interrupted")
            chat.press("m")
            await chat.until("unmuted")
            await chat.until("heard")
        chat.press("q")
        await chat.until("ended")
        assert await chat.process.wait() == 0


@on("navtalk_asyncio")
async def test_with_headphones_the_voice_interrupts(
    package: str, sound_server: dict[str, str], tmp_path: Path
) -> None:
    async with (
        emulate(brain=Talkative(), licenses=[LICENCE]) as human,
        chatting(sound_server, human, "--headphones", package=package) as chat,
    ):
        await chat.until("keys")
        async with a_tone(sound_server, tmp_path):
            await chat.until("heard")
        # Here the microphone hears the human itself, which is what half-duplex is against.
        await chat.until("interrupted")
        chat.press("q")
        assert await chat.process.wait() == 0


@on("navtalk_asyncio")
async def test_without_a_terminal_ctrl_c_ends_it(
    package: str, sound_server: dict[str, str]
) -> None:
    async with (
        emulate(brain=Talkative(), licenses=[LICENCE]) as human,
        chatting(sound_server, human, package=package, keys=False) as chat,
    ):
        assert await chat.until("keys") == "Ctrl-C ends it"
        chat.process.send_signal(signal.SIGINT)
        await chat.until("ended")
        assert await chat.process.wait() == 0


async def shown(terminal: int, text: str, seen: bytearray) -> None:
    """Reads what the process writes on the terminal, into `seen`, until this text was there.

    Nothing is left running where the wait is cancelled: a thread that reads would stay for ever.
    """
    while text.encode() not in seen:
        await anyio.wait_readable(terminal)
        seen += os.read(terminal, 4096)  # EIO where the process has ended


@on("navtalk_asyncio", "navtalk_trio")
async def test_meters_are_shown_and_the_terminal_is_given_back_whatever_happens(
    package: str, sound_server: dict[str, str]
) -> None:
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    async with emulate(brain=Talkative(), licenses=[LICENCE]) as human:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", package, "chat", "--url", human.url, "--avatar", "navtalk.Lea",
            env={**sound_server, "NAVTALK_LICENSE": LICENCE, "TERM": "xterm", "COLUMNS": "100"},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        seen = bytearray()

        try:
            async with asyncio.timeout(PATIENCE):
                await shown(ours, "human", seen)
                await shown(ours, "━", seen)
                during = termios.tcgetattr(theirs)
                process.send_signal(signal.SIGTERM)
                await shown(ours, "ended", seen)
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert not during[3] & (termios.ECHO | termios.ICANON)
    assert termios.tcgetattr(theirs) == before
    assert seen.count(b"\x1b[?25h") == seen.count(b"\x1b[?25l") > 0  # The cursor is back.
    os.close(ours)
    os.close(theirs)


async def test_a_device_that_is_not_there_is_6_before_anybody_is_called(
    sound_server: dict[str, str], command_beside: Any
) -> None:
    async with command_beside(
        "chat", "--url=ws://127.0.0.1:1", "--avatar=navtalk.Lea", "--speaker=nobody",
        **sound_server, NAVTALK_LICENSE=LICENCE,
    ) as process:  # fmt: skip
        _, err = await process.communicate()
    assert process.returncode == 6
    problem, hint = err.decode().splitlines()
    assert problem.startswith("error: the speaker cannot be opened")
    assert "navtalk devices" in hint
