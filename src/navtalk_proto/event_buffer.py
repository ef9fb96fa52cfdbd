"""What waits for the application: bounded, in order, with a named policy, on any loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from navtalk_proto.events import Closed, Event
from navtalk_proto.limits import MIB

__all__ = [
    "EVENTS_HIGH_WATER",
    "EVENTS_HIGH_WATER_SIZE",
    "Buffer",
    "BufferReader",
    "DroppingBuffer",
    "EventBuffer",
    "Flag",
]

T = TypeVar("T")

EVENTS_HIGH_WATER: Final = 1024
"""Events that may wait for the application: about 20 s of a dense transcript."""

EVENTS_HIGH_WATER_SIZE: Final = 4 * MIB
"""Characters received that those events may hold on to: several pictures, and no 1024 of them."""


class Flag(Protocol):
    """Something to wait for: ``asyncio.Event``, or its like on another loop."""

    def set(self) -> None:
        """Wake who waits, now and later, until cleared."""
        ...

    def clear(self) -> None:
        """Let who comes next wait."""
        ...

    def is_set(self) -> bool:
        """Whether waiting returns at once."""
        ...

    async def wait(self) -> object:
        """Wait until set."""
        ...


class Buffer(Generic[T]):
    """Items in order, for one reader at a time: ``async for item in buffer``.

    What happens above `high_water` is a subclass's policy. `what` names the items where a second
    reader is refused.
    """

    what: str = "items"

    def __init__(self, flag: Callable[[], Flag], *, high_water: int) -> None:
        self.high_water: int = high_water
        self.dropped: int = 0
        self._items: deque[T] = deque()
        self._wake = flag()
        self._readers = 0
        self._reading = False
        self._ended = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append an item."""
        self._items.append(item)
        if len(self._items) > self.high_water:
            self._overfull()
        self._wake.set()

    def end(self) -> None:
        """Nothing more comes: who reads gets what is there, and then the end."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> BufferReader[T]:
        self._refuse_second_reader()
        return BufferReader(self)

    def _overfull(self) -> None:
        """There are more than `high_water`: what the policy does."""
        raise NotImplementedError

    def _taken(self) -> None:
        """The reader took an item."""

    def _deserted(self) -> None:
        """The last reader is gone."""

    async def _next(self) -> T:
        self._refuse_second_reader()
        self._reading = True
        try:
            while not self._items:
                if self._ended:
                    raise StopAsyncIteration
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._reading = False
        item = self._items.popleft()
        self._taken()
        return item

    def _refuse_second_reader(self) -> None:
        if self._reading:
            raise RuntimeError(f"another task reads this session's {self.what} already")

    def _entered(self) -> None:
        self._readers += 1

    def _left(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._deserted()

    def _too_full(self) -> bool:
        return len(self._items) > self.high_water

    def _drop_oldest(self) -> None:
        self._items.popleft()
        self.dropped += 1

    def _give_way(self) -> None:
        while self._too_full():
            self._drop_oldest()


class DroppingBuffer(Buffer[T]):
    """Policy: the oldest items give way, read or not, counted in :attr:`dropped`."""

    def __init__(self, flag: Callable[[], Flag], *, high_water: int, what: str) -> None:
        super().__init__(flag, high_water=high_water)
        self.what = what

    def _overfull(self) -> None:
        self._give_way()


class EventBuffer(Buffer[Event]):
    """The events of a session.

    Policy: while a reader is there, nothing is dropped; the driver stops *receiving* while more
    than `high_water` events, or events of more than EVENTS_HIGH_WATER_SIZE, wait, so a slow reader
    slows the far end down. While nobody reads,
    before the first reader and after the last one, the oldest events give way (counted in
    :attr:`dropped`): an application that only watches video must not stop its session by not
    listening. A reader is gone when it is closed, or dropped as a loop that was left drops it.
    """

    what: str = "events"

    def __init__(self, flag: Callable[[], Flag], *, high_water: int = EVENTS_HIGH_WATER) -> None:
        super().__init__(flag, high_water=high_water)
        self._room = flag()
        self._room.set()
        self._released = False
        self._sizes: deque[int] = deque()
        self._size = 0

    def put(self, item: Event, size: int = 0) -> None:
        """Append an event; Closed is the last. `size`: the characters it was received as."""
        self._sizes.append(size)
        self._size += size
        super().put(item)
        if self._size > EVENTS_HIGH_WATER_SIZE:
            self._overfull()
        if isinstance(item, Closed):
            self.end()

    async def room(self) -> None:
        """Wait until the reader has caught up: after `high_water`, to half of it."""
        await self._room.wait()

    def release(self) -> None:
        """Let :meth:`room` wait no more: the session is ending, few events are to come."""
        self._released = True
        self._room.set()

    def hold(self) -> None:
        """Let :meth:`room` wait again: another connection's events are to come."""
        self._released = False
        if self._readers and self._too_full():
            self._room.clear()

    def _overfull(self) -> None:
        if not self._readers:
            self._give_way()
        elif not self._released:
            self._room.clear()

    def _taken(self) -> None:
        self._size -= self._sizes.popleft()
        few = len(self._items) <= self.high_water // 2
        if few and self._size <= EVENTS_HIGH_WATER_SIZE // 2:
            self._room.set()

    def _too_full(self) -> bool:
        # One event may be larger than all of them should be: the newest stays.
        return super()._too_full() or (self._size > EVENTS_HIGH_WATER_SIZE and len(self._items) > 1)

    def _drop_oldest(self) -> None:
        super()._drop_oldest()
        self._size -= self._sizes.popleft()

    def _deserted(self) -> None:
        self._give_way()
        self._room.set()


class BufferReader(Generic[T]):
    """Reads a buffer's items until it is gone: closed, or dropped."""

    def __init__(self, buffer: Buffer[T]) -> None:
        self._buffer = buffer
        self._open = True
        buffer._entered()

    def __aiter__(self) -> BufferReader[T]:
        return self

    async def __anext__(self) -> T:
        """The next item, or the end. Raises RuntimeError beside another task's read."""
        if not self._open:
            raise StopAsyncIteration
        return await self._buffer._next()

    async def aclose(self) -> None:
        """Read no more: what nobody wants gives way again."""
        self._leave()

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._buffer._left()

    def __del__(self) -> None:
        self._leave()
