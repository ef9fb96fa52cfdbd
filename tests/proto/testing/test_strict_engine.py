"""The strict engine refuses what a real one would refuse, or take and get wrong in silence."""

from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    MediaCommand,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.limits import Limits
from navtalk_proto.media import (
    Capabilities,
    Direction,
    IcePolicy,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    OpId,
    TrackAdded,
)
from navtalk_proto.testing import EngineMisuseError, StrictEngine
from navtalk_proto.testing.engine import SignalingState
from navtalk_proto.wire.messages import Answer, IceCandidate, IceServer, Offer
from navtalk_proto.wire.sdp import check_description, same_transport

OP = OpId(1)
LINES = (
    MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY),
    MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDRECV),
)
SERVERS = (IceServer(urls=("stun:example.org",)),)


def opening(cls: Any = OpenPeer) -> MediaCommand:
    command: MediaCommand = cls(op=OP, ice_servers=SERVERS, policy=IcePolicy.ALL, media=LINES)
    return command


def do(engine: StrictEngine, *commands: MediaCommand) -> MediaResult:
    result: MediaResult = None
    for command in commands:
        engine.execute(command)
        finished, result, reason = engine.finish()
        assert finished == command
        assert reason is None
    return result


def opened(name: str = "e", **options: Any) -> StrictEngine:
    engine = StrictEngine(name, **options)
    do(engine, opening())
    return engine


def offer_of(engine: StrictEngine) -> Offer:
    result = do(engine, SetLocal(op=OP, media=LINES))
    assert isinstance(result, Offer)
    return result


def exchange(**options: Any) -> tuple[StrictEngine, StrictEngine]:
    """An offerer and an answerer with an exchange behind them."""
    offerer, answerer = opened("a", **options), opened("b", **options)
    offer = offer_of(offerer)
    answer = do(answerer, SetRemote(op=OP, description=offer), SetLocal(op=OP))
    assert isinstance(answer, Answer)
    do(offerer, SetRemote(op=OP, description=answer))
    return offerer, answerer


def test_an_exchange() -> None:
    offerer, answerer = exchange()
    assert offerer.signaling is answerer.signaling is SignalingState.STABLE
    assert offerer.remote == answerer.local
    assert answerer.remote == offerer.local
    assert offerer.ice_servers == SERVERS
    states = [MediaState.CHECKING, MediaState.ICE_CONNECTED, MediaState.CONNECTED]
    assert list(answerer.events) == [
        TrackAdded(track_id="b1-0", kind=MediaKind.VIDEO, mid="0"),
        TrackAdded(track_id="b1-1", kind=MediaKind.AUDIO, mid="1"),
        *[MediaStateChanged(state=state) for state in states],
        MediaStarted(track_id="b1-0", kind=MediaKind.VIDEO),
        MediaStarted(track_id="b1-1", kind=MediaKind.AUDIO),
    ]
    # The answer turned the video around: nothing of it arrives at the offerer.
    assert list(offerer.events) == [
        TrackAdded(track_id="a1-1", kind=MediaKind.AUDIO, mid="1"),
        *[MediaStateChanged(state=state) for state in states],
        MediaStarted(track_id="a1-1", kind=MediaKind.AUDIO),
    ]


def test_media_connects_only_if_it_shall() -> None:
    offerer, _ = exchange(connects=False)
    assert [type(event) for event in offerer.events] == [TrackAdded]


def test_media_connects_when_it_is_told_to() -> None:
    engine = opened("x", connects=False)
    assert not engine.connectable, "nothing is exchanged"
    do(engine, SetRemote(op=OP, description=OFFER), SetLocal(op=OP))
    assert engine.connectable
    engine.events.clear()
    engine.connect()
    states = (MediaState.CHECKING, MediaState.ICE_CONNECTED, MediaState.CONNECTED)
    assert list(engine.events)[:3] == [MediaStateChanged(state=state) for state in states]
    assert not engine.connectable, "it is connected"


@pytest.mark.parametrize(("own", "mids"), [(True, "0.x2 1.x2"), (False, "0 1")])
def test_a_later_peer_connection_has_mids_of_its_own(own: bool, mids: str) -> None:
    engine = opened("x", own_mids=own)
    assert "a=group:BUNDLE 0 1\r\n" in offer_of(engine).sdp
    do(engine, opening(ResetPeer))
    assert f"a=group:BUNDLE {mids}\r\n" in offer_of(engine).sdp  # No other has its ufrag.


def test_an_answer_repeats_the_mids_and_so_does_a_track() -> None:
    engine = opened("x")
    offered = Offer(sdp=OFFER.sdp.replace("a=mid:0", "a=mid:voice"))
    result = do(engine, SetRemote(op=OP, description=offered), SetLocal(op=OP))
    assert isinstance(result, Answer)
    assert "a=mid:voice\r\n" in result.sdp
    (track,) = [event for event in engine.events if isinstance(event, TrackAdded)][:1]
    assert track.mid == "voice"


def test_only_the_mids_of_its_own_m_lines_are_repeated() -> None:
    engine = opened("x")
    data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:data\r\n"
    transport = "a=ice-ufrag:abcd\r\na=ice-pwd:" + "p" * 22 + "\r\na=fingerprint:sha-1 AA\r\n"
    unnamed = f"m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n{transport}"
    offered = Offer(sdp=OFFER.sdp + data + transport + "a=mid:data2\r\n" + unnamed)
    result = do(engine, SetRemote(op=OP, description=offered), SetLocal(op=OP))
    assert isinstance(result, Answer)
    assert "a=group:BUNDLE 0 1 2\r\n" in result.sdp


def test_descriptions_are_sdp_with_one_transport_per_peer_connection() -> None:
    engine = opened("x")
    first = check_description(offer_of(engine), Limits())
    assert first.ufrags == {"x1"} == {engine.ufrag}
    do(engine, opening(ResetPeer))
    second = check_description(offer_of(engine), Limits())
    assert second.ufrags == {"x2"}
    assert not same_transport(first, second)
    assert same_transport(second, check_description(do_offer(engine), Limits()))


def do_offer(engine: StrictEngine) -> Offer:
    """Another offer of the same peer connection."""
    engine.signaling = SignalingState.STABLE
    result = do(engine, CreateOffer(op=OP, media=LINES))
    assert isinstance(result, Offer)
    return result


def test_a_made_offer_is_applied_only_as_it_was_made() -> None:
    offerer, _ = exchange()
    made = do(offerer, CreateOffer(op=OP, media=LINES))
    assert isinstance(made, Offer)
    assert offerer.signaling.value == "stable"
    with pytest.raises(EngineMisuseError):
        offerer.execute(SetLocal(op=OP, description=Offer(sdp=made.sdp + "a=x\r\n")))
    assert do(offerer, SetLocal(op=OP, description=made)) == made
    assert offerer.signaling.value == "have-local-offer"
    assert offerer.local == made


def test_a_made_offer_is_stale_after_another_description() -> None:
    offerer, answerer = exchange()
    made = do(offerer, CreateOffer(op=OP, media=LINES))
    assert isinstance(made, Offer)
    theirs = do(answerer, CreateOffer(op=OP, media=LINES))
    assert isinstance(theirs, Offer)
    do(offerer, SetRemote(op=OP, description=theirs), SetLocal(op=OP))
    with pytest.raises(EngineMisuseError):
        offerer.execute(SetLocal(op=OP, description=made))


def in_state(state: str) -> StrictEngine:
    if state == "no peer":
        return StrictEngine("e")
    engine = opened("e")
    if state == "have-local-offer":
        offer_of(engine)
    elif state == "have-remote-offer":
        do(engine, SetRemote(op=OP, description=OFFER))
    assert engine.signaling.value == state
    return engine


OFFER = offer_of(opened("g"))
ANSWER = Answer(sdp=OFFER.sdp)
LEGAL: dict[str, tuple[MediaCommand, set[str]]] = {
    "open": (opening(), {"no peer"}),
    "reset": (opening(ResetPeer), {"stable", "have-local-offer", "have-remote-offer"}),
    "close": (ClosePeer(op=OP), {"no peer", "stable", "have-local-offer", "have-remote-offer"}),
    "create offer": (CreateOffer(op=OP, media=LINES), {"stable"}),
    "set local": (SetLocal(op=OP, media=LINES), {"stable", "have-remote-offer"}),
    "commit": (SetLocal(op=OP, description=OFFER), set()),
    "remote offer": (SetRemote(op=OP, description=OFFER), {"stable", "have-remote-offer"}),
    "remote answer": (SetRemote(op=OP, description=ANSWER), {"have-local-offer"}),
    "candidate": (
        AddCandidate(op=OP, candidate=IceCandidate(candidate="candidate:1")),
        {"have-remote-offer"},
    ),
}


@pytest.mark.parametrize("state", ["no peer", "stable", "have-local-offer", "have-remote-offer"])
@pytest.mark.parametrize("name", list(LEGAL))
def test_what_is_legal_when(state: str, name: str) -> None:
    engine = in_state(state)
    command, legal = LEGAL[name]
    if state in legal:
        engine.execute(command)
        assert engine.history[-1] == command
    else:
        before = list(engine.history)
        with pytest.raises(EngineMisuseError):
            engine.execute(command)
        assert engine.history == before
        assert not engine.busy


def test_a_new_transport_takes_a_new_peer_connection() -> None:
    offerer, _ = exchange()
    made = do(offerer, CreateOffer(op=OP, media=LINES))
    assert isinstance(made, Offer)
    do(offerer, SetLocal(op=OP, description=made))
    with pytest.raises(EngineMisuseError, match="new transport"):
        offerer.execute(SetRemote(op=OP, description=ANSWER))
    do(offerer, opening(ResetPeer), SetRemote(op=OP, description=OFFER))


def test_m_lines_stay_where_they_are() -> None:
    _, engine = exchange()
    video, audio = (MediaLine(kind=kind) for kind in (MediaKind.VIDEO, MediaKind.AUDIO))

    def offered(*wished: MediaLine) -> list[tuple[str, str]]:
        made = do(engine, CreateOffer(op=OP, media=wished))
        assert isinstance(made, Offer)
        medias = check_description(made, Limits()).medias
        return [(media.kind, media.direction) for media in medias]

    assert offered(audio) == [("video", "inactive"), ("audio", "recvonly")]
    assert offered(audio, audio, video) == [
        ("video", "recvonly"),
        ("audio", "recvonly"),
        ("audio", "recvonly"),
    ]


def test_an_engine_that_rolls_back_takes_an_offer_over_its_own() -> None:
    engine = opened(capabilities=Capabilities(rollback=True))
    offer_of(engine)
    do(engine, SetRemote(op=OP, description=OFFER))
    assert engine.signaling is SignalingState.HAVE_REMOTE_OFFER


def test_one_description_operation_at_a_time() -> None:
    engine = opened()
    engine.execute(SetRemote(op=OP, description=OFFER))
    with pytest.raises(EngineMisuseError, match="in flight"):
        engine.execute(SetLocal(op=OP))
    engine.finish()
    engine.execute(AddCandidate(op=OP, candidate=IceCandidate(candidate="candidate:1")))
    engine.execute(SetLocal(op=OP))
    assert engine.busy
    engine.execute(ClosePeer(op=OP))


def test_a_candidate_of_another_description_is_misuse() -> None:
    engine = opened()
    do(engine, SetRemote(op=OP, description=OFFER))
    for value in (
        IceCandidate(candidate="candidate:1", username_fragment="zz"),
        IceCandidate(candidate="candidate:1 1 udp 1 192.0.2.1 9 typ host ufrag zz"),
    ):
        with pytest.raises(EngineMisuseError, match="zz"):
            engine.execute(AddCandidate(op=OP, candidate=value))
    good = IceCandidate(candidate="candidate:1", username_fragment="g1")
    do(engine, AddCandidate(op=OP, candidate=good))
    assert engine.added == [good]


def test_a_failure_leaves_the_state_as_it_was() -> None:
    engine = opened()
    engine.execute(SetRemote(op=OP, description=OFFER))
    command, result, reason = engine.finish(fail="no codec")
    assert (command.op, result, reason) == (OP, None, "no codec")
    assert engine.signaling is SignalingState.STABLE
    assert engine.remote is None


def test_a_reset_that_fails_leaves_no_peer() -> None:
    engine = opened()
    engine.execute(opening(ResetPeer))
    engine.finish(fail="out of ports")
    assert engine.signaling is SignalingState.NO_PEER
    do(engine, opening())
    assert engine.ufrag == "e2"


def test_after_the_close_commands_fail_or_are_misuse() -> None:
    engine = opened()
    engine.execute(SetRemote(op=OP, description=OFFER))
    engine.execute(ClosePeer(op=OpId(2)))
    with pytest.raises(EngineMisuseError, match="after ClosePeer"):
        engine.execute(ClosePeer(op=OpId(3)))
    assert engine.finish()[2] == "the peer connection was closed"
    assert engine.finish() == (ClosePeer(op=OpId(2)), None, None)
    assert engine.signaling is SignalingState.NO_PEER
    assert not engine.busy


def test_what_happens_by_itself() -> None:
    engine = opened(connects=False)
    engine.fail_transport("no pair")
    assert engine.events.popleft() == MediaStateChanged(state=MediaState.FAILED, reason="no pair")
    engine.execute(SetRemote(op=OP, description=OFFER))
    engine.close_by_itself()
    assert engine.events.popleft() == MediaStateChanged(state=MediaState.CLOSED, reason="closed")
    assert engine.signaling is SignalingState.NO_PEER
    assert not engine.busy
    do(engine, opening())
