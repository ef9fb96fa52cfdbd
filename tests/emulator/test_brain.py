"""The echo brain: what it measures, what it says back, and that it never pretends to understand."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from navtalk_asyncio.emulator.brain import Brain, EchoBrain, Reply
from navtalk_asyncio.emulator.voice import SynthesisError, ToneSynthesiser


def speech(seconds: float, dbfs: float) -> bytes:
    """A sine of 300 Hz with half a second of silence around it."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    amplitude = 32_768 * 10 ** (dbfs / 20) * np.sqrt(2)
    pcm = bytes(np.round(amplitude * np.sin(2 * np.pi * 300 * t)).astype("<i2"))
    return bytes(24_000) + pcm + bytes(24_000)


class Murmur:
    """Synthesises any text as so many bytes."""

    name = "murmur"

    async def synthesise(self, text: str) -> bytes:
        return text.encode("utf-16-le")


class Mute:
    """Fails."""

    name = "mute"

    async def synthesise(self, text: str) -> bytes:
        raise SynthesisError("no voice today")


def test_the_transcript_of_speech_is_its_measurement() -> None:
    brain: Brain = EchoBrain(Murmur())
    assert asyncio.run(brain.hear(speech(1.9, -21))) == "[1.9 s of speech, -21 dBFS]"
    assert asyncio.run(brain.hear(speech(0.5, -33))) == "[0.5 s of speech, -33 dBFS]"


def test_the_transcript_of_silence_says_so() -> None:
    brain = EchoBrain(Murmur())
    assert asyncio.run(brain.hear(bytes(48_000))) == "[no speech, -96 dBFS]"
    assert asyncio.run(brain.hear(b"")) == "[no speech, -96 dBFS]"


def test_speech_is_said_back_as_it_is() -> None:
    heard = speech(1.0, -20)

    async def main() -> Reply:
        brain = EchoBrain(Mute())  # an echo needs no synthesiser
        return await brain.reply(await brain.hear(heard), heard)

    reply = asyncio.run(main())
    assert reply == Reply(text="You said: [1.0 s of speech, -20 dBFS]", pcm=heard)


def test_typed_text_is_spoken() -> None:
    reply = asyncio.run(EchoBrain(Murmur()).reply("hello", None))
    assert reply.text == "You wrote: hello"
    assert reply.pcm.decode("utf-16-le") == "You wrote: hello"


def test_tones_say_that_they_are_tones() -> None:
    reply = asyncio.run(EchoBrain(ToneSynthesiser()).reply("hello", None))
    assert reply.text == "You wrote: hello [in tones: espeak-ng is not installed]"
    assert reply.pcm == asyncio.run(ToneSynthesiser().synthesise("You wrote: hello"))


def test_it_greets_when_it_is_asked_to_speak_first() -> None:
    greeting = "Hello, I am the emulator's digital human."
    reply = asyncio.run(EchoBrain(Murmur()).reply("", None))
    assert reply.text == greeting
    assert reply.pcm.decode("utf-16-le") == greeting
    tones = asyncio.run(EchoBrain(ToneSynthesiser()).reply("", None))
    assert tones.text == f"{greeting} [in tones: espeak-ng is not installed]"


def test_a_long_text_is_cut_where_one_can_see_it() -> None:
    reply = asyncio.run(EchoBrain(Murmur()).reply("x" * 5000, None))
    assert len(reply.text) == 2000
    assert reply.text.startswith("You wrote: xxx")
    assert reply.text.endswith("x…")
    exact = asyncio.run(EchoBrain(Murmur()).reply("x" * (2000 - 11), None))
    assert exact.text == "You wrote: " + "x" * (2000 - 11)


def test_a_failing_synthesiser_is_not_hidden() -> None:
    with pytest.raises(SynthesisError, match="no voice today"):
        asyncio.run(EchoBrain(Mute()).reply("hello", None))


def test_a_reply_does_not_show_its_sound() -> None:
    assert repr(Reply(text="hi", pcm=bytes(4))) == "Reply(text='hi', pcm=<4 bytes>)"
