"""The session that an application holds: the same names and signatures on every loop.

Nothing here knows a loop. An adapter's driver, which is a Pump, gives the few things that do.
"""

from __future__ import annotations

import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from attrs import define, evolve, field

from navtalk_proto.connection import Counters
from navtalk_proto.errors import (
    ConnectError,
    LocalProtocolError,
    NavTalkError,
    SessionClosedError,
)
from navtalk_proto.event_buffer import DroppingBuffer, Flag
from navtalk_proto.events import Closed, Event, Ready, ResponseInterrupted, Usable, UserSpeaking
from navtalk_proto.history import CallEntry, History, Turn
from navtalk_proto.intents import Close, Intent, Negotiate, SayText, SendAudio
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.pacing import Pacer
from navtalk_proto.pump import Carrier
from navtalk_proto.stats import SessionStats, TurnLatency
from navtalk_proto.tool_runner import ToolRunnerCalls
from navtalk_proto.tools.arguments import result_text
from navtalk_proto.tools.schema import ToolLike, ToolSet
from navtalk_proto.turn_latency import TurnLatencyMeter
from navtalk_proto.voice_line import VoiceLine
from navtalk_proto.wire.audio import FRAME_BYTES, SAMPLE_RATE, SAMPLE_WIDTH, split_pcm
from navtalk_proto.wire.messages import (
    AudioClear,
    AudioCommit,
    FunctionCallOutput,
    InputConfig,
    InputText,
    JsonValue,
    ResponseCreate,
    SessionUpdate,
    ToolResult,
)
from navtalk_proto.wishes import PendingWishes

if TYPE_CHECKING:
    from pathlib import Path

    from navtalk_proto.tracing.output import TraceOptions
    from navtalk_proto.tracing.recorder import Recorder

__all__ = [
    "PACE_MS",
    "SESSION_ENDED",
    "TRAILING_SILENCE",
    "TURNS_HIGH_WATER",
    "ClientCalls",
    "SessionCalls",
    "is_farewell",
]

PACE_MS: Final = 64
"""One paced piece of a recording: 3,072 bytes, the message size of the stock clients (5.12)."""

TRAILING_SILENCE: Final = 1.0
"""Silence after a recording, in seconds: the server's voice activity detection needs it."""

TURNS_HIGH_WATER: Final = 256
"""Finished turns that may wait for the application: an hour of talk."""

SESSION_ENDED: Final = (ConnectError, SessionClosedError)
"""What those who wait for a session learn when it ends, also because its driver failed: beside the
failure itself they say nothing new."""


def is_farewell(error: Exception) -> bool:
    """Whether an exception, or everything in a group, says that a session is over."""
    if isinstance(error, ExceptionGroup):
        return all(map(is_farewell, error.exceptions))
    return isinstance(error, SessionClosedError)


class _Hears(Protocol):
    """A recorder, as far as the core knows one."""

    def say(self, pcm: bytes) -> None:
        """A piece of the user's voice."""
        ...


_HearingT = TypeVar("_HearingT", bound=_Hears)


@define(eq=False)
class _Wish:
    """A negotiation that somebody waits for."""

    told: Flag
    error: NavTalkError | None = field(default=None)


def _tell(wish: _Wish, error: NavTalkError | None) -> None:
    wish.error = error
    wish.told.set()


class SessionCalls:
    """A running session, client or server: what both can do."""

    def __init__(self, driver: Carrier) -> None:
        self._pump = driver
        self._wishes: PendingWishes[_Wish] = PendingWishes(_tell)

    # ---- what the core knows

    @property
    def id(self) -> str | None:
        """The session's id, None before connected.success; that of the newest connection."""
        return self._pump.core.session_id

    @property
    def state(self) -> State:
        """The lifecycle state of the newest connection."""
        return self._pump.core.state

    @property
    def end(self) -> Closed | None:
        """How the session ended; None while it lives."""
        return self._pump.end

    @property
    def counters(self) -> Counters:
        """What the newest connection's protocol core counted; a live object."""
        return self._pump.core.counters

    @property
    def events_dropped(self) -> int:
        """Events that gave way because nobody reads :meth:`events`."""
        return self._pump.events.dropped

    def stats(self) -> SessionStats:
        """What was measured until now: see docs/stats.md. At any time, also after the end.

        Cheap enough for once a second and more: nothing is asked of the network. With an engine on
        a thread that is asked, for less than a millisecond.
        """
        return SessionStats(
            at=self._pump.time(),
            media=self._pump.media_stats(),
            latencies=self._latencies(),
            counters=evolve(self.counters),
            events_dropped=self.events_dropped,
        )

    def _latencies(self) -> tuple[TurnLatency, ...]:
        return ()

    # ---- events

    def events(self) -> AsyncIterator[Event]:
        """Every event since the session began, in order; ends after Closed. One reader.

        An application that reads slowly slows the far end down. While nobody reads, the oldest
        events give way, counted in :attr:`events_dropped`: before the first reader, and after a
        loop over the events was left. One that keeps the iterator without reading from it stops
        the session at 1024 events, until it reads on, closes or drops the iterator.
        """
        return aiter(self._pump.events)

    def observe(self, event: Event) -> None:
        """Called by the driver with each event, before :meth:`events` gives it out."""
        self._wishes.observe(event)

    # ---- sending

    async def send(self, intent: Intent) -> None:
        """Carry out an intent: a message of our role, SayText, SendAudio, Negotiate or Close.

        Waits while the socket is slow, and while the session is being reconnected. Raises
        LocalProtocolError where the protocol does not allow the intent now, SessionLostError when
        the connection is lost while it waits, SessionClosedError after the end.
        """
        if not isinstance(intent, Close):
            await self._pump.room()
        self._pump.send(intent)

    async def negotiate(self, *media: MediaLine) -> None:
        """Offer these m-lines and wait for the exchange to complete (seed step 5).

        Raises MediaError when it does not: no answer in time, the engine or the far end failed.
        What media runs keeps running then. Raises SessionLostError when the connection is lost,
        SessionClosedError when the session ends.
        """
        await self._pump.room()
        losses = self._pump.losses
        wish = _Wish(type(self._pump).flag())
        self._wishes.add(self._pump.core.wishes + 1, wish)
        try:
            self._pump.send(Negotiate(media=media))
            await wish.told.wait()
        finally:
            self._wishes.forget(wish)
        if isinstance(wish.error, SessionClosedError):
            self._pump.check_kept(losses)
        if wish.error is not None:
            raise wish.error

    @asynccontextmanager
    async def trace(self, trace: str | Path | TraceOptions) -> AsyncGenerator[None]:
        """Write what happens while the block runs to a file, line by line: a path, or TraceOptions.

        Licences and credentials are not in it. What began before cannot be replayed, only looked
        at: ``connect(trace=...)`` sees a session from its beginning, and a session that reconnects
        begins again. Raises TraceError where the file cannot be written.
        """
        from navtalk_proto.tracing.output import trace_options

        options = trace_options(trace)
        assert options is not None
        async with self._trace_file(options) as recorder:
            self._pump.begin_trace(recorder)
            try:
                yield
            finally:
                self._pump.end_trace(recorder)

    def _trace_file(self, options: TraceOptions) -> AbstractAsyncContextManager[Recorder]:
        """Writes a file while the block runs; files are an adapter's."""
        raise NotImplementedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when it is closed, bounded by ``close_timeout``. Idempotent."""
        await self._pump.close(code, reason)


class ClientCalls(SessionCalls):
    """What a client can do besides."""

    def __init__(self, driver: Carrier) -> None:
        super().__init__(driver)
        self._history = History()
        self._turns: DroppingBuffer[Turn] = DroppingBuffer(
            type(driver).flag, high_water=TURNS_HIGH_WATER, what="turns"
        )
        self._begun = type(driver).flag()
        """Set at READY, and at an end before it."""
        self._pacer = Pacer()
        self._line: VoiceLine | None = None
        self._tools: ToolRunnerCalls | None = None
        self._voice_taps: list[Callable[[bytes], None]] = []
        self._interruption_taps: list[Callable[[], None]] = []
        self._latency = TurnLatencyMeter()
        self._awaiting = False
        """Whether the engine was told to listen for an answer."""

    # ---- what was said

    @property
    def history(self) -> History:
        """What was said in this session, and in those that its History continues; a live object.

        It can still be read when the session is over, and given to the next ``connect()``.
        """
        return self._history

    def continue_history(self, history: History) -> None:
        """Write into this history from now on; called by ``connect()`` before the session opens."""
        self._history = history

    def turns(self) -> AsyncIterator[Turn]:
        """The finished turns of both speakers since the session began, as they finish.

        UserTurn for the user, HumanTurn for the human; ends after the session. One reader, beside
        and independent of that of :meth:`events`. Read or not, more than 256 that wait make the
        oldest give way, counted in :attr:`turns_dropped`: nothing is slowed down.
        """
        return aiter(self._turns)

    @property
    def turns_dropped(self) -> int:
        """Turns that gave way because nobody read :meth:`turns`."""
        return self._turns.dropped

    def observe(self, event: Event) -> None:
        """Called by the driver with each event, before :meth:`events` gives it out."""
        super().observe(event)
        self._latency.observe(event, now=self._pump.time())
        if isinstance(event, Usable):
            self._awaiting = False  # it was another connection's engine
        self._follow_answer()
        if isinstance(event, UserSpeaking | ResponseInterrupted):
            self._interrupted()
        entry = self._history.observe(event)
        if entry is not None and not isinstance(entry, CallEntry):
            self._turns.put(entry)
        if isinstance(event, Closed):
            self._turns.end()
        if isinstance(event, Ready | Closed):
            self._begun.set()

    # ---- sending

    async def send(self, intent: Intent) -> None:
        """As :meth:`SessionCalls.send`; what answers a function call is entered in the history.

        A call of a lost connection is not answered on another: SessionLostError is raised at once
        for an answer while the session is being reconnected.
        """
        if isinstance(intent, ToolResult | FunctionCallOutput):
            self._pump.check_up()
        await super().send(intent)
        if isinstance(intent, SendAudio):
            self._said(intent.pcm)
        elif isinstance(intent, AudioClear):
            self._interrupted()
        if isinstance(intent, ToolResult | FunctionCallOutput):
            self._history.answered(intent.call_id, intent.output)
        elif isinstance(intent, ResponseCreate | InputText) or (
            isinstance(intent, SayText) and intent.respond
        ):
            self._latency.asked(now=self._pump.time())
            self._follow_answer()

    def _latencies(self) -> tuple[TurnLatency, ...]:
        return self._latency.latencies

    def _follow_answer(self) -> None:
        """Have the engine listen while the first sound or movement of an answer is waited for."""
        if self._latency.watching is not self._awaiting:
            self._awaiting = not self._awaiting
            self._pump.await_answer(self._sign_of_answer if self._awaiting else None)

    def _sign_of_answer(self, kind: MediaKind, at: float) -> None:
        self._latency.media(kind, at)
        self._follow_answer()

    # ---- reconnecting

    def retry_now(self) -> None:
        """Make the next attempt to reconnect at once, not when its delay is over.

        For a button, or the news that the network is back. Nothing happens while no attempt is
        waited for. Raises LocalProtocolError on a session opened without ``reconnect``.
        """
        self._pump.retry_now()

    # ---- tools

    def use_tools(self, runner: ToolRunnerCalls) -> None:
        """Set by ``connect()``: what runs the functions that it was given."""
        self._tools = runner

    @property
    def tools(self) -> ToolRunnerCalls:
        """What runs the functions given as ``connect(tools=...)``, and its counters."""
        assert self._tools is not None, "a session of connect() has a tool runner"
        return self._tools

    async def answer(self, call_id: str, result: object, *, respond: bool = True) -> None:
        """Answer a FunctionCall of a tool without a function, once (protocol.md 5.17).

        `result` is a str as it is, or anything that cattrs turns into JSON. A response is asked for
        unless `respond` is False: at once, or after the answers of functions that still run.

        Raises LocalProtocolError for a call that is unknown or answered, and for a result that is
        not JSON or longer than 64 Ki characters; SessionClosedError after the end.
        """
        await self.send(ToolResult(call_id=call_id, output=result_text(result)))
        if respond:
            self.tools.asked()

    # ---- speaking and typing

    async def send_text(self, text: str, *, respond: bool = True) -> None:
        """Say something in writing, and ask for a response unless `respond` is False.

        Raises LocalProtocolError in transparency and audioBack mode, which have no turns (6.2).
        """
        await self.send(SayText(text=text, respond=respond))

    async def send_audio(self, pcm: bytes, *, paced: bool = False) -> None:
        """Send the user's voice: PCM16 little-endian, mono, 24,000 Hz, of any length.

        Waits until the session is READY, and while the socket is slow. Chunks of less than 20 ms
        are joined (see :class:`~navtalk_proto.intents.SendAudio`). `paced` sends pieces of 64 ms,
        each when all that was sent paced before it has been spoken; returns with the last one. On a
        session with an open :meth:`voice_line` paced audio is written to that.

        Raises LocalProtocolError for an odd number of bytes, SessionLostError when the connection
        is lost while this waits, SessionClosedError when the session ends first.
        """
        if len(pcm) % SAMPLE_WIDTH:
            raise LocalProtocolError("PCM16 audio has an even number of bytes")
        if not paced:
            await self._send_when_ready(SendAudio(pcm=pcm))
        elif self._line is not None:
            await self._line.write(pcm)
        else:
            for piece in split_pcm(pcm):
                await self._due()
                self._speak(piece)

    async def say(
        self, chunks: AsyncIterable[bytes], *, paced: bool = True, trailing_silence: float = 0.0
    ) -> float:
        """Speak what a speech service or a microphone yields; returns its length in seconds.

        `chunks` are PCM16 little-endian, mono, 24,000 Hz, of any length, also an odd number of
        bytes. They are sent as :meth:`send_audio` does. `trailing_silence` seconds follow, which
        the returned length does not count: a server that listens needs them to hear the end of a
        turn. An async generator is closed, also when this raises.

        Raises ValueError for a silence that is negative or not finite, before anything is read;
        LocalProtocolError when all chunks together were half a sample too long; what `chunks`
        raises; SessionLostError when the connection is lost, because no other heard the beginning;
        and SessionClosedError when the session ends. What was read until then was said.
        """
        if not (math.isfinite(trailing_silence) and trailing_silence >= 0):
            raise ValueError(f"trailing_silence is a number of seconds, not {trailing_silence}")
        said, half, losses = 0, b"", self._pump.losses
        try:
            async for chunk in chunks:
                self._pump.check_kept(losses)
                pcm = half + chunk if half else chunk
                whole = len(pcm) - len(pcm) % SAMPLE_WIDTH
                half = pcm[whole:]
                await self.send_audio(pcm[:whole], paced=paced)
                said += whole
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if half:
            raise LocalProtocolError("the audio ended in the middle of a sample")
        silence = round(trailing_silence * SAMPLE_RATE) * SAMPLE_WIDTH
        for at in range(0, silence, FRAME_BYTES):
            await self.send_audio(bytes(min(FRAME_BYTES, silence - at)), paced=paced)
        return said / (SAMPLE_RATE * SAMPLE_WIDTH)

    async def say_file(
        self,
        path: str | Path,
        *,
        paced: bool = True,
        trailing_silence: float = TRAILING_SILENCE,
    ) -> float:
        """Speak a recording; returns its length in seconds, without the silence.

        Any file that PyAV reads, resampled to 24 kHz mono. In real time, or as fast as the socket
        takes it with ``paced=False``. `trailing_silence` seconds follow, so that the server hears
        the end of the turn.

        Raises ValueError for a silence that is negative or not finite, before anything is opened;
        OSError where the file cannot be read, AudioFileError where it is no audio or broken, and
        SessionClosedError when the session ends meanwhile: what was decoded until then was said.
        """
        return await self.say(self._decode(path), paced=paced, trailing_silence=trailing_silence)

    @asynccontextmanager
    async def with_own_voice(
        self, recording: AbstractAsyncContextManager[_HearingT]
    ) -> AsyncGenerator[_HearingT]:
        """A recording that is given what is said too; what ``record(own_voice=True)`` returns."""
        async with recording as recorder:
            self._voice_taps.append(recorder.say)
            try:
                yield recorder
            finally:
                self._voice_taps.remove(recorder.say)

    # ---- configuring and directing

    async def configure(
        self,
        *,
        voice: str | None = None,
        prompt: str | None = None,
        tools: Iterable[ToolLike] | None = None,
    ) -> None:
        """Change voice, instructions or tools in mid-session, from the next answer on (5.7, 6.7).

        None leaves a thing as it is; an empty `tools` takes all tools away. `tools` are those of
        ``connect()``, and replace them; functions that run go on. No server acknowledges it. Raises
        ValueError when nothing is given, ToolError for a function that cannot be a tool.
        """
        if voice is None and prompt is None and tools is None:
            raise ValueError("nothing to configure: give voice, prompt or tools")
        offered = None if tools is None else ToolSet.of(tools)
        announced = None if offered is None else offered.announced
        await self.send(InputConfig(voice=voice, prompt=prompt, tools=announced))
        if offered is not None and self._tools is not None:
            self._tools.offer(offered)

    async def update(self, **session: JsonValue) -> None:
        """Configure a server of early v2, which takes session.update (protocol.md 5.18).

        With OpenAI's keys: ``update(instructions="...", turn_detection={"type": "server_vad"})``.
        Waits for READY inside the core. Newer servers take :meth:`configure`. Raises ValueError
        when nothing is given.
        """
        if not session:
            raise ValueError("nothing to update")
        await self.send(SessionUpdate(session=session))

    async def respond(self) -> None:
        """Have the human speak now, without saying anything to it (protocol.md 5.11).

        For a greeting, or after messages that were sent with ``respond=False``.
        """
        await self.send(ResponseCreate())

    async def interrupt(self) -> None:
        """Stop the human, and drop the voice that the server has not dealt with (protocol.md 5.13).

        What was said to :meth:`send_audio` and is still held for a frame is dropped too. What waits
        on a voice line is not: see :meth:`~navtalk_proto.voice_line.VoiceLine.clear`.
        """
        await self._send_when_ready(AudioClear())
        if self._tools is not None:
            self._tools.interrupted()

    def on_interruption(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told`, at once, when the human falls silent: for who still holds sound of it.

        That is when the server heard the user begin to speak, and when :meth:`interrupt` was sent;
        both may come twice for one interruption. `told` is called on the session's loop, and must
        not raise. Returns what ends that.
        """
        self._interruption_taps.append(told)

        def stop() -> None:
            self._interruption_taps.remove(told)

        return stop

    def _interrupted(self) -> None:
        for told in tuple(self._interruption_taps):
            told()

    async def commit(self) -> None:
        """End the utterance now, without waiting for the server to hear silence (5.13)."""
        await self._send_when_ready(AudioCommit())

    # ---- parts

    async def _send_when_ready(self, intent: Intent) -> None:
        await self._ready()
        await self.send(intent)

    async def _ready(self) -> None:
        """Wait until audio and pictures are allowed, or never will be (protocol.md 3.1 rule 4)."""
        if self.state not in (State.READY, State.CLOSING, State.CLOSED):
            await self._begun.wait()

    async def _due(self) -> None:
        """Wait until the next piece of paced audio may leave."""
        losses = self._pump.losses
        while True:
            await self._ready()
            await self._pump.room()
            self._pump.check_kept(losses)
            now = self._pump.time()
            due = self._pacer.due(now)
            if due <= now:
                return
            await self._sleep_until(due)

    def _speak(self, piece: bytes) -> None:
        """Send a piece of paced audio; not to be parted from :meth:`_due` by a wait."""
        self._pump.send(SendAudio(pcm=piece))
        self._pacer.sent(len(piece) // SAMPLE_WIDTH, self._pump.time())
        self._said(piece)

    def _said(self, pcm: bytes) -> None:
        self._latency.voice_sent(pcm, now=self._pump.time())
        for tap in self._voice_taps:
            tap(pcm)

    @contextmanager
    def _voice_line(self) -> Generator[VoiceLine]:
        """The session's one line, for as long as the block of an adapter's voice_line() lasts."""
        if self._line is not None:
            raise RuntimeError("this session has a voice line already")
        self._line = VoiceLine(
            due=self._due,
            speak=self._speak,
            interrupt=self.interrupt,
            flag=type(self._pump).flag,
        )
        try:
            yield self._line
        finally:
            self._line = None

    async def _sleep_until(self, when: float) -> None:
        """Wait for a point in time of the driver's clock; filled in by the adapter."""
        raise NotImplementedError

    def _decode(self, path: str | Path) -> AsyncGenerator[bytes]:
        """Decode a file into pieces of PACE_MS, off the loop; filled in by the adapter."""
        raise NotImplementedError
