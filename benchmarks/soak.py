"""Does anything grow, session after session, or within one long session?

Run: ``python benchmarks/soak.py``, about four minutes; ``--quick`` takes 30 s, which shows that
sessions end as they should, and is too short for a verdict. ``--seconds 3600 --cycles 100000``
sees finer. Linux with glibc only. Needs ``navtalk[asyncio,trio,emulator]``.

For each loop, a client process and an emulator process of its own. The client connects, talks and
closes again and again, a few sessions at a time, chosen by a seeded generator: some talk, with and
without media, are answered by voice, call a function; others meet a socket that is cut or held, a
refusal at the door or in mid-session; some are cancelled anywhere, or left by an exception. Then
one session lasts, with everything read and something said every three seconds; it reconnects, and
its connection is cut at random, each time some seconds after it was back.

Between the sessions (within the long one: every second) both processes collect garbage, give free
memory back to the system (malloc_trim) and are measured: resident memory, what malloc has given out
(heap), Python objects that the collector knows, threads of the process, tasks of its loop, file
descriptors. MALLOC_ARENA_MAX=1 is set: with a heap for each thread, which of them holds a coder's
buffers is chance, and moves the memory by tens of megabytes.

How to read it: the slope is that of a line through the measurements after the warm-up, with its
95 % interval (see :func:`fit`). *flat*: the interval ends below the bar. *grows*: it begins above
it. *unclear*: the bar is inside. *short*: fewer than 100 cycles, or 20 s, were measured. Exit code
0 says that all is flat; 1 that something grows, or that a session ended as its plan does not allow;
2 that something is unclear or short: run it longer.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import itertools
import json
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Final, TypeAlias

import trio
from attrs import asdict, define, field, frozen

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio.emulator import Emulator, emulate
from navtalk_asyncio.emulator.emulator import _default_face
from navtalk_asyncio.emulator.face import MOUTH_LEVELS
from navtalk_asyncio.testing.tcp_proxy import tcp_proxy as asyncio_proxy
from navtalk_proto import ClientConfig, Endpoint, ReconnectPolicy
from navtalk_proto.errors import (
    ConnectError,
    RefusalKind,
    RefusedError,
    SessionClosedError,
    SessionLostError,
)
from navtalk_proto.events import Notice, Reconnected, Reconnecting, Refused, ResponseGenerated
from navtalk_proto.exception_groups import unwrap
from navtalk_trio.testing.tcp_proxy import tcp_proxy as trio_proxy

AT_ONCE: Final = 4
"""Sessions at a time, and between two measurements: about what two cores encode and decode."""

WARM_UP: Final = 0.3
"""The part of the cycles that is left out: imports, caches, pools. Threads fill theirs in 40."""

WARM_UP_SECONDS: Final = 30.0
"""What is left out of the long session. Buffers and histories of its media fill for 25 s."""

ENOUGH_CYCLES, ENOUGH_SECONDS = 100, 20
"""What must be measured after the warm-up for a verdict."""

MEASUREMENTS: Final = 4
"""What is measured between cycles at least, also when the time is over."""

LONG_PART: Final = 0.5
"""The part of a loop's time that its long session gets."""

SAY_EVERY: Final = 3.0
"""Seconds between two texts of the long session."""

CUT_AFTER: Final = (3.0, 9.0)
"""Seconds after which the connection of the long session is cut, at least and at most."""

AGAIN: Final = ReconnectPolicy(first_delay=0.2, steady_after=2.0)
"""Each cut finds a session that counts as steady. By default one that lasts less than 10 s is a
failed attempt, and after 300 s of those a session gives up, as it should."""

PATIENCE: Final = 30.0
"""Seconds until a session that should have ended is given up, and until a process is killed."""

LICENSE: Final = "sk_navtalk_EXAMPLE"
REFUSED_AFTER: Final = 0.3
"""Seconds from READY to the refusal in mid-session."""

Result: TypeAlias = dict[str, Any]


# ---- measuring one process


@frozen(kw_only=True)
class Sample:
    """What one process holds."""

    memory: float
    """KiB resident, after a collection and malloc_trim."""
    heap: float
    """KiB that malloc has given out, mapped blocks included; without Python's own small blocks."""
    objects: float
    threads: float
    tasks: float
    files: float


@frozen(kw_only=True)
class Measure:
    """A row of the table. The bars are per 100 cycles and per minute."""

    name: str
    unit: str
    per_100_cycles: float
    per_minute: float


MEASURES: Final = (
    # 20 KiB a session. What a lost picture of 512 x 512 costs would be twenty times as much.
    Measure(name="memory", unit="KiB", per_100_cycles=2048, per_minute=2048),
    Measure(name="heap", unit="KiB", per_100_cycles=2048, per_minute=2048),
    # Of the long session the history is kept: some objects for each turn.
    Measure(name="objects", unit="", per_100_cycles=200, per_minute=1000),
    # trio lets the idle threads of its pool go after 10 s.
    Measure(name="threads", unit="", per_100_cycles=6, per_minute=6),
    Measure(name="tasks", unit="", per_100_cycles=1, per_minute=1),
    Measure(name="files", unit="", per_100_cycles=1, per_minute=1),
)


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_: ClassVar = [
        ("other", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("rest", ctypes.c_size_t * 2),
    ]


def take_sample(tasks: int) -> Sample:
    """Measure this process, with as many tasks as its loop says it has."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallinfo2.restype = _MallInfo
    info = libc.mallinfo2()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        memory=pages * os.sysconf("SC_PAGE_SIZE") / 1024,
        heap=(info.uordblks + info.hblkhd) / 1024,
        objects=len(gc.get_objects()),
        threads=len(os.listdir("/proc/self/task")),
        tasks=tasks,
        files=len(os.listdir("/proc/self/fd")),
    )


# ---- the slope and its interval


@frozen(kw_only=True)
class Slope:
    """The slope of a line through points, with its 95 % interval."""

    value: float
    low: float
    high: float

    def verdict(self, bar: float) -> str:
        """What this says about growth of more than `bar`."""
        if self.high <= bar:
            return "flat"
        return "grows" if self.low > bar else "unclear"


def fit(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Least squares, with an interval that allows for noise with a memory.

    What a process holds now depends on what it held a moment ago, and neighbouring points tell less
    than independent ones. So they are counted as n (1 - r) / (1 + r), with r the correlation of
    neighbouring residuals where it is positive. Fewer than three independent points give an
    infinite interval. Raises StatisticsError for fewer than two points.
    """
    line = statistics.linear_regression(x, y)
    residuals = [b - line.slope * a - line.intercept for a, b in zip(x, y, strict=True)]
    total = sum(each * each for each in residuals)
    if total < 1e-9:
        return Slope(value=line.slope, low=line.slope, high=line.slope)
    neighbours = sum(a * b for a, b in itertools.pairwise(residuals))
    r = min(max(neighbours / total, 0.0), 0.99)
    freedom = len(x) * (1 - r) / (1 + r) - 2
    if freedom < 1:
        return Slope(value=line.slope, low=-math.inf, high=math.inf)
    mean = statistics.fmean(x)
    spread = sum((each - mean) ** 2 for each in x)
    margin = student_t(freedom) * math.sqrt(total / freedom / spread)
    return Slope(value=line.slope, low=line.slope - margin, high=line.slope + margin)


def student_t(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, by its expansion around the normal one.

    A hundredth too small at 4 degrees of freedom, a quarter at 1.
    """
    z = NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


# ---- the plans


@frozen(kw_only=True)
class Plan:
    """One session: what becomes of it, when, and where it goes."""

    kind: str
    delay: float
    """Seconds from its begin to what happens to it."""
    url: str
    avatar: str
    license: str = LICENSE
    media: bool = True


KINDS: Final = {
    "talk": 30, "write": 15, "speak": 10, "call": 8,
    "cut": 12, "hold": 5, "wrong": 3, "full": 3, "broke": 5, "cancel": 7, "raise": 2,
}  # fmt: skip
"""How often each kind of session is chosen."""

OUTCOMES: Final = {
    "talk": {"talked"}, "write": {"talked"}, "speak": {"talked"}, "call": {"talked"},
    "cut": {"cut"}, "hold": {"left"}, "wrong": {"refused"}, "full": {"refused"},
    "broke": {"refused"}, "cancel": {"left", "talked"}, "raise": {"left"},
}  # fmt: skip
"""How a session of each kind may end."""


REFUSALS: Final = {
    "wrong": RefusalKind.FAIL,
    "full": RefusalKind.GPU_FULL,
    "broke": RefusalKind.INSUFFICIENT_BALANCE,
}


def choose(kind: str, chance: random.Random, urls: dict[str, str], avatar: str) -> Plan:
    """The details of a session."""
    return Plan(
        kind=kind,
        # Half of what happens hits the opening, which takes about half a second.
        delay=chance.uniform(0.01, 1.0),
        url=urls.get(kind, urls["plain"]),
        avatar=avatar,
        license="sk_navtalk_WRONG_EXAMPLE" if kind == "wrong" else LICENSE,
        media=kind != "write",
    )


# ---- the client, on either loop


@frozen(kw_only=True)
class Loop:
    """What the sessions need of a loop that asyncio and trio spell differently."""

    connect: Callable[..., AbstractAsyncContextManager[Any]]
    proxy: Callable[[str, int], AbstractAsyncContextManager[Any]]
    sleep: Callable[[float], Awaitable[None]]
    leave_after: Callable[[float], AbstractAsyncContextManager[None]]
    """Cancels its block after so many seconds, and goes on behind it."""
    beside: Callable[..., AbstractAsyncContextManager[None]]
    """Runs functions while its block does, and cancels them at its end."""
    all_of: Callable[..., Awaitable[None]]
    count_tasks: Callable[[], int]
    commands: Callable[[], AsyncGenerator[str]]
    """The lines of standard input."""


class OwnError(Exception):
    """What an application's code raises in a session."""


def local_time() -> str:
    """The local time."""
    return "noon"


def speech() -> bytes:
    """A second that rises and falls like syllables, and a second of silence: PCM16 at 24 kHz."""
    chance = random.Random(1)
    voiced = (
        int(chance.uniform(-9000, 9000) * abs(math.sin(math.tau * 2 * at / 24_000)))
        for at in range(24_000)
    )
    return b"".join(each.to_bytes(2, "little", signed=True) for each in voiced) + bytes(48_000)


async def answered(session: Any, since: Callable[[], Awaitable[None]]) -> None:
    """Say something, and wait until the text of an answer is there."""
    async with aclosing(session.events()) as events:
        await since()
        async for event in events:
            if isinstance(event, ResponseGenerated) and event.text:
                return
    raise SessionClosedError("the session ended before it was answered")


async def see_and_hear(session: Any) -> None:
    """Three pictures and a tenth of a second of sound."""
    for frames, count in ((session.video, 3), (session.audio, 5)):
        async for _ in frames:
            count -= 1
            if not count:
                break
        else:
            raise SessionClosedError("the media ended before the session was left")


async def converse(session: Any, plan: Plan) -> None:
    texts = {"call": "What does local_time say?"}
    if plan.kind == "speak":
        await answered(session, lambda: session.send_audio(speech()))
    else:
        await answered(session, lambda: session.send_text(texts.get(plan.kind, "Good morning!")))
    if plan.media:
        await see_and_hear(session)


def opened(
    loop: Loop, plan: Plan, url: str | None = None, *, reconnect: ReconnectPolicy | None = None
) -> AbstractAsyncContextManager[Any]:
    """A session by its plan."""
    return loop.connect(
        Endpoint(base_url=url or plan.url, license=plan.license, name=plan.avatar),
        media=plan.media,
        tools=[local_time],
        proxy=None,
        timeout=PATIENCE / 2,
        config=ClientConfig(close_timeout=0.5) if plan.kind == "hold" else None,
        reconnect=reconnect,
    )


async def talk(loop: Loop, plan: Plan) -> str:
    async with opened(loop, plan) as session:
        await converse(session, plan)
    return "talked"


async def until_it_ends(opening: AbstractAsyncContextManager[Any]) -> None:
    async with opening as session:
        async for _ in session.events():
            pass


async def be_cut(loop: Loop, plan: Plan) -> str:
    port = int(plan.url.rpartition(":")[2])
    async with loop.proxy("127.0.0.1", port) as proxy:

        async def cut() -> None:
            while True:  # The first may come before there is a connection.
                await loop.sleep(plan.delay)
                proxy.cut()

        async with loop.beside(cut):
            with suppress(ConnectError, SessionClosedError):
                await until_it_ends(opened(loop, plan, proxy.url))
    return "cut"


async def be_held(loop: Loop, plan: Plan) -> str:
    port = int(plan.url.rpartition(":")[2])
    async with loop.proxy("127.0.0.1", port) as proxy:

        async def hold() -> None:
            await loop.sleep(plan.delay)
            proxy.hold()

        async with loop.beside(hold), loop.leave_after(plan.delay + 0.1):
            await until_it_ends(opened(loop, plan, proxy.url))
    return "left"


async def be_refused(loop: Loop, plan: Plan) -> str:
    # Before the session is usable it is raised, later it is an event.
    kind: RefusalKind | None = None
    try:
        async with opened(loop, plan) as session:
            async for event in session.events():
                kind = event.kind if isinstance(event, Refused | Notice) else kind
    except RefusedError as error:
        kind = error.kind
    return "refused" if kind is REFUSALS[plan.kind] else f"refused for {kind}"


async def be_cancelled(loop: Loop, plan: Plan) -> str:
    async with loop.leave_after(plan.delay):
        return await talk(loop, plan)
    return "left"


async def leave_by_raising(loop: Loop, plan: Plan) -> str:
    try:
        async with opened(loop, plan):
            await loop.sleep(plan.delay)
            raise OwnError  # noqa: TRY301 - as an application's code does
    except OwnError:
        return "left"


PLAYED_BY: Final[dict[str, Callable[[Loop, Plan], Awaitable[str]]]] = {
    "talk": talk, "write": talk, "speak": talk, "call": talk, "cut": be_cut, "hold": be_held,
    "wrong": be_refused, "full": be_refused, "broke": be_refused, "cancel": be_cancelled,
    "raise": leave_by_raising,
}  # fmt: skip


async def play(loop: Loop, plan: Plan) -> str:
    """One session, and how it ended."""
    try:
        async with loop.leave_after(PATIENCE):
            outcome = await PLAYED_BY[plan.kind](loop, plan)
            if outcome in OUTCOMES[plan.kind]:
                return outcome
            return f"{plan.kind} ended as {outcome}"
    except Exception as error:  # noqa: BLE001 - printed, and the exit code is 1
        return f"{plan.kind} failed: {_told(error)}"
    return f"{plan.kind} had not ended after {PATIENCE:g} s"


def _told(error: Exception) -> str:
    only = unwrap(error) if isinstance(error, ExceptionGroup) else error
    return f"{type(only).__name__}: {only}"


async def last(loop: Loop, plan: Plan, seconds: float) -> str:
    """One long session over several connections; a line with a sample every second."""
    counts: Counter[str] = Counter()
    chance = random.Random(plan.delay)
    port = int(plan.url.rpartition(":")[2])
    cuts = 0

    async def read(name: str, stream: Any) -> None:
        async for item in stream:
            counts[name] += 1
            if isinstance(item, Reconnecting | Reconnected):
                counts[type(item).__name__] += 1

    async with (
        loop.proxy("127.0.0.1", port) as proxy,
        opened(loop, plan, proxy.url, reconnect=AGAIN) as session,
    ):

        async def say() -> None:
            while True:
                # One that waits when the connection is cut is told so, and says the next.
                with suppress(SessionLostError):
                    await session.send_text("Tell me more, please.")
                await loop.sleep(SAY_EVERY)

        async def cut() -> None:
            # Half a second after a sample: the server is measured meanwhile, and no sample is of a
            # moment between two connections.
            await loop.sleep(0.5)
            proxy.cut()
            async with loop.leave_after(PATIENCE):
                while counts["Reconnected"] < cuts:
                    await loop.sleep(0.05)
            if counts["Reconnected"] < cuts:
                raise SessionClosedError(f"cut {cuts} times, and not back after the last")

        reading = [
            lambda: read("pictures", session.video),
            lambda: read("sounds", session.audio),
            lambda: read("turns", session.turns()),
            lambda: read("events", session.events()),
        ]
        async with loop.beside(say, *reading):
            begin = time.monotonic()
            left = min(chance.uniform(*CUT_AFTER), seconds / 3)
            while time.monotonic() - begin < seconds:
                await loop.sleep(1.0)
                tell(at=time.monotonic() - begin, sample=asdict(take_sample(loop.count_tasks())))
                left -= 1.0
                if left <= 0:
                    cuts += 1
                    await cut()
                    left = chance.uniform(*CUT_AFTER)
        if session.end is not None:
            raise SessionClosedError(f"it ended by itself: {session.end}")
    read_on = ", ".join(f"{counts[name]} {name}" for name in ("pictures", "sounds", "turns"))
    return f"{read_on}; {cuts} cuts, {counts['Reconnected']} times back"


def tell(**what: Any) -> None:
    """A line of JSON to the process that started this one."""
    print(json.dumps(what), flush=True)


async def be_client(loop: Loop) -> None:
    """Do what standard input says until it ends."""
    async with aclosing(loop.commands()) as commands:
        async for line in commands:
            command = json.loads(line)
            plans = [Plan(**each) for each in command["plans"]]
            if "seconds" in command:
                try:
                    tell(ended=await last(loop, plans[0], command["seconds"]), failed=False)
                except Exception as error:  # noqa: BLE001 - printed, and the exit code is 1
                    tell(ended=_told(error), failed=True)
                continue
            outcomes: list[str] = []

            async def one(plan: Plan, outcomes: list[str] = outcomes) -> None:
                outcomes.append(await play(loop, plan))

            await loop.all_of(*([lambda plan=plan: one(plan) for plan in plans]))
            tell(outcomes=outcomes, sample=asdict(take_sample(loop.count_tasks())))


# ---- asyncio


@asynccontextmanager
async def _asyncio_leave_after(seconds: float) -> AsyncGenerator[None]:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise


@asynccontextmanager
async def _asyncio_beside(*functions: Callable[[], Any]) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each()) for each in functions]
        yield
        for each in running:
            each.cancel()


async def _asyncio_all_of(*functions: Callable[[], Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in functions:
            tasks.create_task(each())


async def _asyncio_commands() -> AsyncGenerator[str]:
    reader = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        async for line in reader:
            yield line.decode()
    finally:
        pipe.close()


ON_ASYNCIO: Final = Loop(
    connect=navtalk_asyncio.connect,
    proxy=asyncio_proxy,
    sleep=asyncio.sleep,
    leave_after=_asyncio_leave_after,
    beside=_asyncio_beside,
    all_of=_asyncio_all_of,
    count_tasks=lambda: len(asyncio.all_tasks()),
    commands=_asyncio_commands,
)


# ---- trio


@asynccontextmanager
async def _trio_leave_after(seconds: float) -> AsyncGenerator[None]:
    with trio.move_on_after(seconds):
        yield


@asynccontextmanager
async def _trio_beside(*functions: Callable[[], Any]) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        for each in functions:
            nursery.start_soon(each)
        yield
        nursery.cancel_scope.cancel()


async def _trio_all_of(*functions: Callable[[], Any]) -> None:
    async with trio.open_nursery() as nursery:
        for each in functions:
            nursery.start_soon(each)


async def _trio_commands() -> AsyncGenerator[str]:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        held = b""
        async for data in stream:
            *lines, held = (held + bytes(data)).split(b"\n")
            for line in lines:
                yield line.decode()


ON_TRIO: Final = Loop(
    connect=navtalk_trio.connect,
    proxy=trio_proxy,
    sleep=trio.sleep,
    leave_after=_trio_leave_after,
    beside=_trio_beside,
    all_of=_trio_all_of,
    count_tasks=lambda: trio.lowlevel.current_statistics().tasks_living,
    commands=_trio_commands,
)


# ---- the server


async def be_server() -> None:
    """Emulators in one process: a friendly one, and two that refuse. A sample for every line."""
    # They share a face, which keeps what it drew: 15 MB in all, after minutes of talk.
    face = _default_face()
    for quarter in range(4 * 60):
        # The head sways in 8 s; the lids have their own time.
        for level in range(MOUTH_LEVELS if quarter < 4 * 8 else 1):
            face.draw(quarter / 4, level / (MOUTH_LEVELS - 1))
    async with (
        emulate() as plain,
        emulate(refuse="gpu_full") as full,
        emulate(refuse=f"insufficient_balance@{REFUSED_AFTER}s") as broke,
        aclosing(_asyncio_commands()) as commands,
    ):
        tell(
            urls={"plain": plain.url, "full": full.url, "broke": broke.url},
            avatar=plain.endpoint().name,
        )
        async for line in commands:
            expected = json.loads(line)["sessions"]
            running = (plain, full, broke)
            until = time.monotonic() + PATIENCE
            # A client that was cut, or left, is noticed a moment later than it is here.
            # Nothing tells when the last of them has.
            while _sessions(*running) > expected and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            sample = take_sample(len(asyncio.all_tasks()))
            tell(sample=asdict(sample), sessions=_sessions(*running))


def _sessions(*running: Emulator) -> int:
    return sum(len(each.server.sessions) for each in running)


# ---- the run


class ProcessEndedError(Exception):
    """A process of the soak ended, or was silent for too long."""


class Helper:
    """A process that answers lines with lines."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def read(self) -> Result:
        """Its next line. Raises ProcessEndedError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(2 * PATIENCE):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ProcessEndedError(f"the {self._name} says nothing") from None
        if not line:
            raise ProcessEndedError(f"the {self._name} ended")
        result: Result = json.loads(line)
        return result

    async def ask(self, **command: Any) -> Result:
        """Its answer to a line."""
        self.write(**command)
        return await self.read()

    def write(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")


@asynccontextmanager
async def running(*arguments: str) -> AsyncGenerator[Helper]:
    """This file as another process, while the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    try:
        yield Helper(" ".join(arguments).strip("-"), process)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        raise ProcessEndedError(f"{arguments} does not end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@define(kw_only=True)
class Series:
    """Measurements of both processes."""

    at: list[float] = field(factory=list)
    """Cycles done, or seconds since the beginning."""
    client: list[Sample] = field(factory=list)
    server: list[Sample] = field(factory=list)

    def add(self, at: float, client: Result, server: Result) -> None:
        self.at.append(at)
        self.client.append(Sample(**client))
        self.server.append(Sample(**server))

    def table(
        self, unit: str, scale: float, bars: Sequence[float], *, after: float, enough: float
    ) -> tuple[list[str], set[str]]:
        """Lines to print, and the verdicts in them. Slopes are `scale` times those over `at`.

        What was measured up to `after` is left out. Less than `enough` behind it is no verdict.
        """
        first = sum(at <= after for at in self.at)
        if len(self.at) - first < 3:
            return ["  too few measurements for a slope"], {"short"}
        short = self.at[-1] - self.at[first] < enough
        lines = [f"  {'':<18} {'first':>9} {'last':>9} {unit:>16} {'95 % interval':>21} {'bar':>6}"]
        verdicts = set()
        for who, samples in (("client", self.client[first:]), ("server", self.server[first:])):
            for measure, bar in zip(MEASURES, bars, strict=True):
                values = [getattr(each, measure.name) for each in samples]
                x = self.at[first:]
                slope = fit([each / scale for each in x], values)
                verdict = "short" if short else slope.verdict(bar)
                verdicts.add(verdict)
                interval = f"{slope.low:+.1f} .. {slope.high:+.1f}"
                name = f"{who} {measure.name} {measure.unit}".strip()
                lines.append(
                    f"  {name:<18} {values[0]:9.0f} {values[-1]:9.0f} {slope.value:+16.1f} "
                    f"{interval:>21} {bar:6.0f}  {verdict}"
                )
        return lines, verdicts


async def soak(loop: str, options: argparse.Namespace, seconds: float) -> set[str]:
    """Cycles and a long session on one loop; returns the verdicts."""
    chance = random.Random(options.seed)
    verdicts: set[str] = set()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running("--be-server"))
        served = await server.read()
        client = await stack.enter_async_context(running("--be-client", loop))
        series, outcomes, cycles = Series(), Counter[str](), 0
        begin = time.monotonic()
        until = begin + seconds * (1 - LONG_PART)
        while cycles < options.cycles and (
            time.monotonic() < until or len(series.at) < MEASUREMENTS
        ):
            kinds = chance.choices(tuple(KINDS), tuple(KINDS.values()), k=AT_ONCE)
            plans = [asdict(choose(kind, chance, **served)) for kind in kinds]
            told = await client.ask(plans=plans)
            cycles += len(plans)
            outcomes.update(told["outcomes"])
            other = await server.ask(sessions=0)
            if other["sessions"]:
                outcomes[f"the server still has sessions after {cycles} cycles"] += 1
            series.add(cycles, told["sample"], other["sample"])
        took = time.monotonic() - begin
        bars = [measure.per_100_cycles for measure in MEASURES]
        lines, found = series.table(
            "per 100 cycles", 100, bars, after=cycles * WARM_UP, enough=ENOUGH_CYCLES
        )
        known = set().union(*OUTCOMES.values())
        strange = {text: n for text, n in outcomes.items() if text not in known}
        summary = ", ".join(f"{n} {text}" for text, n in outcomes.most_common() if text in known)
        print(f"{loop}: {cycles} cycles in {took:.0f} s: {summary}")
        for text, n in strange.items():
            print(f"  ! {n} times: {text}")
        print(*lines, sep="\n", flush=True)
        verdicts |= found | ({"strange"} if strange else set())

        long = Series()
        left = max(1.0, min(seconds * LONG_PART, begin + seconds - time.monotonic()))
        plan = asdict(choose("talk", chance, **served))
        client.write(plans=[plan], seconds=left)
        while "sample" in (told := await client.read()):
            other = await server.ask(sessions=1)
            long.add(told["at"], told["sample"], other["sample"])
        bars = [measure.per_minute for measure in MEASURES]
        lines, found = long.table(
            "per minute", 60, bars, after=WARM_UP_SECONDS, enough=ENOUGH_SECONDS
        )
        print(f"{loop}: one session of {left:.0f} s: {told['ended']}")
        verdicts |= {"strange"} if told["failed"] else set()
        print(*lines, sep="\n", flush=True)
        verdicts |= found
    return verdicts


async def run(options: argparse.Namespace) -> int:
    loops = ("asyncio", "trio") if options.loop == "both" else (options.loop,)
    print(f"seed {options.seed}, {AT_ONCE} sessions at a time")
    verdicts: set[str] = set()
    for loop in loops:
        try:
            verdicts |= await soak(loop, options, options.seconds / len(loops))
        except ProcessEndedError as error:
            print(f"{loop}: {error}", flush=True)
            verdicts.add("strange")
    if verdicts & {"grows", "strange"}:
        return 1
    return 0 if verdicts == {"flat"} else 2


def main() -> None:
    parser = argparse.ArgumentParser(description="does anything grow, session after session?")
    parser.add_argument("--cycles", type=int, default=400, help="sessions on each loop, at most")
    parser.add_argument("--seconds", type=float, default=220.0, help="for all of it, about")
    parser.add_argument("--quick", action="store_true", help="40 cycles and 30 s")
    parser.add_argument("--loop", choices=("both", "asyncio", "trio"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--be-server", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--be-client", choices=("asyncio", "trio"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.cycles, options.seconds = 40, 30.0
    if options.be_server:
        asyncio.run(be_server())
    elif options.be_client == "asyncio":
        asyncio.run(be_client(ON_ASYNCIO))
    elif options.be_client == "trio":
        trio.run(be_client, ON_TRIO)
    else:
        sys.exit(asyncio.run(run(options)))


if __name__ == "__main__":
    main()
