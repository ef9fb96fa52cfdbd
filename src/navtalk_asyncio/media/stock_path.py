"""aiortc's own way from packets to frames, watched: what is left when ours cannot be used.

Adds what it lacks most: it starts anew after a blackout instead of waiting for what will not come.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiortc import RTCRtpReceiver

from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.receive_path import BLACKOUT_SECONDS, ReceivedFrame
from navtalk_proto.media import MediaKind

__all__ = ["StockPath"]

ARRIVALS: Final = 256
"""Frames whose arrival time is remembered until they leave the jitter buffer."""


class StockPath:
    """Watches one receiver's packets on their way through aiortc.

    `on_loss` is called when what follows refers to frames that never came.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        kind: MediaKind,
        now: Callable[[], float],
        on_loss: Callable[[], None],
    ) -> None:
        self._receiver: Any = receiver
        self._kind = kind
        self._now = now
        self._on_loss = on_loss
        self._stock: Callable[..., Awaitable[None]] = receiver._handle_rtp_packet
        self.ssrc: int | None = None
        """The stream's, from its first packet on."""
        self._sequence_number = 0
        self._last_packet = float("inf")
        self._partial: int | None = None
        """After a blackout, the RTP time of the frame whose beginning may be lost."""
        self._arrivals: dict[int, float] = {}

    @property
    def held(self) -> int:
        """Packets that wait in aiortc's buffer."""
        if not works("resuming"):
            return 0
        packets = self._receiver._RTCRtpReceiver__jitter_buffer._packets
        return sum(packet is not None for packet in packets)

    async def receive(self, packet: Any, arrival_time_ms: int) -> None:
        """A packet of aiortc's parser, on its way."""
        codec = self._receiver._RTCRtpReceiver__codecs.get(packet.payload_type)
        if codec is not None and codec.name.lower() != "rtx":
            self._follow(packet)
            if packet.timestamp not in self._arrivals:
                if len(self._arrivals) >= ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
                self._arrivals[packet.timestamp] = self._now()
        await self._stock(packet, arrival_time_ms=arrival_time_ms)

    def frame(self, frame: Any) -> ReceivedFrame:
        """What is known of a frame of aiortc's jitter buffer."""
        origin = self._receiver._RTCRtpReceiver__timestamp_mapper._origin or 0
        rtp = (frame.timestamp + origin) & 0xFFFFFFFF
        return ReceivedFrame(
            frame.data, frame.timestamp, rtp, self._arrivals.pop(rtp, self._now()), False
        )

    def _follow(self, packet: Any) -> None:
        """Start anew where packets were lost in a blackout: a stream's next packet is known."""
        goes_on = packet.ssrc == self.ssrc and packet.sequence_number == (
            (self._sequence_number + 1) & 0xFFFF
        )
        blackout = self._now() - self._last_packet >= BLACKOUT_SECONDS
        self.ssrc = packet.ssrc
        self._sequence_number = packet.sequence_number
        self._last_packet = self._now()
        if blackout and not goes_on:
            self._on_loss()
            self._forget_missing()
            # Only the frame after this one is sure to be whole; a packet of audio is.
            self._partial = packet.timestamp if self._kind is MediaKind.VIDEO else None
            if self._partial is None:
                self._empty_jitter_buffer()
        elif self._partial is not None and packet.timestamp != self._partial:
            self._partial = None
            self._empty_jitter_buffer()

    def _forget_missing(self) -> None:
        nack: Any = self._receiver._RTCRtpReceiver__nack_generator
        if works("resuming") and nack is not None:
            nack.max_seq = None
            nack.missing.clear()

    def _empty_jitter_buffer(self) -> None:
        if not works("resuming"):
            return
        buffer: Any = self._receiver._RTCRtpReceiver__jitter_buffer
        if buffer._origin is not None:
            buffer.remove(buffer.capacity)
            buffer._origin = None
