"""The emulator as a process of its own: prints its URL, then takes faults by name, line by line.

It answers each line with ``ok``, and ends with its standard input. What it says is what was typed,
with three seconds of a tone.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from navtalk_asyncio.emulator import Conversation, Reply, emulate

RATE = 24_000
SECONDS = 3.0


class Parrot:
    """A brain that answers at once."""

    def __init__(self) -> None:
        wave = np.sin(2 * np.pi * 300 * np.arange(int(SECONDS * RATE)) / RATE)
        self._pcm = np.round(10_000 * wave).astype("<i2").tobytes()

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text=f"Parrot: {conversation.text}", pcm=self._pcm)


async def main() -> None:
    async with emulate(brain=Parrot()) as human:
        print(human.url, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            human.fail(line.strip() or None)
            print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
