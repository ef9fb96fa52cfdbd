"""The way of packets through a real aiortc receiver, on a virtual clock and without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.codecs import CODECS
from aiortc.rtp import RtpPacket, wrap_rtx

from navtalk_asyncio.media.receive_path import (
    ASIDE_SECONDS,
    BLACKOUT_SECONDS,
    ReceivedFrame,
    ReceivePath,
)
from navtalk_asyncio.testing import run_virtual
from navtalk_proto.media import MediaKind

SSRC, RTX_SSRC = 1111, 2222
VP8 = next(codec for codec in CODECS["video"] if codec.name == "VP8")
RTX = next(codec for codec in CODECS["video"] if codec.parameters.get("apt") == VP8.payloadType)
OPUS = next(codec for codec in CODECS["audio"] if codec.name == "opus")

BEGINS, GOES_ON = b"\x10", b"\x00"
"""VP8 payload descriptors."""


class Receiver:
    """A receiver of aiortc's that was never started, and what is sent for it."""

    def __init__(self, kind: MediaKind) -> None:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.aiortc: Any = peer.addTransceiver(kind.value).receiver
        for codec in (VP8, RTX) if kind is MediaKind.VIDEO else (OPUS,):
            self.aiortc._RTCRtpReceiver__codecs[codec.payloadType] = codec
        self.aiortc._RTCRtpReceiver__rtx_ssrc[RTX_SSRC] = SSRC
        self.nacks: list[list[int]] = []
        self.losses = 0
        self.frames: list[ReceivedFrame] = []

        async def nack(ssrc: int, numbers: list[int]) -> None:
            assert ssrc == SSRC
            self.nacks.append(numbers)

        self.aiortc._send_rtcp_nack = nack
        self.path = ReceivePath(
            self.aiortc,
            kind=kind,
            loop=asyncio.get_running_loop(),
            on_frame=lambda _codec, frame: self.frames.append(frame),
            on_loss=self._lost,
            spawn=asyncio.ensure_future,
        )

    def _lost(self) -> None:
        self.losses += 1

    def video(self, number: int, *, picture: int, begins: bool = True, ends: bool = True) -> None:
        self.path.receive(picture_packet(number, picture, begins, ends), arrival_time_ms=0)

    def sound(self, number: int, *, ssrc: int = SSRC, timestamp: int | None = None) -> None:
        packet = RtpPacket(
            payload_type=OPUS.payloadType,
            sequence_number=number,
            timestamp=number * 960 if timestamp is None else timestamp,
            ssrc=ssrc,
            payload=b"%d" % number,
        )
        self.path.receive(packet, arrival_time_ms=0)

    @property
    def data(self) -> list[bytes]:
        return [frame.data for frame in self.frames]


def picture_packet(number: int, picture: int, begins: bool, ends: bool) -> RtpPacket:
    return RtpPacket(
        payload_type=VP8.payloadType,
        marker=int(ends),
        sequence_number=number,
        timestamp=(picture * 3000 - 3000) % 2**32,
        ssrc=SSRC,
        payload=(BEGINS if begins else GOES_ON) + b"%d," % number,
    )


def on_virtual_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(scenario())


def test_a_picture_goes_on_its_marker_and_a_lost_packet_is_sent_again() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        assert receiver.data == [b"5,"]
        receiver.video(6, picture=1, ends=False)
        receiver.video(8, picture=1, begins=False)
        await asyncio.sleep(0)
        assert receiver.nacks == [[7]]
        await asyncio.sleep(0.1)
        assert receiver.nacks == [[7], [7]]
        again = wrap_rtx(
            picture_packet(7, 1, False, False),
            payload_type=RTX.payloadType,
            sequence_number=1,
            ssrc=RTX_SSRC,
        )
        receiver.path.receive(again, arrival_time_ms=0)
        assert receiver.data == [b"5,", b"6,7,8,"]
        assert [frame.timestamp for frame in receiver.frames] == [0, 3000]
        assert receiver.losses == 0
        await asyncio.sleep(1)
        assert len(receiver.nacks) == 2
        receiver.path.close()

    on_virtual_time(scenario)


def test_what_is_due_already_has_no_timer_where_the_loop_is_uvloop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def call_at(when: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.Handle:
            return loop.call_soon(callback, *arguments)

        # uvloop gives a bare Handle, without when(), for a time that has passed.
        monkeypatch.setattr(loop, "call_at", call_at)
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        receiver.video(7, picture=2)
        receiver.video(8, picture=3)
        monkeypatch.undo()
        await asyncio.sleep(0.6)
        assert receiver.data == [b"5,", b"7,", b"8,"]
        receiver.path.close()

    on_virtual_time(scenario)


def test_a_picture_that_stays_incomplete_is_given_up() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        receiver.video(7, picture=2)
        receiver.video(8, picture=3)
        await asyncio.sleep(0.6)
        assert receiver.data == [b"5,", b"7,", b"8,"]
        assert [frame.after_loss for frame in receiver.frames] == [False, True, False]
        assert receiver.losses == 1
        asked = len(receiver.nacks)
        await asyncio.sleep(1)
        assert len(receiver.nacks) == asked
        receiver.path.close()

    on_virtual_time(scenario)


def test_what_was_lost_in_a_blackout_is_given_up_at_once() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        await asyncio.sleep(BLACKOUT_SECONDS)
        receiver.video(20, picture=9, begins=False)
        assert receiver.losses == 1
        receiver.video(21, picture=10)
        assert [(frame.data, frame.after_loss) for frame in receiver.frames[1:]] == [(b"21,", True)]
        await asyncio.sleep(0)
        assert receiver.nacks == []
        receiver.path.close()

    on_virtual_time(scenario)


def test_a_pause_without_a_loss_is_no_blackout() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        await asyncio.sleep(5)
        receiver.video(6, picture=1)
        assert [frame.after_loss for frame in receiver.frames] == [False, False]
        receiver.path.close()

    on_virtual_time(scenario)


def test_one_lost_packet_of_sound_delays_nothing_for_good() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.AUDIO)
        loop = asyncio.get_running_loop()
        for number in range(50):
            if number != 10:
                receiver.sound(number)
            await asyncio.sleep(0.02)
        assert receiver.data == [b"%d" % number for number in range(50) if number != 10]
        assert receiver.path.counters.given_up == 1
        receiver.sound(50)
        assert receiver.frames[-1].arrival == loop.time()
        receiver.path.close()

    on_virtual_time(scenario)


def test_another_stream_goes_on_in_the_tracks_time() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.AUDIO)
        receiver.sound(1)
        await asyncio.sleep(0.5)
        receiver.sound(40_000, ssrc=77, timestamp=123_456_789)
        receiver.sound(40_001, ssrc=77, timestamp=123_456_789 + 960)
        assert [frame.timestamp for frame in receiver.frames] == [0, 24_000, 24_960]
        receiver.path.close()

    on_virtual_time(scenario)


def test_receiver_reports_and_foreign_packets() -> None:
    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        receiver.video(5, picture=0)
        strange = picture_packet(6, 1, True, True)
        strange.payload_type = 1
        receiver.path.receive(strange, arrival_time_ms=0)
        short = picture_packet(6, 1, True, True)
        short.payload = b"\x90"
        receiver.path.receive(short, arrival_time_ms=0)
        receiver.video(6, picture=1)
        assert receiver.data == [b"5,", b"6,"]
        [stream] = receiver.aiortc._RTCRtpReceiver__remote_streams.values()
        assert stream.packets_received == 3
        receiver.path.close()
        receiver.video(7, picture=2)
        assert receiver.data == [b"5,", b"6,"]

    on_virtual_time(scenario)


def test_the_bandwidth_estimator_gets_pictures_later_and_several_at_once() -> None:
    """Its first packets cost it half a millisecond, in which no other thread runs Python; and each
    time that the loop is woken for it costs more than what it does."""

    async def scenario() -> None:
        receiver = Receiver(MediaKind.VIDEO)
        estimator = receiver.aiortc._RTCRtpReceiver__remote_bitrate_estimator
        receiver.aiortc._set_rtcp_ssrc(3333)
        stock, added = estimator.add, list[dict[str, int]]()
        feedback: list[Any] = []
        expected: list[dict[str, int]] = []
        turns: set[float] = set()

        def add(**what: int) -> Any:
            added.append(what)
            turns.add(asyncio.get_running_loop().time())
            return stock(**what)

        async def send(packet: Any) -> None:
            feedback.append(packet)

        estimator.add, receiver.aiortc._send_rtcp = add, send
        for picture in range(200):
            at = round(1000 * picture / 30)
            for part in (0, 1):
                packet = picture_packet(2 * picture + part, picture, part == 0, part == 1)
                packet.extensions.abs_send_time = at * 2**18 // 1000
                receiver.path.receive(packet, arrival_time_ms=at)
            assert len(receiver.frames) == picture + 1
            assert len(added) <= picture
            await asyncio.sleep(1 / 30)
            size = sum(len(b"x%d," % (2 * picture + part)) for part in (0, 1))
            expected.append(
                {
                    "abs_send_time": at * 2**18 // 1000,
                    "arrival_time_ms": at,
                    "payload_size": size,
                    "ssrc": SSRC,
                }
            )
        await asyncio.sleep(2 * ASIDE_SECONDS)
        assert added == expected
        assert len(turns) <= 200 / 30 / ASIDE_SECONDS + 1
        assert feedback
        assert {packet.ssrc for packet in feedback} == {3333}
        packet = picture_packet(400, 200, True, True)
        packet.extensions.abs_send_time = 1
        receiver.path.receive(packet, arrival_time_ms=7000)
        receiver.path.close()
        await asyncio.sleep(1)
        assert len(added) == 200

    on_virtual_time(scenario)
