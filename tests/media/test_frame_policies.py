"""What happens when a reader of decoded frames is slower than the media: on both loops, and with
the engine in a thread. The emulator is on a loop of its own, in a thread of its own."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest

from navtalk_asyncio.media.frame_feed import FrameCounters, FramePolicy, FrameStore
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.errors import BufferOverrunError
from navtalk_proto.media import MediaKind

PATIENCE = 60.0
LOOPS = [("asyncio", {}), ("asyncio", {"engine": "thread"}), ("trio", {})]


def store(policy: FramePolicy, size: int) -> tuple[FrameStore, FrameCounters]:
    counters = FrameCounters()
    return FrameStore("reader of video", size, policy, counters), counters


def put(into: FrameStore, *frames: str) -> None:
    for frame in frames:
        into.put(frame)


def test_latest_gives_up_the_oldest() -> None:
    held, counters = store("latest", 2)
    put(held, "a", "b", "c")
    assert not held.full
    assert [held.take(), held.take(), held.take()] == ["b", "c", None]
    assert counters == FrameCounters(taken=2, dropped=1)


def test_raise_tells_how_many_were_lost_and_goes_on_with_the_newest() -> None:
    held, counters = store("raise", 2)
    put(held, "a", "b")
    assert held.take() == "a"
    put(held, "c", "d", "e")
    assert not held.full
    with pytest.raises(BufferOverrunError, match="reader of video: full at 2 frames, 3") as told:
        held.take()
    assert (told.value.buffer, told.value.size, told.value.lost) == ("reader of video", 2, 3)
    assert told.value.retryable
    assert [held.take(), held.take()] == ["e", None]
    # As a buffer that has never been full.
    put(held, "f", "g")
    assert [held.take(), held.take()] == ["f", "g"]
    assert counters == FrameCounters(taken=4, dropped=3)


def test_block_is_full_until_something_is_taken() -> None:
    held, counters = store("block", 2)
    put(held, "a")
    assert not held.full
    put(held, "b")
    assert held.full
    assert held.take() == "a"
    assert held.made_room
    assert not held.full
    assert held.take() == "b"
    assert not held.made_room
    assert counters == FrameCounters(taken=2)


def test_what_is_thrown_away_is_told_of_no_more() -> None:
    for policy in ("block", "raise"):
        held, counters = store(policy, 1)
        put(held, "a", "b")
        held.clear()
        assert held.take() is None
        assert not held.full
        assert (counters.taken, counters.dropped) == (0, 2)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Callable[[], Any]]:
    with emulator_thread() as human:
        yield human.endpoint


@pytest.fixture(params=LOOPS, ids=["asyncio", "asyncio-thread", "trio"])
def on_loop(request: pytest.FixtureRequest, endpoint: Callable[[], Any]) -> Any:
    """Runs a coroutine function with what opens a session."""
    loop, options = request.param
    adapter = importlib.import_module(f"navtalk_{loop}")

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        async with adapter.connect(endpoint(), **options) as session:
            yield session

    def run(main: Callable[[Any], Any]) -> None:
        async def bounded() -> None:
            with anyio.fail_after(PATIENCE):
                await main(connect)

        anyio.run(bounded, backend=loop)

    return run


async def come(packets: AsyncIterator[Any], kind: MediaKind, count: int) -> list[int]:
    """Wait for the next packets of a kind: their timestamps."""
    timestamps: list[int] = []
    async for packet in packets:
        if packet.kind is kind:
            timestamps.append(packet.timestamp)
            if len(timestamps) == count:
                break
    return timestamps


async def a_frame(frames: AsyncIterator[Any]) -> Any:
    """Read on until there is one: under load it is one thing to be told and another to be back."""
    while True:
        with suppress(BufferOverrunError):
            return await anext(frames)


def steps(times: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.replaces("receiving")
def test_a_blocking_reader_that_stops_for_a_while_misses_nothing(on_loop: Any) -> None:
    async def main(connect: Any) -> None:
        async with connect() as session:
            for kind in MediaKind:
                packets = session.packets()
                seen = await come(packets, kind, 1)
                frames = session.frames(kind, policy="block", size=1)
                got = [(await anext(frames)).pts]
                seen += await come(packets, kind, 5)
                # More than a reader keeps that takes the newest.
                got += [(await anext(frames)).pts for _ in range(4)]
                while seen[-1] - seen[0] < got[-1] - got[0]:
                    seen += await come(packets, kind, 1)
                sent, taken = steps(seen), steps(got)
                assert any(sent[at : at + len(taken)] == taken for at in range(len(sent)))
                assert frames.counters == FrameCounters(taken=5)
                await frames.aclose()
                with pytest.raises(StopAsyncIteration):
                    await anext(frames)
                # The decoder waits no more.
                assert await anext(session.frames(kind))

    on_loop(main)


@pytest.mark.replaces("receiving")
@pytest.mark.parametrize("cancelled", [False, True], ids=["closed", "cancelled"])
def test_a_session_ends_while_its_decoders_wait(on_loop: Any, cancelled: bool) -> None:
    async def main(connect: Any) -> None:
        with anyio.CancelScope() as scope:
            async with connect() as session:
                readers = [session.frames(kind, policy="block", size=1) for kind in MediaKind]
                for frames in readers:
                    await anext(frames)
                packets = session.packets()
                for kind in MediaKind:
                    await come(packets, kind, 2)
                if cancelled:
                    scope.cancel()
                    await anyio.sleep_forever()
        assert scope.cancelled_caught is cancelled
        for frames in readers:
            # What was decoded before the end, for which there was room.
            assert len([frame async for frame in frames]) <= 1

    on_loop(main)


@pytest.mark.replaces("receiving")
def test_a_reader_that_wants_to_know_is_told_and_goes_on(on_loop: Any) -> None:
    async def main(connect: Any) -> None:
        async with connect() as session:
            with pytest.raises(ValueError, match="latest, block, raise"):
                session.frames(MediaKind.VIDEO, policy="oldest")
            with pytest.raises(ValueError, match="positive"):
                session.frames(MediaKind.VIDEO, size=0)
            frames = session.frames(MediaKind.AUDIO, policy="raise", size=1)
            assert (frames.name, frames.size) == ("reader of audio", 1)
            assert session.frames(MediaKind.AUDIO).size == 20
            first = await a_frame(frames)
            packets = session.packets()
            # The third is told of when the second has been decoded.
            await come(packets, MediaKind.AUDIO, 3)
            with pytest.raises(BufferOverrunError, match="reader of audio: full at 1 frames"):
                await anext(frames)
            assert (await a_frame(frames)).pts > first.pts
            assert frames.counters.dropped > 0

    on_loop(main)
