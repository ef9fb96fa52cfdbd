"""What a digital human makes of what it hears and reads."""

from __future__ import annotations

from typing import Final, Protocol

from attrs import field, frozen

from navtalk_asyncio.emulator.voice import MAX_TEXT, Synthesiser, find_synthesiser
from navtalk_asyncio.emulator.voice_activity import measure

__all__ = ["GREETING", "Brain", "EchoBrain", "Reply"]

GREETING: Final = "Hello, I am the emulator's digital human."
"""What the echo brain says when it is asked to speak first."""


@frozen(kw_only=True)
class Reply:
    """What is said: its text, and its sound as PCM16, mono, 24,000 Hz (empty: only the text)."""

    text: str
    pcm: bytes = field(repr=lambda pcm: f"<{len(pcm)} bytes>")


class Brain(Protocol):
    """Understands speech and answers. Each call may be cancelled: by barge-in or by the end."""

    async def hear(self, pcm: bytes) -> str:
        """The transcript of one utterance: PCM16, mono, 24,000 Hz, with some silence around it.

        It becomes input_audio_transcription.completed (protocol.md 5.15); "" is allowed.
        """
        ...

    async def reply(self, text: str, heard: bytes | None) -> Reply:
        """Answer a text that was typed, or that `hear` made of the utterance `heard`.

        An empty `text` without `heard` asks the human to speak first (protocol.md 5.11).
        """
        ...


class EchoBrain:
    """Says back what it hears, and reads out what was typed.

    It has no speech recogniser. The transcript of speech states what was measured, as in
    ``[1.9 s of speech, -21 dBFS]``; words are known only where they were typed.
    """

    def __init__(self, synthesiser: Synthesiser | None = None) -> None:
        self.synthesiser: Synthesiser = synthesiser or find_synthesiser()

    async def hear(self, pcm: bytes) -> str:
        """The length and the loudness of the utterance. Raises ValueError for half a sample."""
        measured = measure(pcm)
        if measured.seconds == 0.0:
            return f"[no speech, {measured.dbfs:.0f} dBFS]"
        return f"[{measured.seconds:.1f} s of speech, {measured.dbfs:.0f} dBFS]"

    async def reply(self, text: str, heard: bytes | None) -> Reply:
        """The same sound for an utterance; else the text, spoken by the synthesiser.

        Speaking first, it greets.
        A long text is cut, with an ellipsis in the reply where. Raises SynthesisError.
        """
        if heard is not None:
            return Reply(text=f"You said: {text}", pcm=heard)
        if not text:
            return Reply(
                text=GREETING + self._how(), pcm=await self.synthesiser.synthesise(GREETING)
            )
        opening = "You wrote: "
        room = MAX_TEXT - len(opening)
        quoted = text if len(text) <= room else text[: room - 1] + "…"
        pcm = await self.synthesiser.synthesise(opening + quoted)
        return Reply(text=f"{opening}{quoted}{self._how()}", pcm=pcm)

    def _how(self) -> str:
        """What a reader of the text cannot hear."""
        return " [in tones: espeak-ng is not installed]" if self.synthesiser.name == "tones" else ""
