"""Does a session that nobody reads grow?

Run: ``python benchmarks/memory_unread.py`` (2 minutes). Needs ``navtalk[all,bench]``.

How to read it: MiB a second by which the resident memory of the receiving process grows in ten
seconds, from two seconds after the offer on, while 720p30 VP8 and Opus come in and no track is
read. Stock aiortc decodes all of it into a queue without a bound. Ours keeps coded pictures since
the last keyframe, two MiB at most, and reaches that once; a fifth of a MiB a second is as flat as
ten seconds can show. `soak.py` looks for longer.
"""

from __future__ import annotations

import sys

from answers import Answer, Bar, Options, main, progress
from plots import timelines
from receivers import OURS, receive
from sender import running_sender

SECONDS = 10.0
FLAT = Bar(0.2)


def run(options: Options) -> list[Answer]:
    """The answer; draws the last round."""
    growth: list[dict[str, float]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    with running_sender("--stock") as sender:
        for _ in range(options.times(3)):
            growth.append({})
            for peer in options.among(*OURS, "stock"):
                progress(f"memory of an unread session: {peer}")
                seconds = options.seconds(SECONDS)
                (seen,) = receive(
                    peer, sender.url, loop=options.loop, consume="nothing", seconds=seconds
                )
                growth[-1][peer] = seen.growth
                lines[peer] = [(at - seen.begin, mib) for at, mib in seen.memory]
    if options.plots:
        timelines(lines, "A session that nobody reads", "MiB", options.plots / "unread_memory.png")
    return [Answer("memory of an unread session, MiB/s", list(growth), (FLAT,), digits=2)]


if __name__ == "__main__":
    sys.exit(main("memory of a session that nobody reads", run))
