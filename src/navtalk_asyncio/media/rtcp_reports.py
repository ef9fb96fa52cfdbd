"""Sender reports at aiortc: those received are read, those sent are made right.

aiortc throws received ones away but for statistics. Those that it sends say when the last packet
of a frame *left*: a picture that took 30 ms to encode is reported 30 ms late, and a receiver that
believes it plays the sound early. What is sent instead says when the track handed the frame over,
on one monotonic clock for all tracks of the process, carried on to the instant of the report.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.rtp import RtcpSrPacket

from navtalk_asyncio.media.aiortc_internals import SentTrack
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.sender_reports import SenderReports, ntp_timestamp

__all__ = ["read_reports", "send_right_reports"]

NTP_UNIX: Final = 2_208_988_800
"""Seconds from the epoch of NTP, 1900, to that of Unix, 1970 (RFC 868)."""

FRAMES: Final = 128
"""The least late of so many frames says where a track's timestamps lie: 5 s of pictures, 2.5 s of
sound. A loop is late now and then, and never early."""

_CLOCK_RATES: Final = {"audio": 48_000, "video": 90_000}
"""Of what aiortc's encoders stamp: Opus and pictures; G.711 and G.722 are never preferred here."""

_started: Final = time.time() + NTP_UNIX - time.monotonic()
"""What makes a monotonic time an NTP time. Read once: a clock that is set meanwhile moves no
stream, and all streams of the process have the same."""


def read_reports(receiver: RTCRtpReceiver, reports: SenderReports) -> None:
    """Give `reports` every sender report of a receiver, from now on."""
    if not works("reports"):
        return
    stock = receiver._handle_rtcp_packet

    async def handle(packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            reports.report(ntp=info.ntp_timestamp, rtp=info.rtp_timestamp)
        await stock(packet)

    receiver._handle_rtcp_packet = handle  # type: ignore[method-assign]


def send_right_reports(sender: RTCRtpSender, *, now: Callable[[], float] = time.monotonic) -> None:
    """Correct the sender reports of a sender that has not started; again: nothing."""
    if works("reports") and not isinstance(sender.__dict__.get("_send_rtcp"), _RightReports):
        _RightReports(sender, now).install()


class _RightReports:
    """Stands in for one sender's ``_send_rtcp()``."""

    def __init__(self, sender: RTCRtpSender, now: Callable[[], float]) -> None:
        self._sender: Any = sender
        self._now = now
        self._send = self._sender._send_rtcp
        self._next_frame = self._sender._next_encoded_frame
        self._newest: int | None = None
        """Timestamp, without the origin, of the frame that is being sent or was sent last."""
        self._origin: int | None = None
        self._lags: deque[float] = deque(maxlen=FRAMES)
        """When a frame was handed over, minus its timestamp in seconds."""

    def install(self) -> None:
        self._sender._send_rtcp = self
        self._sender._next_encoded_frame = self._next

    async def _next(self, codec: Any) -> Any:
        if self._newest is not None:
            # All packets of that frame have left: aiortc keeps the timestamp of the last.
            self._origin = (self._sender._RTCRtpSender__rtp_timestamp - self._newest) % 2**32
        frame = await self._next_frame(codec)
        track = self._sender.track
        self._newest = None
        if frame is not None:
            self._newest = frame.timestamp
            if isinstance(track, SentTrack) and track.handed_over is not None:
                rate = _CLOCK_RATES[self._sender.kind]
                self._lags.append(track.handed_over - frame.timestamp / rate)
        return frame

    async def __call__(self, packets: list[Any]) -> None:
        if self._origin is not None and self._lags:
            for packet in packets:
                if isinstance(packet, RtcpSrPacket):
                    self._correct(packet.sender_info, self._origin)
        await self._send(packets)

    def _correct(self, info: Any, origin: int) -> None:
        now = self._now()
        timestamp = (now - min(self._lags)) * _CLOCK_RATES[self._sender.kind]
        info.ntp_timestamp = ntp_timestamp(_started + now)
        info.rtp_timestamp = (origin + round(timestamp)) % 2**32
        # What a receiver report will answer to, for the round-trip time.
        self._sender._RTCRtpSender__lsr = (info.ntp_timestamp >> 16) & 0xFFFFFFFF
