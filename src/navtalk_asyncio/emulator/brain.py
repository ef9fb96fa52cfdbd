"""What a digital human makes of what it hears, reads and sees."""

from __future__ import annotations

import json
import re
from typing import Final, Protocol

from attrs import field, frozen

from navtalk_asyncio.emulator.calls import Tool, arguments_for, tool_named
from navtalk_asyncio.emulator.pictures import Picture
from navtalk_asyncio.emulator.voice import MAX_TEXT, Synthesiser, find_synthesiser
from navtalk_asyncio.emulator.voice_activity import measure
from navtalk_proto.wire.messages import JsonObject, JsonValue

__all__ = [
    "GREETING",
    "Brain",
    "Call",
    "CallResult",
    "Conversation",
    "EchoBrain",
    "Reply",
    "Said",
]

GREETING: Final = "Hello, I am the emulator's digital human."
"""What the echo brain says when it is asked to speak first and the avatar has no first message."""

_RECALL: Final = re.compile(r"\bwhat (did|have) i (say|said|tell|told)\b", re.IGNORECASE)
"""A question for what is remembered."""


@frozen(kw_only=True)
class Call:
    """A function call of a reply. `arguments` is what its JSON object holds."""

    name: str
    arguments: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class Reply:
    """What is said, and which functions are called.

    `text` may be empty: nothing is said then. `pcm` is its sound: PCM16, mono, 24,000 Hz, empty
    for none. `calls` are made when the text is told; what comes of them is another reply. `canned`:
    the same is said again and again, to anybody. It is worth being encoded once for all sessions;
    the mouth of any other reply follows its voice live, in each session.
    """

    text: str
    pcm: bytes = field(default=b"", repr=lambda pcm: f"<{len(pcm)} bytes>")
    calls: tuple[Call, ...] = ()
    canned: bool = False


@frozen(kw_only=True)
class Said:
    """One entry of the history. `role` is ``user`` or ``assistant``."""

    role: str
    text: str


@frozen(kw_only=True)
class CallResult:
    """What came of a function call. `output` None: the client sent no result in time (5.17)."""

    name: str
    output: str | None


@frozen(kw_only=True)
class Conversation:
    """What a brain knows when it is asked for an answer.

    `text`, `heard`, `picture` and `results` are what is new. All empty: the human is asked to
    speak first, or to go on (protocol.md 5.11).
    """

    text: str = ""
    """What was typed, or the transcript that the brain made of `heard`."""
    heard: bytes | None = field(
        default=None, repr=lambda pcm: "None" if pcm is None else f"<{len(pcm)} bytes>"
    )
    """The utterance that is to be answered: PCM16, mono, 24,000 Hz, with some silence around it;
    None for what was typed."""
    picture: Picture | None = None
    """The newest picture that came since the last answer."""
    results: tuple[CallResult, ...] = ()
    """What came of functions called earlier, in the order in which it came."""
    history: tuple[Said, ...] = ()
    """What was said before, oldest first, also in earlier sessions if the client replayed it."""
    turn: int = 1
    """The number of this answer in the session, from 1."""
    utterances: int = 0
    """How many utterances were heard in the session, this one included."""
    voice: str = ""
    """The voice that the client configured, else the avatar's."""
    prompt: str = ""
    """The instructions that the client configured, else the avatar's."""
    first_message: str = ""
    """What the avatar says first, by its settings."""
    tools: tuple[Tool, ...] = ()
    """The tools that the client announced."""


class Brain(Protocol):
    """Understands speech and answers. Each call may be cancelled: by barge-in or by the end.

    One brain serves every session of an emulator; what it has to know of one is in the
    Conversation.
    """

    async def hear(self, conversation: Conversation) -> str:
        """The transcript of the utterance in `heard`.

        It becomes input_audio_transcription.completed (protocol.md 5.15); "" is allowed.
        """
        ...

    async def reply(self, conversation: Conversation) -> Reply | None:
        """The answer to what is new in the conversation; None says nothing, not even that."""
        ...


class EchoBrain:
    """Says back what it hears, reads out what was typed, and calls the tools that a text names.

    It has no speech recogniser. The transcript of speech states what was measured, as in
    ``[1.9 s of speech, -21 dBFS]``; words are known only where they were typed. Which typed text
    calls which tool, and with what, is the rule of :mod:`navtalk_asyncio.emulator.calls`. Asked
    "What did I say?" it tells what the user said before.
    """

    def __init__(self, synthesiser: Synthesiser | None = None) -> None:
        self.synthesiser: Synthesiser = synthesiser or find_synthesiser()

    async def hear(self, conversation: Conversation) -> str:
        """The length and the loudness of the utterance. Raises ValueError for half a sample."""
        measured = measure(conversation.heard or b"")
        if measured.seconds == 0.0:
            return f"[no speech, {measured.dbfs:.0f} dBFS]"
        return f"[{measured.seconds:.1f} s of speech, {measured.dbfs:.0f} dBFS]"

    async def reply(self, conversation: Conversation) -> Reply:
        """The same sound for an utterance; else a sentence for each thing that is new, spoken.

        Speaking first, it greets. A long text is cut, with an ellipsis where. Raises
        SynthesisError.
        """
        told = [_result(result) for result in conversation.results]
        calls: tuple[Call, ...] = ()
        spoken = conversation.text
        if conversation.heard is None and spoken:
            tool = tool_named(spoken, conversation.tools)
            if _RECALL.search(spoken):
                told.append(_recalled(conversation.history))
            elif tool is not None:
                calls = (Call(name=tool.name, arguments=arguments_for(tool, spoken)),)
            else:
                told.append(f"You wrote: {spoken}")
        picture = conversation.picture
        if picture is not None:
            told.append(f"I see a picture of {picture.width} x {picture.height} pixels.")
        greets = not (told or calls or conversation.heard is not None)
        if greets:
            told.append(conversation.first_message or GREETING)
        text = " ".join(told)
        text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
        pcm = await self.synthesiser.synthesise(text) if text else b""
        # What a reader of the text cannot hear.
        how = " [in tones: espeak-ng is not installed]"
        text += how if text and self.synthesiser.name == "tones" else ""
        if conversation.heard is not None:
            echo = f"You said: {spoken}"
            text = f"{text} {echo}" if text else echo
            pcm += conversation.heard
        return Reply(text=text, pcm=pcm, calls=calls, canned=greets)


def _recalled(history: tuple[Said, ...]) -> str:
    said = [one.text for one in history if one.role == "user"]
    if not said:
        return "You said nothing before."
    things = "one thing" if len(said) == 1 else f"{len(said)} things"
    return f"You said {things}: {'; '.join(said)}"


def _result(result: CallResult) -> str:
    """A sentence about a function's result, which is JSON text or any other."""
    if result.output is None:
        return f"{result.name} gave no result."
    try:
        said = _plainly(json.loads(result.output))
    except (ValueError, RecursionError):
        said = result.output
    return f"{result.name} says: {said}."


def _plainly(value: JsonValue) -> str:
    """A JSON value in words: ``{"sky": "clear", "wind": [3, 4]}`` is "sky clear, wind 3, 4"."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plainly(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plainly, value))
    if isinstance(value, str):
        return value
    return json.dumps(value)
