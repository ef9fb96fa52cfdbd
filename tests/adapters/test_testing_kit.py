"""The public test kit: transports without sockets, engines without media, time without waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from navtalk_asyncio.media.interface import EngineCallbacks
from navtalk_asyncio.testing import PaperEngine, VirtualClockLoop, memory_transports, run_virtual
from navtalk_proto.actions import CreateOffer, OpenPeer, SetLocal
from navtalk_proto.config import RECEIVE_MEDIA
from navtalk_proto.media import IcePolicy, MediaKind, MediaState, MediaStateChanged, OpId
from navtalk_proto.testing import EngineMisuseError, StrictEngine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import Offer

# ---- virtual time


def test_the_clock_jumps() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert start == 1000.0
        await asyncio.sleep(86_400 * 3)
        first = loop.time() - start
        await asyncio.gather(asyncio.sleep(5), asyncio.sleep(7), asyncio.sleep(6))
        return [first, loop.time() - start - first]

    began = time.monotonic()
    assert run_virtual(main()) == [pytest.approx(259_200), pytest.approx(7)]
    assert time.monotonic() - began < 5


def test_timers_fire_in_order_and_at_their_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[str, float]] = []

        def fire(name: str) -> None:
            fired.append((name, round(loop.time(), 6)))

        for name, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
            loop.call_later(delay, fire, name)
        await asyncio.sleep(10)
        return fired

    assert run_virtual(main()) == [("a", 1001.0), ("b", 1002.0), ("c", 1003.0)]


def test_the_clock_stands_while_something_is_ready() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert loop.time() == 1000.0

    run_virtual(main())


def test_a_deadlock_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtual(main())


def test_results_and_exceptions_come_out() -> None:
    async def give() -> int:
        await asyncio.sleep(1)
        assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)
        return 7

    async def fail() -> None:
        await asyncio.sleep(1)
        raise KeyError("x")

    assert run_virtual(give()) == 7
    with pytest.raises(KeyError):
        run_virtual(fail())


# ---- transports


def test_messages_arrive_in_order_both_ways() -> None:
    async def main() -> None:
        one, other = memory_transports()
        await one.send_text("1")
        await one.send_text("2")
        one.send_binary(b"3")
        await other.send_text("back")
        assert one.sent == ["1", "2"]
        assert other.waiting == 3
        assert [await other.receive() for _ in range(3)] == ["1", "2", b"3"]
        assert await one.receive() == "back"
        assert other.waiting == 0

    run_virtual(main())


def test_close_comes_after_what_was_sent_at_both_ends() -> None:
    async def main() -> None:
        one, other = memory_transports()
        await one.send_text("last words")
        await one.close(4000, "bye")
        assert await other.receive() == "last words"
        for end in (one, other):
            for _ in range(2):  # As often as one asks.
                with pytest.raises(TransportClosedError, match="closed with 4000: bye"):
                    await end.receive()
            with pytest.raises(TransportClosedError):
                await end.send_text("too late")
        await other.close(1000, "me too")  # No second close.
        with pytest.raises(TransportClosedError, match="4000"):
            await one.receive()
        assert not one.closed.is_set()
        await one.aclose()
        assert one.closed.is_set()
        assert not other.closed.is_set()

    run_virtual(main())


@pytest.mark.parametrize("how", ["lose", "aclose"])
def test_a_lost_connection(how: str) -> None:
    async def main() -> None:
        one, other = memory_transports()
        receiving = asyncio.create_task(other.receive())
        await asyncio.sleep(1)
        if how == "lose":
            one.lose()
        else:
            await one.aclose()
        with pytest.raises(TransportClosedError, match="connection lost") as closed:
            await receiving
        assert closed.value.code is None
        with pytest.raises(TransportClosedError):
            await one.receive()

    run_virtual(main())


def test_a_stalled_end() -> None:
    async def main() -> None:
        one, other = memory_transports()
        one.stalled = True
        assert one.stalled
        sending = asyncio.create_task(one.send_text("1"))
        await asyncio.sleep(1)
        assert not sending.done()
        await other.send_text("the other way is free")
        assert await one.receive() == "the other way is free"
        one.stalled = False
        await sending
        assert await other.receive() == "1"
        one.stalled = True
        sending = asyncio.create_task(one.send_text("2"))
        await asyncio.sleep(1)
        one.lose()
        with pytest.raises(TransportClosedError):
            await sending
        assert one.sent == ["1"]

    run_virtual(main())


def test_a_cancelled_receive_loses_nothing() -> None:
    async def main() -> None:
        one, other = memory_transports()
        receiving = asyncio.create_task(other.receive())
        await asyncio.sleep(1)
        await one.send_text("1")
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await other.receive() == "1"

    run_virtual(main())


# ---- the engine


class Callbacks:
    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.callbacks = EngineCallbacks(
            done=lambda op, result: self.log.append(("done", op, result)),
            failed=lambda op, reason: self.log.append(("failed", op, reason)),
            event=lambda event: self.log.append(("event", event)),
        )


def open_peer(op: int) -> OpenPeer:
    return OpenPeer(op=OpId(op), ice_servers=(), policy=IcePolicy.ALL, media=RECEIVE_MEDIA)


def test_commands_end_on_a_later_turn() -> None:
    async def main() -> None:
        told = Callbacks()
        engine = PaperEngine(told.callbacks)
        assert engine.capabilities.rollback is False
        engine.execute(open_peer(1))
        assert told.log == []
        await asyncio.sleep(0.001)
        assert told.log == [("done", 1, None)]
        engine.execute(SetLocal(op=OpId(2), media=RECEIVE_MEDIA))
        await asyncio.sleep(0.001)
        assert told.log[1][:2] == ("done", 2)
        assert isinstance(told.log[1][2], Offer)
        await engine.aclose()

    run_virtual(main())


def test_a_held_engine() -> None:
    async def main() -> None:
        told = Callbacks()
        engine = PaperEngine(told.callbacks)
        engine.held = True
        engine.execute(open_peer(1))
        await asyncio.sleep(0.001)
        assert told.log == []
        engine.fail("no memory")
        assert told.log == [("failed", 1, "no memory")]
        engine.execute(open_peer(2))
        await asyncio.sleep(0.001)
        assert len(told.log) == 1
        engine.release()
        await asyncio.sleep(0.001)
        assert told.log[1:] == [("done", 2, None)]
        with pytest.raises(IndexError):
            engine.fail("nothing waits")
        await engine.aclose()

    run_virtual(main())


def test_an_illegal_command_raises_where_it_is_given() -> None:
    async def main() -> None:
        engine = PaperEngine(Callbacks().callbacks, StrictEngine("x"))
        with pytest.raises(EngineMisuseError):
            engine.execute(CreateOffer(op=OpId(1), media=RECEIVE_MEDIA))
        await engine.aclose()

    run_virtual(main())


def test_events_and_the_end_of_frames() -> None:
    async def main() -> None:
        told = Callbacks()
        engine = PaperEngine(told.callbacks)
        failed = MediaStateChanged(state=MediaState.FAILED)
        engine.event(failed)
        assert told.log == [("event", failed)]

        async def watch() -> list[Any]:
            return [frame async for frame in engine.frames(MediaKind.VIDEO)]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(1)
        assert not watching.done()
        engine.execute(open_peer(1))
        await engine.aclose()
        await engine.aclose()
        assert await watching == []
        assert engine.closed
        assert engine.counters() == {}
        await asyncio.sleep(1)
        assert len(told.log) == 1  # A closed engine finishes nothing.

    run_virtual(main())
