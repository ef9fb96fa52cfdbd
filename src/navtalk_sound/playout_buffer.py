"""Between sound that comes as it likes and a device that takes it by its own clock."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from navtalk_proto.playout import DriftControl

__all__ = ["PlayoutBuffer"]

_Samples: TypeAlias = NDArray[np.int16]

RATE: Final = 48_000
CHANNELS: Final = 2

TARGET_SECONDS: Final = 0.1
"""Sound held: longer than what a busy loop, or a bad network, holds back."""

LONGEST_SECONDS: Final = 0.5
"""More than this is cut to the target at once: a delay that is heard as one."""

FADE: Final = 240
"""Frames over which sound fades where it was cut, or begins: 5 ms, against a click."""


class PlayoutBuffer:
    """Samples between a writer and a reader of two clocks; s16, 48,000 Hz, stereo.

    Reading stretches the sound by at most a hundredth, so that the level stays at its target. Safe
    to be written by one thread and read by another.
    """

    def __init__(self, *, target: float = TARGET_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        """`target` and `longest` are seconds of sound."""
        if longest < 2 * target:
            raise ValueError("longest must be at least twice the target")
        self.control: Final = DriftControl(target)
        self.underruns: int = 0
        """How often there was not enough to play."""
        self.skipped: int = 0
        """Frames that were cut out because too much was held."""
        self._lock = threading.Lock()
        self._longest = round(longest * RATE)
        self._pieces: deque[_Samples] = deque()
        self._held = 0  # frames
        self._at = 0.0
        """Where the next frame is read, between 0 and 1, in the first of those held."""
        self._playing = False

    @property
    def held(self) -> float:
        """Seconds of sound that wait."""
        return self._held / RATE

    def write(self, pcm: bytes) -> None:
        """Add sound: interleaved s16. Raises ValueError for half a frame."""
        if len(pcm) % (2 * CHANNELS):
            raise ValueError("not whole frames of two channels")
        piece = np.frombuffer(pcm, dtype="<i2").astype(np.int16).reshape(-1, CHANNELS)
        with self._lock:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held > self._longest:
                cut = self._held - round(self.control.target * RATE)
                self.skipped += cut
                self._take(cut)
                self.control.restart()

    def clear(self) -> None:
        """Forget what was not played: the human was interrupted."""
        with self._lock:
            self._take(self._held)
            self._playing = False
            self.control.restart()

    def read(self, frames: int) -> bytes:
        """The next `frames` to play, silence where there is nothing."""
        with self._lock:
            return self._read(frames).tobytes()

    def _read(self, frames: int) -> _Samples:
        silence = np.zeros((frames, CHANNELS), dtype=np.int16)
        if not self._playing and self._held < self.control.target * RATE:
            return silence
        ratio = self.control.ratio(self._held / RATE, frames / RATE)
        positions = self._at + ratio * np.arange(frames)
        end = self._at + ratio * frames
        needed = int(positions[-1]) + 2
        if needed + FADE > self._held:  # while there is enough left to fade on
            # It begins again when the target is there: a single gap, not a stutter.
            self.underruns += self._playing
            self._playing = False
            rest = self._take(self._held)[:frames]
            self.control.restart()
            silence[: len(rest)] = _faded(rest, out=True)
            return silence
        source = self._peek(needed)
        whole = positions.astype(np.int64)
        part = (positions - whole)[:, np.newaxis]
        played = source[whole] * (1.0 - part) + source[whole + 1] * part
        self._take(int(end))
        self._at = end - int(end)
        result: _Samples = np.rint(played).astype(np.int16)
        if not self._playing:
            self._playing = True
            result = _faded(result, out=False)
        return result

    def _peek(self, frames: int) -> _Samples:
        parts, count = [], 0
        for piece in self._pieces:
            parts.append(piece)
            count += len(piece)
            if count >= frames:
                break
        whole: _Samples = np.concatenate(parts)[:frames]
        return whole

    def _take(self, frames: int) -> _Samples:
        taken = self._peek(frames) if frames else np.zeros((0, CHANNELS), dtype=np.int16)
        left = frames
        while left:
            piece = self._pieces[0]
            if len(piece) > left:
                self._pieces[0] = piece[left:]
                left = 0
            else:
                left -= len(piece)
                self._pieces.popleft()
        self._held -= frames
        return taken


def _faded(samples: _Samples, *, out: bool) -> _Samples:
    count = min(FADE, len(samples))
    ramp = np.linspace(0.0, 1.0, count, endpoint=False)[:, np.newaxis]
    faded = samples.copy()
    if out:
        faded[len(samples) - count :] = faded[len(samples) - count :] * ramp[::-1]
    else:
        faded[:count] = faded[:count] * ramp
    return faded
