"""A thread that is there before a receiver of aiortc starts one.

Starting a thread waits until it runs, which takes three milliseconds where other work has the
cores: too long between an answer and the first ICE check.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from aiortc import RTCRtpReceiver

__all__ = ["EarlyThread"]


class EarlyThread(threading.Thread):
    """Runs from when it is made; what it has to do comes later.

    An engine that nobody closes does not keep the interpreter from ending.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.taken: bool = False
        """Whether a receiver has it; then it ends with that."""
        self.dismissed: bool = False
        """Whether it ended without work, or is about to."""
        super().start()

    def serve(self, receiver: RTCRtpReceiver) -> None:
        """Be the thread that this receiver is going to start."""
        stock = RTCRtpReceiver.receive
        # The same code, with another answer where it asks for a thread: no other receiver sees it.
        names = stock.__globals__ | {"threading": SimpleNamespace(Thread=self._take)}
        function = FunctionType(stock.__code__, names, stock.__name__)
        receiver.receive = MethodType(function, receiver)  # type: ignore[method-assign]

    def start(self) -> None:
        """Do nothing: what aiortc calls when it has made its thread."""

    def run(self) -> None:
        """As threading.Thread."""
        if (work := self._work.get()) is not None:
            work()

    def dismiss(self) -> None:
        """No receiver will take it. Otherwise, and again: nothing."""
        if not self.taken and not self.dismissed:
            self.dismissed = True
            self._work.put(None)

    def _take(
        self, *, target: Callable[..., object], name: str, args: tuple[Any, ...]
    ) -> threading.Thread:
        if self.taken or self.dismissed:
            return threading.Thread(target=target, name=name, args=args)
        self.taken = True
        self._work.put(partial(target, *args))
        return self
