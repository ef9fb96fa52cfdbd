"""The driver: inputs in, actions out in order, one timer, and an end that is always told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import EngineCallbacks
from navtalk_asyncio.testing import MemoryTransport, memory_transports
from navtalk_proto import (
    ClientConfig,
    Connection,
    LocalProtocolError,
    Role,
    ServerConfig,
    SessionClosedError,
)
from navtalk_proto.actions import ClosePeer, OpenPeer, SetLocal, SetRemote
from navtalk_proto.events import CloseCause, Closed, Event
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.media import MediaState, MediaStateChanged, OpId
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import InputConfig


class Rig:
    """A client's driver on one end of a transport; the other end is played by hand."""

    def __init__(self, kit: Any, *, media: bool = False, **config: Any) -> None:
        near, self.far = memory_transports()
        self.near: MemoryTransport = near
        kit.transports.append(near)
        self.seen: list[Event] = []
        self.hook: Callable[[Event], None] = self.seen.append
        settings = ClientConfig(**config) if media else ClientConfig(media=(), **config)
        self.core = Connection(Role.CLIENT, settings, now=asyncio.get_running_loop().time())

        def engine(callbacks: EngineCallbacks) -> Any:
            self.callbacks = callbacks
            return kit.engine(callbacks)

        self.driver = Driver(
            self.core, near, engine if media else None, observe=lambda event: self.hook(event)
        )

    def go(self) -> asyncio.Task[None]:
        self.driver.start()
        return asyncio.create_task(self.driver.run())

    async def say(self, *messages: tuple[str, object]) -> None:
        for type, data in messages:
            await self.far.send_text(json.dumps({"type": type, "data": data}))

    def sent(self) -> list[str]:
        return [json.loads(text)["type"] for text in self.near.sent]


def test_texts_leave_in_order_and_the_close_after_them(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit, input_config=InputConfig(voice="cedar"))
        running = rig.go()
        await rig.say(*kit.ready)
        await kit.settle()
        rig.near.stalled = True
        rig.driver.send(SayText(text="one"))
        rig.driver.send(SendAudio(pcm=bytes(4)))
        closing = asyncio.create_task(rig.driver.close(1000, "enough"))
        await kit.settle()
        assert rig.sent() == ["realtime.input_config"]
        rig.near.stalled = False
        await closing
        await running
        assert rig.sent() == [
            "realtime.input_config",
            "conversation.item.create",
            "response.create",
            "realtime.input_audio_buffer.append",
        ]
        for _ in range(4):
            await rig.far.receive()
        with pytest.raises(TransportClosedError) as closed:
            await rig.far.receive()
        assert (closed.value.code, closed.value.reason) == (1000, "enough")

    kit.run(main())


def test_observe_sees_an_event_before_the_reader(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit)
        order: list[tuple[str, str]] = []
        rig.hook = lambda event: order.append(("observe", type(event).__name__))
        running = rig.go()

        async def read() -> None:
            async for event in rig.driver.events:
                order.append(("read", type(event).__name__))

        reading = asyncio.create_task(read())
        await rig.say(*kit.ready)
        await rig.far.close(1000, "")
        await running
        await reading
        kinds = ["Connected", "Ready", "Usable", "Closed"]
        assert [name for who, name in order if who == "observe"] == kinds
        assert [name for who, name in order if who == "read"] == kinds
        for kind in kinds:
            assert order.index(("observe", kind)) < order.index(("read", kind))

    kit.run(main())


def test_media_commands_reach_the_engine_in_order(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit, media=True)
        running = rig.go()
        await rig.say(*kit.usable)
        await kit.settle()
        engine = kit.engines[0]
        assert [type(command) for command in engine.strict.history] == [
            OpenPeer,
            SetRemote,
            SetLocal,
        ]
        await rig.driver.close()
        await running
        assert type(engine.strict.history[-1]) is ClosePeer
        # What an engine reports after the end is counted, and changes nothing.
        rig.callbacks.done(OpId(99), None)
        rig.callbacks.failed(OpId(98), "late")
        rig.callbacks.event(MediaStateChanged(state=MediaState.FAILED))
        assert rig.core.counters.stale_completions == 2
        assert rig.core.counters.ignored == 1
        assert isinstance(rig.seen[-1], Closed)

    kit.run(main())


def test_the_timer_follows_the_core(kit: Any) -> None:
    """An idle session is ended 60 s after the last message, however many came before."""

    async def main() -> None:
        rig = Rig(kit, idle_timeout=60.0)
        running = rig.go()
        await rig.say(*kit.ready)
        for _ in range(5):
            await asyncio.sleep(50)
            await rig.say(("realtime.input_audio_buffer.speech_started", {}))
        await running
        end = rig.driver.end
        assert end is not None
        assert end.cause is CloseCause.TIMEOUT

    elapsed, _ = kit.run(kit.elapsed(main()))
    assert elapsed == 5 * 50 + 60


def test_a_transport_that_is_lost(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit)
        running = rig.go()
        await rig.say(*kit.ready)
        await kit.settle()
        rig.near.lose()
        await running
        assert rig.driver.end == Closed(cause=CloseCause.REMOTE, code=None, reason="")
        with pytest.raises(SessionClosedError):
            await rig.driver.room()
        with pytest.raises(SessionClosedError):
            rig.driver.send(SayText(text="x"))
        await rig.driver.close()

    kit.run(main())


@pytest.mark.parametrize("media", [False, True])
def test_a_cancelled_run_tells_the_end(kit: Any, media: bool) -> None:
    async def main() -> None:
        rig = Rig(kit, media=media)
        running = rig.go()
        await rig.say(*(kit.usable if media else kit.ready))
        await kit.settle()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert rig.driver.end == Closed(cause=CloseCause.REMOTE, code=None, reason="")
        assert [event async for event in rig.driver.events][-1] == rig.driver.end
        assert rig.seen.count(rig.driver.end) == 1
        for _ in rig.sent():
            await rig.far.receive()
        with pytest.raises(TransportClosedError, match="connection lost"):
            await rig.far.receive()

    kit.run(main())


def test_nothing_is_timed_after_the_end(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit)
        running = rig.go()
        await kit.settle()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(3600)
        assert [type(event).__name__ for event in rig.seen] == ["ConnectFailed", "Closed"]

    kit.run(main())


def test_a_close_that_is_not_answered_is_forced(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit, close_timeout=2.0)
        running = rig.go()
        await rig.say(*kit.ready)
        await kit.settle()
        rig.near.stalled = True
        elapsed, _ = await kit.elapsed(rig.driver.close())
        assert elapsed == 2.0
        assert rig.driver.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="", forced=True)
        await running

    kit.run(main())


def test_an_intent_that_is_refused_raises_where_it_is_given(kit: Any) -> None:
    async def main() -> None:
        rig = Rig(kit)
        running = rig.go()
        await rig.say(*kit.ready)
        await kit.settle()
        with pytest.raises(LocalProtocolError):
            rig.driver.send(SendAudio(pcm=b"odd"))
        assert not running.done()
        await rig.driver.close()
        await running

    kit.run(main())


def test_a_server_core_is_driven_alike(kit: Any) -> None:
    async def main() -> None:
        near, far = memory_transports()
        kit.transports.append(near)
        core = Connection(
            Role.SERVER, ServerConfig(media=()), now=asyncio.get_running_loop().time()
        )
        seen: list[Event] = []
        driver = Driver(core, near, None, observe=seen.append)
        driver.start()
        running = asyncio.create_task(driver.run())
        await far.send_text('{"type": "response.create"}')
        await kit.settle()
        await far.close(1001, "gone")
        await running
        assert [type(event).__name__ for event in seen] == ["MessageReceived", "Closed"]
        assert driver.end == Closed(cause=CloseCause.REMOTE, code=1001, reason="gone")

    kit.run(main())


def test_what_is_due_already_has_no_timer_where_the_loop_is_uvloop(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig(kit)
        handles: list[asyncio.Handle] = []

        def call_at(when: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.Handle:
            handles.append(loop.call_soon(callback, *arguments))
            return handles[-1]

        # uvloop gives a bare Handle, without when(), for a time that has passed.
        monkeypatch.setattr(loop, "call_at", call_at)
        now = loop.time()
        rig.driver.rearm(now)
        rig.driver.rearm(now)
        rig.driver.rearm(now + 1.0)
        rig.driver.rearm(None)
        assert [handle.cancelled() for handle in handles] == [True, True]
        await rig.near.aclose()

    kit.run(main())


def test_a_timer_that_fires_early_is_not_early_for_the_core(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop fires what is due within its clock's resolution together with what is due now."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig(kit, welcome_timeout=10.0)
        times: list[float] = []
        handle_timeout = rig.core.handle_timeout

        def counted(*, now: float) -> None:
            times.append(now)
            handle_timeout(now=now)

        monkeypatch.setattr(rig.core, "handle_timeout", counted)
        running = rig.go()
        deadline = rig.core.next_timeout()
        assert deadline is not None
        early = deadline - 5e-10
        woken = loop.create_future()
        loop.call_at(early, woken.set_result, None)
        await woken
        assert loop.time() == early
        assert rig.driver.time() == deadline, "what comes now comes after the deadline"
        assert times == [deadline]
        await running
        assert isinstance(rig.seen[-1], Closed)

    kit.run(main())
