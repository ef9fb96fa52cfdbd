"""The engine on the media thread, for asyncio applications whose own loop may block.

``connect(..., engine="thread")``: an application that blocks its loop for a second loses no packet,
where an engine on the same loop loses dozens (benchmarks/adapters.py, --block).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, cast

from navtalk_asyncio.media.engine_thread import EngineThread, PushedFrames, ThreadedEngine
from navtalk_asyncio.media.feed import Tap
from navtalk_asyncio.media.interface import Engine, EngineFactory
from navtalk_asyncio.media.sender_reports import TrackTiming
from navtalk_proto.actions import MediaCommand
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.errors import SessionClosedError
from navtalk_proto.media import Capabilities, MediaKind
from navtalk_proto.stats import MediaStats

if TYPE_CHECKING:
    from navtalk_asyncio.media.interface import EncodedSource
    from navtalk_asyncio.media.recorder import Recorder

__all__ = ["ThreadEngine"]

T = TypeVar("T")


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that must not stop half-way, however often this is cancelled meanwhile.

    CancelledError leaves then, after the end, in place of what the work raised.
    """
    working = asyncio.create_task(work)
    cancelled = False
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError:
            cancelled = True
    error = working.exception()
    if cancelled:
        raise asyncio.CancelledError from error
    working.result()


class ThreadEngine:
    """An engine on the media loop, held by the application's asyncio loop."""

    def __init__(
        self, callbacks: EngineCallbacks, *, thread: EngineThread, make: EngineFactory
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._threaded = ThreadedEngine(thread, make, callbacks, self._loop.call_soon_threadsafe)
        self._closing: asyncio.Task[None] | None = None

    @staticmethod
    async def factory(make: EngineFactory) -> EngineFactory:
        """Start the media loop and return what makes one engine on it; call it once.

        The engine gives the thread back when it is closed. Raises what making the loop raises.
        """
        started: list[EngineThread] = []

        def start() -> None:
            started.append(EngineThread.acquire())

        try:
            await _to_its_end(asyncio.to_thread(start))
        except asyncio.CancelledError:
            for thread in started:
                await _to_its_end(asyncio.to_thread(thread.release))
            raise
        (thread,) = started

        def on_thread(callbacks: EngineCallbacks) -> Engine:
            return ThreadEngine(callbacks, thread=thread, make=make)

        return on_thread

    @property
    def capabilities(self) -> Capabilities:
        """The engine's."""
        return self._threaded.capabilities

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once."""
        self._threaded.execute(command)

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        """Decoded PyAV frames of a kind, pushed into a bounded buffer: see PushedFrames."""
        return PushedFrames(self._threaded, kind, asyncio.Event)

    @property
    def tap(self) -> Tap:
        """How packets and decoded frames are taken off the engine, from the application's loop."""
        return self._threaded.tap(asyncio.Event)

    def timing(self, kind: MediaKind) -> TrackTiming | None:
        """What is known of the time of the first track of a kind."""
        return self._threaded.timing(kind)

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id."""
        return self._threaded.counters()

    def stats(self) -> MediaStats:
        """A snapshot of the current peer connection, or else of the last one."""
        return self._threaded.stats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Tell when a sound begins and a picture changes."""
        self._threaded.await_answer(told)

    @asynccontextmanager
    async def record(self, path: str | PathLike[str], **options: Any) -> AsyncGenerator[Recorder]:
        """Copy encoded packets into a file while the block runs, or until the engine is closed.

        `options` are the Recorder's.
        """
        from navtalk_asyncio.media.recorder import Recorder

        if self._closing is not None:
            raise SessionClosedError("the session is over")
        # Counted for itself: the file is completed on this thread, after the engine's end too.
        thread = EngineThread.acquire()
        try:
            recorder = Recorder(cast("EncodedSource", self._threaded.engine), path, **options)
            await self._call(recorder.__aenter__)
            # What the block raised gets a note of what the recorder raises, and is not replaced.
            kind: type[BaseException] | None = None
            error: BaseException | None = None
            try:
                yield recorder
            except BaseException as raised:
                kind, error = type(raised), raised
                raise
            finally:
                await _to_its_end(self._call(partial(recorder.__aexit__, kind, error, None)))
        finally:
            await _to_its_end(asyncio.to_thread(thread.release))

    async def aclose(self) -> None:
        """Close the engine, wait for it, and give the thread back. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._call(self._threaded.close_on_media_loop)
        finally:
            await asyncio.to_thread(self._thread.release)

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the media loop; cancelling waits until it has really ended."""
        ended = asyncio.Event()
        call = self._thread.call(work, self._loop.call_soon_threadsafe, ended.set)
        try:
            await ended.wait()
        except asyncio.CancelledError:
            call.stop()
            while not ended.is_set():
                try:
                    await ended.wait()
                except asyncio.CancelledError:  # Asked again: it is stopping already.
                    continue
            raise
        return call.result()
