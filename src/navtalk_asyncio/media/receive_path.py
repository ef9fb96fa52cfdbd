"""The way of one receiver's packets to whole encoded frames, in place of aiortc's own.

aiortc releases a picture when the next one begins, holds sound for four packets and for more after
each loss, and asks for lost packets once (docs/media-engine.md). Here the same packets go through
:mod:`~navtalk_asyncio.media.jitter_buffer` and :mod:`~navtalk_asyncio.media.nack_schedule`, which
have the policy; this has the timer, what is sent, and what aiortc would have done besides:
statistics for its receiver reports, bandwidth estimation, packets sent again (RFC 4588).

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from aiortc import RTCRtpReceiver
from aiortc.codecs import depayload
from aiortc.codecs.h264 import h264_depayload
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, pack_remb_fci, unwrap_rtx
from attrs import define, field, frozen

from navtalk_asyncio.media.jitter_buffer import (
    AudioJitterBuffer,
    BufferCounters,
    CompleteFrame,
    VideoJitterBuffer,
    unwrap,
)
from navtalk_asyncio.media.nack_schedule import NackSchedule
from navtalk_proto.media import MediaKind

__all__ = ["BLACKOUT_SECONDS", "ReceivePath", "ReceivedFrame"]

BLACKOUT_SECONDS: Final = 0.5
"""Silence of a track after which what was lost in it is not waited for. A sender keeps 128 packets
to send again, half a second of a 720p picture; aiortc's buffer would wait for 512 new ones."""

ESTIMATE_MS: Final = 5
"""Milliseconds whose packets the bandwidth estimator gets as one: it takes those sent within that
time as one anyway (TIMESTAMP_GROUP_LENGTH_MS in aiortc's rate.py), and is slow at it."""

ASIDE_SECONDS: Final = 0.1
"""How long the estimator is kept waiting. The decoder's thread, which a picture wakes, needs the
interpreter for a moment; the estimator would keep it for half a millisecond the first time, in
which it makes a thousand objects. And a wake-up of the loop costs more than the estimator: one for
a few pictures will do, where it tells the sender something twice a second."""


@frozen(slots=True)
class _Format:
    """What a payload type stands for, looked up once."""

    codec: Any
    again: Any
    """Of packets that are sent again (RFC 4588): the codec of what is in them."""
    read: Callable[[bytes], tuple[bytes, bool | None]]
    """A payload without its descriptor, and whether it is the first of a picture: None where it
    does not tell. Raises ValueError."""


@define(slots=True)
class ReceivedFrame:
    """A whole encoded frame, as aiortc's decoders take it."""

    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    timestamp: int
    """Since the track's first frame; does not wrap."""
    rtp: int
    """The 32-bit timestamp of its packets."""
    arrival: float
    """The loop's time at which the first of its packets came."""
    after_loss: bool


class ReceivePath:
    """Takes the packets of one receiver, gives its frames.

    `on_frame` gets a codec of aiortc and a frame. `on_loss` is called when something was given up,
    before the frames behind it. Neither may raise.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        kind: MediaKind,
        loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[Any, ReceivedFrame], None],
        on_loss: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._receiver: Any = receiver
        self._loop = loop
        self._on_frame = on_frame
        self._on_loss = on_loss
        self._spawn = spawn
        self._nack = NackSchedule() if kind is MediaKind.VIDEO else None
        self._buffer: AudioJitterBuffer | VideoJitterBuffer = (
            AudioJitterBuffer() if kind is MediaKind.AUDIO else VideoJitterBuffer()
        )
        self._formats: dict[int, _Format] = {}
        self._codec: Any = None
        self.ssrc: int | None = None
        """The stream's, from its first packet on."""
        self._sequence_number = 0
        self._last_packet = float("inf")
        self._origin: int | None = None
        self._newest = 0
        """The unwrapped timestamp of the newest frame, without the origin."""
        self._newest_arrival = 0.0
        self._given_up = 0
        self._unestimated = 0
        """Bytes received since the estimator got some."""
        self._unestimated_since = 0
        self._estimates: list[tuple[int, int, int, int]] = []
        """What the estimator has not got yet: sending time, arrival, bytes, SSRC."""
        self._aside: asyncio.TimerHandle | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        """When the timer fires. uvloop's has no when() for what is due already."""
        self._closed = False

    @property
    def counters(self) -> BufferCounters:
        """What became of the packets."""
        return self._buffer.counters

    @property
    def held(self) -> int:
        """Packets that wait in the buffer."""
        return len(self._buffer)

    def close(self) -> None:
        """Nothing is released, asked for or timed any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._aside is not None:
            self._aside.cancel()
            self._aside = None

    def receive(self, packet: Any, arrival_time_ms: int) -> None:
        """A packet of aiortc's parser, on the loop."""
        receiver = self._receiver
        if self._closed or not receiver._enabled:
            return
        if self._nack is not None:
            if not self._unestimated:
                self._unestimated_since = arrival_time_ms
            self._unestimated += len(packet.payload) + packet.padding_size
            if packet.marker or arrival_time_ms - self._unestimated_since >= ESTIMATE_MS:
                self._estimate(packet, arrival_time_ms)
        found = self._formats.get(packet.payload_type) or self._format(packet.payload_type)
        if found is None:
            return
        streams = receiver._RTCRtpReceiver__remote_streams
        stream = streams.get(packet.ssrc)
        if stream is None:
            stream = streams[packet.ssrc] = StreamStatistics(found.codec.clockRate)
        stream.add(packet)
        now = self._loop.time()
        if found.again is not None:
            ssrc = receiver._RTCRtpReceiver__rtx_ssrc.get(packet.ssrc)
            inner = self._format(found.again.payloadType)
            if ssrc is None or inner is None or len(packet.payload) < 2 or ssrc != self.ssrc:
                return
            payload_type = inner.codec.payloadType
            packet = unwrap_rtx(packet, payload_type=payload_type, ssrc=ssrc)
            self._put(inner, packet, now)
        else:
            number = packet.sequence_number
            if packet.ssrc != self.ssrc or (
                now - self._last_packet >= BLACKOUT_SECONDS
                and number != (self._sequence_number + 1) & 0xFFFF
            ):
                self._begin_anew(packet, found.codec, now)
            self._sequence_number = number
            self._last_packet = now
            self._put(found, packet, now)

    # ---- inside

    def _format(self, payload_type: int) -> _Format | None:
        """None for a payload type that was not negotiated, or sends again what was not."""
        codecs = self._receiver._RTCRtpReceiver__codecs
        codec = codecs.get(payload_type)
        if codec is None:
            return None
        name, again = codec.name, None
        if name.lower() == "rtx":
            again = codecs.get(codec.parameters.get("apt"))
            if again is None:
                return None
        found = _Format(
            codec,
            again,
            _READERS.get(name) or partial(_stock_read, codec),
        )
        self._formats[payload_type] = found
        return found

    def _begin_anew(self, packet: Any, codec: Any, now: float) -> None:
        """The stream is another one, or packets were lost in a blackout."""
        if self.ssrc is not None:
            self._buffer.restart()
        if self._nack is not None:
            self._nack.restart()
        if packet.ssrc != self.ssrc and self._origin is not None:
            # Another stream counts from anywhere: the track's time goes on as the clock does.
            elapsed = round((now - self._newest_arrival) * codec.clockRate)
            self._origin += packet.timestamp - self._newest - elapsed
            self._newest = packet.timestamp
        self.ssrc = packet.ssrc

    def _put(self, found: _Format, packet: Any, now: float) -> None:
        number, payload = packet.sequence_number, packet.payload
        try:
            data, begins = found.read(payload) if payload else (b"", None)
        except ValueError:
            return
        self._codec = codec = found.codec
        buffer, nack = self._buffer, self._nack
        if isinstance(buffer, AudioJitterBuffer):
            if not data:
                return
            frames = buffer.add(
                sequence_number=number,
                timestamp=packet.timestamp,
                clock_rate=codec.clockRate,
                data=data,
                now=now,
            )
        else:
            if nack is not None and nack.received(number, now):
                self._ask(now)
            frames = buffer.add(
                sequence_number=number,
                timestamp=packet.timestamp,
                marker=bool(packet.marker),
                data=data,
                begins=begins,
                now=now,
            )
        if frames or buffer.counters.given_up != self._given_up:
            self._release(frames)
        asking = nack is not None and nack.missing
        if asking or self._timer is not None or buffer.deadline is not None:
            self._arm()

    def _release(self, frames: list[CompleteFrame]) -> None:
        given_up = self.counters.given_up
        if given_up != self._given_up:
            self._given_up = given_up
            if self._nack is not None and (awaited := self._buffer.awaited) is not None:
                self._nack.forget_before(awaited)
            self._on_loss()
        for frame in frames:
            if self._origin is None:
                self._origin = self._newest = frame.timestamp
            self._newest = unwrap(frame.timestamp, self._newest, 32)
            self._newest_arrival = frame.arrival
            self._on_frame(
                self._codec,
                ReceivedFrame(
                    frame.data,
                    self._newest - self._origin,
                    frame.timestamp,
                    frame.arrival,
                    frame.after_loss,
                ),
            )

    def _arm(self) -> None:
        """Set the timer to what is to be given up or asked for next."""
        due = self._buffer.deadline
        if self._nack is not None and (ask := self._nack.next_due) is not None:
            due = ask if due is None else min(due, ask)
        if self._timer is not None:
            if due is not None and self._timer_due <= due:
                return  # It will see that it is early.
            self._timer.cancel()
            self._timer = None
        if due is not None and not self._closed:
            self._timer_due = due
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # A timer may fire a clock tick early: what it was set for is due.
        now = self._loop.time() + 0.001
        self._release(self._buffer.expire(now))
        if self._nack is not None:
            self._ask(now)
        self._arm()

    def _ask(self, now: float) -> None:
        assert self._nack is not None
        if numbers := self._nack.due(now):
            self._spawn(self._receiver._send_rtcp_nack(self.ssrc, numbers))

    def _estimate(self, packet: Any, arrival_time_ms: int) -> None:
        """Note for the estimator what came since the last time."""
        size, self._unestimated = self._unestimated, 0
        send_time = packet.extensions.abs_send_time
        if send_time is None or self._receiver._RTCRtpReceiver__remote_bitrate_estimator is None:
            return
        self._estimates.append((send_time, arrival_time_ms, size, packet.ssrc))
        if self._aside is None:
            self._aside = self._loop.call_later(ASIDE_SECONDS, self._tell_estimator)

    def _tell_estimator(self) -> None:
        self._aside = None
        receiver = self._receiver
        estimates, self._estimates = self._estimates, []
        for send_time, arrival_time_ms, size, ssrc in estimates:
            estimate = receiver._RTCRtpReceiver__remote_bitrate_estimator.add(
                abs_send_time=send_time,
                arrival_time_ms=arrival_time_ms,
                payload_size=size,
                ssrc=ssrc,
            )
            own_ssrc = receiver._RTCRtpReceiver__rtcp_ssrc
            if estimate is not None and own_ssrc is not None:
                feedback = RtcpPsfbPacket(
                    fmt=RTCP_PSFB_APP, ssrc=own_ssrc, media_ssrc=0, fci=pack_remb_fci(*estimate)
                )
                self._spawn(receiver._send_rtcp(feedback))


def _read_vp8(payload: bytes) -> tuple[bytes, bool]:
    """RFC 7741 section 4.2."""
    at = 1
    try:
        if payload[0] & 0x80:
            extended, at = payload[1], 2
            if extended & 0x80:  # I: a picture ID, of one byte or two
                at += 2 if payload[at] & 0x80 else 1
            if extended & 0x40:  # L
                at += 1
            if extended & 0x30:  # T, K
                at += 1
    except IndexError:
        raise ValueError("the VP8 payload descriptor is cut off") from None
    if len(payload) < at:
        raise ValueError("the VP8 payload descriptor is cut off")
    # It begins a picture with S of partition 0.
    return payload[at:], payload[0] & 0x17 == 0x10


def _read_h264(payload: bytes) -> tuple[bytes, bool | None]:
    """NAL units with start codes (RFC 6184 section 5)."""
    kind = payload[0] & 0x1F
    if kind == 28 and len(payload) > 1 and not payload[1] & 0x80:
        return payload[2:], False  # FU-A other than the first fragment
    data = h264_depayload(payload)
    if kind == 24 and len(payload) > 3:
        kind = payload[3] & 0x1F
    # Parameter sets, a delimiter.
    return data, True if kind in (7, 9) else None


def _read_opus(payload: bytes) -> tuple[bytes, None]:
    return payload, None


def _stock_read(codec: Any, payload: bytes) -> tuple[bytes, None]:
    return depayload(codec, payload), None


_READERS: Final[dict[str, Callable[[bytes], tuple[bytes, bool | None]]]] = {
    "VP8": _read_vp8,
    "H264": _read_h264,
    "opus": _read_opus,
}
"""As _Format.read; aiortc reads the other codecs."""
