"""How loud sound is: in dBFS, and as a meter shows it."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

__all__ = ["AUDIBLE_DBFS", "LevelMeter", "dbfs"]

AUDIBLE_DBFS: Final = -45.0
"""Quieter than this is silence, as the emulator's voice activity detection has it."""

QUIETEST_DBFS: Final = -60.0
"""Where a meter begins: a quiet room."""


def dbfs(samples: Any) -> float:
    """The loudness of an array of s16 samples, of any shape; -inf for silence, and for none."""
    power = float(np.mean(np.square(samples.astype(np.float64)))) if samples.size else 0.0
    return 10 * math.log10(power / 32768.0**2) if power else -math.inf


class LevelMeter:
    """The loudest since it was last read."""

    def __init__(self) -> None:
        self._loudest = -math.inf

    def take(self, loudness: float) -> None:
        """See a piece of sound: dBFS."""
        self._loudest = max(self._loudest, loudness)

    def read(self) -> float:
        """Between 0, a quiet room, and 1, full scale; begins again."""
        loudest, self._loudest = self._loudest, -math.inf
        return min(max(1.0 - loudest / QUIETEST_DBFS, 0.0), 1.0)
