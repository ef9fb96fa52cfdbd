from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from navtalk_asyncio.media.frame_buffer import FrameBuffer

pytestmark = pytest.mark.anyio


async def test_the_newest_are_kept_and_the_dropped_are_counted() -> None:
    drops: list[None] = []
    buffer: FrameBuffer[int] = FrameBuffer(limit=2, on_drop=lambda: drops.append(None))
    for frame in range(5):
        buffer.push(frame)
    assert len(buffer) == 2
    assert (buffer.dropped, len(drops)) == (3, 3)
    assert [await anext(buffer), await anext(buffer)] == [3, 4]


async def test_frames_that_come_at_once_wait_a_moment_for_a_reader_that_is_awake() -> None:
    """A repaired loss lets go of all that waited behind it, before the reader has its turn."""
    clock = SimpleNamespace(now=100.0)
    buffer: FrameBuffer[int] = FrameBuffer(limit=2, burst=8, now=lambda: clock.now)
    for number in range(5):
        buffer.push(number)
        clock.now += 0.003
    assert [await anext(buffer) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert buffer.dropped == 0
    for number in range(9):
        buffer.push(number)
    assert (len(buffer), buffer.dropped) == (8, 1)
    # It did not take them with the next picture: it is slow, and gets the newest two as ever.
    clock.now += 1 / 30
    buffer.push(9)
    assert (len(buffer), buffer.dropped) == (2, 8)
    clock.now += 1 / 30
    buffer.push(10)
    assert [await anext(buffer) for _ in range(2)] == [9, 10]


async def test_a_buffer_by_cost() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=400, cost=lambda frame: frame)
    for frame in (200, 150, 50, 60):
        buffer.push(frame)
    assert buffer.dropped == 1
    assert await anext(buffer) == 150
    buffer.push(290)
    assert buffer.dropped == 1
    buffer.push(1)
    assert buffer.dropped == 2
    assert [await anext(buffer) for _ in range(3)] == [60, 290, 1]


async def test_the_newest_frame_is_kept_whatever_it_costs() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=10, cost=lambda frame: frame)
    buffer.push(5)
    buffer.push(1000)
    assert buffer.dropped == 1
    assert await anext(buffer) == 1000
    buffer.push(10)
    assert buffer.dropped == 1


async def test_a_waiting_reader_is_woken() -> None:
    buffer: FrameBuffer[str] = FrameBuffer(limit=1)
    reading = asyncio.ensure_future(anext(buffer))
    await asyncio.sleep(0)
    assert not reading.done()
    buffer.push("frame")
    assert await reading == "frame"


async def test_close_lets_what_is_held_be_read() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=3)
    buffer.push(1)
    buffer.push(2)
    buffer.close()
    buffer.push(3)
    assert buffer.closed
    assert [frame async for frame in buffer] == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(buffer)


async def test_close_wakes_every_waiting_reader() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=3)

    async def read() -> list[int]:
        return [frame async for frame in buffer]

    readers = [asyncio.ensure_future(read()) for _ in range(2)]
    await asyncio.sleep(0)
    buffer.push(7)
    buffer.close()
    assert sorted(await asyncio.gather(*readers)) == [[], [7]]


async def test_aclose_throws_away_what_is_held() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=3)
    buffer.push(1)
    await buffer.aclose()
    assert [frame async for frame in buffer] == []
    assert buffer.dropped == 0


async def test_a_cancelled_read_takes_no_frame() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(limit=3)
    reading = asyncio.ensure_future(anext(buffer))
    await asyncio.sleep(0)
    buffer.push(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await anext(buffer) == 1


async def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        FrameBuffer[int](limit=0)
