"""The echo brain: what it measures, what it says back, and that it never pretends to understand."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from attrs import evolve

from navtalk_asyncio.emulator.brain import (
    Brain,
    Call,
    CallResult,
    Conversation,
    EchoBrain,
    Reply,
    Said,
)
from navtalk_asyncio.emulator.calls import Tool
from navtalk_asyncio.emulator.pictures import Picture
from navtalk_asyncio.emulator.voice import SynthesisError, ToneSynthesiser


def speech(seconds: float, dbfs: float) -> bytes:
    """A sine of 300 Hz with half a second of silence around it."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    amplitude = 32_768 * 10 ** (dbfs / 20) * np.sqrt(2)
    pcm = bytes(np.round(amplitude * np.sin(2 * np.pi * 300 * t)).astype("<i2"))
    return bytes(24_000) + pcm + bytes(24_000)


def spoken(pcm: bytes) -> Conversation:
    return Conversation(heard=pcm, utterances=1)


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
    assert asyncio.run(brain.hear(spoken(speech(1.9, -21)))) == "[1.9 s of speech, -21 dBFS]"
    assert asyncio.run(brain.hear(spoken(speech(0.5, -33)))) == "[0.5 s of speech, -33 dBFS]"


def test_the_transcript_of_silence_says_so() -> None:
    brain = EchoBrain(Murmur())
    assert asyncio.run(brain.hear(spoken(bytes(48_000)))) == "[no speech, -96 dBFS]"
    assert asyncio.run(brain.hear(spoken(b""))) == "[no speech, -96 dBFS]"


def test_speech_is_said_back_as_it_is() -> None:
    heard = speech(1.0, -20)

    async def main() -> Reply:
        brain = EchoBrain(Mute())  # an echo needs no synthesiser
        asked = spoken(heard)
        return await brain.reply(evolve(asked, text=await brain.hear(asked)))

    reply = asyncio.run(main())
    assert reply == Reply(text="You said: [1.0 s of speech, -20 dBFS]", pcm=heard)


def test_typed_text_is_spoken() -> None:
    reply = asyncio.run(EchoBrain(Murmur()).reply(Conversation(text="hello")))
    assert reply.text == "You wrote: hello"
    assert reply.pcm.decode("utf-16-le") == "You wrote: hello"


def test_tones_say_that_they_are_tones() -> None:
    reply = asyncio.run(EchoBrain(ToneSynthesiser()).reply(Conversation(text="hello")))
    assert reply.text == "You wrote: hello [in tones: espeak-ng is not installed]"
    assert reply.pcm == asyncio.run(ToneSynthesiser().synthesise("You wrote: hello"))


def test_it_greets_when_it_is_asked_to_speak_first() -> None:
    greeting = "Hello, I am the emulator's digital human."
    reply = asyncio.run(EchoBrain(Murmur()).reply(Conversation(text="")))
    assert reply.text == greeting
    assert reply.pcm.decode("utf-16-le") == greeting
    tones = asyncio.run(EchoBrain(ToneSynthesiser()).reply(Conversation(text="")))
    assert tones.text == f"{greeting} [in tones: espeak-ng is not installed]"


def test_a_long_text_is_cut_where_one_can_see_it() -> None:
    reply = asyncio.run(EchoBrain(Murmur()).reply(Conversation(text="x" * 5000)))
    assert len(reply.text) == 2000
    assert reply.text.startswith("You wrote: xxx")
    assert reply.text.endswith("x…")
    exact = asyncio.run(EchoBrain(Murmur()).reply(Conversation(text="x" * (2000 - 11))))
    assert exact.text == "You wrote: " + "x" * (2000 - 11)


def test_a_failing_synthesiser_is_not_hidden() -> None:
    with pytest.raises(SynthesisError, match="no voice today"):
        asyncio.run(EchoBrain(Mute()).reply(Conversation(text="hello")))


def test_a_reply_does_not_show_its_sound() -> None:
    assert "pcm=<4 bytes>," in repr(Reply(text="hi", pcm=bytes(4)))


# ---- the conversation


def answer(**new: object) -> Reply:
    return asyncio.run(EchoBrain(Murmur()).reply(Conversation(**new)))  # type: ignore[arg-type]


def test_an_avatar_says_its_own_first_message() -> None:
    assert answer(first_message="Welcome to the hotel.").text == "Welcome to the hotel."


def test_a_greeting_is_canned_and_an_echo_is_not() -> None:
    assert answer().canned
    assert not answer(text="Good morning").canned


@pytest.mark.parametrize(
    ("history", "text"),
    [
        ((), "You said nothing before."),
        ((Said(role="assistant", text="Hello."),), "You said nothing before."),
        ((Said(role="user", text="I am Ana."),), "You said one thing: I am Ana."),
        (
            (
                Said(role="user", text="I am Ana."),
                Said(role="assistant", text="Hello Ana."),
                Said(role="user", text="I like tea."),
            ),
            "You said 2 things: I am Ana.; I like tea.",
        ),
    ],
)
def test_what_did_i_say(history: tuple[Said, ...], text: str) -> None:
    assert answer(text="So, what did I say?", history=history).text == text


def test_a_text_that_names_a_tool_calls_it_and_says_nothing() -> None:
    tools = (Tool(name="get_weather", parameters={"properties": {"city": {"type": "string"}}}),)
    assert answer(text='What is the weather in "Paris"?', tools=tools) == Reply(
        text="", calls=(Call(name="get_weather", arguments={"city": "Paris"}),)
    )


def test_speech_calls_nothing() -> None:
    reply = answer(text="[weather]", heard=b"ab", tools=(Tool(name="get_weather"),))
    assert reply == Reply(text="You said: [weather]", pcm=b"ab")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ('{"sky": "clear", "degrees": 21.5}', "f says: sky clear, degrees 21.5."),
        ('{"a": [1, null, true], "b": {"c": "d"}}', "f says: a 1, null, true, b c d."),
        ('"sunny"', "f says: sunny."),
        ("not JSON", "f says: not JSON."),
        ("[" * 100_000, f"f says: {'[' * 1991}…"),
        ("", "f says: ."),
        (None, "f gave no result."),
    ],
)
def test_a_result_is_told(output: str | None, said: str) -> None:
    assert answer(results=(CallResult(name="f", output=output),)).text == said


def test_results_are_told_before_what_was_typed_and_once_only_called() -> None:
    results = (CallResult(name="f", output="1"), CallResult(name="g", output="2"))
    reply = answer(results=results, text="thanks", tools=(Tool(name="f"),))
    assert reply.text == "f says: 1. g says: 2. You wrote: thanks"


def test_a_picture_is_acknowledged_with_its_size() -> None:
    picture = Picture(format="PNG", width=640, height=480, data=b"")
    assert answer(picture=picture).text == "I see a picture of 640 x 480 pixels."
    reply = answer(picture=picture, text="look")
    assert reply.text == "You wrote: look I see a picture of 640 x 480 pixels."
    assert reply.pcm.decode("utf-16-le") == reply.text


def test_a_picture_beside_speech_is_told_and_the_echo_follows() -> None:
    picture = Picture(format="PNG", width=6, height=4, data=b"")
    reply = answer(picture=picture, heard=b"ab", text="[1 s]")
    assert reply.text == "I see a picture of 6 x 4 pixels. You said: [1 s]"
    assert reply.pcm == "I see a picture of 6 x 4 pixels.".encode("utf-16-le") + b"ab"
