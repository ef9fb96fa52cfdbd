"""What a digital human says, sentence by sentence, as its voice gets there.

A server sends the text of an answer at once, and speaks it for seconds. No message tells how far
the voice is, so a sentence is shown when those before it can have been spoken, from the moment on
at which the voice was first heard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import anyio

from navtalk_proto.config import ClientConfig
from navtalk_proto.events import (
    Event,
    ResponseGenerated,
    ResponseInterrupted,
    ResponseStarted,
    ResponseText,
)

__all__ = ["Captions"]

_SENTENCE: Final = re.compile(r"\s*(\S.*?[.!?…。！？]+[\"'”’)\]]*)(?=\s)", re.DOTALL)  # noqa: RUF001


class Captions:
    """Shows each sentence once. Give it every event, and tell it when the voice is heard."""

    def __init__(
        self, show: Callable[[str], None], *, rate: float = ClientConfig().speech_rate
    ) -> None:
        """`rate` is characters a second."""
        self._show = show
        self._rate = rate
        self._waiting = ""
        self._whole = False
        self._taken = 0
        self._spoken = False
        self._news = anyio.Event()

    def take(self, event: Event) -> None:
        """See an event."""
        match event:
            case ResponseStarted():
                self._waiting, self._whole, self._taken, self._spoken = "", False, 0, False
            case ResponseText(delta=delta):
                self._waiting += delta
                self._taken += len(delta)
            case ResponseGenerated(text=text):
                if text:
                    self._waiting += text[self._taken :]
                    self._taken = len(text)
                self._whole = True
            case ResponseInterrupted():
                self._waiting = ""
            case _:
                return
        self._wake()

    def heard(self) -> None:
        """The voice is heard: it says the first sentence that was not shown."""
        if not self._spoken:
            self._spoken = True
            self._wake()

    async def run(self) -> None:
        """Show sentences until this is cancelled."""
        while True:
            sentence = self._next() if self._spoken else ""
            if sentence:
                self._show(sentence)
                await anyio.sleep(len(sentence) / self._rate)
            else:
                await self._news.wait()
                self._news = anyio.Event()

    def _next(self) -> str:
        found = _SENTENCE.match(self._waiting)
        if found is not None:
            self._waiting = self._waiting[found.end() :]
            return " ".join(found[1].split())
        if not self._whole:
            return ""
        rest, self._waiting = self._waiting, ""
        return " ".join(rest.split())

    def _wake(self) -> None:
        self._news.set()
