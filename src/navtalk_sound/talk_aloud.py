"""A session by voice: the human from the speaker, the user from the microphone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio

from navtalk_proto.playout import HalfDuplexGate
from navtalk_sound.devices import Microphone, Speaker

__all__ = ["SoundingSession", "talk_aloud"]


class SoundingSession(Protocol):
    """What is asked of a session, of either loop."""

    @property
    def audio(self) -> AsyncIterator[Any]:
        """Decoded PyAV frames: s16, 48,000 Hz, stereo."""
        ...

    async def say(self, chunks: Any, *, paced: bool = ..., trailing_silence: float = ...) -> float:
        """Speak what an iterator yields."""
        ...


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

    Raises SoundDeviceError where a device cannot be opened, ImportError without ``navtalk[audio]``,
    and what ``session.say()`` raises.
    """
    gate = HalfDuplexGate() if half_duplex else None
    with Speaker(speaker, gate=gate) as loud, Microphone(microphone, gate=gate) as near:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                await session.say(near.pieces(), paced=False)

            tasks.start_soon(listen)
            async for frame in session.audio:
                loud.play(bytes(frame.planes[0])[: frame.samples * 4])
            tasks.cancel_scope.cancel()
