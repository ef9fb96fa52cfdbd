"""How many sessions does one core hold?

Run: ``python benchmarks/sessions.py``, about three minutes; ``--quick`` takes a few seconds. Linux
only (sched_setaffinity). Needs ``navtalk[asyncio,trio,speed]``; the plot needs ``navtalk[bench]``.

A server process, on another core, speaks to every session: four pieces of an answer a second, as a
human does, each with the time at which it was sent. For each adapter and number of sessions a fresh
interpreter, bound to one core, opens that many signaling-only sessions (``connect(media=False)``)
and reads all their events.

How to read it: *cpu* is the client's processor time in percent of its core while all sessions are
open and spoken to, *waited* the part of the time in which it could have run and another process had
the core; *delay* is from the server's send to the task that reads the event, median and 99th
percentile, with the kernel in it; *arrived* is in percent of what a server that is never late
sends: less than 99 with a short delay says that the server, not the client, did not keep up. *open*
is the time that it took to open them all, one batch after the other. A number of sessions is held
when 99 % arrived and the 99th percentile is below 100 ms. The knee is the largest number that was
held with all smaller ones. On a machine with one core, or with others at work, the knee is theirs,
which is said below the table.

``--media`` asks the same of sessions with media, see `media_sessions.py`. ``--plot FILE`` draws the
curve. ``--json`` prints one JSON object in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio
from attrs import asdict, field, frozen, mutable
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import navtalk_asyncio
import navtalk_trio
from navtalk_proto import Endpoint
from navtalk_proto.events import ResponseText

STEPS: Final = (1, 50, 100, 200, 400, 600, 800, 1000)
QUICK_STEPS: Final = (1, 5)
RATE: Final = 4.0
"""Pieces of an answer a second and session: a piece is a word or two."""
PIECES: Final = 20
"""Pieces of one answer."""
BATCH: Final = 20
"""Sessions that are opened at a time."""
TICK: Final = 0.01
WAITED_BAR: Final = 10.0
ARRIVED_BAR, DELAY_BAR_MS = 99.0, 100.0
PATIENCE: Final = 120.0
ADAPTERS: Final = ("asyncio", "trio")


def text_of(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data}, separators=(",", ":"))


# ---- the server


class Speaker:
    """Welcomes every client, and speaks to all of them in turn."""

    def __init__(self) -> None:
        self._sockets: list[ServerConnection] = []

    async def welcome(self, socket: ServerConnection) -> None:
        """One session, until the client closes it."""
        for text in (
            text_of("conversation.connected.success", sessionId=str(socket.id)),
            text_of("realtime.session.created"),
            text_of("realtime.session.updated"),
        ):
            await socket.send(text)
        self._sockets.append(socket)
        try:
            async for _ in socket:
                pass
        except ConnectionClosed:
            pass  # The client's process ended.
        finally:
            self._sockets.remove(socket)

    async def speak(self) -> None:
        """A piece to each session every 1 / RATE seconds, spread evenly."""
        said = 0
        due = 0.0
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            due += (now - last) * RATE * len(self._sockets)
            last = now
            while due >= 1.0 and self._sockets:
                due -= 1.0
                said += 1
                turn, index = divmod(said, len(self._sockets))
                await self._say(self._sockets[index], turn)

    async def _say(self, socket: ServerConnection, turn: int) -> None:
        answer, piece = divmod(turn, PIECES)
        name = f"resp_{answer}"
        try:
            if piece == PIECES - 1:
                await socket.send(
                    text_of("realtime.response.audio_transcript.done", id=name, content="All.")
                )
                await socket.send(text_of("realtime.response.audio.done"))
            else:
                content = f"{time.monotonic():.6f} "
                await socket.send(
                    text_of("realtime.response.audio_transcript.delta", id=name, content=content)
                )
        except ConnectionClosed:
            pass  # It left while it was its turn.


async def run_server() -> None:
    speaker = Speaker()
    async with serve(
        speaker.welcome, "127.0.0.1", 0, compression=None, ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(json.dumps({"url": f"ws://127.0.0.1:{port}"}), flush=True)
        speaking = asyncio.create_task(speaker.speak())
        try:
            # Until the benchmark closes our standard input.
            await asyncio.to_thread(sys.stdin.read)
        finally:
            speaking.cancel()


# ---- the client


@mutable
class Meter:
    """What a client's reading tasks saw."""

    measuring: bool = False
    delays: list[float] = field(factory=list)

    async def read(self, session: Any) -> None:
        async for event in session.events():
            if self.measuring and isinstance(event, ResponseText):
                self.delays.append(time.monotonic() - float(event.delta))


@frozen(kw_only=True)
class Point:
    """One number of sessions on one adapter."""

    adapter: str
    sessions: int
    cpu: float
    """Percent of the core."""
    waited: float
    """Percent of the time that the client was ready to run and others had its core."""
    delay_p50: float
    """Milliseconds."""
    delay_p99: float
    arrived: float
    """Percent of what was sent."""
    open_seconds: float

    @property
    def held(self) -> bool:
        """Whether all of it came, and in time."""
        return self.arrived >= ARRIVED_BAR and self.delay_p99 <= DELAY_BAR_MS


def endpoint(url: str) -> Endpoint:
    return Endpoint(base_url=url, license="sk_navtalk_EXAMPLE", avatar_id="0")


class Measurement:
    """One adapter's sessions, opened, measured and closed; the loops differ in how they wait."""

    def __init__(self, adapter: str, sessions: int, seconds: float) -> None:
        self.meter = Meter()
        self._adapter = adapter
        self._sessions = sessions
        self._seconds = seconds
        self._begin = time.monotonic()
        self._cpu = self._waited = 0.0
        self._opened = 0.0

    def start(self) -> None:
        """All sessions are open, and have been spoken to for a while."""
        gc.collect()
        self.meter.measuring = True
        self._waited = self._waiting()
        self._cpu, self._begin = time.process_time(), time.monotonic()

    def _waiting(self) -> float:
        """Seconds for which this process has waited for its core until now."""
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9

    def opened(self) -> None:
        self._opened = time.monotonic() - self._begin

    def stop(self) -> Point:
        cpu, seconds = time.process_time() - self._cpu, time.monotonic() - self._begin
        self.meter.measuring = False
        delays = sorted(self.meter.delays) or [float("inf")]
        # Of every PIECES pieces the last is the whole text, which is no ResponseText; and one for
        # each session may have been said before the beginning, or be on its way at the end.
        sent = self._sessions * (RATE * seconds * (PIECES - 1) / PIECES - 2)
        return Point(
            adapter=self._adapter,
            sessions=self._sessions,
            cpu=100.0 * cpu / seconds,
            waited=100.0 * (self._waiting() - self._waited) / seconds,
            delay_p50=1000.0 * delays[len(delays) // 2],
            delay_p99=1000.0 * delays[len(delays) * 99 // 100],
            arrived=min(100.0, 100.0 * len(self.meter.delays) / sent),
            open_seconds=self._opened,
        )


async def measure_asyncio(url: str, sessions: int, seconds: float) -> Point:
    measurement = Measurement("asyncio", sessions, seconds)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        opened: list[Any] = []
        for at in range(0, sessions, BATCH):
            count = min(BATCH, sessions - at)
            opened += await asyncio.gather(
                *(
                    stack.enter_async_context(
                        navtalk_asyncio.connect(endpoint(url), media=False, proxy=None)
                    )
                    for _ in range(count)
                )
            )
        measurement.opened()
        reading = [tasks.create_task(measurement.meter.read(session)) for session in opened]
        await asyncio.sleep(seconds / 4)
        measurement.start()
        await asyncio.sleep(seconds)
        point = measurement.stop()
        for task in reading:
            task.cancel()
    return point


async def measure_trio(url: str, sessions: int, seconds: float) -> Point:
    measurement = Measurement("trio", sessions, seconds)
    done = trio.Event()

    async def one(task_status: trio.TaskStatus[None]) -> None:
        async with navtalk_trio.connect(endpoint(url), media=False, proxy=None) as session:
            task_status.started()
            async with trio.open_nursery() as reading:
                reading.start_soon(measurement.meter.read, session)
                await done.wait()
                reading.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for at in range(0, sessions, BATCH):
            async with trio.open_nursery() as opening:
                for _ in range(min(BATCH, sessions - at)):
                    opening.start_soon(nursery.start, one)
        measurement.opened()
        await trio.sleep(seconds / 4)
        measurement.start()
        await trio.sleep(seconds)
        point = measurement.stop()
        done.set()
    return point


# ---- the benchmark


def cores() -> tuple[set[int], set[int]]:
    """The client's core, and those that are left for the server."""
    have = sorted(os.sched_getaffinity(0))
    return {have[-1]}, set(have[:-1]) or {have[-1]}


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(Path(__file__)), *arguments]


def measure(
    steps: Sequence[int], seconds: float, adapters: Sequence[str] = ADAPTERS
) -> list[Point]:
    """Every number of sessions on every adapter, each in a fresh interpreter."""
    client, server = cores()
    points = []
    with subprocess.Popen(
        command("--serve"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, server),
    ) as serving:
        assert serving.stdout is not None
        assert serving.stdin is not None
        url = json.loads(serving.stdout.readline())["url"]
        for sessions in steps:
            for adapter in adapters:
                done = subprocess.run(
                    command("--client", adapter, url, str(sessions), str(seconds)),
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    timeout=PATIENCE,
                    preexec_fn=lambda: os.sched_setaffinity(0, client),
                )
                points.append(Point(**json.loads(done.stdout)))
                show(points[-1])
        serving.stdin.close()
    return points


def knee(points: Sequence[Point], adapter: str) -> int:
    """The largest number that was held, with all smaller ones; 0: none was."""
    found = 0
    for point in sorted(
        (each for each in points if each.adapter == adapter), key=lambda p: p.sessions
    ):
        if not point.held:
            break
        found = point.sessions
    return found


HEADING: Final = "adapter   sessions   cpu %  waited %  delay p50   p99 ms  arrived %  open s"


def show(point: Point) -> None:
    print(
        f"{point.adapter:9}{point.sessions:9}{point.cpu:8.1f}{point.waited:10.1f}{point.delay_p50:11.2f}"
        f"{point.delay_p99:9.1f}{point.arrived:11.1f}{point.open_seconds:8.2f}"
        f"{'' if point.held else '  not held'}",
        flush=True,
    )


def plot(points: Sequence[Point], file: Path) -> None:
    """The curve: processor time and delay over the number of sessions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
    for adapter, colour in zip(ADAPTERS, ("tab:blue", "tab:orange"), strict=True):
        own = [point for point in points if point.adapter == adapter]
        if not own:
            continue
        at = [point.sessions for point in own]
        last = knee(points, adapter)
        most = last == max(at)
        named = f"{adapter}: {'all ' if most else ''}{last} held" + (", the knee" * (not most))
        name = f"{adapter}, its processor time"
        above.plot(at, [point.cpu for point in own], "o-", color=colour, label=name)
        waited = f"{adapter}, others had the core"
        above.plot(at, [point.waited for point in own], "x:", color=colour, label=waited)
        below.plot(
            at, [point.delay_p99 for point in own], "o-", color=colour, label=f"{adapter}, p99"
        )
        below.plot(
            at, [point.delay_p50 for point in own], "o:", color=colour, label=f"{adapter}, p50"
        )
        for axes in (above, below):
            axes.axvline(last, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        above.annotate(
            named,
            (last, 105),
            xytext=(0, 4 + 14 * ADAPTERS.index(adapter)),
            textcoords="offset points",
            color=colour,
            ha="right",
        )
    above.set_ylabel("% of one core")
    above.set_ylim(0, 105)
    above.axhline(100, color="grey", linewidth=0.8)
    below.set_ylabel("server to reader, ms")
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:g}")
    below.axhline(DELAY_BAR_MS, color="grey", linewidth=0.8)
    below.annotate(
        f"{DELAY_BAR_MS:g} ms: what 99 % have to keep",
        (0, DELAY_BAR_MS),
        xytext=(4, 4),
        textcoords="offset points",
        color="grey",
    )
    below.set_xlabel(f"signaling-only sessions on one core, {RATE:g} messages a second each")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    above.set_title("How many sessions one core holds", pad=36)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def report(*, quick: bool = False) -> list[Point]:
    """What run_all asks: every point of both adapters."""
    return measure(QUICK_STEPS if quick else STEPS, 1.0 if quick else 5.0)


def main_media(chosen: argparse.Namespace) -> int:
    """The same question of sessions with media: `media_sessions.py`."""
    import media_sessions  # Not by the clients above, which have no media.

    if chosen.media_client:
        adapter, mode, url, number, seconds = chosen.media_client
        media_sessions.run_client(adapter, mode, url, int(number), float(seconds))
        return 0
    print(media_sessions.HEADING)
    points = media_sessions.report(quick=chosen.quick)
    for sentence in media_sessions.told(points):
        print(sentence)
    if chosen.plot:
        media_sessions.plot(points, chosen.plot)
    if chosen.json:
        print(json.dumps({"points": [asdict(point) | {"held": point.held} for point in points]}))
    return 0


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="a few seconds, few sessions")
    options.add_argument("--media", action="store_true", help="sessions with media instead")
    options.add_argument("--plot", type=Path, help="draw the curve into this PNG")
    options.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    options.add_argument("--media-client", nargs=5, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        asyncio.run(run_server())
        return 0
    if chosen.client:
        adapter, url, sessions, seconds = chosen.client
        if adapter == "asyncio":
            point = asyncio.run(measure_asyncio(url, int(sessions), float(seconds)))
        else:
            point = trio.run(measure_trio, url, int(sessions), float(seconds))
        print(json.dumps(asdict(point)))
        return 0
    if chosen.media or chosen.media_client:
        return main_media(chosen)
    print(HEADING)
    points = report(quick=chosen.quick)
    knees = {adapter: knee(points, adapter) for adapter in ADAPTERS}
    for adapter, sessions in knees.items():
        most = max(point.sessions for point in points)
        told = "all of them: the knee is further out" if sessions == most else "the knee"
        print(f"{adapter} holds {sessions} sessions on one core, {told}")
    if max(point.waited for point in points) > WAITED_BAR:
        print("others had the client's core for a part of the time: this knee is theirs")
    if chosen.plot:
        plot(points, chosen.plot)
    if chosen.json:
        rows = [asdict(point) | {"held": point.held} for point in points]
        print(json.dumps({"points": rows, "knee": knees}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
