"""How many sessions with media does one core hold?

Run: ``python benchmarks/sessions.py --media``, three and a half minutes; this file is its part.

A sender process (`sender.py`: 720p30 and Opus, prepared) runs on another core. For each adapter,
way of consuming and number of sessions a fresh interpreter, bound to one core with all its threads,
opens that many sessions, and counts for some seconds what comes. uvloop is used where installed.

How to read it: *cpu* and *waited* are as in the table of signaling-only sessions; *sent* is what
the sender sent, in percent of its clip's pictures a second; *arrived* is what got to its place in
percent of what was sent: pictures that were decoded and read, or, where nobody decodes, complete
ones; *lost* is in percent of the packets. A number of sessions is held when 99 % arrived. It is the
sender that did not keep up where less than 98 % was sent: the curve ends there, and the knee is
further out.

idle      nobody reads, nothing is decoded
recorded  `session.record()` to Matroska
vp8       both tracks are read: decoded
h264      the same, of H.264

The numbers tried begin with one session, go on at parts of what its processor time leaves room for,
and end at the first that is not held, and one below it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import trio
from attrs import asdict, frozen
from peers.ours_trio import run_trio
from peers.visit import run_asyncio
from peers.watched_transport import human_at, plain_config
from receivers import loops
from sender import Sender, running_sender
from sessions import ADAPTERS, cores

import navtalk_asyncio
import navtalk_trio
from navtalk_proto.media import MediaKind

MODES: Final = ("idle", "recorded", "vp8", "h264")
CODECS: Final = ("vp8", "h264")
WARM_UP: Final = 1.5
SECONDS: Final = 3.0
BUDGET_SECONDS: Final = 170.0
"""After so many no further number is tried."""
PARTS: Final = (0.8, 1.1, 1.5)
"""Of the sessions that the processor time of one leaves room for: those of a process share some."""
MOST: Final = 48
ARRIVED_BAR: Final = 99.0
SENT_BAR: Final = 98.0
PATIENCE: Final = 60.0


@frozen(kw_only=True)
class MediaPoint:
    """One number of sessions that consume in one way on one adapter."""

    adapter: str
    mode: str
    sessions: int
    cpu: float
    """Percent of the core."""
    waited: float
    """Percent of the time that the client was ready to run and others had its core."""
    sent: float
    """Percent of the clip's pictures a second, mean of the sessions."""
    arrived: float
    """Percent of the pictures that were sent."""
    lost: float
    """Percent of the packets."""

    @property
    def held(self) -> bool:
        """Whether what was sent arrived."""
        return self.arrived >= ARRIVED_BAR

    @property
    def sender_kept_up(self) -> bool:
        """Whether there was as much to hold as there should be."""
        return self.sent >= SENT_BAR


# ---- the client


@frozen(kw_only=True)
class Count:
    """What one session has got until now."""

    pictures: int
    packets: int
    lost: int


def count(session: Any, mode: str) -> Count:
    track = session.stats().received(MediaKind.VIDEO)
    return Count(
        pictures=track.frames_decoded - track.frames_dropped
        if mode in CODECS
        else track.frames_received,
        packets=track.packets,
        lost=track.packets_lost,
    )


def waiting() -> float:
    """Seconds for which this process's threads have waited for their core until now."""
    told = [path.read_text() for path in Path("/proc/self/task").glob("*/schedstat")]
    return sum(int(text.split()[1]) for text in told) / 1e9


async def read_track(track: Any) -> None:
    async for _ in track:
        pass


async def hold(
    connect: Callable[..., Any],
    sleep: Callable[[float], Any],
    start: Callable[[Any], None],
    mode: str,
    url: str,
    sessions: int,
    seconds: float,
) -> dict[str, Any]:
    """Open sessions, consume, count; `start` runs a coroutine beside this one."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opened = []
        for number in range(sessions):
            session = await stack.enter_async_context(
                connect(human_at(url), config=plain_config(), proxy=None)
            )
            opened.append(session)
            if mode in CODECS:
                start(session.video)
                start(session.audio)
            elif mode == "recorded":
                await stack.enter_async_context(session.record(directory / f"{number}.mkv"))
        await sleep(WARM_UP)
        gc.collect()
        begin, cpu, waited = time.monotonic(), time.process_time(), waiting()
        before = [count(session, mode) for session in opened]
        await sleep(seconds)
        after = [count(session, mode) for session in opened]
        end, cpu, waited = time.monotonic(), time.process_time() - cpu, waiting() - waited
        return {
            "begin": begin,
            "end": end,
            "cpu": cpu,
            "waited": waited,
            "sessions": {
                session.id: [asdict(was), asdict(now)]
                for session, was, now in zip(opened, before, after, strict=True)
            },
        }


def run_client(adapter: str, mode: str, url: str, sessions: int, seconds: float) -> None:
    """Print what :func:`hold` found as one JSON line."""

    async def on_asyncio() -> None:
        async with asyncio.TaskGroup() as group:
            reading: list[asyncio.Task[None]] = []

            def start(track: Any) -> None:
                reading.append(group.create_task(read_track(track)))

            connect = navtalk_asyncio.connect
            found = await hold(connect, asyncio.sleep, start, mode, url, sessions, seconds)
        print(json.dumps(found))

    async def on_trio() -> None:
        async with trio.open_nursery() as nursery:

            def start(track: Any) -> None:
                nursery.start_soon(read_track, track)

            connect = navtalk_trio.connect
            found = await hold(connect, trio.sleep, start, mode, url, sessions, seconds)
        print(json.dumps(found))

    if adapter == "asyncio":
        run_asyncio(on_asyncio, loops()[0])
    else:
        run_trio(on_trio, loops()[0])


# ---- the benchmark


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores."""
    had = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, had)


def measure_point(
    adapter: str, mode: str, sender: Sender, sessions: int, seconds: float, core: set[int]
) -> MediaPoint:
    """One number of sessions, in a fresh interpreter."""
    command = [sys.executable, str(Path(__file__).with_name("sessions.py")), "--media-client"]
    with on_cores(core):
        done = subprocess.run(
            [*command, adapter, mode, sender.url, str(sessions), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
    found = json.loads(done.stdout)
    begin, end = found["begin"], found["end"]
    sent = got = packets = lost = 0
    for session_id, (before, after) in found["sessions"].items():
        sent += sum(begin <= at < end for at in sender.sent(session_id).times)
        got += after["pictures"] - before["pictures"]
        lost += after["lost"] - before["lost"]
        packets += after["packets"] - before["packets"]
    took = end - begin
    return MediaPoint(
        adapter=adapter,
        mode=mode,
        sessions=sessions,
        cpu=100 * found["cpu"] / took,
        waited=100 * found["waited"] / took,
        sent=100 * sent / (sessions * sender.fps * took),
        # A picture that was on its way at the beginning or at the end is one of forty or more.
        arrived=min(100.0, 100 * (got + sessions) / max(sent, 1)),
        lost=100 * max(lost, 0) / max(packets + lost, 1),
    )


def numbers(cpu: float) -> Iterator[int]:
    """The numbers of sessions to try after one, which takes `cpu` percent."""
    tried = 1
    for part in PARTS:
        number = min(MOST, round(part * 100 / cpu))
        if number > tried:
            yield number
            tried = number


def report(*, quick: bool = False, adapters: Sequence[str] = ADAPTERS) -> list[MediaPoint]:
    """All adapters and modes, each up to its knee; prints what it finds."""
    client, server = cores()
    seconds = 1.0 if quick else SECONDS
    points: list[MediaPoint] = []
    until = time.monotonic() + BUDGET_SECONDS

    def curve(adapter: str, mode: str, sender: Sender) -> None:
        def point(sessions: int) -> MediaPoint:
            points.append(measure_point(adapter, mode, sender, sessions, seconds, client))
            show(points[-1])
            return points[-1]

        last = point(1)
        if quick or not last.held:
            return
        for number in numbers(last.cpu):
            if time.monotonic() > until:
                return
            following = point(number)
            if not following.sender_kept_up:
                return
            if not following.held:
                between = (last.sessions + number + 1) // 2
                if between not in (last.sessions, number):
                    point(between)
                return
            last = following

    for codec in CODECS:
        with on_cores(server), running_sender("--codec", codec) as sender:
            for mode in [codec] if codec == "h264" else [one for one in MODES if one != "h264"]:
                for adapter in adapters:
                    curve(adapter, mode, sender)
    return points


def knee(points: Sequence[MediaPoint], adapter: str, mode: str) -> tuple[int, bool]:
    """The largest number that was held, with all smaller ones; and whether more was tried in vain.

    What the sender did not keep up with says nothing, and is left out.
    """
    found = 0
    own = [one for one in points if (one.adapter, one.mode) == (adapter, mode)]
    for point in sorted(own, key=lambda one: one.sessions):
        if not point.sender_kept_up:
            return found, False
        if not point.held:
            return found, True
        found = point.sessions
    return found, False


HEADING: Final = "adapter  mode      sessions   cpu %  waited %  sent %  arrived %  lost %"


def show(point: MediaPoint) -> None:
    end = "" if point.held else "  not held"
    print(
        f"{point.adapter:9}{point.mode:9}{point.sessions:9}{point.cpu:8.1f}{point.waited:10.1f}"
        f"{point.sent:8.1f}{point.arrived:11.1f}{point.lost:8.2f}"
        f"{end if point.sender_kept_up else '  the sender did not keep up'}",
        flush=True,
    )


def told(points: Sequence[MediaPoint]) -> list[str]:
    """A sentence for each knee."""
    sentences = []
    for mode in MODES:
        for adapter in dict.fromkeys(point.adapter for point in points):
            number, sure = knee(points, adapter, mode)
            least = "" if sure else "at least "
            sentences.append(f"{adapter}, {mode}: one core holds {least}{number} sessions")
    return sentences


def plot(points: Sequence[MediaPoint], file: Path) -> None:
    """The curves: what arrived, and processor time, over the number of sessions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    colours = dict(zip(MODES, ("tab:green", "tab:purple", "tab:blue", "tab:orange"), strict=True))
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    for mode in MODES:
        for adapter in dict.fromkeys(point.adapter for point in points):
            own = [one for one in points if (one.adapter, one.mode) == (adapter, mode)]
            own = sorted((one for one in own if one.sender_kept_up), key=lambda one: one.sessions)
            number, sure = knee(points, adapter, mode)
            name = f"{mode}, {adapter}: {'' if sure else 'at least '}{number}"
            style = "o-" if adapter == "asyncio" else "x--"
            at = [one.sessions for one in own]
            above.plot(at, [one.cpu for one in own], style, color=colours[mode], label=name)
            below.plot(at, [one.arrived for one in own], style, color=colours[mode])
    above.set_ylabel("% of one core")
    above.set_ylim(0, 105)
    below.set_ylabel("% of the pictures arrived")
    below.axhline(ARRIVED_BAR, color="grey", linewidth=0.8)
    below.set_xlabel("sessions of 720p30 and sound on one core")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, title="held")
    above.set_title("How many sessions with media one core holds")
    figure.savefig(file, dpi=110)
    plt.close(figure)
