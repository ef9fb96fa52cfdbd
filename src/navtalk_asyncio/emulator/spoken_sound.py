"""What becomes of a voice 20 ms at a time: how far the mouth opens, and the samples that are sent.

Used for a voice that is followed as it is spoken, and for one that is prepared: both give the same.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from navtalk_asyncio.emulator.voice_activity import rms_dbfs

__all__ = ["SPOKEN_SAMPLES", "VOICE_RATE", "VOICE_SAMPLES", "Mouth", "Upsampler"]

VOICE_RATE: Final = 48_000
"""Samples per second of the voice track: Opus is coded at this rate."""

VOICE_SAMPLES: Final = 960
"""Samples of 20 ms at VOICE_RATE."""

SPOKEN_SAMPLES: Final = 480
"""Samples of 20 ms as a brain gives them, at 24,000 Hz."""

_QUIET_DBFS: Final = -42.0
_LOUD_DBFS: Final = -14.0
_MOUTH_RELEASE: Final = 0.72
"""What is left of the mouth's opening after 20 ms of silence: it shuts in about 0.15 s."""

_Samples: TypeAlias = NDArray[np.int16]


class Mouth:
    """How far a mouth is open that follows a voice."""

    def __init__(self) -> None:
        self.openness: float = 0.0
        """In [0, 1]."""

    def follow(self, samples: _Samples) -> float:
        """The opening for the next 20 ms: 480 samples at 24,000 Hz."""
        self.openness = max(_opening(samples), self.openness * _MOUTH_RELEASE)
        if self.openness < 0.01:
            self.openness = 0.0
        return self.openness


def _opening(samples: _Samples) -> float:
    level = rms_dbfs(samples.tobytes())
    return min(max((level - _QUIET_DBFS) / (_LOUD_DBFS - _QUIET_DBFS), 0.0), 1.0)


class Upsampler:
    """24,000 to 48,000 Hz with a half-band filter; what comes out is 16 samples (0.7 ms) late.

    It goes on from call to call, so the cuts between pieces are not heard, and it costs a little in
    each frame and nothing when a long utterance is queued.
    """

    def __init__(self) -> None:
        self._history = np.zeros(_TAPS.size - 1, dtype=np.int16)

    def process(self, samples: _Samples) -> _Samples:
        """Twice as many samples."""
        known = np.concatenate((self._history, samples))
        self._history = known[samples.size :]
        between = np.convolve(known.astype(np.float64), _TAPS, mode="valid")
        result = np.empty(samples.size * 2, dtype=np.int16)
        result[0::2] = known[_TAPS.size // 2 - 1 :][: samples.size]
        result[1::2] = np.clip(np.rint(between), -32768.0, 32767.0)
        return result


def _half_band() -> NDArray[np.float64]:
    """The windowed sinc that gives the value in the middle between two samples."""
    at = np.arange(-15.5, 16.0)
    taps: NDArray[np.float64] = np.sinc(at) * np.kaiser(at.size, 7.0)
    taps /= taps.sum()
    return taps


_TAPS: Final = _half_band()
