"""The way of a datagram from its socket to its receiver, without a queue and a task in between.

aiortc looks at each datagram as if it were STUN, puts it into a queue, wakes a task, and that task
reads the whole RTP header with its extensions: most of what an undecoded session costs. Once a
connection is up, a media packet is here decrypted where it arrives, the part of its header that is
looked at is read, and its receiver is called. Everything else, and every packet that is not plain,
goes aiortc's way.

Uses private names of aiortc and aioice: :func:`navtalk_asyncio.media.private_names.works` tests
them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import aioice
import pylibsrtp
from aiortc import RTCDtlsTransport, RTCRtpReceiver, clock
from aiortc.rtcdtlstransport import State
from aiortc.rtp import HeaderExtensions, RtpPacket

from navtalk_asyncio.media.srtp_payload import Decrypt, decrypt_with

__all__ = ["DatagramPath", "PlainPacket", "parse"]

_HEADER: Final = struct.Struct("!BBHLL")
_EXTENSION: Final = struct.Struct("!HH")

_NOTHING: Final = HeaderExtensions()

ROUTES: Final = 64
"""SSRCs with payload types that are remembered; a session has four."""


class PlainPacket:
    """An RTP packet with the attributes of aiortc's, whose extensions are read when asked for."""

    __slots__ = (
        "_map",
        "_profile",
        "_value",
        "marker",
        "payload",
        "payload_type",
        "sequence_number",
        "ssrc",
        "timestamp",
    )

    sequence_number: int
    timestamp: int
    ssrc: int
    csrc: Final[tuple[int, ...]] = ()
    padding_size: Final = 0

    def __init__(self, data: bytes, extensions_map: Any, decrypt: Decrypt) -> None:
        """Of at least 12 bytes, without padding and contributing sources; raises ValueError."""
        _, second, self.sequence_number, self.timestamp, self.ssrc = _HEADER.unpack_from(data)
        self.marker: int = second >> 7
        self.payload_type: int = second & 0x7F
        self._map = extensions_map
        end = 12
        self._value = b""
        if data[0] & 0x10:
            if len(data) < 16:
                raise ValueError("the extension's header is cut off")
            self._profile, words = _EXTENSION.unpack_from(data, 12)
            end = 16 + 4 * words
            if len(data) < end:
                raise ValueError("the extensions are cut off")
            self._value = data[16:end]
        self.payload: bytes = decrypt(data, end)

    @property
    def extensions(self) -> HeaderExtensions:
        """Its header extensions; none where they cannot be read."""
        if not self._value:
            return _NOTHING
        try:
            extensions: HeaderExtensions = self._map.get(self._profile, self._value)
        except (ValueError, struct.error):
            return _NOTHING
        return extensions


def _not_encrypted(data: bytes, start: int) -> bytes:
    return data[start:]


def parse(
    data: bytes, extensions_map: Any, decrypt: Decrypt = _not_encrypted
) -> PlainPacket | RtpPacket:
    """Read an RTP packet (RFC 3550 section 5.1); raises ValueError for what is none.

    Its header and extensions are never encrypted (RFC 3711 section 3.1), but nothing is returned
    that was not found authentic by `decrypt`, which raises what it has to. Padded packets and those
    with contributing sources are read by aiortc.
    """
    if len(data) < 12 or data[0] & 0xEF != 0x80:
        return RtpPacket.parse(decrypt(data, 0), extensions_map)
    return PlainPacket(data, extensions_map, decrypt)


class DatagramPath:
    """Stands between the sockets of one ICE agent and the receivers of its DTLS transport.

    To be made when ICE has completed. `takers` has what takes the packets of a receiver, with the
    time in milliseconds at which they came; packets for others are not taken.
    """

    def __init__(
        self,
        agent: aioice.Connection,
        transport: RTCDtlsTransport,
        takers: Mapping[RTCRtpReceiver, Callable[[Any, int], None]],
        now: Callable[[], float],
    ) -> None:
        self._agent = agent
        self._transport: Any = transport
        self._takers: Mapping[Any, Callable[[Any, int], None]] = takers
        self._now = now
        # aiortc's clock reads the calendar. Both count alike, and may take turns.
        self._ahead_ms = clock.current_ms() - int(now() * 1000)
        self._decrypt: Decrypt | None = None
        self._routes: dict[tuple[int, int], Any] = {}
        """Receivers by SSRC and payload type."""
        self._queued = True
        """Whether aiortc may have datagrams that it has not looked at: they go first."""
        self._stock = agent.data_received
        agent.data_received = self._received  # type: ignore[method-assign]
        for protocol in agent._protocols:
            stock = protocol.datagram_received
            protocol.datagram_received = partial(self._datagram, protocol, stock)  # type: ignore[method-assign]

    def _datagram(
        self, protocol: Any, stock: Callable[[Any, Any], None], data: bytes, addr: Any
    ) -> None:
        # STUN begins with two zero bits, DTLS is below 64, RTP and RTCP are not (RFC 7983).
        if self._media(data):
            return
        if data and data[0] > 127:
            self._agent.data_received(data, protocol.local_candidate.component)
        else:
            stock(data, addr)

    def _received(self, data: bytes, component: int) -> None:
        if not self._media(data):
            self._queued = True
            self._stock(data, component)

    def _media(self, data: bytes) -> bool:
        """Handle RTP; False for what is none, or cannot be handled at once."""
        transport = self._transport
        if (
            len(data) < 2
            or not 127 < data[0] < 192
            or 192 <= data[1] <= 208  # RTCP (RFC 5761 section 4)
            or transport._state is not State.CONNECTED
        ):
            return False
        if self._queued:
            if not self._agent._queue.empty():
                return False
            self._queued = False
        transport._RTCDtlsTransport__rx_bytes += len(data)
        transport._RTCDtlsTransport__rx_packets += 1
        decrypt = self._decrypt
        if decrypt is None:
            decrypt = self._decrypt = decrypt_with(transport._rx_srtp)
        try:
            packet = parse(data, transport._rtp_header_extensions_map, decrypt)
        except (pylibsrtp.Error, ValueError):
            return True
        take = self._takers.get(self._route(transport._rtp_router, packet))
        if take is not None:
            take(packet, int(self._now() * 1000) + self._ahead_ms)
        return True

    def _route(self, router: Any, packet: PlainPacket | RtpPacket) -> Any:
        """The receiver of a packet: what the router would say again."""
        known = packet.ssrc, packet.payload_type
        receiver = self._routes.get(known)
        # The router forgets the SSRCs of a receiver that stops, and nothing else.
        if receiver is None or router.ssrc_table.get(packet.ssrc) is not receiver:
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            receiver = self._routes[known] = router.route_rtp(packet)
        return receiver
