"""What the models of the negotiation share: ends that are watched, and what must hold at each.

A model makes one thing happen at a time: an engine finishes a command, a message arrives, a timer
fires, somebody wishes. After each, every end is checked. What is modelled, and what must hold, is
in docs/negotiation-models.md.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    Emit,
    OpenPeer,
    ResetPeer,
    SendText,
)
from navtalk_proto.config import RECEIVE_MEDIA, SEND_MEDIA
from navtalk_proto.errors import LocalProtocolError, NavTalkError
from navtalk_proto.events import (
    AnswerIgnored,
    CandidateIgnored,
    Closed,
    Negotiated,
    NegotiationFailed,
    ProtocolViolation,
)
from navtalk_proto.intents import Close, Intent, Negotiate, SayText, SendAudio
from navtalk_proto.limits import Limits
from navtalk_proto.machines import lifecycle
from navtalk_proto.machines.given_up_offers import GIVEN_UP_OFFERS
from navtalk_proto.machines.negotiation import State
from navtalk_proto.media import (
    Direction,
    LocalCandidate,
    MediaEvent,
    MediaKind,
    MediaLine,
    MediaState,
    NegotiationNeeded,
)
from navtalk_proto.testing import End, VirtualClock
from navtalk_proto.timers import Timer
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    IceCandidate,
    Offer,
    SessionCreated,
    SessionUpdated,
)
from navtalk_proto.wire.sdp import candidate_ufrag, check_description

LIMITS = Limits(candidates=4)
"""Small enough that a model reaches it."""

ANSWER_TIMEOUT = 10.0
TRANSPORT_TIMEOUT = 20.0
FAR_AWAY = 1e6
"""A CONNECT timeout in seconds that no model reaches: how long opening may take is not modelled."""

MORE = (MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY),)
WISHES = {
    "client": (RECEIVE_MEDIA, (*RECEIVE_MEDIA, *MORE), RECEIVE_MEDIA[1:]),
    "server": (SEND_MEDIA, (*SEND_MEDIA, *MORE), SEND_MEDIA[1:]),
}
WELCOME = (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated())

SETTLED = (State.STABLE, State.NO_PEER, State.FAILED, State.OFFER_EXPIRED)
"""Where a negotiation may rest. The last only where the far end never answers a first offer."""

HOPEFUL = (
    State.NO_PEER,
    State.OPENING_PEER,
    State.RESETTING,
    State.MAKING_OFFER,
    State.HAVE_LOCAL_OFFER,
    State.OFFER_EXPIRED,
    State.COMMITTING_OFFER,
    State.APPLYING_ANSWER,
    State.APPLYING_OFFER,
    State.MAKING_ANSWER,
)
"""States in which a candidate may be of a description that is not applied, or not here, yet."""

GOOD_REASONS = (
    "more than",
    "the engine is still busy",
    "it belongs to an offer that was ignored",
    "its offer was replaced by a newer one",
)
"""Why a candidate of the description that is applied next may be ignored all the same."""

ENGINE_BROKE = "the engine broke"
"""Why an operation fails."""

GIVEN_UP = "it is to an offer of ours that was given up"
"""Why an answer is ignored that is told apart from the newest offer's."""

MISUSES: tuple[Intent, ...] = (
    Negotiate(media=()),
    Offer(sdp="v=0"),
    IceCandidate(candidate=""),
    SendAudio(pcm=b"\0"),
    Close(code=1005),
    SayText(text="\ud800"),
)
"""What neither end may send, whenever."""

STEPS = 30
"""The rules in one run of a model, at most."""

NUMBERS = st.integers(0, 99)
WHICH = st.integers(0, 1)
UFRAGS = st.sampled_from(["field", "text", "none"])


def model_settings() -> settings:
    """Of the profile's examples half: a run of a model is many inputs."""
    return settings(max_examples=max(1, settings().max_examples // 2), stateful_step_count=STEPS)


def make_candidate(number: int, ufrag: str, style: str) -> IceCandidate:
    """A candidate of an ICE generation; its mid is its number, for lack of anything of its own."""
    text = f"candidate:1 1 udp 2122129151 192.0.2.1 {number} typ host"
    if style == "text":
        text += f" ufrag {ufrag}"
    return IceCandidate(
        candidate="" if style.startswith("end") else text,
        sdp_mid=str(number),
        username_fragment=ufrag if style in ("field", "end") else None,
    )


def everything(value: object) -> bytes:
    """All of an object's state, for comparison."""
    return pickle.dumps(value)


class Watched:
    """One end, with what was asked of it, and what must hold of what it did."""

    def __init__(self, end: End, clock: VirtualClock, answers: dict[str, Offer]) -> None:
        self.end = end
        self.clock = clock
        self.answers = answers
        """Which offer each answer was written for, of both sides; on the wire nothing says."""
        end.engine.connects = False  # It does when each side faces the other's transport.
        self.connection = end.connection
        self.engine = end.engine
        self.negotiation = end.connection._negotiation
        self.wishes: list[tuple[MediaLine, ...]] = []
        self.ended = 0
        """The newest wish that has ended: it ended those before it."""
        self.failures = 0
        self.gave_up = False
        """Whether it stopped waiting for an answer since an exchange was complete, or its engine
        could not make the offer that was to follow; or an answer came to an offer that was lost
        with its peer connection, after the far end's own offer was answered."""
        self.candidates_in = 0
        """Remote candidates that the connection was given while it lived."""
        self.candidates_out = 0
        """Those that it gave to the engine or told to be ignored."""
        self._hopeful: dict[str | None, IceCandidate] = {}
        self._ignored_because: dict[str | None, str] = {}
        self._added: dict[str | None, int] = {}
        self._sent_offer: Offer | None = None
        self._offered: dict[tuple[str | None, ...], set[frozenset[str]]] = {}
        """The transports of the offers that went out, by their mids."""
        self._sent_answer: Answer | None = None
        self._sent_at = 0.0
        self._newest_offer: Offer | None = None
        self._seen = 0

    @property
    def lives(self) -> bool:
        """Whether the session is READY and not closing."""
        return self.connection.state is lifecycle.State.READY

    @property
    def has_peer(self) -> bool:
        """Whether a peer connection could fail. Of one that is being replaced, nobody tells."""
        remaking = self.connection.negotiation_state in (State.OPENING_PEER, State.RESETTING)
        return self.lives and self.engine.signaling.value != "no peer" and not remaking

    @property
    def faces(self) -> str | None:
        """The ICE generation of the far end's that its engine knows, if it has one transport."""
        if self.engine.remote is None:
            return None
        (ufrag,) = check_description(self.engine.remote, LIMITS).ufrags
        return ufrag

    @property
    def rests_in_media(self) -> bool:
        """Whether it holds a pair of descriptions, and nothing is under way."""
        return (
            self.connection.negotiation_state is State.STABLE
            and self.negotiation.exchanged
            and not self.engine.busy
        )

    @property
    def waits(self) -> bool:
        """Whether something has to come in time: an answer, or a transport."""
        timers = self.connection._timers
        return timers.armed(Timer.ANSWER) or timers.armed(Timer.TRANSPORT)

    def wished(self, media: tuple[MediaLine, ...]) -> None:
        """A wish was taken."""
        self.wishes.append(media)
        assert self.connection.wishes == len(self.wishes)

    def arrives(self, message: object) -> None:
        """The connection is about to be given a message of the far end."""
        if isinstance(message, Offer):
            self._newest_offer = message
        elif isinstance(message, IceCandidate) and self.lives:
            self.candidates_in += 1
            if self.connection.negotiation_state in HOPEFUL:
                self._hopeful[message.sdp_mid] = message

    # ---- what it did

    def check(self) -> None:
        """Look at everything done since the last call, and at what is held."""
        new = self.end.actions[self._seen :]
        self._seen = len(self.end.actions)
        for action in new:
            match action:
                case Emit(event=Negotiated() as event):
                    self._negotiated(event)
                case Emit(event=NegotiationFailed() as event):
                    self.failures += 1
                    self._hopeful.clear()
                    self._ends(event.wish, event.media)
                    # Told so that an application need not guess which failures are the end.
                    closing = not self.lives and event.reason == "the session is closing"
                    assert event.session_ended is closing
                    self.gave_up |= event.reason == ENGINE_BROKE
                    if event.reason.startswith("no answer"):
                        self.gave_up = True
                        waited = self.clock.now - self._sent_at
                        assert waited >= ANSWER_TIMEOUT, f"waited {waited} s for the answer"
                case Emit(event=AnswerIgnored(reason=reason)):
                    resting = self.connection.negotiation_state is State.STABLE
                    theirs = isinstance(self.engine.remote, Offer)
                    self.gave_up |= reason == GIVEN_UP and resting and theirs
                case Emit(event=CandidateIgnored() as event):
                    self.candidates_out += 1
                    self._ignored_because[event.candidate.sdp_mid] = event.reason
                case Emit(event=ProtocolViolation()):
                    raise AssertionError(f"{self.end.name} says {action.event}")
                case AddCandidate():
                    self._adds(action.candidate)
                case OpenPeer() | ResetPeer():
                    self._added.clear()
                    if isinstance(action, ResetPeer):
                        self._hopeful.clear()
                case SendText(kind="webrtc.signaling.offer"):
                    self._sent_offer = self._decode(action)
                    self._sent_at = self.clock.now
                    mids, ufrags = self._marks(self._sent_offer)
                    self._offered.setdefault(mids, set()).add(ufrags)
                case SendText(kind="webrtc.signaling.answer"):
                    self._sent_answer = self._decode(action)
                    assert self.engine.remote == self._newest_offer, "it answers an old offer"
                    assert isinstance(self.engine.remote, Offer)
                    assert self._sent_answer is not None
                    self.answers[self._sent_answer.sdp] = self.engine.remote
                case _:
                    pass
        offer_out = self.connection.negotiation_state is State.HAVE_LOCAL_OFFER
        timers = self.connection._timers
        assert timers.armed(Timer.ANSWER) is offer_out
        connecting = self.negotiation.unconnected and not timers.armed(Timer.CONNECT)
        assert timers.armed(Timer.TRANSPORT) is connecting
        if self.connection.negotiation_state in SETTLED:
            assert self.ended == len(self.wishes), "a wish rests, and nobody was told"
        self._check_end()
        self._check_bounds()

    def _decode(self, action: SendText) -> Any:
        return codec.decode(action.text, sender=self.connection.role, limits=LIMITS)

    def _ends(self, number: int, media: tuple[MediaLine, ...]) -> None:
        """A wish has ended, and those before it."""
        assert 0 <= number <= len(self.wishes)
        if number:
            assert media == self.wishes[number - 1]
        self.ended = max(self.ended, number)

    def _negotiated(self, event: Negotiated) -> None:
        """An exchange is told as complete: the engine holds just that pair of descriptions."""
        assert self.engine.signaling.value == "stable"
        self.gave_up = False
        if event.offered_by_us:
            assert event.wish
            self._ends(event.wish, event.media)
            assert self.engine.local == self._sent_offer
            assert isinstance(self.engine.remote, Answer)
            assert self._sent_offer is not None
            if self._marked(self._sent_offer):
                answered = self.answers[self.engine.remote.sdp]
                for_us = check_description(answered, LIMITS).ufrags == {self.engine.ufrag}
                assert for_us, "an answer to an offer of another peer connection was taken"
            lines = check_description(self._sent_offer, LIMITS).medias
            offered = [(one.kind, one.direction) for one in lines if one.direction != "inactive"]
            wished = [(one.kind.value, one.direction.value) for one in event.media]
            assert sorted(offered) == sorted(wished)
        else:
            assert event.wish == 0
            assert self.engine.local == self._sent_answer
            assert isinstance(self.engine.remote, Offer)
        assert self.engine.remote is not None
        known = check_description(self.engine.remote, LIMITS).ufrags
        for mid, candidate in self._hopeful.items():
            # It waited for this description, so the engine has it.
            if candidate_ufrag(candidate) in (None, *known) and mid in self._ignored_because:
                assert self._ignored_because[mid].startswith(GOOD_REASONS), (
                    f"{candidate} was lost: {self._ignored_because[mid]}"
                )
        self._hopeful.clear()

    def _marked(self, offer: Offer) -> bool:
        """Whether no earlier peer connection made an offer with its mids.

        One may have: where the far end offered first, the mids are those that it gave.
        """
        mids, ufrags = self._marks(offer)
        return self._offered[mids] == {ufrags}

    def _marks(self, offer: Offer | None) -> tuple[tuple[str | None, ...], frozenset[str]]:
        """By what an answer to it may be known, and by what its peer connection is."""
        assert offer is not None
        sdp = check_description(offer, LIMITS)
        return tuple(one.mid for one in sdp.medias), frozenset(sdp.ufrags)

    def _adds(self, candidate: IceCandidate) -> None:
        """The engine is given candidates of one generation in the order in which they came."""
        self.candidates_out += 1
        ufrag = candidate_ufrag(candidate)
        assert candidate.sdp_mid is not None
        number = int(candidate.sdp_mid)
        assert number > self._added.get(ufrag, -1), "candidates changed places"
        self._added[ufrag] = number

    def _check_end(self) -> None:
        closed = self.end.of(Closed)
        if self.connection.state is lifecycle.State.CLOSED:
            assert len(closed) == 1
            assert self.end.actions[-1] == Emit(event=closed[0]), "Closed is not last"
        else:
            assert closed == []
        if not self.lives:
            assert self.ended == len(self.wishes), "a wish outlived its session"
            assert self.connection.negotiation_state is State.CLOSED
            closes = sum(isinstance(command, ClosePeer) for command in self.engine.history)
            assert closes <= 1
            assert closes or self.engine.signaling.value == "no peer", "the peer was left open"

    def _check_bounds(self) -> None:
        negotiation = self.negotiation
        assert len(negotiation._given_up) <= GIVEN_UP_OFFERS
        held = negotiation.held_candidates
        assert held <= LIMITS.candidates
        for name, value in vars(negotiation).items():
            if isinstance(value, list | dict | set):
                assert len(value) <= LIMITS.candidates, f"{name} holds {len(value)}"
        assert self.candidates_in == self.candidates_out + held, "a candidate vanished"

    # ---- when nothing is left to happen

    def check_settled(self) -> None:
        """Everything was delivered, and every answer that did not come has been waited for."""
        assert not self.engine.busy
        if not self.lives:
            return
        state = self.connection.negotiation_state
        assert state in SETTLED, f"{self.end.name} rests in {state.value}"
        assert not self.connection._timers.armed(Timer.ANSWER)
        assert self.ended == len(self.wishes), "a wish came to nothing, and nobody was told"
        if not self.connection._timers.armed(Timer.CONNECT):
            assert not self.negotiation.unconnected, "no media, and nobody was told"
        if state is State.STABLE and self.negotiation.exchanged:
            assert self.negotiation.held_candidates == 0


class NegotiationModel(RuleBasedStateMachine):
    """Rules and invariants of every model. A subclass says who is there, and what moves."""

    prompt: ClassVar[bool] = False
    """Whether every offer is answered: unless something fails, nobody waits in vain."""
    established: ClassVar[bool] = False
    """Whether it starts from a session with media."""
    examples: ClassVar[int] = 0
    """How many runs were begun; run_mutations.py reads it."""

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.clock = VirtualClock()
        self.watched: tuple[Watched, ...] = ()
        self.answers: dict[str, Offer] = {}
        self.last_word = 0
        """Which end has the wish that everything ends with."""
        self.faults = False
        """Whether anything failed, or was waited for in vain, since the last agreement."""
        self._number = 0

    # ---- what a subclass fills in

    def moves(self) -> Iterator[Callable[[], None]]:
        """What can happen now without anybody's doing."""
        raise NotImplementedError

    def perform(self, end: Watched) -> None:
        """Carry out what an end's connection asks for."""
        raise NotImplementedError

    def wish_is_granted(self, end: Watched) -> None:
        """Both sides hold the same pair of descriptions after a wish of `end`."""
        raise NotImplementedError

    def reaches(self, end: Watched) -> bool:
        """Whether the far end's transport is the one that an end was told, and the other way."""
        raise NotImplementedError

    def check_agreement(self) -> None:
        """Nothing moves: where both sides hold a pair of descriptions, it is the same."""

    # ---- moves

    def pick(self, which: int) -> Watched:
        return self.watched[which % len(self.watched)]

    def finish(self, end: Watched, fail: str | None = None) -> None:
        """The engine finishes its oldest command."""
        command, result, reason = end.engine.finish(fail=fail)
        if isinstance(command, ResetPeer):
            end.engine.events.clear()  # An engine does not tell of a peer that it threw away.
        if reason is None:
            end.connection.media_done(command.op, result, now=self.clock.now)
        else:
            end.connection.media_failed(command.op, reason, now=self.clock.now)
        self.perform(end)

    def media_event(self, end: Watched, event: MediaEvent) -> None:
        end.connection.media_event(event, now=self.clock.now)
        self.perform(end)

    def engine_moves(self, end: Watched) -> Iterator[Callable[[], None]]:
        if end.engine.busy:
            yield lambda: self.finish(end)
        if end.engine.events:
            yield lambda: self.media_event(end, end.engine.events.popleft())
        if end.engine.connectable and self.reaches(end):
            yield end.engine.connect

    def wish(self, end: Watched, media: tuple[MediaLine, ...], *, by_engine: bool = False) -> None:
        if by_engine:
            end.connection.media_event(NegotiationNeeded(media=media), now=self.clock.now)
        else:
            end.connection.send(Negotiate(media=media), now=self.clock.now)
        end.wished(media)
        self.perform(end)

    def check_all(self) -> None:
        for end in self.watched:
            end.check()

    def settle(self) -> None:
        """Deliver everything, wait for what does not come, and check what is left."""
        for _ in range(1000):
            while (move := next(self.moves(), None)) is not None:
                move()
                self.check_all()
            self.check_agreement()  # Before any deadline tells of what is wrong.
            if not any(end.waits for end in self.watched):
                break
            assert self.faults or not self.prompt, "an offer or a transport waits in vain"
            self._pass(ANSWER_TIMEOUT)
            self.check_all()
        else:
            raise AssertionError("the negotiation does not settle")
        for end in self.watched:
            end.check_settled()
        if all(end.lives for end in self.watched) and not self.faults:
            assert [end.failures for end in self.watched] == [0] * len(self.watched)

    # ---- rules

    @precondition(lambda self: next(self.moves(), None) is not None)
    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=6))
    def things_happen(self, numbers: list[int]) -> None:
        for number in numbers:
            moves = list(self.moves())
            if moves:
                moves[number % len(moves)]()
                self.check_all()

    @precondition(lambda self: next(self.moves(), None) is not None)
    @rule(number=NUMBERS)
    def one_thing_happens(self, number: int) -> None:
        moves = list(self.moves())
        moves[number % len(moves)]()

    @rule(which=WHICH, what=st.integers(0, 2), by_engine=st.booleans())
    def somebody_wishes(self, which: int, what: int, by_engine: bool) -> None:
        end = self.pick(which)
        if end.lives:
            self.wish(end, WISHES[end.end.name][what], by_engine=by_engine)

    @rule(which=WHICH, styles=st.lists(UFRAGS, min_size=1, max_size=LIMITS.candidates + 2))
    def an_engine_gathers(self, which: int, styles: list[str]) -> None:
        end = self.pick(which)
        for style in styles:
            if end.engine.peers:
                candidate = make_candidate(self.next_number(), end.engine.ufrag, style)
                self.media_event(end, LocalCandidate(candidate=candidate))

    def next_number(self) -> int:
        self._number += 1
        return self._number

    @precondition(lambda self: any(end.engine.busy for end in self.watched))
    @rule(number=NUMBERS)
    def an_operation_fails(self, number: int) -> None:
        busy = [end for end in self.watched if end.engine.busy]
        self.faults = True
        self.finish(busy[number % len(busy)], fail=ENGINE_BROKE)

    @precondition(lambda self: any(end.has_peer for end in self.watched))
    @rule(number=NUMBERS, closes=st.booleans())
    def a_transport_fails(self, number: int, closes: bool) -> None:
        """ICE fails, or the peer connection closes by itself."""
        able = [end for end in self.watched if end.has_peer]
        self.lose(able[number % len(able)], closes=closes)

    def lose(self, end: Watched, *, closes: bool) -> None:
        self.faults = True
        if closes:
            end.engine.events.clear()
            end.engine.close_by_itself()
        else:
            end.engine.fail_transport()
        self.media_event(end, end.engine.events.pop())

    @rule(which=WHICH, how=st.sampled_from(["closes", "fails", "takes too long"]))
    def an_offer_is_given_up_and_another_one_made(self, which: int, how: str) -> None:
        """Where the first reached the far end, the next answer may be to either."""
        end = self.pick(which)
        if end.connection.negotiation_state is State.HAVE_LOCAL_OFFER:
            self.offer_again(end, how)

    def offer_again(self, end: Watched, how: str) -> None:
        if how == "takes too long":
            self._pass(ANSWER_TIMEOUT)
        else:
            self.lose(end, closes=how == "closes")
        self.check_all()
        if end.lives:
            self.wish(end, WISHES[end.end.name][0])

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, ANSWER_TIMEOUT, TRANSPORT_TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while True:
            due = [
                when
                for end in self.watched
                if (when := end.connection.next_timeout()) is not None and when <= until
            ]
            self.clock.advance_to(max(self.clock.now, min(due, default=until)))
            for end in self.watched:
                waited = end.waits
                end.connection.handle_timeout(now=self.clock.now)
                left = end.connection.next_timeout()
                assert left is None or left > self.clock.now, "a deadline stands still"
                self.faults |= waited and not end.waits
                self.perform(end)
            self.check_all()
            if not due:
                return

    @rule(which=WHICH, what=st.sampled_from([*MISUSES, None, None]))
    def somebody_is_mistaken(self, which: int, what: Intent | None) -> None:
        end = self.pick(which)
        if what is None:
            self.an_engine_errs(end)
            self.an_engine_repeats_itself(end)
        else:
            self.a_send_is_rejected(end, what)

    def a_send_is_rejected(self, end: Watched, what: Intent) -> None:
        before = everything(end.connection)
        try:
            # Not even time has passed: what comes later may be earlier than this.
            end.connection.send(what, now=self.clock.now + 1.0)
        except NavTalkError:
            assert everything(end.connection) == before, f"{what} changed something"
        else:
            raise AssertionError(f"{what} was taken")

    def an_engine_repeats_itself(self, end: Watched) -> None:
        """A completion that nobody waits for any more is counted, and that is all."""
        finished = len(end.engine.history) - len(end.engine._pending)
        stale = end.connection.counters.stale_completions
        before = end.connection.negotiation_state
        if finished:
            op = end.engine.history[finished - 1].op
            end.connection.media_failed(op, "late", now=self.clock.now)
            assert end.connection.counters.stale_completions == stale + 1
            assert end.connection.negotiation_state is before
            assert end.connection.actions() == []

    def an_engine_errs(self, end: Watched) -> None:
        """A result of the wrong type is refused and changes nothing."""
        op = end.negotiation._op
        if op is None:
            return
        making_offer = end.connection.negotiation_state is State.MAKING_OFFER
        wrong = Answer(sdp="v=0") if making_offer else Offer(sdp="v=0")
        if end.connection.negotiation_state is State.COMMITTING_OFFER:
            wrong = Answer(sdp="v=0")
        before = everything(end.connection)
        try:
            end.connection.media_done(op, wrong, now=self.clock.now)
        except LocalProtocolError:
            assert everything(end.connection) == before
        else:
            raise AssertionError("a wrong result was taken")

    @rule(which=WHICH, wish=st.booleans())
    def everything_is_delivered(self, which: int, wish: bool) -> None:
        if wish:
            self.come_to_terms(which)
        else:
            self.settle()

    @rule(which=WHICH, dice=st.integers(0, 9))
    def somebody_closes(self, which: int, dice: int) -> None:
        if dice == 7 and self.pick(which).lives:
            self.close(self.pick(which))

    def close(self, end: Watched) -> None:
        end.connection.send(Close(), now=self.clock.now)
        self.perform(end)

    def come_to_terms(self, which: int) -> None:
        """Whatever happened: once all is delivered, one more wish brings media back."""
        self.settle()
        if not all(end.lives for end in self.watched):
            return
        end = self.pick(which)
        self.wish(end, WISHES[end.end.name][0])
        self.wish_is_granted(end)
        for one in self.watched:
            one.failures = 0
            assert one.connection.media_state is MediaState.CONNECTED
        self.faults = False

    @invariant()
    def every_end_is_right(self) -> None:
        self.check_all()

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None or not self.watched:
            return  # A step failed already.
        self.come_to_terms(self.last_word)
        for end in self.watched:
            if end.lives:
                self.close(end)
                break
        self.settle()
        for end in self.watched:
            if end.connection.state is not lifecycle.State.CLOSED:
                end.connection.handle_timeout(now=self.clock.now + FAR_AWAY)
                self.perform(end)
            end.check()
            assert end.connection.next_timeout() is None
