"""The loudspeaker and the microphone, by PortAudio."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self

import anyio
from attrs import frozen

from navtalk_proto.playout import HalfDuplexGate
from navtalk_proto.turn_latency import is_voice
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH
from navtalk_sound.playout_buffer import CHANNELS, RATE, PlayoutBuffer
from navtalk_sound.portaudio import SoundDeviceError, load_portaudio

__all__ = ["Microphone", "MicrophoneStats", "Speaker", "SpeakerStats"]

BLOCK_SECONDS: Final = 0.02
"""What a device is given or gives at a time."""

MICROPHONE_SECONDS: Final = 1.0
"""What the microphone heard and nobody has read; the oldest gives way."""


@frozen(kw_only=True)
class SpeakerStats:
    """What became of the sound."""

    held: float
    """Seconds that wait to be played."""
    underruns: int
    """How often there was nothing to play in the middle of a sound."""
    skipped: float
    """Seconds that were cut out because too much waited."""
    skew: float
    """What the device's clock is slow by, as a ratio; learnt within a minute."""


@frozen(kw_only=True)
class MicrophoneStats:
    """What became of what was heard."""

    dropped: float
    """Seconds that nobody read in time."""
    gated: float
    """Seconds that were replaced by silence because the speaker was heard."""


class _Device(AbstractContextManager["_Device"]):
    """A stream that runs inside a ``with`` block."""

    def __init__(self, kind: str, device: str | int | None, options: dict[str, Any]) -> None:
        self._options = {"device": device, "dtype": "int16", **options}
        self._kind = kind
        self._stream: Any = None

    def __enter__(self) -> Self:
        """Open the device, which may take a tenth of a second. Raises SoundDeviceError."""
        portaudio = load_portaudio()
        make = portaudio.RawOutputStream if self._kind == "speaker" else portaudio.RawInputStream
        try:
            self._stream = make(callback=self._callback, **self._options)
            self._stream.start()
        except (portaudio.PortAudioError, ValueError) as error:
            self._close()
            raise SoundDeviceError(f"the {self._kind} cannot be opened: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop at once, and close."""
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    def _callback(self, data: Any, frames: int, times: Any, status: Any) -> None:
        raise NotImplementedError


class Speaker(_Device):
    """A loudspeaker: ``with Speaker() as speaker: speaker.play(pcm)``.

    `device` is PortAudio's, by name or number; its default one by default. `gate` is told while
    something is heard.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        buffer: PlayoutBuffer | None = None,
        gate: HalfDuplexGate | None = None,
    ) -> None:
        super().__init__(
            "speaker",
            device,
            {
                "samplerate": RATE,
                "channels": CHANNELS,
                "blocksize": round(RATE * BLOCK_SECONDS),
            },
        )
        self._buffer = buffer or PlayoutBuffer()
        self._gate = gate

    def play(self, pcm: bytes) -> None:
        """Add sound behind what waits: s16 little-endian, interleaved stereo, 48,000 Hz."""
        self._buffer.write(pcm)

    def clear(self) -> None:
        """Play nothing of what waits: the human was interrupted."""
        self._buffer.clear()

    def stats(self) -> SpeakerStats:
        """A snapshot."""
        return SpeakerStats(
            held=self._buffer.held,
            underruns=self._buffer.underruns,
            skipped=self._buffer.skipped / RATE,
            skew=self._buffer.control.skew,
        )

    def _callback(self, data: Any, frames: int, times: Any, status: Any) -> None:
        pcm = self._buffer.read(frames)
        data[:] = pcm
        if self._gate is not None and is_voice(pcm):
            latency = max(times.outputBufferDacTime - times.currentTime, 0.0)
            self._gate.heard(until=time.monotonic() + latency + frames / RATE)


class Microphone(_Device):
    """A microphone: ``with Microphone() as microphone: await session.say(microphone.pieces())``.

    With a `gate` that is shut it gives silence, so that a server that listens hears no turn.
    """

    def __init__(
        self, device: str | int | None = None, *, gate: HalfDuplexGate | None = None
    ) -> None:
        super().__init__(
            "microphone",
            device,
            {
                "samplerate": SAMPLE_RATE,
                "channels": 1,
                "blocksize": round(SAMPLE_RATE * BLOCK_SECONDS),
            },
        )
        self._gate = gate
        self._lock = threading.Lock()
        self._heard: deque[bytes] = deque()
        self._held = self._dropped = self._gated = 0  # bytes

    def stats(self) -> MicrophoneStats:
        """A snapshot."""
        second = SAMPLE_RATE * SAMPLE_WIDTH
        return MicrophoneStats(dropped=self._dropped / second, gated=self._gated / second)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """What is heard from now on: PCM16, mono, 24,000 Hz, in pieces of 20 ms and more.

        Ends when the microphone is closed.
        """
        self._take()
        while self._stream is not None:
            # The device is the clock: nothing is there any sooner, and it need not wake a loop.
            await anyio.sleep(BLOCK_SECONDS)
            if pcm := self._take():
                yield pcm

    def _take(self) -> bytes:
        with self._lock:
            pcm = b"".join(self._heard)
            self._heard.clear()
            self._held = 0
        return pcm

    def _callback(self, data: Any, frames: int, times: Any, status: Any) -> None:
        pcm = bytes(data)
        if self._gate is not None and not self._gate.is_open(now=time.monotonic()):
            self._gated += len(pcm)
            pcm = bytes(len(pcm))
        with self._lock:
            self._heard.append(pcm)
            self._held += len(pcm)
            while self._held > MICROPHONE_SECONDS * SAMPLE_RATE * SAMPLE_WIDTH:
                oldest = self._heard.popleft()
                self._held -= len(oldest)
                self._dropped += len(oldest)
