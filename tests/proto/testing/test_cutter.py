"""A WebSocket that is cut or falls silent: what each end sees, without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from navtalk_proto.machines.lifecycle import State
from navtalk_proto.testing.cutter import Cutter, CutTransport, Flow
from navtalk_proto.testing.memory_transport import MemoryTransport, memory_transports
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.codec import encode
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
)

STAGES = {
    State.OPENING: ConnectedSuccess(session_id="s-1"),
    State.CONFIGURING: SessionCreated(),
    State.READY: SessionUpdated(),
}


class Ends:
    """A client's transport under a cutter, and the server's end."""

    def __init__(self, flag: Any, crank: Any) -> None:
        self.near, self.far = memory_transports(flag)
        self.slept: list[float] = []
        self.crank = crank

        async def race(work: Callable[[], Awaitable[str | bytes]], cut: Any) -> Any:
            """Both are flags here: what is ready first, by turns."""
            while self.near.waiting == 0 and not cut.is_set():
                self.near._wake.clear()
                await self.near._wake.wait()
            return None if cut.is_set() else await work()

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        self.cutter = Cutter(flag, race, sleep)
        self.ours: CutTransport = self.cutter.wrap(self.near)

    def cut(self) -> None:
        self.cutter.cut()
        self.near._wake.set()  # As the flag of a race on a loop does.

    def say(self, message: Any) -> None:
        self.crank(self.far.send_text(encode(message))).result()

    def ended(self, end: CutTransport | MemoryTransport) -> bool:
        with pytest.raises(TransportClosedError) as caught:
            self.crank(end.receive()).result()
        return (caught.value.code, caught.value.reason) == (None, "")


@pytest.fixture
def ends(flag: Any, crank: Any) -> Ends:
    return Ends(flag, crank)


def test_what_is_open_passes_and_is_noted(ends: Ends) -> None:
    ends.say(SessionCreated())
    ends.crank(ends.ours.send_text(encode(ResponseCreate()))).result()
    assert ends.crank(ends.ours.receive()).result() == encode(SessionCreated())
    ends.far.send_binary(b"\x01")
    assert ends.crank(ends.ours.receive()).result() == b"\x01"
    for text in ("no JSON", "[]", "{}"):
        ends.crank(ends.far.send_text(text)).result()
        assert ends.crank(ends.ours.receive()).result() == text
    assert ends.cutter.passed == [
        "> response.create",
        "< realtime.session.created",
        "< binary",
        "< no JSON",
        "< no type",
        "< no type",
    ]
    ends.crank(ends.ours.close(1000, "bye")).result()
    assert ends.crank(ends.far.receive()).result() == encode(ResponseCreate())
    with pytest.raises(TransportClosedError, match="1000: bye"):
        ends.crank(ends.far.receive()).result()


def test_only_the_newest_messages_are_noted(ends: Ends) -> None:
    ends.cutter.at(1001, Flow.SILENT)
    for _ in range(999):
        ends.crank(ends.ours.send_text("[]")).result()
        ends.crank(ends.far.receive()).result()
    ends.crank(ends.ours.send_text("{")).result()
    ends.crank(ends.ours.send_text("{")).result()
    assert ends.cutter.passed[-3:] == ["> no type", "> no JSON", "> no JSON"]
    assert len(ends.cutter.passed) == 1000
    assert ends.cutter.flow is Flow.SILENT


def test_a_cut_ends_both_ends_without_a_close_frame(ends: Ends) -> None:
    receiving = ends.crank(ends.ours.receive())
    assert not receiving.turn()
    ends.cut()
    with pytest.raises(TransportClosedError):
        receiving.result()
    with pytest.raises(TransportClosedError):
        ends.crank(ends.ours.send_text("late")).result()
    ends.crank(ends.ours.close(1000, "")).result()
    assert ends.ended(ends.far)
    assert ends.near.sent == []


@pytest.mark.parametrize("state", STAGES)
def test_it_is_cut_right_after_a_state_was_reached(ends: Ends, state: State) -> None:
    ends.cutter.at(state)
    for reached, message in STAGES.items():
        ends.say(message)
        assert ends.crank(ends.ours.receive()).result() == encode(message)
        if reached is state:
            break
    assert ends.ended(ends.ours)
    assert ends.ended(ends.far)


def test_it_is_cut_after_a_message_of_ours_or_a_number_of_messages(flag: Any, crank: Any) -> None:
    for what in ("response.create", 1):
        ends = Ends(flag, crank)
        ends.cutter.at(what)
        crank(ends.ours.send_text(encode(ResponseCreate()))).result()
        assert ends.ended(ends.ours)
        assert ends.near.sent == [encode(ResponseCreate())]


def test_a_state_that_no_message_leads_to_is_refused(ends: Ends) -> None:
    with pytest.raises(KeyError):
        ends.cutter.at(State.CLOSED)


def test_in_silence_nothing_passes_and_nobody_is_told(ends: Ends, crank: Any) -> None:
    ends.cutter.at("realtime.session.created", Flow.SILENT)
    ends.say(SessionCreated())
    ends.crank(ends.ours.receive()).result()
    receiving = crank(ends.ours.receive())
    ends.say(SessionUpdated())
    assert not receiving.turn()
    crank(ends.ours.send_text("into the void")).result()
    assert (ends.near.sent, ends.far.waiting) == ([], 0)
    assert ends.cutter.vanished == 2
    closing = crank(ends.ours.close(1000, ""))
    assert not closing.turn()
    ends.cut()
    closing.result()
    with pytest.raises(TransportClosedError):
        receiving.result()


def test_silence_can_heal_and_what_vanished_is_gone(ends: Ends, crank: Any) -> None:
    ends.cutter.go_silent()
    crank(ends.ours.send_text("one")).result()
    ends.cutter.heal()
    crank(ends.ours.send_text("two")).result()
    assert ends.near.sent == ["two"]
    ends.cutter.at("no type", Flow.OPEN)
    crank(ends.ours.send_text("{}")).result()
    assert ends.cutter.flow is Flow.OPEN


def test_a_cut_connection_neither_heals_nor_falls_silent(ends: Ends) -> None:
    ends.cut()
    ends.cutter.go_silent()
    ends.cutter.heal()
    assert ends.cutter.flow is Flow.CUT


def test_slow_takes_its_time_both_ways(ends: Ends, crank: Any) -> None:
    ends.cutter.slow = 0.25
    crank(ends.ours.send_text("one")).result()
    ends.say(SessionCreated())
    crank(ends.ours.receive()).result()
    assert ends.slept == [0.25, 0.25]


def test_a_receive_that_is_cancelled_while_slow_loses_nothing(
    ends: Ends, crank: Any, flag: Any
) -> None:
    waiting = flag()

    async def sleep(seconds: float) -> None:
        await waiting.wait()

    ends.cutter._sleep = sleep
    ends.cutter.slow = 1.0
    ends.say(SessionCreated())
    receiving = crank(ends.ours.receive())
    receiving.cancel()
    waiting.set()
    assert crank(ends.ours.receive()).result() == encode(SessionCreated())


def test_dropping_it_drops_what_is_under_it(ends: Ends, crank: Any) -> None:
    crank(ends.ours.aclose()).result()
    assert ends.near.closed.is_set()
    assert ends.ended(ends.far)
