"""Every call is answered exactly once, in whatever order results, deadlines and interruptions come.

The reference keeps one record per call and looks at all of them each time; what it expects is
compared action by action.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from navtalk_proto.errors import ToolFailedError
from navtalk_proto.events import FunctionCall
from navtalk_proto.limits import ToolLimits
from navtalk_proto.tools.calls import Answer, Cancel, Respond, Start, ToolCalls
from navtalk_proto.tools.schema import OnInterrupt, Tool, tool


def quick(n: int) -> int:
    """Quick."""
    raise NotImplementedError


TOOLS = {
    "quick": tool(quick, name="quick", timeout=2),
    "slow": tool(quick, name="slow", timeout=7),
    "vain": tool(quick, name="vain", timeout=4, on_interrupt=OnInterrupt.CANCEL),
}


@define
class Record:
    """A call as the reference sees it."""

    call_id: str
    tool: Tool
    deadline: float
    runs: bool = False
    open: bool = True


@define
class Reference:
    """Says what is to be done, in the order in which it must be."""

    running: int
    waiting: int
    records: list[Record] = field(factory=list)
    wanted: bool = False
    closed: bool = False

    def open(self) -> list[Record]:
        return [record for record in self.records if record.open]

    def passed(self, now: float) -> list[str]:
        """Deadlines before an input."""
        done = []
        due = [record for record in self.open() if record.deadline <= now]
        for record in due:
            done += self.drop(record, "timeout")
        return done + self.settle() if due else []

    def drop(self, record: Record, code: str) -> list[str]:
        record.open = False
        self.wanted = self.wanted or code == "timeout"
        return [f"answer {record.call_id} {code}", *(["cancel " + record.call_id] * record.runs)]

    def settle(self) -> list[str]:
        """What may start now, and whether a response is due."""
        done = []
        for record in self.open():
            busy = sum(other.runs for other in self.records)
            if not record.runs and busy < self.running:
                record.runs = True
                done.append(f"start {record.call_id}")
        if self.wanted and not self.open():
            self.wanted = False
            done.append("respond")
        return done

    def call(self, call_id: str, name: str, good: bool, now: float) -> list[str]:
        done = self.passed(now)
        if self.closed or any(
            record.call_id == call_id and (record.open or record.runs) for record in self.records
        ):
            return done
        code = None
        if name not in TOOLS:
            code = "unknown_function"
        elif not good:
            code = "invalid_arguments"
        else:
            busy = sum(record.runs for record in self.records)
            queue = sum(not record.runs for record in self.open())
            if busy >= self.running and queue >= self.waiting:
                code = "too_many_calls"
        if code is not None:
            self.wanted = True
            return [*done, f"answer {call_id} {code}", *self.settle()]
        self.records.append(Record(call_id, TOOLS[name], now + TOOLS[name].timeout))
        return done + self.settle()

    def end(self, call_id: str, code: str, now: float) -> list[str]:
        done = self.passed(now)
        (record,) = (one for one in self.records if one.runs and one.call_id == call_id)
        record.runs = False
        if record.open:
            record.open = False
            self.wanted = True
            done.append(f"answer {call_id} {code}")
        return done + self.settle()

    def interrupt(self, now: float) -> list[str]:
        done = self.passed(now)
        self.wanted = False
        for record in self.open():
            if record.tool.on_interrupt is OnInterrupt.CANCEL:
                done += self.drop(record, "interrupted")
        return done + self.settle()

    def ask(self, now: float) -> list[str]:
        done = self.passed(now)
        self.wanted = not self.closed
        return done + self.settle()

    def close(self) -> list[str]:
        self.closed, self.wanted = True, False
        done = [f"cancel {record.call_id}" for record in self.open() if record.runs]
        for record in self.open():
            record.open = False
        return done


class Calls(RuleBasedStateMachine):
    @initialize(running=st.integers(1, 3), waiting=st.integers(0, 3))
    def begin(self, running: int, waiting: int) -> None:
        self.limits = ToolLimits(running=running, waiting=waiting)
        self.calls = ToolCalls(limits=self.limits)
        self.calls.offered(TOOLS, application={"hang_up"})
        self.reference = Reference(running, waiting)
        self.now = 0.0
        self.made = 0
        self.taken: set[str] = set()
        self.answered: list[str] = []
        self.running: set[str] = set()
        self.started: list[str] = []
        self.closed = False

    def check(self, expected: list[str]) -> None:
        done = []
        for action in self.calls.actions():
            match action:
                case Start():
                    assert action.call_id not in self.started
                    assert action.arguments == {"n": 1}
                    self.started.append(action.call_id)
                    self.running.add(action.call_id)
                    done.append(f"start {action.call_id}")
                case Cancel():
                    assert action.call_id in self.running
                    done.append(f"cancel {action.call_id}")
                case Answer():
                    assert not self.closed
                    assert action.call_id not in self.answered
                    self.answered.append(action.call_id)
                    done.append(f"answer {action.call_id} {self.code(action.output)}")
                case Respond():
                    assert not self.closed
                    done.append("respond")
        assert done == expected

    @staticmethod
    def code(output: str) -> str:
        said = json.loads(output)
        return said["error"]["code"] if isinstance(said, dict) else "ok"

    @rule(
        name=st.sampled_from([*TOOLS, *TOOLS, "vain", "unknown"]),
        good=st.sampled_from([True] * 4 + [False]),
    )
    def call(self, name: str, good: bool) -> None:
        self.made += 1
        call_id = str(self.made)
        if not self.closed:
            self.taken.add(call_id)
        self.give("called", self.event(call_id, name, good))
        self.check(self.reference.call(call_id, name, good, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), name=st.sampled_from([*TOOLS]))
    def call_again(self, data: st.DataObject, name: str) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.give("called", self.event(call_id, name, True))
        self.check(self.reference.call(call_id, name, True, self.now))

    @rule()
    def call_of_the_application(self) -> None:
        self.made += 1
        self.give("called", self.event(str(self.made), "hang_up", True))
        self.check(self.reference.passed(self.now))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        how=st.sampled_from(
            [
                ("returned", 5, "ok"),
                ("returned", object(), "invalid_result"),
                ("raised", ValueError(), "failed"),
                ("raised", ToolFailedError("no"), "failed"),
                ("cancelled", None, "failed"),
            ]
        ),
    )
    def end(self, data: st.DataObject, how: tuple[str, Any, str]) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        what, value, code = how
        self.give(what, *([call_id] if what == "cancelled" else [call_id, value]))
        # Not before: a deadline that passed may have cancelled it first.
        self.check(self.reference.end(call_id, code, self.now))
        self.running.remove(call_id)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def timer(self) -> None:
        when = self.calls.next_timeout()
        deadlines = [record.deadline for record in self.reference.open()]
        assert when == min(deadlines, default=None)
        assume(when is not None)
        assert when is not None
        self.now = max(self.now, when)
        self.give("handle_timeout")
        self.check(self.reference.passed(self.now))
        later = self.calls.next_timeout()
        assert later is None or later > self.now

    @rule()
    def interrupt(self) -> None:
        self.give("interrupted")
        self.check(self.reference.interrupt(self.now))

    @rule()
    def ask(self) -> None:
        self.give("asked")
        self.check(self.reference.ask(self.now))

    @precondition(lambda self: self.made > 8)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.give("closed")
        self.check(self.reference.close())

    @invariant()
    def the_bound_holds_and_the_counters_add_up(self) -> None:
        if not hasattr(self, "calls"):
            return
        assert len(self.running) <= self.limits.running
        counted = self.calls.counters
        ended = counted.returned + counted.failed + counted.timed_out + counted.interrupted
        assert ended + counted.refused == len(self.answered)
        waiting = len(self.reference.open())
        assert counted.called == len(self.answered) + counted.unanswered + waiting
        assert counted.called == len(self.taken)

    def teardown(self) -> None:
        """Let everything end: then each call that was taken has one answer, or the end came."""
        if not hasattr(self, "calls"):
            return
        while self.running or self.calls.next_timeout() is not None:
            if self.running:
                call_id = min(self.running)
                self.give("returned", call_id, 5)
                self.check(self.reference.end(call_id, "ok", self.now))
                self.running.remove(call_id)
            else:
                self.timer()
        assert len(self.answered) + self.calls.counters.unanswered == len(self.taken)
        if not self.closed:
            assert set(self.answered) == self.taken

    def give(self, what: str, *values: Any) -> None:
        getattr(self.calls, what)(*values, now=self.now)

    @staticmethod
    def event(call_id: str, name: str, good: bool) -> FunctionCall:
        return FunctionCall(call_id=call_id, name=name, arguments='{"n": 1}' if good else "{}")


TestToolCalls = Calls.TestCase
