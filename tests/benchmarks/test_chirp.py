"""The sound that says how far into it each piece is: read after Opus, and turned into latency."""

from __future__ import annotations

from typing import Any

import av
import chirp
import numpy as np
import pytest
import sender


def decoded() -> list[np.ndarray[Any, Any]]:
    """Four seconds of the sender's sound, packet by packet, as a receiver has it."""
    decoder: Any = av.CodecContext.create("libopus", "r")
    frames = [frame for one in sender.encode_sounds(4) for frame in decoder.decode(av.Packet(one))]
    return [frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames]


@pytest.mark.parametrize("parts", [1, 2])  # Receivers give pieces of 20 ms, or of 10.
def test_the_place_of_a_piece_survives_the_coder(parts: int) -> None:
    errors = []
    for number, samples in enumerate(decoded()):
        for part, piece in enumerate(np.split(samples, parts)):
            found = chirp.place(piece)
            if found is not None:
                true = 0.02 * (number + part / parts)
                off = (found - true + chirp.PERIOD / 2) % chirp.PERIOD - chirp.PERIOD / 2
                errors.append(abs(off))
    assert len(errors) > 0.98 * 200 * parts
    assert sorted(errors)[int(0.98 * len(errors))] < 0.0003


def test_silence_and_noise_have_no_place() -> None:
    noise = np.random.default_rng(1).normal(0, 5000, 960)
    assert chirp.place(np.zeros(960)) is None
    assert chirp.place(noise) is None
    assert chirp.place(chirp.chirp(9600, 200)) is None  # Too short to tell.


def test_latency_is_from_the_newest_sending_before_the_arrival() -> None:
    sent = [10.0 + 0.02 * number for number in range(150)]  # Three seconds: packet 0 came twice.
    assert chirp.latency(0.0, 12.05, sent, 0.02) == pytest.approx(0.05)
    assert chirp.latency(0.0, 11.99, sent, 0.02) == pytest.approx(1.99)
    # In the middle of a packet: as late as if it had been sent in its own time.
    assert chirp.latency(0.51, 10.6, sent, 0.02) == pytest.approx(0.09)
    assert chirp.latency(1.5, 11.4, sent, 0.02) is None  # Before it was sent at all.
    # At once, and found a little too far on: not two seconds late.
    assert chirp.latency(0.001, 12.0, sent, 0.02) == pytest.approx(-0.001)
