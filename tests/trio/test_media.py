"""Real media over loopback: a trio client, and an asyncio client whose engine has its own thread.

The emulator runs on an event loop of its own, in a thread of its own: what a test does to its loop
does not touch the sender.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import trio

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.events import MessageReceived
from navtalk_proto.media import MediaKind
from navtalk_proto.wire.messages import TranscriptDone
from navtalk_trio.testing import emulate

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""


def run(main: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        with trio.fail_after(PATIENCE):
            return await main()

    result = trio.run(bounded)
    assert media_threads() == []
    return result


def media_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "navtalk-media"]


async def watch(session: Any) -> None:
    """Ask something; hear, see and read the answer."""
    await session.send_text("Are you there?")
    async for event in session.events():
        match event:
            case MessageReceived(message=TranscriptDone(content=str(text))):
                assert "Are you there?" in text
                break
    seen = []
    async for frame in session.video:
        seen.append((frame.width, frame.height))
        if len(seen) == 5:
            break
    assert len(set(seen)) == 1
    async for frame in session.audio:
        assert (frame.sample_rate, frame.layout.name) == (48_000, "stereo")
        break


def packets(session: Any) -> int:
    """Packets received so far, of both tracks."""
    return sum(counters.packets for counters in session.track_counters().values())


def test_trio_against_the_emulator() -> None:
    async def main() -> None:
        async with emulate() as human, navtalk_trio.connect(human.endpoint()) as session:
            await watch(session)
            kinds = {counters.kind for counters in session.track_counters().values()}
            assert kinds == {MediaKind.VIDEO, MediaKind.AUDIO}
            # The emulator and the client's engine share it.
            assert len(media_threads()) == 1

    run(main)


def test_sessions_beside_each_other_share_the_thread() -> None:
    async def main() -> None:
        async with emulate() as human:
            here = 0
            all_here = trio.Event()

            async def talk() -> None:
                nonlocal here
                async with navtalk_trio.connect(human.endpoint()) as session:
                    here += 1
                    if here == 3:
                        all_here.set()
                    await all_here.wait()
                    assert len(media_threads()) == 1
                    async for _ in session.video:
                        break

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(talk)

    run(main)


@pytest.mark.replaces("receiving")
def test_a_trio_program_that_blocks_its_loop_goes_on_receiving() -> None:
    async def main() -> None:
        async with emulate() as human, navtalk_trio.connect(human.endpoint()) as session:
            before = packets(session)
            time.sleep(0.5)  # noqa: ASYNC251 - what is tested
            # 50 packets of sound a second arrive, and some of picture: half a second of sound.
            assert packets(session) - before >= 20
            async for _ in session.video:
                break

    run(main)


@pytest.mark.parametrize("target", ["connect", "recording"])
@pytest.mark.replaces("receiving")
def test_a_recording(target: str, tmp_path: Any) -> None:
    async def main() -> None:
        path = tmp_path / "call.mkv"
        async with emulate() as human, navtalk_trio.connect(human.endpoint()) as session:
            with trio.CancelScope() as scope:
                async with session.record(path):
                    await watch(session)
                    if target == "recording":
                        scope.cancel()
                        await trio.sleep_forever()
            assert scope.cancelled_caught is (target == "recording")
        import av

        with av.open(str(path)) as file:
            assert {stream.type for stream in file.streams} == {"video", "audio"}
            assert sum(1 for packet in file.demux() if packet.size) > 10

    run(main)


@pytest.mark.replaces("receiving")
def test_asyncio_with_the_engine_in_a_thread() -> None:
    async def main(endpoint: Any) -> None:
        async with (
            asyncio.timeout(PATIENCE),
            navtalk_asyncio.connect(endpoint, engine="thread") as session,
        ):
            assert len(media_threads()) == 1
            await watch(session)
            before = packets(session)
            time.sleep(0.5)  # noqa: ASYNC251 - what is tested
            assert packets(session) - before >= 20
        assert media_threads() == []

    with emulator_thread() as human:
        asyncio.run(main(human.endpoint()))


def test_trio_against_an_emulator_elsewhere() -> None:
    with emulator_thread() as human:

        async def main() -> None:
            async with navtalk_trio.connect(human.endpoint()) as session:
                await watch(session)

        run(main)
