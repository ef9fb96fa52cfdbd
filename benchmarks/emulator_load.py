"""How many sessions does the emulator serve on one core, idle and speaking?

Run: ``python benchmarks/emulator_load.py [SESSIONS [SECONDS]]``. Needs ``navtalk[cli]`` and Linux.

How to read it: the emulator runs in a process of its own, whose processor time is what is measured;
1.00 is one core. The clients are in this process, receive everything and decode nothing. "drawn" is
the same idle sessions when every picture is drawn and encoded for each of them, as it was before
there was an idle clip: the ratio of the two is the clip's worth, and does not depend on the
machine. In "speaking" all of them speak at once, which a clip cannot serve: their mouths follow
their voices. Exit code 1 says that SESSIONS idle ones (10 by default) need more than one core, or
that less than 95 % of the pictures of 25 a second arrived. Other programs make it worse.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from navtalk_asyncio import ClientSession, connect
from navtalk_proto import Endpoint
from navtalk_proto.media import MediaKind
from navtalk_proto.secret import Secret

SESSIONS, SECONDS = 10, 10.0
PICTURES, ENOUGH = 25.0, 0.95
WARM_UP: Final = 4.0
"""Seconds until the clip is made and every session has changed to it."""

EMULATOR: Final = """
import asyncio, sys
import numpy as np
from navtalk_asyncio.emulator import Reply, emulate, emulator
from navtalk_asyncio.emulator.idle_clip import IdleClips

class Talker:
    async def hear(self, conversation):
        return ""
    async def reply(self, conversation):
        t = np.arange(200 * 24_000) / 24_000
        voice = np.random.default_rng(1).normal(0.0, 4000.0, t.size)
        return Reply(text="So", pcm=(voice * np.abs(np.sin(4 * np.pi * t))).astype("<i2").tobytes())

async def main():
    if sys.argv[1] == "drawn":
        IdleClips.get = lambda self, face, codec: None
    async with emulate(brain=Talker()) as human:
        print(human.url, human.directory.avatars[0].name, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pictures(sessions: list[ClientSession]) -> int:
    tracks = [session.stats().received(MediaKind.VIDEO) for session in sessions]
    return sum(track.frames_received for track in tracks if track is not None)


async def measure(
    what: str, count: int, seconds: float, *, how: str = "clip", speaking: bool = False
) -> tuple[float, float]:
    """Cores of one session, and pictures a second that one received."""
    emulator = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        EMULATOR,
        how,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert emulator.stdin is not None
    assert emulator.stdout is not None
    try:
        url, _, name = (await emulator.stdout.readline()).decode().strip().partition(" ")
        endpoint = Endpoint(base_url=url, license=Secret("sk_navtalk_EXAMPLE"), name=name)
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(connect(endpoint, proxy=None)) for _ in range(count)
            ]
            if speaking:
                for session in sessions:
                    await session.send_text("Go on.")
            await asyncio.sleep(WARM_UP)
            cpu, wall, seen = processor_seconds(emulator.pid), time.monotonic(), pictures(sessions)
            await asyncio.sleep(seconds)
            cpu = processor_seconds(emulator.pid) - cpu
            wall = time.monotonic() - wall
            rate = (pictures(sessions) - seen) / wall / count
    finally:
        emulator.stdin.close()
        await emulator.wait()
    cores = cpu / wall
    print(
        f"{what:<10} {count:9} {cores:9.2f} {cores / count:12.3f} {rate:14.1f}",
        flush=True,
    )
    return cores / count, rate


async def main(count: int = SESSIONS, seconds: float = SECONDS) -> int:
    print(f"{'':<10} {'sessions':>9} {'cores':>9} {'per session':>12} {'pictures/s':>14}")
    drawn, _ = await measure("drawn", 1, seconds, how="drawn")
    idle, _ = await measure("idle", 1, seconds)
    many, rate = await measure("idle", count, seconds)
    await measure("speaking", 1, seconds, speaking=True)
    await measure("speaking", count, seconds, speaking=True)
    print(f"idle, drawn for each session : out of the clip = {drawn / idle:.1f} : 1")
    met = many * count <= 1.0 and rate >= ENOUGH * PICTURES
    print(f"{count} idle sessions on one core: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(asyncio.run(main(*map(int, arguments[:1]), *map(float, arguments[1:2]))))
