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

__all__ = ["DatagramPath", "PlainPacket", "parse"]

_HEADER: Final = struct.Struct("!BBHLL")
_EXTENSION: Final = struct.Struct("!HH")

_NOTHING: Final = HeaderExtensions()


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

    csrc: Final[tuple[int, ...]] = ()
    padding_size: Final = 0

    def __init__(
        self,
        header: tuple[int, int, int, int, int],
        payload: bytes,
        profile: int,
        value: bytes,
        extensions_map: Any,
    ) -> None:
        second = header[1]
        self.sequence_number: int = header[2]
        self.timestamp: int = header[3]
        self.ssrc: int = header[4]
        self.marker: int = second >> 7
        self.payload_type: int = second & 0x7F
        self.payload: bytes = payload
        self._profile = profile
        self._value = value
        self._map = extensions_map

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


def parse(data: bytes, extensions_map: Any) -> PlainPacket | RtpPacket:
    """Read an RTP packet (RFC 3550 section 5.1); raises ValueError for what is none.

    Padded packets and those with contributing sources are read by aiortc.
    """
    if len(data) < 12 or data[0] & 0xEF != 0x80:
        return RtpPacket.parse(data, extensions_map)
    header = _HEADER.unpack_from(data)
    if not data[0] & 0x10:
        return PlainPacket(header, data[12:], 0, b"", extensions_map)
    if len(data) < 16:
        raise ValueError("the extension's header is cut off")
    profile, words = _EXTENSION.unpack_from(data, 12)
    end = 16 + 4 * words
    if len(data) < end:
        raise ValueError("the extensions are cut off")
    return PlainPacket(header, data[end:], profile, data[16:end], extensions_map)


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
        self._stock = agent.data_received
        agent.data_received = self._received  # type: ignore[method-assign]
        for protocol in agent._protocols:
            stock = protocol.datagram_received
            protocol.datagram_received = partial(self._datagram, protocol, stock)  # type: ignore[method-assign]

    def _datagram(
        self, protocol: Any, stock: Callable[[Any, Any], None], data: bytes, addr: Any
    ) -> None:
        # STUN begins with two zero bits, DTLS is below 64, RTP and RTCP are not (RFC 7983).
        if self._is_media(data):
            self._media(data)
        elif data and data[0] > 127:
            self._agent.data_received(data, protocol.local_candidate.component)
        else:
            stock(data, addr)

    def _received(self, data: bytes, component: int) -> None:
        if self._is_media(data):
            self._media(data)
        else:
            self._stock(data, component)

    def _is_media(self, data: bytes) -> bool:
        """Whether this is RTP that may be handled at once."""
        return (
            len(data) > 1
            and 127 < data[0] < 192
            and not 192 <= data[1] <= 208  # RTCP (RFC 5761 section 4)
            and self._transport._state is State.CONNECTED
            and self._agent._queue.empty()
        )

    def _media(self, data: bytes) -> None:
        transport = self._transport
        transport._RTCDtlsTransport__rx_bytes += len(data)
        transport._RTCDtlsTransport__rx_packets += 1
        try:
            packet = parse(transport._rx_srtp.unprotect(data), transport._rtp_header_extensions_map)
        except (pylibsrtp.Error, ValueError):
            return
        take = self._takers.get(transport._rtp_router.route_rtp(packet))
        if take is not None:
            take(packet, int(self._now() * 1000) + self._ahead_ms)
