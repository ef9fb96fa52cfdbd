"""Frames from the media thread: pushed, bounded on the way, and counted where they give way."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from navtalk_asyncio.media import engine_thread
from navtalk_asyncio.media.engine_thread import EngineThread, PushedFrames, ThreadedEngine
from navtalk_asyncio.media.frame_buffer import BURST_FRAMES, FrameBuffer
from navtalk_asyncio.media.interface import EngineCallbacks, TrackCounters
from navtalk_proto.actions import MediaCommand
from navtalk_proto.media import Capabilities, MediaKind
from navtalk_proto.stats import MediaStats

PATIENCE = 20.0


class Sound:
    """20 ms of 48 kHz audio, as far as a buffer looks at it."""

    samples = 960
    sample_rate = 48_000

    def __init__(self, number: int) -> None:
        self.number = number


class FedEngine:
    """An engine whose frames are given by the test; lives on the media loop."""

    capabilities = Capabilities()

    def __init__(self, callbacks: EngineCallbacks) -> None:
        self.readers: list[FrameBuffer[Any]] = []

    def execute(self, command: MediaCommand) -> None:
        raise AssertionError("no command is given")

    def frames(self, kind: MediaKind) -> FrameBuffer[Any]:
        self.readers.append(FrameBuffer(limit=10_000, cost=lambda _: 1))
        return self.readers[-1]

    def counters(self) -> Mapping[str, TrackCounters]:
        return {
            "first": TrackCounters(kind=MediaKind.VIDEO, frames_dropped=3),
            "second": TrackCounters(kind=MediaKind.VIDEO),
            "voice": TrackCounters(kind=MediaKind.AUDIO),
        }

    def stats(self) -> MediaStats:
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        pass

    async def aclose(self) -> None:
        for reader in self.readers:
            reader.close()


class User:
    """A user's side whose loop runs what is posted only when the test says so."""

    def __init__(self, thread: EngineThread, make: type[FedEngine] = FedEngine) -> None:
        self.thread = thread
        self.posted: list[Callable[[], None]] = []
        callbacks = EngineCallbacks(
            done=lambda *_: None, failed=lambda *_: None, event=lambda _: None
        )
        self.threaded = ThreadedEngine(thread, make, callbacks, self.posted.append)
        engine = self.threaded.engine
        assert isinstance(engine, FedEngine)
        self.engine = engine

    def close(self) -> None:
        closing = self.thread.call(self.threaded.close_on_media_loop, lambda _: None, lambda: None)
        closing.result(PATIENCE)

    def run_posted(self) -> int:
        posted = self.posted[:]
        del self.posted[: len(posted)]
        for callback in posted:
            callback()
        return len(posted)

    async def on_media_loop(self, work: Callable[[], object]) -> None:
        """Run something there, and then whatever it woke."""

        async def run() -> None:
            work()
            # A pump's wake-up, its run and its end are one turn of the loop each.
            for _ in range(4):
                await asyncio.sleep(0)

        call = self.thread.call(run, lambda _: None, lambda: None)
        await asyncio.wrap_future(call)

    async def give(self, *frames: object) -> None:
        def push() -> None:
            for frame in frames:
                self.engine.readers[-1].push(frame)

        await self.on_media_loop(push)

    async def reading(self, frames: PushedFrames) -> asyncio.Task[Any]:
        """A task that reads one frame, after its subscription has reached the engine."""
        task = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0)
        await self.on_media_loop(lambda: None)
        return task


@pytest.fixture
def thread() -> Iterator[EngineThread]:
    thread = EngineThread.acquire()
    yield thread
    thread.release()


@pytest.fixture
def user(thread: EngineThread) -> Iterator[User]:
    user = User(thread)
    yield user
    user.close()


def run(work: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await work

    asyncio.run(bounded())


def test_a_user_that_does_not_run_holds_two_pictures_and_one_wake_up(user: User) -> None:
    async def scene() -> None:
        pictures = itertools.count(0.0, 1 / 30)
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event, now=pictures.__next__)
        first = await user.reading(frames)
        await user.give(*range(1000))
        assert len(user.posted) == 1
        assert frames.dropped == 998
        assert not first.done()
        assert user.run_posted() == 1
        assert await first == 998
        assert await anext(frames) == 999
        counters = user.threaded.counters()
        assert counters["first"].frames_dropped == 3 + 998
        assert counters["second"].frames_dropped == 0
        assert counters["voice"].frames_dropped == 0

    run(scene())


def test_pictures_that_come_at_once_wait_for_the_readers_turn(user: User) -> None:
    """Behind a packet that was lost and sent again: a reader that is awake misses none of them."""

    async def scene() -> None:
        now = 100.0
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event, now=lambda: now)
        first = await user.reading(frames)
        await user.give(*range(5))
        assert user.run_posted() == 1
        assert [await first] + [await anext(frames) for _ in range(4)] == list(range(5))
        assert frames.dropped == 0
        await user.give(*range(BURST_FRAMES + 1))
        assert frames.dropped == 1
        now += 1 / 30
        await user.give("the next")
        assert [await anext(frames) for _ in range(2)] == [BURST_FRAMES, "the next"]
        assert frames.dropped == BURST_FRAMES

    run(scene())


def test_sound_is_held_for_four_tenths_of_a_second(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.AUDIO, asyncio.Event)
        first = await user.reading(frames)
        await user.give(*map(Sound, range(100)))
        assert frames.dropped == 80
        user.run_posted()
        heard = [(await first).number] + [(await anext(frames)).number for _ in range(19)]
        assert heard == list(range(80, 100))
        assert user.threaded.counters()["voice"].frames_dropped == 80

    run(scene())


def test_each_wake_up_that_has_run_makes_room_for_another(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        for number in range(5):
            reading = await user.reading(frames)
            await user.give(number)
            assert user.run_posted() == 1
            assert await reading == number
        assert frames.dropped == 0

    run(scene())


def test_a_cancelled_read_takes_no_frame(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        reading = await user.reading(frames)
        await user.give("one")
        user.run_posted()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await anext(frames) == "one"

    run(scene())


def test_what_is_held_is_read_after_the_media_ended(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        reading = await user.reading(frames)
        await user.give("one", "two")
        await user.on_media_loop(user.engine.readers[-1].close)
        user.run_posted()
        assert await reading == "one"
        assert [frame async for frame in frames] == ["two"]

    run(scene())


def test_closing_ends_a_read_and_the_subscription(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        reading = await user.reading(frames)
        await user.give("one")
        await frames.aclose()
        with pytest.raises(StopAsyncIteration):
            await reading
        await user.on_media_loop(lambda: None)
        assert not user.threaded._pumps
        never_read = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        await never_read.aclose()
        assert [frame async for frame in never_read] == []
        await user.on_media_loop(lambda: None)
        assert len(user.engine.readers) == 1

    run(scene())


def test_a_dropped_iterator_ends_its_subscription(user: User) -> None:
    async def scene() -> None:
        frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
        reading = await user.reading(frames)
        await user.give("one")
        user.run_posted()
        assert await reading == "one"
        assert len(user.threaded._pumps) == 1
        del frames, reading
        gc.collect()
        await user.on_media_loop(lambda: None)
        assert not user.threaded._pumps

    run(scene())


class DirectEngine(FedEngine):
    """An engine that notes who gets frames where they are decoded."""

    def __init__(self, callbacks: EngineCallbacks) -> None:
        super().__init__(callbacks)
        self.sinks: list[MediaKind] = []

    def add_direct_sink(
        self, kind: MediaKind, sink: Callable[[Any], None], on_end: Callable[[], None]
    ) -> Callable[[], None]:
        self.sinks.append(kind)
        return lambda: None


def test_a_reader_has_begun_when_the_media_loop_is_free(
    thread: EngineThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_thread, "BEGIN_SECONDS", PATIENCE)
    user = User(thread, DirectEngine)
    assert isinstance(user.engine, DirectEngine)
    frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
    user.threaded.subscribe(frames._frames)
    assert user.engine.sinks == [MediaKind.VIDEO]
    user.close()


def test_a_media_loop_that_is_busy_is_not_waited_for(thread: EngineThread) -> None:
    user = User(thread, DirectEngine)
    assert isinstance(user.engine, DirectEngine)
    busy = threading.Event()
    thread.loop.call_soon_threadsafe(busy.wait)
    frames = PushedFrames(user.threaded, MediaKind.VIDEO, asyncio.Event)
    user.threaded.subscribe(frames._frames)
    assert user.engine.sinks == []
    busy.set()
    user.close()
    assert user.engine.sinks == [MediaKind.VIDEO]
