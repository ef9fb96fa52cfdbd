"""What an engine gives away as it comes, as an async iterator on the loop of the application.

A :class:`Tap` says how to reach the engine: directly where it runs on the application's loop, or
through the media thread. Frames are put into a buffer on the engine's loop, which bounds them
there, and one wake-up at a time is posted to the reader.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, Self, TypeVar

from attrs import evolve, frozen

from navtalk_asyncio.media.av_buffer import AvBuffer, AvFrame, DecodedFrame
from navtalk_asyncio.media.interface import EncodedFrame, EncodedSource
from navtalk_asyncio.media.packet_buffer import PacketBuffer, PacketCounters
from navtalk_proto.event_buffer import Flag
from navtalk_proto.media import MediaKind

__all__ = ["Feed", "PacketFeed", "Tap", "av_feed", "packet_feed"]

ItemT = TypeVar("ItemT")
GivenT = TypeVar("GivenT")
_PutT = TypeVar("_PutT", contravariant=True)
_TakenT = TypeVar("_TakenT", covariant=True)


@frozen
class Tap:
    """How to reach an engine from the application's loop."""

    engine: EncodedSource
    run: Callable[[Callable[[], object]], object]
    """Runs a callable on the engine's loop, soon or at once."""
    post: Callable[[Callable[[], None]], object]
    """Runs a callable on the application's loop, soon or at once; never raises."""
    flag: Callable[[], Flag]
    one_loop: bool = False
    """`post` does not change threads: both loops are one."""

    @staticmethod
    def same_loop(engine: EncodedSource) -> Tap:
        """For an engine on the application's own asyncio loop."""
        return Tap(engine, lambda work: work(), lambda work: work(), asyncio.Event, one_loop=True)

    def for_any_thread(self) -> Tap:
        """The same, whose `post` may be called on any thread. To be asked for on the
        application's loop."""
        if not self.one_loop:
            return self
        loop = asyncio.get_running_loop()

        def post(work: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # The loop is gone, and its readers with it.
                loop.call_soon_threadsafe(work)

        return evolve(self, post=post)


class _Buffer(Protocol[_PutT, _TakenT]):
    def put(self, item: _PutT, /) -> None: ...
    def take(self) -> _TakenT | None: ...
    def clear(self) -> None: ...


class _Channel(Generic[GivenT, ItemT]):
    """A buffer between two threads. Not the iterator that the reader holds: the engine keeps this
    alive, and must not keep that."""

    def __init__(self, buffer: _Buffer[GivenT, ItemT], tap: Tap) -> None:
        self._buffer = buffer
        self._post = tap.post
        self._changed = tap.flag()
        self._lock = threading.Lock()
        self._waking = False
        self._failure: Exception | None = None
        self.ended = False

    # ---- on the engine's loop, or a thread of its where `post` is for any

    def put(self, item: GivenT) -> None:
        with self._lock:
            if self.ended:
                return
            self._buffer.put(item)
        self._wake()

    def end(self, failure: Exception | None = None) -> None:
        with self._lock:
            self.ended = True
            self._failure = self._failure or failure
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waking, self._waking = self._waking, True
        if not waking:
            self._post(self._arrived)

    # ---- on the reader's loop

    def _arrived(self) -> None:
        with self._lock:
            self._waking = False
        self._changed.set()

    async def take(self) -> ItemT:
        while True:
            with self._lock:
                item = self._buffer.take()
                if item is not None:
                    return item
                if self._failure is not None:
                    raise self._failure
                if self.ended:
                    raise StopAsyncIteration
                # Nothing is missed in between: a wake-up sets this after it, on this loop.
                self._changed.clear()
            await self._changed.wait()

    def discard(self) -> None:
        with self._lock:
            self.ended = True
            self._buffer.clear()
        self._changed.set()


Subscribe = Callable[[Callable[[GivenT], None], Callable[[], None]], Callable[[], None]]
"""Called on the engine's loop with put and end; returns what stops it, there."""


class Feed(Generic[GivenT, ItemT]):
    """An async iterator over what an engine gives. The subscription begins with the first read, and
    ends with :meth:`aclose`, when the iterator is dropped, or with the media. Reading is
    cancel-safe: a cancelled read takes nothing."""

    def __init__(
        self,
        tap: Tap,
        buffer: _Buffer[GivenT, ItemT],
        subscribe: Subscribe[GivenT],
        taken: Callable[[], object] = lambda: None,
    ) -> None:
        """`taken` is called on the reader's loop after each item that was taken."""
        self._tap = tap
        self._channel = _Channel(buffer, tap)
        self._subscribe = subscribe
        self._taken = taken
        self._stop: Callable[[], object] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        if self._stop is None and not self._channel.ended:
            self._stop = _subscribed(self._tap, self._channel, self._subscribe)
        item = await self._channel.take()
        self._taken()
        return item

    async def aclose(self) -> None:
        """Stop reading; what waits is thrown away."""
        self._unsubscribe()
        self._channel.discard()

    def _unsubscribe(self) -> None:
        if self._stop is not None:
            self._stop()

    def __del__(self) -> None:
        self._unsubscribe()


def _subscribed(
    tap: Tap, channel: _Channel[GivenT, Any], subscribe: Subscribe[GivenT]
) -> Callable[[], object]:
    """Subscribe on the engine's loop; returns what ends it, from the reader's."""
    removers: list[Callable[[], None]] = []

    def start() -> None:
        try:
            removers.append(subscribe(channel.put, channel.end))
        except Exception as error:  # noqa: BLE001 - raised where the reader waits
            channel.end(error)

    def stop() -> None:
        while removers:
            removers.pop()()

    tap.run(start)
    return lambda: tap.run(stop)


def packet_feed(tap: Tap, counters: PacketCounters) -> Feed[EncodedFrame, EncodedFrame]:
    """Encoded packets of both kinds, in the order in which they came."""
    engine = tap.engine

    def ask_keyframe() -> None:
        engine.request_keyframe()

    def subscribe(
        put: Callable[[EncodedFrame], None], end: Callable[[], None]
    ) -> Callable[[], None]:
        open_kinds = set(MediaKind)

        def ended(kind: MediaKind) -> Callable[[], None]:
            def close() -> None:
                open_kinds.discard(kind)
                if not open_kinds:
                    end()

            return close

        removers = [engine.add_encoded_sink(kind, put, ended(kind)) for kind in MediaKind]
        engine.request_keyframe()

        def remove() -> None:
            for one in removers:
                one()

        return remove

    return Feed(tap, PacketBuffer(counters, ask_keyframe), subscribe)


def av_feed(tap: Tap) -> Feed[DecodedFrame, AvFrame]:
    """Decoded frames of both kinds, in the order in which they belong."""
    engine = tap.engine

    def subscribe(
        put: Callable[[DecodedFrame], None], end: Callable[[], None]
    ) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        open_kinds = set(MediaKind)

        def add(kind: MediaKind) -> Callable[[], None]:
            def take(frame: Any) -> None:
                timing = engine.timing(kind)
                if timing is not None and frame.pts is not None:
                    put(DecodedFrame(kind=kind, frame=frame, timing=timing, arrival=loop.time()))

            def close() -> None:
                open_kinds.discard(kind)
                if not open_kinds:
                    end()

            return engine.add_decoded_sink(kind, take, close)

        removers = [add(kind) for kind in MediaKind]

        def remove() -> None:
            for one in removers:
                one()

        return remove

    return Feed(tap, AvBuffer(), subscribe)


class PacketFeed:
    """Encoded packets of a session, with what was counted of them over all its connections."""

    def __init__(self, packets: AsyncIterator[EncodedFrame], counters: PacketCounters) -> None:
        self._packets = packets
        self.counters: PacketCounters = counters

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EncodedFrame:
        return await anext(self._packets)
