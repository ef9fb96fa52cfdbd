"""The digital human in a conversation: it listens and answers.

What it says and when follows protocol.md 3.2, 5.15 to 5.17 and 6.4. What it understands and answers
is its brain's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from attrs import define, evolve

from navtalk_asyncio.emulator.avatars import Avatar
from navtalk_asyncio.emulator.brain import Brain, Call, CallResult, Conversation, Reply
from navtalk_asyncio.emulator.memory import REMEMBERED_TEXT, Memory, ResultError
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece, MouthpieceError
from navtalk_asyncio.emulator.pictures import Picture, PictureError, look
from navtalk_asyncio.emulator.speech_clip import SpeechClips
from navtalk_asyncio.emulator.voice_activity import (
    SpeechBegan,
    SpeechEnded,
    VoiceActivityDetector,
)
from navtalk_asyncio.server import ServerSession
from navtalk_proto.errors import NavTalkError, SessionClosedError
from navtalk_proto.limits import KIB
from navtalk_proto.wire.messages import (
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioDone,
    FunctionCallOutput,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    Message,
    ResponseCreate,
    ServerError,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

__all__ = ["TOLD_TEXT", "TOOL_TIMEOUT", "BrainError", "Human"]

log: Final = logging.getLogger("navtalk.emulator")

TOLD_TEXT: Final = 64 * KIB
"""Characters that a transcript may have: about an hour of speech, far below a message's limit."""

TOOL_TIMEOUT: Final = 10.0
"""Seconds that a function's result is waited for. No SDK of the service sends one (5.17), so the
conversation goes on without it."""

MAX_REPLY_CALLS: Final = 16
"""Function calls of one reply."""

_WORDS: Final = re.compile(r"\S+\s*|\s+")

_T = TypeVar("_T")


class BrainError(NavTalkError):
    """The brain failed to hear or to answer; the session lives, and so may the next answer.

    What a brain raised is in `__cause__` and in the log. Its text is not: it may quote a secret.
    """

    code = "brain"
    hint = "see the log of navtalk.emulator for what the brain raised"


@define(eq=False)
class _Turn:
    """One response, from the wish for it to its audio.done."""

    task: asyncio.Task[None] | None = None
    telling: bool = False
    """Its transcript has begun on the wire, so it must end there too."""
    stopped: bool = False
    results: tuple[CallResult, ...] = ()
    """What it was to tell of functions; kept for the next one if it does not get to it."""

    @property
    def thinking(self) -> bool:
        """Whether it is being made, and nothing of it was told yet."""
        return not (self.task is None or self.task.done() or self.telling or self.stopped)

    def stop(self) -> None:
        """Give it up: at once where nothing of it was told, else after its end was told."""
        self.stopped = True
        if self.task is not None and not self.telling:
            self.task.cancel()


class Human:
    """Listens and answers: one response at a time, the newest wins. Belongs to one session."""

    def __init__(
        self,
        session: ServerSession,
        mouthpiece: Mouthpiece,
        brain: Brain,
        avatar: Avatar,
        tasks: asyncio.TaskGroup,
        *,
        tool_timeout: float = TOOL_TIMEOUT,
        speeches: SpeechClips | None = None,
    ) -> None:
        """`speeches` prepares canned replies; without it every voice is followed live."""
        self._session = session
        self._mouthpiece = mouthpiece
        self._brain = brain
        self._tasks = tasks
        self._tool_timeout = tool_timeout
        self._speeches = speeches
        self._ear = VoiceActivityDetector()
        self._memory = Memory(avatar)
        self._picture: str | None = None
        self._wanted = False
        self._giving_up: asyncio.Task[None] | None = None
        self._turn = _Turn()
        self._telling = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def take(self, message: Message) -> None:
        """One message of the client. Those that mean nothing to a listener pass by (E7)."""
        memory = self._memory
        match message:
            case AudioAppend(audio=pcm):
                await self._hear(self._ear.feed(pcm))
            case AudioCommit():
                await self._hear(self._ear.end())
            case AudioClear():
                await self._forget()
            case UserMessage(texts=texts, role=role):
                memory.message(texts, role)
            case InputText(content=text):
                memory.message((text,), "user")
                self._answer()
            case ResponseCreate():
                self._respond()
            case ToolResult(call_id=call_id, output=output):
                await self._result(call_id, output, asks=False, reply=False)
            case FunctionCallOutput(call_id=call_id, output=output, reply=reply):
                await self._result(call_id, output, asks=True, reply=reply)
            case InputImage(content=content, reply=reply):
                self._picture = content
                if reply:
                    self._answer(picture_wanted=True)
            case InputConfig(voice=voice, prompt=prompt, tools=tools):
                memory.configure(voice=voice, prompt=prompt, tools=tools)
            case InputFunctionCall(tools=tools):
                memory.configure(tools=tools)
            case SessionUpdate(session=session):
                memory.update(session)
                await self._session.send(SessionUpdated())  # 6.4: as the direct reply only.
            case _:
                pass

    def hush(self) -> None:
        """Stop speaking and answering (protocol.md 3.2: barge-in drops what is queued)."""
        self._give_up_turn()
        self._mouthpiece.interrupt()

    def _give_up_turn(self) -> None:
        self._wanted = False
        self._wait_no_more()
        self._memory.wait_no_more()
        if self._turn.thinking:
            self._memory.keep(self._turn.results)
        self._turn.stop()

    async def _forget(self) -> None:
        """input_audio_buffer.clear: neither what is being heard nor what is being said goes on."""
        heard_speech = self._ear.speaking
        self._ear.clear()
        self.hush()
        if heard_speech:
            await self._session.send(SpeechStopped())  # Who was told of its start waits for it.

    async def _hear(self, events: list[SpeechBegan | SpeechEnded]) -> None:
        for event in events:
            match event:
                case SpeechBegan():
                    self.hush()
                    await self._session.send(SpeechStarted())
                case SpeechEnded(pcm=pcm):
                    await self._session.send(SpeechStopped())
                    self.hush()
                    heard = self._memory.heard(pcm)
                    self._start(heard, partial(self._answer_speech, heard))

    # ---- function calls

    async def _result(self, call_id: str, output: str, *, asks: bool, reply: bool) -> None:
        """Take a result. `asks`: of the form that says itself whether it wants a reply (5.17)."""
        try:
            self._memory.answered(call_id, output)
        except ResultError as error:
            await self._session.send(ServerError(message=str(error), code=error.code))
            return
        if reply or (asks and self._wanted and not self._memory.waiting):
            self._respond()
        elif not (self._memory.waiting or self._wanted):
            self._wait_no_more()

    def _respond(self) -> None:
        """A wish for a response.

        One answer is made of all results of a reply's calls, however many wishes come with them.
        """
        memory = self._memory
        if memory.waiting and not memory.typed:
            self._wanted = True
        elif memory.anything_new or not self._turn.thinking:
            self._answer()

    def _wait_no_more(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    async def _give_up(self) -> None:
        """Go on without results that do not come (5.17), unless the conversation went on."""
        await asyncio.sleep(self._tool_timeout)
        self._giving_up = None
        self._memory.give_up()
        self._answer()

    # ---- answers

    def _answer(self, *, picture_wanted: bool = False) -> None:
        self._give_up_turn()
        conversation = self._memory.asked()
        if conversation.text or not conversation.results:
            self._mouthpiece.interrupt()  # Else what was said with the call is said to its end.
        self._start(conversation, partial(self._say, conversation, picture_wanted=picture_wanted))

    def _start(
        self, conversation: Conversation, answer: Callable[[_Turn], Awaitable[None]]
    ) -> None:
        """Begin the newest response; an older one was given up."""
        turn = self._turn = _Turn(results=conversation.results)
        turn.task = self._tasks.create_task(self._guarded(answer, turn))

    async def _guarded(self, answer: Callable[[_Turn], Awaitable[None]], turn: _Turn) -> None:
        try:
            try:
                await answer(turn)
            except (BrainError, MouthpieceError, PictureError) as error:
                log.warning("! no answer: %s", error, exc_info=error.__cause__)
                async with self._telling:
                    turn.telling = True
                    await self._session.send(ServerError(message=str(error), code=error.code))
                    await self._session.send(AudioDone())  # 6.4: after every response.
        except SessionClosedError:
            pass  # The client left in the middle of an answer.

    async def _answer_speech(self, heard: Conversation, turn: _Turn) -> None:
        transcript = _tellable(await _asked(self._brain.hear(heard)))
        await self._session.send(InputTranscript(content=transcript))
        self._memory.said("user", transcript[:REMEMBERED_TEXT])
        await self._say(evolve(heard, text=transcript), turn)

    async def _say(
        self, conversation: Conversation, turn: _Turn, *, picture_wanted: bool = False
    ) -> None:
        """E5 and 3.2: deltas, the whole text, audio.done; the voice goes over WebRTC.

        An interrupted response ends in the same way, with the text that was told of it.
        """
        picture = await self._look(wanted=picture_wanted)
        reply = await _asked(self._brain.reply(evolve(conversation, picture=picture)))
        if reply is None:
            return
        text = _tellable(reply.text)
        _check_calls(reply.calls)
        async with self._telling:
            self._speak(reply)
            turn.telling = True
            if text or not reply.calls:
                await self._tell(text, turn)
            if not turn.stopped:
                # Before audio.done: clients that hang up by a call wait for that (6.4).
                for message in self._memory.issue(reply.calls):
                    await self._session.send(message)
            if self._memory.waiting and not turn.stopped:
                self._giving_up = self._tasks.create_task(self._give_up())
            await self._session.send(AudioDone())

    async def _tell(self, text: str, turn: _Turn) -> None:
        response = f"resp_{next(self._numbers):02d}"
        told = ""
        for word in _WORDS.findall(text):
            if turn.stopped:
                break
            told += word
            await self._session.send(TranscriptDelta(response_id=response, content=word))
        await self._session.send(TranscriptDone(response_id=response, content=told))
        self._memory.said("assistant", told[:REMEMBERED_TEXT])

    async def _look(self, *, wanted: bool) -> Picture | None:
        """The newest picture since the last answer. Raises PictureError for one that is asked for.

        A camera's frame that came beside the conversation (`reply` 0) is not worth an error.
        """
        content = self._picture
        if content is None:
            return None
        try:
            picture = await asyncio.to_thread(look, content)
        except PictureError as error:
            self._looked_at(content)
            if wanted:
                raise
            log.warning("! %s", error)
            return None
        self._looked_at(content)
        return picture

    def _looked_at(self, content: str) -> None:
        if self._picture is content:  # Else another one came meanwhile, for the next answer.
            self._picture = None

    def _speak(self, reply: Reply) -> None:
        try:
            speech = None
            if reply.canned and reply.pcm and self._speeches is not None:
                speech = self._speeches.speech(reply.pcm)
            self._mouthpiece.say(reply.pcm, speech)
        except ValueError as error:
            raise BrainError(f"the brain's speech cannot be said: {error}") from error


async def _asked(thinking: Awaitable[_T]) -> _T:
    """What the brain makes of something. Raises BrainError, whatever it raised."""
    try:
        return await thinking
    except NavTalkError as error:
        raise BrainError(str(error)) from error
    except Exception as error:  # a brain is the user's code: any failure is an answer's failure
        raise BrainError(f"the brain failed: {type(error).__name__}") from error


def _check_calls(calls: tuple[Call, ...]) -> None:
    """Raise BrainError for what cannot be a function call's message."""
    if len(calls) > MAX_REPLY_CALLS:
        raise BrainError(f"the brain calls {len(calls)} functions, {MAX_REPLY_CALLS} can be called")
    for call in calls:
        _tellable(call.name)
        try:
            _tellable(json.dumps(call.arguments, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise BrainError(f"the arguments of {call.name} are not JSON") from error


def _tellable(text: str) -> str:
    """A text that fits into a message. Raises BrainError."""
    if len(text) > TOLD_TEXT:
        raise BrainError(f"the brain gave {len(text)} characters, {TOLD_TEXT} can be told")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BrainError("the brain gave a lone surrogate, which is no text")
    return text
