"""A visit on paper: no sockets and no media, so that it runs in virtual time too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from navtalk_asyncio import serve_session
from navtalk_asyncio.emulator import AvatarDirectory
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.visit import HumanConfig, visit
from navtalk_asyncio.server import ServerSession
from navtalk_asyncio.testing import MemoryTransport, PaperEngine, memory_transports
from navtalk_proto.config import ServerConfig
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.endpoint import parse_request_target
from navtalk_proto.wire.messages import IceServer

QUERY = "license=EXAMPLE&name=navtalk.Lea"
PATIENCE = 3600.0
"""Seconds until a wait is given up: a deadlock in virtual time shows at once."""


class Paper:
    """The client's end of a visit, which knows nothing but JSON; `frames` is all that came."""

    def __init__(self, transport: MemoryTransport, config: HumanConfig) -> None:
        self.transport = transport
        self.config = config
        self.mouthpiece = Mouthpiece()
        self.frames: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            frame: dict[str, Any] = json.loads(await self.transport.receive())
        self.frames.append(frame)
        return frame

    async def next(self, kind: str) -> dict[str, Any]:
        """The next frame whose type ends so; those before it are kept in `frames` only."""
        while not (frame := await self.receive())["type"].endswith(kind):
            pass
        return frame

    async def end(self) -> tuple[int | None, str]:
        """Read to the close."""
        while True:
            try:
                await self.receive()
            except TransportClosedError as closed:
                return closed.code, closed.reason

    async def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.transport.send_text(json.dumps(message))

    async def type(self, text: str) -> None:
        await self.send({"type": "realtime.input_text", "data": {"content": text}})

    async def said(self) -> str:
        """What the next answer says; read to its audio.done."""
        frame = await self.next(".audio_transcript.done")
        await self.next(".audio.done")
        text: str = frame["data"]["content"]
        return text

    def types(self) -> list[str]:
        return [frame["type"].rpartition(".")[2] for frame in self.frames]

    @property
    def after_ready(self) -> list[str]:
        types = [frame["type"] for frame in self.frames]
        return types[types.index("realtime.session.updated") + 1 :]


@asynccontextmanager
async def on_paper(
    brain: Any, query: str = QUERY, *, path: str = "/wss/v2/realtime-chat", **options: Any
) -> AsyncIterator[Paper]:
    config = HumanConfig(
        brain=brain,
        directory=options.pop("directory", AvatarDirectory()),
        ice_servers=(IceServer(urls=("stun:127.0.0.1:9",)),),
        media=(),
        **options,
    )
    ours, theirs = memory_transports()
    paper = Paper(ours, config)

    async def handler(session: ServerSession) -> None:
        await visit(session, paper.mouthpiece, config)

    running = asyncio.create_task(
        serve_session(
            handler,
            theirs,
            parse_request_target(f"{path}?{query}"),
            config=ServerConfig(media=()),
            engine=PaperEngine,
        )
    )
    try:
        yield paper
    finally:
        await ours.close(1000, "")
        async with asyncio.timeout(PATIENCE):
            await running


@pytest.fixture
def visiting() -> Callable[..., AbstractAsyncContextManager[Paper]]:
    """``async with visiting(brain) as paper``; the options are those of HumanConfig."""
    return on_paper


@pytest.fixture
def tone() -> Callable[[float], bytes]:
    """Seconds of 300 Hz at -13 dBFS, PCM16 at 24 kHz."""

    def make(seconds: float) -> bytes:
        t = np.arange(round(seconds * 24_000)) / 24_000
        return bytes(np.round(10_000 * np.sin(2 * np.pi * 300 * t)).astype("<i2"))

    return make
