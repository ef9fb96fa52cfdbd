"""How clients are turned away: at connect, in mid-session, by the clock (protocol.md 5.3, 2.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Reply, emulate
from navtalk_asyncio.emulator.faults import Faults
from navtalk_asyncio.emulator.refusals import PlannedRefusal, farewell, plan
from navtalk_asyncio.media.early_peer import EarlyPeer
from navtalk_asyncio.testing import run_virtual
from navtalk_proto.config import ServerConfig
from navtalk_proto.errors import GpuFullError, InsufficientBalanceError, RefusalKind
from navtalk_proto.events import CloseCause, Notice
from navtalk_proto.wire.messages import ConnectedClose, GpuFull

Visiting = Callable[..., AbstractAsyncContextManager[Any]]

EVERY = [
    ("fail", "fail", "Connection failed", 1008, "refused"),
    (
        "insufficient_balance",
        "insufficient_balance",
        "Insufficient balance to continue service",
        1008,
        "Insufficient points",
    ),
    (
        "connection_limit_exceeded",
        "connection_limit_exceeded",
        "Maximum concurrent connections (5) exceeded.",
        1008,
        "connection limit exceeded",
    ),
    ("gpu_full", "gpu_full", "No GPU worker is free, try again later.", 1013, "no worker is free"),
    ("backend_error", "backend_error", "Backend error", 1011, "backend error"),
    ("close", "close", "Session timeout", 1000, ""),
]


class Silent:
    """Says nothing."""

    async def hear(self, conversation: Any) -> str:
        return ""

    async def reply(self, conversation: Any) -> Reply | None:
        return None


def test_a_plan_is_a_name_and_a_time() -> None:
    assert plan(None) == ()
    assert plan("gpu_full") == (PlannedRefusal(name="gpu_full"),)
    assert plan(["gpu_full@20s", "close@0.5", "close@300ms"]) == (
        PlannedRefusal(name="gpu_full", after=20.0),
        PlannedRefusal(name="close", after=0.5),
        PlannedRefusal(name="close", after=0.3),
    )


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        ("gpu", "'gpu' is no refusal; there are fail, insufficient_balance, "),
        ("gpu_full@", "not a name, nor a name and seconds"),
        ("gpu_full@-1s", "not a name, nor a name and seconds"),
        ("gpu_full@1m", "not a name, nor a name and seconds"),
        ("", "not a name"),
        (["gpu_full", "fail"], "two refusals"),
    ],
)
def test_what_is_no_plan(refuse: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plan(refuse)


def test_a_time_limit_is_above_zero() -> None:
    with pytest.raises(ValueError):
        Faults(time_limit=0.0)


def test_a_farewell_has_its_usual_text_or_another() -> None:
    assert farewell(RefusalKind.GPU_FULL, "Full.") == GpuFull(message="Full.")
    assert farewell("close") == ConnectedClose(message="Session timeout")


@pytest.mark.parametrize(("name", "event", "text", "code", "reason"), EVERY)
@pytest.mark.parametrize("at_connect", [True, False], ids=["at connect", "mid-session"])
def test_each_is_told_in_both_places_and_then_closed(
    visiting: Visiting,
    name: str,
    event: str,
    text: str,
    code: int,
    reason: str,
    at_connect: bool,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        faults = Faults(refusals=plan(name if at_connect else f"{name}@20s"))
        async with visiting(Silent(), faults=faults) as client:
            end = await client.end()
            took = loop.time() - start
        told = {
            "type": f"conversation.connected.{event}",
            "message": text,
            "data": {"message": text},
        }
        assert end == (code, reason)
        assert client.frames[-1] == told
        assert len(client.frames) == (1 if at_connect else 4)
        assert took == pytest.approx(0.0 if at_connect else 20.0)
        assert client.config.visits == set()

    run_virtual(main())


def test_a_session_has_its_time(visiting: Visiting) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with visiting(Silent(), faults=Faults(time_limit=600.0)) as client:
            assert await client.end() == (1000, "")
            assert loop.time() - start == pytest.approx(600.0)
        assert client.frames[-1]["type"] == "conversation.connected.close"
        assert client.frames[-1]["message"] == "Session timeout"

    run_virtual(main())


def test_a_client_that_leaves_before_takes_the_plan_with_it(visiting: Visiting) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with visiting(Silent(), faults=Faults(refusals=plan("fail@20s"))) as client:
            await client.next("session.updated")
        assert loop.time() == start
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


def test_a_refusal_at_connect_is_after_the_licence(visiting: Visiting) -> None:
    async def main() -> None:
        faults = Faults(refusals=plan("gpu_full"))
        async with visiting(Silent(), "name=navtalk.Lea", faults=faults) as client:
            await client.end()
        assert client.frames[0]["message"] == "Invalid license key"

    run_virtual(main())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_by_hand_on_a_running_emulator() -> None:
    config = ServerConfig(media=())
    async with emulate(brain=Silent(), config=config, refuse="gpu_full") as human:
        with pytest.raises(GpuFullError):
            async with connect(human.endpoint(), media=False, proxy=None):
                pass
        assert human.visits == frozenset()
        human.refuse("insufficient_balance")
        with pytest.raises(InsufficientBalanceError):
            async with connect(human.endpoint(), media=False, proxy=None):
                pass
        with pytest.raises(ValueError, match="no refusal"):
            human.refuse("nothing")
        human.refuse(None)
        async with connect(human.endpoint(), media=False, proxy=None) as session:
            (visit,) = human.visits
            assert visit.session_id == session.id
            assert visit.request.name == "navtalk.Lea"
            with pytest.raises(ValueError, match="no refusal"):
                await visit.refuse("nothing")
            await visit.refuse("insufficient_balance", "No more credit.")
            async with asyncio.timeout(20):
                events = [event async for event in session.events()]
            notice = Notice(kind=RefusalKind.INSUFFICIENT_BALANCE, text="No more credit.")
            assert notice in events
            assert session.end is not None
            assert session.end.cause is CloseCause.REFUSED
            assert (session.end.code, session.end.reason) == (1008, "Insufficient points")
        await visit.refuse("fail")  # It is over: nothing happens.
        assert human.visits == frozenset()


@pytest.mark.anyio
async def test_emulates_own_time_limit() -> None:
    config = ServerConfig(media=())
    async with (
        emulate(brain=Silent(), config=config, time_limit=0.05) as human,
        connect(human.endpoint(), media=False, proxy=None) as session,
    ):
        async with asyncio.timeout(20):
            async for _ in session.events():
                pass
        assert session.end is not None
        assert session.end.code == 1000


@pytest.mark.replaces("opening")
def test_who_is_refused_costs_no_peer_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come in a row; who is let in gets one, and nothing of anybody is left."""
    made: list[EarlyPeer] = []
    begin = EarlyPeer.__init__

    async def visits() -> None:
        was_made = asyncio.Event()

        def noted(early: EarlyPeer, *arguments: Any, **options: Any) -> None:
            begin(early, *arguments, **options)
            made.append(early)
            was_made.set()

        monkeypatch.setattr(EarlyPeer, "__init__", noted)
        async with emulate(refuse="gpu_full") as human:
            for _ in range(20):
                with pytest.raises(GpuFullError):
                    async with connect(human.endpoint(), media=False):
                        pytest.fail("it was let in")
            assert made == []
            human.refuse(None)
            async with asyncio.timeout(60), connect(human.endpoint(), media=False):
                await was_made.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(visits())
    assert {early.pc.connectionState for early in made} == {"closed"}
