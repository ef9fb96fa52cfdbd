"""How long a decoded picture has stayed the same."""

from __future__ import annotations

from operator import sub
from typing import Any, Final

__all__ = ["LOOK_SECONDS", "PictureClock"]

LOOK_SECONDS: Final = 0.25
"""Seconds between two looks. A face moves all the time, and a look takes half a millisecond."""

COLUMNS: Final = 64
ROWS: Final = 48
"""Luma samples that are compared: every eighth pixel or so of 512 x 512. The slow sway of a head
that says nothing changes over 40 of them in any second, a frozen picture coded anew hardly one."""

LEVELS: Final = 10
"""How much a sample has to change, of 255. Coding the same picture anew changes one by a few."""

CHANGED: Final = 4
"""How many samples have to have changed: a thousandth."""


class PictureClock:
    """Looks at decoded video frames and knows when the picture changed last.

    A picture has changed when it is seen to differ from the one at the last change, so that slow
    movement adds up and the noise of coding the same picture again does not. The newest frame is
    looked at, at most every LOOK_SECONDS. Times are the caller's monotonic seconds.
    """

    def __init__(self) -> None:
        self._sample: bytes | None = None
        self._shape: tuple[int, int] = (0, 0)
        self._changed = 0.0
        self._looked = float("-inf")

    def restart(self, now: float) -> None:
        """Count from now: somebody begins to look, or packets come again after a blackout."""
        self._changed = now
        self._sample = None
        self._looked = float("-inf")

    def see(self, frame: Any, now: float) -> None:
        """A frame was decoded: a PyAV video frame whose first plane is 8-bit luma, as all are that
        decoders of VP8 and H.264 give."""
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        shape = (frame.width, frame.height)
        sample = _sample(frame.planes[0], *shape)
        if self._sample is None or shape != self._shape or _differs(self._sample, sample):
            self._sample, self._shape = sample, shape
            self._changed = now

    def age(self, now: float) -> float:
        """Seconds since the picture changed, or since the restart."""
        return now - self._changed


def _sample(plane: Any, width: int, height: int) -> bytes:
    pixels = memoryview(plane)
    line: int = plane.line_size
    across, down = max(1, width // COLUMNS), max(1, height // ROWS)
    # Picked from the middle of each step: the edge of a picture is often a border.
    return b"".join(
        pixels[row * line + across // 2 : row * line + width : across].tobytes()
        for row in range(down // 2, height, down)
    )


def _differs(old: bytes, new: bytes) -> bool:
    if old == new:
        return False
    changed = 0
    # A face that moves has changed enough after a few lines.
    for change in map(sub, old, new):
        if not -LEVELS < change < LEVELS:
            changed += 1
            if changed == CHANGED:
                return True
    return False
