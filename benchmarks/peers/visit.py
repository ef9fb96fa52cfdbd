"""One session of a receiver: what it is to consume, until when, and what it saw.

The receivers' common part, on any loop. :func:`main` is their command line: ``python -m peers.NAME
--url ws://...`` in this directory's parent prints one JSON object a session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import chirp
import numpy as np
from attrs import asdict, field, mutable

WARM_UP_SECONDS: Final = 2.0
"""From the offer's arrival to the beginning of what is measured: decoders are open, rates known."""

PATIENCE_SECONDS: Final = 20.0
"""How long a session's first picture and sound are waited for."""

CONSUME: Final = ("first", "decoded", "read", "recorded", "nothing")
"""first     pictures and sound are read until one of each has come, and the session ends
decoded   pictures and sound are read, and nothing is done with them
read      and each picture's number and each sound's place are read, for latencies
recorded  a file is written, in the way of the receiver's library
nothing   nobody asks for anything"""

Receive: TypeAlias = "Callable[[str, Visit], Awaitable[None]]"


@mutable
class Visit:
    """What a receiver is told, and what it tells. Times are CLOCK_MONOTONIC seconds."""

    consume: str
    seconds: float
    file: str = ""
    """Where to record to."""
    warm_up: float = WARM_UP_SECONDS

    session: str = ""
    offer: float = math.nan
    """When the offer was read from the WebSocket."""
    answer: float = math.nan
    """When the answer was given to it."""
    begin: float = math.inf
    end: float = math.inf
    cpu: float = math.nan
    """Processor seconds of this process, user and system, between `begin` and `end`."""
    pictures: list[tuple[int | None, float]] = field(factory=list)
    """Number and arrival."""
    sounds: list[tuple[Any, float]] = field(factory=list)
    """Samples and arrival, until :meth:`result` finds the places of the samples."""
    memory: list[tuple[float, float]] = field(factory=list)
    """Resident MiB at a time, twice a second from `begin` on."""

    @property
    def wants_media(self) -> bool:
        """Whether decoded pictures and sound are to be read."""
        return self.consume in ("first", "decoded", "read")

    def received(self, text: str, now: float) -> None:
        """A message came in by the WebSocket."""
        if math.isnan(self.offer) and '"webrtc.signaling.offer"' in text:
            self.offer = now
        elif not self.session and '"conversation.connected.success"' in text:
            self.session = json.loads(text)["data"]["sessionId"]

    def sent(self, text: str) -> None:
        """A message left by the WebSocket."""
        if math.isnan(self.answer) and '"webrtc.signaling.answer"' in text:
            self.answer = time.monotonic()

    def picture(self, now: float, number: Callable[[], int | None]) -> None:
        """A decoded picture has come to the user."""
        self.pictures.append((number() if self.consume == "read" else None, now))

    def sound(self, now: float, samples: Callable[[], np.ndarray[Any, Any]]) -> None:
        """A piece of decoded sound has come to the user. `samples` gives it mono, 48 kHz, int16."""
        if self.consume == "read":
            self.sounds.append((samples(), now))
        elif self.consume == "decoded":
            self.sounds.append((None, now))
        elif not self.sounds and np.abs(samples()).max(initial=0) >= chirp.AUDIBLE:
            self.sounds.append((None, now))  # What a player makes up before is no sound.

    def pause(self) -> float | None:
        """Measures what is due; for how long to sleep until the next call, None when it is over."""
        now = time.monotonic()
        if math.isnan(self.offer):
            return 0.01
        if self.consume == "first":
            over = (self.pictures and self.sounds) or now > self.offer + PATIENCE_SECONDS
            return None if over else 0.01
        if now < self.offer + self.warm_up:
            return self.offer + self.warm_up - now
        if math.isinf(self.begin):
            self.begin, self.cpu = now, time.process_time()
            self.end = now + self.seconds
        self.memory.append((now, resident_mib()))
        if now >= self.end:
            self.end, self.cpu = now, time.process_time() - self.cpu
            return None
        return min(0.5, self.end - now)

    async def last(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Return when it is over. `sleep` is the loop's."""
        while (pause := self.pause()) is not None:
            await sleep(pause)

    def result(self) -> dict[str, Any]:
        """What is printed: the fields, with the places of sounds instead of their samples."""
        found = asdict(self, recurse=False)
        found["sounds"] = [
            (None if samples is None else chirp.place(samples), at) for samples, at in self.sounds
        ]
        return found


def resident_mib() -> float:
    """What this process has in memory; NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_asyncio(sessions: Callable[[], Awaitable[None]], loop: str) -> None:
    """Run on asyncio's own loop, or on uvloop."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    else:
        # navtalk's engine thread takes uvloop where it finds it.
        sys.modules["uvloop"] = None  # type: ignore[assignment]

    async def main() -> None:
        await sessions()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def nothing() -> None:
    """There is nothing to close."""


def main(
    receive: Receive,
    run: Callable[[Callable[[], Awaitable[None]], str], None] = run_asyncio,
    aclose: Callable[[], Awaitable[None]] = nothing,
) -> None:
    """Receive sessions one after the other in this process, and print a line for each."""
    parser = argparse.ArgumentParser(description="a receiver of benchmarks/sender.py")
    parser.add_argument("--url", required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--consume", choices=CONSUME, default="first")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_SECONDS)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--file", default="")
    options = parser.parse_args()

    async def sessions() -> None:
        try:
            for _ in range(options.sessions):
                visit = Visit(options.consume, options.seconds, options.file, options.warm_up)
                await receive(options.url, visit)
                print(json.dumps(visit.result()), flush=True)
        finally:
            await aclose()

    run(sessions, options.loop)
