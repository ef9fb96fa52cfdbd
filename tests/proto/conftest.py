"""What several tests of the core share."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from enum import Enum
from typing import Any, final

import pytest

from navtalk_proto.actions import CloseTransport, MediaCommand, SendText
from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.event_buffer import EventBuffer
from navtalk_proto.events import Event
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.pump import Pump
from navtalk_proto.roles import Role
from navtalk_proto.testing.clock import VirtualClock


def _walk(value: object, path: tuple[int, ...] = ()) -> Any:
    """All of an object's state as plain tuples; enums, classes and plain values are themselves."""
    if value is None or isinstance(value, bool | int | float | str | bytes | Enum | type):
        return value
    if id(value) in path:
        return "<cycle>"
    path = (*path, id(value))
    if isinstance(value, Mapping):
        return tuple((_walk(key, path), _walk(item, path)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(_walk(item, path) for item in value)
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_walk(item, path) for item in value))
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    names += vars(value) if hasattr(value, "__dict__") else []
    state = tuple(
        (name, _walk(getattr(value, name), path))
        for name in names
        if name != "__weakref__" and hasattr(value, name)
    )
    return (type(value).__name__, state)


@pytest.fixture
def snapshot() -> Callable[[object], Any]:
    """A function that gives all the state of an object, slots included, as comparable tuples."""
    return _walk


# ---- coroutines without an event loop


@types.coroutine
def _until(happened: Callable[[], bool]) -> Generator[Callable[[], bool], None, None]:
    while not happened():
        yield happened


@final
class Flag:
    """A navtalk_proto.event_buffer.Flag for a Crank. As on every loop, set() wakes who waits then,
    also when the flag is cleared before they run."""

    def __init__(self) -> None:
        self._is_set = False
        self._times_set = 0

    def set(self) -> None:
        self._is_set = True
        self._times_set += 1

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    async def wait(self) -> None:
        if not self._is_set:
            times = self._times_set
            await _until(lambda: self._times_set > times)


@final
class _Cancelled(BaseException):
    pass


@final
class Crank:
    """Runs one coroutine by hand: at once, and at each turn, until it waits for an unset Flag.

    A coroutine that waits for anything but a Flag fails: there is no loop that it could know.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._happened: Callable[[], bool] = lambda: True
        self._error: BaseException | None = None
        self._result: Any = None
        self.done = False
        self.turn()

    def turn(self) -> bool:
        """Go on if what it waits for has happened; whether it has ended."""
        while not self.done and self._happened():
            self._step(lambda: self._coroutine.send(None))
        return self.done

    def result(self) -> Any:
        """Go on, and give what it returned, or raise what it raised."""
        assert self.turn(), "the coroutine still waits"
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Raise a cancellation where it waits; it has to leave the coroutine."""
        assert not self.done
        self._step(lambda: self._coroutine.throw(_Cancelled()))
        assert isinstance(self._error, _Cancelled), "a cancellation was swallowed"
        # Its traceback has this frame and those of the coroutine: what they hold would live on.
        self._error.__traceback__ = None

    def _step(self, resume: Callable[[], Any]) -> None:
        try:
            happened = resume()
        except StopIteration as end:
            self._result = end.value
            self.done = True
        except BaseException as error:  # noqa: BLE001 - raised by result()
            self._error = error
            self.done = True
        else:
            assert callable(happened), f"{happened!r} is not of this runner"
            self._happened = happened


@pytest.fixture(scope="session")
def crank() -> type[Crank]:
    """Runs a coroutine by hand: ``crank(coroutine)``."""
    return Crank


@pytest.fixture(scope="session")
def flag() -> type[Flag]:
    """Makes what a hand-cranked coroutine waits for."""
    return Flag


@final
class HandPump(Pump):
    """A client's pump without a loop: its tasks are whatever a test does."""

    flag = Flag

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        observe: Callable[[Event], None] = lambda event: None,
        events: EventBuffer | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.alarm: float | None = None
        self.commands: list[MediaCommand] = []
        core = Connection(Role.CLIENT, config or ClientConfig(media=()), now=self.clock.now)
        super().__init__(core, observe=observe, events=events)

    def time(self) -> float:
        return self.clock.now

    def rearm(self, when: float | None) -> None:
        self.alarm = when

    def execute(self, command: MediaCommand) -> None:
        self.commands.append(command)

    def ready(self, session_id: str = "s-1") -> None:
        """The transport opens, and the server says what makes a session READY (protocol.md 3.1)."""
        if self.core.state is State.IDLE:
            self.give(TransportOpened())
        self.received(
            '{"type": "conversation.connected.success", "message": "",'
            f' "data": {{"sessionId": "{session_id}",'
            ' "iceServers": [{"urls": ["stun:stun.example.org:3478"]}]}}'
        )
        self.received('{"type": "realtime.session.created", "message": "", "data": {}}')
        self.received('{"type": "realtime.session.updated", "message": "", "data": {}}')

    def take(self) -> list[SendText | CloseTransport]:
        """What is there for the transport, as the one task that sends would take it."""
        taken = []
        while (next_one := Crank(self.outgoing())).done:
            taken.append(next_one.result())
        next_one.cancel()
        return taken

    def told(self) -> list[Event]:
        """What is there for the application."""
        return [Crank(anext(aiter(self.events))).result() for _ in range(len(self.events))]


@pytest.fixture(scope="session")
def hand_pump() -> type[HandPump]:
    """Makes a client's pump that a test drives by hand."""
    return HandPump
