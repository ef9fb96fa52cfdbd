"""What aiortc 1.16 and aioice 0.13 do, as far as a policy of ours rests on it.

A failure here is no bug of ours: an upgrade has changed a fact. Each test names the policy to
revisit then.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aioice import ice, stun, turn
from aiortc import (
    InvalidStateError,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceGatherer,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import RTP_HISTORY_SIZE, RtpPacket
from aiortc.sdp import candidate_from_sdp

pytestmark = pytest.mark.anyio

MakePeer = Callable[[], RTCPeerConnection]


@pytest.fixture
async def make_peer() -> AsyncIterator[MakePeer]:
    peers: list[RTCPeerConnection] = []

    def make() -> RTCPeerConnection:
        configuration = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        peer = RTCPeerConnection(configuration)
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        await peer.close()


def remade(description: RTCSessionDescription, sdp: str) -> RTCSessionDescription:
    return RTCSessionDescription(sdp=sdp, type=description.type)


def lines(description: RTCSessionDescription, prefix: str) -> list[str]:
    return [line for line in description.sdp.split("\r\n") if line.startswith(prefix)]


async def offer_of(peer: RTCPeerConnection, *kinds: str) -> RTCSessionDescription:
    for kind in kinds:
        peer.addTransceiver(kind)
    return await peer.createOffer()


async def test_rollback_is_ignored_and_the_state_stays(make_peer: MakePeer) -> None:
    """Policy: Capabilities.rollback is False; an offer on running media is set only together with
    its answer (docs/architecture.md)."""
    peer = make_peer()
    await peer.setLocalDescription(await offer_of(peer, "audio"))
    before = peer.localDescription.sdp
    await peer.setLocalDescription(RTCSessionDescription(sdp=before, type="rollback"))
    assert peer.signalingState == "have-local-offer"
    assert peer.localDescription.type == "rollback"


async def test_glare_raises(make_peer: MakePeer) -> None:
    """Policy: the core never lets an offer reach a peer that has one out (docs/architecture.md)."""
    ours, theirs = make_peer(), make_peer()
    await ours.setLocalDescription(await offer_of(ours, "audio"))
    await theirs.setLocalDescription(await offer_of(theirs, "audio"))
    with pytest.raises(InvalidStateError, match="have-local-offer"):
        await ours.setRemoteDescription(theirs.localDescription)


async def test_a_candidate_before_the_remote_description_is_lost(
    make_peer: MakePeer, caplog: pytest.LogCaptureFixture
) -> None:
    """Policy: candidates wait in the core for their description; the engine fails early ones.

    No network is needed: the offer carries no candidate, so what the answerer's ICE transport
    knows afterwards is what was added before.
    """
    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "audio")
    candidate = candidate_from_sdp("1 1 udp 2130706431 192.0.2.1 4711 typ host")
    candidate.sdpMid = "0"
    with caplog.at_level(logging.WARNING, "aiortc"):
        await ours.addIceCandidate(candidate)
    assert "without remote description" in caplog.text
    await ours.setRemoteDescription(offer)
    transport = ours.getTransceivers()[0].receiver.transport.transport
    assert transport.getRemoteCandidates() == []
    await ours.addIceCandidate(candidate)
    assert [known.ip for known in transport.getRemoteCandidates()] == ["192.0.2.1"]


async def test_a_candidate_after_the_end_mark_is_ignored(make_peer: MakePeer) -> None:
    """Policy: the core keeps end marks in their place; a description whose candidates may still
    come must not say end-of-candidates."""
    ours, theirs = make_peer(), make_peer()
    await ours.setRemoteDescription(await offer_of(theirs, "audio"))
    await ours.addIceCandidate(None)
    candidate = candidate_from_sdp("1 1 udp 2130706431 192.0.2.1 4711 typ host")
    candidate.sdpMid = "0"
    await ours.addIceCandidate(candidate)
    transport = ours.getTransceivers()[0].receiver.transport.transport
    assert transport.getRemoteCandidates() == []


async def test_a_candidate_of_a_bundled_line_is_ignored(make_peer: MakePeer) -> None:
    """Policy: AddCandidate maps the tagged m-line to aiortc's first, and counts the others."""
    ours, theirs = make_peer(), make_peer()
    await ours.setRemoteDescription(await offer_of(theirs, "video", "audio"))
    candidate = candidate_from_sdp("1 1 udp 2130706431 192.0.2.1 4711 typ host")
    candidate.sdpMid = "1"
    await ours.addIceCandidate(candidate)
    transport = ours.getTransceivers()[0].receiver.transport.transport
    assert transport.getRemoteCandidates() == []


async def test_only_the_last_lines_candidates_are_read(make_peer: MakePeer) -> None:
    """Policy: sdp_rewrite copies the tagged m-line's candidates to the others (its rule 4)."""
    for where, expected in ((0, []), (1, ["192.0.2.1"])):
        ours, theirs = make_peer(), make_peer()
        offer = await offer_of(theirs, "video", "audio")
        candidate = "a=candidate:1 1 udp 2130706431 192.0.2.1 4711 typ host\r\n"
        mid = f"a=mid:{where}\r\n"
        await ours.setRemoteDescription(remade(offer, offer.sdp.replace(mid, mid + candidate)))
        transport = ours.getTransceivers()[0].receiver.transport.transport
        assert [known.ip for known in transport.getRemoteCandidates()] == expected


def test_the_candidate_prefix_pollutes_the_foundation() -> None:
    """Policy: the engine strips ``candidate:`` before parsing."""
    text = "candidate:1 1 udp 2130706431 192.0.2.1 4711 typ host"
    assert candidate_from_sdp(text).foundation == "candidate:1"


def test_an_empty_candidate_is_an_assertion_error() -> None:
    """Policy: empty candidates become ``addIceCandidate(None)`` in the engine."""
    with pytest.raises(AssertionError):
        candidate_from_sdp("")


def test_a_candidate_with_a_bad_port_is_a_value_error() -> None:
    """Policy: the engine turns AssertionError, IndexError and ValueError into a failed command."""
    with pytest.raises(ValueError, match="invalid literal"):
        candidate_from_sdp("1 1 udp 2130706431 192.0.2.1 x typ host")


def test_the_default_ice_servers_are_a_public_one() -> None:
    """Policy: RTCConfiguration always gets an explicit list, ``[]`` for none."""
    assert RTCConfiguration().iceServers is None
    [server] = RTCIceGatherer.getDefaultIceServers()
    assert "google" in str(server.urls)


def test_loopback_is_no_host_address() -> None:
    """Policy: Gathering adds 127.0.0.1 where `loopback` is asked for."""
    addresses = ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
    assert "127.0.0.1" not in addresses
    assert "::1" not in addresses


def test_gathering_waits_five_seconds_for_a_server() -> None:
    """Policy: Gathering has a deadline of its own."""
    assert ice.Connection.get_component_candidates.__defaults__ == (5,)


async def test_an_ipv6_ice_server_is_a_value_error() -> None:
    """Policy: our own reading of URLs; aiortc is given none."""
    with pytest.raises(ValueError, match="malformed uri"):
        RTCIceGatherer(iceServers=[RTCIceServer(urls=["stun:[::1]:3478"])])


async def test_one_server_of_a_kind_is_asked_and_stuns_never() -> None:
    """Policy: Gathering asks all of them by itself."""
    urls = ["stuns:a.example", "stun:b.example", "stun:c.example", "turn:d.example"]
    connection = RTCIceGatherer(
        iceServers=[RTCIceServer(urls=urls), RTCIceServer(urls=["turn:e.example"])]
    )._connection
    assert connection.stun_server == ("b.example", 3478)
    assert connection.turn_server == ("d.example", 3478)


async def test_a_refused_relay_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy: Gathering tells IceServerFailed."""

    async def refused(**_options: Any) -> Any:
        raise stun.TransactionTimeout

    monkeypatch.setattr(ice, "relayed_candidate", refused)
    connection = ice.Connection(ice_controlling=False, turn_server=("192.0.2.1", 3478))
    assert await connection.get_component_candidates(component=1, addresses=[]) == []


async def test_the_flag_for_tls_may_be_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy: the certificate is verified for the URL's name, the connection goes to an address."""
    asked: dict[str, Any] = {}

    async def create_connection(_factory: Any, **options: Any) -> Any:
        asked.update(options)
        raise OSError("seen enough")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    context: Any = ssl.create_default_context()
    with pytest.raises(OSError, match="seen enough"):
        await ice.relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: ice.StunProtocol(ice.Connection(ice_controlling=False)),
            turn_server=("192.0.2.1", 5349),
            turn_username="u",
            turn_password="p",
            turn_ssl=context,
            turn_transport="tcp",
        )
    assert asked == {"host": "192.0.2.1", "port": 5349, "ssl": context}


def test_a_silent_server_is_asked_for_a_minute() -> None:
    """Policy: giving a relay back is cut short after RELEASE_SECONDS."""
    assert stun.RETRY_RTO * (2 ** (stun.RETRY_MAX + 1) - 1) == 63.5


async def test_a_lost_relay_is_refreshed_on() -> None:
    """Policy: _Relay closes the transport of a relay that was lost, which ends the refreshing."""
    protocol = turn.TurnClientUdpProtocol(
        ("192.0.2.1", 3478), username="u", password="p", lifetime=600, channel_refresh_time=500
    )
    protocol.refresh_task = asyncio.create_task(protocol.refresh(600))
    protocol.connection_lost(None)
    assert protocol.refresh_task is not None
    assert not protocol.refresh_task.cancelling()
    protocol.refresh_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await protocol.refresh_task


async def test_a_local_name_is_not_looked_up_with_relays_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Policy: RemoteCandidates counts such a name as unresolved."""

    async def looked_up(_subscriber: object) -> Any:
        raise AssertionError("a look-up")

    monkeypatch.setattr(ice, "get_or_create_mdns_protocol", looked_up)
    connection = ice.Connection(ice_controlling=False, transport_policy=ice.TransportPolicy.RELAY)
    name = "0e9f7b1c-0000-4000-8000-000000000000.local"
    await connection.add_remote_candidate(
        ice.Candidate.from_sdp(f"1 1 udp 2130706431 {name} 4711 typ host")
    )
    assert connection.remote_candidates == []


async def test_an_ice_restart_is_ignored(make_peer: MakePeer) -> None:
    """Policy: a new ufrag or fingerprint means ResetPeer (docs/architecture.md, the tables)."""
    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "audio")
    await ours.setRemoteDescription(offer)
    first = await ours.createAnswer()
    await ours.setLocalDescription(first)
    [old] = lines(offer, "a=ice-ufrag:")
    restarted = remade(offer, offer.sdp.replace(old, "a=ice-ufrag:NEWu"))
    await ours.setRemoteDescription(restarted)
    second = await ours.createAnswer()
    assert lines(second, "a=ice-ufrag:") == lines(first, "a=ice-ufrag:")
    assert lines(second, "a=ice-pwd:") == lines(first, "a=ice-pwd:")


async def test_every_description_has_a_new_session_id(
    make_peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy: the ``o=`` line says nothing about whose transport a description is.

    The session id is the NTP time in whole seconds, so the clock is set here.
    """
    from aiortc import clock

    peer = make_peer()
    peer.addTransceiver("audio")
    origins = []
    for seconds in (1000, 1001):
        monkeypatch.setattr(clock, "current_ntp_time", lambda seconds=seconds: seconds << 32)
        origins += lines(await peer.createOffer(), "o=")
    assert origins == ["o=- 1000 1000 IN IP4 0.0.0.0", "o=- 1001 1001 IN IP4 0.0.0.0"]


@pytest.mark.parametrize("sdp", ["", "v=0", "garbage"])
async def test_a_garbage_offer_is_accepted(make_peer: MakePeer, sdp: str) -> None:
    """Policy: sdp_rewrite refuses what has no v= line or no m-line."""
    peer = make_peer()
    await peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
    assert peer.signalingState == "have-remote-offer"


async def test_a_rejected_line_is_treated_as_active(make_peer: MakePeer) -> None:
    """Policy: sdp_rewrite makes rejected m-lines inactive and restores their port in the answer."""
    ours, theirs = make_peer(), make_peer()
    tracks: list[Any] = []
    ours.on("track", tracks.append)
    offer = await offer_of(theirs, "audio")
    [line] = lines(offer, "m=")
    rejected = remade(offer, offer.sdp.replace(line, line.replace("m=audio 9", "m=audio 0")))
    await ours.setRemoteDescription(rejected)
    assert len(tracks) == 1
    [answered] = lines(await ours.createAnswer(), "m=")
    assert not answered.startswith("m=audio 0 ")


async def test_an_answer_with_a_rejected_line_raises(make_peer: MakePeer) -> None:
    """Policy: rewrite_answer gives rejected m-lines transport attributes and our own codecs."""
    ours, theirs = make_peer(), make_peer()
    await ours.setLocalDescription(await offer_of(ours, "audio", "video"))
    await theirs.setRemoteDescription(ours.localDescription)
    answer = await theirs.createAnswer()
    head = answer.sdp.split("m=video")[0]
    sdp = head + "m=video 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\na=inactive\r\n"
    with pytest.raises(ValueError, match="ICE username fragment"):
        await ours.setRemoteDescription(remade(answer, sdp))


async def test_an_extension_with_attributes_raises(make_peer: MakePeer) -> None:
    """Policy: sdp_rewrite cuts extension attributes off."""
    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "audio")
    uri = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
    assert uri in offer.sdp
    with pytest.raises(ValueError, match="too many values"):
        await ours.setRemoteDescription(remade(offer, offer.sdp.replace(uri, f"{uri} vad=on")))


async def test_an_unknown_codec_alone_raises_half_way(make_peer: MakePeer) -> None:
    """Policy: check_description looks for a common codec before aiortc changes anything."""
    from aiortc.exceptions import OperationError

    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "video")
    sdp = offer.sdp.replace("VP8/90000", "AV1/90000").replace("H264/90000", "VP9/90000")
    with pytest.raises(OperationError):
        await ours.setRemoteDescription(remade(offer, sdp))
    assert len(ours.getTransceivers()) == 1


async def test_a_missing_rtcp_mux_raises(make_peer: MakePeer) -> None:
    """Policy: sdp_rewrite refuses it by name; RFC 8829 section 5.1.1 requires it."""
    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "audio")
    with pytest.raises(ValueError, match="RTCP mux"):
        await ours.setRemoteDescription(remade(offer, offer.sdp.replace("a=rtcp-mux\r\n", "")))


async def test_there_is_no_icecandidate_event(make_peer: MakePeer) -> None:
    """Policy: all candidates are in the description; late ones come from Gathering."""
    peer = make_peer()
    seen: list[Any] = []
    peer.on("icecandidate", seen.append)
    await peer.setLocalDescription(await offer_of(peer, "audio"))
    assert peer.iceGatheringState == "complete"
    assert seen == []


async def test_all_tracks_of_an_offer_share_one_stream(make_peer: MakePeer) -> None:
    """Policy: nothing is done about msid (protocol.md 6.3 item 4)."""
    peer = make_peer()
    offer = await offer_of(peer, "video", "audio", "video")
    labels = [line.split(":")[1].split()[0] for line in lines(offer, "a=msid:")]
    assert len(labels) == 3
    assert len(set(labels)) == 1


async def test_create_offer_overwrites_codecs(make_peer: MakePeer) -> None:
    """Policy: OfferDraft takes a discarded offer back."""
    ours, theirs = make_peer(), make_peer()
    offer = await offer_of(theirs, "video")
    only_vp8 = "\r\n".join(
        line.replace(" 97 98 99 100 101 102", " 97")
        for line in offer.sdp.split("\r\n")
        if ":98 " not in line and ":99 " not in line and ":10" not in line
    )
    await ours.setRemoteDescription(remade(offer, only_vp8))
    await ours.setLocalDescription(await ours.createAnswer())
    transceiver = ours.getTransceivers()[0]
    assert [codec.name for codec in transceiver._codecs] == ["VP8"]
    await ours.createOffer()
    assert len(transceiver._codecs) == 6


async def test_a_cancelled_local_description_never_gathers_again(make_peer: MakePeer) -> None:
    """Policy: setLocalDescription is shielded and never cancelled (docs/architecture.md)."""
    peer = make_peer()
    offer = await offer_of(peer, "audio")
    gathering = asyncio.Event()
    peer.on("icegatheringstatechange", gathering.set)
    task = asyncio.ensure_future(peer.setLocalDescription(offer))
    await gathering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.setLocalDescription(await peer.createOffer())
    assert peer.iceGatheringState == "gathering"
    assert "a=candidate:" not in peer.localDescription.sdp


# ---- receiving


def rtp(number: int, timestamp: int, *, marker: bool = True) -> Any:
    packet: Any = RtpPacket(sequence_number=number, timestamp=timestamp, marker=int(marker))
    packet._data = b"%d" % number
    return packet


def test_a_picture_waits_for_the_next_one() -> None:
    """Policy: VideoJitterBuffer releases it on its marker bit."""
    buffer = JitterBuffer(capacity=512, is_video=True)
    assert buffer.add(rtp(1, 0)) == (False, None)
    _, frame = buffer.add(rtp(2, 3000))
    assert frame is not None
    assert frame.data == b"1"


def test_sound_waits_for_four_packets_and_for_more_after_each_loss() -> None:
    """Policy: AudioJitterBuffer holds nothing that is in order, and gives a hole up."""
    buffer = JitterBuffer(capacity=16, prefetch=4)

    def behind(number: int) -> int:
        _, frame = buffer.add(rtp(number, number * 960))
        return number - int(frame.data) if frame is not None else -1

    assert [behind(number) for number in range(8)] == [-1, -1, -1, -1, 4, 4, 4, 4]
    assert [behind(number) for number in range(9, 40)][-1] == 14


def test_what_is_missing_is_reported_once() -> None:
    """Policy: NackSchedule asks again while something is missing."""
    nack = NackGenerator()
    assert [nack.add(rtp(number, 0)) for number in (1, 3, 4, 5)] == [False, True, False, False]
    assert nack.missing == {2}


def test_a_sender_keeps_128_packets_to_send_again() -> None:
    """Policy: REPAIRABLE_GAP and BLACKOUT_SECONDS."""
    assert RTP_HISTORY_SIZE == 128
