"""How many sessions does the emulator serve on one core, idle and speaking?

Run: ``python benchmarks/emulator_load.py [SESSIONS [SECONDS]]``. Needs ``navtalk[cli]`` and Linux.

How to read it: the emulator runs in a process of its own, whose processor time is what is measured;
1.00 is one core. The clients are in this process, receive everything and decode nothing. "drawn" is
an idle session when every picture is drawn and encoded for it, as it was before there was an idle
clip: the ratio of the two is the clip's worth, and does not depend on the machine. "canned" ones
all say the same answer at once, which is encoded once for all of them; in "live" their mouths
follow their voices, and no clip can serve that. Exit code 1 says that SESSIONS idle ones (10 by
default), or as many canned ones, need more than one core, or that less than 95 % of the pictures of
25 a second arrived. Other programs make it worse.
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
"""Seconds until the idle clip is made and every session has changed to it."""

BEGUN: Final = 3.0
"""Seconds until everybody speaks."""

EMULATOR: Final = """
import asyncio, sys
import numpy as np
from navtalk_asyncio.emulator import Reply, emulate, emulator
from navtalk_asyncio.emulator.idle_clip import IdleClips

class Talker:
    async def hear(self, conversation):
        return ""
    async def reply(self, conversation):
        t = np.arange(int(sys.argv[2]) * 24_000) / 24_000
        voice = np.random.default_rng(1).normal(0.0, 4000.0, t.size)
        pcm = (voice * np.abs(np.sin(4 * np.pi * t))).astype("<i2").tobytes()
        return Reply(text="So", pcm=pcm, canned=sys.argv[1] != "live")

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


async def say(sessions: list[ClientSession]) -> None:
    for session in sessions:
        await session.send_text("Go on.")


async def measure(
    what: str, count: int, seconds: float, *, how: str = "clip", says: int = 0
) -> tuple[float, float]:
    """Cores of one session, and pictures a second that one received, while it `says` what it says
    for the n-th time; 0: while it says nothing."""
    lasts = int(BEGUN + seconds) + 1
    emulator = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        EMULATOR,
        how,
        str(lasts),
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
            await asyncio.sleep(WARM_UP)
            for _ in range(says - 1):
                await say(sessions)
                await asyncio.sleep(lasts + BEGUN)
            if says:
                await say(sessions)
                await asyncio.sleep(BEGUN)
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
        f"{what:<14} {count:9} {cores:9.2f} {cores / count:12.3f} {rate:14.1f}",
        flush=True,
    )
    return cores / count, rate


async def main(count: int = SESSIONS, seconds: float = SECONDS) -> int:
    print(f"{'':<14} {'sessions':>9} {'cores':>9} {'per session':>12} {'pictures/s':>14}")
    drawn, _ = await measure("idle, drawn", 1, seconds, how="drawn")
    idle, _ = await measure("idle", 1, seconds)
    idle_many = await measure("idle", count, seconds)
    live, _ = await measure("live", 1, seconds, how="live", says=1)
    await measure("live", count, seconds, how="live", says=1)
    first_many = await measure("canned, first", count, seconds, says=1)
    canned, _ = await measure("canned, again", 1, seconds, says=2)
    canned_many = await measure("canned, again", count, seconds, says=2)
    print(f"idle, drawn for each session : out of the clip = {drawn / idle:.1f} : 1")
    print(f"speaking, followed live : out of the clip = {live / canned:.1f} : 1")
    met = True
    for what, (each, rate) in (
        ("idle sessions", idle_many),
        ("speaking sessions, canned and said first", first_many),
        ("speaking sessions, canned and said again", canned_many),
    ):
        fits = each * count <= 1.0 and rate >= ENOUGH * PICTURES
        print(f"{count} {what} on one core: {'yes' if fits else 'NO'}")
        met = met and fits
    return 0 if met else 1


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(asyncio.run(main(*map(int, arguments[:1]), *map(float, arguments[1:2]))))
