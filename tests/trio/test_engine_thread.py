"""The engine on the media loop, as trio holds it: calls, cancelling, frames, the thread's life."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from navtalk_asyncio.media.engine_thread import EngineThread
from navtalk_asyncio.media.frame_buffer import BURST_FRAMES, FrameBuffer
from navtalk_proto.actions import MediaCommand, OpenPeer
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.media import Capabilities, IcePolicy, MediaKind, OpId
from navtalk_proto.stats import MediaStats
from navtalk_trio.engine_thread import ThreadEngine, call_on_media_loop

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""


def run(main: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        with trio.fail_after(PATIENCE):
            return await main()

    return trio.run(bounded)


def media_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "navtalk-media"]


@asynccontextmanager
async def media_thread() -> AsyncIterator[EngineThread]:
    thread = await trio.to_thread.run_sync(EngineThread.acquire)
    try:
        yield thread
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.release)


class Told:
    """Something that the media loop's side tells the trio side, and the other way round."""

    def __init__(self, thread: EngineThread) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._loop = thread.loop
        self._here = trio.Event()
        self._there = asyncio.Event()

    def tell_trio(self) -> None:
        self._token.run_sync_soon(self._here.set)

    async def on_trio(self) -> None:
        await self._here.wait()

    def tell_media_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._there.set)

    async def on_media_loop(self) -> None:
        await self._there.wait()


class Call:
    """A call in a scope of its own, and how it ended."""

    def __init__(self, thread: EngineThread, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._thread = thread
        self._work = work
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    async def __call__(self) -> None:
        try:
            with self.scope:
                self.result = await call_on_media_loop(self._thread, self._work)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error
        finally:
            self.ended.set()


# ---- a call


def test_a_result() -> None:
    async def main() -> None:
        async def work() -> tuple[str, str]:
            await asyncio.sleep(0)
            return "done", threading.current_thread().name

        async with media_thread() as thread:
            assert await call_on_media_loop(thread, work) == ("done", "navtalk-media")

    run(main)


def test_an_exception_comes_with_its_traceback() -> None:
    error, cause = ValueError("there"), KeyError("cause")

    async def deep_in_the_engine() -> None:
        await asyncio.sleep(0)
        raise error from cause

    async def main() -> None:
        async with media_thread() as thread:
            with pytest.raises(ValueError, match="there") as caught:
                await call_on_media_loop(thread, deep_in_the_engine)
        assert caught.value is error
        assert error.__cause__ is cause
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert "deep_in_the_engine" in frames
        assert "call_on_media_loop" in frames

    run(main)


def test_calls_run_beside_each_other() -> None:
    async def main() -> None:
        async with media_thread() as thread:
            first, second = asyncio.Event(), asyncio.Event()

            async def one() -> None:
                first.set()
                await second.wait()

            async def other() -> None:
                await first.wait()
                second.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_on_media_loop, thread, one)
                nursery.start_soon(call_on_media_loop, thread, other)

    run(main)


# ---- cancelling


def test_cancelling_waits_until_the_coroutine_has_really_ended() -> None:
    async def main() -> None:
        async with media_thread() as thread, trio.open_nursery() as nursery:
            started, cleaning = Told(thread), Told(thread)
            seen: list[str] = []

            async def work() -> None:
                started.tell_trio()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    cleaning.tell_trio()
                    await cleaning.on_media_loop()
                    seen.append("cleaned")
                    raise

            call = Call(thread, work)
            nursery.start_soon(call)
            await started.on_trio()
            call.scope.cancel()
            await cleaning.on_trio()
            await trio.testing.wait_all_tasks_blocked()
            assert not call.ended.is_set()
            cleaning.tell_media_loop()
            await call.ended.wait()
            assert seen == ["cancelled", "cleaned"]
            assert call.scope.cancelled_caught
            assert call.error is None

    run(main)


def test_what_must_not_be_cancelled_delays() -> None:
    """As the engine does with setLocalDescription, which may not be cancelled half-way."""

    async def main() -> None:
        async with media_thread() as thread, trio.open_nursery() as nursery:
            started, cancelled = Told(thread), Told(thread)
            finished: list[bool] = []

            async def critical() -> None:
                await cancelled.on_media_loop()
                finished.append(True)

            async def work() -> None:
                inner = asyncio.ensure_future(critical())
                started.tell_trio()
                try:
                    await asyncio.shield(inner)
                except asyncio.CancelledError:
                    cancelled.tell_trio()
                    await inner
                    raise

            call = Call(thread, work)
            nursery.start_soon(call)
            await started.on_trio()
            call.scope.cancel()
            await cancelled.on_trio()
            await trio.testing.wait_all_tasks_blocked()
            assert not call.ended.is_set()
            assert finished == []
            cancelled.tell_media_loop()
            await call.ended.wait()
            assert finished == [True]
            assert call.scope.cancelled_caught

    run(main)


def test_a_coroutine_that_finishes_anyway_returns_its_result() -> None:
    async def main() -> None:
        async with media_thread() as thread, trio.open_nursery() as nursery:
            started = Told(thread)

            async def work() -> str:
                started.tell_trio()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    return "finished"
                raise AssertionError

            call = Call(thread, work)
            nursery.start_soon(call)
            await started.on_trio()
            call.scope.cancel()
            await call.ended.wait()
            assert call.result == "finished"
            assert not call.scope.cancelled_caught

    run(main)


def test_what_a_cancelled_coroutine_raises_instead_is_not_lost() -> None:
    async def main() -> None:
        async with media_thread() as thread, trio.open_nursery() as nursery:
            started = Told(thread)
            error = OSError("while cleaning up")

            async def work() -> None:
                started.tell_trio()
                try:
                    await asyncio.Event().wait()
                finally:
                    raise error

            call = Call(thread, work)
            nursery.start_soon(call)
            await started.on_trio()
            call.scope.cancel()
            await call.ended.wait()
            assert call.error is error

    run(main)


def test_in_a_cancelled_scope_nothing_runs() -> None:
    async def main() -> None:
        ran: list[bool] = []

        async def work() -> None:
            ran.append(True)

        async with media_thread() as thread:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call_on_media_loop(thread, work)
            assert scope.cancelled_caught
        assert ran == []

    run(main)


def test_a_deadline_is_a_cancellation_like_another() -> None:
    async def main() -> None:
        async with media_thread() as thread:

            async def work() -> None:
                await asyncio.Event().wait()

            with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
                await call_on_media_loop(thread, work)

            async def left() -> int:
                return len(asyncio.all_tasks()) - 1

            assert await call_on_media_loop(thread, left) == 0

    run(main)


@pytest.mark.parametrize("times", [1, 3])
def test_asyncio_waits_for_the_end_too_however_often_it_is_cancelled(times: int) -> None:
    """The same call from an asyncio application, whose task may be cancelled again and again."""

    async def main() -> None:
        from navtalk_asyncio.thread_engine import ThreadEngine as AsyncioThreadEngine

        callbacks = EngineCallbacks(
            done=lambda *_: None, failed=lambda *_: None, event=lambda _: None
        )
        make = await AsyncioThreadEngine.factory(FedEngine)
        engine: Any = make(callbacks)
        user = asyncio.get_running_loop()
        started, cleaning = asyncio.Event(), asyncio.Event()
        may_end = asyncio.Event()
        media: list[asyncio.AbstractEventLoop] = []
        seen: list[str] = []

        async def work() -> None:
            media.append(asyncio.get_running_loop())
            user.call_soon_threadsafe(started.set)
            try:
                await asyncio.Event().wait()
            finally:
                user.call_soon_threadsafe(cleaning.set)
                await may_end.wait()
                seen.append("ended")

        calling = asyncio.create_task(engine._call(work))
        await started.wait()
        for _ in range(times):
            calling.cancel()
            await cleaning.wait()
            await asyncio.sleep(0)
        assert not calling.done()
        media[0].call_soon_threadsafe(may_end.set)
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert seen == ["ended"]
        await engine.aclose()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert media_threads() == []


# ---- an engine on the other side


class FedEngine:
    """An engine whose frames and completions are given by the test; lives on the media loop."""

    capabilities = Capabilities()

    def __init__(self, callbacks: EngineCallbacks) -> None:
        self.callbacks = callbacks
        self.readers: list[FrameBuffer[Any]] = []
        self.commands: list[MediaCommand] = []
        self.closed_on = ""
        self.asked = asyncio.Event()

    def execute(self, command: MediaCommand) -> None:
        assert threading.current_thread().name == "navtalk-media"
        self.commands.append(command)
        self.callbacks.done(command.op, None)

    def frames(self, kind: MediaKind) -> FrameBuffer[Any]:
        self.readers.append(FrameBuffer(limit=10_000, cost=lambda _: 1))
        self.asked.set()
        return self.readers[-1]

    def counters(self) -> Mapping[str, TrackCounters]:
        return {"face": TrackCounters(kind=MediaKind.VIDEO, frames_dropped=3)}

    def stats(self) -> MediaStats:
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        pass

    async def aclose(self) -> None:
        self.closed_on = threading.current_thread().name
        for reader in self.readers:
            reader.close()


class Held:
    """A ThreadEngine around a FedEngine, and what it told the trio side."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.changed = trio.Event()
        self.fed: list[FedEngine] = []
        callbacks = EngineCallbacks(
            done=lambda op, result: self._tell(("done", op)),
            failed=lambda op, reason: self._tell(("failed", reason)),
            event=lambda event: self._tell(("event", event)),
        )
        self.engine = ThreadEngine(callbacks, self._make)

    def _make(self, callbacks: EngineCallbacks) -> FedEngine:
        self.fed.append(FedEngine(callbacks))
        return self.fed[0]

    def _tell(self, what: tuple[str, Any]) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.told.append(what)
        self.changed.set()
        self.changed = trio.Event()

    async def subscribed(self) -> None:
        """Wait until the engine has been asked for frames."""
        await call_on_media_loop(self.engine._thread, self.fed[0].asked.wait)

    def push(self, *frames: object) -> None:
        def give() -> None:
            for frame in frames:
                self.fed[0].readers[-1].push(frame)

        self.engine._thread.loop.call_soon_threadsafe(give)

    async def pumped(self) -> None:
        """Wait until what was pushed has been pumped, and what that posted has run here."""

        async def turns() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        await call_on_media_loop(self.engine._thread, turns)


@asynccontextmanager
async def held() -> AsyncIterator[Held]:
    held = Held()
    await held.engine.start()
    try:
        yield held
    finally:
        await held.engine.aclose()


def test_commands_go_there_and_completions_come_back() -> None:
    async def main() -> None:
        async with held() as one:
            changed = one.changed
            command = OpenPeer(op=OpId(7), ice_servers=(), policy=IcePolicy.ALL, media=())
            one.engine.execute(command)
            await changed.wait()
            assert one.told == [("done", 7)]
            assert one.fed[0].commands == [command]
        assert one.fed[0].closed_on == "navtalk-media"

    run(main)


def test_an_engine_that_cannot_be_made_leaves_no_thread() -> None:
    def broken(callbacks: EngineCallbacks) -> Any:
        raise OSError("no engine today")

    async def main() -> None:
        callbacks = EngineCallbacks(
            done=lambda *_: None, failed=lambda *_: None, event=lambda _: None
        )
        with pytest.raises(OSError, match="no engine today"):
            await ThreadEngine(callbacks, broken).start()
        assert media_threads() == []

    run(main)


def test_the_thread_is_one_for_all_and_ends_with_the_last() -> None:
    async def main() -> None:
        assert media_threads() == []
        held = [Held() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for one in held:
                nursery.start_soon(one.engine.start)
        assert len(media_threads()) == 1
        assert len({one.engine._thread for one in held}) == 1
        for one in held[:-1]:
            await one.engine.aclose()
            await one.engine.aclose()  # Idempotent: the count is right none the less.
            assert len(media_threads()) == 1
        await held[-1].engine.aclose()
        assert media_threads() == []

    run(main)


def test_two_hundred_sessions_twenty_at_a_time() -> None:
    async def main() -> None:
        limiter = trio.CapacityLimiter(20)
        count = 0

        async def one() -> None:
            nonlocal count
            async with limiter, held() as engine:
                await engine.pumped()
                assert len(media_threads()) == 1
                count += 1

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
        assert count == 200
        assert media_threads() == []

    run(main)


def test_cancelling_start_leaves_no_thread() -> None:
    async def main() -> None:
        one = Held()
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.engine.start()
        with trio.CancelScope() as scope:  # As the driver does, also in a cancelled scope.
            scope.cancel()
            await one.engine.aclose()
        assert media_threads() == []

    run(main)


# ---- frames


def test_no_frame_is_lost_to_cancelled_reads() -> None:
    """A request across the threads that raced a cancellation lost 6 frames of 96."""

    async def main() -> None:
        async with held() as one:
            frames = one.engine.frames(MediaKind.VIDEO)
            got: list[object] = []
            cancelled = 0

            async def read(scope: trio.CancelScope, subscribe: trio.Event) -> None:
                with scope:
                    subscribe.set()
                    got.append(await anext(frames))

            for number in range(96):
                async with trio.open_nursery() as nursery:
                    scope, begun = trio.CancelScope(), trio.Event()
                    nursery.start_soon(read, scope, begun)
                    await begun.wait()
                    if number == 0:
                        await one.subscribed()
                    one.push(number)
                    if number % 3 == 1:
                        await one.pumped()  # The frame is there, and its wake-up has been posted.
                    if number % 3 < 2:
                        scope.cancel()
                cancelled += scope.cancelled_caught
                if scope.cancelled_caught:
                    got.append(await anext(frames))
            assert got == list(range(96))
            assert frames.dropped == 0
            assert cancelled >= 32  # Each read that was cancelled before its frame came.

    run(main)


def test_a_reader_slower_than_the_media_sees_the_newest_and_a_counter() -> None:
    async def main() -> None:
        async with held() as one:
            frames = one.engine.frames(MediaKind.VIDEO)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(frames.__anext__)
                    await one.subscribed()
                    scope.cancel()
            one.push(*range(1000))
            await one.pumped()
            got: list[object] = []
            while got[-1:] != [999]:
                got.append(await anext(frames))
            # Two, and what else came within 20 ms of the last.
            assert 2 <= len(got) <= BURST_FRAMES
            assert got == list(range(1000 - len(got), 1000))
            assert frames.dropped == 1000 - len(got)
            assert one.engine.counters()["face"].frames_dropped == 3 + frames.dropped

    run(main)


def test_the_frames_end_with_the_engine() -> None:
    async def main() -> None:
        one = Held()
        await one.engine.start()
        got: list[object] = []

        async def read() -> None:
            async for frame in one.engine.frames(MediaKind.AUDIO):
                got.append(frame)

        class Sound:
            samples, sample_rate = 960, 48_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await one.subscribed()
            sound = Sound()
            one.push(sound)
            await one.pumped()
            await one.engine.aclose()
        assert got == [sound]

    run(main)
