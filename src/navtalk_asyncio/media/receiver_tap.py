"""One receiver's packets and encoded frames, seen without a thread hop and without decoding.

Uses private names of aiortc: :func:`navtalk_asyncio.media.aiortc_internals.works` tests them.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from aiortc import RTCPeerConnection, RTCRtpReceiver

from navtalk_asyncio.media.aiortc_internals import works
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.sender_reports import SenderReports
from navtalk_proto.media import MediaKind

__all__ = ["ReceiverTap", "discard_queued_frames"]

DECODER_BACKLOG: Final = {MediaKind.VIDEO: 30, MediaKind.AUDIO: 50}
"""Encoded frames waiting for the decoder thread, one second of each kind. aiortc has no limit here:
a slow decoder costs seconds of delay and stalls the loop at close."""

KEYFRAME_CACHE_FRAMES: Final = 30
KEYFRAME_CACHE_BYTES: Final = 2 * 1024 * 1024
"""What is kept of the running group of pictures while nobody reads, so that a first reader need
not wait for a keyframe: senders of prepared clips ignore keyframe requests."""

KEYFRAME_INTERVAL: Final = 0.5
"""Seconds between two keyframe requests of ours."""

BLACKOUT_SECONDS: Final = 0.5
"""Silence of a track after which what was lost in it is not waited for. A sender keeps 128 packets
to send again, half a second of a 720p picture; aiortc's buffer would wait for 512 new ones."""

ARRIVALS: Final = 256
"""Frames whose arrival time is remembered until they leave the jitter buffer."""


class _DecoderGate:
    """Stands where a receiver's decoder queue stood: sees every encoded frame, lets through to the
    decoder thread what somebody wants decoded, and never holds more than a second."""

    def __init__(self, kind: MediaKind, deliver: Callable[[Any, Any], bool]) -> None:
        self._kind = kind
        self._deliver = deliver
        self._queue: queue.Queue[Any] = queue.Queue()
        self._synced = kind is MediaKind.AUDIO
        self._cache: deque[Any] = deque()
        self._cached_bytes = 0
        self.wanted: Callable[[], bool] = lambda: False
        self.on_drop: Callable[[], None] = lambda: None
        self.need_keyframe: Callable[[], None] = lambda: None

    def get(self) -> Any:
        """Called by aiortc's decoder thread."""
        return self._queue.get()

    def put(self, item: Any) -> None:
        """Called by the receiver on the loop with (codec, frame), and with None at the end."""
        if item is None:
            self.discard()
            self._queue.put(None)
            return
        keyframe = self._deliver(*item)
        if not self.wanted():
            self._synced = self._kind is MediaKind.AUDIO
            self._remember(item, keyframe)
        elif self._kind is MediaKind.AUDIO:
            if self._queue.qsize() >= DECODER_BACKLOG[self._kind]:
                self._drop_oldest()
            self._queue.put(item)
        else:
            self._decode_video(item, keyframe)

    def lost(self) -> None:
        """What follows refers to frames that never came: wait for a keyframe."""
        if self._kind is MediaKind.VIDEO:
            self._synced = False
            self._cache.clear()
            self._cached_bytes = 0

    def discard(self) -> None:
        """Forget what the decoder has not taken, so that joining its thread takes one frame."""
        self._cache.clear()
        self._cached_bytes = 0
        while not self._queue.empty():
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return  # the decoder thread was quicker
        self.on_drop()

    def _decode_video(self, item: Any, keyframe: bool) -> None:
        if self._queue.qsize() >= DECODER_BACKLOG[self._kind]:
            # The decoder is too slow. What follows refers to what is dropped here.
            self._synced = False
            self.on_drop()
            self.need_keyframe()
        elif self._synced or keyframe:
            self._synced = True
            self._queue.put(item)
        elif self._cache:
            for earlier in self._cache:
                self._queue.put(earlier)
            self._queue.put(item)
            self._synced = True
        else:
            self.on_drop()
            self.need_keyframe()
        self._cache.clear()
        self._cached_bytes = 0

    def _remember(self, item: Any, keyframe: bool) -> None:
        if self._kind is MediaKind.AUDIO:
            return
        size = len(item[1].data)
        if keyframe:
            self._cache.clear()
            self._cached_bytes = 0
        elif not self._cache:
            return
        self._cache.append(item)
        self._cached_bytes += size
        if len(self._cache) > KEYFRAME_CACHE_FRAMES or self._cached_bytes > KEYFRAME_CACHE_BYTES:
            self._cache.clear()
            self._cached_bytes = 0


class ReceiverTap:
    """One receiver's packets and encoded frames, seen without a thread hop and without decoding.

    To be made before the receiver starts, that is in the ``track`` event. `on_packet` gets the
    payload size of every RTP packet, `on_frame` every complete encoded frame; neither may raise.
    `wanted` says whether frames shall be decoded.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        kind: MediaKind,
        track_id: str,
        reports: SenderReports,
        now: Callable[[], float],
        on_packet: Callable[[int], None],
        on_frame: Callable[[EncodedFrame], None],
        on_drop: Callable[[], None],
        wanted: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._receiver = cast("Any", receiver)
        self._kind = kind
        self._track_id = track_id
        self._reports = reports
        self._now = now
        self._on_packet = on_packet
        self._on_frame = on_frame
        self._spawn = spawn
        self._ssrc: int | None = None
        self._sequence_number = 0
        self._last_packet = float("inf")
        self._partial: int | None = None
        """After a blackout, the RTP time of the frame whose beginning may be lost."""
        self._keyframe_asked = float("-inf")
        self._arrivals: dict[int, float] = {}
        self._stock = receiver._handle_rtp_packet
        self._gate = _DecoderGate(kind, self._deliver)
        self._gate.wanted = wanted
        self._gate.on_drop = on_drop
        self._gate.need_keyframe = self._ask_again
        receiver._handle_rtp_packet = self._handle  # type: ignore[method-assign]
        self._receiver._RTCRtpReceiver__decoder_queue = self._gate

    def request_keyframe(self) -> bool:
        """Send a PLI; False before the first packet, and for audio."""
        if self._kind is not MediaKind.VIDEO or self._ssrc is None:
            return False
        self._keyframe_asked = self._now()
        self._spawn(self._receiver._send_rtcp_pli(self._ssrc))
        return True

    def _ask_again(self) -> None:
        if self._now() - self._keyframe_asked >= KEYFRAME_INTERVAL:
            self.request_keyframe()

    async def _handle(self, packet: Any, arrival_time_ms: int) -> None:
        codec = self._receiver._RTCRtpReceiver__codecs.get(packet.payload_type)
        if codec is not None and codec.name.lower() != "rtx":
            self._follow(packet)
            if packet.timestamp not in self._arrivals:
                if len(self._arrivals) >= ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
                self._arrivals[packet.timestamp] = self._now()
        self._on_packet(len(packet.payload))
        await self._stock(packet, arrival_time_ms=arrival_time_ms)

    def _follow(self, packet: Any) -> None:
        """Start anew where packets were lost in a blackout: a stream's next packet is known."""
        goes_on = packet.ssrc == self._ssrc and packet.sequence_number == (
            (self._sequence_number + 1) & 0xFFFF
        )
        blackout = self._now() - self._last_packet >= BLACKOUT_SECONDS
        self._ssrc = packet.ssrc
        self._sequence_number = packet.sequence_number
        self._last_packet = self._now()
        if blackout and not goes_on:
            self._gate.lost()
            self._forget_missing()
            self.request_keyframe()
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

    def _deliver(self, codec: Any, frame: Any) -> bool:
        origin = self._receiver._RTCRtpReceiver__timestamp_mapper._origin or 0
        raw = (frame.timestamp + origin) & 0xFFFFFFFF
        keyframe = _is_keyframe(codec.name, frame.data)
        arrival = self._arrivals.pop(raw, self._now())
        self._on_frame(
            EncodedFrame(
                kind=self._kind,
                track_id=self._track_id,
                codec=codec.name,
                data=frame.data,
                timestamp=frame.timestamp,
                clock_rate=codec.clockRate,
                keyframe=keyframe,
                arrival=arrival,
                sender_time=self._reports.frame(
                    rtp=raw,
                    timestamp=frame.timestamp,
                    clock_rate=codec.clockRate,
                    arrival=arrival,
                ),
            )
        )
        return keyframe


def discard_queued_frames(peer: RTCPeerConnection) -> None:
    """Empty the decoder queues: closing joins the decoder threads on the loop."""
    if not works("receiving"):
        return
    for transceiver in peer.getTransceivers():
        receiver: Any = transceiver.receiver
        gate: object = receiver._RTCRtpReceiver__decoder_queue
        if isinstance(gate, _DecoderGate):
            gate.discard()


def _is_keyframe(codec: str, data: bytes) -> bool:
    if codec == "VP8":
        # The P bit of the frame tag (RFC 6386 section 9.1).
        return bool(data) and not data[0] & 1
    if codec == "H264":
        # An IDR slice (ITU-T H.264 section 7.4.1.2.4).
        start = data.find(b"\x00\x00\x01")
        while start != -1 and start + 3 < len(data):
            if data[start + 3] & 0x1F == 5:
                return True
            start = data.find(b"\x00\x00\x01", start + 3)
        return False
    return True
