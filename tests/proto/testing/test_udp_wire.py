"""The wire without sockets: what each peer is told of the other, and which packets pass."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from navtalk_proto.testing import udp_wire
from navtalk_proto.testing.impairment import REORDER_SECONDS, PacketKind
from navtalk_proto.testing.memory_transport import memory_transports
from navtalk_proto.testing.udp_wire import Side, UdpWire
from navtalk_proto.wire.codec import encode
from navtalk_proto.wire.messages import Answer, IceCandidate, Offer, SessionCreated

NEAR, FAR = Side.NEAR, Side.FAR
CLIENT = ("127.0.0.1", 5001)
SERVER = ("127.0.0.1", 6001)
RTP = b"\x80\x60 a picture"
STUN = b"\x00\x01 a check"

SERVER_LINES = """\
a=candidate:1 1 udp 2130706431 192.0.2.2 6000 typ host\r
a=candidate:2 1 udp 2130706431 fd00::2 6000 typ host\r
a=candidate:3 1 udp 2130706431 127.0.0.1 6001 typ host generation 0\r
a=candidate:4 2 udp 2130706431 127.0.0.1 6002 typ host\r
a=candidate:5 1 tcp 2130706431 127.0.0.1 9 typ host tcptype active\r
a=candidate:6 1 udp 1694498815 127.0.0.1 6001 typ srflx raddr 127.0.0.1 rport 6001\r
a=end-of-candidates\r
"""


def sdp(lines: str = "", ufrag: str = "s1") -> str:
    return (
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        f"m=video 9 UDP/TLS/RTP/SAVPF 97\r\n{lines}a=ice-ufrag:{ufrag}\r\n"
        f"m=audio 9 UDP/TLS/RTP/SAVPF 96\r\n{lines}a=ice-ufrag:{ufrag}\r\n"
    )


def candidate(host: str, port: int, kind: str = "typ host") -> IceCandidate:
    return IceCandidate(candidate=f"candidate:7 1 UDP 1 {host} {port} {kind}", sdp_mid="0")


@pytest.fixture
def wire() -> UdpWire:
    wire = UdpWire(seed=1)
    wire.ports.update({NEAR: ("127.0.0.1", 7001), FAR: ("127.0.0.1", 7002)})
    return wire


def introduce(wire: UdpWire) -> None:
    """The server offers, the client answers."""
    wire.received(encode(Offer(sdp=sdp("a=candidate:3 1 udp 1 127.0.0.1 6001 typ host\r\n"))))
    wire.sent(encode(Answer(sdp=sdp("a=candidate:3 1 udp 1 127.0.0.1 5001 typ host\r\n"))))


# ---- signaling


def test_a_description_keeps_one_candidate_at_the_wires_address(wire: UdpWire) -> None:
    passing = wire.received(encode(Offer(sdp=sdp(SERVER_LINES))))
    assert passing is not None
    told = json.loads(passing)["data"]["sdp"]["sdp"]
    kept = "a=candidate:3 1 udp 2130706431 127.0.0.1 7001 typ host generation 0\r\n"
    assert told == sdp(kept + "a=end-of-candidates\r\n")


def test_every_copy_of_an_answer_is_changed(wire: UdpWire) -> None:
    passing = wire.sent(encode(Answer(sdp=sdp(SERVER_LINES))))
    assert passing is not None
    message = json.loads(passing)
    assert message["sdp"] == message["data"]["sdp"]
    assert message["sdp"]["sdp"].count("127.0.0.1 7002 typ host") == 2
    assert "6001" not in passing


def test_a_wire_off_loopback_prefers_candidates_that_are(wire: UdpWire) -> None:
    wire.ports.update({NEAR: ("192.0.2.2", 7001), FAR: ("192.0.2.2", 7002)})
    passing = wire.received(encode(Offer(sdp=sdp(SERVER_LINES))))
    assert passing is not None
    assert "candidate:1 1 udp 2130706431 192.0.2.2 7001" in passing
    assert "127.0.0.1" not in passing


def test_line_ends_of_any_kind_stay(wire: UdpWire) -> None:
    text = json.dumps(
        {"type": "webrtc.signaling.offer", "data": {"sdp": sdp(SERVER_LINES).replace("\r", "")}}
    )
    passing = wire.received(text)
    assert passing is not None
    told = json.loads(passing)["data"]["sdp"]
    assert told.count("\na=candidate:") == 2
    assert "\r" not in told


def test_a_trickled_candidate_is_taken_when_the_description_had_none(wire: UdpWire) -> None:
    wire.received(encode(Offer(sdp=sdp())))
    assert wire.received(encode(candidate("fd00::2", 6000))) is None
    assert wire.received(encode(candidate("192.0.2.2", 6000, "typ srflx"))) is None
    passing = wire.received(encode(candidate(*SERVER)))
    assert passing is not None
    assert "127.0.0.1 7001 typ host" in passing
    # Another one of the same peer is not at the wire.
    assert wire.received(encode(candidate("192.0.2.2", 6000))) is None


def test_after_a_description_with_candidates_trickled_ones_are_left_out(wire: UdpWire) -> None:
    introduce(wire)
    assert wire.received(encode(candidate("192.0.2.2", 6000))) is None
    assert wire.received(encode(candidate(*SERVER))) is not None
    assert wire.sent(encode(candidate(*CLIENT))) is not None


def test_other_messages_and_what_cannot_be_read_pass_as_they_are(wire: UdpWire) -> None:
    for text in (
        encode(SessionCreated()),
        encode(IceCandidate(candidate="", sdp_mid="0", sdp_m_line_index=0)),
        '{"type": "webrtc.signaling.iceCandidate", "data": {"candidate": null}}',
        '{"type": "webrtc.signaling.offer", "data": [1, 2.5, true, null, "text"]}',
        '["webrtc.signaling.offer"]',
    ):
        passing = wire.sent(text)
        assert passing is not None
        assert json.loads(passing) == json.loads(text)
    broken = '{"type": "webrtc.signaling.offer", '
    assert wire.sent(broken) == broken


def test_a_transport_under_it_changes_both_ways(wire: UdpWire, crank: Any, flag: Any) -> None:
    near, far = memory_transports(flag)
    ours = wire.wrap(near)
    crank(far.send_text(encode(Offer(sdp=sdp())))).result()
    crank(far.send_text(encode(candidate("fd00::2", 1)))).result()
    crank(far.send_text(encode(candidate(*SERVER)))).result()
    far.send_binary(b"\x01")
    crank(ours.receive()).result()
    assert "127.0.0.1 7001" in crank(ours.receive()).result()
    assert crank(ours.receive()).result() == b"\x01"
    crank(ours.send_text(encode(candidate("fd00::2", 1)))).result()
    crank(ours.send_text(encode(candidate(*CLIENT)))).result()
    assert len(near.sent) == 1
    assert "127.0.0.1 7002" in near.sent[0]
    crank(ours.close(1000, "bye")).result()
    crank(ours.aclose()).result()
    assert near.closed.is_set()


# ---- packets


def test_packets_take_the_wire_in_both_directions(wire: UdpWire) -> None:
    introduce(wire)
    wire.datagram(NEAR, STUN, CLIENT, now=1.0)
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    assert wire.next_due() == 1.0
    assert wire.due(now=1.0) == [(FAR, STUN, SERVER), (NEAR, RTP, CLIENT)]
    assert wire.next_due() is None
    assert wire.counters("stun", towards=FAR).passed == 1
    assert wire.counters(PacketKind.RTP, towards=NEAR).passed == 1


def test_packets_of_strangers_and_for_nobody_are_counted(wire: UdpWire) -> None:
    wire.datagram(NEAR, STUN, CLIENT, now=1.0)
    introduce(wire)
    wire.datagram(NEAR, STUN, ("192.0.2.2", 5001), now=1.0)
    assert wire.due(now=9.0) == []
    assert wire.counters("stun", towards=FAR).unroutable == 2


def test_what_the_system_cannot_send_is_counted(wire: UdpWire) -> None:
    wire.unsent((NEAR, RTP, CLIENT))
    assert wire.counters("rtp", towards=NEAR).unroutable == 1


def test_a_newer_session_takes_the_wire_over(wire: UdpWire) -> None:
    introduce(wire)
    wire.received(encode(Offer(sdp=sdp("a=candidate:3 1 udp 1 127.0.0.1 6009 typ host\r\n"))))
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    wire.datagram(FAR, RTP, ("127.0.0.1", 6009), now=1.0)
    assert wire.due(now=1.0) == [(NEAR, RTP, CLIENT)]


def test_what_is_set_holds_for_its_kinds_and_direction(wire: UdpWire) -> None:
    introduce(wire)
    wire.set("rtp", towards=NEAR, delay=0.5)
    wire.set("stun", PacketKind.DTLS, loss=1.0)
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    wire.datagram(FAR, STUN, SERVER, now=1.0)
    wire.datagram(NEAR, RTP, CLIENT, now=1.0)
    assert wire.waiting == 2
    assert wire.due(now=1.4) == [(FAR, RTP, SERVER)]
    assert wire.due(now=1.5) == [(NEAR, RTP, CLIENT)]
    assert wire.counters("stun", towards=NEAR).lost == 1


def test_every_impairment_can_be_set_and_a_rate_lifted(wire: UdpWire) -> None:
    introduce(wire)
    wire.set(loss=0.0, duplicate=1.0, delay=0.1, jitter=0.0, reorder=1.0, rate=8_000)
    wire.datagram(FAR, RTP[:10], SERVER, now=0.0)
    at = 0.01 + 0.1 + REORDER_SECONDS
    assert wire.due(now=at - 0.001) == []
    assert len(wire.due(now=at + 0.001)) == 2
    wire.set(duplicate=0.0, delay=0.0, reorder=0.0, rate=math.inf)
    wire.datagram(FAR, RTP, SERVER, now=5.0)
    assert len(wire.due(now=5.0)) == 1


def test_a_cut_wire_heals(wire: UdpWire) -> None:
    introduce(wire)
    wire.cut("rtp")
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    wire.datagram(FAR, STUN, SERVER, now=1.0)
    assert wire.due(now=1.0) == [(NEAR, STUN, CLIENT)]
    wire.heal()
    wire.datagram(FAR, RTP, SERVER, now=2.0)
    assert wire.due(now=2.0) == [(NEAR, RTP, CLIENT)]
    assert wire.counters("rtp", towards=NEAR).swallowed == 1
    wire.cut(towards=FAR)
    wire.datagram(FAR, RTP, SERVER, now=3.0)
    wire.datagram(NEAR, RTP, CLIENT, now=3.0)
    assert wire.due(now=3.0) == [(NEAR, RTP, CLIENT)]


def test_no_more_packets_wait_than_may(wire: UdpWire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_wire, "MAX_WAITING", 2)
    introduce(wire)
    wire.set(delay=1.0, duplicate=1.0)
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    wire.datagram(FAR, RTP, SERVER, now=1.0)
    assert wire.waiting == 2
    assert wire.counters("rtp", towards=NEAR).overflowed == 2


def test_a_kind_that_does_not_exist_is_refused(wire: UdpWire) -> None:
    with pytest.raises(ValueError, match="video"):
        wire.set("video", loss=0.1)
    with pytest.raises(ValueError, match="loss"):
        wire.set(loss=5)
