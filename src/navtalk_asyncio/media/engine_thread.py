"""Media on a loop of its own: one asyncio loop in one thread, for many sessions.

What it is for: media under trio, and under an asyncio application whose own loop may block (a
blocked loop loses packets: benchmarks/adapters.py, --block). The engine and everything of aiortc
live on that loop; the user's side holds a :class:`ThreadedEngine`, which posts commands in, and
gets completions, events and frames posted back. Nothing is asked across the threads per frame: a
request that races a cancellation loses frames, a push into a bounded buffer does not. The buffer is
bounded on the media loop's side, and one wake-up at a time is posted: what a blocked user's loop
has not run yet does not hold frames.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeAlias, TypeVar, cast

from attrs import evolve

from navtalk_asyncio.media.doorbell import Doorbell, PostedBell
from navtalk_asyncio.media.feed import Tap
from navtalk_asyncio.media.frame_buffer import (
    AUDIO_MICROSECONDS,
    BURST_FRAMES,
    VIDEO_FRAMES,
    gives_way,
)
from navtalk_asyncio.media.interface import (
    DirectSource,
    EncodedSource,
    Engine,
    EngineCallbacks,
    EngineFactory,
    TrackCounters,
)
from navtalk_asyncio.media.sender_reports import TrackTiming
from navtalk_proto.actions import MediaCommand
from navtalk_proto.event_buffer import Flag
from navtalk_proto.media import Capabilities, MediaKind
from navtalk_proto.stats import MediaStats, ReceivedTrackStats

__all__ = [
    "CLOSE_SECONDS",
    "HEAD_START",
    "EngineThread",
    "Post",
    "PushedFrames",
    "RemoteCall",
    "ThreadedEngine",
]

T = TypeVar("T")

logger: Final = logging.getLogger("navtalk.media")

Post: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a callable soon on the user's loop, from any thread: ``TrioToken.run_sync_soon`` or
``loop.call_soon_threadsafe``. Raises RuntimeError once that loop is gone."""

CLOSE_SECONDS: Final = 5.0
"""How long the thread is waited for when its last session ends."""

BEGIN_SECONDS: Final = 0.001
"""How long a new reader lets the media loop begin. The two threads share the interpreter: without,
a picture that is there already waits until the user's loop has nothing else to do."""

HEAD_START: Final = 0.001
"""Seconds that an answer has for its way to the user's loop and out of it, before ICE begins. The
two threads share the interpreter: the answer would wait while this one pairs candidates, makes the
first check and opens decoders. The far end can use none of that before it has the answer."""


class EngineThread:
    """The process's media loop. Counted: it starts with the first user and ends with the last."""

    _lock = threading.Lock()
    _shared: EngineThread | None = None

    def __init__(self) -> None:
        self._users = 0
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="navtalk-media", daemon=True)
        self.loop: asyncio.AbstractEventLoop

    @classmethod
    def acquire(cls) -> EngineThread:
        """The running thread; to be given back with :meth:`release`.

        Raises what making the loop raises; no thread is left then, and the next call tries again.
        """
        with cls._lock:
            if cls._shared is None:
                starting = cls()
                starting._thread.start()
                starting._ready.wait()
                if starting._failure is not None:
                    starting._thread.join()
                    raise starting._failure
                cls._shared = starting
            cls._shared._users += 1
            return cls._shared

    def release(self) -> None:
        """Give the thread back; the last user ends it and waits for it. Blocks up to 5 s."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            EngineThread._shared = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.warning("! the media thread has not ended within %g s", CLOSE_SECONDS)

    def _main(self) -> None:
        with ExitStack() as stack:
            try:
                runner = stack.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
                self.loop = runner.get_loop()
            except BaseException as error:  # noqa: BLE001 - raised by acquire()
                self._failure = error
                return
            finally:
                self._ready.set()
            self.loop.run_forever()

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], post: Post, on_end: Callable[[], None]
    ) -> RemoteCall[T]:
        """Start a coroutine on the media loop; `on_end` is posted when it has really ended."""
        return RemoteCall(self.loop, work, post, on_end)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: media costs less on it (benchmarks/adapters.py)."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


class RemoteCall(concurrent.futures.Future[T]):
    """A coroutine that runs on the media loop.

    Unlike the future of ``run_coroutine_threadsafe`` it is done when the coroutine has really
    ended, also after :meth:`stop`: whoever cancels can wait until nothing runs any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[], Coroutine[Any, Any, T]],
        post: Post,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__()
        self._on_end = on_end
        self._loop = loop
        self._work = work
        self._post = post
        self._task: asyncio.Task[T] | None = None
        self._stopped = False
        loop.call_soon_threadsafe(self._start)

    def stop(self) -> None:
        """Cancel the coroutine; the future is done, cancelled or not, when it ended."""
        self._loop.call_soon_threadsafe(self._stop)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work())
        self._task.add_done_callback(self._end)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.cancel()
            self.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())
        with suppress(RuntimeError):  # The user's loop ended before the call did.
            self._post(self._on_end)


class ThreadedEngine:
    """The user's side of an engine on the media loop; one connection, one user's loop."""

    def __init__(
        self,
        thread: EngineThread,
        make: EngineFactory,
        callbacks: EngineCallbacks,
        post: Post,
        ahead: float = 0.0,
    ) -> None:
        """`ahead`: how many seconds the user's clock is ahead of ``time.monotonic()``."""
        self._ahead = ahead
        self._final: MediaStats | None = None
        """The last snapshot, once the engine is closed."""
        self._thread = thread
        self._post = post
        self._pumps: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._dropped: Counter[MediaKind] = Counter()
        self._engine: Engine
        made = concurrent.futures.Future[None]()

        def on_loop() -> None:
            try:
                self._engine = make(
                    EngineCallbacks(
                        done=lambda op, result: self._tell(lambda: callbacks.done(op, result)),
                        failed=lambda op, reason: self._tell(lambda: callbacks.failed(op, reason)),
                        event=lambda event: self._tell(lambda: callbacks.event(event)),
                    )
                )
            except BaseException as error:  # noqa: BLE001 - raised on the user's side
                made.set_exception(error)
            else:
                made.set_result(None)

        thread.loop.call_soon_threadsafe(on_loop)
        made.result()
        self.capabilities: Capabilities = self._engine.capabilities

    @property
    def engine(self) -> Engine:
        """The engine itself; only to be touched on the media loop."""
        return self._engine

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # The user's loop is gone: nobody listens any more.
            self._post(what)

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once."""
        self._thread.loop.call_soon_threadsafe(self._engine.execute, command)

    def subscribe(self, frames: _HandOver) -> Callable[[], None]:
        """Have decoded frames handed over until the media ends.

        Returns what stops it; decoding stops with the last subscriber. An engine that gives frames
        where it decodes them wakes the user's loop from there, and not the media loop first.
        Blocks for at most :data:`BEGIN_SECONDS`, which a media loop that is free does not need.
        """
        engine, kind = self._engine, frames.kind
        begun = threading.Event()
        stops: list[Callable[[], object]] = []

        def put(frame: Any) -> None:
            if gave_way := frames.put(frame):
                with self._lock:
                    self._dropped[kind] += gave_way

        async def pump() -> None:
            try:
                async for frame in engine.frames(kind):
                    put(frame)
            finally:
                frames.end()

        def start() -> None:
            if isinstance(engine, DirectSource):
                stops.append(engine.add_direct_sink(kind, put, frames.end))
            else:
                task = self._thread.loop.create_task(pump())
                self._pumps.add(task)
                task.add_done_callback(self._pumps.discard)
                stops.append(task.cancel)
            begun.set()

        def stop() -> None:
            for one in stops:
                one()
            frames.end()

        self._thread.loop.call_soon_threadsafe(start)
        begun.wait(BEGIN_SECONDS)
        return lambda: self._on_media_loop(stop)

    def tap(self, flag: Callable[[], Flag]) -> Tap:
        """How packets and frames are taken off the engine, from the loop that `flag` is of."""
        return Tap(cast("EncodedSource", self._engine), self._on_media_loop, self._tell, flag)

    def timing(self, kind: MediaKind) -> TrackTiming | None:
        """What is known of the time of a track: a snapshot, which is read from any thread."""
        return cast("EncodedSource", self._engine).timing(kind)

    def _on_media_loop(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # The media loop ended, and the pump with it.
            self._thread.loop.call_soon_threadsafe(what)

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id. Asks the media loop, which is never blocked by a user: 0.4 ms."""
        answer = concurrent.futures.Future[Mapping[str, TrackCounters]]()
        self._thread.loop.call_soon_threadsafe(lambda: answer.set_result(self._count()))
        return answer.result(CLOSE_SECONDS)

    def _count(self) -> Mapping[str, TrackCounters]:
        """The engine's counters, with what was dropped on the way from it. On the media loop."""
        counted = dict(self._engine.counters())
        for kind, dropped in self._dropped.items():
            # The frames of a kind are those of its first track.
            for track_id, counters in counted.items():
                if counters.kind is kind:
                    total = counters.frames_dropped + dropped
                    counted[track_id] = evolve(counters, frames_dropped=total)
                    break
        return counted

    def stats(self) -> MediaStats:
        """The engine's snapshot, in the user's time. Asks the media loop: 0.4 ms; after the end
        it is the last one."""
        if self._final is None:
            answer = concurrent.futures.Future[MediaStats]()

            def ask() -> None:
                # The engine may have been closed since.
                answer.set_result(self._final or self._engine.stats())

            self._thread.loop.call_soon_threadsafe(ask)
            stats = answer.result(CLOSE_SECONDS)
        else:
            stats = self._final
        return evolve(stats, received=tuple(map(self._in_users_time, stats.received)))

    def _in_users_time(self, track: ReceivedTrackStats) -> ReceivedTrackStats:
        last = track.last_packet
        dropped = track.frames_dropped + self._dropped[track.kind]
        return evolve(
            track,
            last_packet=None if last is None else last + self._ahead,
            frames_dropped=dropped,
        )

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Tell when a sound begins and a picture changes, in the user's time and on its loop."""

        def post(kind: MediaKind, at: float) -> None:
            self._tell(lambda: told(kind, at + self._ahead) if told is not None else None)

        posted = None if told is None else post
        self._on_media_loop(lambda: self._engine.await_answer(posted))

    async def close_on_media_loop(self) -> None:
        """Close the engine and its pumps. Runs on the media loop: see EngineThread.call."""
        for pump in self._pumps:
            pump.cancel()
        try:
            await self._engine.aclose()
        finally:
            self._final = self._engine.stats()
        if self._pumps:
            await asyncio.wait(self._pumps)


def _one(_: Any) -> int:
    return 1


def _microseconds(frame: Any) -> int:
    return int(frame.samples * 1_000_000 // frame.sample_rate)


_POLICY: Final[dict[MediaKind, tuple[int, Callable[[Any], int], int]]] = {
    MediaKind.VIDEO: (VIDEO_FRAMES, _one, BURST_FRAMES),
    MediaKind.AUDIO: (AUDIO_MICROSECONDS, _microseconds, 1),
}
"""What is held of a kind: the sum of a cost over the frames, and a burst, as in FrameBuffer."""


class _HandOver:
    """Frames between the media loop, which puts them here, and one reader on the user's loop.

    Not the iterator that the reader holds: a pump keeps this alive, and must not keep that.
    """

    def __init__(self, kind: MediaKind, bell: Doorbell, now: Callable[[], float]) -> None:
        self.kind: MediaKind = kind
        self._now = now
        self.dropped: int = 0
        self._limit, self._cost, self._burst = _POLICY[kind]
        self._lock = threading.Lock()
        self._held: deque[tuple[Any, int, float]] = deque()
        """With the cost and the time of each."""
        self._total = 0
        self._ended = False
        self._bell = bell
        self._rung = False
        """It is rung, and who waits has not heard it."""

    @property
    def ended(self) -> bool:
        """Whether no further frame will come."""
        return self._ended

    # ---- on any thread

    def put(self, frame: Any) -> int:
        """Add the newest frame; returns how many gave way."""
        cost, now = self._cost(frame), self._now()
        gave_way = 0
        with self._lock:
            if self._ended:
                return 0
            self._held.append((frame, cost, now))
            self._total += cost
            while self._total > self._limit and gives_way(self._held, self._burst, now):
                self._total -= self._held.popleft()[1]
                gave_way += 1
            self.dropped += gave_way
            rung, self._rung = self._rung, True
        if not rung:  # Not under the lock, which who hears it takes next.
            self._bell.ring()
        return gave_way

    def end(self) -> None:
        """No more frames will come: the reader gets what is held, then the iteration ends."""
        with self._lock:
            self._ended = True
            rung, self._rung = self._rung, True
        if not rung:
            self._bell.ring()

    # ---- on the user's loop

    async def take(self) -> Any:
        """The oldest frame held; waits for one. Raises StopAsyncIteration after the last."""
        while True:
            with self._lock:
                if self._held:
                    frame, cost, _ = self._held.popleft()
                    self._total -= cost
                    return frame
                if self._ended:
                    self._bell.close()
                    raise StopAsyncIteration
            await self._bell.wait()
            with self._lock:
                # What comes from now on rings again; what came before is held.
                self._rung = False

    def discard(self) -> None:
        """Throw away what is held, and take nothing more."""
        with self._lock:
            self._ended = True
            self._held.clear()
            self._total = 0
        self._bell.close()


class PushedFrames:
    """Decoded frames of one kind, as an async iterator on the user's loop.

    The subscription begins with the first read and ends with :meth:`aclose`, when the iterator is
    dropped, or with the media. Video keeps the newest two frames, and eight for 20 ms where they
    come at once; audio the newest 0.4 s. Reading is cancel-safe: a cancelled read takes no frame.
    """

    def __init__(
        self,
        threaded: ThreadedEngine,
        kind: MediaKind,
        flag: Callable[[], Flag],
        bell: Doorbell | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`bell` wakes the reader; without one, a `flag` of its loop that is set by a post."""
        self._threaded = threaded
        self._frames = _HandOver(kind, bell or PostedBell(threaded._tell, flag()), now)
        self._stop: Callable[[], None] | None = None

    @property
    def dropped(self) -> int:
        """Frames given up because the reader was slower than the media."""
        return self._frames.dropped

    def __aiter__(self) -> PushedFrames:
        return self

    async def __anext__(self) -> Any:
        if self._stop is None and not self._frames.ended:
            self._stop = self._threaded.subscribe(self._frames)
        return await self._frames.take()

    async def aclose(self) -> None:
        """Stop reading; what is held is thrown away."""
        self._unsubscribe()
        self._frames.discard()

    def _unsubscribe(self) -> None:
        if self._stop is not None:
            self._stop()

    def __del__(self) -> None:
        self._unsubscribe()
