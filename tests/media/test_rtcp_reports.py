"""Sender reports between two engines: what is sent is right, and what is received is read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from navtalk_asyncio.media import rtcp_reports
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.rtcp_reports import send_right_reports
from navtalk_asyncio.media.sender_reports import av_sync
from navtalk_proto.media import MediaKind

pytestmark = pytest.mark.anyio

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO


@pytest.mark.replaces("reports")
async def test_the_private_names_are_as_expected() -> None:
    assert works("reports")


@pytest.mark.replaces("reports")
async def test_the_reports_of_both_tracks_are_on_one_clock(media: Any) -> None:
    """Both clips begin at timestamp 0 when they are first read. Whatever the load of the machine,
    the least late frame says when: a clip never gives one early."""
    server, client = await media.call()
    frames: list[Any] = []
    enough = asyncio.Event()

    def take(frame: Any) -> None:
        frames.append(frame)
        if all(client.engine.timing(kind).reports >= 2 for kind in MediaKind):
            enough.set()

    for kind in MediaKind:
        client.engine.add_encoded_sink(kind, take)
    async with asyncio.timeout(20):
        await enough.wait()
    for kind, track in zip((VIDEO, AUDIO), server.engine._tracks, strict=True):
        timing = client.engine.timing(kind)
        # The receiver's timestamp 0 is the first frame it got: find that one's place in the clip.
        first = next(frame for frame in frames if frame.kind is kind)
        number = next(
            at - round(first.timestamp / track.clip.ticks)
            for at, data in enumerate(track.sent)
            if data == first.data
        )
        began = timing.clock.offset - number * track.clip.seconds
        # Periods of the clip cannot be told apart here, nor need they: modulo its length.
        length = len(track.clip.frames) * track.clip.seconds
        error = (began - rtcp_reports._started - track._start) % length
        assert min(error, length - error) < 0.02
    sync = av_sync(client.engine.timing(AUDIO), client.engine.timing(VIDEO))
    assert sync.source == "sender-reports"
    assert sync.offset is not None


class PaperSender:
    """What the reports touch of a sender, without a connection."""

    kind = "video"

    def __init__(self, track: Any) -> None:
        self.track = track
        self.sent: list[Any] = []
        self.frames: list[Any] = []
        self._RTCRtpSender__rtp_timestamp = 0
        self._RTCRtpSender__lsr: int | None = None

    async def _next_encoded_frame(self, codec: Any) -> Any:
        return self.frames.pop(0)

    async def _send_rtcp(self, packets: list[Any]) -> None:
        self.sent += packets


class Frame:
    def __init__(self, timestamp: int) -> None:
        self.timestamp = timestamp


@pytest.mark.replaces("reports")
async def test_a_report_says_when_a_frame_was_handed_over_and_not_when_it_left() -> None:
    from aiortc import MediaStreamTrack
    from aiortc.rtp import RtcpSdesPacket, RtcpSenderInfo, RtcpSrPacket

    from navtalk_asyncio.media.aiortc_internals import SentTrack

    class Picture(MediaStreamTrack):
        kind = "video"

        async def recv(self) -> Any:
            raise NotImplementedError

    track = SentTrack(Picture())
    sender: Any = PaperSender(track)
    now = 1000.0
    send_right_reports(sender, now=lambda: now)
    send_right_reports(sender, now=lambda: 0.0)  # again: nothing
    origin = 2**32 - 9000

    async def frame(timestamp: int, handed_over: float) -> None:
        track.handed_over = handed_over
        sender.frames.append(Frame(timestamp))
        await sender._next_encoded_frame(None)
        sender._RTCRtpSender__rtp_timestamp = (origin + timestamp) % 2**32

    def report() -> Any:
        info = RtcpSenderInfo(ntp_timestamp=7, rtp_timestamp=8, packet_count=1, octet_count=1)
        return RtcpSrPacket(ssrc=1, sender_info=info)

    untouched = report()
    await sender._send_rtcp([untouched])
    assert untouched.sender_info.ntp_timestamp == 7
    await frame(0, 900.03)  # 30 ms late
    await frame(9000, 900.1)
    sender.frames.append(None)  # nothing was encoded
    await sender._next_encoded_frame(None)
    await frame(18000, 900.25)  # 50 ms late
    now = 900.5
    right = report()
    await sender._send_rtcp([right, RtcpSdesPacket()])
    info = right.sender_info
    assert info.rtp_timestamp == (origin + 45_000) % 2**32
    assert info.ntp_timestamp / 2**32 == pytest.approx(rtcp_reports._started + 900.5, abs=1e-5)
    assert sender._RTCRtpSender__lsr == (info.ntp_timestamp >> 16) & 0xFFFFFFFF
    assert rtcp_reports._started + time.monotonic() == pytest.approx(
        time.time() + rtcp_reports.NTP_UNIX, abs=60
    )
