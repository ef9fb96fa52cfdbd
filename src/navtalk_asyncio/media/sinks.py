"""Functions that an engine calls with each frame, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from attrs import define

from navtalk_asyncio.media.interface import EncodedFrame

__all__ = ["DecodedSink", "EncodedSinks"]


@define(eq=False)
class _Sink:
    take: Callable[[EncodedFrame], None]
    on_end: Callable[[], None] | None


class EncodedSinks:
    """Those that want the encoded frames of one kind of media."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sinks: list[_Sink] = []
        self.codec: str | None = None
        """Of the newest frame, given or not."""

    @property
    def empty(self) -> bool:
        """Whether nobody wants frames."""
        return not self._sinks

    def add(
        self, take: Callable[[EncodedFrame], None], on_end: Callable[[], None] | None
    ) -> Callable[[], None]:
        """One more; returns what removes it."""
        sink = _Sink(take, on_end)
        self._sinks.append(sink)

        def remove() -> None:
            if sink in self._sinks:
                self._sinks.remove(sink)

        return remove

    def give(self, frame: EncodedFrame) -> None:
        """A frame for all. One that raises is removed and reported: aiortc would close the
        connection over it."""
        for sink in tuple(self._sinks):
            try:
                sink.take(frame)
            except Exception as exc:  # noqa: BLE001 - reported to the loop
                self._sinks.remove(sink)
                self._loop.call_exception_handler(
                    {"message": "an encoded sink raised and was removed", "exception": exc}
                )

    def end(self) -> None:
        """The media ended. The sinks stay for what a later connection brings."""
        for sink in tuple(self._sinks):
            if sink.on_end is not None:
                sink.on_end()

    def clear(self) -> None:
        """The engine is closed: nothing is given any more."""
        self._sinks.clear()


class DecodedSink:
    """A function where a FrameBuffer could be: one of an engine's readers of decoded frames.

    One that raises is removed and reported. With `any_thread` it is called on the thread that
    decodes, and otherwise on the loop; `on_end` always there. Decoding waits while `full`, which is
    asked on both, says so.
    """

    def __init__(
        self,
        take: Callable[[Any], None],
        on_end: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        *,
        any_thread: bool = False,
        full: Callable[[], bool] | None = None,
    ) -> None:
        self._take = take
        self._on_end = on_end
        self._loop = loop
        self._full = full
        self.any_thread: bool = any_thread
        self.closed: bool = False
        """Whether no further frame is wanted."""

    @property
    def full(self) -> bool:
        """Whether decoding has to wait."""
        return self._full is not None and self._full()

    def push(self, frame: Any) -> None:
        """The newest frame; called by the engine."""
        if self.closed:
            return
        try:
            self._take(frame)
        except Exception as exc:  # noqa: BLE001 - reported to the loop
            self.closed = True
            context = {"message": "a decoded sink raised and was removed", "exception": exc}
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)

    def close(self) -> None:
        """No more frames will come."""
        if not self.closed:
            self.closed = True
            self._on_end()

    def remove(self) -> None:
        """No more frames are wanted."""
        self.closed = True
