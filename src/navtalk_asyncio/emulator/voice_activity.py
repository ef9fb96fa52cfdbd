"""Where speech begins and ends in a stream of PCM, told by its energy.

The stream is cut into frames of 20 ms. A frame is *voiced* when it is louder than the threshold,
and louder than the noise floor by a margin. The floor falls at once to the level of a quieter frame
and rises slowly, so it settles on the quietest sound of the last seconds: steady noise stops being
speech after a while. Speech begins with enough voiced frames close together and ends after a
silence (protocol.md 3.2, speech_started and speech_stopped).

There is no clock: time is the number of samples fed. How the stream is cut into chunks changes
nothing; even half a sample may be fed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, TypeAlias

import numpy as np
from attrs import field, frozen, validators

from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = [
    "FRAME_SAMPLES",
    "SILENCE_DBFS",
    "Measurement",
    "SpeechBegan",
    "SpeechEnded",
    "SpeechEvent",
    "VoiceActivityConfig",
    "VoiceActivityDetector",
    "measure",
    "rms_dbfs",
]

FRAME_SAMPLES: Final = 480
"""Samples in a frame: 20 ms."""

SILENCE_DBFS: Final = -96.0
"""The level of digital silence, and the least that is ever returned: the range of 16 bits."""

_FRAME_MS: Final = 20
_FRAME_BYTES: Final = FRAME_SAMPLES * SAMPLE_WIDTH
_FULL_SCALE: Final = 32768.0
_BRIDGE_MS: Final = 60
"""Unvoiced time between two voiced frames that still belong to one beginning: a closed plosive."""

_FLOOR_RISE: Final = 4.0
"""How fast the noise floor rises, in dB per second. A held vowel of 3 s lifts it by 12 dB."""

_FLOOR_MAX: Final = -35.0
"""The floor rises no further, so that speech of ordinary loudness is always heard."""

_HYSTERESIS: Final = 4.0
"""dB by which a frame within speech may be quieter than one that begins it."""


def rms_dbfs(pcm: bytes) -> float:
    """The root mean square of PCM16 in dB below full scale; SILENCE_DBFS at least.

    0 dBFS is a square wave of full scale, so a sine of full scale has -3.01. Empty is silence.
    Raises ValueError for half a sample.
    """
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.int64)
    return _dbfs(int((samples * samples).sum()), samples.size)


def _dbfs(squares: int, count: int) -> float:
    if squares == 0 or count == 0:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 10.0 * math.log10(squares / count / (_FULL_SCALE * _FULL_SCALE)))


def _frame_squares(pcm: bytes) -> list[int]:
    """The sum of squares of each whole frame. Integers, so the sum has no order to depend on."""
    frames = np.frombuffer(pcm, dtype="<i2").reshape(-1, FRAME_SAMPLES).astype(np.int64)
    squares: list[int] = (frames * frames).sum(axis=1).tolist()
    return squares


_milliseconds = validators.and_(validators.instance_of(int), validators.ge(0))


@frozen(kw_only=True)
class VoiceActivityConfig:
    """When sound is speech. Times are milliseconds and count in whole frames of 20 ms."""

    threshold_dbfs: float = field(default=-45.0, validator=validators.le(0.0))
    """Nothing quieter is speech."""

    margin_db: float = field(default=10.0, validator=validators.ge(0.0))
    """How much louder than the noise floor speech is."""

    min_speech_ms: int = field(default=120, validator=validators.ge(_FRAME_MS))
    """Voiced time before speech has begun; a click is shorter."""

    silence_ms: int = field(default=500, validator=validators.ge(_FRAME_MS))
    """Silence after which speech has ended."""

    prefix_ms: int = field(default=300, validator=_milliseconds)
    """Sound kept from before the first voiced frame: consonants begin quietly."""

    suffix_ms: int = field(default=200, validator=_milliseconds)
    """Sound kept from after the last voiced frame; no more than `silence_ms` is ever there."""

    max_utterance_ms: int = field(default=60_000, validator=validators.ge(1000))
    """Speech is ended by force when it is this long, and the rest begins anew."""


@frozen(kw_only=True)
class SpeechBegan:
    """Speech began at sample `at` of the stream (told `min_speech_ms` later)."""

    at: int


@frozen(kw_only=True)
class SpeechEnded:
    """Speech from sample `began` to sample `at`, with its padding.

    `forced`: it was cut by `max_utterance_ms` or `end()`, not ended by silence.
    """

    began: int
    at: int
    pcm: bytes = field(repr=lambda pcm: f"<{len(pcm)} bytes>")
    forced: bool = False


SpeechEvent: TypeAlias = SpeechBegan | SpeechEnded


class VoiceActivityDetector:
    """Finds utterances in PCM16, mono, 24,000 Hz. Holds at most one utterance and its padding."""

    def __init__(self, config: VoiceActivityConfig | None = None) -> None:
        self.config: VoiceActivityConfig = config or VoiceActivityConfig()
        self._min_voiced = _frames(self.config.min_speech_ms)
        self._silence = _frames(self.config.silence_ms)
        self._bridge = _frames(_BRIDGE_MS)
        self._prefix = _frames(self.config.prefix_ms)
        self._suffix = min(_frames(self.config.suffix_ms), self._silence)
        self._max = _frames(self.config.max_utterance_ms)
        self._rest = b""
        self._frame = 0  # the number of the next frame
        self._floor = self.config.threshold_dbfs - self.config.margin_db
        # Frames before speech: the prefix, and what is voiced while its beginning is not certain.
        self._before: deque[bytes] = deque(
            maxlen=self._prefix + self._min_voiced * (self._bridge + 1)
        )
        self._first: int | None = None  # the first voiced frame of a beginning or of speech
        self._last = 0  # the last voiced frame
        self._voiced = 0  # voiced frames of a beginning
        self._kept: list[bytes] = []  # prefix and speech; its first frame is _kept_from
        self._kept_from = 0
        self._speaking = False

    @property
    def speaking(self) -> bool:
        """Whether speech has begun and not ended."""
        return self._speaking

    @property
    def noise_floor(self) -> float:
        """The level of the background in dBFS, as far as it is known."""
        return self._floor

    def feed(self, pcm: bytes) -> list[SpeechEvent]:
        """Take a chunk of any length; returns what it brought to light, in order."""
        data = self._rest + pcm
        whole = len(data) // _FRAME_BYTES * _FRAME_BYTES
        self._rest = data[whole:]
        events: list[SpeechEvent] = []
        for i, squares in enumerate(_frame_squares(data[:whole])):
            self._take(data[i * _FRAME_BYTES : (i + 1) * _FRAME_BYTES], squares, events)
        return events

    def end(self) -> list[SpeechEvent]:
        """End the speech now: an `input_audio_buffer.commit`, or a stream that stopped (5.13).

        Speech that has not begun for certain is dropped, and so is an unfinished frame.
        """
        events: list[SpeechEvent] = []
        if self._speaking:
            self._finish(events, forced=True)
        self.clear()
        return events

    def clear(self) -> None:
        """Forget the sound kept and any speech, without an event: `input_audio_buffer.clear`.

        Sample numbers go on; the noise floor stays.
        """
        self._rest = b""
        self._rewind()

    def _rewind(self) -> None:
        self._before.clear()
        self._kept.clear()
        self._first = None
        self._voiced = 0
        self._speaking = False

    def _take(self, frame: bytes, squares: int, events: list[SpeechEvent]) -> None:
        level = _dbfs(squares, FRAME_SAMPLES)
        threshold = max(self.config.threshold_dbfs, self._floor + self.config.margin_db)
        voiced = level >= threshold - (_HYSTERESIS if self._speaking else 0.0)
        self._floor = min(level, self._floor + _FLOOR_RISE * _FRAME_MS / 1000.0, _FLOOR_MAX)
        now = self._frame
        self._frame += 1
        if self._speaking:
            self._kept.append(frame)
            if voiced:
                self._last = now
            if now - self._last >= self._silence:
                self._finish(events, forced=False)
            elif self._first is not None and now + 1 - self._first >= self._max:
                self._finish(events, forced=True)
            return
        self._before.append(frame)
        if self._first is not None and now - self._last - 1 > self._bridge:
            self._first, self._voiced = None, 0
        if not voiced:
            return
        self._first = now if self._first is None else self._first
        self._last = now
        self._voiced += 1
        if self._voiced >= self._min_voiced:
            self._begin(events)

    def _begin(self, events: list[SpeechEvent]) -> None:
        assert self._first is not None
        self._speaking = True
        wanted = self._frame - self._first + self._prefix
        self._kept = list(self._before)[-wanted:]
        self._kept_from = self._frame - len(self._kept)
        self._before.clear()
        events.append(SpeechBegan(at=self._first * FRAME_SAMPLES))

    def _finish(self, events: list[SpeechEvent], *, forced: bool) -> None:
        assert self._first is not None
        after = self._last + 1 - self._kept_from
        kept, left = self._kept[: after + self._suffix], self._kept[after + self._suffix :]
        events.append(
            SpeechEnded(
                began=self._first * FRAME_SAMPLES,
                at=(self._last + 1) * FRAME_SAMPLES,
                pcm=b"".join(kept),
                forced=forced,
            )
        )
        self._rewind()
        # What this utterance did not take may be the prefix of the next one.
        self._before.extend(left)


@frozen(kw_only=True)
class Measurement:
    """How long and how loud the speech in a piece of PCM is."""

    seconds: float
    """From the first to the end of the last audible frame; 0 when there is none."""

    dbfs: float
    """The root mean square of the audible frames; of everything when there is none."""


def measure(pcm: bytes, *, threshold_dbfs: float = -45.0) -> Measurement:
    """Measure an utterance with its padding. A frame of 20 ms is audible from the threshold on.

    Less than a frame at the end is left out. Raises ValueError for half a sample.
    """
    if len(pcm) % SAMPLE_WIDTH:
        raise ValueError("audio of an odd number of bytes is not PCM16")
    squares = _frame_squares(pcm[: len(pcm) // _FRAME_BYTES * _FRAME_BYTES])
    audible = [i for i, s in enumerate(squares) if _dbfs(s, FRAME_SAMPLES) >= threshold_dbfs]
    if not audible:
        return Measurement(seconds=0.0, dbfs=rms_dbfs(pcm))
    span = audible[-1] + 1 - audible[0]
    total = sum(squares[i] for i in audible)
    return Measurement(
        seconds=span * FRAME_SAMPLES / SAMPLE_RATE,
        dbfs=_dbfs(total, len(audible) * FRAME_SAMPLES),
    )


def _frames(milliseconds: int) -> int:
    return math.ceil(milliseconds / _FRAME_MS)
