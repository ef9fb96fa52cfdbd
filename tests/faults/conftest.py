"""A stage for faults: either loop, an emulator in a process of its own, and what must not be left.

What each fault did is printed as a table at the end of the run; docs/reliability.md has a copy.
Every fault is played on one of the loops, and with NAVTALK_PROFILE=nightly on both, with the slow
ones.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio

import navtalk_asyncio

# Imported at their first use otherwise, which would be measured as part of the first fault.
import navtalk_asyncio.media
import navtalk_asyncio.testing
import navtalk_asyncio.websocket
import navtalk_trio
import navtalk_trio.engine_thread
import navtalk_trio.testing
import navtalk_trio.websocket
from navtalk_proto import ClientConfig, HumanTurn
from navtalk_proto.events import Event
from navtalk_proto.media import MediaState, MediaStateChanged
from navtalk_proto.wire.endpoint import Endpoint

HERE = Path(__file__).parent
NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"

PATIENCE = 90.0
"""Seconds until a scenario is given up; only a failing test gets near it."""

SETTLE = 5.0
"""Seconds that the system may take to forget a socket or a thread that was closed."""


class EmulatorProcess:
    """A running emulator and the process it is in."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "emulator_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()
        self._faults = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def endpoint(self, url: str | None = None) -> Endpoint:
        return Endpoint(base_url=url or self.url, license="sk_navtalk_EXAMPLE", name="navtalk.Lea")

    def fail(self, faults: str) -> None:
        """New sessions meet these faults."""
        if faults == self._faults:
            return
        assert self.process.stdin is not None
        self.process.stdin.write(f"{faults}\n")
        self.process.stdin.flush()
        assert self._line() == "ok"
        self._faults = faults

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorProcess]:
    running = EmulatorProcess()
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def own_emulator() -> Iterator[EmulatorProcess]:
    """One that a test may kill."""
    running = EmulatorProcess()
    try:
        yield running
    finally:
        running.end()


# ---- what must not be left


def open_files() -> set[str]:
    """The open files and sockets of this process, but for the directory that is listed."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return {one for one in found if not one.endswith("/fd")}


def threads() -> set[str]:
    """The threads, but for trio's idle workers: it keeps them for ten seconds, for all runs."""
    return {one.name for one in threading.enumerate() if not one.name.startswith("Trio thread")}


def children() -> set[str]:
    tasks = Path("/proc/self/task")
    return {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}


def left() -> dict[str, set[str]]:
    gc.collect()
    return {"files": open_files(), "threads": threads(), "children": children()}


@pytest.fixture(scope="session")
def first_loop() -> None:
    """libuv makes a pipe for the process when its first loop runs, and keeps it."""
    if importlib.util.find_spec("uvloop") is not None:
        with asyncio.Runner(
            loop_factory=importlib.import_module("uvloop").new_event_loop
        ) as runner:
            runner.run(asyncio.sleep(0))


@pytest.fixture
def leaks(emulator: EmulatorProcess, first_loop: None) -> Iterator[None]:
    """After the test there is no file, socket, thread or process that was not there before it."""
    before = left()
    yield
    deadline = time.monotonic() + SETTLE
    while True:
        new = {what: names - before[what] for what, names in left().items()}
        if not any(new.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.05)  # The system's own: a socket's end, a thread that has left its code.
    assert not any(new.values()), new


# ---- the stage


class Row:
    """What one fault did, by loop."""

    def __init__(self) -> None:
        self.sees = ""
        self.kept = ""
        self.after: dict[str, float] = {}


rows: dict[str, Row] = defaultdict(Row)


class Seen:
    """The events of a session, with their times."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []
        self._more = anyio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append((time.monotonic(), event))
        self._more.set()
        self._more = anyio.Event()

    def names(self) -> list[str]:
        return [type(event).__name__ for _, event in self.events]

    def at(self, name: str) -> float:
        """When the first event of this name was told."""
        return next(at for at, event in self.events if type(event).__name__ == name)

    async def until(self, *names: str, count: int = 1) -> Any:
        """Wait for the count-th event of one of these names, and return it."""
        return await self._nth(lambda event: type(event).__name__ in names, count)

    async def media(self, state: MediaState) -> Any:
        """Wait until the media connection is told to be in this state, and return the event."""
        return await self._nth(
            lambda event: isinstance(event, MediaStateChanged) and event.state is state, 1
        )

    async def _nth(self, wanted: Callable[[Event], bool], count: int) -> Any:
        while True:
            found = [event for _, event in self.events if wanted(event)]
            if len(found) >= count:
                return found[count - 1]
            await self._more.wait()


class Stage:
    """One scenario on one loop."""

    def __init__(self, loop: str, emulator: EmulatorProcess) -> None:
        self.loop = loop
        self.emulator = emulator
        self.adapter: ModuleType = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}[loop]
        self.kit: ModuleType = {
            "asyncio": navtalk_asyncio.testing,
            "trio": navtalk_trio.testing,
        }[loop]
        self.seen = Seen()

    def play(self, scenario: Callable[[Stage], Awaitable[None]]) -> None:
        """Run it on the loop, to its end; no task is left then."""

        async def main() -> None:
            with anyio.fail_after(PATIENCE):
                await scenario(self)
            self._check_tasks()

        anyio.run(main, backend=self.loop)

    def _check_tasks(self) -> None:
        if self.loop == "asyncio":
            assert asyncio.all_tasks() == {asyncio.current_task()}
        else:
            task = trio.lowlevel.current_task()
            assert task.child_nurseries == []

    @asynccontextmanager
    async def connect(
        self,
        *wraps: Callable[[Any], Any],
        url: str | None = None,
        rate: float = 1000.0,
        **options: Any,
    ) -> AsyncGenerator[Any]:
        """The loop's connect() to the emulator, under these wraps."""
        config = options.pop("config", None) or ClientConfig(speech_rate=rate)
        async with (
            self.kit.through(*wraps) as opener,
            self.adapter.connect(
                self.emulator.endpoint(url),
                transport=opener if wraps else None,
                observe=self.seen,
                config=config,
                **options,
            ) as session,
        ):
            yield session

    async def fails(
        self, kind: type[Exception], *wraps: Callable[[Any], Any], within: float, **options: Any
    ) -> tuple[Any, float]:
        """connect() raises exactly this within so many seconds; the error, and after how many."""
        start = time.monotonic()
        with pytest.raises(kind) as caught:
            async with self.connect(*wraps, **options):
                pytest.fail("connect() returned")
        took = time.monotonic() - start
        assert type(caught.value) is kind
        assert took < within
        return caught.value, took

    async def talk(self, session: Any, text: str) -> None:
        """Type something, and wait until the answer is over."""
        await session.send_text(text)
        async for turn in session.turns():
            if isinstance(turn, HumanTurn):
                assert turn.text == f"Parrot: {text}"
                return

    def tell(self, fault: str, *, sees: str, after: float | None, kept: str) -> None:
        """A row of the table; of several with the same name the slowest counts."""
        row = rows[fault]
        row.sees, row.kept = sees, kept
        if after is not None:
            row.after[self.loop] = max(after, row.after.get(self.loop, 0.0))


@pytest.fixture(params=["asyncio", "trio"])
def stage(request: pytest.FixtureRequest, emulator: EmulatorProcess, leaks: None) -> Stage:
    emulator.fail("")
    return Stage(request.param, emulator)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "representative(loop): played on this loop in every run, on both nightly"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if NIGHTLY:
        return
    chosen, others = [], []
    for item in items:
        loop = getattr(item, "callspec", None) and item.callspec.params.get("stage")  # type: ignore[attr-defined]
        marks = item.iter_markers("representative")
        ours = item.path.parent == HERE and loop is not None
        wanted = any(loop in mark.args for mark in marks)
        (chosen if not ours or wanted else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not rows:
        return
    terminalreporter.write_line("| fault | the application sees | after, asyncio / trio | kept |")
    terminalreporter.write_line("|---|---|---|---|")
    for fault, row in rows.items():
        times = (
            f"{row.after[loop]:.2f} s" if loop in row.after else "-" for loop in ("asyncio", "trio")
        )
        after = " / ".join(times) if row.after else "-"
        terminalreporter.write_line(f"| {fault} | {row.sees} | {after} | {row.kept} |")
