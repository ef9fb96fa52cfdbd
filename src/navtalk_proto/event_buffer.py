"""The events between a driver and the application: bounded, with a named policy, on any loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from navtalk_proto.events import Closed, Event

__all__ = ["EVENTS_HIGH_WATER", "EventBuffer", "EventReader", "Flag"]

EVENTS_HIGH_WATER: Final = 1024
"""Events that may wait for the application: about 20 s of a dense transcript."""


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


class EventBuffer:
    """Events in order, for one reader at a time: ``async for event in buffer``.

    Policy: while a reader is there, nothing is dropped; the driver stops *receiving* while more
    than `high_water` events wait, so a slow reader slows the far end down. While nobody reads,
    before the first reader and after the last one, the oldest events give way (counted in
    :attr:`dropped`): an application that only watches video must not stop its session by not
    listening. A reader is gone when it is closed, or dropped as a loop that was left drops it.
    """

    def __init__(self, flag: Callable[[], Flag], *, high_water: int = EVENTS_HIGH_WATER) -> None:
        self.high_water: int = high_water
        self.dropped: int = 0
        self._events: deque[Event] = deque()
        self._wake = flag()
        self._room = flag()
        self._room.set()
        self._readers = 0
        self._reading = False
        self._ended = False
        self._released = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Append an event; Closed is the last."""
        self._events.append(event)
        if isinstance(event, Closed):
            self._ended = True
        if len(self._events) > self.high_water:
            if not self._readers:
                self._give_way()
            elif not self._released:
                self._room.clear()
        self._wake.set()

    async def room(self) -> None:
        """Wait until the reader has caught up: after `high_water`, to half of it."""
        await self._room.wait()

    def release(self) -> None:
        """Let :meth:`room` wait no more: the session is ending, few events are to come."""
        self._released = True
        self._room.set()

    def __aiter__(self) -> EventReader:
        self._refuse_second_reader()
        return EventReader(self)

    async def _next(self) -> Event:
        self._refuse_second_reader()
        self._reading = True
        try:
            while not self._events:
                if self._ended:
                    raise StopAsyncIteration
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._reading = False
        event = self._events.popleft()
        if len(self._events) <= self.high_water // 2:
            self._room.set()
        return event

    def _refuse_second_reader(self) -> None:
        if self._reading:
            raise RuntimeError("another task reads this session's events already")

    def _entered(self) -> None:
        self._readers += 1

    def _left(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._give_way()
            self._room.set()

    def _give_way(self) -> None:
        while len(self._events) > self.high_water:
            self._events.popleft()
            self.dropped += 1


class EventReader:
    """Reads a buffer's events; holds the far end back while it lags, until it is gone."""

    def __init__(self, buffer: EventBuffer) -> None:
        self._buffer = buffer
        self._open = True
        buffer._entered()

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        """The next event; ends after Closed. Raises RuntimeError beside another task's read."""
        if not self._open:
            raise StopAsyncIteration
        return await self._buffer._next()

    async def aclose(self) -> None:
        """Read no more: events that nobody wants give way again."""
        self._leave()

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._buffer._left()

    def __del__(self) -> None:
        self._leave()
