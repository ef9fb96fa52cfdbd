"""Two ICE agents of aioice on loopback, of which one or both notice their own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aioice
import pytest
from aioice import ice

from navtalk_asyncio.media.ice_checks import PromptChecks

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""


@asynccontextmanager
async def agents(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[aioice.Connection, aioice.Connection]]:
    monkeypatch.setattr(ice, "get_host_addresses", lambda **_kinds: ["127.0.0.1"])
    one, other = aioice.Connection(ice_controlling=True), aioice.Connection(ice_controlling=False)
    for agent, peer in ((one, other), (other, one)):
        await agent.gather_candidates()
        agent.remote_username = peer.local_username
        agent.remote_password = peer.local_password
    try:
        async with asyncio.timeout(PATIENCE):
            yield one, other
    finally:
        await one.close()
        await other.close()


async def tell(agent: aioice.Connection, peer: aioice.Connection) -> None:
    for candidate in peer.local_candidates:
        await agent.add_remote_candidate(candidate)
    await agent.add_remote_candidate(None)


@pytest.mark.parametrize("ours", ["one", "other", "both"])
async def test_a_path_is_found_and_carries_data(ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with agents(monkeypatch) as (one, other):
        for name, agent in (("one", one), ("other", other)):
            if ours in (name, "both"):
                PromptChecks(agent)
        await tell(one, other)
        await tell(other, one)
        await asyncio.gather(one.connect(), other.connect())
        await one.send(b"to")
        await other.send(b"fro")
        assert (await other.recv(), await one.recv()) == (b"to", b"fro")
        assert one._query_consent_task is not None


async def test_no_tick_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice sleeps between its checks; nothing here does."""

    turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        assert seconds == 0, "a tick"
        await turn(0)

    async with agents(monkeypatch) as (one, other):
        PromptChecks(one)
        PromptChecks(other)
        await tell(one, other)
        await tell(other, one)
        for agent in (one, other):
            agent.query_consent = asyncio.Event().wait  # type: ignore[method-assign,assignment]
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", sleep)
            await asyncio.gather(one.connect(), other.connect())


async def test_who_answers_on_another_thread_gives_the_answer_a_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn, slept = asyncio.sleep, list[float]()
    begun: list[bool] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
            begun.extend(bool(agent._check_list) for agent in (one, other))
        await turn(0)

    async with agents(monkeypatch) as (one, other):
        PromptChecks(one, head_start=3.0)
        PromptChecks(other, head_start=4.0)
        for agent in (one, other):
            agent.query_consent = asyncio.Event().wait  # type: ignore[method-assign,assignment]
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", sleep)
            connecting = asyncio.ensure_future(other.connect())
            while not slept:
                await turn(0)
            assert begun == [False, False]
            await tell(one, other)
            await tell(other, one)
            await asyncio.gather(one.connect(), connecting)
    # The one that offered has no answer to send.
    assert slept == [4.0]


async def test_a_late_candidate_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with agents(monkeypatch) as (one, other):
        PromptChecks(one)
        connecting = asyncio.ensure_future(one.connect())
        other_connecting = asyncio.ensure_future(other.connect())
        await asyncio.sleep(0)
        await tell(one, other)
        await asyncio.gather(connecting, other_connecting)


async def test_no_candidate_is_a_failure_once_none_will_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with agents(monkeypatch) as (one, _):
        PromptChecks(one)
        connecting = asyncio.ensure_future(one.connect())
        await asyncio.sleep(0)
        await one.add_remote_candidate(None)
        with pytest.raises(ConnectionError, match="ICE negotiation failed"):
            await connecting


async def test_closing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with agents(monkeypatch) as (one, _):
        PromptChecks(one)
        connecting = asyncio.ensure_future(one.connect())
        await asyncio.sleep(0)
        await one.close()
        with pytest.raises(ConnectionError):
            await connecting


async def test_it_needs_what_aioice_needs() -> None:
    agent = aioice.Connection(ice_controlling=True)
    PromptChecks(agent)
    with pytest.raises(ConnectionError, match="gathering was not performed"):
        await agent.connect()
    agent._local_candidates_end = True
    with pytest.raises(ConnectionError, match="username or password is missing"):
        await agent.connect()
