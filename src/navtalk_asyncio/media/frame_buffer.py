"""Bounded buffers of decoded frames, one per reader.

Nothing here knows aiortc or PyAV: a frame is any object. A buffer belongs to one event loop, whose
kind of event is `flag`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from navtalk_proto.event_buffer import Flag

__all__ = ["AUDIO_MICROSECONDS", "VIDEO_FRAMES", "FrameBuffer"]

FrameT = TypeVar("FrameT")

VIDEO_FRAMES = 2
"""Decoded pictures kept for a reader: the newest, and the one before it. A late picture is worse
than a missing one, and one 720p picture is 1.4 MB."""

AUDIO_MICROSECONDS = 400_000
"""Decoded audio kept for a reader. Longer than any scheduling hiccup seen, shorter than a delay
that a listener takes for an answer that never comes."""


class FrameBuffer(Generic[FrameT]):
    """An async iterator over frames that never holds more than its limit and drops the oldest.

    `limit` bounds the sum of `cost` over the frames held, both whole numbers in a unit of the
    caller's choice; `cost` is 1 per frame where it is not given, so that ``FrameBuffer(limit=2)``
    keeps the newest two. The newest frame is always kept, whatever it costs. Iteration waits for
    frames and ends after :meth:`close`, when everything held has been read. Reading is cancel-safe:
    a cancelled read takes no frame.
    """

    def __init__(
        self,
        *,
        limit: int,
        cost: Callable[[FrameT], int] | None = None,
        on_drop: Callable[[], None] | None = None,
        flag: Callable[[], Flag] = asyncio.Event,
    ) -> None:
        if limit < 1:
            raise ValueError("limit must be positive")
        self._limit = limit
        self._cost = cost if cost is not None else lambda _frame: 1
        self._on_drop = on_drop
        self._held: deque[tuple[FrameT, int]] = deque()
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
        cost = self._cost(frame)
        self._held.append((frame, cost))
        self._total += cost
        while self._total > self._limit and len(self._held) > 1:
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
        frame, cost = self._held.popleft()
        self._total -= cost
        return frame
