"""The aiortc engine under trio: the one place on the trio side where asyncio is spoken to.

``navtalk_asyncio.media`` runs on its own loop in a worker thread (EngineThread); commands go there,
completions, events and frames are posted back through a TrioToken. trio-asyncio is not used: it
costs 30 % more CPU, cannot be imported on Python 3.14, and any stray asyncio error ends trio.run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from navtalk_asyncio.media.engine_thread import (
    HEAD_START,
    EngineThread,
    PushedFrames,
    ThreadedEngine,
)
from navtalk_asyncio.media.feed import PacketFeed as PacketFeed
from navtalk_asyncio.media.feed import Tap
from navtalk_asyncio.media.feed import av_feed as av_feed
from navtalk_asyncio.media.feed import packet_feed as packet_feed
from navtalk_asyncio.media.frame_feed import FrameFeed as FrameFeed
from navtalk_asyncio.media.frame_feed import FramePolicy as FramePolicy
from navtalk_asyncio.media.interface import Engine, EngineFactory
from navtalk_asyncio.media.packet_buffer import PacketCounters as PacketCounters
from navtalk_asyncio.media.sender_reports import TrackTiming
from navtalk_asyncio.media.sender_reports import av_sync as av_sync
from navtalk_proto.actions import MediaCommand
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.errors import SessionClosedError
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import AvSync as AvSync
from navtalk_proto.stats import MediaStats
from navtalk_trio.doorbell import EventBell, event_bells
from navtalk_trio.flag import Flag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from navtalk_asyncio.media.av_buffer import AvFrame as AvFrame
    from navtalk_asyncio.media.image import ImageSource as ImageSource
    from navtalk_asyncio.media.interface import EncodedSource
    from navtalk_asyncio.media.recorder import Recorder as Recorder

__all__ = ["ThreadEngine", "aiortc_engine", "call_on_media_loop"]

T = TypeVar("T")


async def call_on_media_loop(thread: EngineThread, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run an asyncio coroutine on the media loop and return its result.

    Cancelling cancels the coroutine, waits until it has really ended, and re-raises Cancelled; a
    coroutine that returned or raised in spite of it is as if it had not been cancelled.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    call = thread.call(work, token.run_sync_soon, ended.set)
    try:
        await ended.wait()
    except trio.Cancelled:
        call.stop()
        with trio.CancelScope(shield=True):
            await ended.wait()
        if call.cancelled():
            raise
    return call.result()


def aiortc_engine(*, loopback: bool = False) -> EngineFactory:
    """What makes an aiortc engine; `loopback` adds host candidates on 127.0.0.1."""

    def make(callbacks: EngineCallbacks) -> Engine:
        from navtalk_asyncio.media import AiortcEngine

        return AiortcEngine(callbacks, loopback=loopback, head_start=HEAD_START)

    return make


class ThreadEngine:
    """An engine on the media loop, held by the trio side. `make` runs there, aiortc by default."""

    def __init__(self, callbacks: EngineCallbacks, make: EngineFactory | None = None) -> None:
        self._callbacks = callbacks
        self._make = make or aiortc_engine()
        self._thread: EngineThread
        self._threaded: ThreadedEngine | None = None
        self._final = MediaStats()
        """The last snapshot, once the engine is closed."""

    async def start(self) -> None:
        """Start the media loop for the first session of the process, and make the engine on it.

        Starting a thread takes milliseconds and importing aiortc 0.4 s: neither is done on trio's
        loop. Not cancelled half-way: a thread that started must be given back by somebody.
        """
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope(shield=True):
            self._thread = await trio.to_thread.run_sync(EngineThread.acquire)
            try:
                # Both clocks run alike; trio's begins anywhere.
                ahead = trio.current_time() - time.monotonic()
                self._threaded = await trio.to_thread.run_sync(
                    ThreadedEngine,
                    self._thread,
                    self._make,
                    self._callbacks,
                    token.run_sync_soon,
                    ahead,
                )
            except BaseException:
                await trio.to_thread.run_sync(self._thread.release)
                raise

    @property
    def _running(self) -> ThreadedEngine:
        assert self._threaded is not None, "start() comes first"
        return self._threaded

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once."""
        self._running.execute(command)

    def frames(self, kind: MediaKind) -> PushedFrames:
        """Decoded PyAV frames of a kind, pushed into a bounded buffer: see PushedFrames."""
        bell = EventBell() if event_bells else None
        return PushedFrames(self._running, kind, Flag, bell)

    @property
    def tap(self) -> Tap:
        """How packets and decoded frames are taken off the engine, from trio's loop."""
        return self._running.tap(Flag)

    def timing(self, kind: MediaKind) -> TrackTiming | None:
        """What is known of the time of the first track of a kind."""
        return self._running.timing(kind)

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id."""
        return self._running.counters()

    def stats(self) -> MediaStats:
        """A snapshot of the current peer connection, or else of the last one."""
        return self._final if self._threaded is None else self._threaded.stats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Tell when a sound begins and a picture changes."""
        if self._threaded is not None:
            self._threaded.await_answer(told)

    @asynccontextmanager
    async def record(self, path: str | PathLike[str], **options: Any) -> AsyncGenerator[Recorder]:
        """Copy encoded packets into a file while the block runs, or until the engine is closed.

        `options` are the Recorder's.
        """
        from navtalk_asyncio.media.recorder import Recorder

        if self._threaded is None:
            raise SessionClosedError("the session is over")
        # Counted for itself: the file is completed on this thread, after the engine's end too.
        thread = EngineThread.acquire()
        try:
            recorder = Recorder(cast("EncodedSource", self._threaded.engine), path, **options)
            await call_on_media_loop(thread, recorder.__aenter__)
            # What the block raised gets a note of what the recorder raises, and is not replaced.
            kind: type[BaseException] | None = None
            error: BaseException | None = None
            try:
                yield recorder
            except BaseException as raised:
                kind, error = type(raised), raised
                raise
            finally:
                leave = partial(recorder.__aexit__, kind, error, None)
                with trio.CancelScope(shield=True):
                    await call_on_media_loop(thread, leave)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(thread.release)

    async def aclose(self) -> None:
        """Close the engine, wait for it, and give the thread back. Idempotent."""
        threaded, self._threaded = self._threaded, None
        if threaded is None:
            return
        with trio.CancelScope(shield=True):
            try:
                await call_on_media_loop(self._thread, threaded.close_on_media_loop)
                self._final = threaded.stats()
            finally:
                await trio.to_thread.run_sync(self._thread.release)


def iter_pcm(path: str | PathLike[str], frame_ms: int) -> Generator[bytes]:
    """Decode an audio file into PCM pieces; see navtalk_asyncio.media.audio_file."""
    from navtalk_asyncio.media import audio_file

    return audio_file.iter_pcm(path, frame_ms=frame_ms)


def image_url(source: ImageSource, quality: int, max_side: int) -> str:
    """Encode a picture as a data URL; see navtalk_asyncio.media.image."""
    from navtalk_asyncio.media import image

    return image.image_url(source, quality=quality, max_side=max_side)
