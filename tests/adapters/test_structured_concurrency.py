"""What leaves `async with connect(...)` and serve_session(), and that nothing outlives them."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_asyncio.testing import PaperEngine
from navtalk_proto import LocalProtocolError, MediaError, SessionClosedError
from navtalk_proto.actions import OpenPeer
from navtalk_proto.events import CloseCause, Closed, Connected, Event, MessageReceived
from navtalk_proto.exception_groups import unwrap
from navtalk_proto.intents import Negotiate
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.testing import EngineMisuseError
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated


class BodyError(Exception):
    pass


class DriverError(Exception):
    pass


class WrongResult(PaperEngine):
    """Finishes every command with something that is no result of it."""

    def execute(self, command: Any) -> None:
        self.strict.execute(command)
        done: Any = self._callbacks.done
        asyncio.get_running_loop().call_soon(done, command.op, "a text")


def frames_of(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def spoil_receive(far: Any, error: Exception) -> Callable[[], None]:
    """Make the near transport's receive() raise once the returned function was called."""
    broken = asyncio.Event()
    receive = far.near.receive

    async def spoilt() -> Any:
        waiting = [asyncio.ensure_future(receive()), asyncio.ensure_future(broken.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting[0].done():
                return await waiting[0]
            raise error
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    far.near.receive = spoilt
    return broken.set


# ---- the body fails


def test_an_exception_of_the_body_leaves_as_it_is(kit: Any) -> None:
    async def main() -> None:
        cause = KeyError("cause")
        error = BodyError("body")
        far = kit.far()
        await far.script(*kit.ready)

        async def fail_deep_inside() -> None:
            raise error from cause

        with pytest.raises(BodyError) as caught:
            async with kit.connect(far, media=False):
                await fail_deep_inside()
        assert caught.value is error
        assert error.__cause__ is cause
        assert error.__context__ is None
        assert "fail_deep_inside" in frames_of(error)
        assert await far.end() == (1000, "")

    kit.run(main())


def test_the_context_of_a_bodys_exception_survives(kit: Any) -> None:
    async def main() -> None:
        context = KeyError("context")

        def fail_while_handling() -> None:
            try:
                raise context
            except KeyError:
                raise BodyError  # noqa: B904 - the context is what is tested

        with pytest.raises(BodyError) as caught:
            async with kit.session():
                fail_while_handling()
        assert caught.value.__context__ is context
        assert caught.value.__cause__ is None

    kit.run(main())


@pytest.mark.parametrize(
    "error",
    [
        StopAsyncIteration(),
        StopIteration(),
        RuntimeError("x"),
        ExceptionGroup("mine", [ValueError(), KeyError()]),
        SessionClosedError("x"),
        TimeoutError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_special_exceptions_of_the_body(kit: Any, error: Exception) -> None:
    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            async with kit.session():
                raise error
        assert caught.value is error

    kit.run(main())


def test_a_timeout_around_the_block(kit: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5), kit.session():
                await asyncio.Event().wait()
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    assert kit.run(kit.elapsed(main()))[0] == 5.0


def test_a_task_group_in_the_body(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far), asyncio.TaskGroup() as tasks:

            async def listen() -> Event:
                last: Event | None = None
                async for event in session.events():
                    last = event
                assert last is not None
                return last

            listening = tasks.create_task(listen())
            await kit.settle()
            await far.transport.close(1000, "done")
        assert listening.result() == Closed(cause=CloseCause.REMOTE, code=1000, reason="done")

    kit.run(main())


# ---- exactly one of the driver's tasks fails


def test_a_transport_that_raises_something_else(kit: Any) -> None:
    async def main() -> None:
        cause, context = KeyError("cause"), KeyError("context")
        error = DriverError("receive")
        error.__cause__, error.__context__ = cause, context
        far = kit.far()
        fail = spoil_receive(far, error)
        await far.script(*kit.ready)
        sessions: list[Any] = []

        async def use() -> None:
            async with kit.connect(far, media=False) as session:
                sessions.append(session)
                fail()
                await asyncio.Event().wait()

        with pytest.raises(DriverError) as caught:
            await use()
        assert caught.value is error
        assert error.__cause__ is cause
        assert error.__context__ is context
        assert "spoilt" in frames_of(error)
        # The core told its end nonetheless, and the server saw one.
        events = [event async for event in sessions[0].events()]
        assert events[-1] == Closed(cause=CloseCause.REMOTE, code=None, reason="")
        assert await far.end() == (None, "")
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    kit.run(main())


def test_a_transport_that_cannot_send(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)

        async def broken(text: str) -> None:
            raise DriverError("send")

        async def use() -> None:
            async with kit.connect(far, media=False) as session:
                far.near.send_text = broken
                await session.send_text("x")
                await asyncio.Event().wait()

        with pytest.raises(DriverError, match="send"):
            await use()

    kit.run(main())


def test_a_transport_that_cannot_close(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)

        async def broken(code: int, reason: str) -> None:
            raise DriverError("close")

        with pytest.raises(DriverError, match="close"):
            async with kit.connect(far, media=False):
                far.near.close = broken
        assert await far.end() == (None, "")

    kit.run(main())


def test_before_it_is_usable(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        spoil_receive(far, DriverError("early"))()
        _, caught = await kit.refused(far, DriverError)
        assert caught.args == ("early",)

    kit.run(main())


def test_an_engine_callback_that_the_core_refuses(kit: Any) -> None:
    """A wrong result: the engine is broken, and the session ends with what the core says of it."""

    engines: list[PaperEngine] = []

    def factory(callbacks: Any) -> PaperEngine:
        engines.append(WrongResult(callbacks))
        return engines[0]

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)
        seen: list[Any] = []
        _, caught = await kit.refused(far, LocalProtocolError, engine=factory, observe=seen.append)
        assert "str" in str(caught)
        assert isinstance(engines[0].strict.history[0], OpenPeer)
        assert engines[0].closed
        assert isinstance(seen[-1], Closed)
        assert await far.end() == (None, "")

    kit.run(main())


def test_an_engine_that_cannot_execute(kit: Any) -> None:
    class Misused(PaperEngine):
        def execute(self, command: Any) -> None:
            if isinstance(command, OpenPeer):
                raise EngineMisuseError("not me")
            super().execute(command)

    engines: list[PaperEngine] = []

    def factory(callbacks: Any) -> PaperEngine:
        engines.append(Misused(callbacks))
        return engines[0]

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)
        await kit.refused(far, EngineMisuseError, engine=factory)
        assert engines[0].closed

    kit.run(main())


@pytest.mark.parametrize("kind", [Connected, MessageReceived, Closed])
def test_an_observer_that_raises(kit: Any, kind: type[Event]) -> None:
    async def main() -> None:
        far = kit.far()
        calls: list[Any] = []

        def observe(event: Event) -> None:
            calls.append(event)
            if isinstance(event, kind):
                raise DriverError("observe")

        await far.script(*kit.ready)
        sessions: list[Any] = []

        async def use() -> None:
            async with kit.connect(far, media=False, observe=observe) as session:
                sessions.append(session)
                if kind is MessageReceived:
                    await far.say("realtime.input_audio_buffer.speech_started")
                    await asyncio.Event().wait()

        with pytest.raises(DriverError, match="observe"):
            await use()
        assert isinstance(calls[-1], kind)  # Not called again.
        assert len(sessions) == (kind is not Connected)
        for session in sessions:
            assert isinstance(session.end, Closed)
            assert [e async for e in session.events()][-1] == session.end

    kit.run(main())


def test_an_observer_that_raises_in_a_timer(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()

        def observe(event: Event) -> None:
            raise DriverError(type(event).__name__)

        _, caught = await kit.refused(far, DriverError, observe=observe, timeout=3.0)
        assert caught.args == ("TimedOut",)

    assert kit.run(kit.elapsed(main()))[0] == 3.0


def test_an_observer_that_raises_because_of_a_call_of_the_body(kit: Any) -> None:
    """It concerns the session, not whoever called: the call succeeds, the session ends."""

    async def main() -> None:
        called = False

        def observe(event: Event) -> None:
            if isinstance(event, Closed):
                raise DriverError("at the end")

        async def use() -> None:
            nonlocal called
            async with kit.session(observe=observe) as (session, _):
                await session.close()
                called = True

        with pytest.raises(DriverError, match="at the end"):
            await use()
        assert called

    kit.run(main())


# ---- several fail


def test_body_and_driver_fail(kit: Any) -> None:
    async def main() -> None:
        body, driver = BodyError("body"), DriverError("driver")

        def observe(event: Event) -> None:
            if isinstance(event, Closed):
                raise driver

        with pytest.raises(ExceptionGroup) as caught:
            async with kit.session(observe=observe):
                raise body
        assert set(caught.value.exceptions) == {body, driver}

    kit.run(main())


def test_a_task_and_the_engine_fail(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)
        receive, close = DriverError("receive"), DriverError("engine")

        class Stubborn(PaperEngine):
            async def aclose(self) -> None:
                await super().aclose()
                raise close

        fail = spoil_receive(far, receive)

        async def use() -> None:
            async with kit.connect(far, engine=Stubborn):
                fail()
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            await use()
        assert caught.value.exceptions == (receive, close)

    kit.run(main())


@pytest.mark.parametrize("waiting", ["send", "negotiate"])
def test_what_follows_from_a_failure_is_not_another(kit: Any, waiting: str) -> None:
    """The call that waits in the body learns of the end; the failure leaves bare."""

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)
        fail = spoil_receive(far, DriverError("receive"))
        learnt: list[Exception] = []

        async def use() -> None:
            async with kit.connect(far) as session:
                far.near.stalled = True
                for _ in range(5):
                    await session.send_audio(bytes(48_000))
                far.near.stalled = waiting == "send"
                fail()
                try:
                    if waiting == "send":
                        await session.send_audio(b"\0\0")
                    else:
                        await session.negotiate(MediaLine(kind=MediaKind.VIDEO))
                except (SessionClosedError, MediaError) as error:
                    learnt.append(error)
                    raise

        with pytest.raises(DriverError, match="receive"):
            await use()
        assert [type(error) for error in learnt] == [SessionClosedError]

    kit.run(main())


def test_unwrap() -> None:
    one, other = ValueError("one"), KeyError("other")
    assert unwrap(ExceptionGroup("", [one])) is one
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [one])])) is one
    several = ExceptionGroup("", [one, other])
    assert unwrap(several) is several
    assert unwrap(ExceptionGroup("", [several])) is several
    interrupt = KeyboardInterrupt()
    assert unwrap(BaseExceptionGroup("", [interrupt])) is interrupt


# ---- the server


async def welcome(session: Any) -> None:
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)


def test_a_handlers_exception_leaves_serve_session(kit: Any) -> None:
    async def main() -> None:
        error = BodyError("handler")

        async def broken(session: Any) -> None:
            await welcome(session)
            raise error

        far = kit.far()
        kit.transports.remove(far.near)
        with pytest.raises(BodyError) as caught:
            await kit.serve(broken, far)
        assert caught.value is error
        assert "broken" in frames_of(error)
        for _ in range(3):
            await far.near.receive()
        with pytest.raises(TransportClosedError, match="closed with 1011: internal error"):
            await far.near.receive()

    kit.run(main())


@pytest.mark.parametrize("grouped", [False, True])
def test_a_client_that_left_is_no_failure_of_the_handler(kit: Any, grouped: bool) -> None:
    async def main() -> None:
        async def speak(session: Any) -> None:
            while True:
                await session.send(SessionUpdated())
                await asyncio.sleep(1)

        async def handler(session: Any) -> None:
            await welcome(session)
            if not grouped:
                await speak(session)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(speak(session))
                tasks.create_task(speak(session))

        far = kit.far()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kit.serve(handler, far))
            async with kit.connect(far, media=False):
                await asyncio.sleep(2.5)

    kit.run(main())


def test_the_end_of_another_session_is_a_failure_of_the_handler(kit: Any) -> None:
    """A relay whose upstream ended: its own client is still there, and is told."""

    async def main() -> None:
        async def relay(session: Any) -> None:
            await welcome(session)
            async with kit.session() as (upstream, _):
                await upstream.close()
                await upstream.send_text("x")

        far = kit.far()
        kit.transports.remove(far.near)
        with pytest.raises(SessionClosedError):
            await kit.serve(relay, far)
        for _ in range(3):
            await far.near.receive()
        with pytest.raises(TransportClosedError, match="closed with 1011"):
            await far.near.receive()

    kit.run(main())


def test_a_cancelled_handler_closes_with_1001(kit: Any) -> None:
    async def main() -> None:
        async def handler(session: Any) -> None:
            await welcome(session)
            await asyncio.Event().wait()

        far = kit.far()
        kit.transports.remove(far.near)
        serving = asyncio.create_task(kit.serve(handler, far))
        await kit.settle()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        for _ in range(3):
            await far.near.receive()
        with pytest.raises(TransportClosedError, match="closed with 1001: server is shutting down"):
            await far.near.receive()

    kit.run(main())


@pytest.mark.parametrize("waiting", [False, True])
def test_a_driver_that_fails_ends_the_handler(kit: Any, waiting: bool) -> None:
    async def main() -> None:
        far = kit.far()
        kit.transports.remove(far.near)
        learnt: list[BaseException] = []

        async def handler(session: Any) -> None:
            await welcome(session)
            try:
                if waiting:
                    await session.negotiate(MediaLine(kind=MediaKind.VIDEO))
                else:
                    await session.send(Negotiate(media=(MediaLine(kind=MediaKind.VIDEO),)))
                    await asyncio.Event().wait()
            except BaseException as error:
                learnt.append(error)
                raise

        with pytest.raises(LocalProtocolError, match="the engine finished"):
            await kit.serve(handler, far, media=True, engine=WrongResult)
        assert [type(error) for error in learnt] == [
            SessionClosedError if waiting else asyncio.CancelledError
        ]

    kit.run(main())


def test_a_server_engine_that_cannot_be_made(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        kit.transports.remove(far.near)

        def broken(callbacks: Any) -> Any:
            raise DriverError("no engine")

        async def handler(session: Any) -> None:
            pytest.fail("there is no session")

        with pytest.raises(DriverError, match="no engine"):
            await kit.serve(handler, far, media=True, engine=broken)

    kit.run(main())
