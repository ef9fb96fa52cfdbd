"""Every session that a test runs is recorded, and replayed when the test is over: twice, as it was
and without its secrets, words and voices. So determinism is tried wherever the core is, and so is
that what a trace leaves out is not missed.

tests/conftest.py has this for every test. A folder that has too many of one kind overrides the
fixture by one that uses :func:`left_out`. pytest prints at its end how many sessions there were,
and which were left out and why. Those of child processes are not among them: they have a core of
their own, and many write a trace of their own, which tests/cli replays.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from navtalk_proto import inputs
from navtalk_proto.actions import Action
from navtalk_proto.connection import Connection
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.replayer import replay
from navtalk_proto.tracing.scrubber import Scrubber

__all__ = [
    "every_session_is_replayed",
    "left_out",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
]

LICENCE = "sk_navtalk_EXAMPLE"

HOW: dict[str, Callable[[], Scrubber]] = {
    "as it was": lambda: Scrubber(credentials=False),
    "scrubbed": lambda: Scrubber((LICENCE,), text=False, audio=False),
}

MOST_LINES = 20_000
"""Of one session: a flood of messages is a session like any other."""

FLOOD = f"more than {MOST_LINES} lines"
FOREIGN = "the test gave the core what no driver does"

counted = dict.fromkeys(("sessions", "inputs", "actions"), 0)
without: Counter[str] = Counter()
"""Sessions that were left out, by the reason."""


class Twin:
    """What is recorded of one connection, in both ways."""

    def __init__(self, core: Connection, now: float) -> None:
        self.lines: dict[str, list[str]] = {how: [] for how in HOW}
        self.left_out = ""
        """Why; empty for what is to be replayed."""
        self.actions: list[Action] = []
        """Those that the test has not taken yet."""
        self.checked: Counter[str] | None = None
        """What was counted of it at the end of a test that it outlived."""
        self.recordings = []
        for how, scrubber in HOW.items():
            recorder = Recorder(
                self.lines[how].append, scrubber(), started="2026-01-01T00:00:00Z", versions={}
            )
            self.recordings.append(recorder.connection(core, now=now, complete=True))

    def happened(
        self, given: inputs.Input, actions: list[Action], now: float, raised: Exception | None
    ) -> None:
        self.actions += actions
        if self.left_out:
            return
        for recording in self.recordings:
            try:
                recording.happened(given, actions, now=now, raised=raised)
            except Exception:
                if raised is None:
                    raise
                self.left_out = FOREIGN  # It was no intent, or no result; the core said so too.
        if len(self.lines["as it was"]) > MOST_LINES:
            self.left_out = FLOOD

    def check(self) -> None:
        """Replay it. Again, where a session outlived its test."""
        with lock:
            before, self.checked = self.checked or Counter(), Counter()
            recorded = {how: list(lines) for how, lines in self.lines.items()}
        if self.left_out:
            self.checked[self.left_out] = 1
            without.update(self.checked - before)
            return
        for how, lines in recorded.items():
            result = replay(lines)
            if result.divergence is not None:
                told = "".join(lines[: result.divergence.line][-20:])
                pytest.fail(f"{how}: {result.divergence}\n{told}")
            if how == "as it was":
                assert not result.gap
                self.checked.update(sessions=1, inputs=result.inputs, actions=result.actions)
        for what, number in (self.checked - before).items():
            counted[what] += number


METHODS: dict[str, Callable[..., inputs.Input]] = {
    "transport_opened": inputs.TransportOpened,
    "receive_text": lambda text: inputs.TextReceived(text=text),
    "receive_binary": lambda size: inputs.BinaryReceived(size=size),
    "transport_closed": inputs.TransportClosed,
    "send": lambda intent: inputs.IntentGiven(intent=intent),
    "media_done": lambda op, result=None: inputs.MediaDone(op=op, result=result),
    "media_failed": lambda op, reason: inputs.MediaFailed(op=op, reason=reason),
    "media_event": lambda event: inputs.MediaHappened(event=event),
    "handle_timeout": inputs.TimePassed,
}


native: dict[str, Callable[..., Any]] = {
    name: getattr(Connection, name) for name in (*METHODS, "__init__", "actions")
}
twin_of: WeakKeyDictionary[Connection, Twin] = WeakKeyDictionary()
twins: list[Twin] = []
"""Those that are to be replayed when this test is over."""
late: list[Twin] = []
"""Those of which more happened afterwards, as those of an emulator that a whole module has."""
lock = threading.RLock()
"""Sessions are on several threads, and a core may be told of something while others are checked."""
reason = ""
"""Why sessions that begin now are left out; empty: they are not."""
replaying = 0
"""The thread that replays: its cores are not to be recorded again."""


@wraps(native["__init__"])
def made(self: Any, role: Any, config: Any, *, now: float) -> None:
    native["__init__"](self, role, config, now=now)
    if threading.get_ident() == replaying:
        return
    with lock:
        if reason:
            without[reason] += 1
        else:
            twin_of[self] = twin = Twin(self, now)
            twins.append(twin)


@wraps(native["actions"])
def actions(self: Any) -> list[Action]:
    twin = twin_of.get(self)
    if twin is None:
        taken: list[Action] = native["actions"](self)
        return taken
    taken, twin.actions = twin.actions, []
    return taken


def observed(name: str) -> Callable[..., None]:
    @wraps(native[name])
    def method(self: Any, *args: Any, now: float, **options: Any) -> None:
        twin = twin_of.get(self)
        if twin is None:
            native[name](self, *args, now=now, **options)
            return
        raised = None
        try:
            native[name](self, *args, now=now, **options)
        except Exception as error:
            raised = error
            raise
        finally:
            given = METHODS[name](*args, **options)
            with lock:
                if twin.checked is not None and twin not in late:
                    late.append(twin)
                twin.happened(given, native["actions"](self), now, raised)

    return method


Connection.__init__ = made  # type: ignore[method-assign]
Connection.actions = actions  # type: ignore[method-assign]
for name in METHODS:
    setattr(Connection, name, observed(name))


def check(recorded: list[Twin]) -> None:
    global replaying
    replaying = threading.get_ident()
    try:
        while recorded:
            recorded.pop().check()
    finally:
        recorded.clear()
        replaying = 0


@pytest.fixture(autouse=True)
def every_session_is_replayed() -> Iterator[None]:
    yield
    check(twins)


@contextmanager
def left_out(why: str) -> Iterator[None]:
    """Sessions that begin meanwhile are counted, and neither recorded nor replayed."""
    global reason
    reason = why
    try:
        yield
    finally:
        reason = ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    try:
        check(late)
    except pytest.fail.Exception as failure:
        print(failure)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if counted["sessions"] or without:
        told = ", ".join(f"{number} {what}" for what, number in counted.items())
        terminalreporter.write_line(f"replayed as they were, and scrubbed: {told}")
        for why, number in sorted(without.items()):
            terminalreporter.write_line(f"left out: {number} sessions because {why}")
