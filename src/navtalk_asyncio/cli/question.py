"""Ask a digital human one question and keep the answer: what ``demo`` and ``talk`` do."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import av
from attrs import define, field

from navtalk_asyncio.cli.captions import Captions
from navtalk_asyncio.cli.level_meter import AUDIBLE_DBFS, dbfs
from navtalk_proto.errors import SessionClosedError
from navtalk_proto.events import (
    Closed,
    Connected,
    ErrorReported,
    Event,
    Negotiated,
    Notice,
    PeerClosing,
    ProtocolViolation,
    Ready,
    ResponseFailed,
    ResponseGenerated,
    ResponseInterrupted,
    ServerWarning,
    Usable,
    UserSilent,
    UserSpeaking,
    UserTurn,
)
from navtalk_proto.exception_groups import raise_unchanged, unwrap
from navtalk_proto.media import MediaStarted, MediaStateChanged
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = ["Answer", "Report", "ask", "describe", "reporting"]

AUDIBLE_SECONDS: Final = 0.3
"""Less than this is a click, not an answer."""

QUIET_SECONDS: Final = 1.0
"""Silence that ends an answer; a pause between sentences is shorter."""

SILENCE_MS: Final = 64
"""One piece of silence, as long as the messages of the stock clients (protocol.md 5.12)."""

Report: TypeAlias = Callable[[str, str], None]
"""Told of each step: its name (one word, stable) and a sentence for a person."""


@define
class Answer:
    """What came back."""

    video_frames: int = 0
    width: int = 0
    height: int = 0
    audible_seconds: float = 0.0
    quiet_seconds: float = 0.0
    loudest_dbfs: float = -math.inf
    heard: str | None = None
    """What the server says that it heard."""
    transcript: str | None = None
    """What the human said."""
    asked: bool = False
    """The question was asked; what comes from then on is its answer."""
    error: str | None = None
    """What the server reported instead of an answer."""
    farewell: str | None = None
    """What the server said as it ended the session."""
    ended: Closed | None = None
    still: av.VideoFrame | None = field(default=None, repr=False)
    """The picture at the loudest moment, when the mouth is open."""
    _loudness: float = -math.inf
    _still_loudness: float = -math.inf

    def begin(self) -> None:
        """The question is asked now: a greeting that came before it is not its answer."""
        self.asked = True
        self.audible_seconds = self.quiet_seconds = 0.0
        self.transcript = self.error = None

    @property
    def complete(self) -> bool:
        """The text is there, and the voice was heard and has ended; or there will be none."""
        if self.transcript is None:
            return self.asked and self.error is not None
        return (
            self.asked
            and self.audible_seconds >= AUDIBLE_SECONDS
            and self.quiet_seconds >= QUIET_SECONDS
        )

    @property
    def missing(self) -> list[str]:
        """What did not arrive, in words; empty for a whole answer."""
        missing = []
        if not self.video_frames:
            missing.append("decoded video frames")
        if self.audible_seconds < AUDIBLE_SECONDS:
            missing.append("audible audio")
        if self.transcript is None:
            missing.append("the transcript")
        return missing


async def ask(
    session: Any,
    report: Report,
    *,
    question: Path | None,
    text: str | None,
    recording: Path,
    limit: float,
    image: Path | None = None,
) -> Answer:
    """Show `image`, type `text`, say `question` (an audio file), and record the answer to its end.

    Returns after `limit` seconds at the latest, with what came until then.
    """
    answer = Answer()
    failure: BaseException | None = None
    async with session.record(recording):
        try:
            await _converse(
                session, report, answer, question=question, text=text, image=image, limit=limit
            )
        except BaseExceptionGroup as group:
            failure = unwrap(group)
        if failure is not None:
            raise_unchanged(failure)
    return answer


async def _converse(
    session: Any,
    report: Report,
    answer: Answer,
    *,
    question: Path | None,
    text: str | None,
    image: Path | None,
    limit: float,
) -> None:
    """Ask, and listen and watch until the answer has ended. What it raises is in a group."""
    finished = anyio.Event()
    captions = Captions(partial(report, "says"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(captions.run)
        tasks.start_soon(_watch, session, answer, report)
        tasks.start_soon(_listen, session, answer, report, captions, finished)
        tasks.start_soon(_read, session, answer, captions, finished)
        with anyio.move_on_after(limit):
            if image is not None:
                alone = text is None and question is None
                report("showing", f"showing {image.name}")
                if alone:
                    answer.begin()
                await session.send_image(image, reply=alone)
            if text is not None:
                report("asking", f"typing: {text}")
                answer.begin()
                await session.send_text(text)
            if question is not None:
                report("asking", f"saying {question.name}")
                seconds = await session.say_file(question, trailing_silence=0.0)
                answer.begin()
                report("asked", f"said {seconds:.1f} s, listening")
                tasks.start_soon(_stay_silent, session)
            await finished.wait()
        tasks.cancel_scope.cancel()


async def _stay_silent(session: Any) -> None:
    """Send silence as stock clients do (5.12): the server hears by it that the question ended."""
    silence = bytes(SILENCE_MS * SAMPLE_RATE // 1000 * SAMPLE_WIDTH)
    due = anyio.current_time()
    try:
        while True:
            await session.send_audio(silence)
            due += SILENCE_MS / 1000
            await anyio.sleep_until(due)
    except SessionClosedError:
        pass  # Whoever reads the events is told how it ended.


async def _watch(session: Any, answer: Answer, report: Report) -> None:
    async for frame in session.video:
        answer.video_frames += 1
        if answer.video_frames == 1:
            answer.width, answer.height = frame.width, frame.height
            report("picture", f"first picture, {frame.width}x{frame.height}")
        if answer.still is None or answer._loudness > answer._still_loudness:
            answer.still, answer._still_loudness = frame, answer._loudness


async def _listen(
    session: Any, answer: Answer, report: Report, captions: Captions, finished: anyio.Event
) -> None:
    async for frame in session.audio:
        seconds = frame.samples / frame.sample_rate
        answer._loudness = loudness = dbfs(frame.to_ndarray())
        if loudness > AUDIBLE_DBFS:
            if not answer.audible_seconds:
                report("voice", f"the voice is audible, {loudness:.0f} dBFS")
            captions.heard()
            answer.audible_seconds += seconds
            answer.quiet_seconds = 0.0
            answer.loudest_dbfs = max(answer.loudest_dbfs, loudness)
        else:
            answer.quiet_seconds += seconds
        if answer.complete and not finished.is_set():
            report("answered", f"{answer.audible_seconds:.1f} s of voice, and now silence")
            finished.set()


async def _read(session: Any, answer: Answer, captions: Captions, finished: anyio.Event) -> None:
    async for event in session.events():
        captions.take(event)
        _note(event, answer)
        if answer.complete:
            finished.set()
    finished.set()  # The session is over: nothing more will come.


def _note(event: Event, answer: Answer) -> None:
    match event:
        case UserTurn(text=text, typed=False):
            answer.heard = text
        case ResponseGenerated(text=text) if text:
            answer.transcript = text
            # Silence before the answer is not the silence after it.
            answer.quiet_seconds = 0.0
        case ErrorReported(text=text) | ResponseFailed(reason=text):
            answer.error = text
        case Notice(text=text) | PeerClosing(text=text):
            answer.farewell = text
        case Closed():
            answer.ended = event
        case _:
            pass


def reporting(report: Report, *, without: type[Event] | None = None) -> Callable[[Event], None]:
    """What ``connect(observe=)`` takes to report each step, but for events of one class."""

    def observe(event: Event) -> None:
        step = None if without is not None and isinstance(event, without) else describe(event)
        if step is not None:
            report(*step)

    return observe


def describe(event: Event) -> tuple[str, str] | None:
    """A step worth a line, or None."""
    match event:
        case Connected():
            servers = len(event.ice_servers)
            return "welcome", f"{servers} ICE server{'' if servers == 1 else 's'}"
        case ServerWarning():
            return "warning", event.text
        case Ready():
            return "ready", "the human is configured and listens"
        case Negotiated():
            return "negotiated", "offer answered" if not event.offered_by_us else "answer applied"
        case MediaStateChanged():
            return "media", f"media connection: {event.state.value}"
        case MediaStarted():
            return "packets", f"first {event.kind.value} packet"
        case Usable():
            return "usable", "the session is usable"
        case UserSpeaking():
            return "heard", "the human hears speech"
        case UserSilent():
            return "silence", "the human hears the end of it"
        case UserTurn(text=text, typed=False):
            return "understood", f"the human understood: {text}"
        case ResponseGenerated(text=text):
            return "transcript", f'the human says: "{text}"'
        case ResponseInterrupted(heard=heard):
            return "interrupted", f'the human was interrupted after: "{heard}"'
        case ErrorReported(text=text):
            return "error", f"the server reports: {text}"
        case Notice() | PeerClosing():
            return "notice", f"the server is ending the session: {event.text}"
        case ProtocolViolation():
            return "violation", f"the server broke the protocol: {event.reason}"
        case Closed():
            cause = event.cause.value
            # A refusal's close frame says no more than that it is one.
            reason = f" ({event.reason})" if event.reason not in ("", cause) else ""
            return "closed", f"the session ended: {cause}{reason}"
        case _:
            return None
