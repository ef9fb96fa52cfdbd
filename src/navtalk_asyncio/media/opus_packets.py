"""Opus packets as bytes: how long one is, and packets of silence (RFC 6716)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["opus_samples", "silence"]

_SILENT_CONFIGS: Final = {960: 31, 480: 30, 240: 29, 120: 28}
"""CELT, full band, by samples of a frame (RFC 6716 section 3.1, table 2)."""


def opus_samples(packet: bytes) -> int:
    """Length of an Opus packet in samples of 48,000 Hz (RFC 6716 section 3.1)."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    counts = {0: 1, 1: 2, 2: 2, 3: packet[1] & 0x3F if len(packet) > 1 else 0}
    return frame * counts[code]


def silence(samples: int, *, stereo: bool) -> Iterator[tuple[bytes, int]]:
    """Packets of digital silence and their lengths, which add up to `samples` or just below.

    A packet has 960 samples or, at the end, 480, 240 or 120: what is below 2.5 ms is left out. Each
    is a CELT frame that says no more than that it is silent (RFC 6716 section 4.3).
    """
    for length, config in _SILENT_CONFIGS.items():
        packet = bytes([config << 3 | stereo << 2, 0xFF, 0xFE])
        while samples >= length:
            yield packet, length
            samples -= length
