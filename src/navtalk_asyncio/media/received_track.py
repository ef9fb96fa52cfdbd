"""One remote track: its counters, its tap, and the task that takes decoded frames off it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiortc import (
    MediaStreamTrack,
    RTCRtpReceiver,
)
from aiortc.mediastreams import MediaStreamError

from navtalk_asyncio.media.interface import EncodedFrame, TrackCounters
from navtalk_asyncio.media.picture_clock import LOOK_SECONDS, PictureClock
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.receive_path import BLACKOUT_SECONDS
from navtalk_asyncio.media.receiver_meter import ReceiverMeter
from navtalk_asyncio.media.receiver_tap import ReceiverTap
from navtalk_asyncio.media.rtcp_reports import read_reports
from navtalk_asyncio.media.sender_reports import SenderReports
from navtalk_proto.media import (
    PROGRESS_SECONDS,
    MediaKind,
    MediaProgress,
    MediaStarted,
)

if TYPE_CHECKING:
    from navtalk_asyncio.media.peer import Peer

__all__ = ["FLOWING_SECONDS", "ReceivedTrack"]

FLOWING_SECONDS: Final = min(BLACKOUT_SECONDS, PROGRESS_SECONDS) / 2
"""A packet this soon after another of its track begins nothing, ends no blackout, and is in a
report that is on its way."""


class ReceivedTrack:
    """One remote track; its peer connection makes it, and stops it."""

    def __init__(
        self, peer: Peer, receiver: RTCRtpReceiver, track: MediaStreamTrack, track_id: str
    ) -> None:
        self.kind: MediaKind = MediaKind(track.kind)
        self.track_id = track_id
        # Plain numbers: a frozen object for each packet would cost half a percent of a core.
        self._packets = self._bytes = self._frames_decoded = self._frames_dropped = 0
        self.last_packet: float | None = None
        self.reports: SenderReports = SenderReports(track_id)
        self._peer = peer
        self._host = host = peer.host
        self._started = False
        self._arrived = float("-inf")
        self._reported = float("-inf")
        """Up to which packet progress was told."""
        self._next_report: asyncio.TimerHandle | None = None
        self._picture = PictureClock() if self.kind is MediaKind.VIDEO else None
        self._watched = False
        """Whether somebody decoded this at the last report."""
        self._looked = float("-inf")
        """When a picture was last given to `_picture`, in monotonic seconds."""
        self.sound_arrival: float = 0.0
        """When the newest packet of sound came."""
        self._tap: ReceiverTap | None = None
        if works("receiving"):
            self._tap = ReceiverTap(
                receiver,
                kind=self.kind,
                track_id=track_id,
                reports=self.reports,
                loop=host.loop,
                on_packet=self._packet,
                on_frame=self._frame,
                on_drop=self.count_drop,
                on_decoded=self._decoded,
                wanted=lambda: host.wanted(self),
                full=lambda: host.full(self),
                spawn=host.own,
                parameter_sets=lambda payload_type: peer.parameter_sets.get(payload_type),
            )
            read_reports(receiver, self.reports)
        self.meter: ReceiverMeter = ReceiverMeter(
            receiver, self._tap, kind=self.kind, now=host.loop.time
        )
        self.pump: asyncio.Task[None] = host.own(self._pump(track))

    @property
    def take(self) -> Callable[[Any, int], None] | None:
        """What takes its packets, where they are seen."""
        return None if self._tap is None else self._tap.take

    def begin_decoding(self) -> None:
        """Somebody wants decoded frames from now on."""
        if self._tap is not None:
            self._tap.begin_decoding()

    def resume_decoding(self) -> None:
        """A reader that had no room has some again."""
        if self._tap is not None:
            self._tap.resume_decoding()

    @property
    def holds(self) -> bool:
        """Whether decoding waits for a reader."""
        return self._tap is not None and self._tap.holds

    @property
    def decodes_late(self) -> bool:
        """Whether the sound that is being decoded has waited for a reader."""
        return self._tap is not None and self._tap.decodes_late

    def request_keyframe(self) -> bool:
        """Ask the far end for a keyframe; whether that was possible."""
        return self._tap is not None and self._tap.request_keyframe()

    def get_ready(self) -> None:
        """The receiver was started, and nothing has come yet: open its decoder, and keep the
        decoder's thread from being joined on the loop."""
        if self._tap is not None:
            self._tap.take_thread()
            self._tap.open_decoder()

    @property
    def decoder_thread(self) -> threading.Thread | None:
        """The thread that nobody has joined yet."""
        return None if self._tap is None else self._tap.decoder_thread

    @property
    def counters(self) -> TrackCounters:
        """What was counted until now."""
        return TrackCounters(
            kind=self.kind,
            packets=self._packets,
            bytes=self._bytes,
            frames_decoded=self._frames_decoded,
            frames_dropped=self._frames_dropped,
            last_packet=self.last_packet,
        )

    def count_drop(self) -> None:
        """A frame was dropped, encoded or decoded."""
        self._frames_dropped += 1

    def _frame(
        self,
        codec: str,
        timestamp: int,
        arrival: float,
        keyframe: bool,
        make: Callable[[], EncodedFrame],
    ) -> None:
        self.meter.frame(timestamp, arrival, keyframe=keyframe)
        self.sound_arrival = arrival
        self._host.encoded(self, codec, make)

    def _packet(self, packet: Any) -> None:
        now = self._host.loop.time()
        self._packets += 1
        self._bytes += len(packet.payload)
        self.last_packet = now
        self.meter.packet(packet, now)
        if now - self._arrived < FLOWING_SECONDS:
            self._arrived = now
        else:
            self._came(now)

    def _came(self, now: float) -> None:
        """A packet came, or a frame where packets are not seen."""
        if self._peer.closing:
            return
        if now - self._arrived >= BLACKOUT_SECONDS and self._picture is not None:
            self._picture.restart(now)
        self._arrived = now
        if not self._started:
            self._started = True
            self._host.event(MediaStarted(track_id=self.track_id, kind=self.kind))
        if self._next_report is None:
            self._report()

    def _report(self) -> None:
        """Tell progress, and again PROGRESS_SECONDS later, until nothing came in between."""
        self._next_report = None
        if self._arrived == self._reported:
            return
        self._reported = self._arrived
        loop = self._host.loop
        self._next_report = loop.call_later(PROGRESS_SECONDS, self._report)
        self._host.event(
            MediaProgress(
                track_id=self.track_id,
                kind=self.kind,
                age=loop.time() - self._arrived,
                picture_age=self._picture_age(loop.time()),
            )
        )

    def _picture_age(self, now: float) -> float | None:
        # A picture that waits for its reader is no frozen one.
        wanted = self._host.wanted(self) and not self.holds
        watched, self._watched = self._watched, wanted
        if self._picture is None or not self._watched:
            return None
        if not watched:
            self._picture.restart(now)
        return self._picture.age(now)

    def stop_reporting(self) -> None:
        """The peer connection closes: nothing is told any more."""
        if self._next_report is not None:
            self._next_report.cancel()
            self._next_report = None
        if self._tap is not None:
            self._tap.close()

    def _decoded(self, frame: Any) -> None:
        """A frame that the tap decoded: pictures on the decoder's thread, sound on the loop."""
        self._frames_decoded += 1
        if self._picture is None:
            self._host.decoded(self, frame, on_loop=True)
            return
        self._host.decoded(self, frame, on_loop=False)
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS or self._host.looks():
            self._looked = now
            with suppress(RuntimeError):  # The loop is gone.
                self._host.loop.call_soon_threadsafe(self._look, frame)

    def _look(self, frame: Any) -> None:
        assert self._picture is not None
        self._picture.see(frame, self._host.loop.time())
        self._host.look(self, frame)

    async def _pump(self, track: MediaStreamTrack) -> None:
        """Take the frames off aiortc's track; with a tap it gives none, but ends."""
        try:
            while True:
                frame = await track.recv()
                self._frames_decoded += 1
                self._came(self._host.loop.time())
                if self._picture is not None:
                    self._look(frame)
                self._host.decoded(self, frame, on_loop=True)
        except MediaStreamError:
            self._host.track_ended(self._peer, self)
