"""Whole sessions between a client and a server connection: no event loop, no I/O, virtual time.

Both ends are strict unless a test says otherwise, and both engines refuse every illegal step, so a
flow that ends without an error was legal at every step.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    Emit,
    OpenPeer,
    ResetPeer,
)
from navtalk_proto.config import RECEIVE_MEDIA, SEND_MEDIA, ClientConfig, ServerConfig
from navtalk_proto.events import (
    AnswerIgnored,
    CandidateFailed,
    CandidateIgnored,
    CloseCause,
    Closed,
    MessageReceived,
    Negotiated,
    NegotiationFailed,
    OfferIgnored,
    ProtocolViolation,
    Ready,
    Refused,
    ResponseDone,
    Usable,
)
from navtalk_proto.intents import Close, Negotiate, SayText, SendAudio
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import (
    Capabilities,
    Direction,
    LocalCandidate,
    MediaKind,
    MediaLine,
    NegotiationNeeded,
    TrackAdded,
)
from navtalk_proto.testing import End, LinkedPair, StrictEngine
from navtalk_proto.wire.messages import (
    AudioAppend,
    AudioDone,
    ConnectedSuccess,
    GpuFull,
    IceCandidate,
    IceServer,
    InputConfig,
    SessionCreated,
    SessionUpdated,
    TranscriptDone,
    UserMessage,
)

STUN = (IceServer(urls=("stun:stun.example.org:3478",)),)
GOOGLE = (IceServer(urls=("stun:stun.l.google.com:19302",)),)
SUCCESS = ConnectedSuccess(session_id="s", ice_servers=STUN)
MORE = (*RECEIVE_MEDIA, MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY))
MORE_OF_SERVER = (*SEND_MEDIA, MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY))


def candidate(name: str, ufrag: str | None = None, *, in_text: bool = False) -> IceCandidate:
    if name == "end":
        return IceCandidate(candidate="", sdp_mid="0", username_fragment=ufrag)
    text = f"candidate:{name} 1 udp 2122129151 192.0.2.1 64301 typ host"
    if in_text:
        return IceCandidate(candidate=f"{text} ufrag {ufrag}", sdp_mid="0", sdp_m_line_index=0)
    return IceCandidate(candidate=text, sdp_mid="0", sdp_m_line_index=0, username_fragment=ufrag)


def names(candidates: list[IceCandidate]) -> list[str]:
    return [value.candidate[10:].split(" ")[0] or "end" for value in candidates]


def gather(pair: LinkedPair, end: End, *candidates: IceCandidate) -> None:
    """The engine of one end finds candidates."""
    for value in candidates:
        end.connection.media_event(LocalCandidate(candidate=value), now=pair.clock.now)
    pair.run()


def ready(pair: LinkedPair | None = None) -> LinkedPair:
    pair = pair or LinkedPair()
    pair.open()
    pair.send(pair.server, SUCCESS, SessionCreated(), SessionUpdated())
    return pair


def usable(pair: LinkedPair | None = None) -> LinkedPair:
    pair = ready(pair)
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.client.connection.usable
    assert pair.server.connection.usable
    return pair


def commands(end: End) -> list[str]:
    return [type(command).__name__ for command in end.engine.history]


def settled(pair: LinkedPair) -> None:
    """Both ends are stable, agree on the last exchange, and made no mistake."""
    for end in (pair.client, pair.server):
        assert end.connection.negotiation_state.value == "stable"
        assert end.connection.counters.violations == 0
        assert end.connection._negotiation.held_candidates == 0
        assert end.engine.signaling.value == "stable"
        assert not end.engine.busy
    client, server = pair.client.engine, pair.server.engine
    assert client.local == server.remote
    assert server.local == client.remote


# ---- the seed page, step by step


def test_the_seeds_flow() -> None:
    pair = LinkedPair(
        ClientConfig(
            strict=True,
            input_config=InputConfig(voice="cedar"),
            history=(UserMessage(texts=("My name is Ana.",)),),
        )
    )
    pair.open()
    assert pair.client.sent() == ["realtime.input_config"], "before the welcome, in onopen"
    pair.send(pair.server, SUCCESS)
    # Step 1 and 2: the server offers through the same WebSocket.
    pair.client.engine_held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert commands(pair.client) == ["OpenPeer"]
    opened = pair.client.engine.history[0]
    assert isinstance(opened, OpenPeer)
    assert opened.ice_servers == STUN, "those of connected.success"
    # Step 3, early: a candidate that comes before the peer connection has its description.
    gather(pair, pair.server, candidate("s1"), candidate("s2", "s1"))
    pair.finish(pair.client)
    gather(pair, pair.server, candidate("s3", "s1", in_text=True))
    assert commands(pair.client) == ["OpenPeer", "SetRemote"]
    pair.finish(pair.client)
    pair.run()
    assert commands(pair.client) == ["OpenPeer", "SetRemote", *["AddCandidate"] * 3, "SetLocal"]
    # Our own candidates do not overtake the answer.
    gather(pair, pair.client, candidate("c1"), candidate("end"))
    assert "webrtc.signaling.iceCandidate" not in pair.client.sent()
    pair.client.engine_held = False
    pair.run()
    assert pair.client.sent()[1:] == ["webrtc.signaling.answer", "webrtc.signaling.iceCandidate"]
    assert names(pair.client.engine.added) == ["s1", "s2", "s3"]
    # Late ones are given at once.
    gather(pair, pair.server, candidate("s4"))
    gather(pair, pair.client, candidate("c2"))
    assert names(pair.client.engine.added) == ["s1", "s2", "s3", "s4"]
    assert names(pair.server.engine.added) == ["c1", "c2"]
    # Step 4: the tracks.
    assert [track.kind.value for track in pair.client.of(TrackAdded)] == ["video", "audio"]
    assert pair.client.of(Usable) == []
    pair.send(pair.server, SessionCreated(), SessionUpdated())
    assert len(pair.client.of(Ready)) == len(pair.client.of(Usable)) == 1
    assert pair.client.connection.usable
    settled(pair)
    texts = [event.message for event in pair.server.of(MessageReceived)]
    assert texts == [InputConfig(voice="cedar"), UserMessage(texts=("My name is Ana.",))]
    pair.send(pair.client, SendAudio(pcm=b"\1\0" * 1600), SayText(text="hi"))
    audio = [
        event.message.audio
        for event in pair.server.of(MessageReceived)
        if isinstance(event.message, AudioAppend)
    ]
    assert b"".join(audio) == b"\1\0" * 1600
    pair.send(pair.server, TranscriptDone(response_id="r1", content="Hello."), AudioDone())
    pair.advance(1.0)
    assert pair.client.of(ResponseDone) == [ResponseDone(response_id="r1", text="Hello.")]
    assert pair.client.connection.next_timeout() is None
    assert pair.server.connection.next_timeout() is None


def test_an_offer_before_success_opens_the_peer_with_the_default_stun_server() -> None:
    pair = LinkedPair(ClientConfig())
    pair.open()
    pair.to_client.held = True
    pair.send(pair.server, SUCCESS, Negotiate(media=SEND_MEDIA), SessionCreated(), SessionUpdated())
    pair.to_client.queue.rotate(-1)
    assert pair.to_client.kinds()[-1] == "conversation.connected.success"
    offer = pair.to_client.kinds().index("webrtc.signaling.offer")
    pair.to_client.queue.rotate(-offer)
    pair.to_client.held = False
    pair.run()
    assert pair.client.engine.ice_servers == GOOGLE
    assert pair.client.connection.usable
    assert pair.client.connection.session_id == "s"
    assert pair.client.connection.counters.violations == 0
    # The list arrived since: the next peer connection uses it.
    pair.client.engine.fail_transport()
    pair.run()
    pair.send(pair.client, Negotiate(media=RECEIVE_MEDIA))
    assert pair.client.engine.ice_servers == STUN


def test_without_media() -> None:
    pair = LinkedPair(ClientConfig(media=(), strict=True))
    usable_server = ready(pair)
    assert pair.client.connection.usable, "at READY"
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    gather(pair, pair.server, candidate("s1"))
    assert len(pair.client.of(OfferIgnored)) == len(pair.client.of(CandidateIgnored)) == 1
    assert pair.client.engine.history == []
    assert not usable_server.server.connection.usable
    pair.advance(10.0)
    assert [failed.media for failed in pair.server.of(NegotiationFailed)] == [SEND_MEDIA]
    pair.send(pair.client, SayText(text="typed"))
    assert len(pair.server.of(MessageReceived)) == 2


# ---- renegotiation, seed step 5


def test_the_client_adds_a_line() -> None:
    pair = usable()
    pair.send(pair.client, Negotiate(media=MORE))
    assert commands(pair.client)[-3:] == ["CreateOffer", "SetLocal", "SetRemote"]
    assert commands(pair.server)[-2:] == ["SetRemote", "SetLocal"]
    assert pair.client.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=MORE)
    assert pair.server.of(Negotiated)[-1] == Negotiated(offered_by_us=False)
    assert pair.server.of(TrackAdded)[-1].mid == "2"
    assert pair.client.engine.peers == pair.server.engine.peers == 1, "the transport goes on"
    settled(pair)


def test_the_server_adds_a_line() -> None:
    pair = usable()
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    assert pair.server.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=MORE_OF_SERVER)
    assert pair.client.of(TrackAdded)[-1].mid == "2"
    assert pair.client.engine.peers == 1
    settled(pair)


def test_the_engine_wishes() -> None:
    pair = usable()
    pair.client.engine.events.append(NegotiationNeeded(media=MORE))
    pair.run()
    assert pair.client.of(Negotiated)[-1].media == MORE
    settled(pair)


def test_the_client_may_offer_first() -> None:
    pair = ready()
    pair.send(pair.client, Negotiate(media=RECEIVE_MEDIA))
    assert commands(pair.client) == ["OpenPeer", "SetLocal", "SetRemote"]
    assert pair.client.of(Negotiated) == [Negotiated(offered_by_us=True, media=RECEIVE_MEDIA)]
    settled(pair)


@pytest.mark.parametrize("steps", range(6))
def test_wishes_coalesce_wherever_the_exchange_is(steps: int) -> None:
    """0: making the offer, 1: it is out, 2: committing, 3: applying the answer, 4 and 5: done."""
    pair = usable()
    pair.client.engine_held = True
    pair.to_client.held = True
    pair.send(pair.client, Negotiate(media=MORE[:1]))
    # Each step lets one thing happen: an operation of the engine, or a message of the server.
    for _ in range(steps):
        if pair.client.engine.busy:
            pair.finish(pair.client)
        elif pair.to_client.queue:
            pair.deliver(pair.server)
        pair.run()
    pair.send(pair.client, Negotiate(media=MORE[:2]), Negotiate(media=MORE))
    pair.client.engine_held = pair.to_client.held = False
    pair.run()
    wished = [told.media for told in pair.client.of(Negotiated) if told.offered_by_us]
    assert wished[0] == MORE[:1]
    assert wished[-1] == MORE
    # Two wishes at once in an idle machine are two exchanges; elsewhere the newest one counts.
    assert wished[1:-1] in ([], [MORE[:2]])
    assert (wished[1:-1] == []) is (steps < 4)
    assert pair.client.of(NegotiationFailed) == []
    settled(pair)


# ---- glare


def release(pair: LinkedPair, order: tuple[str, ...]) -> None:
    """Let held things happen one at a time, in this order, then all the rest."""
    for what in order:
        end = pair.client if what.startswith("client") else pair.server
        if what.endswith("engine"):
            if end.engine.busy:
                pair.finish(end)
        elif end.outbox.queue:
            pair.deliver(end)
        pair.run()
    for end in (pair.client, pair.server):
        end.engine_held = end.outbox.held = False
    pair.run()


def hold(pair: LinkedPair) -> None:
    for end in (pair.client, pair.server):
        end.engine_held = end.outbox.held = True


ORDERS = sorted(
    set(
        itertools.permutations(
            ["client engine", "server engine", "client link", "server link"] * 2, 5
        )
    )
)


@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize("first", [True, False], ids=["first exchange", "later exchange"])
def test_glare_in_every_order(first: bool, rollback: bool) -> None:
    """Both offer at once: the server wins, and the client's wish completes afterwards."""
    capabilities = Capabilities(rollback=rollback)
    collisions = 0
    for order in ORDERS:
        pair = LinkedPair(ClientConfig(strict=True, capabilities=capabilities))
        pair = ready(pair) if first else usable(pair)
        peers = pair.client.engine.peers
        hold(pair)
        pair.send(pair.client, Negotiate(media=MORE))
        pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
        release(pair, order)
        settled(pair)
        collisions += len(pair.server.of(OfferIgnored))
        assert not pair.client.of(OfferIgnored), "the polite end ignores no offer"
        for end, media in ((pair.client, MORE), (pair.server, MORE_OF_SERVER)):
            wished = [told.media for told in end.of(Negotiated) if told.offered_by_us]
            assert wished[-1] == media, order
            assert end.of(NegotiationFailed) == []
            assert end.of(AnswerIgnored) == []
        if not first:
            assert pair.client.engine.peers == peers, "running media never notices"
        assert pair.client.connection.usable
    assert collisions > len(ORDERS) // 8, "the orders do collide"


def test_glare_while_the_client_makes_its_offer() -> None:
    pair = usable()
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=MORE))
    assert pair.client.connection.negotiation_state.value == "making offer"
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    pair.client.engine_held = False
    pair.run()
    assert pair.client.sent().count("webrtc.signaling.offer") == 1, "the first was never sent"
    assert pair.server.of(OfferIgnored) == []
    assert pair.client.of(Negotiated)[-1].media == MORE
    settled(pair)


def test_glare_while_both_offers_cross() -> None:
    pair = usable()
    pair.to_server.held = pair.to_client.held = True
    pair.send(pair.client, Negotiate(media=MORE))
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    for end in (pair.client, pair.server):
        assert end.connection.negotiation_state.value == "have local offer"
    pair.to_server.held = pair.to_client.held = False
    pair.run()
    assert len(pair.server.of(OfferIgnored)) == 1
    assert [told.offered_by_us for told in pair.client.of(Negotiated)] == [False, False, True]
    settled(pair)


def test_candidates_of_the_offer_that_lost() -> None:
    pair = usable()
    pair.to_server.held = pair.to_client.held = True
    pair.send(pair.client, Negotiate(media=MORE))
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    gather(pair, pair.client, candidate("c1"), candidate("c2", "c1"))
    before = len(pair.server.engine.added)
    pair.to_server.held = False
    pair.run()
    # Without a ufrag it went down with the ignored offer; the ufrag says that the transport runs.
    assert names(pair.server.engine.added[before:]) == ["c2"]
    assert names([event.candidate for event in pair.server.of(CandidateIgnored)]) == ["c1"]
    pair.to_client.held = False
    pair.run()
    gather(pair, pair.client, candidate("c3"))
    assert names(pair.server.engine.added[before:]) == ["c2", "c3"]
    settled(pair)


# ---- no answer


def test_a_first_offer_without_answer_and_the_late_answer() -> None:
    pair = ready()
    pair.to_server.held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    pair.advance(9.9)
    assert pair.server.of(NegotiationFailed) == []
    pair.advance(0.1)
    (failed,) = pair.server.of(NegotiationFailed)
    assert failed.media == SEND_MEDIA
    assert pair.server.connection.negotiation_state.value == "offer expired"
    assert commands(pair.server) == ["OpenPeer", "SetLocal"], "the peer stays"
    pair.to_server.held = False
    pair.run()
    assert pair.server.of(Negotiated) == [Negotiated(offered_by_us=True, media=SEND_MEDIA)]
    assert pair.client.connection.usable
    settled(pair)


def test_a_later_offer_without_answer_leaves_the_media_alone() -> None:
    pair = usable()
    pair.to_server.held = True
    before = commands(pair.server)
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    pair.advance(10.0)
    assert commands(pair.server) == [*before, "CreateOffer"], "nothing was set"
    assert pair.server.connection.negotiation_state.value == "stable"
    pair.to_server.held = False
    pair.run()
    assert len(pair.server.of(AnswerIgnored)) == 1
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    assert pair.server.of(Negotiated)[-1].media == MORE_OF_SERVER
    settled(pair)


# ---- a new transport


def test_an_offer_of_a_rebuilt_peer_rebuilds_ours() -> None:
    pair = usable()
    pair.server.engine.close_by_itself()
    pair.run()
    assert pair.server.connection.negotiation_state.value == "no peer"
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.client.engine.peers == pair.server.engine.peers == 2
    assert "ResetPeer" in commands(pair.client)
    settled(pair)


def test_candidates_of_the_new_transport_wait_for_it() -> None:
    pair = usable()
    pair.server.engine.close_by_itself()
    pair.run()
    pair.client.engine_held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    gather(pair, pair.server, candidate("old", "s1"), candidate("new", "s2"), candidate("any"))
    pair.client.engine_held = False
    pair.run()
    assert names(pair.client.engine.added) == ["new", "any"]
    assert names([event.candidate for event in pair.client.of(CandidateIgnored)]) == ["old"]
    settled(pair)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_failed_transport_recovers_by_a_fresh_wish(who: str) -> None:
    pair = usable()
    end, other = (pair.client, pair.server) if who == "client" else (pair.server, pair.client)
    for side in (pair.client, pair.server):
        side.engine.fail_transport()
    pair.run()
    media = RECEIVE_MEDIA if who == "client" else SEND_MEDIA
    for side in (pair.client, pair.server):
        assert side.connection.negotiation_state.value == "failed"
        assert side.connection.state is State.READY
    pair.send(end, Negotiate(media=media))
    assert end.engine.peers == other.engine.peers == 2
    assert end.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=media)
    assert end.connection.media_state.value == other.connection.media_state.value == "connected"
    settled(pair)


def test_a_transport_that_only_one_end_gave_up_is_rebuilt_on_both() -> None:
    pair = usable()
    pair.client.engine.fail_transport()
    pair.run()
    pair.send(pair.client, Negotiate(media=RECEIVE_MEDIA))
    assert pair.server.engine.peers == 2, "the changed ufrag and fingerprint say so"
    settled(pair)


# ---- engine failures


def fail_nth(n: int, who: str, offers: str) -> LinkedPair:
    """The n-th operation of one engine fails; afterwards the server offers once more."""
    pair = ready(LinkedPair(ClientConfig(strict=True), ServerConfig(strict=True)))
    end = pair.client if who == "client" else pair.server
    offerer = pair.client if offers == "client" else pair.server
    media = RECEIVE_MEDIA if offers == "client" else SEND_MEDIA
    end.engine_held = True
    pair.send(offerer, Negotiate(media=media))
    for _ in range(n):
        pair.finish(end)
        pair.run()
    pair.finish(end, fail="the engine broke")
    end.engine_held = False
    pair.run()
    return pair


@pytest.mark.parametrize("offers", ["client", "server"])
@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("n", range(3))
def test_an_operation_that_fails_is_told_and_the_next_wish_works(
    n: int, who: str, offers: str
) -> None:
    pair = fail_nth(n, who, offers)
    end = pair.client if who == "client" else pair.server
    assert [failed.reason for failed in end.of(NegotiationFailed)] == ["the engine broke"]
    pair.advance(10.0)  # What the other end still waits for fails too, by its own timer.
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.server.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=SEND_MEDIA)
    assert pair.client.connection.usable
    settled(pair)


@pytest.mark.parametrize("n", range(3))
def test_a_renegotiation_that_fails(n: int) -> None:
    pair = usable()
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=MORE))
    for _ in range(n):
        pair.finish(pair.client)
        pair.run()
    pair.finish(pair.client, fail="the engine broke")
    pair.client.engine_held = False
    pair.run()
    (failed,) = pair.client.of(NegotiationFailed)
    assert (failed.reason, failed.media) == ("the engine broke", MORE)
    pair.send(pair.client, Negotiate(media=MORE))
    assert pair.client.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=MORE)
    settled(pair)


def test_a_reset_that_fails() -> None:
    pair = usable()
    pair.client.engine.fail_transport()
    pair.run()
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=MORE))
    assert isinstance(pair.finish(pair.client, fail="out of ports"), ResetPeer)
    pair.client.engine_held = False
    assert [failed.media for failed in pair.client.of(NegotiationFailed)] == [MORE]
    pair.send(pair.client, Negotiate(media=MORE))
    assert isinstance(pair.client.engine.history[-3], OpenPeer)
    settled(pair)


# ---- candidates


def test_a_candidate_that_fails_delays_nothing() -> None:
    pair = usable()
    pair.client.engine_held = True
    gather(pair, pair.server, candidate("s1"), candidate("s2"), candidate("s3"))
    assert isinstance(pair.finish(pair.client, fail="no such mid"), AddCandidate)
    pair.client.engine_held = False
    pair.run()
    assert names(pair.client.engine.added) == ["s2", "s3"]
    (failed,) = pair.client.of(CandidateFailed)
    assert (names([failed.candidate]), failed.reason) == (["s1"], "no such mid")
    settled(pair)


def test_end_marks_keep_their_place() -> None:
    pair = ready()
    frames = [candidate("c1"), candidate("end"), candidate("c2"), candidate("end")]
    pair.client.engine_held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    for value in frames:
        text = '{"type":"webrtc.signaling.iceCandidate","data":{"candidate":' + (
            "null}}" if value.is_end else f'{{"candidate":"{value.candidate}","sdpMid":"0"}}}}}}'
        )
        pair.client.connection.receive_text(text, now=pair.clock.now)
    pair.client.engine_held = False
    pair.run()
    assert names(pair.client.engine.added) == ["c1", "end", "c2", "end"]
    settled(pair)


def test_more_than_64_candidates() -> None:
    pair = ready()
    pair.client.engine_held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    gather(pair, pair.server, *[candidate(f"s{number}") for number in range(1, 71)])
    assert pair.client.connection._negotiation.held_candidates == 64
    assert len(pair.client.of(CandidateIgnored)) == 6
    pair.client.engine_held = False
    pair.run()
    assert names(pair.client.engine.added) == [f"s{number}" for number in range(1, 65)]
    settled(pair)


def test_candidates_of_a_replaced_parked_offer() -> None:
    pair = usable()
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=MORE))  # Something is in flight.
    for media in (SEND_MEDIA, MORE_OF_SERVER):
        pair.server.engine.close_by_itself()
        pair.run()
        pair.send(pair.server, Negotiate(media=media))
        ufrag = pair.server.engine.ufrag
        gather(pair, pair.server, candidate(f"of-{ufrag}", ufrag))
    assert names([event.candidate for event in pair.client.of(CandidateIgnored)]) == ["of-s2"]
    pair.client.engine_held = False
    pair.run()
    assert names(pair.client.engine.added) == ["of-s3"]
    assert pair.client.of(Negotiated)[-1].media == MORE, "the wish completed afterwards"
    settled(pair)


def test_our_candidates_never_overtake_our_description() -> None:
    pair = usable()
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=MORE))
    gather(pair, pair.client, candidate("c1", "c1"))
    before = pair.client.sent()
    pair.client.engine_held = False
    pair.run()
    assert pair.client.sent()[len(before) :] == [
        "webrtc.signaling.offer",
        "webrtc.signaling.iceCandidate",
    ]
    settled(pair)


# ---- the end, wherever the negotiation is


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("steps", range(9))
def test_a_close_in_the_middle_of_an_exchange(steps: int, first: bool, who: str) -> None:
    pair = ready() if first else usable()
    hold(pair)
    pair.send(pair.client, Negotiate(media=MORE))
    pair.send(pair.server, Negotiate(media=MORE_OF_SERVER))
    order = itertools.cycle(["client engine", "server engine", "client link", "server link"])
    for what in itertools.islice(order, steps):
        end = pair.client if what.startswith("client") else pair.server
        if what.endswith("engine") and end.engine.busy:
            pair.finish(end)
        elif what.endswith("link") and end.outbox.queue:
            pair.deliver(end)
    pair.send(pair.client if who == "client" else pair.server, Close())
    for end in (pair.client, pair.server):
        end.engine_held = end.outbox.held = False
    pair.run()
    for end, media in ((pair.client, MORE), (pair.server, MORE_OF_SERVER)):
        assert end.connection.state is State.CLOSED
        assert end.events[-1] == end.of(Closed)[0]
        assert len(end.of(Closed)) == 1
        assert commands(end).count("ClosePeer") == 1
        assert isinstance(end.engine.history[-1], ClosePeer)
        wished = [told.media for told in end.of(Negotiated) if told.offered_by_us]
        failed = [told.media for told in end.of(NegotiationFailed)]
        assert (wished + failed).count(media) == 1, "a wish ends once"
        assert end.actions[-1] == Emit(event=end.events[-1])
    causes = {end.name: end.of(Closed)[0].cause for end in (pair.client, pair.server)}
    assert causes.pop(who) is CloseCause.LOCAL
    assert set(causes.values()) == {CloseCause.REMOTE}


def test_a_refusal_reaches_the_client_before_the_close() -> None:
    pair = LinkedPair()
    pair.open()
    pair.send(pair.server, GpuFull(message="No GPU worker is free, try again later."))
    (refused,) = pair.client.of(Refused)
    assert refused.retryable
    # The client closes on the refusal, the server with its own code: one of the two frames wins.
    assert pair.client.of(Closed)[0].cause is CloseCause.REFUSED
    assert pair.server.of(Closed)[0].cause is CloseCause.LOCAL


def test_a_lost_connection_in_the_middle_of_an_exchange() -> None:
    pair = usable()
    hold(pair)
    pair.send(pair.client, Negotiate(media=MORE))
    pair.cut()
    for end in (pair.client, pair.server):
        assert end.of(Closed) == [Closed(cause=CloseCause.REMOTE, code=None, reason="")]
        assert isinstance(end.engine.history[-1], ClosePeer)
    assert [failed.media for failed in pair.client.of(NegotiationFailed)] == [MORE]


def test_strict_ends_close_on_each_others_mistakes() -> None:
    pair = ready()
    pair.client.connection.receive_text("garbage", now=pair.clock.now)
    pair.run()
    assert [violation.fatal for violation in pair.client.of(ProtocolViolation)] == [True]
    assert pair.client.of(Closed)[0].cause is CloseCause.VIOLATION
    assert pair.server.of(Closed)[0] == Closed(
        cause=CloseCause.REMOTE, code=1002, reason="protocol violation"
    )


# ---- any interleaving

MOVES = st.sampled_from(
    [
        "client engine",
        "server engine",
        "client link",
        "server link",
        "client engine",
        "server engine",
        "client link",
        "server link",
        "client wish",
        "server wish",
        "client candidate",
        "server candidate",
        "client fails",
        "server fails",
        "client peer closes",
        "server peer closes",
        "client transport fails",
        "server transport fails",
        "wait",
    ]
)


@given(
    moves=st.lists(MOVES, max_size=80),
    client_rolls_back=st.booleans(),
    server_rolls_back=st.booleans(),
)
def test_any_interleaving_ends_in_agreement(
    moves: list[str], client_rolls_back: bool, server_rolls_back: bool
) -> None:
    """Whatever happened, once the links are free a fresh wish of the server brings media back."""
    pair = ready(
        LinkedPair(
            ClientConfig(
                strict=True,
                connect_timeout=1e6,
                capabilities=Capabilities(rollback=client_rolls_back),
            ),
            ServerConfig(strict=True, capabilities=Capabilities(rollback=server_rolls_back)),
        )
    )
    hold(pair)
    for number, move in enumerate(moves):
        name, _, what = move.partition(" ")
        end = pair.server if name == "server" else pair.client
        match what:
            case "engine" | "fails" if end.engine.busy:
                pair.finish(end, fail="no" if what == "fails" else None)
            case "link" if end.outbox.queue:
                pair.deliver(end)
            case "wish":
                end.connection.send(
                    Negotiate(media=MORE if name == "client" else MORE_OF_SERVER),
                    now=pair.clock.now,
                )
            case "candidate":
                gather(pair, end, candidate(f"n{number}", end.engine.ufrag if number % 2 else None))
            case "peer closes" if end.engine.signaling.value != "no peer":
                end.engine.close_by_itself()
                end.connection.media_event(end.engine.events.pop(), now=pair.clock.now)
            case "transport fails":
                end.engine.fail_transport()
                end.connection.media_event(end.engine.events.pop(), now=pair.clock.now)
            case "":
                pair.advance(4.0)
            case _:
                pass
        pair.run()
    for end in (pair.client, pair.server):
        end.engine_held = end.outbox.held = False
    pair.run()
    pair.advance(10.0)  # Offers whose answer went down with a peer connection expire.
    for end in (pair.server, pair.client):
        end.engine.fail_transport()
    pair.run()
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.server.of(Negotiated)[-1] == Negotiated(offered_by_us=True, media=SEND_MEDIA)
    settled(pair)
    for end in (pair.client, pair.server):
        assert end.connection.state is State.READY
        assert end.connection.media_state.value == "connected"
    pair.send(pair.client, Close())
    for end in (pair.client, pair.server):
        assert end.events[-1] == end.of(Closed)[0]


@pytest.mark.parametrize("own_mids", [True, False], ids=["mids of their own", "plain mids"])
@pytest.mark.parametrize("answered", ["before", "after"])
def test_an_offer_is_made_again_while_the_first_ones_answer_is_on_its_way(
    own_mids: bool, answered: str
) -> None:
    """The client lost its peer connection; its answer, from a new one, closed the server's."""
    pair = LinkedPair(
        server_engine=StrictEngine("s", own_mids=own_mids),
        client_engine=StrictEngine("c", own_mids=own_mids),
    )
    usable(pair)
    pair.client.engine.fail_transport()
    pair.run()
    pair.to_server.held = True  # The first answer is slow.
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    pair.server.engine.close_by_itself()
    pair.run()
    if answered == "after":
        pair.to_client.held = True
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.server.connection.negotiation_state.value == "have local offer"
    assert len(pair.server.of(NegotiationFailed)) == 1
    pair.deliver(pair.client)
    pair.to_client.held = pair.to_server.held = False
    pair.run()
    settled(pair)
    ignored = [event.reason for event in pair.server.of(AnswerIgnored)]
    assert len(ignored) == 1
    assert ("given up" in ignored[0]) is own_mids
    wishes = [event.wish for event in pair.server.of(Negotiated)]
    assert wishes[-1] == 3
