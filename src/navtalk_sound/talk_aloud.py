"""A session by voice: the human from the speaker, the user from the microphone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import anyio

from navtalk_proto.playout import HalfDuplexGate
from navtalk_proto.turn_latency import is_voice
from navtalk_sound.devices import Microphone, Speaker

__all__ = ["SoundingSession", "talk_aloud"]


HUSH_SECONDS: Final = 0.5
"""How long sound of an interrupted answer is thrown away, if it does not end before: what was on
its way when the human was told to be silent."""


class SoundingSession(Protocol):
    """What is asked of a session, of either loop."""

    @property
    def audio(self) -> AsyncIterator[Any]:
        """Decoded PyAV frames: s16, 48,000 Hz, stereo."""
        ...

    async def say(self, chunks: Any, *, paced: bool = ..., trailing_silence: float = ...) -> float:
        """Speak what an iterator yields."""
        ...

    def on_interruption(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` when the human is to fall silent; returns what ends that."""
        ...


class _Hush:
    """Throws the sound of an interrupted answer away until it ends."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._left = 0.0

    def begin(self) -> None:
        """The human was interrupted: what waits to be played is not."""
        self._speaker.clear()
        self._left = HUSH_SECONDS

    def passes(self, pcm: bytes, seconds: float) -> bool:
        """Whether the next sound is to be played."""
        if self._left > 0.0 and is_voice(pcm):
            self._left -= seconds
            return False
        self._left = 0.0
        return True


async def talk_aloud(
    session: SoundingSession,
    *,
    speaker: str | int | None = None,
    microphone: str | int | None = None,
    half_duplex: bool = True,
) -> None:
    """Let a person talk with the human, until the session's sound ends or this is cancelled.

    `speaker` and `microphone` are PortAudio's devices, its default ones by default. While the human
    is heard the microphone gives silence: there is no echo canceller, and the human would hear, and
    interrupt, itself. ``half_duplex=False`` is for headphones: then the user can interrupt it.
    However it is interrupted, it falls silent at once: what was queued for the speaker is dropped.

    Raises SoundDeviceError where a device cannot be opened, ImportError without ``navtalk[audio]``,
    and what ``session.say()`` raises.
    """
    gate = HalfDuplexGate() if half_duplex else None
    with Speaker(speaker, gate=gate) as loud, Microphone(microphone, gate=gate) as near:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                await session.say(near.pieces(), paced=False)

            tasks.start_soon(listen)
            hush = _Hush(loud)
            stop = session.on_interruption(hush.begin)
            try:
                async for frame in session.audio:
                    pcm = bytes(frame.planes[0])[: frame.samples * 4]
                    if hush.passes(pcm, frame.samples / frame.sample_rate):
                        loud.play(pcm)
            finally:
                stop()
            tasks.cancel_scope.cancel()
