"""Do a client and the emulator run together in real time, in one process?

Run: ``python benchmarks/demo_load.py [SECONDS]``. Needs ``navtalk[cli]``.

How to read it: the client speaks and the emulator answers for SECONDS (20 by default), over real
sockets, with the emulator's face and voice encoded live and decoded by the client. "CPU" is the
processor time of the whole process for each second of conversation: 1.00 is one core. In real time
means that the pictures and the sound arrive as fast as they are made, 25 pictures and 50 frames of
20 ms a second; exit code 1 says that less than 95 % of either arrived, or that more than two cores
were wanted. "idle" is the same without a word said, and so without an answer. Other programs on the
machine make it worse.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from navtalk_asyncio import ClientSession, connect
from navtalk_asyncio.emulator import emulate
from navtalk_proto.events import Event, MessageReceived
from navtalk_proto.wire.messages import TranscriptDone

SECONDS = 20.0
PICTURES, SOUNDS = 25.0, 50.0
ENOUGH = 0.95
CORES = 2.0
PIECE_MS = 64


class Count:
    """Frames that an iterator gave."""

    def __init__(self) -> None:
        self.frames = 0

    async def run(self, frames: AsyncIterator[Any]) -> None:
        async for _ in frames:
            self.frames += 1


def speech() -> bytes:
    """Two seconds like speech, four syllables a second, and the time in which they are echoed."""
    t = np.arange(2 * 24_000) / 24_000
    noise = np.random.default_rng(1).normal(0.0, 4000.0, t.size)
    voiced = noise * np.abs(np.sin(2.0 * np.pi * 2.0 * t))
    return bytes(voiced.astype("<i2")) + bytes(2 * 24_000 * 3)


async def talk(session: ClientSession) -> None:
    """Turns without end, in real time, until cancelled."""
    pcm, size = speech(), PIECE_MS * 48
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        for at in range(0, len(pcm), size):
            await session.send_audio(pcm[at : at + size])
            due += PIECE_MS / 1000
            await asyncio.sleep(due - loop.time())


async def measure(name: str, seconds: float, *, talking: bool) -> bool:
    answers = 0

    def observe(event: Event) -> None:
        nonlocal answers
        message = event.message if isinstance(event, MessageReceived) else None
        answers += isinstance(message, TranscriptDone)

    async with (
        emulate() as human,
        connect(human.endpoint(), proxy=None, observe=observe) as session,
    ):
        pictures, sounds = Count(), Count()
        tasks = [
            asyncio.create_task(pictures.run(session.video)),
            asyncio.create_task(sounds.run(session.audio)),
        ]
        if talking:
            tasks.append(asyncio.create_task(talk(session)))
        await asyncio.sleep(1.0)  # What is painted and opened once is not the load.
        before = pictures.frames, sounds.frames
        wall, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        video, audio = (pictures.frames - before[0]) / wall, (sounds.frames - before[1]) / wall
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    met = video >= ENOUGH * PICTURES and audio >= ENOUGH * SOUNDS and cpu / wall <= CORES
    print(
        f"{name:<10} {cpu / wall:9.2f} {video:12.1f} {audio:14.1f} {answers:9}"
        f"   {'yes' if met else 'NO'}",
        flush=True,
    )
    return met


async def main(seconds: float = SECONDS) -> int:
    columns = f"{'CPU s/s':>9} {'pictures/s':>12} {'audio frames/s':>14} {'answers':>9}"
    print(f"{'':<10} {columns}   in real time")
    met = [
        await measure("idle", seconds / 2, talking=False),
        await measure("talking", seconds, talking=True),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*map(float, sys.argv[1:]))))
