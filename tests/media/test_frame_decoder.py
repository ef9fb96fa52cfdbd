from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import pytest
from aiortc.codecs import CODECS

from navtalk_asyncio.media import frame_decoder
from navtalk_asyncio.media.frame_decoder import FrameDecoder, open_decoder

VIDEO = {codec.name: codec for codec in CODECS["video"]}
AUDIO = {codec.name: codec for codec in CODECS["audio"]}


def pictures(name: str, count: int) -> list[bytes]:
    """Coded pictures of a square that moves."""
    coder: Any = av.CodecContext.create({"VP8": "libvpx", "H264": "libx264"}[name], "w")
    coder.width, coder.height, coder.pix_fmt = 64, 48, "yuv420p"
    coder.time_base = Fraction(1, 30)
    coder.options = {
        "VP8": {"deadline": "realtime", "lag-in-frames": "0"},
        "H264": {"tune": "zerolatency", "profile": "baseline"},
    }[name]
    coded: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame(64, 48, "yuv420p")
        for plane, level in zip(frame.planes, (40, 128, 128), strict=True):
            data = bytearray([level]) * plane.buffer_size
            if level == 40:
                for row in range(8, 24):
                    start = row * plane.line_size + 2 * number
                    data[start : start + 16] = bytes(range(100, 260, 10))
            plane.update(bytes(data))
        frame.pts = number
        coded += [bytes(packet) for packet in coder.encode(frame)]
    return coded


def encoded(data: bytes, timestamp: int = 0) -> Any:
    return SimpleNamespace(data=data, timestamp=timestamp)


def luma(frame: Any) -> bytes:
    return bytes(frame.planes[0])


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_pictures_come_one_for_one_and_are_those_of_the_reference_decoder(name: str) -> None:
    coded = pictures(name, 8)
    reference: Any = av.CodecContext.create({"VP8": "libvpx", "H264": "h264"}[name], "r")
    decoder = FrameDecoder()
    assert decoder.seconds is None
    for number, data in enumerate(coded):
        [frame] = decoder.decode(VIDEO[name], encoded(data, 3000 * number)) or []
        [expected] = reference.decode(av.Packet(data))
        assert frame.pts == 3000 * number
        assert luma(frame) == luma(expected)
    assert decoder.seconds is not None


def test_of_the_frames_some_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    number = 0

    def thread_time() -> float:
        asked.append(number)
        return 2.0 * len(asked)

    monkeypatch.setattr(frame_decoder, "time", SimpleNamespace(thread_time=thread_time))
    decoder = FrameDecoder()
    assert decoder.decode(VIDEO["VP8"], encoded(b"\xff" * 40)) is None
    assert decoder.seconds is None
    asked.clear()
    for number, data in enumerate(pictures("VP8", 12)):
        decoder.decode(VIDEO["VP8"], encoded(data, 3000 * number))
    # Before and after the first that can be read, and one of five from then on.
    assert asked == [0, 0, 5, 5, 10, 10]
    assert decoder.seconds == pytest.approx(2.0)


def test_a_picture_has_one_thread() -> None:
    for name in ("VP8", "H264"):
        assert open_decoder(VIDEO[name]).codec.thread_count == 1


def test_what_cannot_be_read_changes_nothing() -> None:
    first, second, *_ = pictures("VP8", 3)
    decoder = FrameDecoder()
    # A picture that refers to one that never came, noise, and nothing at all.
    for data in (second, b"\xff" * 40, b""):
        assert not decoder.decode(VIDEO["VP8"], encoded(data))
    assert len(decoder.decode(VIDEO["VP8"], encoded(first)) or []) == 1
    assert len(decoder.decode(VIDEO["VP8"], encoded(second)) or []) == 1


def test_another_codec_is_another_decoder() -> None:
    decoder = FrameDecoder()
    [frame] = decoder.decode(AUDIO["PCMU"], encoded(b"\xff" * 160)) or []
    assert frame.samples == 160
    [frame] = decoder.decode(VIDEO["VP8"], encoded(pictures("VP8", 1)[0])) or []
    assert frame.width == 64
    unknown = SimpleNamespace(name="none", mimeType="video/none")
    assert decoder.decode(unknown, encoded(b"data")) is None


def test_a_decoder_that_was_opened_before_takes_the_first_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def watched(codec: Any) -> Any:
        opened.append(codec.name)
        return open_decoder(codec)

    monkeypatch.setattr(frame_decoder, "open_decoder", watched)
    vp8, h264 = pictures("VP8", 2), pictures("H264", 1)
    decoder = FrameDecoder()
    decoder.open(VIDEO["VP8"])
    decoder.open(VIDEO["VP8"])
    assert decoder._opened is not None
    assert decoder._opened[1].codec.is_open
    assert opened == ["VP8"]
    assert decoder.decode(VIDEO["VP8"], encoded(vp8[0]))
    decoder.open(VIDEO["VP8"])
    assert decoder.decode(VIDEO["VP8"], encoded(vp8[1]))
    assert opened == ["VP8"]
    # Agreed on first is not always what comes.
    other = FrameDecoder()
    other.open(VIDEO["VP8"])
    assert other.decode(VIDEO["H264"], encoded(h264[0]))
    assert opened == ["VP8", "VP8", "H264"]


def test_a_decoder_that_cannot_be_opened_is_tried_again_with_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_codec: Any) -> Any:
        raise ValueError("no such decoder")

    decoder = FrameDecoder()
    with monkeypatch.context() as patched:
        patched.setattr(frame_decoder, "open_decoder", broken)
        decoder.open(VIDEO["VP8"])
        assert decoder.decode(VIDEO["VP8"], encoded(b"data")) is None
    assert decoder.decode(VIDEO["VP8"], encoded(pictures("VP8", 1)[0]))
