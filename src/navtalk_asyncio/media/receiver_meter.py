"""What one receiver and one sender of aiortc measure: numbers for ``session.stats()``.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them. What
is replaced is replaced on one receiver; without the private names the figures are those that the
engine counts by itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from aiortc import RTCRtpReceiver, RTCRtpSender

from navtalk_asyncio.media.jitter_buffer import BufferCounters
from navtalk_asyncio.media.private_names import works
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import RATE_SECONDS, ReceivedTrackStats, SentTrackStats
from navtalk_proto.stream_meter import FreezeMeter, Mean, RateMeter, ReceptionMeter

if TYPE_CHECKING:
    from navtalk_asyncio.media.interface import TrackCounters
    from navtalk_asyncio.media.receiver_tap import ReceiverTap

__all__ = ["ReceiverMeter", "sent_stats"]

_ARRIVALS: Final = 256
"""Frames whose arrival is remembered until they are decoded."""


class ReceiverMeter:
    """Watches one receiver's packets, complete frames and decoder.

    With a `tap`, :meth:`packet` is to be called by who has it.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        tap: ReceiverTap | None,
        *,
        kind: MediaKind,
        now: Callable[[], float],
    ) -> None:
        self._receiver = cast("Any", receiver)
        self._tap = tap
        self._kind = kind
        self._now = now
        self._codec: str | None = None
        self._ssrc: int | None = None
        self._reception = ReceptionMeter(RATE_SECONDS)
        self._bits = RateMeter(RATE_SECONDS)
        self._frames = RateMeter(RATE_SECONDS)
        self._freezes = FreezeMeter()
        self._decoding = Mean()
        self._frame_count = 0
        self._keyframes = 0
        self._arrivals: dict[int, float] = {}
        self._payload_type: int | None = None
        self._clock_rate: int | None = None
        """Of that payload type; None where its packets are not measured."""
        self._measures = works("metering")
        if self._measures and tap is None:
            self._stock = receiver._handle_rtp_packet
            receiver._handle_rtp_packet = self._packet  # type: ignore[method-assign,assignment]
            queue = self._receiver._RTCRtpReceiver__decoder_queue
            queue.get = _TimedGet(queue.get, self._decoding.add)

    def _packet(self, packet: Any, arrival_time_ms: int) -> Awaitable[None]:
        self.packet(packet, self._now())
        return self._stock(packet, arrival_time_ms=arrival_time_ms)

    def packet(self, packet: Any, now: float) -> None:
        """A packet of aiortc's parser, or one like it; called by who has the tap."""
        if not self._measures:
            return
        if packet.payload_type != self._payload_type:
            self._look_up(packet.payload_type)
        if self._clock_rate is not None:
            if packet.ssrc != self._ssrc:
                self._ssrc = packet.ssrc
                self._reception = ReceptionMeter(RATE_SECONDS)
            self._reception.packet(
                packet.sequence_number, packet.timestamp, self._clock_rate, now=now
            )
        self._bits.add(len(packet.payload) * 8, now=now)

    def _look_up(self, payload_type: int) -> None:
        self._payload_type, self._clock_rate = payload_type, None
        codec = self._receiver._RTCRtpReceiver__codecs.get(payload_type)
        # What is sent again with RTX is a stream of its own: the network lost it once.
        if codec is not None and codec.name.lower() != "rtx":
            self._codec, self._clock_rate = codec.name, codec.clockRate

    def frame(self, timestamp: int, arrival: float, *, keyframe: bool) -> None:
        """A frame is complete, whose first packet came at `arrival`."""
        now = self._now()
        self._frame_count += 1
        self._frames.add(1, now=now)
        if self._kind is MediaKind.VIDEO:
            self._keyframes += keyframe
            self._freezes.frame(now=now)
            if len(self._arrivals) >= _ARRIVALS:
                del self._arrivals[next(iter(self._arrivals))]
            self._arrivals[timestamp] = arrival

    def arrival(self, timestamp: int | None) -> float:
        """When the first packet of a picture came, by the picture's pts; now, if not known."""
        if timestamp is None:
            return self._now()
        return self._arrivals.get(timestamp, self._now())

    def stats(self, track_id: str, counters: TrackCounters) -> ReceivedTrackStats:
        """What was measured, with what the engine counted."""
        now = self._now()
        freezes, freeze_seconds = self._freezes.measured(now=now)
        queued, decoding, buffer = 0, self._decoding.value, BufferCounters()
        if self._tap is not None:
            queued, decoding = self._tap.decoder_queue_frames, self._tap.decode_seconds
            buffer = self._tap.buffer_counters
        elif works("metering"):
            queued = self._receiver._RTCRtpReceiver__decoder_queue.qsize()
        return ReceivedTrackStats(
            track_id=track_id,
            kind=self._kind,
            codec=self._codec,
            packets=counters.packets,
            bytes=counters.bytes,
            bitrate=self._bits.per_second(now=now),
            packets_lost=self._reception.lost,
            loss=self._reception.loss(now=now),
            jitter=self._reception.jitter,
            frames_received=self._frame_count,
            frames_per_second=self._frames.per_second(now=now),
            keyframes=self._keyframes,
            frames_decoded=counters.frames_decoded,
            frames_dropped=counters.frames_dropped,
            decode_seconds=decoding,
            freezes=freezes,
            freeze_seconds=freeze_seconds,
            jitter_buffer_packets=0 if self._tap is None else self._tap.held,
            packets_late=buffer.late,
            packets_duplicated=buffer.duplicates,
            packets_discarded=buffer.discarded,
            holes_given_up=buffer.given_up,
            decoder_queue_frames=queued,
            last_packet=counters.last_packet,
        )


class _TimedGet:
    """Stands in for the ``get`` of aiortc's decoder queue: from one task to the next is a decoding.

    Called on the decoder's thread, one call at a time. What the thread waits inside is not counted.
    """

    def __init__(self, get: Callable[[], Any], measured: Callable[[float], None]) -> None:
        self._get = get
        self._measured = measured
        self._taken: float | None = None

    def __call__(self) -> Any:
        if self._taken is not None:
            self._measured(time.thread_time() - self._taken)
        task = self._get()
        self._taken = time.thread_time()
        return task


def sent_stats(sender: RTCRtpSender) -> SentTrackStats | None:
    """What a sender counted; None for one that sends nothing."""
    if not works("metering") or cast("Any", sender.track) is None:
        return None
    private: Any = sender
    if not private._RTCRtpSender__packet_count:
        return None
    kind = MediaKind(sender.kind)
    report = private._RTCRtpSender__stats.get(f"remote-inbound-rtp_{id(sender)}")
    codecs = 48_000 if kind is MediaKind.AUDIO else 90_000
    return SentTrackStats(
        kind=kind,
        packets=private._RTCRtpSender__packet_count,
        bytes=private._RTCRtpSender__octet_count,
        packets_lost=None if report is None else report.packetsLost,
        loss=None if report is None else report.fractionLost / 256,
        jitter=None if report is None else report.jitter / codecs,
        round_trip_time=private._RTCRtpSender__rtt,
    )
