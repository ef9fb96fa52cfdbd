"""Media with aiortc as it is, group by group of private names and with none of them in use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aioice.ice import get_host_addresses

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.media import private_names
from navtalk_asyncio.media.private_names import GROUPS, SWITCH, works
from navtalk_proto.actions import ClosePeer, SetLocal, SetRemote
from navtalk_proto.media import MediaKind, MediaState

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

LOOPBACK_IS_OURS = ("all", "gathering")
"""Without this group there are no candidates on 127.0.0.1."""


@pytest.fixture(params=["all", *sorted(GROUPS)])
def off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name in LOOPBACK_IS_OURS and not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("no network interface besides loopback")
    monkeypatch.setattr(private_names, "_verdicts", {})
    monkeypatch.setenv(SWITCH, name)
    return name


async def decoded(driver: Any, wanted: int = 3) -> None:
    async def take(kind: MediaKind) -> None:
        taken = 0
        async for _ in driver.engine.frames(kind):
            taken += 1
            if taken == wanted:
                return

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(take(kind) for kind in MediaKind))


async def test_a_call_a_second_one_and_their_end(off: str, media: Any) -> None:
    server, client = await media.call()
    await decoded(client)
    assert not works(off if off != "all" else "jitter")
    await server.reset(media.send)
    await client.reset(media.receive)
    server.events.clear()
    offer = await server.do(SetLocal)
    await client.do(SetRemote, description=offer)
    await server.do(SetRemote, description=await client.do(SetLocal))
    await server.state(MediaState.CONNECTED)
    await decoded(client)
    for driver in (client, server):
        await driver.do(ClosePeer)


@pytest.mark.parametrize("off", ["all"], indirect=True)
async def test_a_session_with_the_emulator(off: str) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        emulate() as human,
        connect(human.endpoint()) as session,
    ):
        async for picture in session.video:
            assert picture.width > 0
            break
        async for sound in session.audio:
            assert sound.sample_rate == 48_000
            break
    assert not works("gathering")
