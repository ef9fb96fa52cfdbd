"""Cancel at every suspension point: nothing is left, and the far end saw an end.

Each scenario is a coroutine of the kit's session, run again and again; the n-th run is cancelled at
its n-th suspension point, until a run has fewer points. The scenarios know nothing of the loop.
"""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

import pytest

from navtalk_proto import ConnectError, GpuFullError
from navtalk_proto.events import Closed, MessageReceived
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated

VIDEO = MediaLine(kind=MediaKind.VIDEO)

Scenario = Callable[[Any, Any], Coroutine[Any, Any, None]]


def cancel_everywhere(kit: Any, scenario: Scenario, *, real: bool = False, times: int = 1) -> int:
    """Cancel `scenario(kit, far)` at each of its suspension points; how many there were."""
    for point in count(1):
        hit = kit.run(cancel_at(kit, scenario, point, times), real=real)
        if not hit:
            return point - 1
    raise AssertionError


async def cancel_at(kit: Any, scenario: Scenario, point: int, times: int) -> bool:
    """Whether the point was reached. If so the scenario ends cancelled, and says so to nobody."""
    far = kit.far()
    work = kit.cancelled(scenario(kit, far), point, times)

    async def run() -> None:
        await work

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert task.cancelled() is work.hit
    if not task.cancelled():
        task.result()
    assert far.near.closed.is_set()
    assert (await far.end())[0] in (1000, 1001, None)
    return bool(work.hit)


async def reap(task: asyncio.Task[Any], *, cancel: bool = True) -> None:
    """Wait for a task of the scenario itself, also when that wait is what is cancelled."""
    if cancel:
        task.cancel()
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    finally:
        if not task.cancelled():
            failure = task.exception()
            assert failure is None or isinstance(failure, ConnectError | TransportClosedError)


# ---- connect() and its body


async def connect_and_idle(kit: Any, far: Any) -> None:
    await far.script(*kit.ready)
    async with kit.connect(far, media=False):
        await asyncio.sleep(1)


async def connect_with_media(kit: Any, far: Any) -> None:
    await far.script(*kit.usable)
    async with kit.connect(far):
        await asyncio.sleep(1)


async def connect_slowly(kit: Any, far: Any) -> None:
    """Every message of the set-up comes a second after the one before; so does the handshake."""

    async def serve() -> None:
        for message in kit.usable:
            await asyncio.sleep(1)
            await far.script(message)

    async def opened(endpoint: Any) -> Any:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await far.near.aclose()  # An opener that is cancelled leaves nothing behind.
            raise
        return far.near

    serving = asyncio.create_task(serve())
    try:
        async with kit.connect(far, transport=opened):
            await asyncio.sleep(1)
    finally:
        await reap(serving)


async def connect_to_a_mute_server(kit: Any, far: Any) -> None:
    """The close handshake is not answered: leaving waits, and may be cancelled meanwhile."""

    async def close(code: int, reason: str) -> None:
        await asyncio.Event().wait()

    await far.script(*kit.usable)
    async with kit.connect(far):
        far.near.close = close


async def be_refused(kit: Any, far: Any) -> None:
    await far.script(kit.welcome)
    await far.say("conversation.connected.gpu_full", message="none is free")
    with pytest.raises(GpuFullError):
        async with kit.connect(far):
            pytest.fail("it is usable")


# ---- the methods of a session


async def send_text(kit: Any, far: Any) -> None:
    await far.script(*kit.ready)
    async with kit.connect(far, media=False) as session:
        await session.send_text("hello")
        await far.hear_type("response.create")


async def send_audio_against_back_pressure(kit: Any, far: Any) -> None:
    await far.script(*kit.ready)
    async with kit.connect(far, media=False) as session:
        far.near.stalled = True
        asyncio.get_running_loop().call_later(1, setattr, far.near, "stalled", False)
        for _ in range(8):
            await session.send_audio(bytes(48_000))


async def read_events(kit: Any, far: Any) -> None:
    await far.script(*kit.ready)
    async with kit.connect(far, media=False) as session:
        asyncio.get_running_loop().call_later(1, far.near.lose)
        async for _ in session.events():
            pass


async def negotiate(kit: Any, far: Any) -> None:
    await far.script(*kit.usable)

    async def answer() -> None:
        await far.hear_type("webrtc.signaling.offer")
        sdp = kit.offer.replace("a=setup:actpass", "a=setup:active")
        await far.say("webrtc.signaling.answer", {"sdp": {"type": "answer", "sdp": sdp}})

    async with kit.connect(far) as session:
        answering = asyncio.create_task(answer())
        try:
            await session.negotiate(VIDEO)
        finally:
            await reap(answering)


async def close(kit: Any, far: Any) -> None:
    await far.script(*kit.usable)
    async with kit.connect(far) as session:
        await session.close(1000, "enough")


async def watch(kit: Any, far: Any) -> None:
    await far.script(*kit.usable)
    async with kit.connect(far) as session:
        asyncio.get_running_loop().call_later(1, far.near.lose)
        async for _ in session.video:
            pytest.fail("this engine has no frames")
        # The engine ends with the session; the other track ended too.
        async for _ in session.audio:
            pytest.fail("this engine has no frames")


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        # connect: until usable; the body's one; leaving: until closed, then the task group.
        (connect_and_idle, 4),
        (connect_with_media, 4),
        # And one for the slow handshake, one for waiting for the server's task.
        (connect_slowly, 6),
        (connect_to_a_mute_server, 3),
        (be_refused, 3),
        (send_text, 4),
        (send_audio_against_back_pressure, 4),
        (read_events, 3),  # Nothing waits for the close: it happened.
        (negotiate, 5),
        (close, 3),
        (watch, 2),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_client(kit: Any, scenario: Scenario, at_least: int) -> None:
    points = cancel_everywhere(kit, scenario)
    assert points >= at_least, f"{scenario.__name__} has {points} suspension points"


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize(
    "scenario", [connect_and_idle, connect_with_media, connect_to_a_mute_server, be_refused, close]
)
def test_an_impatient_client(kit: Any, scenario: Scenario, times: int) -> None:
    """Cancelled again while it is leaving: that is quicker, and leaves as little behind."""
    assert cancel_everywhere(kit, scenario, times=times) >= 3


def test_say_file(kit: Any, tmp_path: Any) -> None:
    """On the real clock: the file is decoded in threads."""
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(2 * 2400))  # 0.1 s: two pieces

    async def say_file(kit: Any, far: Any) -> None:
        await far.script(*kit.ready)
        async with kit.connect(far, media=False) as session:
            await session.say_file(path, trailing_silence=0.064)

    points = cancel_everywhere(kit, say_file, real=True)
    # One for connecting, two for leaving; three pieces in the thread, its close, three paces.
    assert points >= 9


# ---- serve_session()


async def welcome(session: Any) -> None:
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)


async def serve_a_visitor(kit: Any, far: Any) -> None:
    """The server role is what is cancelled; the client is played by hand at the near end."""

    async def handler(session: Any) -> None:
        await welcome(session)
        async for event in session.events():
            if isinstance(event, MessageReceived):
                await session.send(SessionUpdated())

    async def visit() -> None:
        for _ in range(3):
            await far.near.receive()
        await far.near.send_text('{"type": "response.create"}')
        await far.near.receive()
        await asyncio.sleep(1)
        await far.near.close(1000, "")

    visiting = asyncio.create_task(visit())
    try:
        await kit.serve(handler, far)
    finally:
        await reap(visiting)
        await far.near.aclose()


async def serve_with_media(kit: Any, far: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        await session.negotiate(VIDEO)

    async def visit() -> None:
        async with kit.connect(far) as client:
            async for _ in client.events():
                pass

    visiting = asyncio.create_task(visit())
    try:
        await kit.serve(handler, far, media=True)
    finally:
        await reap(visiting, cancel=False)


async def serve_and_return(kit: Any, far: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)

    await kit.serve(handler, far)
    await far.near.aclose()


async def serve_and_fail(kit: Any, far: Any) -> None:
    class HandlerError(Exception):
        pass

    async def handler(session: Any) -> None:
        await welcome(session)
        raise HandlerError

    with pytest.raises(HandlerError):
        await kit.serve(handler, far)
    await far.near.aclose()


async def cancel_server_at(kit: Any, scenario: Scenario, point: int) -> bool:
    far = kit.far()
    work = kit.cancelled(scenario(kit, far), point)

    async def run() -> None:
        try:
            await work
        finally:
            await far.near.aclose()

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert task.cancelled() is work.hit
    if not task.cancelled():
        task.result()
    assert far.transport.closed.is_set()
    while not isinstance(await next_of(far.near), Exception):
        pass
    return bool(work.hit)


async def next_of(transport: Any) -> Any:
    try:
        return await transport.receive()
    except Exception as closed:  # noqa: BLE001 - told to the caller
        return closed


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        # The handler waits for a message and for the end; then the task group.
        (serve_a_visitor, 3),
        (serve_with_media, 3),
        (serve_and_return, 2),
        (serve_and_fail, 2),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_server(kit: Any, scenario: Scenario, at_least: int) -> None:
    for point in count(1):
        if not kit.run(cancel_server_at(kit, scenario, point)):
            break
    assert point - 1 >= at_least, f"{scenario.__name__} has {point - 1} suspension points"


# ---- what cancelling does not displace, and what does not displace it


def test_a_body_that_turns_a_cancellation_into_something_else(kit: Any) -> None:
    class ShutdownError(Exception):
        pass

    async def main() -> None:
        error = ShutdownError()

        async def use() -> None:
            async with kit.session():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise error from None

        task = asyncio.create_task(use())
        await kit.settle()
        task.cancel()
        with pytest.raises(ShutdownError) as caught:
            await task
        assert caught.value is error

    kit.run(main())


def test_a_timeout_while_leaving_because_of_an_exception(kit: Any) -> None:
    async def main() -> None:
        error = KeyError("body")

        async def use() -> None:
            async with asyncio.timeout(1), kit.session() as (_, far):
                far.near.close = never
                raise error

        async def never(code: int, reason: str) -> None:
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError) as caught:
            await use()
        chain: list[BaseException | None] = [caught.value]
        while chain[-1] is not None:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        assert error in chain
        await asyncio.sleep(1)  # No cancellation is left over.

    assert kit.run(kit.elapsed(main()))[0] == 2.0


def test_a_failing_driver_does_not_displace_a_cancellation(kit: Any) -> None:
    async def main() -> None:
        def observe(event: Any) -> None:
            if isinstance(event, Closed):
                raise KeyError("observer")

        async def use() -> None:
            async with kit.session(observe=observe):
                await asyncio.Event().wait()

        task = asyncio.create_task(use())
        await kit.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__cause__, KeyError)

    kit.run(main())
