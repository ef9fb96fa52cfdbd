"""Speech for written text: espeak-ng where it is installed, tones where it is not."""

from __future__ import annotations

import asyncio
import io
import shutil
from contextlib import suppress
from typing import Any, Final, Protocol

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from navtalk_asyncio.media.audio_file import AudioFileError, iter_pcm
from navtalk_proto.errors import NavTalkError
from navtalk_proto.wire.audio import SAMPLE_RATE

__all__ = [
    "MAX_SPEECH_SECONDS",
    "MAX_TEXT",
    "EspeakSynthesiser",
    "SynthesisError",
    "Synthesiser",
    "ToneSynthesiser",
    "find_synthesiser",
]

MAX_TEXT: Final = 2000
"""Longest text that is spoken, in characters; about two minutes of speech."""

MAX_SPEECH_SECONDS: Final = 180.0
"""Longest speech made of one text. Digits and symbols are read out, so length does not bound it."""

_ESPEAK_RATE: Final = 22_050
_CHUNK: Final = 64 * 1024


class SynthesisError(NavTalkError):
    """A text could not be spoken; the next one may be."""

    code = "synthesis"
    hint = "shorten the text, or check that espeak-ng runs on its own"


class Synthesiser(Protocol):
    """Speaks a text."""

    @property
    def name(self) -> str:
        """What speaks, for people: "espeak-ng" or "tones"."""
        ...

    async def synthesise(self, text: str) -> bytes:
        """PCM16, mono, 24,000 Hz. Empty for a text with nothing to say.

        Raises SynthesisError for more than MAX_TEXT characters or MAX_SPEECH_SECONDS seconds, and
        when the synthesiser fails.
        """
        ...


def find_synthesiser() -> Synthesiser:
    """The espeak-ng on PATH, else tones."""
    path = shutil.which("espeak-ng")
    return ToneSynthesiser() if path is None else EspeakSynthesiser(executable=path)


@frozen(kw_only=True)
class EspeakSynthesiser:
    """Runs one espeak-ng process for each text, with the text on its standard input."""

    executable: str = "espeak-ng"
    voice: str = "en-us+f3"
    words_per_minute: int = field(default=150, validator=validators.in_(range(80, 451)))
    timeout: float = field(default=20.0, validator=validators.gt(0.0))
    """Seconds that a process may take before it is killed."""

    @property
    def name(self) -> str:
        """The synthesiser's name."""
        return "espeak-ng"

    async def synthesise(self, text: str) -> bytes:
        """See :class:`Synthesiser`. When cancelled, the process is killed and waited for."""
        _check(text)
        if not text.strip():
            return b""
        try:
            process = await _start(
                self.executable,
                "--stdin",
                "--stdout",
                "-b",
                "1",  # UTF-8
                "-v",
                self.voice,
                "-s",
                str(self.words_per_minute),
            )
        except OSError as error:
            raise SynthesisError(f"espeak-ng does not start: {error.strerror}") from error
        try:
            async with asyncio.timeout(self.timeout):
                wav = await _converse(process, text.encode())
                code = await process.wait()
        except TimeoutError as error:
            raise SynthesisError(f"espeak-ng took more than {self.timeout:g} s") from error
        finally:
            if process.returncode is None:
                await _end(process)
        if code != 0:
            raise SynthesisError(f"espeak-ng ended with code {code}")
        try:
            return b"".join(iter_pcm(io.BytesIO(wav), frame_ms=1000))
        except AudioFileError as error:
            raise SynthesisError(f"espeak-ng gave no audio: {error}") from error


@frozen(kw_only=True)
class ToneSynthesiser:
    """A tone for each syllable: one can hear how long a text is and where its words end."""

    @property
    def name(self) -> str:
        """The synthesiser's name."""
        return "tones"

    async def synthesise(self, text: str) -> bytes:
        """See :class:`Synthesiser`. The same text gives the same bytes."""
        _check(text)
        parts: list[NDArray[np.float64]] = []
        samples = 0
        for word in text.split():
            for part in (*map(_tone, _syllables(word)), _pause(word)):
                parts.append(part)
                samples += part.size
            if samples > MAX_SPEECH_SECONDS * SAMPLE_RATE:
                raise SynthesisError(f"the speech is longer than {MAX_SPEECH_SECONDS:g} s")
        if not parts:
            return b""
        return (np.concatenate(parts) * 32767.0).astype("<i2").tobytes()


def _check(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise SynthesisError(f"the text has {len(text)} characters, {MAX_TEXT} can be spoken")


async def _start(*command: str) -> asyncio.subprocess.Process:
    """Start a process. When cancelled meanwhile, it is started nonetheless, killed and waited for.

    A cancellation inside of create_subprocess_exec leaves a process whose pipes nobody closes.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    )
    if await _done(starting):
        if starting.exception() is None:
            await _end(starting.result())
        raise asyncio.CancelledError
    return starting.result()


async def _done(task: asyncio.Future[Any]) -> bool:
    """Wait for a task, whatever comes; whether this was cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


async def _converse(process: asyncio.subprocess.Process, text: bytes) -> bytes:
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    limit = int(MAX_SPEECH_SECONDS * _ESPEAK_RATE * 2)
    wav = bytearray()
    # The text is smaller than a pipe's buffer, so nothing waits while the process writes.
    stdin.write(text)
    stdin.close()
    while chunk := await stdout.read(_CHUNK):
        wav += chunk
        if len(wav) > limit:
            raise SynthesisError(f"the speech is longer than {MAX_SPEECH_SECONDS:g} s")
    return bytes(wav)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a process and see it end, however often this is cancelled meanwhile."""
    with suppress(ProcessLookupError):
        process.kill()
    ending = asyncio.ensure_future(_see_the_end(process))
    cancelled = await _done(ending)
    ending.result()
    if cancelled:
        raise asyncio.CancelledError


async def _see_the_end(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    # The pipe is read to its end: asyncio keeps the process's transport open until then.
    while await process.stdout.read(_CHUNK):
        pass
    await process.wait()


_SCALE: Final = (220.0, 246.94, 277.18, 329.63, 369.99)
"""A pentatonic scale on A3, in Hz: any order of these sounds harmonious."""

_VOWELS: Final = "aeiouy"
_SYLLABLE_SECONDS: Final = 0.17
_WORD_PAUSE_SECONDS: Final = 0.06
_SENTENCE_PAUSE_SECONDS: Final = 0.3
_LOUDNESS: Final = 0.3


def _syllables(word: str) -> list[str]:
    """One piece for each group of vowels, and one for every two letters where there are none."""
    pieces: list[str] = []
    current = ""
    for letter in filter(str.isalnum, word.lower()):
        if letter in _VOWELS:
            full = _voiced(current) and current[-1] not in _VOWELS
        else:
            full = len(current) >= 2 and not _voiced(current)
        if full:
            pieces.append(current)
            current = ""
        current += letter
    return [*pieces, current] if current else pieces


def _voiced(piece: str) -> bool:
    return any(c in _VOWELS for c in piece)


def _tone(syllable: str) -> NDArray[np.float64]:
    t = np.arange(int(_SYLLABLE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = _SCALE[sum(map(ord, syllable)) % len(_SCALE)]
    # A falling glide and three harmonics: nearer to a voice than to a telephone's dial tone.
    phase = 2.0 * np.pi * pitch * (t - 0.25 * t * t)
    wave = np.sin(phase) + 0.45 * np.sin(2.0 * phase) + 0.2 * np.sin(3.0 * phase)
    envelope = np.sin(np.pi * np.minimum(t / _SYLLABLE_SECONDS, 1.0)) ** 0.6
    tone: NDArray[np.float64] = wave * envelope * (_LOUDNESS / 1.65)
    return tone


def _pause(word: str) -> NDArray[np.float64]:
    ends = word[-1] in ".!?:;,"
    seconds = _SENTENCE_PAUSE_SECONDS if ends else _WORD_PAUSE_SECONDS
    return np.zeros(int(seconds * SAMPLE_RATE))
