"""A short question, brains, and the command line as a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from null_sink import sound_server

from navtalk_asyncio.client import connect
from navtalk_asyncio.emulator import Conversation, Reply, emulate

__all__ = ["sound_server"]

COMMAND = (sys.executable, "-m", "navtalk_asyncio")
PATIENCE = 60.0
"""Seconds until a process is given up; only a failing test gets near it."""


def tone(seconds: float) -> bytes:
    """300 Hz at -13 dBFS, PCM16 at 24 kHz."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    return bytes(np.round(10_000 * np.sin(2 * np.pi * 300 * t)).astype("<i2"))


class Parrot:
    """A brain that answers at once, with half a second of a tone."""

    def __init__(self, *, seconds: float = 0.5, error: Exception | None = None) -> None:
        self._pcm = tone(seconds)
        self._error = error

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        if self._error is not None:
            raise self._error
        return Reply(text=f"Parrot: {conversation.text}", pcm=self._pcm)


class Backend:
    """The asyncio adapter, with an emulator of the test's choice."""

    name: Literal["asyncio"] = "asyncio"

    def __init__(self, emulator: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._emulator = emulator

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        return connect

    def emulate(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self._emulator()


@pytest.fixture
def backend() -> Callable[..., Backend]:
    """Makes a backend whose emulator has a Parrot with these options, or is the one given."""

    def make(
        emulator: Callable[[], AbstractAsyncContextManager[Any]] | None = None, **options: Any
    ) -> Backend:
        return Backend(emulator or (lambda: emulate(brain=Parrot(**options))))

    return make


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """0.6 s of a tone, as a wav file."""
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(tone(0.6))
    return path


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in `tmp_path`; `environment` is added to this process's."""

    def run(
        *arguments: str | Path, prefix: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.fixture
def command_beside(
    tmp_path: Path,
) -> Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]:
    """Starts the command line beside what runs on this loop; what is left at the end is killed."""

    @asynccontextmanager
    async def start(
        *arguments: str | Path, **environment: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *map(str, arguments),
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return start
