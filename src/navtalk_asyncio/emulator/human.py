"""One visit to the digital human: a handler of ``serve()``.

What it says and when follows protocol.md 3.1 and 3.2 and the rules E1 to E12 of 6.5. What it
understands and answers is its brain's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from attrs import define, frozen

from navtalk_asyncio.emulator.avatars import AvatarDirectory, FoundAvatar
from navtalk_asyncio.emulator.brain import Brain, Reply
from navtalk_asyncio.emulator.tracks import Mouthpiece, MouthpieceError
from navtalk_asyncio.emulator.voice_activity import (
    SpeechBegan,
    SpeechEnded,
    VoiceActivityDetector,
)
from navtalk_asyncio.server import ServerSession
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.errors import MediaError, NavTalkError, SessionClosedError
from navtalk_proto.events import MessageReceived
from navtalk_proto.limits import KIB
from navtalk_proto.media import MediaLine
from navtalk_proto.wire.endpoint import DEFAULT_PATH
from navtalk_proto.wire.messages import (
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioDone,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    FunctionCallOutput,
    IceServer,
    InputImage,
    InputText,
    InputTranscript,
    Message,
    ResponseCreate,
    ServerError,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

__all__ = ["BrainError", "HumanConfig", "visit"]

log: Final = logging.getLogger("navtalk.emulator")

REMEMBERED_TEXT: Final = 4000
"""Characters of the newest user message that are kept for the answer."""

TOLD_TEXT: Final = 64 * KIB
"""Characters that a transcript may have: about an hour of speech, far below a message's limit."""

_WORDS: Final = re.compile(r"\S+\s*|\s+")

_T = TypeVar("_T")


class BrainError(NavTalkError):
    """The brain failed to hear or to answer; the session lives, and so may the next answer.

    What a brain raised is in `__cause__` and in the log. Its text is not: it may quote a secret.
    """

    code = "brain"
    hint = "see the log of navtalk.emulator for what the brain raised"


@frozen(kw_only=True)
class HumanConfig:
    """What every visit has in common."""

    brain: Brain
    directory: AvatarDirectory
    ice_servers: tuple[IceServer, ...]
    """What clients are told; not empty (E2)."""
    media: tuple[MediaLine, ...] = SEND_MEDIA
    """What is offered; empty for a conversation without picture and voice."""


async def visit(session: ServerSession, mouthpiece: Mouthpiece, config: HumanConfig) -> None:
    """Be the digital human for one session; returns when the client is gone or was refused."""
    found = await _admit(session, config)
    if found is None:
        return
    await session.send(
        ConnectedSuccess(session_id=str(uuid.uuid4()), ice_servers=config.ice_servers)
    )
    if found.ambiguous:
        await session.send(
            ConnectedWarning(
                message=f"Multiple avatars share the name {found.avatar.name!r}; "
                "using the most recently updated one.",
                avatar_id=found.avatar.id,
            )
        )
    async with asyncio.TaskGroup() as tasks:
        human = _Human(session, mouthpiece, config, tasks)
        offering = tasks.create_task(_offer(session, config.media))
        await session.send(SessionCreated())
        await session.send(SessionUpdated())
        async for event in session.events():
            if isinstance(event, MessageReceived):
                await human.take(event.message)
        offering.cancel()
        human.hush()


async def _admit(session: ServerSession, config: HumanConfig) -> FoundAvatar | None:
    """Look at licence, path and avatar, in the order in which a service can."""
    request = session.request
    found = config.directory.find(avatar_id=request.avatar_id, name=request.name)
    if not config.directory.accepts(request.license):
        refusal = "Invalid license key"
    elif request.path != DEFAULT_PATH:
        refusal = f"There is no such path; sessions are at {DEFAULT_PATH}"
    elif found is None:
        refusal = "Avatar not found"
    else:
        return found
    await session.send(ConnectedFail(message=refusal))
    return None


async def _offer(session: ServerSession, media: tuple[MediaLine, ...]) -> None:
    """E3, E11: one complete offer; a client that never answers it is not our failure."""
    if not media:
        return
    try:
        await session.negotiate(*media)
    except (MediaError, SessionClosedError) as error:
        log.info("! no media: %s", error)


@define(eq=False)
class _Turn:
    """One response, from the wish for it to its audio.done."""

    task: asyncio.Task[None] | None = None
    telling: bool = False
    """Its transcript has begun on the wire, so it must end there too."""
    stopped: bool = False

    def stop(self) -> None:
        """Give it up: at once where nothing of it was told, else after its end was told."""
        self.stopped = True
        if self.task is not None and not self.telling:
            self.task.cancel()


class _Human:
    """Listens and answers: one response at a time, the newest wins."""

    def __init__(
        self,
        session: ServerSession,
        mouthpiece: Mouthpiece,
        config: HumanConfig,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._session = session
        self._mouthpiece = mouthpiece
        self._config = config
        self._tasks = tasks
        self._ear = VoiceActivityDetector()
        self._typed: str | None = None
        self._turn = _Turn()
        self._telling = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def take(self, message: Message) -> None:
        """One message of the client. Those that mean nothing to a listener pass by (E7)."""
        match message:
            case AudioAppend(audio=pcm):
                await self._hear(self._ear.feed(pcm))
            case AudioCommit():
                await self._hear(self._ear.end())
            case AudioClear():
                await self._forget()
            case UserMessage(texts=texts, role="user"):
                self._typed = " ".join(texts)[:REMEMBERED_TEXT]
            case InputText(content=text):
                self._answer(text[:REMEMBERED_TEXT])
            case ResponseCreate():
                self._answer(self._typed or "")
            case ToolResult(output=output) | FunctionCallOutput(output=output, reply=False):
                self._typed = output[:REMEMBERED_TEXT]
            case FunctionCallOutput(output=output):
                self._answer(output[:REMEMBERED_TEXT])
            case InputImage(content=content, reply=True):
                self._answer(f"a picture of {len(content)} characters")
            case SessionUpdate():
                await self._session.send(SessionUpdated())  # 6.4: as the direct reply only.
            case _:
                pass

    def hush(self) -> None:
        """Stop speaking and answering (protocol.md 3.2: barge-in drops what is queued)."""
        self._turn.stop()
        self._mouthpiece.interrupt()

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
                    self._start(partial(self._answer_speech, pcm))

    def _answer(self, text: str) -> None:
        self._start(partial(self._answer_text, text))

    def _start(self, answer: Callable[[_Turn], Awaitable[None]]) -> None:
        """Begin the newest response; an older one is given up."""
        self.hush()
        self._typed = None  # Answered now, or older than what is.
        turn = self._turn = _Turn()
        turn.task = self._tasks.create_task(self._guarded(answer, turn))

    async def _guarded(self, answer: Callable[[_Turn], Awaitable[None]], turn: _Turn) -> None:
        try:
            try:
                await answer(turn)
            except (BrainError, MouthpieceError) as error:
                log.warning("! no answer: %s", error, exc_info=error.__cause__)
                async with self._telling:
                    turn.telling = True
                    await self._session.send(ServerError(message=str(error), code=error.code))
                    await self._session.send(AudioDone())  # 6.4: after every response.
        except SessionClosedError:
            pass  # The client left in the middle of an answer.

    async def _answer_speech(self, pcm: bytes, turn: _Turn) -> None:
        transcript = _tellable(await _asked(self._config.brain.hear(pcm)))
        await self._session.send(InputTranscript(content=transcript))
        await self._say(await _asked(self._config.brain.reply(transcript, pcm)), turn)

    async def _answer_text(self, text: str, turn: _Turn) -> None:
        await self._say(await _asked(self._config.brain.reply(text, None)), turn)

    async def _say(self, reply: Reply, turn: _Turn) -> None:
        """E5 and 3.2: deltas, the whole text, audio.done; the voice goes over WebRTC.

        An interrupted response ends in the same way, with the text that was told of it.
        """
        text = _tellable(reply.text)
        async with self._telling:
            self._speak(reply.pcm)
            turn.telling = True
            response = f"resp_{next(self._numbers):02d}"
            told = ""
            for word in _WORDS.findall(text):
                if turn.stopped:
                    break
                told += word
                await self._session.send(TranscriptDelta(response_id=response, content=word))
            await self._session.send(TranscriptDone(response_id=response, content=told))
            await self._session.send(AudioDone())

    def _speak(self, pcm: bytes) -> None:
        try:
            self._mouthpiece.say(pcm)
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


def _tellable(text: str) -> str:
    """A text that fits into a message. Raises BrainError."""
    if len(text) > TOLD_TEXT:
        raise BrainError(f"the brain gave {len(text)} characters, {TOLD_TEXT} can be told")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BrainError("the brain gave a lone surrogate, which is no text")
    return text
