"""A trace as a page with a timeline: one file that needs no network, and does what no peer says.

Everything that the page shows is data in it, which a script of ours draws with text nodes and
shapes; none of it is ever markup. The page's policy lets no other script run, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Final

from attrs import define, field

from navtalk_asyncio.cli.trace_rows import message_type, note
from navtalk_proto.actions import CloseTransport, Emit, SendText
from navtalk_proto.events import (
    CandidateFailed,
    CandidateIgnored,
    Closed,
    Connected,
    ConnectFailed,
    Event,
    FunctionCall,
    MediaLost,
    MediaNotStarted,
    MediaResumed,
    MediaStalled,
    Negotiated,
    NegotiationFailed,
    Notice,
    PictureFrozen,
    PictureResumed,
    ProtocolViolation,
    Ready,
    Reconnected,
    Reconnecting,
    Refused,
    ResponseDone,
    ResponseFailed,
    ResponseInterrupted,
    ResponseStarted,
    ResponseText,
    TimedOut,
    Usable,
    UserSilent,
    UserSpeaking,
    UserTurn,
)
from navtalk_proto.inputs import (
    IntentGiven,
    MediaHappened,
    TextReceived,
    TransportClosed,
    TransportOpened,
)
from navtalk_proto.intents import SendAudio
from navtalk_proto.media import (
    IceServerFailed,
    MediaKind,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Gap,
    Header,
    InputRecord,
    Record,
    Sample,
    Told,
)
from navtalk_proto.wire.messages import FunctionCallOutput, ToolResult

__all__ = ["timeline", "timeline_page"]

LANES: Final = (
    ("session", "Session"),
    ("websocket", "WebSocket"),
    ("signaling", "Signaling"),
    ("media", "ICE and DTLS"),
    ("user", "User speech"),
    ("human", "Human's speech"),
    ("tools", "Tools"),
    ("video", "Video frames"),
    ("buffers", "Buffers"),
)

MOST_ITEMS: Final = 20_000
"""Of a lane. A browser draws so many; what is beyond is counted, and said."""

DETAIL: Final = 2000
"""Characters of a detail."""

_PAGE: Final = files("navtalk_asyncio.cli") / "timeline_page"

_SESSION: Final[tuple[tuple[type[Any], str], ...]] = (
    (Connected, "plain"),
    (Ready, "plain"),
    (Usable, "good"),
    (Refused, "bad"),
    (Notice, "warn"),
    (ConnectFailed, "bad"),
    (TimedOut, "bad"),
    (ProtocolViolation, "warn"),
    (Reconnecting, "warn"),
    (Reconnected, "good"),
    (Closed, "plain"),
)
_STATES: Final = {
    MediaState.NEW: "plain",
    MediaState.CHECKING: "warn",
    MediaState.ICE_CONNECTED: "plain",
    MediaState.CONNECTED: "good",
    MediaState.DISCONNECTED: "warn",
    MediaState.FAILED: "bad",
    MediaState.CLOSED: "plain",
}


@define
class _Timeline:
    """What is collected, in seconds since the trace began."""

    lanes: dict[str, list[dict[str, Any]]] = field(factory=lambda: {name: [] for name, _ in LANES})
    open: dict[Any, dict[str, Any]] = field(factory=dict)
    """Spans that have not ended, by what they are."""
    turns: list[dict[str, Any]] = field(factory=list)
    left_out: int = 0
    now: float = 0.0
    user_end: float | None = None
    """When the user's newest turn ended, until it is answered."""
    typed: bool = False
    said: str = ""

    def add(self, lane: str, kind: str, label: str, detail: str = "", tone: str = "plain") -> Any:
        item = {
            "kind": kind,
            "t": round(self.now, 6),
            "label": label[:DETAIL],
            "detail": detail[:DETAIL],
            "tone": tone,
        }
        if len(self.lanes[lane]) < MOST_ITEMS:
            self.lanes[lane].append(item)
        else:
            self.left_out += 1
        return item

    def begin(self, key: Any, lane: str, label: str, detail: str = "", tone: str = "plain") -> None:
        self.end(key)
        self.open[key] = self.add(lane, "span", label, detail, tone)

    def end(self, key: Any, detail: str = "", tone: str = "") -> dict[str, Any] | None:
        span = self.open.pop(key, None)
        if span is not None:
            span["end"] = round(self.now, 6)
            span["detail"] = (detail or span["detail"])[:DETAIL]
            span["tone"] = tone or span["tone"]
        return span

    def value(self, lane: str, **values: float) -> None:
        self.lanes[lane].append({"kind": "value", "t": round(self.now, 6), "values": values})


def timeline(records: Iterable[tuple[int, Record]]) -> dict[str, Any]:
    """What the page draws, as JSON values. Times are seconds since the trace began."""
    made = _Timeline()
    start: float | None = None
    about: dict[str, Any] = {"started": "", "versions": {}, "omitted": []}
    for _, record in records:
        moment = getattr(record, "now", None)
        if moment is not None:
            start = moment if start is None else start
            made.now = max(made.now, moment - start)
        match record:
            case Header():
                about = {
                    "started": record.started,
                    "versions": dict(record.versions),
                    "omitted": list(record.omitted),
                }
            case ConnectionBegan():
                made.begin(
                    "connection",
                    "session",
                    f"connection {record.connection}, {record.role.value}",
                    "" if record.complete else "the trace began in mid-session",
                )
            case Gap():
                made.add("session", "point", "gap", record.reason, "bad")
            case Told():
                _event(made, record.event)
            case Sample():
                _sample(made, record)
            case InputRecord():
                _input(made, record)
            case ActionRecord():
                _action(made, record)
    for key in list(made.open):
        made.end(key)
    return {
        **about,
        "duration": round(made.now, 6),
        "lanes": [
            {"name": name, "title": title, "items": made.lanes[name]} for name, title in LANES
        ],
        "turns": made.turns,
        "left_out": made.left_out,
    }


def _input(made: _Timeline, record: InputRecord) -> None:
    match record.input:
        case TransportOpened():
            made.begin("websocket", "websocket", "open")
        case TransportClosed(code=code, reason=reason):
            made.end("websocket", f"closed with {code} {reason}".strip())
            made.end("media")
        case TextReceived(text=text):
            shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
            _message(made, message_type(shown), shown, "received")
        case IntentGiven(intent=SendAudio(pcm=pcm)):
            _voice(made, len(pcm) / 48_000)
        case IntentGiven(intent=ToolResult() | FunctionCallOutput() as result):
            if record.raised is None:
                span = made.open.get(("call", result.call_id))
                before = span["detail"] if span else ""
                made.end(("call", result.call_id), f"{before}\n{result.output}", "good")
        case MediaHappened(event=event):
            _event(made, event, told=False)
        case _:
            pass  # It is seen in what follows from it.


def _action(made: _Timeline, record: ActionRecord) -> None:
    match record.action:
        case SendText(text=text, kind=kind):
            _message(made, kind, text, "sent")
        case CloseTransport(code=code, reason=reason):
            made.add("websocket", "point", "close", f"{code} {reason}".strip(), "warn")
        case Emit(event=event):
            _event(made, event)
        case _:
            pass  # Commands to the engine are seen in its reports.


def _message(made: _Timeline, kind: str, text: str, way: str) -> None:
    made.add("websocket", way, kind, f"{way}, {len(text)} characters\n{text}")
    if kind.startswith("webrtc.signaling."):
        made.add("signaling", way, kind.removeprefix("webrtc.signaling."), f"{way}\n{text}")


def _voice(made: _Timeline, seconds: float) -> None:
    """A piece of the user's voice; pieces that follow each other are one span."""
    last = made.lanes["user"][-1] if made.lanes["user"] else None
    if last is not None and last.get("voice") and made.now - last["end"] < 0.3:
        last["end"] = round(max(last["end"], made.now + seconds), 6)
        return
    item = made.add("user", "span", "sent", "audio that was sent", "faint")
    item |= {"end": round(made.now + seconds, 6), "voice": True}


def _event(made: _Timeline, event: Event | Any, *, told: bool = True) -> None:
    for cls, tone in _SESSION:
        if isinstance(event, cls):
            made.add("session", "point", cls.__name__, note(event), tone)
    match event:
        case MediaStateChanged(state=state) if told:
            made.end("media")
            pairs = "\n".join(f"{p.local} -> {p.remote} {p.state}" for p in event.pairs)
            detail = "\n".join(filter(None, (event.reason, pairs)))
            if state in (MediaState.FAILED, MediaState.CLOSED):
                made.add("media", "point", state.value, detail, _STATES[state])
            else:
                made.begin("media", "media", state.value, detail, _STATES[state])
        case IceServerFailed() if told:
            made.add("media", "point", "ICE server", f"{event.url}: {event.reason}", "warn")
        case CandidateFailed() | CandidateIgnored():
            made.add("signaling", "point", type(event).__name__, event.reason, "warn")
        case Negotiated():
            made.add("signaling", "point", "Negotiated", note(event), "good")
        case NegotiationFailed():
            made.add("signaling", "point", "NegotiationFailed", event.reason, "bad")
        case TrackAdded() | MediaStarted() if told:
            if event.kind is MediaKind.VIDEO:
                made.add("video", "point", type(event).__name__, note(event), "good")
        case MediaStalled() | MediaLost() | MediaNotStarted() | PictureFrozen():
            made.add("video", "point", type(event).__name__, note(event), "bad")
        case MediaResumed() | PictureResumed():
            made.add("video", "point", type(event).__name__, note(event), "good")
        case UserSpeaking():
            made.begin("user", "user", "speaking", "the server hears the user")
        case UserSilent():
            made.end("user")
            made.user_end, made.typed = made.now, False
        case UserTurn(text=text, typed=typed):
            made.add("user", "point", text or "(nothing understood)", text, "good")
            made.said = text
            if typed:
                made.user_end, made.typed = made.now, True
        case ResponseStarted(response_id=response_id):
            made.begin("human", "human", "answer", response_id or "")
        case ResponseText(delta=delta):
            span = made.open.get("human")
            if span is not None:
                first = not span.get("words")
                span["words"] = True
                span["label"] = ("" if first else span["label"] + "")[:DETAIL] + delta
                span["detail"] = span["label"]
            _answered(made)
        case ResponseDone(text=text):
            made.end("human", text, "good")
            _finished(made, text)
        case ResponseInterrupted(text=text, heard=heard):
            made.end("human", f"interrupted; heard: {heard}\nof: {text}", "warn")
            _finished(made, heard, "interrupted")
        case ResponseFailed(reason=reason):
            if made.end("human", reason, "bad") is None:
                made.add("human", "point", "failed", reason, "bad")
            _finished(made, "", reason)
        case FunctionCall(call_id=call_id, name=name, arguments=arguments):
            made.begin(("call", call_id), "tools", name, f"{name}({arguments})", "warn")
        case _:
            pass


def _answered(made: _Timeline) -> None:
    """The first words of an answer: how long that took."""
    if made.user_end is None:
        return
    made.turns.append(
        {
            "t": round(made.user_end, 6),
            "first": round(made.now, 6),
            "latency": round(made.now - made.user_end, 6),
            "typed": made.typed,
            "user": made.said[:DETAIL],
            "human": "",
            "end": "",
        }
    )
    made.user_end, made.said = None, ""


def _finished(made: _Timeline, text: str, end: str = "") -> None:
    if made.turns and not made.turns[-1]["human"]:
        made.turns[-1] |= {"human": text[:DETAIL], "end": end[:DETAIL]}
        if made.said and not made.turns[-1]["user"]:
            made.turns[-1]["user"], made.said = made.said[:DETAIL], ""


def _sample(made: _Timeline, sample: Sample) -> None:
    video = [track for track in sample.media.received if track.kind is MediaKind.VIDEO]
    if video:
        made.value("video", frames=video[0].frames_per_second)
    waiting = {"outgoing": float(sample.outgoing), "events": float(sample.events)}
    if sample.media.received:
        waiting["jitter buffer"] = float(
            sum(track.jitter_buffer_packets for track in sample.media.received)
        )
    made.value("buffers", **waiting)


def timeline_page(data: dict[str, Any], *, title: str) -> str:
    """The page, as HTML. What comes from the trace is in it once, as JSON without a ``<``."""
    script = (_PAGE / "timeline.js").read_text("utf-8")
    style = (_PAGE / "style.css").read_text("utf-8")
    told = json.dumps({"title": title, **data}, separators=(",", ":")).replace("<", "\\u003c")
    page = (_PAGE / "page.html").read_text("utf-8")
    for name, text in (
        ("SCRIPT_HASH", _hash(f"\n{script}")),
        ("STYLE_HASH", _hash(f"\n{style}")),
        ("STYLE", f"\n{style}"),
        ("SCRIPT", f"\n{script}"),
        ("DATA", told),
    ):
        # The data comes last: what it holds is not looked for names.
        page = page.replace(f"@{name}@", text)
    return page


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
