"""A visit to the emulator with navtalk's own client over real sockets: protocol.md 3.2 and 5."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from navtalk_asyncio import ClientSession, connect, serve_session
from navtalk_asyncio.emulator import (
    Avatar,
    AvatarDirectory,
    Brain,
    Conversation,
    Emulator,
    Reply,
    emulate,
)
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.visit import HumanConfig, visit
from navtalk_asyncio.emulator.voice import SynthesisError
from navtalk_asyncio.server import ServerSession
from navtalk_asyncio.testing import MemoryTransport, PaperEngine, memory_transports
from navtalk_asyncio.websocket import open_websocket
from navtalk_proto import Endpoint
from navtalk_proto.config import ServerConfig
from navtalk_proto.errors import ConnectFailedError, ConnectRefusedError
from navtalk_proto.events import Event, MessageReceived, OfferIgnored, ServerWarning
from navtalk_proto.wire.endpoint import parse_request_target
from navtalk_proto.wire.messages import (
    AudioClear,
    AudioCommit,
    AudioDone,
    IceServer,
    InputText,
    InputTranscript,
    Message,
    ResponseCreate,
    ServerError,
    SpeechStarted,
    SpeechStopped,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

MessageT = TypeVar("MessageT", bound=Message)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def tone(seconds: float, hertz: float = 300.0) -> bytes:
    """A sine at -13 dBFS, PCM16 at 24 kHz."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    return bytes(np.round(10_000 * np.sin(2 * np.pi * hertz * t)).astype("<i2"))


SILENCE = bytes(48_000)
"""One second: twice what ends a turn."""


class Parrot:
    """A brain that answers at once: with the sound it heard, or with `seconds` of a tone."""

    def __init__(self, seconds: float = 0.5) -> None:
        self.seconds = seconds

    async def hear(self, conversation: Conversation) -> str:
        return f"{len(conversation.heard or b'') // 2} samples"

    async def reply(self, conversation: Conversation) -> Reply:
        text, heard = conversation.text, conversation.heard
        said = f"Parrot: {text}" if text else "Good day."
        return Reply(text=said, pcm=tone(self.seconds) if heard is None else heard)


class Log:
    """Every event of a session; `await` the next message of a class."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._read = 0
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.events if isinstance(event, MessageReceived)]

    async def next(self, kind: type[MessageT]) -> MessageT:
        """The next message of a class that was not waited for yet; those before it are passed."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._read < len(self.events):
                    event = self.events[self._read]
                    self._read += 1
                    if isinstance(event, MessageReceived) and isinstance(event.message, kind):
                        return event.message
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def talking(
    human: Emulator, endpoint: Endpoint | None = None, **options: Any
) -> AsyncIterator[tuple[ClientSession, Log]]:
    log = Log()
    async with connect(
        endpoint or human.endpoint(), proxy=None, observe=log, timeout=PATIENCE, **options
    ) as session:
        yield session, log


async def level(frames: AsyncIterator[Any]) -> tuple[float, NDArray[np.float64]]:
    """dBFS of the next 20 ms, and their samples of the left channel."""
    frame = await anext(frames)
    samples = frame.to_ndarray().astype(np.float64).reshape(-1, len(frame.layout.channels))[:, 0]
    power = float(np.mean(samples**2))
    return (10 * math.log10(power / 32768.0**2) if power else -math.inf), samples


async def audible(session: ClientSession) -> AsyncIterator[Any]:
    """Wait until the human's voice is heard; what goes on reading it."""
    frames = aiter(session.audio)
    async with asyncio.timeout(PATIENCE):
        while (await level(frames))[0] < -30.0:
            pass
    return frames


async def quiet(frames: AsyncIterator[Any]) -> float:
    """Seconds until there is 0.3 s of silence (below -60 dBFS), in the audio's own time."""
    silent = heard = 0
    async with asyncio.timeout(PATIENCE):
        while silent < 15:
            silent = silent + 1 if (await level(frames))[0] < -60.0 else 0
            heard += 1
    return (heard - silent) * 0.02


# ---- 3.2: turns


async def test_a_spoken_turn_in_its_order_and_its_voice() -> None:
    async with emulate(brain=Parrot()) as human, talking(human) as (session, log):
        await session.send_audio(tone(0.6) + SILENCE)
        frames = await audible(session)
        await log.next(AudioDone)
        # 0.6 s of speech and the 0.2 s after it that belong to it.
        heard = f"{round(0.8 * 24_000)} samples"
        answer = f"Parrot: {heard}"
        deltas = [m for m in log.messages if isinstance(m, TranscriptDelta)]
        done = next(m for m in log.messages if isinstance(m, TranscriptDone))
        assert log.messages == [
            SpeechStarted(),
            SpeechStopped(),
            InputTranscript(content=heard),
            *deltas,
            TranscriptDone(response_id=done.response_id, content=answer),
            AudioDone(),
        ]
        assert len(deltas) == 3
        assert "".join(delta.content for delta in deltas) == answer
        assert {delta.response_id for delta in deltas} == {done.response_id}
        assert 0.3 < await quiet(frames) < 1.0


async def test_typed_text_is_answered_aloud() -> None:
    async with emulate(brain=Parrot()) as human, talking(human) as (session, log):
        await session.send_text("Hello!")
        assert (await log.next(TranscriptDone)).content == "Parrot: Hello!"
        await audible(session)


async def test_a_text_without_a_wish_for_a_response_waits_for_one() -> None:
    async with emulate(brain=Parrot()) as human, talking(human, media=False) as (session, log):
        await session.send_text("first", respond=False)
        await session.send_text("second", respond=False)
        await session.send(ResponseCreate())
        assert (await log.next(TranscriptDone)).content == "Parrot: second"
        await log.next(AudioDone)
        # Answered once: the next wish is one for the human to go on, with nothing new.
        await session.send(ResponseCreate())
        assert (await log.next(TranscriptDone)).content == "Good day."


async def test_input_text_asks_for_a_response_by_itself() -> None:
    async with emulate(brain=Parrot()) as human, talking(human, media=False) as (session, log):
        await session.send(InputText(content="in one message"))
        assert (await log.next(TranscriptDone)).content == "Parrot: in one message"


async def test_a_plain_wish_for_a_response_greets() -> None:
    async with emulate() as human, talking(human) as (session, log):
        await session.send(ResponseCreate())
        content = (await log.next(TranscriptDone)).content or ""
        assert content.startswith("Hello, I am the emulator's digital human.")
        await audible(session)


async def test_history_is_not_answered_and_its_assistant_not_quoted() -> None:
    history = [
        UserMessage(texts=("My name is Ana.",)),
        UserMessage(texts=("Hello Ana.",), role="assistant"),
    ]
    async with (
        emulate(brain=Parrot()) as human,
        talking(human, media=False, history=history) as (session, log),
    ):
        await session.send(ResponseCreate())
        assert (await log.next(TranscriptDone)).content == "Parrot: My name is Ana."
        await log.next(AudioDone)
        assert [type(m) for m in log.messages].count(TranscriptDone) == 1


async def test_speech_is_newer_than_what_was_typed_before_it() -> None:
    async with emulate(brain=Parrot()) as human, talking(human, media=False) as (session, log):
        await session.send_text("old", respond=False)
        await session.send_audio(tone(0.5) + SILENCE)
        await log.next(AudioDone)
        await session.send(ResponseCreate())
        assert (await log.next(TranscriptDone)).content == "Good day."


async def test_commit_ends_an_utterance_and_clear_forgets_one() -> None:
    async with emulate(brain=Parrot()) as human, talking(human, media=False) as (session, log):
        await session.send_audio(tone(0.5))
        await log.next(SpeechStarted)
        await session.send(AudioClear())
        await log.next(SpeechStopped)
        await session.send_audio(tone(0.4))
        await log.next(SpeechStarted)
        await session.send(AudioCommit())
        await log.next(AudioDone)
        heard = [m for m in log.messages if isinstance(m, InputTranscript)]
        assert heard == [InputTranscript(content="9600 samples")]


# ---- barge-in


async def test_speech_stops_the_voice() -> None:
    async with emulate(brain=Parrot(seconds=30.0)) as human, talking(human) as (session, log):
        await session.send_text("Tell me everything.")
        frames = await audible(session)
        # Speech that does not end, so that no answer to it sounds.
        await session.send_audio(tone(0.3))
        await log.next(SpeechStarted)
        assert await quiet(frames) < 3.0


async def test_clear_stops_the_voice() -> None:
    async with emulate(brain=Parrot(seconds=30.0)) as human, talking(human) as (session, log):
        await session.send_text("Tell me everything.")
        frames = await audible(session)
        await session.send(AudioClear())
        assert await quiet(frames) < 3.0
        # Nothing was being heard, so nothing is said about it.
        await log.next(AudioDone)
        assert not any(isinstance(m, SpeechStopped) for m in log.messages)


class Ponderer(Parrot):
    """Never finds an answer to the first question, and notes that it was told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.stopped = asyncio.Event()

    async def reply(self, conversation: Conversation) -> Reply:
        if not self.asked.is_set():
            self.asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
        return await super().reply(conversation)


@pytest.mark.parametrize("interruption", ["speech", "text", "clear"])
async def test_an_answer_that_is_being_thought_of_is_given_up(interruption: str) -> None:
    brain = Ponderer()
    async with emulate(brain=brain) as human, talking(human, media=False) as (session, log):
        await session.send_text("first")
        async with asyncio.timeout(PATIENCE):
            await brain.asked.wait()
        if interruption == "speech":
            await session.send_audio(tone(0.3))
        elif interruption == "text":
            await session.send_text("second")
        else:
            await session.send(AudioClear())
        async with asyncio.timeout(PATIENCE):
            await brain.stopped.wait()
        await session.send_text("third")
        while (await log.next(TranscriptDone)).content != "Parrot: third":
            pass
        texts = [m.content for m in log.messages if isinstance(m, TranscriptDone)]
        assert "Parrot: first" not in texts


class Novelist(Parrot):
    """Answers "long" with more text than a slow socket takes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote = asyncio.Event()

    async def reply(self, conversation: Conversation) -> Reply:
        if conversation.text != "long":
            return await super().reply(conversation)
        self.wrote.set()
        return Reply(text="word " * 8000, pcm=b"")


def on_paper(brain: Brain) -> tuple[MemoryTransport, MemoryTransport, asyncio.Task[None]]:
    """A visit without sockets and media: our end, the human's end, and the visit."""
    config = HumanConfig(
        brain=brain,
        directory=AvatarDirectory(),
        ice_servers=(IceServer(urls=("stun:127.0.0.1:9",)),),
    )

    async def handler(session: ServerSession) -> None:
        await visit(session, Mouthpiece(), config)

    ours, theirs = memory_transports()
    request = parse_request_target("/wss/v2/realtime-chat?license=x&name=navtalk.Lea")
    visiting = asyncio.create_task(
        serve_session(handler, theirs, request, config=ServerConfig(), engine=PaperEngine)
    )
    return ours, theirs, visiting


async def test_an_interrupted_transcript_ends_before_the_next_begins() -> None:
    brain = Novelist()
    ours, theirs, visiting = on_paper(brain)

    async def next_of(kind: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                frame: dict[str, Any] = json.loads(await ours.receive())
                if frame["type"] == kind:
                    return frame

    await next_of("realtime.session.updated")
    theirs.stalled = True
    await ours.send_text(json.dumps({"type": "realtime.input_text", "data": {"content": "long"}}))
    async with asyncio.timeout(PATIENCE):
        await brain.wrote.wait()
    # The answer waits for the socket now, in the middle of its transcript.
    await ours.send_text(json.dumps({"type": "realtime.input_text", "data": {"content": "new"}}))
    seen: list[dict[str, Any]] = []
    theirs.stalled = False
    async with asyncio.timeout(PATIENCE):
        while [frame["type"] for frame in seen].count("realtime.response.audio.done") < 2:
            seen.append(json.loads(await ours.receive()))
    await ours.close(1000, "")
    async with asyncio.timeout(PATIENCE):
        await visiting

    said = [frame for frame in seen if frame["type"].startswith("realtime.response.")]
    kinds = [frame["type"].removeprefix("realtime.response.") for frame in said]
    first_done = kinds.index("audio_transcript.done")
    assert kinds[first_done:] == [
        "audio_transcript.done",
        "audio.done",
        "audio_transcript.delta",
        "audio_transcript.delta",
        "audio_transcript.done",
        "audio.done",
    ]
    told = said[first_done]["data"]["content"]
    assert told == "word " * first_done
    assert 0 < first_done < 8000
    assert len({frame["data"]["id"] for frame in said[: first_done + 1]}) == 1
    assert said[-2]["data"]["content"] == "Parrot: new"
    assert said[-2]["data"]["id"] != said[0]["data"]["id"]


# ---- who is let in


async def test_a_wrong_licence_is_refused() -> None:
    async with emulate(brain=Parrot()) as human:
        with pytest.raises(ConnectRefusedError) as refused:
            async with talking(human, human.endpoint(license="sk_navtalk_WRONG")):
                pass
        assert refused.value.text == "Invalid license key"
        assert "WRONG" not in str(refused.value)


async def test_an_unknown_avatar_is_refused() -> None:
    async with emulate(brain=Parrot()) as human:
        with pytest.raises(ConnectRefusedError) as refused:
            async with talking(human, human.endpoint(name="navtalk.Nobody")):
                pass
        assert refused.value.text == "Avatar not found"


async def test_a_wrong_path_is_refused() -> None:
    async with emulate(brain=Parrot()) as human:
        endpoint = Endpoint(
            base_url=f"{human.url}/elsewhere", license="sk_navtalk_EXAMPLE", name="navtalk.Lea"
        )
        with pytest.raises(ConnectRefusedError, match="no such path"):
            async with talking(human, endpoint):
                pass


async def test_an_ambiguous_name_is_warned_of() -> None:
    twins = (Avatar(id="1" * 32, name="twin"), Avatar(id="2" * 32, name="twin"))
    async with (
        emulate(brain=Parrot(), avatars=twins) as human,
        talking(human, media=False) as (_, log),
    ):
        (warning,) = (event for event in log.events if isinstance(event, ServerWarning))
        assert warning.avatar_id == "2" * 32
        assert warning.text == (
            "Multiple avatars share the name 'twin'; using the most recently updated one."
        )


async def test_more_visitors_than_there_is_room_for_are_turned_away() -> None:
    async with (
        emulate(brain=Parrot(), max_visitors=1) as human,
        talking(human, media=False),
    ):
        with pytest.raises(ConnectFailedError, match="503"):
            async with talking(human, media=False):
                pass


# ---- clients that behave badly


class Noted(logging.Handler):
    """Waits for a log record."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.seen = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.seen.set()


@asynccontextmanager
async def noted(text: str) -> AsyncIterator[asyncio.Event]:
    log = logging.getLogger("navtalk.emulator")
    handler, before = Noted(text), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.seen
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


async def test_a_client_that_never_answers_the_offer_keeps_its_conversation() -> None:
    config = ServerConfig(answer_timeout=0.05)
    async with (
        noted("no media") as given_up,
        emulate(brain=Parrot(), config=config) as human,
        talking(human, media=False) as (session, log),
    ):
        async with asyncio.timeout(PATIENCE):
            await given_up.wait()
        assert any(isinstance(event, OfferIgnored) for event in log.events)
        for text in ("one", "two"):
            await session.send_text(text)
            assert (await log.next(TranscriptDone)).content == f"Parrot: {text}"
            await log.next(AudioDone)


async def at_once(session: ClientSession, log: Log, brain: Ponderer) -> None:
    pass


async def while_it_thinks(session: ClientSession, log: Log, brain: Ponderer) -> None:
    await session.send_text("hm")
    async with asyncio.timeout(PATIENCE):
        await brain.asked.wait()


async def while_it_listens(session: ClientSession, log: Log, brain: Ponderer) -> None:
    await session.send_audio(tone(0.5))
    await log.next(SpeechStarted)


async def while_it_speaks(session: ClientSession, log: Log, brain: Ponderer) -> None:
    brain.asked.set()
    brain.seconds = 30.0
    await session.send_text("Tell me everything.")
    await audible(session)


@pytest.mark.parametrize("when", [at_once, while_it_thinks, while_it_listens, while_it_speaks])
async def test_a_client_that_vanishes_leaves_nothing(
    when: Callable[[ClientSession, Log, Ponderer], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    brain = Ponderer()
    transports = []

    async def opener(endpoint: Endpoint) -> Any:
        transports.append(await open_websocket(endpoint, max_size=2**20, proxy=None))
        return transports[0]

    async with emulate(brain=brain) as human:
        before = asyncio.all_tasks()
        async with talking(human, transport=opener) as (session, log):
            await when(session, log, brain)
            (visit_of_ours,) = human.server.sessions
            transports[0]._connection.transport.abort()
        left = asyncio.all_tasks() - before
        if left:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(left)
        assert human.server.sessions == frozenset()
        assert visit_of_ours.end is not None
        async with talking(human) as (session, log):
            brain.asked.set()
            await session.send_text("next, please")
            assert (await log.next(TranscriptDone)).content == "Parrot: next, please"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_client_that_leaves_before_it_is_answered_is_no_error() -> None:
    ours, _, visiting = on_paper(Parrot())
    for _ in range(3):
        await ours.send_text(json.dumps({"type": "session.update", "session": {}}))
    ours.lose()
    async with asyncio.timeout(PATIENCE):
        await visiting


async def test_a_client_that_leaves_before_it_reads_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with emulate(brain=Parrot()) as human:
        before = asyncio.all_tasks()
        for _ in range(20):
            transport = await open_websocket(human.endpoint(), max_size=2**20, proxy=None)
            transport._connection.transport.abort()
        left = asyncio.all_tasks() - before
        if left:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(left)
        assert human.server.sessions == frozenset()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# ---- several visits


async def test_three_clients_are_answered_each_in_its_own_voice() -> None:
    async def one(human: Emulator, hertz: float) -> float:
        async with talking(human) as (session, _):
            await session.send_audio(tone(1.5, hertz) + SILENCE)
            frames = await audible(session)
            async with asyncio.timeout(PATIENCE):
                heard = np.concatenate([(await level(frames))[1] for _ in range(25)])
            spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.size)))
            return float(np.argmax(spectrum)) * 48_000 / heard.size

    async with emulate(brain=Parrot()) as human:
        async with asyncio.TaskGroup() as tasks:
            voices = [tasks.create_task(one(human, hertz)) for hertz in (300.0, 500.0, 900.0)]
        assert [round(voice.result() / 10) * 10 for voice in voices] == [300, 500, 900]


# ---- brains


class Broken(Parrot):
    """Raises what it is given, in the method that it is told; once."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__()
        self._where, self._error = where, error

    def _fail(self, where: str) -> None:
        if where == self._where:
            self._where = "nowhere"
            raise self._error

    async def hear(self, conversation: Conversation) -> str:
        self._fail("hear")
        return await super().hear(conversation)

    async def reply(self, conversation: Conversation) -> Reply:
        self._fail("reply")
        return await super().reply(conversation)


class Odd(Parrot):
    """Says something that cannot be said, once; `replies` are what."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply: Reply | None = reply

    async def reply(self, conversation: Conversation) -> Reply:
        odd, self._reply = self._reply, None
        return odd or await super().reply(conversation)


@pytest.mark.parametrize(
    ("brain", "message", "code"),
    [
        (Broken("hear", KeyError("sk_secret")), "the brain failed: KeyError", "brain"),
        (Broken("reply", KeyError("sk_secret")), "the brain failed: KeyError", "brain"),
        (Broken("reply", SynthesisError("no voice today")), "no voice today", "brain"),
        (
            Odd(Reply(text="half", pcm=b"\0\0\0")),
            "the brain's speech cannot be said: "
            "audio of an odd number of bytes is not PCM16",
            "brain",
        ),
        (
            Odd(Reply(text="x" * 70_000, pcm=b"")),
            "the brain gave 70000 characters, 65536 can be told",
            "brain",
        ),
        (
            Odd(Reply(text="\ud83d", pcm=b"")),
            "the brain gave a lone surrogate, which is no text",
            "brain",
        ),
        (
            Odd(Reply(text="long", pcm=bytes(48_000 * 241))),
            "0.0 s wait to be said, at most 240 s may",
            "mouthpiece",
        ),
    ],
    ids=["hear", "reply", "synthesis", "odd pcm", "long text", "surrogate", "long speech"],
)  # fmt: skip
async def test_a_failing_brain_becomes_an_error_and_the_session_lives(
    brain: Brain, message: str, code: str
) -> None:
    async with emulate(brain=brain) as human, talking(human, media=False) as (session, log):
        await session.send_audio(tone(0.5) + SILENCE)
        assert await log.next(ServerError) == ServerError(message=message, code=code)
        await log.next(AudioDone)
        assert not any(isinstance(m, TranscriptDone | TranscriptDelta) for m in log.messages)
        await session.send_text("still there?")
        assert (await log.next(TranscriptDone)).content == "Parrot: still there?"


class Listener(Parrot):
    """Keeps what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    async def hear(self, conversation: Conversation) -> str:
        assert conversation.heard is not None
        self.heard.append(conversation.heard)
        return "What time is breakfast?"

    async def reply(self, conversation: Conversation) -> Reply:
        assert conversation.heard is self.heard[-1]
        return Reply(text="Breakfast is at seven.", pcm=tone(0.5, 500.0))


async def test_the_users_brain_hears_what_was_said_and_its_answer_is_given() -> None:
    brain = Listener()
    async with emulate(brain=brain) as human, talking(human) as (session, log):
        spoken = tone(0.6)
        await session.send_audio(spoken + SILENCE)
        assert (await log.next(InputTranscript)).content == "What time is breakfast?"
        assert (await log.next(TranscriptDone)).content == "Breakfast is at seven."
        await audible(session)
        assert [pcm[: len(spoken)] for pcm in brain.heard] == [spoken]
        assert set(brain.heard[0][len(spoken) :]) == {0}
