"""Bounded buffers of decoded frames, one per reader.

Nothing here knows aiortc or PyAV: a frame is any object. A buffer belongs to one event loop, whose
kind of event is `flag`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from navtalk_proto.event_buffer import Flag

__all__ = [
    "AUDIO_MICROSECONDS",
    "BURST_FRAMES",
    "BURST_SECONDS",
    "VIDEO_FRAMES",
    "FrameBuffer",
    "gives_way",
]

FrameT = TypeVar("FrameT")

VIDEO_FRAMES = 2
"""Decoded pictures kept for a reader: the newest, and the one before it. A late picture is worse
than a missing one, and one 720p picture is 1.4 MB."""

BURST_FRAMES = 8
"""Decoded pictures kept where they come at once, a quarter of a second of them. The packet that was
lost and came when it was asked for again lets all go that waited behind it, and they are decoded
before their reader has had a turn."""

BURST_SECONDS = 0.02
"""For how long: a reader that has had no turn by then is slow. Less than from one picture to the
next, so that these do not add up."""

AUDIO_MICROSECONDS = 400_000
"""Decoded audio kept for a reader. Longer than any scheduling hiccup seen, shorter than a delay
that a listener takes for an answer that never comes."""


class FrameBuffer(Generic[FrameT]):
    """An async iterator over frames that never holds more than its limit and drops the oldest.

    `limit` bounds the sum of `cost` over the frames held, both whole numbers in a unit of the
    caller's choice; `cost` is 1 per frame where it is not given, so that ``FrameBuffer(limit=2)``
    keeps the newest two. The newest frame is always kept, whatever it costs, and up to `burst` of
    them for BURST_SECONDS. Iteration waits for frames and ends after :meth:`close`, when everything
    held has been read. Reading is cancel-safe: a cancelled read takes no frame.
    """

    def __init__(
        self,
        *,
        limit: int,
        cost: Callable[[FrameT], int] | None = None,
        on_drop: Callable[[], None] | None = None,
        flag: Callable[[], Flag] = asyncio.Event,
        burst: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit < 1:
            raise ValueError("limit must be positive")
        self._limit = limit
        self._cost = cost if cost is not None else lambda _frame: 1
        self._on_drop = on_drop
        self._burst = burst
        self._now = now
        self._held: deque[tuple[FrameT, int, float]] = deque()
        """With the cost and the time of each."""
        self._total = 0
        self._changed = flag()
        self._closed = False
        self._dropped = 0

    @property
    def any_thread(self) -> bool:
        """It is pushed to on its own loop only."""
        return False

    @property
    def full(self) -> bool:
        """Nothing waits for its reader: the oldest gives way."""
        return False

    @property
    def dropped(self) -> int:
        """Frames given up because the reader was slower than the media."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether no further frame will come."""
        return self._closed

    def __len__(self) -> int:
        return len(self._held)

    def push(self, frame: FrameT) -> None:
        """Add the newest frame; called by the engine. Ignored after :meth:`close`."""
        if self._closed:
            return
        cost, now = self._cost(frame), self._now()
        self._held.append((frame, cost, now))
        self._total += cost
        while self._total > self._limit and gives_way(self._held, self._burst, now):
            self._total -= self._held.popleft()[1]
            self._dropped += 1
            if self._on_drop is not None:
                self._on_drop()
        self._changed.set()

    def close(self) -> None:
        """No more frames will come: readers get what is held, then the iteration ends."""
        self._closed = True
        self._changed.set()

    async def aclose(self) -> None:
        """Stop reading: what is held is thrown away and the iteration ends."""
        self._held.clear()
        self._total = 0
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FrameT:
        while not self._held:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        frame, cost, _ = self._held.popleft()
        self._total -= cost
        return frame


def gives_way(held: deque[tuple[FrameT, int, float]], burst: int, now: float) -> bool:
    """Whether the oldest of frames that are more than their limit is dropped: not the only one, and
    none of up to `burst` that came just now."""
    return len(held) > burst or (len(held) > 1 and now - held[0][2] >= BURST_SECONDS)
