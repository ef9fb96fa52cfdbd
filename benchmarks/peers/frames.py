"""What the receivers that get PyAV frames read in them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sender import read_number

from peers.visit import Visit


def picture(visit: Visit, now: float, frame: Any) -> None:
    """Tell of an av.VideoFrame."""
    visit.picture(now, partial(read_number, frame))


def sound(visit: Visit, now: float, frame: Any) -> None:
    """Tell of an av.AudioFrame, 16-bit and interleaved."""

    def samples() -> np.ndarray[Any, Any]:
        interleaved = np.frombuffer(frame.planes[0], np.int16, frame.samples * 2)
        return interleaved[::2].copy()

    visit.sound(now, samples)
