"""How frames come to their readers, from the loop and from a decoder's thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from navtalk_asyncio.media.frame_buffer import FrameBuffer
from navtalk_asyncio.media.frame_readers import FrameReaders
from navtalk_asyncio.media.sinks import DecodedSink

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def on_thread(readers: FrameReaders, *frames: int) -> None:
    """Push from a thread, and let the loop run what that posted."""

    def push() -> None:
        for frame in frames:
            readers.push(frame, on_loop=False)

    await asyncio.to_thread(push)
    await asyncio.sleep(0)


def sink(into: list[Any], *, any_thread: bool = False) -> DecodedSink:
    def take(frame: Any) -> None:
        into.append((frame, threading.current_thread() is threading.main_thread()))

    loop = asyncio.get_running_loop()
    return DecodedSink(take, lambda: into.append("end"), loop, any_thread=any_thread)


async def test_each_reader_gets_every_frame_on_its_own_thread() -> None:
    readers = FrameReaders(asyncio.get_running_loop())
    on_loop: list[Any] = []
    anywhere: list[Any] = []
    one, two = sink(on_loop), sink(anywhere, any_thread=True)
    readers.add(one)
    readers.add(two)
    await on_thread(readers, 1, 2)
    readers.push(3, on_loop=True)
    assert on_loop == [(1, True), (2, True), (3, True)]
    assert anywhere == [(1, False), (2, False), (3, True)]
    readers.end()
    readers.push(4, on_loop=True)
    assert (on_loop[3:], anywhere[3:]) == (["end"], ["end"])


async def test_one_wake_up_is_on_its_way_at_a_time() -> None:
    class Loop:
        posted = 0

        def call_soon_threadsafe(self, *_: Any) -> None:
            self.posted += 1

    loop: Any = Loop()
    readers = FrameReaders(loop)
    seen: list[Any] = []
    reader = sink(seen)
    readers.add(reader)
    for frame in range(3):
        readers.push(frame, on_loop=False)
    assert (loop.posted, seen) == (1, [])
    readers.give_waiting()
    readers.push(3, on_loop=False)
    assert loop.posted == 2
    # What waits at the end is not lost.
    readers.end()
    assert seen == [(0, True), (1, True), (2, True), (3, True), "end"]


async def test_nothing_is_wanted_by_readers_that_are_gone() -> None:
    readers = FrameReaders(asyncio.get_running_loop())
    assert not readers.wanted
    kept, dropped = FrameBuffer[int](limit=2), FrameBuffer[int](limit=2)
    readers.add(kept)
    readers.add(dropped)
    await kept.aclose()
    assert readers.wanted
    del dropped
    gc.collect()
    assert not readers.wanted
    await on_thread(readers, 1)
    assert len(kept) == 0


async def test_a_loop_that_is_gone_harms_no_decoder() -> None:
    loop = asyncio.new_event_loop()
    readers = FrameReaders(loop)
    reader = FrameBuffer[int](limit=2)
    readers.add(reader)
    loop.close()
    await on_thread(readers, 1, 2)
    assert len(reader) == 0


async def test_a_sink_that_raises_is_removed_and_reported() -> None:
    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: reports.append(context))

    def take(_frame: Any) -> None:
        raise KeyError("mine")

    readers = FrameReaders(loop)
    bad = DecodedSink(take, lambda: None, loop, any_thread=True)
    readers.add(bad)
    await on_thread(readers, 1, 2)
    assert not readers.wanted
    [report] = reports
    assert isinstance(report["exception"], KeyError)


async def test_decoding_waits_for_a_full_reader_while_it_is_there() -> None:
    readers = FrameReaders(asyncio.get_running_loop())
    full = True
    loop = asyncio.get_running_loop()
    latest = FrameBuffer[int](limit=1)
    sink = DecodedSink(lambda _: None, lambda: None, loop, any_thread=True, full=lambda: full)
    readers.add(latest)
    latest.push(1)
    assert not readers.full
    readers.add(sink)
    assert readers.full
    full = False
    assert not readers.full
    full = True
    sink.remove()
    assert not readers.full
