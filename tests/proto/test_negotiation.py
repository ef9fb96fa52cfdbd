"""The negotiation machine by itself: what it asks of an engine, sends and tells, step by step.

A machine's output is written as words: ``open``, ``remote offer a``, ``add c1`` are commands,
``> offer`` is sent, ``! Negotiated`` is told. The whole table is walked in test_machines_walk.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    Emit,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.events import (
    AnswerIgnored,
    CandidateFailed,
    CandidateIgnored,
    Event,
    Negotiated,
    NegotiationFailed,
    OfferIgnored,
)
from navtalk_proto.ice import public_ice_servers
from navtalk_proto.limits import Limits
from navtalk_proto.machines.negotiation import Negotiation, Output, State
from navtalk_proto.media import Capabilities, Direction, IcePolicy, MediaKind, MediaLine, OpId
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import Answer, IceCandidate, IceServer, Offer
from navtalk_proto.wire.sdp import check_description

AUDIO = (MediaLine(kind=MediaKind.AUDIO),)
VIDEO = (MediaLine(kind=MediaKind.VIDEO),)
BOTH = (*VIDEO, *AUDIO)
STUN = (IceServer(urls=("stun:example.org:3478",)),)
REPLACED = "its offer was replaced by a newer one"


def sdp(ufrag: str, mid: str = "0", direction: str = "sendrecv") -> str:
    lines = [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        f"a=mid:{mid}",
        f"a={direction}",
        f"a=ice-ufrag:{ufrag}",
        "a=ice-pwd:0123456789012345678901",
        f"a=fingerprint:sha-256 AA:{ord(ufrag[0]):02X}",
    ]
    return "".join(line + "\r\n" for line in lines)


def ufrag_of(description: Offer | Answer) -> str:
    return description.sdp.split("ice-ufrag:")[1].split("\r")[0]


OUR_OFFER = Offer(sdp=sdp("ours"))
OUR_ANSWER = Answer(sdp=sdp("ours"))


def candidate(name: str, ufrag: str | None = None, *, in_text: bool = False) -> IceCandidate:
    """A candidate whose foundation is `name`; ``end`` is an end mark."""
    if name == "end":
        return IceCandidate(candidate="", sdp_mid="0", username_fragment=ufrag)
    text = f"candidate:{name} 1 udp 2122129151 192.0.2.1 64301 typ host generation 0"
    if in_text:
        return IceCandidate(candidate=f"{text} ufrag {ufrag} network-id 1", sdp_mid="0")
    return IceCandidate(candidate=text, sdp_mid="0", username_fragment=ufrag)


def name_of(value: IceCandidate) -> str:
    return value.candidate[10:].split(" ")[0] or "end"


def words(output: Output) -> str:
    match output:
        case OpenPeer():
            return "open"
        case ResetPeer():
            return "reset"
        case ClosePeer():
            return "close"
        case CreateOffer():
            return "create offer"
        case SetLocal(description=None, media=()):
            return "local answer"
        case SetLocal(description=None):
            return "local offer"
        case SetLocal():
            return "commit offer"
        case SetRemote():
            kind = type(output.description).__name__.lower()
            return f"remote {kind} {ufrag_of(output.description)}"
        case AddCandidate():
            return f"add {name_of(output.candidate)}"
        case Emit(event=CandidateIgnored() | CandidateFailed() as event):
            return f"! {type(event).__name__} {name_of(event.candidate)}"
        case Emit():
            return f"! {type(output.event).__name__}"
        case IceCandidate():
            return f"> {name_of(output)}"
        case _:
            return f"> {type(output).__name__.lower()}"


class Bench:
    """A negotiation, its last output, and the operation it waits for."""

    def __init__(
        self,
        *,
        polite: bool = True,
        media: tuple[MediaLine, ...] = BOTH,
        rollback: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.timers = Timers()
        self.machine = Negotiation(
            polite=polite,
            media=media,
            ice_servers=STUN,
            policy=IcePolicy.RELAY,
            capabilities=Capabilities(rollback=rollback),
            limits=self.limits,
            answer_timeout=10.0,
            timers=self.timers,
            allow_ice_server=public_ice_servers,
        )
        self.now = 100.0
        self.op = OpId(0)
        self.adding: list[OpId] = []
        self.last: list[Output] = []

    @property
    def state(self) -> State:
        return self.machine.state

    def told(self, kind: type[Event]) -> list[Any]:
        events = [output.event for output in self.last if isinstance(output, Emit)]
        return [event for event in events if isinstance(event, kind)]

    def command(self, kind: type) -> Any:
        (found,) = [output for output in self.last if isinstance(output, kind)]
        return found

    def take(self) -> list[str]:
        self.last, self.machine.out = self.machine.out, []
        for output in self.last:
            match output:
                case AddCandidate():
                    self.adding.append(output.op)
                case OpenPeer() | ResetPeer() | CreateOffer() | SetLocal() | SetRemote():
                    self.op = output.op
                case _:
                    pass
        return [words(output) for output in self.last]

    def wish(self, media: tuple[MediaLine, ...] = BOTH) -> list[str]:
        self.machine.wish(media, now=self.now)
        return self.take()

    def offer(self, ufrag: str = "far") -> list[str]:
        return self._receive(Offer(sdp=sdp(ufrag)))

    def answer(self, ufrag: str = "far", mid: str = "0", direction: str = "sendrecv") -> list[str]:
        return self._receive(Answer(sdp=sdp(ufrag, mid, direction)))

    def _receive(self, description: Offer | Answer) -> list[str]:
        checked = check_description(description, self.limits)
        self.machine.remote_description(description, checked, now=self.now)
        return self.take()

    def remote(self, *candidates: IceCandidate) -> list[str]:
        for value in candidates:
            self.machine.remote_candidate(value)
        return self.take()

    def local(self, *candidates: IceCandidate) -> list[str]:
        for value in candidates:
            self.machine.local_candidate(value)
        return self.take()

    def done(self, result: MediaResult = None) -> list[str]:
        self.machine.operation_done(self.op, result, now=self.now)
        return self.take()

    def fail(self, reason: str = "it broke") -> list[str]:
        self.machine.operation_failed(self.op, reason, now=self.now)
        return self.take()

    def time_out(self) -> list[str]:
        deadline = self.timers.next()
        assert deadline is not None
        assert self.timers.pop_due(deadline) is Timer.ANSWER
        self.now = deadline
        self.machine.answer_timeout(now=deadline)
        return self.take()

    def die(self) -> list[str]:
        self.machine.transport_failed(now=self.now)
        return self.take()

    def peer_closed(self) -> list[str]:
        self.machine.peer_closed(now=self.now)
        return self.take()

    def close(self) -> list[str]:
        self.machine.close(now=self.now)
        return self.take()


STEPS = {
    "no peer": ("no peer", ""),
    "opening for offer": ("opening peer", "offer"),
    "applying offer": ("applying offer", "offer done"),
    "making answer": ("making answer", "offer done done"),
    "stable": ("stable", "offer done done answered"),
    "making offer": ("making offer", "offer done done answered wish"),
    "have local offer": ("have local offer", "offer done done answered wish offered"),
    "committing offer": ("committing offer", "offer done done answered wish offered answer"),
    "applying answer": ("applying answer", "offer done done answered wish offered answer offered"),
    "failed": ("failed", "offer done done answered die"),
    "resetting": ("resetting", "offer done done answered die wish"),
    "opening for wish": ("opening peer", "wish"),
    "making first offer": ("making offer", "wish done"),
    "have first offer": ("have local offer", "wish done offered"),
    "offer expired": ("offer expired", "wish done offered time_out"),
    "applying first answer": ("applying answer", "wish done offered answer"),
}
"""How to bring a machine into a state; ``first``: before an exchange is complete on its peer."""


def at(situation: str, **options: Any) -> Bench:
    """A machine that was brought into a situation of STEPS."""
    bench = Bench(**options)
    state, steps = STEPS[situation]
    for step in steps.split():
        if step == "offered":
            bench.done(OUR_OFFER)
        elif step == "answered":
            bench.done(OUR_ANSWER)
        else:
            getattr(bench, step)()
    assert bench.state.value == state
    return bench


LIVE = list(STEPS)


# ---- the exchanges


def test_the_far_end_offers_first() -> None:
    bench = Bench()
    assert bench.offer() == ["open"]
    opened = bench.command(OpenPeer)
    assert (opened.ice_servers, opened.policy, opened.media) == (STUN, IcePolicy.RELAY, BOTH)
    assert opened.allow_ice_server is public_ice_servers
    assert bench.done() == ["remote offer far"]
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]
    assert bench.told(Negotiated) == [Negotiated(offered_by_us=False)]
    assert bench.last[0] == OUR_ANSWER
    assert bench.state is State.STABLE
    assert bench.timers.next() is None


def test_the_ice_servers_are_those_of_the_moment() -> None:
    bench = Bench()
    later = (IceServer(urls=("turn:example.org",)),)
    bench.machine.ice_servers = later
    bench.offer()
    assert bench.command(OpenPeer).ice_servers == later


def test_we_offer_first() -> None:
    bench = Bench()
    assert bench.wish(AUDIO) == ["open"]
    assert bench.command(OpenPeer).media == AUDIO, "a rebuilt peer offers what is wanted"
    assert bench.done() == ["local offer"]
    assert bench.command(SetLocal).media == AUDIO
    assert bench.timers.next() is None
    assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.timers.next() == 110.0
    assert bench.answer() == ["remote answer far"]
    assert bench.timers.next() is None
    assert bench.done() == ["! Negotiated"]
    assert bench.told(Negotiated) == [Negotiated(offered_by_us=True, media=AUDIO)]
    assert bench.state is State.STABLE


def test_a_later_offer_is_only_made_until_its_answer_comes() -> None:
    bench = at("stable")
    assert bench.wish(AUDIO) == ["create offer"]
    assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.timers.next() == 110.0
    assert bench.answer() == ["commit offer"]
    assert bench.command(SetLocal).description == OUR_OFFER
    assert bench.timers.next() is None
    assert bench.done(OUR_OFFER) == ["remote answer far"]
    assert bench.done() == ["! Negotiated"]
    assert bench.told(Negotiated) == [Negotiated(offered_by_us=True, media=AUDIO)]


def test_a_later_offer_of_theirs_on_the_same_transport() -> None:
    bench = at("stable")
    assert bench.offer() == ["remote offer far"]
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]


def test_an_offer_of_a_new_transport_takes_a_new_peer() -> None:
    bench = at("stable")
    assert bench.offer("new") == ["reset"]
    reset = bench.command(ResetPeer)
    assert (reset.ice_servers, reset.policy, reset.media) == (STUN, IcePolicy.RELAY, BOTH)
    assert reset.allow_ice_server is public_ice_servers
    assert bench.done() == ["remote offer new"]
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]
    assert bench.offer("new") == ["remote offer new"], "that is the transport now"


def test_the_same_transport_has_another_fingerprint_too() -> None:
    bench = at("stable")
    description = Offer(sdp=sdp("far").replace("AA:66", "AA:67"))
    assert "AA:67" in description.sdp
    assert bench._receive(description) == ["reset"]


@pytest.mark.parametrize("state", LIVE)
def test_an_answer_that_nobody_waits_for(state: str) -> None:
    bench = at(state)
    waits = state in ("have local offer", "have first offer", "offer expired")
    before = bench.state
    output = bench.answer()
    if waits:
        assert "! AnswerIgnored" not in output
    else:
        assert output == ["! AnswerIgnored"]
        assert bench.state is before


# ---- wishes


@pytest.mark.parametrize(
    ("state", "finish"),
    [
        ("opening for offer", [None, None, OUR_ANSWER]),
        ("opening for wish", [None, OUR_OFFER, "answer", None]),
        ("applying offer", [None, OUR_ANSWER]),
        ("making answer", [OUR_ANSWER]),
        ("making offer", [OUR_OFFER, "answer", OUR_OFFER, None]),
        ("have local offer", ["answer", OUR_OFFER, None]),
        ("making first offer", [OUR_OFFER, "answer", None]),
        ("have first offer", ["answer", None]),
        ("committing offer", [OUR_OFFER, None]),
        ("applying answer", [None]),
        ("applying first answer", [None]),
    ],
)
def test_wishes_coalesce_and_are_offered_when_the_exchange_ends(
    state: str, finish: list[MediaResult | str]
) -> None:
    bench = at(state)
    before = bench.state
    assert bench.wish(AUDIO) == []
    assert bench.wish(VIDEO) == []
    assert bench.state is before
    output: list[str] = []
    for step in finish:
        output = bench.answer() if isinstance(step, str) else bench.done(step)
    if state == "opening for wish":
        # The first wish had not been offered yet: the newest one took its place.
        assert output == ["! Negotiated"]
        assert bench.told(Negotiated)[0].media == VIDEO
    else:
        assert output[-2:] == ["! Negotiated", "create offer"]
        assert bench.command(CreateOffer).media == VIDEO


def test_a_wish_while_resetting_is_offered_on_the_new_peer() -> None:
    bench = at("resetting")
    assert bench.wish(AUDIO) == []
    assert bench.done() == ["local offer"]
    assert bench.command(SetLocal).media == AUDIO


@pytest.mark.parametrize("media", [BOTH, ()])
def test_a_wish_says_whether_there_is_media(media: tuple[MediaLine, ...]) -> None:
    bench = Bench(media=media)
    assert bench.machine.wish(BOTH, now=1.0) is bool(media)
    assert bench.machine.wants_media is bool(media)
    assert bench.take() == (["open"] if media else [])


def test_a_wish_of_new_lines_outlives_the_peer() -> None:
    bench = at("stable")
    line = (MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDRECV),)
    bench.wish(line)
    bench.done(OUR_OFFER)
    assert bench.offer("new") == ["reset"]
    assert bench.command(ResetPeer).media == line


# ---- glare: the server is impolite, the client polite


@pytest.mark.parametrize("state", ["making offer", "have local offer"])
def test_the_impolite_end_ignores_the_colliding_offer(state: str) -> None:
    bench = at(state, polite=False)
    before = bench.state
    assert bench.offer() == ["! OfferIgnored"]
    assert bench.told(OfferIgnored)[0].offer == Offer(sdp=sdp("far"))
    assert bench.state is before
    if state == "making offer":
        assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.answer() == ["commit offer"]


@pytest.mark.parametrize("state", ["making first offer", "have first offer"])
def test_the_impolite_end_ignores_it_in_its_first_exchange_too(state: str) -> None:
    bench = at(state, polite=False)
    assert bench.offer() == ["! OfferIgnored"]
    if state == "making first offer":
        assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.answer() == ["remote answer far"]


def test_the_polite_end_gives_up_an_offer_in_the_making() -> None:
    bench = at("making offer")
    assert bench.offer() == []
    assert bench.done(OUR_OFFER) == ["remote offer far"], "ours is never sent"
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]
    assert bench.command(CreateOffer).media == BOTH, "the wish is offered again"


def test_the_polite_end_gives_up_an_offer_that_is_out() -> None:
    bench = at("have local offer")
    assert bench.timers.next() == 110.0
    assert bench.offer() == ["remote offer far"]
    assert bench.timers.next() is None
    assert bench.answer() == ["! AnswerIgnored"], "the far end never saw a reason to send one"
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]


@pytest.mark.parametrize("state", ["making first offer", "have first offer"])
@pytest.mark.parametrize("rollback", [False, True])
def test_a_first_offer_is_given_up_by_rollback_or_by_a_new_peer(state: str, rollback: bool) -> None:
    bench = at(state, rollback=rollback)
    output = bench.offer()
    if state == "making first offer":
        assert output == []
        output = bench.done(OUR_OFFER)
    assert output == (["remote offer far"] if rollback else ["reset"])
    if not rollback:
        assert bench.done() == ["remote offer far"]
    assert bench.done() == ["local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]
    assert bench.command(CreateOffer).media == BOTH


def test_a_newer_wish_replaces_the_one_given_up() -> None:
    bench = at("have local offer")
    bench.wish(AUDIO)
    bench.offer()
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]
    assert bench.command(CreateOffer).media == AUDIO


def test_a_colliding_offer_of_a_new_transport_takes_a_new_peer() -> None:
    bench = at("have local offer")
    assert bench.offer("new") == ["reset"]
    assert bench.done() == ["remote offer new"]


@pytest.mark.parametrize("state", ["opening for wish", "resetting"])
def test_the_impolite_end_does_not_answer_on_a_peer_that_will_offer(state: str) -> None:
    bench = at(state, polite=False)
    assert bench.offer() == ["! OfferIgnored"]
    assert bench.remote(candidate("c1"), candidate("c2", "far")) == [
        "! CandidateIgnored c1",
        "! CandidateIgnored c2",
    ]
    assert bench.done() == ["local offer"]


def test_the_impolite_end_answers_an_offer_that_came_before_its_wish() -> None:
    bench = at("opening for offer", polite=False)
    bench.wish()
    assert bench.offer("newer") == []
    assert bench.done() == ["remote offer newer"]
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]


def test_an_answer_of_a_new_transport_starts_over_on_a_new_peer() -> None:
    bench = at("have local offer")
    bench.remote(candidate("c1"))
    assert bench.answer("new") == ["! CandidateIgnored c1", "reset"]
    assert bench.timers.next() is None
    assert bench.done() == ["local offer"]
    assert bench.command(SetLocal).media == BOTH, "the same wish"
    assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.answer("newer") == ["remote answer newer"], "whatever it is, it is the first"
    assert bench.done() == ["! Negotiated"]
    assert [event.wish for event in bench.told(Negotiated)] == [1]


def test_an_answer_of_a_new_transport_leaves_a_newer_wish_alone() -> None:
    bench = at("have local offer")
    bench.wish(AUDIO)
    assert bench.answer("new") == ["reset"]
    bench.done()
    assert bench.command(SetLocal).media == AUDIO


# ---- parked offers


PARKING: list[tuple[str, list[MediaResult], list[str]]] = [
    ("applying offer", [None], []),
    ("making answer", [OUR_ANSWER], []),
    ("committing offer", [OUR_OFFER, None], ["! Negotiated"]),
    ("applying answer", [None], ["! Negotiated"]),
    ("applying first answer", [None], ["! Negotiated"]),
    ("opening for offer", [None], []),
]
PARKING_IF_POLITE: list[tuple[str, list[MediaResult], list[str]]] = [
    ("opening for wish", [None], []),
    ("resetting", [None], []),
]


@pytest.mark.parametrize(
    ("polite", "state", "finish", "before_it"),
    [(True, *case) for case in PARKING + PARKING_IF_POLITE] + [(False, *case) for case in PARKING],
)
def test_an_offer_in_the_middle_of_something_is_parked_and_replaced(
    polite: bool, state: str, finish: list[MediaResult], before_it: list[str]
) -> None:
    bench = at(state, polite=polite)
    before = bench.state
    assert bench.offer("far") == []
    bench.remote(candidate("c1", "far"))
    assert bench.offer("far") == ["! CandidateIgnored c1"]
    assert bench.state is before
    output: list[str] = []
    for result in finish:
        output = bench.done(result)
    assert output == [*before_it, "remote offer far"]
    assert "> answer" not in output, "the old offer gets no answer"


def test_a_replaced_parked_offer_takes_its_candidates_with_it() -> None:
    bench = at("making answer")
    bench.offer("new1")
    assert bench.remote(candidate("c1", "new1"), candidate("c2")) == []
    assert bench.machine.held_candidates == 2
    assert bench.offer("new2") == ["! CandidateIgnored c1", "! CandidateIgnored c2"]
    assert {event.reason for event in bench.told(CandidateIgnored)} == {REPLACED}
    assert bench.machine.held_candidates == 0
    assert bench.done(OUR_ANSWER) == ["reset"]
    assert bench.done() == ["remote offer new2"]


def test_an_offer_replaced_while_it_is_applied_gets_no_answer() -> None:
    bench = at("applying offer")
    bench.remote(candidate("old"))
    bench.offer()
    bench.remote(candidate("new"))
    assert bench.done() == ["! CandidateIgnored old", "remote offer far"]
    assert bench.done() == ["add new", "local answer"]
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]


def test_an_offer_replaced_by_one_of_a_new_transport_takes_a_new_peer() -> None:
    bench = at("applying offer")
    bench.offer("new")
    assert bench.done() == ["reset"], "the engine has applied the old one by now"
    assert bench.done() == ["remote offer new"]


def test_a_wish_waits_behind_a_parked_offer() -> None:
    bench = at("applying answer")
    bench.wish(AUDIO)
    bench.offer()
    assert bench.done() == ["! Negotiated", "remote offer far"]
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]


# ---- the answer timer


def test_a_first_offer_without_answer_fails_and_a_late_answer_is_taken() -> None:
    bench = at("have first offer")
    assert bench.time_out() == ["! NegotiationFailed"]
    (failed,) = bench.told(NegotiationFailed)
    assert (failed.reason, failed.media) == ("no answer within 10 s", BOTH)
    assert bench.state.value == "offer expired"
    assert bench.answer() == ["remote answer far"]
    assert bench.done() == ["! Negotiated"]
    assert bench.state.value == "stable"


def test_a_wish_that_waited_fails_with_the_first_offer() -> None:
    bench = at("have first offer")
    bench.wish(AUDIO)
    assert bench.time_out() == ["! NegotiationFailed", "! NegotiationFailed"]
    assert [failed.media for failed in bench.told(NegotiationFailed)] == [BOTH, AUDIO]


def test_a_later_offer_without_answer_is_forgotten() -> None:
    bench = at("have local offer")
    assert bench.time_out() == ["! NegotiationFailed"]
    assert bench.state is State.STABLE
    assert bench.answer() == ["! AnswerIgnored"]
    assert bench.wish() == ["create offer"]


def test_a_wish_that_waited_is_offered_after_a_later_offer_expired() -> None:
    bench = at("have local offer")
    bench.wish(AUDIO)
    assert bench.time_out() == ["! NegotiationFailed", "create offer"]
    assert bench.command(CreateOffer).media == AUDIO


@pytest.mark.parametrize("rollback", [False, True])
def test_their_offer_takes_over_an_expired_one(rollback: bool) -> None:
    bench = at("offer expired", rollback=rollback)
    assert bench.offer() == (["remote offer far"] if rollback else ["reset"])
    if not rollback:
        bench.done()
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"], "that wish has failed already"


def test_their_offer_takes_over_an_expired_one_of_the_impolite_end() -> None:
    assert at("offer expired", polite=False).offer() == ["reset"]


def test_a_wish_after_an_expired_first_offer_starts_over() -> None:
    bench = at("offer expired")
    assert bench.wish(AUDIO) == ["reset"]
    assert bench.done() == ["local offer"]


# ---- engine failures


@pytest.mark.parametrize(
    ("state", "told", "lands"),
    [
        ("opening for offer", [()], State.NO_PEER),
        ("opening for wish", [BOTH], State.NO_PEER),
        ("resetting", [BOTH], State.NO_PEER),
        ("making offer", [BOTH], State.STABLE),
        ("making first offer", [BOTH], State.STABLE),
        ("committing offer", [BOTH], State.RESETTING),
        ("applying answer", [BOTH], State.RESETTING),
        ("applying first answer", [BOTH], State.RESETTING),
        ("applying offer", [()], State.RESETTING),
        ("making answer", [()], State.RESETTING),
    ],
)
def test_an_operation_that_fails(
    state: str, told: list[tuple[MediaLine, ...]], lands: State
) -> None:
    bench = at(state)
    output = bench.fail("no codec in common")
    failed = bench.told(NegotiationFailed)
    assert [event.media for event in failed] == told
    assert {event.reason for event in failed} == {"no codec in common"}
    assert output[1:] == (["reset"] if lands is State.RESETTING else [])
    assert bench.state is lands
    # And the machine is alive: the next offer is taken up.
    output = bench.offer("next")
    if lands is State.RESETTING:
        output = bench.done()
    elif lands is State.NO_PEER:
        assert output == ["open"]
        output = bench.done()
    elif state == "making offer":
        assert output == ["reset"]
        output = bench.done()
    assert output == ["remote offer next"]
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]


def test_after_a_failed_offer_the_newer_wish_is_offered() -> None:
    bench = at("making offer")
    bench.wish(AUDIO)
    assert bench.fail() == ["! NegotiationFailed", "create offer"]
    assert bench.command(CreateOffer).media == AUDIO


def test_after_a_failed_offer_the_parked_one_is_applied() -> None:
    bench = at("making offer")
    bench.offer()
    assert bench.fail() == ["! NegotiationFailed", "remote offer far"]


def test_opening_that_fails_takes_wish_and_parked_offer_with_it() -> None:
    bench = at("opening for wish")
    bench.offer()
    bench.remote(candidate("c1"))
    assert bench.fail() == ["! NegotiationFailed", "! NegotiationFailed", "! CandidateIgnored c1"]
    assert [event.media for event in bench.told(NegotiationFailed)] == [(), BOTH]
    assert bench.machine.held_candidates == 0


def test_a_broken_exchange_keeps_wish_and_parked_offer_for_the_new_peer() -> None:
    bench = at("applying offer")
    bench.wish(AUDIO)
    bench.offer("new")
    assert bench.fail() == ["! NegotiationFailed", "reset"]
    assert bench.done() == ["remote offer new"]
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]


# ---- the transport


@pytest.mark.parametrize("state", ["stable", "have local offer", "have first offer"])
def test_a_failed_transport(state: str) -> None:
    bench = at(state)
    out = state != "stable"
    assert bench.die() == (["! NegotiationFailed"] if out else [])
    assert bench.state is State.FAILED
    assert bench.timers.next() is None
    assert bench.die() == []
    assert bench.answer() == ["! AnswerIgnored"]


def test_a_failed_transport_fails_the_wish_that_waited() -> None:
    bench = at("have local offer")
    bench.wish(AUDIO)
    bench.die()
    assert [event.media for event in bench.told(NegotiationFailed)] == [BOTH, AUDIO]


def test_an_expired_offer_was_told_already_when_the_transport_fails() -> None:
    bench = at("offer expired")
    assert bench.die() == []
    assert bench.state is State.FAILED


@pytest.mark.parametrize(
    ("state", "finish", "output"),
    [
        ("applying offer", [None, OUR_ANSWER], ["> answer", "! Negotiated"]),
        ("making answer", [OUR_ANSWER], ["> answer", "! Negotiated"]),
        ("committing offer", [OUR_OFFER, None], ["! Negotiated"]),
        ("applying answer", [None], ["! Negotiated"]),
        ("making offer", [OUR_OFFER], ["! NegotiationFailed"]),
    ],
)
def test_a_transport_that_fails_during_an_operation_is_dead_when_it_ends(
    state: str, finish: list[MediaResult], output: list[str]
) -> None:
    bench = at(state)
    before = bench.state
    assert bench.die() == []
    assert bench.wish(AUDIO) == []
    assert bench.state is before
    last: list[str] = []
    for result in finish:
        last = bench.done(result)
    assert last == [*output, "! NegotiationFailed"], "and the wish fails with it"
    assert bench.told(NegotiationFailed)[-1].media == AUDIO
    assert bench.state is State.FAILED


@pytest.mark.parametrize("state", ["applying answer", "making answer", "making offer"])
def test_an_offer_parked_on_a_dead_transport_takes_a_new_peer(state: str) -> None:
    bench = at(state)
    bench.die()
    bench.offer()
    results: dict[str, MediaResult] = {"making answer": OUR_ANSWER, "making offer": OUR_OFFER}
    assert bench.done(results.get(state))[-1] == "reset"
    assert bench.done() == ["remote offer far"]
    bench.done()
    assert bench.done(OUR_ANSWER)[:2] == ["> answer", "! Negotiated"]


def test_an_offer_made_on_a_dead_transport_is_not_sent() -> None:
    bench = at("making offer")
    bench.die()
    assert bench.done(OUR_OFFER) == ["! NegotiationFailed"]
    assert bench.state is State.FAILED


def test_a_dead_transport_is_forgotten_with_its_peer() -> None:
    bench = at("applying offer")
    bench.die()
    assert bench.fail() == ["! NegotiationFailed", "reset"]
    assert bench.done() == []
    assert bench.state is State.STABLE


def test_a_fresh_wish_recovers_a_failed_transport() -> None:
    bench = at("failed")
    assert bench.wish() == ["reset"]
    assert bench.done() == ["local offer"]
    assert bench.done(OUR_OFFER) == ["> offer"]
    assert bench.answer("new") == ["remote answer new"]
    assert bench.done() == ["! Negotiated"]


def test_their_offer_recovers_a_failed_transport() -> None:
    bench = at("failed")
    assert bench.offer() == ["reset"]
    assert bench.done() == ["remote offer far"]


@pytest.mark.parametrize("state", [state for state in LIVE if state != "no peer"])
def test_a_peer_that_closes_by_itself(state: str) -> None:
    bench = at(state)
    output = bench.peer_closed()
    if state.startswith(("opening", "resetting")):
        assert output == []
        assert bench.state in (State.OPENING_PEER, State.RESETTING), "it is about the old peer"
        return
    pending = state not in ("stable", "offer expired", "failed")
    assert output == (["! NegotiationFailed"] if pending else [])
    assert bench.state is State.NO_PEER
    assert bench.timers.next() is None
    stale = bench.machine.stale_completions
    bench.machine.operation_done(bench.op, None, now=bench.now)
    assert bench.machine.stale_completions == stale + 1
    assert bench.offer("new") == ["open"]
    assert bench.done() == ["remote offer new"]


# ---- the end


@pytest.mark.parametrize("state", LIVE)
def test_closing(state: str) -> None:
    bench = at(state)
    pending = state not in ("no peer", "stable", "offer expired", "failed")
    told = ["! NegotiationFailed"] if pending else []
    assert bench.close() == [*told, *(["close"] if state != "no peer" else [])]
    assert {event.reason for event in bench.told(NegotiationFailed)} <= {"the session is closing"}
    assert bench.state is State.CLOSED
    assert bench.timers.next() is None
    # Nothing comes of anything afterwards.
    assert bench.wish() == []
    assert bench.offer() == []
    assert bench.answer() == []
    assert bench.remote(candidate("c1")) == []
    assert bench.local(candidate("c1")) == []
    assert bench.die() == []
    assert bench.peer_closed() == []
    assert bench.close() == []
    assert bench.fail() == []


def test_closing_fails_everything_that_waits() -> None:
    bench = at("committing offer")
    bench.wish(AUDIO)
    bench.offer("new")
    bench.remote(candidate("c1"))
    assert bench.close() == [
        "! NegotiationFailed",
        "! NegotiationFailed",
        "! CandidateIgnored c1",
        "close",
    ]
    assert [event.media for event in bench.told(NegotiationFailed)] == [BOTH, AUDIO]


def test_the_completion_of_the_close_is_expected_once() -> None:
    for fails in (False, True):
        bench = at("stable")
        bench.machine.close(now=bench.now)
        bench.take()
        op = bench.command(ClosePeer).op
        if fails:
            bench.machine.operation_failed(op, "x", now=bench.now)
        else:
            bench.machine.operation_done(op, None, now=bench.now)
        assert bench.machine.stale_completions == 0
    bench.machine.operation_done(OpId(999), None, now=bench.now)
    bench.machine.operation_failed(OpId(999), "x", now=bench.now)
    assert bench.machine.stale_completions == 2


# ---- without media


def test_without_media_offers_and_candidates_are_told() -> None:
    bench = Bench(media=())
    assert bench.offer() == ["! OfferIgnored"]
    assert bench.told(OfferIgnored)[0].reason == "no media on this connection"
    assert bench.remote(candidate("c1"), candidate("end")) == [
        "! CandidateIgnored c1",
        "! CandidateIgnored end",
    ]
    assert bench.answer() == ["! AnswerIgnored"]
    assert bench.local(candidate("c1")) == []
    assert bench.die() == []
    assert bench.close() == []
    assert bench.state is State.CLOSED


# ---- completions


def test_a_failed_close_is_expected_once_too() -> None:
    bench = at("stable")
    bench.close()
    op = bench.command(ClosePeer).op
    for stale in (0, 1):
        bench.machine.operation_failed(op, "x", now=bench.now)
        assert bench.machine.stale_completions == stale


def test_wishes_are_numbered_and_the_newest_is_named() -> None:
    bench = at("stable")
    assert bench.machine.wishes == 0
    bench.wish(AUDIO)
    bench.wish(VIDEO)
    bench.wish(VIDEO)
    assert bench.machine.wishes == 3
    bench.fail()
    assert [event.wish for event in bench.told(NegotiationFailed)] == [1]
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    bench.done()
    assert [event.wish for event in bench.told(Negotiated)] == [3], "it stands for the second too"
    bench.offer()
    bench.done()
    bench.done(OUR_ANSWER)
    assert [event.wish for event in bench.told(Negotiated)] == [0]


def test_a_wish_that_is_given_up_keeps_its_number() -> None:
    bench = at("have local offer")
    bench.offer()
    bench.die()
    bench.done()
    bench.done(OUR_ANSWER)
    (failed,) = bench.told(NegotiationFailed)
    assert (failed.wish, failed.media, failed.session_ended) == (1, BOTH, False)


def test_the_end_of_the_session_is_told_from_other_failures() -> None:
    bench = at("have local offer")
    bench.wish(AUDIO)
    bench.close()
    told = bench.told(NegotiationFailed)
    assert [(event.wish, event.session_ended) for event in told] == [(1, True), (2, True)]
    bench = at("applying offer")
    bench.close()
    assert [(one.wish, one.session_ended) for one in bench.told(NegotiationFailed)] == [(0, True)]
    bench = at("have local offer")
    bench.peer_closed()
    assert [(one.wish, one.session_ended) for one in bench.told(NegotiationFailed)] == [(1, False)]


def test_a_result_of_the_wrong_type_is_refused_and_changes_nothing() -> None:
    cases: list[tuple[str, MediaResult, MediaResult]] = [
        ("making offer", None, OUR_OFFER),
        ("making offer", OUR_ANSWER, OUR_OFFER),
        ("committing offer", None, OUR_OFFER),
        ("making answer", OUR_OFFER, OUR_ANSWER),
        ("applying offer", OUR_OFFER, None),
        ("opening for wish", OUR_OFFER, None),
    ]
    for state, wrong, right in cases:
        bench = at(state)
        before = bench.state
        with pytest.raises(LocalProtocolError, match="the engine finished"):
            bench.done(wrong)
        assert bench.state is before
        assert bench.machine.out == []
        assert bench.done(right) != []


def test_a_completion_counts_once() -> None:
    bench = at("applying offer")
    op = bench.op
    bench.done()
    bench.machine.operation_done(op, None, now=bench.now)
    bench.machine.operation_failed(op, "late", now=bench.now)
    assert bench.take() == []
    assert bench.machine.stale_completions == 2
    assert bench.state is State.MAKING_ANSWER


def test_operation_ids_are_never_reused() -> None:
    bench = at("stable")
    bench.remote(*[candidate(f"c{number}", "far") for number in range(3)])
    bench.wish()
    ops = [*bench.adding, bench.op]
    assert ops == sorted(set(ops))
    assert all(op > 3 for op in ops)


# ---- what the far end has room for


def test_m_lines_that_flow_by_their_description() -> None:
    bench = at("stable")  # One m-line of audio, sendrecv.

    def lines(*directions: Direction, kind: MediaKind = MediaKind.AUDIO) -> tuple[MediaLine, ...]:
        return tuple(MediaLine(kind=kind, direction=one) for one in directions)

    every, hold = tuple(Direction), Direction.INACTIVE
    assert all(bench.machine.carries(lines(one)) for one in every)
    assert bench.machine.carries(lines(Direction.RECVONLY, hold))
    assert not bench.machine.carries(lines(Direction.RECVONLY, Direction.RECVONLY))
    assert not bench.machine.carries(lines(Direction.RECVONLY, kind=MediaKind.VIDEO))
    assert bench.machine.carries(lines(hold, kind=MediaKind.VIDEO))
    assert not at("no peer").machine.carries(AUDIO)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("sendonly", {Direction.RECVONLY, Direction.INACTIVE}),
        ("recvonly", {Direction.SENDONLY, Direction.INACTIVE}),
        ("inactive", {Direction.INACTIVE}),
        ("rejected", {Direction.INACTIVE}),
    ],
)
def test_directions_that_theirs_lets_flow(theirs: str, ours: set[Direction]) -> None:
    bench = Bench()
    text = sdp("far") + f"a={theirs}\r\n"
    description = Offer(sdp=text.replace("audio 9", "audio 0") if theirs == "rejected" else text)
    bench._receive(description)
    bench.done()
    bench.done()
    flow = {one for one in Direction if bench.machine.carries((evolve(AUDIO[0], direction=one),))}
    assert flow == ours


# ---- remote candidates


@pytest.mark.parametrize(("ufrag", "in_text"), [(None, False), ("far", False), ("far", True)])
def test_candidates_before_the_offer_wait_for_it(ufrag: str | None, in_text: bool) -> None:
    bench = Bench()
    assert bench.remote(candidate("c1", ufrag, in_text=in_text)) == []
    bench.offer()
    assert bench.remote(candidate("c2", ufrag, in_text=in_text), candidate("end", ufrag)) == []
    assert bench.machine.held_candidates == 3
    assert bench.done() == ["remote offer far"]
    assert bench.remote(candidate("c3", ufrag, in_text=in_text)) == []
    assert bench.done() == ["add c1", "add c2", "add end", "add c3", "local answer"]
    assert bench.machine.held_candidates == 0
    assert bench.remote(candidate("c4", ufrag, in_text=in_text)) == ["add c4"]


def test_the_field_goes_before_the_text() -> None:
    bench = Bench()
    both = IceCandidate(
        candidate="candidate:c1 1 udp 1 192.0.2.1 9 typ host ufrag other", username_fragment="far"
    )
    bench.offer()
    bench.remote(both)
    bench.done()
    assert bench.done() == ["add c1", "local answer"]


@pytest.mark.parametrize("lost", ["peer", "new peer"])
def test_a_candidate_that_overtakes_an_offer_outlives_our_peer(lost: str) -> None:
    """It is of a description that is still to come, whatever becomes of our peer connection."""
    bench = at("offer expired")
    if lost == "new peer":
        bench.wish()
    assert bench.remote(candidate("c1", "new"), candidate("c2", "dead")) == []
    if lost == "new peer":
        assert bench.fail() == ["! NegotiationFailed"]
    else:
        assert bench.peer_closed() == []
    assert bench.state is State.NO_PEER
    assert bench.machine.held_candidates == 2
    assert bench.offer("new") == ["open"]
    assert bench.done() == ["! CandidateIgnored c2", "remote offer new"]
    assert bench.done() == ["add c1", "local answer"]


def test_an_early_candidate_of_another_description_is_told() -> None:
    bench = Bench()
    bench.remote(candidate("c1", "else"), candidate("c2"))
    bench.offer()
    assert bench.done() == ["! CandidateIgnored c1", "remote offer far"]
    assert bench.done() == ["add c2", "local answer"]


@pytest.mark.parametrize("state", ["making first offer", "have first offer", "offer expired"])
def test_candidates_overtake_the_answer_to_a_first_offer(state: str) -> None:
    bench = at(state)
    assert bench.remote(candidate("c1"), candidate("c2", "far"), candidate("end")) == []
    if state == "making first offer":
        bench.done(OUR_OFFER)
    assert bench.answer() == ["remote answer far"]
    assert bench.remote(candidate("c3")) == []
    assert bench.done() == ["add c1", "add c2", "add end", "add c3", "! Negotiated"]


def test_candidates_overtake_the_answer_to_a_later_offer() -> None:
    bench = at("have local offer")
    assert bench.remote(candidate("c1")) == [], "it may be of the answer that is on its way"
    assert bench.remote(candidate("c2", "far")) == ["add c2"], "it is of the running transport"
    assert bench.remote(candidate("c3", "else")) == []
    bench.answer()
    assert bench.remote(candidate("c4")) == []
    assert bench.done(OUR_OFFER) == ["! CandidateIgnored c3", "remote answer far"]
    assert bench.done() == ["add c1", "add c4", "! Negotiated"]


def test_held_candidates_are_routed_when_the_offer_is_forgotten() -> None:
    bench = at("have local offer")
    bench.remote(candidate("c1"), candidate("c2", "else"))
    assert bench.time_out() == ["! NegotiationFailed", "add c1", "! CandidateIgnored c2"]


def test_candidates_of_a_parked_offer() -> None:
    bench = at("making answer")
    bench.offer("new")
    assert bench.remote(
        candidate("c1"), candidate("c2", "new"), candidate("c3", "far"), candidate("c4", "else")
    ) == ["add c3", "! CandidateIgnored c4"]
    assert bench.done(OUR_ANSWER) == ["reset"]
    assert bench.done() == ["remote offer new"]
    assert bench.done() == ["add c1", "add c2", "local answer"]


def test_candidates_of_an_ignored_offer() -> None:
    bench = at("have local offer", polite=False)
    bench.offer("glare")
    assert bench.remote(
        candidate("c1"), candidate("c2", "glare"), candidate("c3", "far"), candidate("end")
    ) == [
        "! CandidateIgnored c1",
        "! CandidateIgnored c2",
        "add c3",
        "! CandidateIgnored end",
    ]
    assert {event.reason for event in bench.told(CandidateIgnored)} == {
        "it belongs to an offer that was ignored"
    }
    bench.answer()
    assert bench.remote(candidate("c4")) == [], "the answer is the newest description now"
    bench.done(OUR_OFFER)
    assert bench.done() == ["add c4", "! Negotiated"]


def test_a_candidate_of_no_description_is_told() -> None:
    bench = at("stable")
    assert bench.remote(candidate("c1", "else")) == ["! CandidateIgnored c1"]
    (event,) = bench.told(CandidateIgnored)
    assert event.reason == "it belongs to no description we know"
    bench = at("applying offer")
    assert bench.remote(candidate("c1", "else")) == ["! CandidateIgnored c1"]


def test_candidates_go_with_the_peer_that_is_reset() -> None:
    bench = at("applying offer")
    bench.remote(candidate("c1"))
    assert bench.fail() == ["! NegotiationFailed", "! CandidateIgnored c1", "reset"]
    bench = at("have local offer")
    bench.remote(candidate("c1"))
    assert bench.offer("new") == ["! CandidateIgnored c1", "reset"]


def test_held_candidates_are_bounded() -> None:
    bench = Bench(limits=Limits(candidates=3))
    assert bench.remote(candidate("c1"), candidate("c2")) == []
    bench.offer()
    assert bench.remote(candidate("c3"), candidate("c4"), candidate("end")) == [
        "! CandidateIgnored c4",
        "! CandidateIgnored end",
    ]
    assert bench.told(CandidateIgnored)[0].reason == "more than 3 candidates held"
    bench.done()
    assert bench.done() == ["add c1", "add c2", "add c3", "local answer"]


def test_the_default_bound_is_64() -> None:
    bench = Bench()
    output = bench.remote(*[candidate(f"c{number}") for number in range(1, 66)])
    assert output == ["! CandidateIgnored c65"]
    assert bench.machine.held_candidates == 64


def test_candidates_given_to_a_busy_engine_are_bounded() -> None:
    bench = at("stable", limits=Limits(candidates=2))
    assert bench.remote(candidate("c1"), candidate("c2"), candidate("c3")) == [
        "add c1",
        "add c2",
        "! CandidateIgnored c3",
    ]
    bench.machine.operation_done(bench.adding[0], None, now=bench.now)
    assert bench.remote(candidate("c4")) == ["add c4"]


def test_a_candidate_that_fails_is_an_event_and_delays_nothing() -> None:
    bench = at("applying offer")
    bench.remote(candidate("c1"), candidate("c2"))
    assert bench.done() == ["add c1", "add c2", "local answer"]
    bench.machine.operation_failed(bench.adding[0], "no such mid", now=bench.now)
    assert bench.take() == ["! CandidateFailed c1"]
    assert bench.told(CandidateFailed)[0].reason == "no such mid"
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated"]
    bench.machine.operation_done(bench.adding[1], None, now=bench.now)
    assert bench.take() == []
    assert bench.machine.stale_completions == 0


def test_the_completion_of_a_candidate_of_a_replaced_peer_is_stale() -> None:
    bench = at("stable")
    bench.remote(candidate("c1"))
    bench.offer("new")
    bench.machine.operation_failed(bench.adding[0], "closed", now=bench.now)
    assert bench.take() == []
    assert bench.machine.stale_completions == 1


# ---- local candidates


@pytest.mark.parametrize(
    ("state", "finish", "sent"),
    [
        ("making first offer", [OUR_OFFER], ["> offer", "> c1", "> c2"]),
        ("making offer", [OUR_OFFER], ["> offer", "> c1", "> c2"]),
        ("applying offer", [None, OUR_ANSWER], ["> answer", "> c1", "> c2", "! Negotiated"]),
        ("making answer", [OUR_ANSWER], ["> answer", "> c1", "> c2", "! Negotiated"]),
    ],
)
def test_our_candidates_never_overtake_their_description(
    state: str, finish: list[MediaResult], sent: list[str]
) -> None:
    bench = at(state)
    assert bench.local(candidate("c1"), candidate("c2")) == []
    output: list[str] = []
    for result in finish:
        output = bench.done(result)
    assert output == sent
    assert bench.local(candidate("c3")) == ["> c3"]


@pytest.mark.parametrize(
    "state",
    [
        "stable",
        "have first offer",
        "have local offer",
        "offer expired",
        "committing offer",
        "applying answer",
        "failed",
    ],
)
def test_our_candidates_leave_at_once_after_their_description(state: str) -> None:
    assert at(state).local(candidate("c1")) == ["> c1"]


@pytest.mark.parametrize("state", ["no peer", "opening for offer", "resetting"])
def test_our_candidates_of_a_peer_that_is_gone_do_not_leave(state: str) -> None:
    bench = at(state)
    assert bench.local(candidate("c1")) == []
    if state == "resetting":
        bench.done()
        assert bench.done(OUR_OFFER) == ["> offer"]


@pytest.mark.parametrize("state", ["applying offer", "making answer"])
def test_our_candidates_that_waited_go_with_their_peer(state: str) -> None:
    bench = at(state)
    bench.local(candidate("old"))
    assert bench.fail() == ["! NegotiationFailed", "reset"]
    bench.done()
    bench.offer()
    bench.local(candidate("new"))
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "> new", "! Negotiated"]


def test_our_end_marks_are_not_sent() -> None:
    bench = at("stable")
    assert bench.local(candidate("end")) == []


def test_our_candidates_of_a_failed_offer_leave_when_a_transport_runs() -> None:
    bench = at("making offer")
    bench.local(candidate("c1"))
    assert bench.fail() == ["! NegotiationFailed", "> c1"]


def test_our_candidates_of_a_first_offer_that_failed_wait_for_the_next() -> None:
    bench = at("making first offer")
    bench.local(candidate("c1"))
    assert bench.fail() == ["! NegotiationFailed"]
    assert bench.wish() == ["local offer"]
    assert bench.done(OUR_OFFER) == ["> offer", "> c1"]


def test_our_held_candidates_are_bounded() -> None:
    bench = at("making answer", limits=Limits(candidates=2))
    bench.local(candidate("c1"), candidate("c2"), candidate("c3"))
    assert bench.done(OUR_ANSWER) == ["> answer", "> c1", "> c2", "! Negotiated"]
    assert bench.machine.unsent == 1


def test_repr_names_the_state_and_nothing_else() -> None:
    assert repr(at("have local offer").machine) == "<Negotiation have local offer>"


# ---- answers to offers that were given up (theory 8)


MARKED_OFFER = Offer(sdp=sdp("ours", "0.2"))
IGNORED = "! AnswerIgnored"
TO_A_GIVEN_UP_OFFER = "it is to an offer of ours that was given up"
AGAIN = "another one may have been taken in its place: the offer is made again"


def reason(bench: Bench) -> str:
    (event,) = bench.told(AnswerIgnored)
    assert isinstance(event, AnswerIgnored)
    return event.reason


def offered_again_on_a_new_peer(offer: Offer) -> Bench:
    """Our peer connection closed under an offer, and another offer is out."""
    bench = at("have local offer")
    assert bench.peer_closed() == ["! NegotiationFailed"]
    bench.wish()
    bench.done()
    assert bench.done(offer) == ["> offer"]
    return bench


def test_an_answer_to_a_lost_peers_offer_is_known_by_its_mids() -> None:
    bench = offered_again_on_a_new_peer(MARKED_OFFER)
    assert bench.answer("new") == [IGNORED]
    assert reason(bench) == TO_A_GIVEN_UP_OFFER
    assert bench.state is State.HAVE_LOCAL_OFFER
    assert bench.timers.next() == 110.0, "its own answer is still waited for"
    assert bench.answer("newer", "0.2") == ["remote answer newer"]
    assert bench.done() == ["! Negotiated"]
    assert bench.answer("newer", "0.2") == [IGNORED]
    assert bench.state is State.STABLE


def test_an_answer_to_no_offer_that_we_know() -> None:
    bench = at("have local offer")
    assert bench.answer(mid="7") == [IGNORED]
    assert reason(bench) == "its m-lines are not those of the offer that is out"
    assert bench.state is State.HAVE_LOCAL_OFFER
    assert bench.answer() == ["commit offer"]


def test_an_answer_taken_for_another_is_followed_by_that_other() -> None:
    bench = offered_again_on_a_new_peer(OUR_OFFER)  # With the mids of the first one.
    assert bench.answer("new") == ["remote answer new"], "it may be to this one"
    assert bench.done() == ["! Negotiated"]
    assert bench.answer("newer") == [IGNORED, "create offer"], "it was not"
    assert reason(bench) == AGAIN
    assert bench.done(OUR_OFFER) == ["> offer"]
    # The far end answers with the transport that it has had since that answer.
    assert bench.answer("newer") == ["reset"]
    assert bench.done() == ["local offer"]
    bench.done(OUR_OFFER)
    assert bench.answer("newest") == ["remote answer newest"]
    assert bench.done() == ["! Negotiated"]
    (event,) = bench.told(Negotiated)
    assert (event.media, event.wish) == (BOTH, 2), "of the same wish"
    assert bench.answer("newest") == [IGNORED]
    assert reason(bench) == "no offer of ours waits for an answer"
    assert bench.state is State.STABLE


@pytest.mark.parametrize("steps", [1, 2])
def test_the_other_answer_comes_before_the_first_is_applied(steps: int) -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish(AUDIO)
    bench.done(OUR_OFFER)
    assert bench.answer() == ["commit offer"]
    if steps == 2:
        assert bench.done(OUR_OFFER) == ["remote answer far"]
    assert bench.answer() == [IGNORED]
    if steps == 1:
        assert bench.done(OUR_OFFER) == ["remote answer far"]
    assert bench.done() == ["! Negotiated", "create offer"]
    assert bench.command(CreateOffer).media == AUDIO


def test_directions_tell_whose_answer_it_is() -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(Offer(sdp=sdp("ours", direction="inactive")))
    assert bench.answer(direction="sendrecv") == [IGNORED]
    assert bench.answer(direction="inactive") == ["commit offer"]


def test_a_newer_wish_goes_before_the_offer_made_again() -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    bench.done()
    assert bench.wish(AUDIO) == ["create offer"]
    assert bench.answer() == [IGNORED], "the one before was of an older offer"
    # It is made again only if the newer wish comes to nothing: here, it cannot be made.
    assert bench.fail() == ["! NegotiationFailed", "create offer"]
    assert bench.told(NegotiationFailed)[0].wish == 3
    assert bench.command(CreateOffer).media == BOTH
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    bench.done()
    assert bench.told(Negotiated)[0].wish == 2


def test_a_wish_that_waits_is_instead_of_the_offer_made_again() -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(OUR_OFFER)
    bench.answer()
    bench.wish(AUDIO)
    bench.answer()
    bench.done(OUR_OFFER)
    assert bench.done() == ["! Negotiated", "create offer"]
    assert bench.command(CreateOffer).media == AUDIO
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    assert bench.done() == ["! Negotiated"], "and nothing is left to be made again"


def test_an_older_answer_in_doubt_while_an_offer_is_out() -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    bench.done()
    bench.wish(AUDIO)
    bench.done(Offer(sdp=sdp("ours", direction="inactive")))
    assert bench.answer() == [IGNORED]
    assert reason(bench) == AGAIN
    assert bench.time_out() == ["! NegotiationFailed", "create offer"]
    assert bench.command(CreateOffer).media == BOTH


def test_an_exchange_of_theirs_leaves_the_doubt() -> None:
    """Their offer may have left before ours reached them."""
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(OUR_OFFER)
    bench.answer()
    bench.done(OUR_OFFER)
    bench.done()
    bench.offer()
    assert bench.answer() == [IGNORED]
    bench.done()
    assert bench.done(OUR_ANSWER) == ["> answer", "! Negotiated", "create offer"]


def test_a_dead_transport_ends_the_doubt() -> None:
    bench = at("have local offer")
    bench.time_out()
    bench.wish()
    bench.done(OUR_OFFER)
    bench.answer()
    bench.die()
    bench.answer()
    bench.done(OUR_OFFER)
    assert bench.done() == ["! Negotiated"]
    assert bench.state is State.FAILED


def test_an_offer_that_cannot_be_read_takes_any_answer() -> None:
    bench = at("making first offer")
    assert bench.done(Offer(sdp="what an engine wrote")) == ["> offer"]
    assert bench.answer(mid="7") == ["remote answer far"]


def test_an_expired_offer_takes_no_older_ones_answer() -> None:
    bench = at("offer expired")
    bench.wish()
    bench.done()
    bench.done(MARKED_OFFER)
    bench.time_out()
    assert bench.answer() == [IGNORED]
    assert bench.state is State.OFFER_EXPIRED
    assert bench.answer(mid="0.2") == ["remote answer far"]


def test_a_transport_is_unconnected_until_it_was_up() -> None:
    bench = at("making answer")
    assert not bench.machine.unconnected, "nothing is exchanged"
    bench.done(OUR_ANSWER)
    assert bench.machine.unconnected
    bench.machine.transport_connected()
    assert not bench.machine.unconnected
    bench.offer("new")
    assert not bench.machine.unconnected, "the new one has not been exchanged"
    for result in (None, None, OUR_ANSWER):
        bench.done(result)
    assert bench.machine.unconnected
    bench.die()
    assert not bench.machine.unconnected, "it failed, which was told"
