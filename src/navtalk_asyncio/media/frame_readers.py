"""Who reads the decoded frames of one kind of media, and how a frame comes to them.

Pictures are decoded on a thread, and readers belong to the engine's loop: a frame costs the loop
one wake-up, however many readers there are, and none while the one before has not run. A reader
that takes frames on any thread gets them where they are decoded, and the loop is not woken.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

__all__ = ["FrameReader", "FrameReaders"]


class FrameReader(Protocol):
    """One reader. It is kept by whoever reads, not by the engine."""

    @property
    def closed(self) -> bool:
        """Whether no further frame is wanted, or will come."""
        ...

    @property
    def any_thread(self) -> bool:
        """Whether :meth:`push` may be called on any thread."""
        ...

    @property
    def full(self) -> bool:
        """Whether decoding has to wait until it has taken something. Asked on any thread."""
        ...

    def push(self, frame: Any, /) -> None:
        """The newest frame."""
        ...

    def close(self) -> None:
        """No more frames will come. Called on the loop."""
        ...


class FrameReaders:
    """The readers of one kind, of one engine. All but :meth:`push` and `full` is for the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Replaced and never changed: a decoder's thread goes through it meanwhile.
        self._readers: tuple[weakref.ref[FrameReader], ...] = ()
        self._waiting: deque[Any] = deque()
        self._waking = False

    @property
    def wanted(self) -> bool:
        """Whether somebody reads."""
        for reference in self._readers:
            reader = reference()
            if reader is not None and not reader.closed:
                return True
        return False

    @property
    def full(self) -> bool:
        """Whether decoding has to wait for one of them. May be asked on any thread."""
        for reference in self._readers:
            reader = reference()
            if reader is not None and reader.full and not reader.closed:
                return True
        return False

    def __iter__(self) -> Iterator[FrameReader]:
        for reference in self._readers:
            reader = reference()
            if reader is not None:
                yield reader

    def add(self, reader: FrameReader) -> None:
        """One more."""
        living = [weakref.ref(other) for other in self if not other.closed]
        self._readers = (*living, weakref.ref(reader))

    def end(self) -> None:
        """The media ended: close all, and forget them."""
        self.give_waiting()
        readers, self._readers = self._readers, ()
        for reference in readers:
            reader = reference()
            if reader is not None:
                reader.close()

    def push(self, frame: Any, *, on_loop: bool) -> None:
        """A frame for all, from the thread that decoded it; `on_loop` where that is the loop's."""
        later = False
        for reference in self._readers:
            reader = reference()
            if reader is None or reader.closed:
                continue
            if on_loop or reader.any_thread:
                reader.push(frame)
            else:
                later = True
        if later:
            self._waiting.append(frame)
            if not self._waking:
                self._waking = True
                with suppress(RuntimeError):  # The loop is gone, and its readers with it.
                    self._loop.call_soon_threadsafe(self.give_waiting)

    def give_waiting(self) -> None:
        """Give the loop's readers what a thread has decoded."""
        # Before the frames are taken: one that is added from now on wakes the loop again.
        self._waking = False
        while self._waiting:
            frame = self._waiting.popleft()
            for reader in self:
                if not reader.any_thread and not reader.closed:
                    reader.push(frame)
