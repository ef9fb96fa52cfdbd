from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensions, HeaderExtensionsMap, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio.media.datagram_path import ROUTES, DatagramPath, PlainPacket, parse
from navtalk_proto.media import MediaKind, MediaProgress

SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
SAME = ("marker", "payload_type", "sequence_number", "timestamp", "ssrc", "payload", "padding_size")


def extensions_map() -> HeaderExtensionsMap:
    made = HeaderExtensionsMap()
    extensions = [RTCRtpHeaderExtensionParameters(id=3, uri=SEND_TIME)]
    made.configure(RTCRtpParameters(headerExtensions=extensions))
    return made


@given(st.binary(min_size=0, max_size=40), st.sampled_from([0x80, 0x90, 0xA0, 0x81, 0xB2, 0x40]))
def test_packets_are_read_as_aiortc_reads_them(data: bytes, first: int) -> None:
    data = bytes([first]) + data
    known = extensions_map()
    try:
        expected = RtpPacket.parse(data, known)
    except ValueError:
        # What only breaks the extensions is found out when somebody asks for them.
        try:
            packet = parse(data, known)
        except ValueError:
            return
        assert isinstance(packet, PlainPacket)
        assert packet.extensions == HeaderExtensions()
        return
    except Exception:  # noqa: BLE001 - aiortc's own mistakes are not repeated
        return
    packet = parse(data, known)
    for name in SAME:
        assert getattr(packet, name) == getattr(expected, name)
    assert list(packet.csrc) == expected.csrc
    assert packet.extensions == expected.extensions


def test_extensions_are_there_when_they_are_asked_for() -> None:
    known = extensions_map()
    sent = RtpPacket(sequence_number=9, timestamp=10, ssrc=11, payload=b"data", marker=1)
    sent.extensions.abs_send_time = 12345
    packet = parse(sent.serialize(known), known)
    assert isinstance(packet, PlainPacket)
    assert packet.extensions.abs_send_time == 12345


@pytest.mark.anyio
@pytest.mark.replaces("datagrams")
async def test_media_takes_it_and_a_stray_datagram_harms_nothing(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [0]
    handle = DatagramPath._media

    def count(path: DatagramPath, data: bytes) -> bool:
        handled = handle(path, data)
        taken[0] += handled
        return handled

    monkeypatch.setattr(DatagramPath, "_media", count)
    _, client = await media.call()
    (path,) = client.engine._peer._paths.values()
    for datagram in (b"\x80", b"\x80\x61", b"\x80" * 40, b"\xff" * 40, b"\x80\xc8" + b"\x00" * 30):
        for protocol in path._agent._protocols:
            protocol.datagram_received(datagram, ("127.0.0.1", 9))
    before = sum(counters.packets for counters in client.engine.counters().values())
    client.events.clear()
    for kind in MediaKind:
        await client.event(MediaProgress, lambda event, kind=kind: event.kind is kind)
    after = sum(counters.packets for counters in client.engine.counters().values())
    assert after > before
    assert taken[0] >= after - before
    await asyncio.sleep(0)


@pytest.mark.anyio
@pytest.mark.replaces("datagrams")
async def test_routes_are_forgotten_with_the_receiver(media: Any) -> None:
    _, client = await media.call()
    (path,) = client.engine._peer._paths.values()
    while not path._routes:
        client.events.clear()
        await client.event(MediaProgress, lambda _: True)
    router = path._transport._rtp_router
    (known, receiver), *_ = path._routes.items()
    packet = RtpPacket(ssrc=known[0], payload_type=known[1])
    assert path._route(router, packet) is router.route_rtp(packet) is receiver
    router.unregister_receiver(receiver)
    assert path._route(router, packet) is router.route_rtp(packet) is None
    # A flood of SSRCs that nobody has is not remembered for good.
    for ssrc in range(1000):
        assert path._route(router, RtpPacket(ssrc=ssrc, payload_type=1)) is None
    assert len(path._routes) <= ROUTES
