"""A sound that says how far into it each piece of it is: what audio latency is measured with.

No benchmark: `sender.py` sends it, and the receivers read it. Every two seconds a tone rises evenly
from 500 Hz to 8 kHz, so that the frequency in the middle of a piece gives its place in those two
seconds, to about a tenth of a millisecond after Opus. No counters of the transport are needed, and
it works on any receiver that gives samples away, also on one that stretches or cuts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

RATE: Final = 48_000
"""Samples a second of everything here."""

PERIOD: Final = 2.0
"""Seconds until the tone begins anew: delays up to this are told apart."""

LOW, HIGH = 500.0, 8_000.0
"""Hz at the beginning and at the end of a period."""

AMPLITUDE: Final = 8_000
"""Of 32,768."""

AUDIBLE: Final = 500
"""The peak from which on a piece counts as sound: what is played before the first packet is zero,
or nearly."""

CODER_DELAY: Final = 312 / RATE
"""Seconds by which what an Opus decoder gives lags behind what the coder was given: its look-ahead
of 6.5 ms, the pre-skip of RFC 7845 section 5.1."""

SLACK: Final = 0.005
"""Seconds by which a sample may seem to arrive before it was sent: what finding its place may be
off by. Without it a piece that comes at once would count as one that is a whole period late."""

_STEEPNESS: Final = (HIGH - LOW) / PERIOD
_BINS: Final = 8_192
_CLEAR: Final = 0.5
"""The share of a piece's energy that is near its loudest frequency, or the piece is not read."""


def chirp(first: int, count: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The samples from number `first` on, mono, as 16-bit integers."""
    at = (np.arange(first, first + count) % int(PERIOD * RATE)) / RATE
    phase = 2 * np.pi * (LOW * at + _STEEPNESS * at * at / 2)
    return np.asarray(AMPLITUDE * np.sin(phase), dtype=np.int16)


def place(samples: np.ndarray[Any, Any]) -> float | None:
    """Seconds from the beginning of a period of packets to the first of these samples.

    `samples` are mono, 10 ms or more, as an Opus decoder gave them. None where they are no clear
    part of the chirp: silence, concealed loss.
    """
    if samples.size < RATE // 100 or np.abs(samples).max() < AUDIBLE:
        return None
    window = np.hanning(samples.size)
    power = np.abs(np.fft.rfft(samples * window, _BINS)) ** 2
    top = int(power[1:-1].argmax()) + 1
    width = 4 * _BINS // samples.size
    if power[max(0, top - width) : top + width].sum() < _CLEAR * power.sum():
        return None
    before, at, after = np.log(power[top - 1 : top + 2] + 1e-9)
    peak = top + 0.5 * (before - after) / (before - 2 * at + after)
    middle = (peak * RATE / _BINS - LOW) / _STEEPNESS
    half = samples.size / RATE / 2
    return float((middle - half + CODER_DELAY) % PERIOD)


def latency(place: float, arrival: float, sent: Sequence[float], step: float) -> float | None:
    """Seconds from the sending of a sample to its arrival.

    `place` is what :func:`place` found, `sent` when each packet of `step` seconds was sent, the
    first packet with the beginning of a period. The newest sending that is no later than the
    arrival counts, but for :data:`SLACK`, so that it may be less than nothing. A sample within a
    packet is as late as if it had been sent in its own time.
    """
    per_period = round(PERIOD / step)
    packet = int(place // step)
    last = len(sent) - 1 - (len(sent) - 1 - packet) % per_period
    while last >= 0:
        when = sent[last] + (place - packet * step)
        if when <= arrival + SLACK:
            return arrival - when
        last -= per_period
    return None
