"""Cancel at every suspension point, on both loops: nothing is left, and the far end saw an end.

In memory, on virtual time. Each scenario is played again and again, and the n-th play is cancelled
at its n-th suspension point, until a play has fewer points. The scenarios know no loop. A trio
scope stays cancelled, an asyncio task is cancelled once: both as their users do it.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import anyio
import pytest

from navtalk_proto import GpuFullError
from navtalk_proto.events import MessageReceived
from navtalk_proto.media import Direction, MediaKind, MediaLine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    GpuFull,
    Offer,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    UserMessage,
)

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)
CAMERA = MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY)
MICROPHONE = MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY)
SUCCESS = ConnectedSuccess(session_id="s-1")
READY = (SUCCESS, SessionCreated(), SessionUpdated())


def usable(stage: Any) -> tuple[Any, ...]:
    return (SUCCESS, stage.peer.offer(), SessionCreated(), SessionUpdated())


# ---- connect() and its body


async def connect_and_idle(stage: Any) -> None:
    await stage.peer.say(*READY)
    async with stage.connect(media=False):
        await anyio.sleep(1)


async def connect_with_media(stage: Any) -> None:
    await stage.peer.say(*usable(stage))
    async with stage.connect():
        await anyio.sleep(1)


async def connect_slowly(stage: Any) -> None:
    """Every message of the set-up comes a second after the one before; so does the handshake."""

    async def serve() -> None:
        for message in usable(stage):
            await anyio.sleep(1)
            await stage.peer.say(message)

    async def opening(stage: Any, endpoint: Any) -> Any:
        try:
            await anyio.sleep(1)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stage.near.aclose()  # An opener that is cancelled leaves nothing behind.
            raise
        return stage.near

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unless_closed, serve)
        async with stage.connect(transport=opening):
            await anyio.sleep(1)


async def unless_closed(play: Any) -> None:
    """What the far end does while the near one may end at any moment."""
    try:
        await play()
    except TransportClosedError:
        pass
    except AssertionError as error:
        # What hear() makes of an end.
        if not str(error).startswith(("closed with", "connection lost")):
            raise


async def connect_to_a_mute_server(stage: Any) -> None:
    """The close handshake is not answered: leaving waits, and may be cancelled meanwhile."""
    await stage.peer.say(*usable(stage))
    async with stage.connect():
        stage.mute()


async def be_refused(stage: Any) -> None:
    await stage.peer.say(SUCCESS, GpuFull(message="none is free"))
    with pytest.raises(GpuFullError):
        async with stage.connect():
            pytest.fail("it is usable")


async def wait_for_nothing(stage: Any) -> None:
    """The deadline, and its exception on the way out."""
    with pytest.raises(TimeoutError):
        async with stage.connect(timeout=3.0):
            pytest.fail("it is usable")


# ---- the methods of a session


async def send_text(stage: Any) -> None:
    await stage.peer.say(*READY)
    async with stage.connect(media=False) as session:
        await session.send_text("hello")
        await stage.peer.hear(UserMessage)
        await stage.peer.hear(ResponseCreate)


async def send_audio_against_back_pressure(stage: Any) -> None:
    await stage.peer.say(*READY)

    async def later() -> None:
        await anyio.sleep(1)
        stage.near.stalled = False

    async with anyio.create_task_group() as tasks, stage.connect(media=False) as session:
        stage.near.stalled = True
        tasks.start_soon(later)
        for _ in range(8):
            await session.send_audio(bytes(48_000))


async def read_events(stage: Any) -> None:
    await stage.peer.say(*READY)

    async def later() -> None:
        await anyio.sleep(1)
        stage.near.lose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        async with stage.connect(media=False) as session:
            async for _ in session.events():
                pass


async def negotiate(stage: Any) -> None:
    await stage.peer.say(*usable(stage))

    async def answer() -> None:
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.peer.say(stage.peer.answer(await stage.peer.hear(Offer)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unless_closed, answer)
        async with stage.connect() as session:
            await session.negotiate(VIDEO, AUDIO)


async def close(stage: Any) -> None:
    await stage.peer.say(*usable(stage))
    async with stage.connect() as session:
        await session.close(1000, "enough")


async def watch(stage: Any) -> None:
    await stage.peer.say(*usable(stage))

    async def later() -> None:
        await anyio.sleep(1)
        stage.near.lose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        async with stage.connect() as session:
            async for _ in session.video:
                pytest.fail("this engine has no frames")
            async for _ in session.audio:
                pytest.fail("this engine has no frames")


async def do_several_things(stage: Any) -> None:
    """Reading, speaking and negotiating in tasks of the body, as an application does."""
    await stage.peer.say(*usable(stage))

    async def far() -> None:
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.peer.hear(UserMessage)
        await stage.peer.say(stage.peer.answer(await stage.peer.hear(Offer)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unless_closed, far)
        async with stage.connect() as session, anyio.create_task_group() as body:

            async def read() -> None:
                async for event in session.events():
                    if type(event).__name__ == "Negotiated" and event.offered_by_us:
                        break

            body.start_soon(read)
            await session.send_text("hello", respond=False)
            await session.negotiate(VIDEO, AUDIO)


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        # connect: until usable; the body's one; leaving: until closed, then until all has ended.
        (connect_and_idle, 4),
        (connect_with_media, 4),
        (connect_slowly, 5),
        (connect_to_a_mute_server, 3),
        (be_refused, 3),
        (wait_for_nothing, 3),
        (send_text, 3),
        (send_audio_against_back_pressure, 4),
        (read_events, 3),
        (negotiate, 4),
        (close, 3),
        (watch, 2),
        (do_several_things, 4),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_client(matrix: Any, scenario: Any, at_least: int) -> None:
    points = matrix(scenario)
    assert points >= at_least, f"{scenario.__name__} has {points} suspension points"


@pytest.mark.parametrize(
    "scenario", [connect_and_idle, connect_with_media, connect_slowly, negotiate]
)
def test_a_cancelled_client_says_goodbye(matrix: Any, scenario: Any) -> None:
    """Not a cut, wherever it is cancelled. None: nothing had been opened yet."""
    matrix(scenario)
    ends = set(matrix.ends)
    # Cancelled while it is closing an asyncio client drops the connection: it was asked twice.
    hurried = {(None, "")} if matrix.loop.name == "asyncio" else set()
    assert (1000, "") in ends
    assert ends <= {None, (1000, "")} | hurried


def test_say_file(matrix: Any, tmp_path: Path) -> None:
    """On the real clock: the file is decoded in threads."""
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(2 * 2400))  # 0.1 s: two pieces

    async def say_file(stage: Any) -> None:
        await stage.peer.say(*READY)
        async with stage.connect(media=False) as session:
            assert await session.say_file(path, trailing_silence=0.064) == 0.1

    # One for connecting, two for leaving; three pieces in the thread, three paces.
    assert matrix(say_file, real=True) >= 9


# ---- serve_session()


async def welcome(session: Any) -> None:
    for message in READY:
        await session.send(message)


async def serve_a_visitor(stage: Any) -> None:
    """The server role is what is cancelled; the visitor is played by hand at the near end."""

    async def handler(session: Any) -> None:
        await welcome(session)
        async for event in session.events():
            if isinstance(event, MessageReceived):
                await session.send(SessionUpdated())

    async def visit() -> None:
        for _ in range(3):
            await stage.near.receive()
        await stage.near.send_text('{"type": "response.create"}')
        await stage.near.receive()
        await anyio.sleep(1)
        await stage.near.close(1000, "")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unless_closed, visit)
        await stage.serve(handler)


async def serve_with_media(stage: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        await session.negotiate(CAMERA, MICROPHONE)

    async def visit() -> None:
        with anyio.CancelScope(shield=True):  # Only the server is cancelled: it says goodbye.
            try:
                async with stage.connect() as client:
                    async for _ in client.events():
                        pass
            except ConnectionError:
                pass
            except Exception as error:
                if type(error).__name__ != "ConnectFailedError":
                    raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await stage.serve(handler, media=True)


async def serve_and_return(stage: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)

    await stage.serve(handler)


async def serve_and_fail(stage: Any) -> None:
    class HandlerError(Exception):
        pass

    async def handler(session: Any) -> None:
        await welcome(session)
        raise HandlerError

    with pytest.raises(HandlerError):
        await stage.serve(handler)


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
def test_server(matrix: Any, scenario: Any, at_least: int) -> None:
    points = matrix(scenario)
    assert points >= at_least, f"{scenario.__name__} has {points} suspension points"
