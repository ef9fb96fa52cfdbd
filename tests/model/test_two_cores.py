"""Two of our cores, client and server, negotiate over links that deliver in any interleaving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from negotiation_model import (
    FAR_AWAY,
    GIVEN_UP,
    LIMITS,
    WELCOME,
    WISHES,
    NegotiationModel,
    Watched,
    model_settings,
)

from navtalk_proto.actions import SendText
from navtalk_proto.config import SEND_MEDIA, ClientConfig, ServerConfig
from navtalk_proto.events import AnswerIgnored, Negotiated
from navtalk_proto.media import Capabilities, MediaState, MediaStateChanged
from navtalk_proto.testing import LinkedPair
from navtalk_proto.wire import codec


class TwoCores(NegotiationModel):
    """From a session that is ready and has no peer connections yet."""

    prompt = True

    @initialize(
        rollbacks=st.tuples(st.booleans(), st.booleans()),
        own_mids=st.booleans(),
        last_word=st.integers(0, 1),
    )
    def begin(self, rollbacks: tuple[bool, bool], own_mids: bool, last_word: int) -> None:
        self.last_word = last_word
        client, server = (Capabilities(rollback=rollback) for rollback in rollbacks)
        self.pair = LinkedPair(
            ClientConfig(strict=True, limits=LIMITS, capabilities=client, connect_timeout=FAR_AWAY),
            ServerConfig(strict=True, limits=LIMITS, capabilities=server),
            clock=self.clock,
        )
        self.pair.open()
        self.pair.send(self.pair.server, *WELCOME)
        ends = (self.pair.client, self.pair.server)
        client_end, server_end = (Watched(end, self.clock, self.answers) for end in ends)
        self.watched = (client_end, server_end)
        for end in ends:
            end.engine.own_mids = own_mids
            end.engine_held = end.outbox.held = True
        if self.established:
            self.wish(self.watched[1], SEND_MEDIA)
            self.settle()
            assert self.pair.client.connection.usable

    def perform(self, end: Watched) -> None:
        self.pair._perform(end.end)

    def moves(self) -> Iterator[Callable[[], None]]:
        for end in self.watched:
            yield from self.engine_moves(end)
            if end.end.outbox.queue:
                yield partial(self.deliver, end)

    def deliver(self, end: Watched) -> None:
        """The oldest message of `end` arrives at the other one."""
        receiver = self.other(end)
        item = end.end.outbox.queue[0]
        if isinstance(item, SendText):
            message = codec.decode(item.text, sender=end.connection.role, limits=LIMITS)
            receiver.arrives(message)
        self.pair.deliver(end.end)

    @rule(what=st.tuples(st.integers(0, 2), st.integers(0, 2)))
    def both_wish(self, what: tuple[int, int]) -> None:
        """Their offers collide unless one is faster."""
        for end, number in zip(self.watched, what, strict=True):
            if end.lives:
                self.wish(end, WISHES[end.end.name][number])

    @rule(which=st.integers(0, 1), how=st.sampled_from(["closes", "fails", "takes too long"]))
    def an_offer_is_given_up_when_its_answer_has_left(self, which: int, how: str) -> None:
        end = self.watched[which]
        there = self.other(end)
        if not end.rests_in_media:
            return
        self.wish(end, WISHES[end.end.name][0])
        for _ in range(30):
            if "webrtc.signaling.answer" in there.end.outbox.kinds():
                self.offer_again(end, how)
                return
            moves = [*self.engine_moves(end), *self.engine_moves(there)]
            if end.end.outbox.queue:
                moves.append(partial(self.deliver, end))
            if not moves:
                return
            moves[0]()
            self.check_all()

    @rule(dice=st.integers(0, 9))
    def the_connection_is_lost(self, dice: int) -> None:
        if dice == 7:
            self.pair.cut()

    def other(self, end: Watched) -> Watched:
        return self.watched[0] if end is self.watched[1] else self.watched[1]

    def reaches(self, end: Watched) -> bool:
        there = self.other(end)
        return end.faces == there.engine.ufrag and there.faces == end.engine.ufrag

    def check_agreement(self) -> None:
        if not all(end.lives and end.rests_in_media for end in self.watched):
            return
        if any(end.gave_up for end in self.watched):
            # The far end may have answered late. It was told, and the next exchange mends it.
            return
        client, server = (end.engine for end in self.watched)
        assert client.local == server.remote
        assert server.local == client.remote

    def wish_is_granted(self, end: Watched) -> None:
        number = len(end.wishes)
        self.settle()
        granted = [event.wish for event in end.end.of(Negotiated)]
        assert number in granted, "the last wish came to nothing"
        assert all(one.engine.signaling.value == "stable" for one in self.watched)
        self.check_agreement()


class EstablishedTwoCores(TwoCores):
    """From a session with media."""

    established = True


def test_an_old_offer_that_is_answered_when_both_ends_lost_their_peer_connections() -> None:
    """Nobody made another one. Each end has a pair of its own; their deadlines tell both."""
    state = TwoCores()
    state.begin(rollbacks=(False, False), own_mids=True, last_word=0)
    client, _ = state.watched
    state.come_to_terms(0)
    state.wish(client, WISHES["client"][0])
    state.finish(client)
    state.lose(client, closes=True)  # The offer is on its way.
    state.an_offer_is_given_up_when_its_answer_has_left(which=1, how="closes")
    state.an_operation_fails(number=0)
    told = [end.end.of(MediaStateChanged) for end in state.watched]
    before = [len(events) for events in told]
    state.settle()
    for end, seen in zip(state.watched, before, strict=True):
        assert end.end.of(MediaStateChanged)[seen:][-1].state is MediaState.FAILED
    (ignored,) = client.end.of(AnswerIgnored)
    assert ignored.reason == GIVEN_UP
    state.teardown()  # One more wish brings media back.


for _model in (TwoCores, EstablishedTwoCores):
    _model.TestCase.settings = model_settings()
TestTwoCores = TwoCores.TestCase
TestEstablishedTwoCores = EstablishedTwoCores.TestCase
