"""One receiver's packets and encoded frames, seen without a thread hop and without decoding.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, cast

from aiortc import RTCPeerConnection, RTCRtpReceiver

from navtalk_asyncio.media.decoder_gate import DecoderGate
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.jitter_buffer import BufferCounters
from navtalk_asyncio.media.parameter_sets import has_parameter_sets, is_idr
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.receive_path import ReceivedFrame, ReceivePath
from navtalk_asyncio.media.sender_reports import SenderReports
from navtalk_asyncio.media.stock_path import StockPath
from navtalk_proto.media import MediaKind

__all__ = ["ReceiverTap", "discard_queued_frames", "join_decoders"]

KEYFRAME_INTERVAL: Final = 0.3
"""Seconds between two keyframe requests of ours while pictures cannot be decoded: longer than the
round trip to the far side of the world, so that none is asked for while one is on its way."""

LOSS_INTERVAL: Final = 0.1
"""Seconds between two requests where something was lost: the last one may be answered already."""


class _Unjoined:
    """Stands where aiortc keeps a receiver's decoder thread, which it joins on the loop."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread

    def join(self) -> None:
        """Return at once. The thread has been told to end; :func:`join_decoders` waits for it."""


class ReceiverTap:
    """One receiver's packets and encoded frames, seen without a thread hop and without decoding.

    To be made before the receiver starts, that is in the ``track`` event. `on_packet` gets
    every RTP packet, `on_frame` of every complete encoded frame its codec, timestamp, arrival,
    whether it is a keyframe, and what makes an EncodedFrame of it; neither may raise.
    `wanted` says whether frames shall be decoded, and `full` whether that has to wait for a reader.
    `on_decoded` gets what was: pictures on aiortc's decoder thread, sound on the loop.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        kind: MediaKind,
        track_id: str,
        reports: SenderReports,
        loop: asyncio.AbstractEventLoop,
        on_packet: Callable[[Any], None],
        on_frame: Callable[[str, int, float, bool, Callable[[], EncodedFrame]], None],
        on_drop: Callable[[], None],
        on_decoded: Callable[[Any], None],
        wanted: Callable[[], bool],
        full: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        parameter_sets: Callable[[int], bytes | None] = lambda _payload_type: None,
    ) -> None:
        """`parameter_sets` are H.264's that the far end described, by payload type."""
        self._parameter_sets = parameter_sets
        self._receiver = cast("Any", receiver)
        self._kind = kind
        self._track_id = track_id
        self._reports = reports
        self._loop = loop
        self._now = loop.time
        self._on_packet = on_packet
        self._on_frame = on_frame
        self._spawn = spawn
        self._keyframe_asked = float("-inf")
        self._unjoined = False
        self.decoder_thread: threading.Thread | None = None
        """aiortc's, from the answer or the first packet on."""
        self._path: ReceivePath | StockPath
        if works("jitter"):
            self._path = ReceivePath(
                receiver,
                kind=kind,
                loop=loop,
                on_frame=self._put,
                on_loss=self._ask_after_loss,
                spawn=spawn,
            )
        else:
            self._path = StockPath(receiver, kind=kind, now=loop.time, on_loss=self._lost)
        self._gate = DecoderGate(kind, self._deliver, loop.time)
        self._gate.wanted = wanted
        self._gate.full = full
        self._gate.on_drop = on_drop
        self._gate.on_decoded = on_decoded
        self._gate.need_keyframe = self._ask_again
        self._gate.on_unreadable = self._ask_from_thread
        receiver._handle_rtp_packet = self._handle  # type: ignore[method-assign]
        self._receiver._RTCRtpReceiver__decoder_queue = self._gate

    def request_keyframe(self) -> bool:
        """Send a PLI; False before the first packet, and for audio."""
        if self._kind is not MediaKind.VIDEO or self._path.ssrc is None:
            return False
        self._keyframe_asked = self._now()
        self._spawn(self._receiver._send_rtcp_pli(self._path.ssrc))
        return True

    def begin_decoding(self) -> None:
        """Somebody wants decoded frames from now on."""
        self._gate.begin()

    def open_decoder(self) -> None:
        """Open a decoder for the codec that was agreed on first: opening that of Opus keeps the
        interpreter for 0.3 ms, and the first picture would wait for it."""
        codecs: dict[int, Any] = self._receiver._RTCRtpReceiver__codecs
        if codec := next(iter(codecs.values()), None):
            self._gate.open(codec)

    def resume_decoding(self) -> None:
        """A reader that had no room has some again."""
        self._gate.resume()

    @property
    def holds(self) -> bool:
        """Whether decoding waits for a reader."""
        return self._gate.holds

    @property
    def decodes_late(self) -> bool:
        """Whether the sound that is being decoded has waited for a reader."""
        return self._gate.decodes_late

    @property
    def decoder_queue_frames(self) -> int:
        """Encoded frames that wait for the decoder."""
        return self._gate.queued

    @property
    def decode_seconds(self) -> float | None:
        """Processor time that decoding a frame took lately; None before the first."""
        return self._gate.decode_seconds

    @property
    def held(self) -> int:
        """Packets in the jitter buffer."""
        return self._path.held

    @property
    def buffer_counters(self) -> BufferCounters:
        """What became of the packets; nothing is counted on aiortc's own way."""
        if isinstance(self._path, ReceivePath):
            return self._path.counters
        return BufferCounters()

    def close(self) -> None:
        """No packet is waited for any more, and no timer runs."""
        if isinstance(self._path, ReceivePath):
            self._path.close()

    def _ask_again(self) -> None:
        if self._now() - self._keyframe_asked >= KEYFRAME_INTERVAL:
            self.request_keyframe()

    def _ask_from_thread(self) -> None:
        with suppress(RuntimeError):  # The loop is gone.
            self._loop.call_soon_threadsafe(self._ask_again)

    def _lost(self) -> None:
        self._gate.lost()
        self._ask_after_loss()

    def _ask_after_loss(self) -> None:
        if self._now() - self._keyframe_asked >= LOSS_INTERVAL:
            self.request_keyframe()

    def take(self, packet: Any, arrival_time_ms: int) -> None:
        """A packet that came without aiortc's way to it; only where ``works("jitter")``."""
        assert isinstance(self._path, ReceivePath)
        if not self._unjoined:
            self.take_thread()
        self._on_packet(packet)
        self._path.receive(packet, arrival_time_ms)

    async def _handle(self, packet: Any, arrival_time_ms: int) -> None:
        """A packet that aiortc hands over."""
        if isinstance(self._path, ReceivePath):
            self.take(packet, arrival_time_ms)
            return
        if not self._unjoined:
            self.take_thread()
        self._on_packet(packet)
        await self._path.receive(packet, arrival_time_ms)

    def take_thread(self) -> None:
        """Have the decoder's thread joined by :func:`join_decoders`, once there is one."""
        thread = self._receiver._RTCRtpReceiver__decoder_thread
        if isinstance(thread, threading.Thread):
            self._unjoined = True
            self._receiver._RTCRtpReceiver__decoder_thread = _Unjoined(thread)
            self.decoder_thread = thread

    def _put(self, codec: Any, frame: ReceivedFrame) -> None:
        if frame.after_loss:
            self._gate.lost()
        self._gate.put((codec, frame))

    def _deliver(self, codec: Any, frame: Any) -> bool:
        name: str = codec.name
        if name == "H264":
            self._complete(codec.payloadType, frame)
        if isinstance(self._path, StockPath):
            frame = self._path.frame(frame)
        keyframe = is_keyframe(name, frame.data)
        timestamp, arrival, clock_rate = frame.timestamp, frame.arrival, codec.clockRate
        sender_time = self._reports.frame(
            rtp=frame.rtp, timestamp=timestamp, clock_rate=clock_rate, arrival=arrival
        )

        def make() -> EncodedFrame:
            return EncodedFrame(
                kind=self._kind,
                track_id=self._track_id,
                codec=name,
                data=frame.data,
                timestamp=timestamp,
                clock_rate=clock_rate,
                keyframe=keyframe,
                arrival=arrival,
                sender_time=sender_time,
            )

        self._on_frame(name, timestamp, arrival, keyframe, make)
        return keyframe

    def _complete(self, payload_type: int, frame: Any) -> None:
        """Put what a keyframe cannot be decoded without in front of it, where it lacks that."""
        sets = self._parameter_sets(payload_type)
        if sets is not None and is_idr(frame.data) and not has_parameter_sets(frame.data):
            frame.data = sets + frame.data


def discard_queued_frames(peer: RTCPeerConnection) -> None:
    """Empty the decoder queues, so that the decoder threads end with the frame they are at."""
    if not works("receiving"):
        return
    for transceiver in peer.getTransceivers():
        receiver: Any = transceiver.receiver
        gate: object = receiver._RTCRtpReceiver__decoder_queue
        if isinstance(gate, DecoderGate):
            gate.discard()


async def join_decoders(threads: Iterable[threading.Thread | None]) -> None:
    """Wait for decoder threads that were told to end, beside the loop: one frame may take long."""
    for thread in threads:
        if thread is not None and thread.is_alive():
            await asyncio.to_thread(thread.join)


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether decoding can start with a frame."""
    if codec == "VP8":
        # The P bit of the frame tag (RFC 6386 section 9.1).
        return bool(data) and not data[0] & 1
    if codec == "H264":
        return is_idr(data)
    return True
