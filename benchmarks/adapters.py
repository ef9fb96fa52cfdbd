"""What does media cost on trio, compared with asyncio?

Run: ``python benchmarks/adapters.py``. Needs ``navtalk[asyncio,trio]`` and numpy; with uvloop
installed every comparison is made twice, on uvloop and on asyncio's own loop.

The same session, 720p30 VP8 at 2 Mb/s and 48 kHz Opus from benchmarks/sender.py, is received by a
fresh interpreter at a time, in turn on each adapter, round after round: ``connect()`` as a user
calls it, one task that reads ``session.video`` and one that reads ``session.audio``.

asyncio  the engine on the user's loop
trio     the engine on its thread (navtalk_trio.engine_thread)
thread   asyncio with ``engine="thread"``, where this version has it

The loop that is named is the one under the engine; asyncio's user tasks run on the same kind.

How to read it: a value is the median over the rounds, a ratio the median of the rounds' own ratios
to asyncio. "hand-over" is the time from the decoder's output, on its thread, to the user's task;
"from the buffer" leaves out the way from the decoder's thread to asyncio's loop. "sent to user"
is the whole way from the sender's clock, most of it aiortc's jitter buffer. CPU is user and system
time of the whole receiving process, decoding included, in percent of one core. Bars are for
CPython 3.11 to 3.13. The p99 are rough on a machine that does other things.

``--block`` asks another question: what is lost when the consumer blocks its thread for a second in
every 90 pictures? "datagrams lost" are those that the kernel threw away because nobody read the
socket (/proc/net/udp, Linux only); "pictures decoded" are in percent of those sent meanwhile, lost
ones that were sent again included; "sound comes later by" is a delay that stays. Reading on a
blocked thread, the user misses pictures and sound in all columns: buffers keep the newest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import trio
from attrs import field, frozen, mutable
from sender import fetch_sent, read_number, running_sender

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio.media import engine_thread, frame_decoder
from navtalk_asyncio.media.frame_buffer import FrameBuffer
from navtalk_proto import Endpoint

WARM_UP_SECONDS: Final = 2.0
"""From the first picture to the beginning of the measurement."""

BLOCK_SECONDS, BLOCK_EVERY = 1.0, 90
PERIOD_SECONDS: Final = 5.0
"""In which a reader of 30 pictures a second blocks at least once and recovers."""

PATIENCE_SECONDS: Final = 60.0
"""How much longer than it measures a receiver may take."""

Result: TypeAlias = dict[str, float]


# ---- one receiver, in its own process


@mutable
class Meter:
    """What the user's tasks see. Times are CLOCK_MONOTONIC seconds."""

    seconds: float
    block: bool
    decoded: dict[tuple[bool, int], float] = field(factory=dict)
    """When a frame left its decoder, by whether it is a picture, and its pts."""
    buffered: dict[tuple[bool, int], float] = field(factory=dict)
    """When it was put into its first buffer."""
    begin: float = float("inf")
    end: float = float("inf")
    cpu: float = 0.0
    sounds: list[float] = field(factory=list)
    pictures: list[float] = field(factory=list)
    from_buffer: list[float] = field(factory=list)
    seen: list[tuple[int, float]] = field(factory=list)
    """Picture number and time of arrival."""
    heard: list[tuple[float, float]] = field(factory=list)
    """Time of a sound's arrival, and that minus its own time in the stream."""

    async def watch(self, frames: AsyncIterator[Any]) -> None:
        """Read pictures until the measurement is over."""
        count = 0
        async for frame in frames:
            now = time.monotonic()
            count += 1
            if count == 1:
                self.begin = now + WARM_UP_SECONDS
                self.end = self.begin + self.seconds
            elif self.begin <= now and not self.cpu:
                self.cpu, self.begin = time.process_time(), now
            elif self.cpu:
                self._take(True, frame, now, self.pictures)
                self.from_buffer.append(now - self.buffered[True, frame.pts])
                number = read_number(frame)
                if number is not None:
                    self.seen.append((number, now))
                if now >= self.end:
                    self.cpu, self.end = time.process_time() - self.cpu, now
                    return
            if self.block and count % BLOCK_EVERY == 0:
                time.sleep(BLOCK_SECONDS)  # noqa: ASYNC251 - what an application should not do

    async def listen(self, frames: AsyncIterator[Any]) -> None:
        """Read sound until cancelled."""
        async for frame in frames:
            now = time.monotonic()
            if self.begin <= now and self.cpu:
                self._take(False, frame, now, self.sounds)
                self.heard.append((now, now - frame.time))

    def delay_grown(self) -> float:
        """By how much sound comes later at the end than at the beginning, in seconds.

        The least delay within one period of blocking counts: it is what no waiting explains.
        """
        first = [delay for at, delay in self.heard if at < self.begin + PERIOD_SECONDS]
        last = [delay for at, delay in self.heard if at > self.end - PERIOD_SECONDS]
        return min(last) - min(first)

    def _take(self, picture: bool, frame: Any, now: float, into: list[float]) -> None:
        into.append(now - self.decoded[picture, frame.pts])

    def stamp(self, table: dict[tuple[bool, int], float], frame: Any) -> None:
        """Note when a frame was first seen at some place. Called on any thread."""
        table.setdefault((isinstance(frame, av.VideoFrame), frame.pts), time.monotonic())


def stamp_frames(meter: Meter) -> None:
    """Have every decoder and every frame buffer of this process stamp what passes."""
    module: Any = frame_decoder
    make_decoder = module.open_decoder

    def stamping_decoder(codec: Any) -> Any:
        decoder = make_decoder(codec)
        decode = decoder.decode

        def stamped(encoded: Any) -> Any:
            frames = decode(encoded)
            for frame in frames:
                meter.stamp(meter.decoded, frame)
            return frames

        decoder.decode = stamped
        return decoder

    module.open_decoder = stamping_decoder
    for buffer, name in ((FrameBuffer, "push"), (engine_thread._HandOver, "put")):
        setattr(buffer, name, _stamping(meter, getattr(buffer, name)))


def _stamping(meter: Meter, put: Callable[..., Any]) -> Callable[..., Any]:
    def stamped(buffer: object, frame: Any, *rest: Any) -> Any:
        meter.stamp(meter.buffered, frame)
        return put(buffer, frame, *rest)

    return stamped


def datagrams_lost() -> float:
    """UDP datagrams that the kernel dropped on the sockets of this process; NaN where unknown."""
    try:
        own = set()
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                own.add(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:  # The descriptor of this very listing.
                continue
        lost = 0
        for table in ("/proc/self/net/udp", "/proc/self/net/udp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if f"socket:[{columns[9]}]" in own:
                    lost += int(columns[12])
    except FileNotFoundError:
        return float("nan")
    return lost


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them are."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@mutable
class Session:
    """What is asked of a session just before it ends."""

    id: str = ""
    lost: float = 0.0
    decoded: int = 0

    def note(self, session: Any) -> None:
        """Ask."""
        self.id = session.id
        self.lost = datagrams_lost()
        counters = session.track_counters().values()
        self.decoded = sum(c.frames_decoded for c in counters if c.kind.value == "video")


def human_at(url: str) -> Endpoint:
    return Endpoint(base_url=url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")


async def receive_asyncio(url: str, meter: Meter, about: Session, *, thread: bool) -> None:
    options: dict[str, Any] = {"engine": "thread"} if thread else {}
    async with (
        navtalk_asyncio.connect(human_at(url), proxy=None, **options) as session,
        asyncio.TaskGroup() as tasks,
    ):
        listening = tasks.create_task(meter.listen(session.audio))
        await meter.watch(session.video)
        about.note(session)
        listening.cancel()


async def receive_trio(url: str, meter: Meter, about: Session) -> None:
    async with (
        navtalk_trio.connect(human_at(url), proxy=None) as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(meter.listen, session.audio)
        await meter.watch(session.video)
        about.note(session)
        nursery.cancel_scope.cancel()


def receive(adapter: str, loop: str, url: str, meter: Meter) -> Result:
    """Receive one session, and say what it cost."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    else:
        # The engine's thread takes uvloop where it finds it.
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    stamp_frames(meter)
    about = Session()
    if adapter == "trio":
        trio.run(receive_trio, url, meter, about)
    else:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(receive_asyncio(url, meter, about, thread=adapter == "thread"))
    return judge(url, meter, about)


def judge(url: str, meter: Meter, about: Session) -> Result:
    """Turn what was seen into numbers: per second, percent, and milliseconds."""
    sent = fetch_sent(url, about.id)
    seconds = meter.end - meter.begin
    arrivals = ((at, sent.when(number, before=at)) for number, at in meter.seen)
    latencies = [at - when for at, when in arrivals if when is not None]
    return {
        "pictures": len(meter.pictures) / seconds,
        "sounds": len(meter.sounds) / seconds,
        "cpu": 100 * meter.cpu / seconds,
        "hand50": 1000 * percentile(meter.pictures, 0.5),
        "hand99": 1000 * percentile(meter.pictures, 0.99),
        "buffer50": 1000 * percentile(meter.from_buffer, 0.5),
        "sound50": 1000 * percentile(meter.sounds, 0.5),
        "sound99": 1000 * percentile(meter.sounds, 0.99),
        "late50": 1000 * percentile(latencies, 0.5),
        "late99": 1000 * percentile(latencies, 0.99),
        "unread": float(len(meter.pictures) - len(meter.seen)),
        "lost": about.lost,
        "grown": 1000 * meter.delay_grown(),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "decoded": 100 * about.decoded / max(1, sum(at < meter.end for at in sent.times)),
    }


# ---- the comparison


@frozen(kw_only=True)
class Row:
    """A line of the table. `ratio` and `value` are the bars: for trio, and which side of it."""

    name: str
    key: str
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None
    value_below: float | None = None

    def bar(self) -> str:
        if self.ratio_at_least is not None:
            return f"ratio >= {self.ratio_at_least:.2f}"
        if self.ratio_at_most is not None:
            return f"ratio <= {self.ratio_at_most:.2f}"
        return "" if self.value_below is None else f"< {self.value_below:g}"

    def met(self, value: float, ratio: float) -> bool:
        if self.ratio_at_least is not None:
            return ratio >= self.ratio_at_least
        if self.ratio_at_most is not None:
            return ratio <= self.ratio_at_most
        return self.value_below is None or value < self.value_below


ROWS: Final = (
    Row(name="pictures a second", key="pictures", ratio_at_least=0.99),
    Row(name="sounds a second", key="sounds", ratio_at_least=0.99),
    Row(name="CPU, % of a core", key="cpu", ratio_at_most=1.15),
    Row(name="hand-over p50, ms", key="hand50", value_below=1.0),
    Row(name="hand-over p99, ms", key="hand99"),
    Row(name="... from the buffer p50, ms", key="buffer50"),
    Row(name="sound hand-over p50, ms", key="sound50", value_below=1.0),
    Row(name="sound hand-over p99, ms", key="sound99"),
    Row(name="sent to user p50, ms", key="late50"),
    Row(name="sent to user p99, ms", key="late99"),
)

BLOCK_ROWS: Final = (
    Row(name="datagrams lost", key="lost"),
    Row(name="pictures decoded, % of sent", key="decoded"),
    Row(name="sound comes later by, ms", key="grown"),
    Row(name="sounds a second", key="sounds"),
    Row(name="sent to user p50, ms", key="late50"),
    Row(name="peak memory, MiB", key="memory"),
)


def measure(adapter: str, loop: str, url: str, seconds: float, *, block: bool) -> Result:
    """One round of one adapter in a fresh interpreter."""
    command = [sys.executable, str(Path(__file__).resolve()), "--receive", adapter]
    command += ["--loop", loop, "--url", url, "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, *(["--block"] if block else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + PATIENCE_SECONDS,
    )
    result: Result = json.loads(done.stdout)
    return result


def print_table(
    rows: Sequence[Row], results: dict[str, list[Result]], *, barred: bool
) -> list[str]:
    """Print the medians; returns the names of the rows whose bar trio missed."""
    missed = []
    others = [adapter for adapter in results if adapter != "asyncio"]
    columns = ["asyncio", *(c for adapter in others for c in (adapter, "ratio"))]
    print(f"{'':<30}" + "".join(f"{column:>10}" for column in columns) + "   trio's bar")
    for row in rows:
        values = {
            adapter: [result[row.key] for result in of_adapter]
            for adapter, of_adapter in results.items()
        }
        line = f"{row.name:<30}{statistics.median(values['asyncio']):>10.2f}"
        verdict = ""
        for adapter in others:
            pairs = zip(values[adapter], values["asyncio"], strict=True)
            ratio = statistics.median(
                one / other if other else float("nan") for one, other in pairs
            )
            value = statistics.median(values[adapter])
            line += f"{value:>10.2f}{ratio:>10.3f}"
            if adapter == "trio" and barred and row.bar():
                met = row.met(value, ratio)
                verdict = f"   {row.bar()}: {'met' if met else 'MISSED'}"
                if not met:
                    missed.append(row.name)
        print(line + verdict)
    return missed


def compare(options: argparse.Namespace) -> list[str]:
    """Measure and print everything; returns the bars missed."""
    adapters = ["asyncio", "trio"]
    if "thread" in str(signature(navtalk_asyncio.connect).parameters["engine"].annotation):
        adapters.append("thread")
    else:
        print("connect() of navtalk_asyncio has no engine thread yet: that column is left out")
    barred = sys.version_info < (3, 14) and not options.block
    print(
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}; "
        f"medians of {options.rounds} rounds of {options.seconds:g} s"
    )
    missed = []
    with running_sender("--codec", options.codec) as sender:
        print(f"{sender.codec} 1280x720 {sender.fps}/s {sender.video_kbps} kb/s, opus 48 kHz 20 ms")
        for loop in [options.loop] if options.loop else loops():
            results: dict[str, list[Result]] = {adapter: [] for adapter in adapters}
            for _ in range(options.rounds):
                for adapter, of_adapter in results.items():
                    of_adapter.append(
                        measure(adapter, loop, sender.url, options.seconds, block=options.block)
                    )
            print(f"\nunder the engine: {loop}")
            rows = BLOCK_ROWS if options.block else ROWS
            missed += [f"{name} ({loop})" for name in print_table(rows, results, barred=barred)]
            unread = sum(r["unread"] for of_adapter in results.values() for r in of_adapter)
            if unread:
                print(f"! {unread:g} pictures had no readable number")
    return missed


def loops() -> list[str]:
    """The loops to compare on; uvloop where it is installed."""
    try:
        import uvloop  # noqa: F401
    except ModuleNotFoundError:
        return ["asyncio"]
    return ["uvloop", "asyncio"]


def main() -> int:
    parser = argparse.ArgumentParser(description="media on trio, compared with asyncio")
    parser.add_argument("--seconds", type=float, default=12.0, help="of one round of one adapter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codec", choices=["vp8", "h264"], default="vp8")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], help="only this one")
    parser.add_argument("--block", action="store_true", help="the consumer blocks its thread")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--receive", choices=["asyncio", "trio", "thread"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        meter = Meter(seconds=options.seconds, block=options.block)
        print(json.dumps(receive(options.receive, options.loop, options.url, meter)))
        return 0
    missed = compare(options)
    if missed:
        print(f"\nmissed: {', '.join(missed)}")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
