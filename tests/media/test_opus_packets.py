"""Opus packets as bytes; the silence is decoded by libopus."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import pytest

from navtalk_asyncio.media.opus_packets import opus_samples, silence


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"\xfc", 960),  # config 31, one frame: CELT 20 ms
        (b"\xfd", 1920),  # code 1: two frames
        (b"\xe0", 120),  # config 28: CELT 2.5 ms
        (b"\x18", 2880),  # config 3: SILK 60 ms
        (b"\x60", 480),  # config 12: hybrid 10 ms
        (b"\xff\x03", 2880),  # code 3, three frames of 20 ms
        (b"\xff", 0),
        (b"", 0),
    ],
)
def test_the_length_of_an_opus_packet(packet: bytes, samples: int) -> None:
    """RFC 6716 section 3.1, table 2."""
    assert opus_samples(packet) == samples


@pytest.mark.parametrize("stereo", [True, False])
def test_silence_is_silent_and_of_the_asked_length(stereo: bool) -> None:
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = 48_000, "stereo" if stereo else "mono"
    lengths = []
    for data, length in silence(2 * 960 + 480 + 240 + 120 + 119, stereo=stereo):
        assert opus_samples(data) == length
        packet = av.Packet(data)
        packet.time_base = Fraction(1, 48_000)
        [frame] = decoder.decode(packet)
        assert frame.samples == length
        assert not frame.to_ndarray().any()
        lengths.append(length)
    assert lengths == [960, 960, 480, 240, 120]
    assert list(silence(100, stereo=stereo)) == []
