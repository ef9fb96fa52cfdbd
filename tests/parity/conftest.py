"""One scenario, played on asyncio and on trio, and what both did, side by side.

A scenario is two coroutines that know no loop: what the far end says, and what the application does
with its session. Each loop has a virtual clock, the transport is in memory and the engine on paper.
The far end lets everything go idle, by a millisecond of virtual time, after each thing it said:
which of two ready tasks runs first is a loop's own business, and no promise of ours.

Both loops are run by anyio, one after the other in the same test, and not by parametrising the
test: that their traces are equal is a property of the two runs, not of either.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, ClassVar

import anyio
import pytest
import trio
from attrs import define, field, frozen
from door import plays_apart_with_a_door, plays_with_a_door  # noqa: F401 - fixtures
from trio.testing import MockClock

import navtalk_asyncio
import navtalk_asyncio.testing
import navtalk_trio
import navtalk_trio.testing
from navtalk_proto import ServerConfig
from navtalk_proto.actions import Action, Emit, SendText
from navtalk_proto.events import Event
from navtalk_proto.pump import Pump
from navtalk_proto.testing import MemoryTransport, ScriptedPeer, StrictEngine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.endpoint import Endpoint, parse_request_target

IDLE = 0.001
"""Virtual seconds in which everything that can run does."""

PATIENCE = 1000.0
"""Virtual seconds until a scenario is given up."""


# ---- what happened


@frozen
class Step:
    """One thing that a side did, at a virtual time since the start."""

    time: float
    side: str
    what: str
    name: str
    text: str


@define
class Trace:
    """Everything that happened, in order."""

    steps: list[Step] = field(factory=list)

    def sort(self) -> None:
        """Two tasks in one instant have no order; what each of them did has.

        The tasks of a side are its driver and its application.
        """
        application = ("read", "note", "error")
        self.steps.sort(key=lambda step: (step.time, step.side, step.what in application))

    def names(self, what: str, side: str = "client") -> list[str]:
        return [step.name for step in self.steps if (step.what, step.side) == (what, side)]

    @property
    def events(self) -> str:
        """The classes of the client's events in order, separated by blanks."""
        return " ".join(self.names("event"))

    @property
    def read(self) -> str:
        """Those that the application read."""
        return " ".join(self.names("read"))

    @property
    def said(self) -> list[str]:
        """The types of what the client sent."""
        return self.names("send")

    @property
    def commands(self) -> str:
        """The media commands, separated by blanks."""
        return " ".join(self.names("command"))

    @property
    def notes(self) -> list[str]:
        """What the scenario itself wrote down."""
        return self.names("note")

    @property
    def error(self) -> Step:
        """The exception that left connect(); there must be one."""
        (found,) = (step for step in self.steps if step.what == "error")
        return found

    @property
    def end(self) -> tuple[str, str]:
        """How the far end saw it end: the close code, and the reason."""
        (found,) = (step for step in self.steps if step.what == "end")
        return found.name, found.text

    def at(self, what: str, name: str, side: str = "client") -> list[float]:
        """When something of this name was done."""
        return [
            step.time
            for step in self.steps
            if (step.what, step.name, step.side) == (what, name, side)
        ]


# ---- two loops


class Loop:
    """What a stage needs of a loop."""

    name: str
    adapter: Any
    kit: Any

    def options(self) -> dict[str, Any]:
        """Of anyio's backend: the virtual clock."""
        raise NotImplementedError

    def time(self) -> float:
        raise NotImplementedError

    def limit(self, seconds: float) -> Any:
        """An async context whose body is cancelled after a while; it tells whether it was."""
        raise NotImplementedError

    async def run_cancelled(self, work: CancelledAt) -> bool:
        """Run it with its way to be cancelled; whether it ended so."""
        raise NotImplementedError

    def check_no_task_is_left(self) -> None:
        raise NotImplementedError


class OnAsyncio(Loop):
    name = "asyncio"
    adapter = navtalk_asyncio
    kit = navtalk_asyncio.testing

    def options(self) -> dict[str, Any]:
        return {"loop_factory": navtalk_asyncio.testing.VirtualClockLoop}

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncGenerator[list[bool]]:
        """Cancel the body after a while, once, as asyncio does; anyio would again and again."""
        hit: list[bool] = []
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                yield hit
        except TimeoutError:
            if not timeout.expired():
                raise
            hit.append(True)

    async def run_cancelled(self, work: CancelledAt) -> bool:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        work.cancel = task.cancel
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        return task.cancelled()

    def check_no_task_is_left(self) -> None:
        assert asyncio.all_tasks() == {asyncio.current_task()}


class OnTrio(Loop):
    name = "trio"
    adapter = navtalk_trio
    kit = navtalk_trio.testing

    def options(self) -> dict[str, Any]:
        return {"clock": MockClock(autojump_threshold=0)}

    def time(self) -> float:
        return trio.current_time()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncGenerator[list[bool]]:
        """Cancel the body after a while."""
        hit: list[bool] = []
        with trio.move_on_after(seconds) as scope:
            yield hit
        if scope.cancelled_caught:
            hit.append(True)

    async def run_cancelled(self, work: CancelledAt) -> bool:
        finished = False
        with trio.CancelScope() as scope:
            work.cancel = scope.cancel
            await work
            finished = True
        assert scope.cancelled_caught is not finished
        # Where only shielded points were left, the cancellation came too late, as trio has it.
        return scope.cancelled_caught or work.hit

    def check_no_task_is_left(self) -> None:
        # Every task has a nursery; what is left besides us are trio's own.
        task = trio.lowlevel.current_task()
        assert task.parent_nursery is not None
        assert task.parent_nursery.child_tasks <= {task}
        assert task.child_nurseries == []


# ---- one play


class Stage:
    """One scenario on one loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.trace = Trace()
        self.start = loop.time()
        self.pumps: list[Pump] = []
        self.engines: list[Any] = []
        near, far = loop.kit.memory_transports()
        self.near: MemoryTransport = near
        self.far: MemoryTransport = far
        self.peer = ScriptedPeer(far)
        self.end: TransportClosedError | None = None
        self.ours: MemoryTransport | None = None
        """The end that an adapter was given."""
        self.engine_options: dict[str, Any] = {}

    # ---- the trace

    def tell(self, side: str, what: str, name: str, text: str) -> None:
        time = round(self.loop.time() - self.start, 6)
        self.trace.steps.append(Step(time, side, what, name, text))

    def note(self, text: str) -> None:
        """Something that the scenario wants to be the same on both loops."""
        self.tell("client", "note", text, "")

    def performed(self, pump: Pump, action: Action) -> None:
        side = pump.core.role.value
        match action:
            case SendText():
                self.tell(side, "send", action.kind, action.text)
            case Emit():
                self.tell(side, "event", type(action.event).__name__, repr(action.event))
            case _:
                name = type(action).__name__
                what = "transport" if name.endswith("Transport") else "command"
                self.tell(side, what, name, repr(action))

    def read(self, event: Event, side: str = "client") -> None:
        """The application read an event."""
        self.tell(side, "read", type(event).__name__, repr(event))

    # ---- what a scenario does

    async def idle(self, seconds: float = IDLE) -> None:
        """Let everything run that can, and then some time pass."""
        await anyio.sleep(seconds)

    async def say(self, *messages: Any) -> None:
        """The far end says something, and waits until it has been dealt with."""
        for message in messages:
            await self.peer.say(message)
            await self.idle()

    async def lose(self) -> None:
        """The connection is cut."""
        self.near.lose()
        await self.idle()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """The far end closes."""
        await self.peer.close(code, reason)
        await self.idle()

    def mute(self) -> None:
        """From now on nothing of the client's closing handshake gets through."""
        self.near.close = self._never  # type: ignore[method-assign]

    def break_engine(self, error: Exception) -> Any:
        """An aclose() for the engine that closes it and raises this."""
        aclose = self.engines[0].aclose

        async def broken() -> None:
            await aclose()
            raise error

        return broken

    async def _never(self, code: int, reason: str) -> None:
        await anyio.sleep_forever()

    def limit(self, seconds: float) -> Any:
        return self.loop.limit(seconds)

    async def read_all(self, session: Any) -> None:
        """Read the events until the session has ended."""
        async for event in session.events():
            self.read(event)

    def engine(self, callbacks: Any) -> Any:
        engine = self.loop.kit.PaperEngine(
            callbacks, StrictEngine(f"n{len(self.engines)}", **self.engine_options)
        )
        self.engines.append(engine)
        return engine

    async def opened(self, endpoint: Endpoint) -> Any:
        return self.near

    async def _open(self, opening: Any, endpoint: Endpoint) -> Any:
        transport = await opening(self, endpoint)
        self.ours = self.near
        return transport

    def connect(self, **options: Any) -> Any:
        """The loop's connect() to the far end, with an engine on paper."""
        opening = options.get("transport", Stage.opened)
        options = {"engine": self.engine, **options, "transport": partial(self._open, opening)}
        endpoint = Endpoint(license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
        return self.loop.adapter.connect(endpoint, **options)

    def serve(self, handler: Callable[[Any], Awaitable[None]], *, media: bool = False) -> Any:
        """The loop's serve_session() at the far end."""
        self.ours = self.far
        return self.loop.adapter.serve_session(
            handler,
            self.far,
            parse_request_target("/wss/v2/realtime-chat?name=navtalk.Leo"),
            config=ServerConfig() if media else ServerConfig(media=()),
            engine=self.engine,
        )

    # ---- the play

    async def play(self, far: Any, body: Any, options: dict[str, Any]) -> None:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(far, self)
                try:
                    async with self.connect(**options) as session:
                        self.note("usable")
                        await body(session, self)
                        self.note("left")
                except Exception as error:
                    text = "; ".join(self.describe(error))
                    self.tell("client", "error", type(error).__name__, text)
                    if isinstance(error, AssertionError | pytest.fail.Exception):
                        raise
        await self.see_the_end()

    async def play_server(
        self, visitor: Any, handler: Any, media: bool, cancel_after: float | None
    ) -> None:
        """Our server at the far end; the visitor is a coroutine of the scenario."""

        async def handle(session: Any) -> None:
            await handler(session, self)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(visitor, self)
                try:
                    async with self.limit(cancel_after or PATIENCE) as hit:
                        await self.serve(handle, media=media)
                    if hit:
                        self.tell("server", "note", "cancelled", "")
                except Exception as error:  # noqa: BLE001 - it is what is compared
                    text = "; ".join(self.describe(error))
                    self.tell("server", "error", type(error).__name__, text)
        self.tell("server", "note", "served", "")
        assert self.far.closed.is_set()

    @staticmethod
    def describe(error: BaseException) -> list[str]:
        if isinstance(error, BaseExceptionGroup):
            return [text for one in error.exceptions for text in Stage.describe(one)]
        return [f"{type(error).__name__}: {error}"]

    async def check_both_ends(self) -> None:
        """If an end was given to an adapter, it is closed, and the other one saw an end."""
        if self.ours is None:
            return
        assert self.ours.closed.is_set()
        other = self.far if self.ours is self.near else self.near
        try:
            while True:
                await other.receive()
        except TransportClosedError as closed:
            self.end = closed

    async def see_the_end(self) -> None:
        """Nothing is left, and the far end saw an end."""
        assert self.near.closed.is_set()
        with suppress(TransportClosedError):
            while True:
                await self.far.receive()
        try:
            await self.far.receive()
        except TransportClosedError as closed:
            self.tell("far", "end", str(closed.code), closed.reason)


class Parity:
    """Plays scenarios on both loops. Called with a scenario it returns the trace of both."""

    played = 0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stage: Stage | None = None
        perform = Pump._perform

        def performed(pump: Pump, action: Action) -> None:
            assert self._stage is not None
            self._stage.performed(pump, action)
            perform(pump, action)

        monkeypatch.setattr(Pump, "_perform", performed)

    def __call__(
        self,
        far: Callable[[Stage], Awaitable[None]],
        body: Callable[[Any, Stage], Awaitable[None]] | None = None,
        *,
        strict: dict[str, Any] | None = None,
        **options: Any,
    ) -> Trace:
        """The far end's part, the application's part (reading events by default), and connect()'s
        options. `strict` are those of the strict engine."""

        async def play(stage: Stage) -> None:
            stage.engine_options = strict or {}
            await stage.play(far, body or read_all, options)

        return self._both(play)

    def cancelled(
        self,
        seconds: float,
        far: Callable[[Stage], Awaitable[None]],
        body: Callable[[Any, Stage], Awaitable[None]] | None = None,
        **options: Any,
    ) -> Trace:
        """The same in a scope that is cancelled after some seconds, which must happen."""

        async def play(stage: Stage) -> None:
            async with stage.limit(seconds) as hit:
                await stage.play(far, body or read_all, options)
            assert hit
            stage.note("cancelled")
            await stage.see_the_end()

        return self._both(play)

    def serve(
        self,
        visitor: Callable[[Stage], Awaitable[None]],
        handler: Callable[[Any, Stage], Awaitable[None]],
        *,
        media: bool = False,
        cancel_after: float | None = None,
    ) -> Trace:
        """A scenario of our server: a visitor at the near end, and the handler."""

        async def play(stage: Stage) -> None:
            await stage.play_server(visitor, handler, media, cancel_after)

        return self._both(play)

    def apart(
        self,
        far: Callable[[Stage], Awaitable[None]],
        body: Callable[[Any, Stage], Awaitable[None]],
        **options: Any,
    ) -> list[Trace]:
        """The same, not compared: where several tasks are ready at once the loops may differ."""

        async def play(stage: Stage) -> None:
            await stage.play(far, body, options)

        return self._each(play)

    def _each(self, play: Callable[[Stage], Awaitable[None]]) -> list[Trace]:
        loops: tuple[Loop, ...] = (OnAsyncio(), OnTrio())
        traces = [self._run(loop, play) for loop in loops]
        for trace in traces:
            trace.sort()
        return traces

    def _both(self, play: Callable[[Stage], Awaitable[None]]) -> Trace:
        traces = self._each(play)
        for one, other in zip(*(trace.steps for trace in traces), strict=False):
            assert one == other
        assert traces[0] == traces[1]
        assert traces[0].steps
        Parity.played += 1
        return traces[0]

    def _run(self, loop: Loop, play: Callable[[Stage], Awaitable[None]]) -> Trace:
        async def main() -> Trace:
            self._stage = stage = Stage(loop)
            await play(stage)
            assert all(engine.closed for engine in stage.engines)
            loop.check_no_task_is_left()
            return stage.trace

        return anyio.run(main, backend=loop.name, backend_options=loop.options())


# ---- cancelling at every suspension point


class CancelledAt:
    """Awaits a coroutine and cancels at the coroutine's n-th suspension point, on any loop.

    With `times` above 1 also at the points after it, as an impatient user does.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], point: int, times: int = 1) -> None:
        self.work = work
        self.point = point
        self.times = times
        self.points = 0
        self.cancel: Callable[[], object] = lambda: None

    @property
    def hit(self) -> bool:
        return self.points >= self.point

    def __await__(self) -> Generator[Any, Any, Any]:
        give: Callable[[], Any] = partial(self.work.send, None)
        while True:
            try:
                awaited = give()
            except StopIteration as stop:
                return stop.value
            self.points += 1
            if self.point <= self.points < self.point + self.times:
                self.cancel()  # While it runs: takes effect on what it is about to wait for.
            try:
                give = partial(self.work.send, (yield awaited))
            except BaseException as thrown:  # noqa: BLE001 - handed on
                give = partial(self.work.throw, thrown)


class Matrix:
    """Plays a scenario again and again, and cancels the n-th play at its n-th suspension point."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ends: list[tuple[int | None, str] | None] = []
        """How the other end saw each play end; None where nothing had been opened."""

    def __call__(
        self, scenario: Callable[[Stage], Coroutine[Any, Any, None]], *, real: bool = False
    ) -> int:
        """How many points there were. `real` runs on the real clock."""
        for point in count(1):
            if not self.play(scenario, point, real=real):
                break
            Matrix.counts[f"{self.loop.name} suspension points"] += 1
        return point - 1

    def once(self, scenario: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        """Play it, and cancel nothing."""

        async def main() -> None:
            stage = Stage(self.loop)
            with anyio.fail_after(PATIENCE):
                await scenario(stage)
            assert all(engine.closed for engine in stage.engines)
            self.loop.check_no_task_is_left()

        anyio.run(main, backend=self.loop.name, backend_options=self.loop.options())

    def play(
        self,
        scenario: Callable[[Stage], Coroutine[Any, Any, None]],
        point: int,
        *,
        times: int = 1,
        real: bool = False,
    ) -> bool:
        """Whether the point was reached. If so the scenario ends cancelled; nothing is left."""

        async def main() -> bool:
            stage = Stage(self.loop)
            work = CancelledAt(scenario(stage), point, times)
            caught = await self.loop.run_cancelled(work)
            assert caught is work.hit
            assert all(engine.closed for engine in stage.engines)
            await stage.check_both_ends()
            end = stage.end
            self.ends.append((end.code, end.reason) if end is not None else None)
            self.loop.check_no_task_is_left()
            return work.hit

        options = {} if real else self.loop.options()
        return anyio.run(main, backend=self.loop.name, backend_options=options)


async def read_all(session: Any, stage: Stage) -> None:
    await stage.read_all(session)


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Parity:
    return Parity(monkeypatch)


@pytest.fixture(params=["asyncio", "trio"])
def matrix(request: pytest.FixtureRequest) -> Matrix:
    return Matrix(OnAsyncio() if request.param == "asyncio" else OnTrio())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if Parity.played:
        terminalreporter.write_line(f"parity: {Parity.played} scenarios, equal on both loops")
    if Matrix.counts:
        counts = ", ".join(f"{number} {what}" for what, number in sorted(Matrix.counts.items()))
        terminalreporter.write_line(f"cancelled at: {counts}")
