"""Sound between two clocks: what is played of it, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from navtalk_sound.playout_buffer import RATE, PlayoutBuffer

BLOCK = 960


def sine(frames: int, *, start: int = 0, hertz: float = 500.0) -> bytes:
    wave = np.sin((np.arange(frames) + start) * 2 * np.pi * hertz / RATE) * 12_000
    return np.repeat(wave.astype("<i2")[:, None], 2, axis=1).tobytes()


def left(pcm: bytes) -> NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").reshape(-1, 2)[:, 0].astype(np.float64)


def test_it_is_silent_until_the_target_is_there() -> None:
    buffer = PlayoutBuffer(target=0.1)
    for _ in range(4):
        buffer.write(sine(BLOCK))
        assert not left(buffer.read(BLOCK)).any()
    buffer.write(sine(BLOCK))
    played = left(buffer.read(BLOCK))
    assert np.abs(played).max() > 10_000
    assert played[0] == 0.0  # faded in
    assert buffer.underruns == 0


@pytest.mark.parametrize("skew", [-1e-3, 1e-3])
def test_a_minute_with_another_clock_is_one_unbroken_sound(skew: float) -> None:
    buffer, played, due = PlayoutBuffer(), [], 0.0
    for block in range(50 * 60):
        buffer.write(sine(BLOCK, start=block * BLOCK))
        due += BLOCK * (1.0 + skew)
        taken = int(due)
        due -= taken
        played.append(left(buffer.read(taken)))
        assert buffer.held < 0.25
    assert (buffer.underruns, buffer.skipped) == (0, 0)
    sound = np.concatenate(played)[RATE:]
    # No step is steeper than the wave itself, a little faster: nothing was cut or repeated.
    steepest = 12_000 * 2 * np.pi * 500 / RATE
    assert np.abs(np.diff(sound)).max() < steepest * 1.02 + 2


def test_an_empty_buffer_fades_and_begins_again_at_the_target() -> None:
    buffer = PlayoutBuffer()
    buffer.write(sine(5 * BLOCK))
    buffer.read(BLOCK)
    last = np.concatenate([left(buffer.read(BLOCK)) for _ in range(5)])
    assert buffer.underruns == 1
    assert not last[-BLOCK:].any()
    assert np.abs(np.diff(last)).max() < 1_000
    buffer.write(sine(BLOCK))
    assert not left(buffer.read(BLOCK)).any()
    assert buffer.underruns == 1


def test_too_much_is_cut_to_the_target() -> None:
    buffer = PlayoutBuffer(target=0.1, longest=0.5)
    buffer.write(sine(RATE))
    assert buffer.held == pytest.approx(0.1)
    assert buffer.skipped == RATE * 9 // 10
    buffer.clear()
    assert buffer.held == 0.0
    assert not left(buffer.read(BLOCK)).any()
    assert buffer.underruns == 0


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="two channels"):
        PlayoutBuffer().write(b"\0\0")
    with pytest.raises(ValueError, match="twice"):
        PlayoutBuffer(target=0.3, longest=0.5)
