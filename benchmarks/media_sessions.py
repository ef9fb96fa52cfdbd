"""How many sessions with media does one core hold?

Run: ``python benchmarks/sessions.py --media``, seven minutes; this file is its part.

A sender process (`sender.py`: 720p30 and Opus, prepared) runs on another core. For each adapter,
way of consuming and number of sessions a fresh interpreter, bound to one core with all its threads,
opens that many sessions, and counts for some seconds what comes. uvloop is used where installed.

How to read it: *cpu* is the client's, in percent of its core, and *others* what anything else had
of that core; *on time* is what the sender sent within a picture's duration of when it was due, in
percent; *arrived* is what got to its place in percent of what was sent: pictures that were decoded
and read, or, where nobody decodes, complete ones; *lost* is in percent of the packets. A number of
sessions is held when 99 % arrived. One that is not held says nothing where less than 98 % was sent
on time, which is the sender's limit, or where others had more than 5 % of the core: the knee is
then "at least" the largest number that was held.

idle      nobody reads, nothing is decoded
recorded  `session.record()` to Matroska
vp8       both tracks are read: decoded
h264      the same, of H.264

Each of these gets the same share of the time, on each adapter. The first number tried is one, the
next what the processor time of one leaves room for, and so on from what is held; between a number
that is held and one that is not the middle is tried, until they are next to each other or within a
twentieth. One that is nearly held is tried once more, and so is one that says nothing.
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
from contextlib import AsyncExitStack, ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any, Final

import trio
from answers import NOT_MEASURED
from attrs import asdict, evolve, frozen
from peers.ours_trio import run_trio
from peers.visit import run_asyncio
from peers.watched_transport import human_at, plain_config
from receivers import loops
from sender import SESSIONS_KEPT, Sender, Sent, running_sender
from sessions import ADAPTERS, cores

import navtalk_asyncio
import navtalk_trio
from navtalk_proto.media import MediaKind

MODES: Final = ("idle", "recorded", "vp8", "h264")
CODECS: Final = ("vp8", "h264")
WARM_UP: Final = 1.5
SETTLE: Final = 0.2
"""After the counters were asked: on trio that holds up who reads."""
SECONDS: Final = 4.0
ALL_SECONDS: Final = 400.0
"""What is left of it is shared by the curves that are still to come."""
TRIES: Final = 2
MOST: Final = SESSIONS_KEPT
"""The sender remembers no more sessions."""
CLOSE: Final = 0.05
"""Numbers closer to each other than this part of them are not told apart."""
ARRIVED_BAR: Final = 99.0
CLEAR_BAR: Final = 95.0
"""Where less arrived, and nothing else is to blame, it was no hiccup: it is not tried again."""
ON_TIME_BAR: Final = 98.0
OTHERS_BAR: Final = 5.0
PATIENCE: Final = 60.0


@frozen(kw_only=True)
class MediaPoint:
    """One number of sessions that consume in one way on one adapter."""

    adapter: str
    mode: str
    sessions: int
    cpu: float
    """Percent of the core."""
    others: float
    """Percent of the core that was neither idle nor this client's."""
    on_time: float
    """Percent of the pictures that were due."""
    arrived: float
    """Percent of the pictures that were sent."""
    lost: float
    """Percent of the packets."""

    @property
    def held(self) -> bool:
        """Whether there was as much to hold as there should be, and it arrived."""
        return self.sender_kept_up and self.arrived >= ARRIVED_BAR

    @property
    def sender_kept_up(self) -> bool:
        """Whether there was as much to hold as there should be."""
        return self.on_time >= ON_TIME_BAR

    @property
    def too_many(self) -> bool:
        """Whether the core did not hold them, and nothing else is to blame."""
        return self.sender_kept_up and not self.held and self.others <= OTHERS_BAR


@frozen(kw_only=True)
class Knee:
    """The largest number that was held, with all smaller ones."""

    sessions: int
    sure: bool
    """Whether a number close above it was too many. Otherwise it is at least this one."""

    def __str__(self) -> str:
        return f"{'' if self.sure else 'at least '}{self.sessions}"


# ---- the client


@frozen(kw_only=True)
class Look:
    """What one session has got until now."""

    at: float
    pictures: int
    """Complete ones."""
    packets: int
    lost: int


def look(session: Any) -> Look:
    track = session.stats().received(MediaKind.VIDEO)
    return Look(
        at=time.monotonic(),
        pictures=track.frames_received,
        packets=track.packets,
        lost=track.packets_lost,
    )


@frozen(kw_only=True)
class Seen:
    """What one session got from `begin` to `end`."""

    begin: float
    end: float
    pictures: int
    packets: int
    lost: int


def seen(before: Look, after: Look) -> Seen:
    """What came between two looks."""
    return Seen(
        begin=before.at,
        end=after.at,
        pictures=after.pictures - before.pictures,
        packets=after.packets - before.packets,
        lost=after.lost - before.lost,
    )


def idle() -> float:
    """Seconds for which the cores that this process may use were idle until now."""
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    ticks = sum(int(line[4]) + int(line[5]) for line in lines if line[0] in names)
    return ticks / os.sysconf("SC_CLK_TCK")


async def read_track(track: Any, came: list[float]) -> None:
    async for _ in track:
        came.append(time.monotonic())


async def hold(
    connect: Callable[..., Any],
    sleep: Callable[[float], Any],
    start: Callable[[Any, list[float]], None],
    mode: str,
    url: str,
    sessions: int,
    seconds: float,
) -> dict[str, Any]:
    """Open sessions, consume, count; `start` has a track read beside this coroutine."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opened = []
        pictures: list[list[float]] = []
        for number in range(sessions):
            session = await stack.enter_async_context(
                connect(human_at(url), config=plain_config(), proxy=None)
            )
            opened.append(session)
            if mode in CODECS:
                pictures.append([])
                start(session.video, pictures[-1])
                start(session.audio, [])
            elif mode == "recorded":
                await stack.enter_async_context(session.record(directory / f"{number}.mkv"))
        await sleep(WARM_UP)
        gc.collect()
        before = [look(session) for session in opened]
        await sleep(SETTLE)
        begin, cpu, idled = time.monotonic(), time.process_time(), idle()
        if mode not in CODECS:
            before = [look(session) for session in opened]
        await sleep(seconds)
        end, cpu, idled = time.monotonic(), time.process_time() - cpu, idle() - idled
        found = [seen(was, look(session)) for session, was in zip(opened, before, strict=True)]
        if mode in CODECS:
            # By who reads, between moments: looking takes its time, and that of the readers.
            read = [sum(begin <= at < end for at in came) for came in pictures]
            found = [
                evolve(one, begin=begin, end=end, pictures=count)
                for one, count in zip(found, read, strict=True)
            ]
        return {
            "seconds": end - begin,
            "cpu": cpu,
            "idle": idled / len(os.sched_getaffinity(0)),
            "sessions": {
                session.id: asdict(one) for session, one in zip(opened, found, strict=True)
            },
        }


def run_client(adapter: str, mode: str, url: str, sessions: int, seconds: float) -> None:
    """Print what :func:`hold` found as one JSON line."""

    async def on_asyncio() -> None:
        async with asyncio.TaskGroup() as group:
            reading: list[asyncio.Task[None]] = []

            def start(track: Any, came: list[float]) -> None:
                reading.append(group.create_task(read_track(track, came)))

            connect = navtalk_asyncio.connect
            found = await hold(connect, asyncio.sleep, start, mode, url, sessions, seconds)
        print(json.dumps(found))

    async def on_trio() -> None:
        async with trio.open_nursery() as nursery:

            def start(track: Any, came: list[float]) -> None:
                nursery.start_soon(read_track, track, came)

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
    due = on_time = sent = got = packets = lost = 0
    for session_id, counted in found["sessions"].items():
        one = Seen(**counted)
        table = sender.sent(session_id)
        planned, in_time = punctual(table, sender.fps, one.begin, one.end)
        due, on_time = due + planned, on_time + in_time
        sent += sum(one.begin <= at < one.end for at in table.times)
        got, packets, lost = got + one.pictures, packets + one.packets, lost + one.lost
    cpu = 100 * found["cpu"] / found["seconds"]
    return MediaPoint(
        adapter=adapter,
        mode=mode,
        sessions=sessions,
        cpu=cpu,
        others=max(0.0, 100 - 100 * found["idle"] / found["seconds"] - cpu / len(core)),
        on_time=100 * on_time / max(due, 1),
        # A picture that was on its way at the beginning or at the end is one of a hundred or more.
        arrived=min(100.0, 100 * (got + sessions) / max(sent, 1)),
        lost=100 * max(lost, 0) / max(packets + lost, 1),
    )


def punctual(table: Sent, fps: int, begin: float, end: float) -> tuple[int, int]:
    """How many pictures were due between two moments, and how many of them were sent in time."""
    step = 1 / fps
    # A picture may be sent late and not early: the earliest one says when the first was due.
    since = min(at - number * step for number, at in enumerate(table.times))
    first = max(0, ceil((begin - since) / step))
    behind = ceil((end - since) / step)
    in_time = sum(
        at - (since + (first + number) * step) <= step
        for number, at in enumerate(table.times[first:behind])
    )
    return behind - first, in_time


def close(fewer: int, more: int) -> bool:
    """Whether nothing is to be tried between two numbers."""
    return more - fewer <= max(1, CLOSE * more)


def search(measure: Callable[[int], MediaPoint], until: float) -> None:
    """Measure numbers of sessions, towards the knee, as long as it is not `until`."""
    last = measure(1)
    above: int | None = None
    while last.held and time.monotonic() < until:
        if above is not None:
            if close(last.sessions, above):
                return
            number = (last.sessions + above) // 2
        elif last.sessions == MOST:
            return
        else:
            room = int(last.sessions * 100 / last.cpu)
            number = min(MOST, max(last.sessions + max(1, last.sessions // 10), room))
        for _ in range(TRIES):
            point = measure(number)
            clear = point.held or (point.too_many and point.arrived < CLEAR_BAR)
            if clear or time.monotonic() >= until:
                break
        if point.held:
            last = point
        else:
            above = number


def report(*, quick: bool = False, adapters: Sequence[str] = ADAPTERS) -> list[MediaPoint]:
    """All adapters and modes, each up to its knee; prints what it finds."""
    client, server = cores()
    seconds = 1.0 if quick else SECONDS
    points: list[MediaPoint] = []
    with ExitStack() as stack:
        stack.enter_context(on_cores(server))
        senders = {codec: stack.enter_context(running_sender("--codec", codec)) for codec in CODECS}
        curves = [(mode, adapter) for mode in MODES for adapter in adapters]
        end = time.monotonic() + ALL_SECONDS
        for done, (mode, adapter) in enumerate(curves):

            def measure(
                sessions: int,
                adapter: str = adapter,
                mode: str = mode,
                sender: Sender = senders[mode if mode in CODECS else CODECS[0]],
            ) -> MediaPoint:
                point = measure_point(adapter, mode, sender, sessions, seconds, client)
                points.append(point)
                show(point)
                return point

            if quick:
                measure(1)
            else:
                now = time.monotonic()
                search(measure, now + (end - now) / (len(curves) - done))
    return points


def knee(points: Sequence[MediaPoint], adapter: str, mode: str) -> Knee | None:
    """What one core holds; None where that was not measured: nothing, or nothing but one session.

    A number that was tried again is held if it was in one of the tries.
    """
    own = [one for one in points if (one.adapter, one.mode) == (adapter, mode)]
    found, sure = 0, False
    for number in sorted({one.sessions for one in own}):
        tries = [one for one in own if one.sessions == number]
        if not any(one.held for one in tries):
            sure = any(one.too_many for one in tries) and close(found, number)
            break
        found = number
    return Knee(sessions=found, sure=sure) if sure or found > 1 else None


HEADING: Final = "adapter  mode      sessions   cpu %  others %  on time %  arrived %  lost %"


def show(point: MediaPoint) -> None:
    if not point.sender_kept_up:
        end = "  the sender did not keep up"
    elif point.held:
        end = ""
    else:
        end = "  not held" if point.too_many else "  not held, others had the core"
    print(
        f"{point.adapter:9}{point.mode:9}{point.sessions:9}{point.cpu:8.1f}{point.others:10.1f}"
        f"{point.on_time:11.1f}{point.arrived:11.1f}{point.lost:8.2f}{end}",
        flush=True,
    )


def told(points: Sequence[MediaPoint], adapters: Sequence[str] = ADAPTERS) -> list[str]:
    """A sentence for each knee."""
    sentences = []
    for mode in MODES:
        for adapter in adapters:
            found = knee(points, adapter, mode)
            holds = NOT_MEASURED if found is None else f"one core holds {found} sessions"
            sentences.append(f"{adapter}, {mode}: {holds}")
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
            # Neither what the sender did not send, nor what others hindered.
            own = sorted(
                (one for one in own if one.held or one.too_many), key=lambda one: one.sessions
            )
            name = f"{mode}, {adapter}: {knee(points, adapter, mode) or NOT_MEASURED}"
            style = "o-" if adapter == "asyncio" else "x--"
            at = [one.sessions for one in own]
            above.plot(at, [one.cpu for one in own], style, color=colours[mode], label=name)
            below.plot(at, [one.arrived for one in own], style, color=colours[mode])
    above.set_ylabel("% of one core")
    above.set_ylim(0, 105)
    below.set_ylabel("% of the pictures arrived")
    lowest = min((one.arrived for one in points if one.held or one.too_many), default=100.0)
    below.set_ylim(min(lowest, 95.0) - 1, 101)
    below.axhline(ARRIVED_BAR, color="grey", linewidth=0.8)
    below.set_xlabel("sessions of 720p30 and sound on one core")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, title="held")
    above.set_title("How many sessions with media one core holds")
    figure.savefig(file, dpi=110)
    plt.close(figure)
