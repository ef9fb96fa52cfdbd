"""The strict engine behind a loop: when its commands end, and what it reports then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    MediaCommand,
    OpenPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.config import RECEIVE_MEDIA, SEND_MEDIA
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.media import (
    Capabilities,
    IcePolicy,
    MediaKind,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    OpId,
)
from navtalk_proto.stats import MediaStats
from navtalk_proto.testing import EngineMisuseError, PaperEngine, StrictEngine
from navtalk_proto.wire.messages import Answer, IceCandidate, Offer


class Rig:
    """A paper engine, the turns of a loop that it asked for, and everything it reported."""

    def __init__(self, flag: Any, strict: StrictEngine | None = None) -> None:
        self.turns: deque[Callable[[], None]] = deque()
        self.reports: list[tuple[Any, ...]] = []
        self.engine = PaperEngine(
            EngineCallbacks(
                done=lambda op, result: self.reports.append(("done", op, result)),
                failed=lambda op, reason: self.reports.append(("failed", op, reason)),
                event=lambda event: self.reports.append(("event", event)),
            ),
            soon=self.turns.append,
            flag=flag,
            strict=strict,
        )

    def turn(self) -> None:
        """Run what was asked for until now."""
        for _ in range(len(self.turns)):
            self.turns.popleft()()

    def run(self) -> None:
        """Run until nothing is asked for any more."""
        while self.turns:
            self.turn()

    def take(self) -> list[tuple[Any, ...]]:
        taken, self.reports = self.reports, []
        return taken


@pytest.fixture
def rig(flag: Any) -> Rig:
    return Rig(flag)


def open_peer(op: int) -> OpenPeer:
    return OpenPeer(op=OpId(op), ice_servers=(), policy=IcePolicy.ALL, media=RECEIVE_MEDIA)


def far_offer() -> Offer:
    far = StrictEngine("f")
    commands: list[MediaCommand] = [open_peer(1), SetLocal(op=OpId(2), media=SEND_MEDIA)]
    for command in commands:
        far.execute(command)
        _, offer, _ = far.finish()
    assert isinstance(offer, Offer)
    return offer


def test_it_has_the_capabilities_of_its_strict_engine(flag: Any, crank: Any) -> None:
    strict = StrictEngine("x", capabilities=Capabilities(rollback=True))
    engine = Rig(flag, strict).engine
    assert engine.strict is strict
    assert engine.capabilities == Capabilities(rollback=True)
    assert Rig(flag).engine.capabilities == Capabilities(rollback=False)
    assert crank(engine.start()).result() is None
    assert engine.counters() == {}


def test_a_command_ends_on_a_later_turn(rig: Rig) -> None:
    rig.engine.execute(open_peer(1))
    assert rig.take() == []
    rig.turn()
    assert rig.take() == [("done", 1, None)]
    rig.engine.execute(CreateOffer(op=OpId(2), media=RECEIVE_MEDIA))
    rig.run()
    ((kind, op, offer),) = rig.take()
    assert (kind, op) == ("done", 2)
    assert isinstance(offer, Offer)
    assert offer.sdp.startswith("v=0\r\n")


def test_an_illegal_command_raises_where_it_is_given(rig: Rig) -> None:
    with pytest.raises(EngineMisuseError):
        rig.engine.execute(CreateOffer(op=OpId(1), media=RECEIVE_MEDIA))
    rig.run()
    assert rig.take() == []


def test_an_exchange_is_followed_by_what_happens_to_media(rig: Rig) -> None:
    rig.engine.execute(open_peer(1))
    rig.run()
    rig.engine.execute(SetRemote(op=OpId(2), description=far_offer()))
    rig.run()
    rig.engine.execute(SetLocal(op=OpId(3)))
    rig.run()
    reports = rig.take()
    assert [report[:2] for report in reports if report[0] == "done"] == [
        ("done", 1),
        ("done", 2),
        ("done", 3),
    ]
    (answer,) = [report[2] for report in reports if report[:2] == ("done", 3)]
    assert isinstance(answer, Answer)
    after = [report[1] for report in reports[reports.index(("done", 3, answer)) + 1 :]]
    assert [event.state for event in after if isinstance(event, MediaStateChanged)] == [
        MediaState.CHECKING,
        MediaState.ICE_CONNECTED,
        MediaState.CONNECTED,
    ]
    assert [event.kind for event in after if isinstance(event, MediaStarted)] == [
        MediaKind.VIDEO,
        MediaKind.AUDIO,
    ]


def test_commands_that_wait_together_end_in_order(rig: Rig) -> None:
    rig.engine.execute(open_peer(1))
    rig.run()
    rig.engine.execute(SetRemote(op=OpId(2), description=far_offer()))
    rig.run()
    rig.take()
    rig.engine.held = True
    for op in (3, 4, 5):
        candidate = IceCandidate(candidate=f"candidate:{op} 1 udp 1 10.0.0.1 {op} typ host")
        rig.engine.execute(AddCandidate(op=OpId(op), candidate=candidate))
    assert not rig.turns
    rig.engine.release()
    rig.turn()
    assert rig.take() == [("done", 3, None)]
    rig.run()
    assert rig.take() == [("done", 4, None), ("done", 5, None)]


def test_a_held_command_waits_for_release(rig: Rig) -> None:
    rig.engine.execute(open_peer(1))
    rig.engine.held = True  # Also one whose turn was asked for already.
    rig.run()
    assert rig.take() == []
    assert rig.engine.strict.busy
    rig.engine.release()
    assert rig.engine.held is False
    rig.run()
    assert rig.take() == [("done", 1, None)]
    rig.engine.release()
    rig.run()
    assert rig.take() == []


def test_a_test_fails_the_oldest_command(rig: Rig) -> None:
    rig.engine.held = True
    rig.engine.execute(open_peer(1))
    rig.engine.fail("no codec")
    assert rig.take() == [("failed", 1, "no codec")]
    with pytest.raises(IndexError):
        rig.engine.fail("nothing waits")
    rig.engine.release()
    rig.run()
    assert rig.take() == []


def test_commands_that_a_close_overtakes_fail(rig: Rig) -> None:
    rig.engine.held = True
    rig.engine.execute(open_peer(1))
    rig.engine.execute(ClosePeer(op=OpId(2)))
    rig.engine.release()
    rig.run()
    assert rig.take() == [("failed", 1, "the peer connection was closed"), ("done", 2, None)]


def test_a_test_reports_an_event(rig: Rig) -> None:
    event = MediaStateChanged(state=MediaState.DISCONNECTED)
    rig.engine.event(event)
    assert rig.take() == [("event", event)]


def test_what_its_strict_engine_reports_comes_with_the_next_turn(rig: Rig) -> None:
    rig.engine.strict.fail_transport("no route")
    rig.engine.release()
    rig.run()
    failed = MediaStateChanged(state=MediaState.FAILED, reason="no route")
    assert rig.take() == [("event", failed)]


def test_the_end_ends_the_frames_and_the_reports(rig: Rig, crank: Any) -> None:
    async def main() -> list[Any]:
        return [frame async for frame in rig.engine.frames(MediaKind.VIDEO)]

    reading = crank(main())
    assert not reading.turn()
    rig.engine.execute(open_peer(1))
    assert rig.engine.closed is False
    for _ in range(2):
        assert crank(rig.engine.aclose()).done
        assert rig.engine.closed is True
    assert reading.result() == []
    rig.run()
    assert rig.take() == []


def test_it_measures_nothing_and_remembers_who_waits_for_an_answer(rig: Rig) -> None:
    def told(kind: MediaKind, at: float) -> None:
        """Never called."""

    assert rig.engine.stats() == MediaStats()
    rig.engine.await_answer(told)
    assert rig.engine.awaited is told
    rig.engine.await_answer(None)
    assert rig.engine.awaited is None
