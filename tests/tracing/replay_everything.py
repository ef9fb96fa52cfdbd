"""Every session that a test runs is recorded, and replayed when the test is over: twice, as it was
and without its secrets, words and voices. So determinism is tried wherever the core is, and so is
that what a trace leaves out is not missed.

A conftest.py imports both names; pytest prints at its end how many sessions there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

LICENCE = "sk_navtalk_EXAMPLE"

HOW: dict[str, Callable[[], Scrubber]] = {
    "as it was": lambda: Scrubber(credentials=False),
    "scrubbed": lambda: Scrubber((LICENCE,), text=False, audio=False),
}

MOST_LINES = 20_000
"""Of one test: a flood of messages is a session like any other."""

counted = dict.fromkeys(("sessions", "inputs", "actions", "left out"), 0)


class Twin:
    """What is recorded of one connection, in both ways."""

    def __init__(self, core: Connection, now: float) -> None:
        self.lines: dict[str, list[str]] = {how: [] for how in HOW}
        self.foreign = False
        """The test gave the core what no driver does, or a flood."""
        self.actions: list[Action] = []
        """Those that the test has not taken yet."""
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
        if not self.foreign:
            for recording in self.recordings:
                try:
                    recording.happened(given, actions, now=now, raised=raised)
                except Exception:
                    if raised is None:
                        raise
                    self.foreign = True  # It was no intent, or no result; the core said so too.
            self.foreign |= len(self.lines["as it was"]) > MOST_LINES

    def check(self) -> None:
        if self.foreign:
            counted["left out"] += 1
            return
        for how, lines in self.lines.items():
            result = replay(lines)
            if result.divergence is not None:
                told = "".join(lines[: result.divergence.line][-20:])
                pytest.fail(f"{how}: {result.divergence}\n{told}")
            if how == "as it was":
                assert not result.gap
                counted["sessions"] += 1
                counted["inputs"] += result.inputs
                counted["actions"] += result.actions


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


@pytest.fixture(autouse=True)
def every_session_is_replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    twins: list[Twin] = []
    native = {name: getattr(Connection, name) for name in (*METHODS, "__init__", "actions")}
    twin_of: WeakKeyDictionary[Connection, Twin] = WeakKeyDictionary()
    replaying = False

    def made(self: Any, role: Any, config: Any, *, now: float) -> None:
        native["__init__"](self, role, config, now=now)
        if not replaying:
            twin_of[self] = twin = Twin(self, now)
            twins.append(twin)

    def actions(self: Any) -> list[Action]:
        if replaying:
            return native["actions"](self)
        twin = twin_of[self]
        taken, twin.actions = twin.actions, []
        return taken

    def observed(name: str) -> Callable[..., None]:
        @wraps(native[name])
        def method(self: Any, *args: Any, now: float, **options: Any) -> None:
            if replaying:
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
                twin_of[self].happened(given, native["actions"](self), now, raised)

        return method

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "__init__", made)
        patch.setattr(Connection, "actions", actions)
        for name in METHODS:
            patch.setattr(Connection, name, observed(name))
        yield
        replaying = True
        for twin in twins:
            twin.check()


def tell_replayed(terminalreporter: Any) -> None:
    """Called by the pytest_terminal_summary() of each conftest.py that uses the fixture."""
    if counted["sessions"]:
        told = ", ".join(f"{number} {what}" for what, number in counted.items())
        terminalreporter.write_line(f"replayed as they were, and scrubbed: {told}")
        counted.update(dict.fromkeys(counted, 0))


pytest_terminal_summary = tell_replayed
"""For a conftest.py that has none of its own."""
