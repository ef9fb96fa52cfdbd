"""What leaves `async with connect(...)` and serve_session() on both loops, and that nothing stays.

tests/adapters/test_structured_concurrency.py goes deeper on asyncio, where cancellation is a count.
"""

from __future__ import annotations

import traceback
from typing import Any

import anyio
import pytest

from navtalk_proto import MediaError, SessionClosedError
from navtalk_proto.events import CloseCause, Closed, Event
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
)

READY = (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())


class BodyError(Exception):
    pass


class DriverError(Exception):
    pass


def frames_of(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def spoil(stage: Any, error: Exception) -> Any:
    """Make the near transport's receive() raise once the returned function was called."""
    receive = stage.near.receive
    broken: list[bool] = []

    async def spoilt() -> Any:
        message = await receive()
        if broken:
            raise error
        return message

    async def spoil_now() -> None:
        broken.append(True)
        await stage.peer.say(SpeechStarted())

    stage.near.receive = spoilt
    return spoil_now


# ---- the body fails


def test_an_exception_of_the_body_leaves_as_it_is(matrix: Any) -> None:
    cause, error = KeyError("cause"), BodyError("body")

    async def fail_deep_inside() -> None:
        raise error from cause

    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        with pytest.raises(BodyError) as caught:
            async with stage.connect(media=False):
                await fail_deep_inside()
        assert caught.value is error
        assert error.__cause__ is cause
        assert error.__context__ is None
        assert "fail_deep_inside" in frames_of(error)
        assert await stage.peer.hear_end() == (1000, "")

    matrix.once(main)


@pytest.mark.parametrize(
    "error",
    [
        StopAsyncIteration(),
        StopIteration(),
        RuntimeError("x"),
        SessionClosedError("x"),
        TimeoutError("x"),
        ExceptionGroup("mine", [ValueError(), KeyError()]),
        ExceptionGroup("mine", [ValueError()]),
        ExceptionGroup("mine", [ExceptionGroup("inner", [SessionClosedError("x")])]),
    ],
    ids=repr,
)
def test_special_exceptions_of_the_body(matrix: Any, error: Exception) -> None:
    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        with pytest.raises(type(error)) as caught:
            async with stage.connect(media=False):
                raise error
        if isinstance(error, ExceptionGroup):
            # trio makes a new group of what passes a cancelled scope, with the same exceptions.
            assert isinstance(caught.value, ExceptionGroup)
            assert caught.value.message == error.message
            assert repr(caught.value) == repr(error)
        else:
            assert caught.value is error

    matrix.once(main)


def test_a_task_of_the_body_fails(matrix: Any) -> None:
    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)

        async def fail() -> None:
            raise BodyError

        with pytest.raises(ExceptionGroup) as caught:
            async with stage.connect(media=False), anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
        assert [type(error) for error in caught.value.exceptions] == [BodyError]

    matrix.once(main)


def test_a_timeout_around_the_block(matrix: Any) -> None:
    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        start = stage.loop.time()
        async with stage.limit(5) as hit, stage.connect(media=False):
            await anyio.sleep_forever()
        assert hit
        assert round(stage.loop.time() - start, 3) == 5.0
        assert await stage.peer.hear_end() == (1000, "")
        await anyio.sleep(1)  # No cancellation is left over.

    matrix.once(main)


@pytest.mark.parametrize("unread", [1, 1023, 1024, 1500, 5000])
@pytest.mark.parametrize("reading", [False, True])
def test_leaving_with_unread_messages_does_not_hang(
    matrix: Any, unread: int, reading: bool
) -> None:
    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        start = stage.loop.time()
        async with stage.connect(media=False) as session:
            events = session.events()
            if reading:
                await anext(events)
            for _ in range(unread):
                await stage.peer.say(SpeechStarted())
            await stage.idle()
        assert stage.loop.time() - start < 0.1
        assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")
        assert [event async for event in events][-1] == session.end

    matrix.once(main)


# ---- the driver fails


def test_what_a_task_of_the_driver_raises_leaves_bare(matrix: Any) -> None:
    cause, error = KeyError("cause"), DriverError("receive")
    error.__cause__ = cause
    sessions: list[Any] = []

    async def main(stage: Any) -> None:
        fail = spoil(stage, error)
        await stage.peer.say(*READY)

        async def use() -> None:
            async with stage.connect(media=False) as session:
                sessions.append(session)
                await fail()
                await anyio.sleep_forever()

        with pytest.raises(DriverError) as caught:
            await use()
        assert caught.value is error
        assert error.__cause__ is cause
        assert "spoilt" in frames_of(error)
        events = [event async for event in sessions[0].events()]
        assert events[-1] == Closed(cause=CloseCause.REMOTE, code=None, reason="")
        with pytest.raises(TransportClosedError, match="connection lost"):
            await stage.far.receive()

    matrix.once(main)


def test_before_it_is_usable(matrix: Any) -> None:
    async def main(stage: Any) -> None:
        await spoil(stage, DriverError("early"))()
        with pytest.raises(DriverError, match="early"):
            async with stage.connect(media=False):
                pytest.fail("it is usable")

    matrix.once(main)


@pytest.mark.parametrize("waiting", ["send", "negotiate", "close"])
def test_what_follows_from_a_failure_is_not_another(matrix: Any, waiting: str) -> None:
    """The call that waits in the body learns of the end; the failure leaves bare."""
    learnt: list[BaseException] = []

    async def main(stage: Any) -> None:
        fail = spoil(stage, DriverError("receive"))
        offer = stage.peer.offer()
        await stage.peer.say(READY[0], offer, *READY[1:])

        async def use() -> None:
            async with stage.connect() as session:
                stage.near.stalled = True
                for _ in range(5):
                    await session.send_audio(bytes(48_000))
                stage.near.stalled = waiting == "send"
                await fail()
                try:
                    if waiting == "send":
                        await session.send_audio(b"\0\0")
                    elif waiting == "negotiate":
                        await session.negotiate(MediaLine(kind=MediaKind.VIDEO))
                    else:
                        await session.close()
                        await session.send_text("x")
                except Exception as error:
                    learnt.append(error)
                    raise

        with pytest.raises(DriverError, match="receive"):
            await use()
        # Or nothing at all: the failure cancels the body, which may come first.
        assert {type(error) for error in learnt} <= {SessionClosedError, MediaError}

    matrix.once(main)


@pytest.mark.parametrize("kind", ["Connected", "Usable", "Closed"])
def test_an_observer_that_raises(matrix: Any, kind: str) -> None:
    calls: list[str] = []

    def observe(event: Event) -> None:
        calls.append(type(event).__name__)
        if calls[-1] == kind:
            raise DriverError("observe")

    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        with pytest.raises(DriverError, match="observe"):
            async with stage.connect(media=False, observe=observe):
                await stage.idle(1)
        assert calls[-1] == kind  # Not called again.

    matrix.once(main)


# ---- several fail


def test_body_and_driver_fail(matrix: Any) -> None:
    body, driver = BodyError("body"), DriverError("driver")

    def observe(event: Event) -> None:
        if isinstance(event, Closed):
            raise driver

    async def main(stage: Any) -> None:
        await stage.peer.say(*READY)
        with pytest.raises(ExceptionGroup) as caught:
            async with stage.connect(media=False, observe=observe):
                raise body
        assert set(caught.value.exceptions) == {body, driver}

    matrix.once(main)


def test_a_task_and_the_engine_fail(matrix: Any) -> None:
    receive, close = DriverError("receive"), DriverError("engine")

    async def main(stage: Any) -> None:
        fail = spoil(stage, receive)
        await stage.peer.say(READY[0], stage.peer.offer(), *READY[1:])

        async def use() -> None:
            async with stage.connect():
                stage.engines[0].aclose = stage.break_engine(close)
                await fail()
                await anyio.sleep_forever()

        with pytest.raises(ExceptionGroup) as caught:
            await use()
        assert caught.value.exceptions == (receive, close)

    matrix.once(main)


# ---- the server


async def welcome(session: Any) -> None:
    for message in READY:
        await session.send(message)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_handlers_exception_leaves_serve_session(matrix: Any, grouped: bool) -> None:
    error = BodyError("handler")

    async def handler(session: Any) -> None:
        await welcome(session)
        raise ExceptionGroup("mine", [error]) if grouped else error

    async def main(stage: Any) -> None:
        with pytest.raises((BodyError, ExceptionGroup)) as caught:
            await stage.serve(handler)
        if grouped:
            assert isinstance(caught.value, ExceptionGroup)
            assert caught.value.exceptions == (error,)
        else:
            assert caught.value is error
        for _ in range(3):
            await stage.near.receive()
        with pytest.raises(TransportClosedError, match="closed with 1011: internal error"):
            await stage.near.receive()

    matrix.once(main)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_client_that_left_is_no_failure_of_the_handler(matrix: Any, grouped: bool) -> None:
    async def speak(session: Any) -> None:
        while True:
            await session.send(SessionUpdated())
            await anyio.sleep(1)

    async def handler(session: Any) -> None:
        await welcome(session)
        if not grouped:
            await speak(session)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak, session)
            tasks.start_soon(speak, session)

    async def main(stage: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.serve, handler)
            async with stage.connect(media=False):
                await anyio.sleep(2.5)

    matrix.once(main)


def test_an_engine_that_cannot_be_made(matrix: Any) -> None:
    def broken(callbacks: Any) -> Any:
        raise DriverError("no engine")

    async def main(stage: Any) -> None:
        with pytest.raises(DriverError, match="no engine"):
            async with stage.connect(engine=broken):
                pytest.fail("it is usable")
        assert stage.near.closed.is_set()

    matrix.once(main)
