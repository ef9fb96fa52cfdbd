"""One connection, fed by hand: frames as in protocol.md section 5, times of a virtual clock.

Output is written as words: ``> type`` is sent, ``! Event`` is told, ``x 1000 reason`` closes the
transport, other words are media commands.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto import Connection, Limits, Role, Secret, State
from navtalk_proto.actions import (
    AbortTransport,
    Action,
    CloseTransport,
    Emit,
    OpenPeer,
    SendText,
)
from navtalk_proto.config import RECEIVE_MEDIA, SEND_MEDIA, ClientConfig, Mode, ServerConfig
from navtalk_proto.errors import (
    LocalProtocolError,
    NotReadyError,
    RefusalKind,
    SessionClosedError,
)
from navtalk_proto.events import (
    BinaryIgnored,
    CandidateIgnored,
    CloseCause,
    Closed,
    Connected,
    ConnectFailed,
    Event,
    MediaStalled,
    MessageReceived,
    NegotiationFailed,
    Notice,
    OutOfOrder,
    PeerClosing,
    ProtocolViolation,
    Refused,
    ServerWarning,
    TimedOut,
    UnknownMessage,
)
from navtalk_proto.ice import IceUrl, IpAddress, any_ice_server
from navtalk_proto.intents import Close, Intent, Negotiate, SayText, SendAudio
from navtalk_proto.machines import negotiation
from navtalk_proto.media import (
    Capabilities,
    ConsentRefreshed,
    Direction,
    IceServerFailed,
    LocalCandidate,
    MediaEvent,
    MediaKind,
    MediaLine,
    MediaProgress,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    NegotiationNeeded,
    OpId,
    TrackAdded,
)
from navtalk_proto.testing import LinkedPair, StrictEngine
from navtalk_proto.timers import Timer
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioDone,
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    ConnectionLimitExceeded,
    GpuFull,
    IceCandidate,
    IceServer,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    InsufficientBalance,
    Message,
    Offer,
    Refusal,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    ToolResult,
    Unknown,
    UserMessage,
)

Snapshot = Callable[[object], Any]
T0 = 1000.0

SUCCESS = {
    "type": "conversation.connected.success",
    "message": "",
    "data": {
        "sessionId": "3f1c0a52",
        "iceServers": [
            {"urls": ["stun:stun.example.org:3478"]},
            {"urls": ["turn:turn.example.org:3478"], "username": "u53r", "credential": "cr3d"},
        ],
    },
}
TURN = (
    IceServer(urls=("stun:stun.example.org:3478",)),
    IceServer(urls=("turn:turn.example.org:3478",), username="u53r", credential=Secret("cr3d")),
)
GOOGLE = (IceServer(urls=("stun:stun.l.google.com:19302",)),)
CREATED = {"type": "realtime.session.created", "message": "", "data": {}}
UPDATED = {"type": "realtime.session.updated", "message": "", "data": {}}
WARNING = {
    "type": "conversation.connected.warning",
    "message": "Multiple avatars share the name 'my-avatar'.",
    "data": {"avatarId": "0123456789abcdef0123456789abcdef"},
}
GOODBYE = {"type": "conversation.connected.close", "data": {}, "message": "Session timeout"}
REFUSALS = {
    "fail": (1008, False),
    "insufficient_balance": (1008, False),
    "connection_limit_exceeded": (1008, True),
    "gpu_full": (1013, True),
    "backend_error": (1011, True),
}
SPEECH = {"type": "realtime.input_audio_buffer.speech_started", "message": "", "data": {}}
CONFIG = {"type": "realtime.input_config", "data": {"content": '{"voice":"cedar"}'}}
TEXT = {
    "type": "conversation.item.create",
    "item": {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "My name is Ana."}],
    },
}
APPEND = {"type": "realtime.input_audio_buffer.append", "data": {"audio": "AAAAAA=="}}
CREATE = {"type": "response.create"}


def refusal(kind: str) -> dict[str, Any]:
    return {"type": f"conversation.connected.{kind}", "data": {}, "message": "no more of this"}


def sdp(ufrag: str = "far") -> str:
    lines = [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        f"a=ice-ufrag:{ufrag}",
        "a=ice-pwd:0123456789012345678901",
        f"a=fingerprint:sha-256 AA:{ord(ufrag[0]):02X}",
    ]
    return "".join(line + "\r\n" for line in lines)


def offer(text: str | None = None) -> dict[str, Any]:
    inner = {"type": "offer", "sdp": sdp() if text is None else text}
    return {"type": "webrtc.signaling.offer", "data": {"sdp": inner}}


def answer() -> dict[str, Any]:
    return {
        "type": "webrtc.signaling.answer",
        "data": {"sdp": {"type": "answer", "sdp": sdp()}},
    }


def candidate(text: str = "candidate:1 1 udp 2122129151 192.0.2.1 64301 typ host") -> Any:
    return {
        "type": "webrtc.signaling.iceCandidate",
        "data": {"candidate": {"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0}},
    }


def words(action: Action) -> str:
    match action:
        case SendText():
            return f"> {action.kind}"
        case Emit():
            return f"! {type(action.event).__name__}"
        case CloseTransport():
            return f"x {action.code} {action.reason}".strip()
        case AbortTransport():
            return "abort"
        case _:
            return type(action).__name__


class Bench:
    """A connection and what came out of it."""

    def __init__(self, role: Role, config: ClientConfig | ServerConfig) -> None:
        self.connection = Connection(role, config, now=T0)
        self.now = T0
        self.last: list[Action] = []
        self.all: list[Action] = []

    @property
    def state(self) -> State:
        return self.connection.state

    def take(self) -> list[str]:
        self.last = self.connection.actions()
        self.all += self.last
        return [words(action) for action in self.last]

    def event(self, kind: type[Event]) -> Any:
        """The one event of this class in the last output."""
        (found,) = self.events(kind)
        return found

    def events(self, kind: type[Event]) -> list[Any]:
        events = [action.event for action in self.last if isinstance(action, Emit)]
        return [event for event in events if isinstance(event, kind)]

    def sent(self) -> list[Any]:
        """The JSON of every text of the last output."""
        return [json.loads(action.text) for action in self.last if isinstance(action, SendText)]

    def open(self) -> list[str]:
        self.connection.transport_opened(now=self.now)
        return self.take()

    def text(self, *messages: Any) -> list[str]:
        for message in messages:
            text = message if isinstance(message, str | bytes) else json.dumps(message)
            self.connection.receive_text(text, now=self.now)
        return self.take()

    def send(self, *intents: Intent) -> list[str]:
        for intent in intents:
            self.connection.send(intent, now=self.now)
        return self.take()

    def media(self, *events: MediaEvent) -> list[str]:
        for event in events:
            self.connection.media_event(event, now=self.now)
        return self.take()

    def done(self, op: int, result: Any = None) -> list[str]:
        self.connection.media_done(OpId(op), result, now=self.now)
        return self.take()

    def close(self, code: int | None, reason: str = "") -> list[str]:
        self.connection.transport_closed(code=code, reason=reason, now=self.now)
        return self.take()

    def expect(self, deadline: float) -> list[str]:
        """The next timer is due then; not a moment earlier. Fire it."""
        assert self.connection.next_timeout() == pytest.approx(deadline, abs=1e-9)
        due = self.connection.next_timeout()
        assert due is not None
        self.connection.handle_timeout(now=due - 0.001)
        assert self.connection.actions() == [], "an early timeout is harmless"
        self.now = due
        self.connection.handle_timeout(now=due)
        later = self.connection.next_timeout()
        assert later is None or later > due
        output = self.take()
        self.connection.handle_timeout(now=due)
        assert self.connection.actions() == [], "a repeated timeout is harmless"
        return output


STAGES: dict[str, list[Any]] = {
    "welcoming": [],
    "opening": [SUCCESS],
    "configuring": [SUCCESS, CREATED],
    "ready": [SUCCESS, CREATED, UPDATED],
}
SERVER_STAGES: dict[str, list[Message]] = {
    "welcoming": [],
    "opening": [ConnectedSuccess(session_id="s", ice_servers=TURN)],
    "configuring": [ConnectedSuccess(session_id="s", ice_servers=TURN), SessionCreated()],
    "ready": [
        ConnectedSuccess(session_id="s", ice_servers=TURN),
        SessionCreated(),
        SessionUpdated(),
    ],
}


def side(role: Role, stage: str = "idle", **options: Any) -> Bench:
    """A connection that was brought into a stage."""
    config = ClientConfig(**options) if role is Role.CLIENT else ServerConfig(**options)
    return bring(Bench(role, config), stage)


def bring(bench: Bench, stage: str) -> Bench:
    if stage != "idle":
        bench.open()
    if stage in ("closing", "closed"):
        bench.send(Close())
    elif bench.connection.role is Role.CLIENT:
        bench.text(*STAGES.get(stage, []))
    else:
        bench.send(*SERVER_STAGES.get(stage, []))
    if stage == "closed":
        bench.close(1000)
    assert bench.state.value == stage
    return bench


def client(stage: str = "idle", **options: Any) -> Bench:
    return side(Role.CLIENT, stage, **options)


def server(stage: str = "idle", **options: Any) -> Bench:
    return side(Role.SERVER, stage, **options)


def answered(stage: str = "ready", **options: Any) -> Bench:
    """A client that answered the server's offer; its media is on the way."""
    bench = client(stage, **options)
    assert bench.text(offer()) == ["OpenPeer"]
    assert bench.done(1) == ["SetRemote"]
    assert bench.done(2) == ["SetLocal"]
    assert bench.done(3, Answer(sdp=sdp("ours"))) == ["> webrtc.signaling.answer", "! Negotiated"]
    return bench


VIDEO_STARTED = MediaStarted(track_id="v", kind=MediaKind.VIDEO)


def state(value: MediaState) -> MediaStateChanged:
    return MediaStateChanged(state=value)


# ---- making one


@pytest.mark.parametrize(
    ("role", "config"), [(Role.CLIENT, ServerConfig()), (Role.SERVER, ClientConfig())]
)
def test_a_role_takes_its_own_config(role: Role, config: ClientConfig | ServerConfig) -> None:
    with pytest.raises(TypeError, match="does not take"):
        Connection(role, config, now=T0)


@pytest.mark.parametrize(
    "options",
    [
        {"input_config": InputConfig(prompt="\ud800")},
        {"input_function_call": InputFunctionCall(tools=({"temperature": float("nan")},))},
        {"history": (UserMessage(texts=("fine",)), UserMessage(texts=("\ud800",)))},
        {"history": (UserMessage(texts=("long" * 100,)),), "limits": Limits(client_message=300)},
    ],
)
def test_a_config_that_cannot_be_sent_is_refused_when_it_is_given(options: Any) -> None:
    with pytest.raises(LocalProtocolError):
        Connection(Role.CLIENT, ClientConfig(**options), now=T0)


def test_what_an_adapter_may_ask() -> None:
    bench = client()
    connection = bench.connection
    assert connection.role is Role.CLIENT
    assert connection.state is State.IDLE
    assert connection.negotiation_state is negotiation.State.NO_PEER
    assert connection.media_state is MediaState.NEW
    assert connection.session_id is None
    assert connection.usable is False
    assert connection.next_timeout() is None
    assert connection.actions() == []
    assert repr(connection) == "<Connection client idle, negotiation no peer, media new>"


# ---- the order of a session


def test_the_client_configures_before_the_welcome() -> None:
    bench = client(
        input_config=InputConfig(voice="cedar"), input_function_call=InputFunctionCall(tools=())
    )
    assert bench.open() == ["> realtime.input_config", "> realtime.input_function_call"]
    assert [json.loads(frame["data"]["content"]) for frame in bench.sent()] == [
        {"voice": "cedar"},
        [],
    ]


def test_connected_success_brings_id_and_ice_servers() -> None:
    bench = client("welcoming")
    assert bench.text(SUCCESS) == ["! Connected"]
    assert bench.event(Connected) == Connected(session_id="3f1c0a52", ice_servers=TURN)
    assert bench.connection.session_id == "3f1c0a52"
    bench.text(offer())
    (opened,) = [action for action in bench.last if isinstance(action, OpenPeer)]
    assert opened.ice_servers == TURN


def test_the_default_stun_server_until_success_brings_others() -> None:
    bench = client("welcoming")
    assert bench.text(offer()) == ["! OutOfOrder", "OpenPeer"]
    assert bench.event(OutOfOrder) == OutOfOrder(type="webrtc.signaling.offer", state="welcoming")
    (opened,) = [action for action in bench.last if isinstance(action, OpenPeer)]
    assert opened.ice_servers == GOOGLE
    assert bench.connection.counters.out_of_order == 1


def test_an_empty_list_of_ice_servers_leaves_the_default() -> None:
    bench = client("welcoming")
    bench.text({**SUCCESS, "data": {"sessionId": "s", "iceServers": []}})
    bench.text(offer())
    (opened,) = [action for action in bench.last if isinstance(action, OpenPeer)]
    assert opened.ice_servers == GOOGLE


def test_history_follows_created_and_queued_text_follows_ready() -> None:
    history = (UserMessage(texts=("one",)), UserMessage(texts=("two",)))
    bench = client("welcoming", history=history)
    assert bench.send(SayText(text="three")) == []
    assert bench.text(SUCCESS) == ["! Connected"]
    assert bench.send(SayText(text="four", respond=False)) == []
    assert bench.text(CREATED) == ["> conversation.item.create"] * 2
    assert [frame["item"]["content"][0]["text"] for frame in bench.sent()] == ["one", "two"]
    assert bench.text(UPDATED) == [
        "! Ready",
        "> conversation.item.create",
        "> response.create",
        "> conversation.item.create",
        "! UserTurn",
        "! UserTurn",
    ]
    items = [frame.get("item", {}) for frame in bench.sent()]
    assert items[0]["content"][0]["text"] == "three"
    assert items[2]["content"][0]["text"] == "four"
    assert bench.send(SayText(text="five")) == [
        "> conversation.item.create",
        "> response.create",
        "! UserTurn",
    ]
    assert bench.connection.counters.sent == 7


def test_config_leaves_at_once_while_text_waits() -> None:
    bench = client()
    assert bench.send(InputConfig(voice="ash"), UserMessage(texts=("hi",))) == []
    assert bench.open() == ["> realtime.input_config"]
    assert bench.send(InputConfig(voice="marin")) == ["> realtime.input_config"]
    assert bench.text(*STAGES["ready"]) == [
        "! Connected",
        "! Ready",
        "> conversation.item.create",
        "! UserTurn",
    ]


@pytest.mark.parametrize("stage", ["welcoming", "opening"])
def test_updated_without_created(stage: str) -> None:
    bench = client(stage, history=(UserMessage(texts=("one",)),))
    assert bench.text(UPDATED) == ["! OutOfOrder", "> conversation.item.create", "! Ready"]
    assert bench.text(CREATED) == ["! OutOfOrder"], "history is sent once"
    assert bench.state is State.READY
    if stage == "welcoming":
        assert bench.text(SUCCESS) == ["! OutOfOrder", "! Connected"]
    assert bench.connection.session_id == "3f1c0a52"


def test_created_before_success() -> None:
    bench = client("welcoming", history=(UserMessage(texts=("one",)),))
    assert bench.text(CREATED) == ["! OutOfOrder", "> conversation.item.create"]
    assert bench.state is State.CONFIGURING
    assert bench.text(SUCCESS) == ["! OutOfOrder", "! Connected"]
    assert bench.state is State.CONFIGURING
    assert bench.text(UPDATED) == ["! Ready"]


def test_a_further_updated_is_news() -> None:
    assert client("ready").text(UPDATED) == ["! ConfigUpdated"]


@pytest.mark.parametrize("stage", ["opening", "configuring", "ready"])
def test_a_second_success_is_a_violation_that_the_call_survives(stage: str) -> None:
    bench = client(stage)
    assert bench.text({**SUCCESS, "data": {"sessionId": "other"}}) == ["! ProtocolViolation"]
    violation = bench.event(ProtocolViolation)
    assert (violation.type, violation.fatal) == ("conversation.connected.success", False)
    assert bench.connection.session_id == "3f1c0a52"
    assert bench.state.value == stage


def test_a_second_created_is_a_violation() -> None:
    assert client("configuring").text(CREATED) == ["! ProtocolViolation"]


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_warning(stage: str) -> None:
    bench = client(stage)
    early = ["! OutOfOrder"] if stage == "welcoming" else []
    assert bench.text(WARNING) == [*early, "! ServerWarning"]
    assert bench.event(ServerWarning) == ServerWarning(
        text="Multiple avatars share the name 'my-avatar'.",
        avatar_id="0123456789abcdef0123456789abcdef",
    )


@pytest.mark.parametrize("stage", list(STAGES))
def test_messages_of_the_conversation_and_unknown_ones(stage: str) -> None:
    bench = client(stage)
    early = ["! OutOfOrder"] if stage == "welcoming" else []
    assert bench.text(SPEECH) == [*early, "! MessageReceived", "! UserSpeaking"]
    assert bench.event(MessageReceived).message == SpeechStarted()
    raw = '{"type":"realtime.brand_new","data":{"x":1}}'
    assert bench.text(raw) == ["! UnknownMessage"]
    assert bench.event(UnknownMessage) == UnknownMessage(type="realtime.brand_new", raw=raw)
    assert bench.connection.counters.unknown == 1


@pytest.mark.parametrize("stage", list(SERVER_STAGES))
def test_a_server_takes_every_client_message_everywhere(stage: str) -> None:
    bench = server(stage)
    for frame in (CONFIG, TEXT, APPEND, CREATE, {"type": "webrtc.signaling.iceRestartRequest"}):
        assert bench.text(frame) == ["! MessageReceived"]
    assert bench.connection.counters.received == 5
    bench.text(CONFIG)
    assert bench.event(MessageReceived).message == InputConfig(voice="cedar")
    bench.text(TEXT)
    assert bench.event(MessageReceived).message == UserMessage(texts=("My name is Ana.",))
    bench.text(APPEND)
    assert bench.event(MessageReceived).message == AudioAppend(audio=b"\0\0\0\0")


def test_a_server_speaks_in_order() -> None:
    bench = server("welcoming", media=())
    assert bench.send(ConnectedSuccess(session_id="s", ice_servers=TURN)) == [
        "> conversation.connected.success"
    ]
    assert bench.connection.session_id == "s"
    assert bench.send(ConnectedWarning(message="several")) == ["> conversation.connected.warning"]
    assert bench.send(SessionCreated()) == ["> realtime.session.created"]
    assert bench.send(SessionUpdated()) == ["> realtime.session.updated", "! Ready", "! Usable"]
    assert bench.send(InputTranscript(content="hi"), AudioDone()) == [
        "> realtime.conversation.item.input_audio_transcription.completed",
        "> realtime.response.audio.done",
    ]
    assert bench.send(SessionUpdated()) == ["> realtime.session.updated"]
    assert bench.connection.next_timeout() is None, "a server has no set-up timers"


# ---- media


@pytest.mark.parametrize("stage", list(STAGES))
def test_an_answer_leaves_in_every_stage(stage: str) -> None:
    bench = client(stage)
    early = ["! OutOfOrder"] if stage == "welcoming" else []
    assert bench.text(offer()) == [*early, "OpenPeer"]
    assert bench.done(1) == ["SetRemote"]
    assert bench.text(candidate()) == [*early]
    assert bench.done(2) == ["AddCandidate", "SetLocal"]
    assert bench.done(4, Answer(sdp=sdp("ours"))) == ["> webrtc.signaling.answer", "! Negotiated"]
    (frame,) = bench.sent()
    assert frame["data"]["sdp"] == {"type": "answer", "sdp": sdp("ours")}


def test_usable_is_ready_and_the_first_packet_whatever_comes_first() -> None:
    bench = answered()
    assert bench.media(state(MediaState.CHECKING)) == ["! MediaStateChanged"]
    assert bench.media(state(MediaState.CONNECTED)) == ["! MediaStateChanged"]
    usable = [bench.connection.usable]
    assert bench.media(VIDEO_STARTED) == ["! MediaStarted", "! Usable"]
    usable.append(bench.connection.usable)
    assert usable == [False, True]
    assert bench.connection.media_state is MediaState.CONNECTED
    assert bench.media(VIDEO_STARTED) == ["! MediaStarted"], "told once"

    bench = answered("opening")
    assert bench.media(state(MediaState.CONNECTED), VIDEO_STARTED) == [
        "! MediaStateChanged",
        "! MediaStarted",
    ]
    assert bench.text(CREATED, UPDATED) == ["! Ready", "! Usable"]


@pytest.mark.parametrize("end", [MediaState.FAILED, MediaState.CLOSED])
def test_media_that_ended_before_ready_is_not_usable(end: MediaState) -> None:
    bench = answered("opening")
    bench.media(VIDEO_STARTED, state(end))
    assert bench.text(CREATED, UPDATED) == ["! Ready"]
    assert bench.connection.next_timeout() == T0 + 30.0


def test_an_end_that_only_sends_is_usable_when_connected() -> None:
    bench = server("ready")
    assert bench.media(state(MediaState.ICE_CONNECTED)) == ["! MediaStateChanged"]
    assert bench.media(state(MediaState.CONNECTED)) == ["! MediaStateChanged", "! Usable"]


@pytest.mark.parametrize("direction", [Direction.SENDRECV, Direction.RECVONLY])
def test_one_line_that_receives_is_enough_to_wait_for_a_packet(direction: Direction) -> None:
    lines = (
        MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY),
        MediaLine(kind=MediaKind.AUDIO, direction=direction),
    )
    bench = server("ready", media=lines)
    assert bench.media(state(MediaState.CONNECTED)) == ["! MediaStateChanged"]
    assert bench.media(VIDEO_STARTED) == ["! MediaStarted", "! Usable"]


def test_without_media_ready_is_usable_and_signaling_is_told() -> None:
    bench = client("opening", media=())
    assert bench.text(offer()) == ["! OfferIgnored"]
    assert bench.text(candidate()) == ["! CandidateIgnored"]
    assert bench.text(answer()) == ["! AnswerIgnored"]
    assert bench.text(CREATED, UPDATED) == ["! Ready", "! Usable"]
    assert bench.connection.negotiation_state is negotiation.State.OFF
    assert bench.connection.next_timeout() is None


def test_tracks_are_told() -> None:
    bench = answered()
    track = TrackAdded(track_id="t", kind=MediaKind.VIDEO, mid="0", stream_id="s")
    assert bench.media(track) == ["! TrackAdded"]
    assert bench.event(TrackAdded) == track


def test_ice_servers_of_no_use_are_told_and_end_nothing() -> None:
    bench = answered()
    failed = IceServerFailed(url="turn:a.example:3478?transport=udp", reason="forbidden (403)")
    assert bench.media(failed) == ["! IceServerFailed"]
    assert bench.event(IceServerFailed) == failed


def test_the_rule_for_ice_servers_is_a_clients_and_reaches_the_engine() -> None:
    """A server's list is its own: nobody else named those hosts."""

    def rule(url: IceUrl, address: IpAddress) -> bool:
        raise AssertionError("the core contacts nobody")

    wish = Negotiate(media=SEND_MEDIA)
    for bench, expected in (
        (client("ready", allow_ice_server=rule), rule),
        (client("ready"), None),
        (server("ready"), any_ice_server),
    ):
        assert bench.send(wish) == ["OpenPeer"]
        [opened] = [action for action in bench.all if isinstance(action, OpenPeer)]
        assert opened.allow_ice_server is expected


def test_local_candidates_leave() -> None:
    bench = answered()
    value = IceCandidate(candidate="candidate:7 1 udp 1 192.0.2.9 9 typ host", sdp_mid="0")
    assert bench.media(LocalCandidate(candidate=value)) == ["> webrtc.signaling.iceCandidate"]
    (frame,) = bench.sent()
    assert frame["data"]["candidate"]["candidate"] == value.candidate
    assert frame["data"]["candidate"]["sdpMid"] == "0"


def test_the_media_failing_is_no_end_of_the_session() -> None:
    bench = answered()
    bench.media(VIDEO_STARTED)
    assert bench.media(state(MediaState.FAILED)) == ["! MediaStateChanged"]
    assert bench.connection.negotiation_state is negotiation.State.FAILED
    assert bench.state is State.READY
    assert bench.send(Negotiate(media=RECEIVE_MEDIA)) == ["ResetPeer"]


def test_the_peer_closing_by_itself() -> None:
    bench = answered()
    assert bench.media(state(MediaState.CLOSED)) == ["! MediaStateChanged"]
    assert bench.connection.negotiation_state is negotiation.State.NO_PEER


def test_the_engine_may_wish() -> None:
    bench = answered()
    assert bench.media(NegotiationNeeded(media=RECEIVE_MEDIA)) == ["CreateOffer"]


@pytest.mark.parametrize(
    ("stage", "media", "wish"),
    [
        ("idle", RECEIVE_MEDIA, RECEIVE_MEDIA),
        ("welcoming", RECEIVE_MEDIA, RECEIVE_MEDIA),
        ("ready", RECEIVE_MEDIA, ()),
        ("ready", (), RECEIVE_MEDIA),
    ],
)
def test_a_wish_of_the_engine_that_cannot_be_offered_is_told(
    stage: str, media: tuple[MediaLine, ...], wish: tuple[MediaLine, ...]
) -> None:
    bench = client(stage, media=media)
    assert bench.media(NegotiationNeeded(media=wish)) == ["! NegotiationFailed"]
    assert bench.event(NegotiationFailed).media == wish


def test_completions_are_checked() -> None:
    bench = client("ready")
    bench.text(offer())
    bench.done(1)
    with pytest.raises(LocalProtocolError, match="the engine finished"):
        bench.done(2, Offer(sdp=sdp()))
    assert bench.done(2) == ["SetLocal"]
    assert bench.done(2) == []
    bench.connection.media_failed(OpId(77), "who", now=bench.now)
    assert bench.take() == []
    assert bench.connection.counters.stale_completions == 2
    bench.connection.media_failed(OpId(3), "no codec", now=bench.now)
    assert bench.take() == ["! NegotiationFailed", "ResetPeer"]


def test_news_of_the_media_after_the_close_is_counted() -> None:
    bench = answered()
    bench.send(Close())
    assert bench.media(VIDEO_STARTED, state(MediaState.CLOSED)) == []
    assert bench.connection.counters.ignored == 2


# ---- refusals


@pytest.mark.parametrize("kind", list(REFUSALS))
@pytest.mark.parametrize("stage", ["welcoming", "opening", "configuring"])
def test_a_refusal_during_set_up(kind: str, stage: str) -> None:
    bench = client(stage) if stage == "welcoming" else answered(stage)
    closes = [] if stage == "welcoming" else ["ClosePeer"]
    assert bench.text(refusal(kind)) == ["! Refused", *closes, "x 1000"]
    assert bench.event(Refused) == Refused(
        kind=RefusalKind(kind), text="no more of this", retryable=REFUSALS[kind][1]
    )
    assert bench.state is State.CLOSING
    assert bench.close(1008, "whatever") == ["! Closed"]
    assert bench.event(Closed) == Closed(cause=CloseCause.REFUSED, code=1008, reason="whatever")


@pytest.mark.parametrize("kind", list(REFUSALS))
def test_a_refusal_of_a_running_session_is_a_notice_and_the_server_closes(kind: str) -> None:
    bench = client("ready")
    assert bench.text(refusal(kind)) == ["! Notice"]
    assert bench.event(Notice) == Notice(kind=RefusalKind(kind), text="no more of this")
    assert bench.state is State.READY
    assert bench.close(1008, "") == ["! Closed"]
    assert bench.event(Closed).cause is CloseCause.REFUSED


def test_a_server_that_does_not_close_after_its_notice_is_closed() -> None:
    bench = client("ready", media=())
    bench.text(refusal("gpu_full"))
    bench.now += 1.5
    assert bench.text(refusal("gpu_full")) == ["! Notice"], "and the farewell is not prolonged"
    assert bench.expect(T0 + 2.0) == ["x 1000"]
    assert bench.close(1000) == ["! Closed"]
    assert bench.event(Closed).cause is CloseCause.REFUSED


@pytest.mark.parametrize("kind", list(REFUSALS))
@pytest.mark.parametrize("stage", list(SERVER_STAGES))
def test_a_server_refuses_with_the_event_first_and_then_the_close(kind: str, stage: str) -> None:
    classes: dict[str, type[Refusal]] = {
        "fail": ConnectedFail,
        "insufficient_balance": InsufficientBalance,
        "connection_limit_exceeded": ConnectionLimitExceeded,
        "gpu_full": GpuFull,
        "backend_error": BackendError,
    }
    bench = server(stage)
    event, closing = bench.send(classes[kind](message="no"))
    assert event == f"> conversation.connected.{kind}"
    code, _, reason = closing.removeprefix("x ").partition(" ")
    assert int(code) == REFUSALS[kind][0]
    if kind == "insufficient_balance":
        assert reason == "Insufficient points", "stock clients look for this"
    assert bench.state is State.CLOSING
    assert bench.close(int(code), reason) == ["! Closed"]
    assert bench.event(Closed).cause is CloseCause.LOCAL


@pytest.mark.parametrize("stage", ["idle", "welcoming", "opening", "configuring"])
@pytest.mark.parametrize("reason", ["Insufficient points", "error: insufficient points."])
def test_no_credit_by_the_close_reason_alone(stage: str, reason: str) -> None:
    bench = client(stage)
    assert bench.close(1000, reason) == ["! Refused", "! Closed"]
    assert bench.event(Refused) == Refused(
        kind=RefusalKind.INSUFFICIENT_BALANCE, text=reason, retryable=False
    )
    assert bench.event(Closed) == Closed(cause=CloseCause.REFUSED, code=1000, reason=reason)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("gpu_full", RefusalKind.GPU_FULL),
        ("conversation.connected.gpu_full", RefusalKind.GPU_FULL),
        ("no worker is free", RefusalKind.GPU_FULL),
        ("connection_limit_exceeded", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
        ("Maximum concurrent connections (5) exceeded.", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
        ("connection limit exceeded", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
        ("backend_error", RefusalKind.BACKEND_ERROR),
        ("Backend error", RefusalKind.BACKEND_ERROR),
        ("insufficient_balance", RefusalKind.INSUFFICIENT_BALANCE),
        ("Insufficient balance to continue service", RefusalKind.INSUFFICIENT_BALANCE),
        ("fail: Invalid license key", RefusalKind.FAIL),
        ("conversation.connected.fail", RefusalKind.FAIL),
        ("Avatar not found", RefusalKind.FAIL),
        ("refused", RefusalKind.FAIL),
    ],
)
def test_any_refusal_by_the_close_reason_alone(reason: str, kind: RefusalKind) -> None:
    bench = client("welcoming")
    bench.close(1008, reason)
    assert bench.event(Refused) == Refused(kind=kind, text=reason, retryable=kind.retryable)
    bench = answered()
    bench.close(1008, reason)
    assert bench.event(Notice).kind is kind


def test_what_the_transport_closed_for_is_a_violation() -> None:
    for bench, events in (
        (client("welcoming"), ["! ProtocolViolation", "! ConnectFailed", "! Closed"]),
        (answered(), ["! ProtocolViolation", "ClosePeer", "! Closed"]),
        (server("ready"), ["! ProtocolViolation", "! Closed"]),
    ):
        bench.connection.transport_closed(
            code=1009, reason="a message is far too big", now=bench.now, violation=True
        )
        assert bench.take() == events
        assert bench.event(ProtocolViolation).fatal
        assert bench.event(Closed).cause is CloseCause.VIOLATION
        assert bench.connection.counters.violations == 1


def test_no_credit_by_the_close_reason_in_a_running_session() -> None:
    bench = answered()
    assert bench.close(1000, "Insufficient points") == ["! Notice", "ClosePeer", "! Closed"]
    assert bench.event(Notice).kind is RefusalKind.INSUFFICIENT_BALANCE
    assert bench.event(Closed).cause is CloseCause.REFUSED


def test_no_credit_is_told_once() -> None:
    bench = client("welcoming")
    bench.text(refusal("insufficient_balance"))
    assert bench.close(1000, "Insufficient points") == ["! Closed"]
    bench = client("ready")
    bench.text(refusal("insufficient_balance"))
    assert bench.close(1000, "Insufficient points") == ["! Closed"]


def test_a_server_does_not_read_its_own_fate_from_a_reason() -> None:
    bench = server("ready")
    assert bench.close(1000, "Insufficient points") == ["! Closed"]
    assert bench.event(Closed).cause is CloseCause.REMOTE


# ---- the end


@pytest.mark.parametrize("stage", ["idle", "welcoming", "opening", "configuring"])
@pytest.mark.parametrize(("code", "reason"), [(None, ""), (1006, ""), (1011, "oops"), (4000, "x")])
def test_a_transport_that_ends_during_set_up(stage: str, code: int | None, reason: str) -> None:
    bench = client(stage)
    assert bench.close(code, reason) == ["! ConnectFailed", "! Closed"]
    assert bench.event(ConnectFailed) == ConnectFailed(code=code, reason=reason, stage=stage)
    assert bench.event(Closed) == Closed(cause=CloseCause.REMOTE, code=code, reason=reason)
    assert bench.connection.next_timeout() is None


@pytest.mark.parametrize("stage", ["idle", *SERVER_STAGES])
def test_a_transport_that_ends_on_a_server(stage: str) -> None:
    bench = server(stage, idle_timeout=60.0)
    assert bench.close(None) == ["! Closed"]
    assert bench.event(Closed) == Closed(cause=CloseCause.REMOTE, code=None, reason="")
    assert bench.connection.next_timeout() is None


@pytest.mark.parametrize("code", [None, 1000, 1005, 1001])
def test_a_transport_that_ends_in_a_running_session(code: int | None) -> None:
    bench = answered()
    assert bench.close(code, "bye") == ["ClosePeer", "! Closed"]
    assert bench.event(Closed) == Closed(cause=CloseCause.REMOTE, code=code, reason="bye")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("stage", list(STAGES))
def test_closing_it_ourselves(role: Role, stage: str) -> None:
    bench = side(role, stage)
    assert bench.send(Close(code=4001, reason="done")) == ["x 4001 done"]
    assert bench.state.value == "closing"
    assert bench.send(Close(code=1000)) == [], "closing twice is no mistake"
    assert bench.connection.counters.ignored == 1
    assert bench.close(4001, "done") == ["! Closed"]
    assert bench.event(Closed) == Closed(cause=CloseCause.LOCAL, code=4001, reason="done")
    assert bench.state.value == "closed"
    assert bench.close(1000) == []


@pytest.mark.parametrize("role", list(Role))
def test_closing_before_it_is_open(role: Role) -> None:
    bench = side(role, "idle")
    assert bench.send(Close(reason="changed my mind")) == ["! Closed"]
    assert bench.event(Closed) == Closed(
        cause=CloseCause.LOCAL, code=None, reason="changed my mind"
    )
    assert bench.open() == [], "a handshake that ends too late"
    assert bench.connection.counters.ignored == 1
    assert bench.connection.next_timeout() is None


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_server_announces_the_end(stage: str) -> None:
    bench = client(stage)
    assert bench.text(GOODBYE) == ["! PeerClosing", "x 1000"]
    assert bench.event(PeerClosing).text == "Session timeout"
    assert bench.close(1000) == ["! Closed"]
    assert bench.event(Closed).cause is CloseCause.REMOTE


@pytest.mark.parametrize("stage", list(SERVER_STAGES))
def test_a_server_announces_the_end(stage: str) -> None:
    bench = server(stage)
    assert bench.send(ConnectedClose(message="Session timeout")) == [
        "> conversation.connected.close",
        "x 1000",
    ]
    bench.close(1000)
    assert bench.event(Closed).cause is CloseCause.LOCAL


def test_a_close_that_is_never_answered_is_forced() -> None:
    bench = answered()
    assert bench.send(Close(reason="bye")) == ["ClosePeer", "x 1000 bye"]
    assert bench.expect(T0 + 3.0) == ["abort", "! Closed"]
    assert bench.event(Closed) == Closed(
        cause=CloseCause.LOCAL, code=1000, reason="bye", forced=True
    )
    assert bench.connection.next_timeout() is None
    assert bench.close(None) == [], "the transport's own end is no news"


@pytest.mark.parametrize("role", list(Role))
def test_what_crosses_our_close_is_ignored_and_counted(role: Role) -> None:
    bench = side(role, "closing")
    assert bench.text(SUCCESS, "not json", offer(), refusal("fail")) == []
    bench.connection.receive_binary(9, now=bench.now)
    assert bench.take() == []
    assert bench.connection.counters.ignored == 5
    assert bench.connection.counters.violations == 0


@pytest.mark.parametrize("role", list(Role))
def test_after_the_end_nothing_happens(role: Role) -> None:
    bench = side(role, "closed")
    assert bench.text(SUCCESS, "not json", APPEND) == []
    bench.connection.receive_binary(9, now=bench.now)
    bench.connection.handle_timeout(now=bench.now + 1e6)
    bench.now += 1e6
    assert bench.close(1000) == []
    assert bench.open() == []
    assert bench.media(VIDEO_STARTED) == []
    assert bench.done(1) == []
    assert bench.connection.next_timeout() is None
    for intent in (Close(), SayText(text="hi"), SessionUpdated()):
        with pytest.raises(SessionClosedError):
            bench.send(intent)


def test_opening_twice_is_the_adapters_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="transport opened in state ready"):
        client("ready").open()


# ---- timers


@pytest.mark.parametrize(
    ("stage", "deadline", "waiting_for", "seconds"),
    [
        ("welcoming", 10.0, "connected.success", 10.0),
        ("opening", 15.0, "session.created", 15.0),
        ("configuring", 15.0, "session.updated", 15.0),
    ],
)
def test_a_step_that_does_not_happen(
    stage: str, deadline: float, waiting_for: str, seconds: float
) -> None:
    bench = client(stage)
    assert bench.connection.waiting_for == waiting_for
    assert bench.expect(T0 + deadline) == [
        "! TimedOut",
        f"x 1000 timed out waiting for {waiting_for}",
    ]
    assert bench.event(TimedOut) == TimedOut(waiting_for=waiting_for, seconds=seconds)
    assert bench.connection.next_timeout() == pytest.approx(T0 + deadline + 3.0)
    bench.close(1000)
    assert bench.event(Closed).cause is CloseCause.TIMEOUT


def test_each_step_starts_the_set_up_timer_anew() -> None:
    bench = client("welcoming")
    bench.now += 9.0
    bench.text(SUCCESS)
    assert bench.connection.next_timeout() == T0 + 24.0
    bench.now += 10.0
    bench.text(CREATED)
    assert bench.connection.next_timeout() == T0 + 30.0, "that is CONNECT; set-up has until 34"
    bench.now += 5.0
    bench.text(UPDATED)
    assert bench.expect(T0 + 30.0)[0] == "! TimedOut"


@pytest.mark.parametrize(
    ("stage", "waiting_for"),
    [
        ("welcoming", "connected.success"),
        ("opening", "session.created"),
        ("configuring", "session.updated"),
        ("ready", "the offer"),
    ],
)
def test_the_connect_deadline_names_what_it_waited_for(stage: str, waiting_for: str) -> None:
    bench = client(stage, welcome_timeout=99.0, setup_timeout=99.0, connect_timeout=20.0)
    assert bench.expect(T0 + 20.0) == ["! TimedOut", f"x 1000 timed out waiting for {waiting_for}"]
    assert bench.event(TimedOut) == TimedOut(waiting_for=waiting_for, seconds=20.0)


@pytest.mark.parametrize(
    ("reached", "waiting_for"),
    [
        (None, "ICE"),
        (MediaState.CHECKING, "ICE"),
        (MediaState.ICE_CONNECTED, "DTLS"),
        (MediaState.CONNECTED, "the first media packet"),
        (MediaState.DISCONNECTED, "ICE"),
        (MediaState.FAILED, "ICE"),
    ],
)
def test_the_connect_deadline_names_how_far_media_came(
    reached: MediaState | None, waiting_for: str
) -> None:
    bench = answered()
    if reached is not None:
        bench.media(state(reached))
    assert bench.connection.waiting_for == waiting_for
    assert bench.expect(T0 + 30.0) == [
        "! TimedOut",
        "ClosePeer",
        f"x 1000 timed out waiting for {waiting_for}",
    ]


def test_the_connect_deadline_names_the_answer_that_our_first_offer_waits_for() -> None:
    pair = LinkedPair(ClientConfig(strict=True), ServerConfig(strict=True))
    pair.open()
    pair.send(pair.server, ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated())
    pair.to_client.held = True
    pair.send(pair.client, Negotiate(media=(MediaLine(kind=MediaKind.VIDEO),)))
    assert pair.client.connection.waiting_for == "the answer"


def test_the_connect_deadline_ends_with_usable() -> None:
    bench = answered()
    assert bench.connection.next_timeout() == T0 + 30.0
    bench.media(VIDEO_STARTED)
    assert bench.connection.next_timeout() is None


@pytest.mark.parametrize("role", list(Role))
def test_the_idle_timer_is_pushed_by_every_frame(role: Role) -> None:
    bench = side(role, "ready", idle_timeout=5.0, media=())
    bench.now += 4.0
    bench.text({"type": "unheard.of"})
    assert bench.connection.next_timeout() == T0 + 9.0
    bench.now += 4.0
    bench.text("not json")
    assert bench.connection.next_timeout() == T0 + 13.0
    bench.now += 4.0
    bench.connection.receive_binary(1, now=bench.now)
    bench.take()
    bench.now += 4.0
    bench.send(InputConfig(voice="ash") if role is Role.CLIENT else SpeechStarted())
    assert bench.expect(T0 + 17.0) == ["! TimedOut", "x 1000 timed out waiting for any message"]
    assert bench.event(TimedOut) == TimedOut(waiting_for="any message", seconds=5.0)
    bench.text(SUCCESS)
    assert bench.connection.next_timeout() == T0 + 20.0, "only CLOSE runs now"


def test_the_idle_timer_runs_from_the_opening() -> None:
    bench = server("welcoming", idle_timeout=5.0)
    assert bench.expect(T0 + 5.0)[0] == "! TimedOut"


def test_the_answer_timer() -> None:
    bench = client("ready", connect_timeout=99.0, answer_timeout=7.0)
    assert bench.send(Negotiate(media=RECEIVE_MEDIA)) == ["OpenPeer"]
    bench.done(1)
    bench.now += 1.0
    assert bench.done(2, Offer(sdp=sdp("ours"))) == ["> webrtc.signaling.offer"]
    assert bench.expect(T0 + 8.0) == ["! NegotiationFailed"]
    assert bench.event(NegotiationFailed) == NegotiationFailed(
        reason="no answer within 7 s", media=RECEIVE_MEDIA
    )
    assert bench.text(answer()) == ["SetRemote"], "late, and still taken"


def exchanged_by_a_server(**options: Any) -> Bench:
    """A server whose offer was answered; its media is on the way."""
    bench = server("ready", **options)
    bench.send(Negotiate(media=SEND_MEDIA))
    bench.done(1)
    bench.done(2, Offer(sdp=sdp("ours")))
    bench.text(answer())
    assert bench.done(3) == ["! Negotiated"]
    return bench


@pytest.mark.parametrize(
    ("states", "step"), [((), "ICE"), ((MediaState.CHECKING, MediaState.ICE_CONNECTED), "DTLS")]
)
def test_a_transport_that_does_not_come_up_has_failed(
    states: tuple[MediaState, ...], step: str
) -> None:
    bench = exchanged_by_a_server(transport_timeout=7.0)
    bench.now += 1.0
    bench.media(*map(state, states))
    assert bench.expect(T0 + 7.0) == ["! MediaStateChanged"]
    told = bench.event(MediaStateChanged)
    assert (told.state, told.reason) == (MediaState.FAILED, f"{step} took longer than 7 s")
    assert bench.connection.negotiation_state is negotiation.State.FAILED
    assert bench.connection.next_timeout() is None
    assert bench.send(Negotiate(media=SEND_MEDIA)) == ["ResetPeer"], "and that helps"


@pytest.mark.parametrize(
    "event",
    [
        state(MediaState.CONNECTED),
        state(MediaState.FAILED),
        state(MediaState.CLOSED),
        VIDEO_STARTED,
    ],
)
def test_what_ends_the_wait_for_a_transport(event: MediaEvent) -> None:
    bench = exchanged_by_a_server()
    assert bench.connection.next_timeout() == T0 + 20.0
    bench.media(event)
    assert bench.connection.next_timeout() is None


def test_the_wait_for_a_transport_ends_with_the_session() -> None:
    bench = exchanged_by_a_server()
    bench.send(Close())
    assert bench.connection.next_timeout() == T0 + 3.0
    bench.close(1000)
    assert bench.connection.next_timeout() is None


def test_an_opening_client_has_one_deadline_for_all_of_it() -> None:
    bench = answered(connect_timeout=60.0)
    assert bench.connection.next_timeout() == T0 + 60.0
    bench.media(state(MediaState.CONNECTED), VIDEO_STARTED)
    assert bench.connection.usable
    # Later a new transport has its own: the server lost its peer connection, and offers again.
    bench.text(offer(sdp("anew")))
    bench.done(4)
    bench.done(5)
    bench.now += 1.0
    bench.done(6, Answer(sdp=sdp("ours")))
    assert bench.connection._timers.armed(Timer.TRANSPORT)
    bench.media(state(MediaState.CONNECTED))
    assert not bench.connection._timers.armed(Timer.TRANSPORT)


def test_several_timers_that_are_due_fire_in_order() -> None:
    bench = client("welcoming")
    bench.connection.handle_timeout(now=T0 + 1000.0)
    assert bench.take() == ["! TimedOut", "x 1000 timed out waiting for connected.success"]
    assert bench.connection.next_timeout() == T0 + 1003.0


INPUTS: dict[str, Callable[[Connection, float], None]] = {
    "opened": lambda c, now: c.transport_opened(now=now),
    "text": lambda c, now: c.receive_text(json.dumps(SUCCESS), now=now),
    "binary": lambda c, now: c.receive_binary(3, now=now),
    "closed": lambda c, now: c.transport_closed(code=1000, reason="", now=now),
    "config": lambda c, now: c.send(InputConfig(voice="ash"), now=now),
    "say": lambda c, now: c.send(SayText(text="hi"), now=now),
    "close": lambda c, now: c.send(Close(), now=now),
    "audio": lambda c, now: c.send(SendAudio(pcm=b"\0\0"), now=now),
    "wish": lambda c, now: c.send(Negotiate(media=RECEIVE_MEDIA), now=now),
    "done": lambda c, now: c.media_done(OpId(1), None, now=now),
    "failed": lambda c, now: c.media_failed(OpId(1), "", now=now),
    "event": lambda c, now: c.media_event(VIDEO_STARTED, now=now),
    "timeout": lambda c, now: c.handle_timeout(now=now),
}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *[("ready", name) for name in INPUTS],
        # Audio and wishes are too early here: see MISUSE.
        *[("welcoming", name) for name in INPUTS if name not in ("audio", "wish")],
        *[("idle", name) for name in INPUTS if name not in ("audio", "wish")],
    ],
)
def test_time_that_goes_back_is_refused_and_changes_nothing(
    name: str, stage: str, snapshot: Snapshot
) -> None:
    bench = client(stage)
    before = snapshot(bench.connection)
    with pytest.raises(ValueError, match=r"time went back from 1000\.0 to 999\.5"):
        INPUTS[name](bench.connection, T0 - 0.5)
    assert snapshot(bench.connection) == before


# ---- what the far end gets wrong

BROKEN: dict[str, str | bytes] = {
    "nothing": "",
    "no json": "hello",
    "cut": '{"type":"realtime.session.created","da',
    "an array": "[1,2]",
    "a number": "5",
    "null": "null",
    "no type": '{"data":{}}',
    "a type that is no string": '{"type":5}',
    "nan": '{"type":"x","data":NaN}',
    "not utf-8": b'{"type":"\xff\xfe"}',
    "deep": "[" * 100_000,
    "a sdp that is no string": '{"type":"webrtc.signaling.offer","data":{"sdp":{"sdp":5}}}',
    "no sdp": '{"type":"webrtc.signaling.offer","data":{}}',
    "a sdp without m-line": json.dumps(offer("v=0\r\n")),
    "a sdp without ufrag": json.dumps(offer("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\n")),
    "a candidate that is a number": '{"type":"webrtc.signaling.iceCandidate",'
    '"data":{"candidate":{"candidate":7}}}',
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_input_is_a_violation_that_the_session_survives(role: Role, name: str) -> None:
    bench = side(role, "ready")
    assert bench.text(BROKEN[name]) == ["! ProtocolViolation"]
    assert bench.event(ProtocolViolation).fatal is False
    assert bench.state is State.READY
    assert bench.connection.counters.violations == 1
    assert bench.text({"type": "still.alive"}) == ["! UnknownMessage"]


def test_a_violation_names_type_and_field() -> None:
    bench = client("ready")
    bench.text('{"type":"webrtc.signaling.offer","data":{"sdp":{"sdp":5}}}')
    violation = bench.event(ProtocolViolation)
    assert (violation.type, violation.field) == ("webrtc.signaling.offer", "data.sdp.sdp")


def test_a_success_without_id_is_a_violation() -> None:
    bench = client("welcoming")
    broken = {"type": "conversation.connected.success", "data": {"iceServers": []}}
    assert bench.text(broken) == ["! ProtocolViolation"]
    assert bench.connection.session_id is None


@pytest.mark.parametrize(
    ("role", "frame"),
    [(Role.CLIENT, APPEND), (Role.CLIENT, CONFIG), (Role.SERVER, CREATED), (Role.SERVER, GOODBYE)],
)
@pytest.mark.parametrize("stage", list(STAGES))
def test_a_message_of_the_wrong_direction(role: Role, frame: dict[str, Any], stage: str) -> None:
    bench = side(role, stage)
    assert bench.text(frame) == ["! ProtocolViolation"]
    assert bench.event(ProtocolViolation).type == frame["type"]
    assert bench.state.value == stage


@pytest.mark.parametrize("role", list(Role))
def test_a_text_before_the_handshake_ended_is_no_message_of_a_session(role: Role) -> None:
    bench = side(role, "idle")
    assert bench.text({"type": "unheard.of"}) == ["! ProtocolViolation"]
    assert bench.text(offer()) == ["! ProtocolViolation"]
    assert bench.state is State.IDLE


def padded(size: int) -> str:
    head, tail = '{"type":"unheard.of","pad":"', '"}'
    return head + "x" * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize(
    ("role", "limit"), [(Role.CLIENT, 1024 * 1024), (Role.SERVER, 16 * 1024 * 1024)]
)
def test_an_oversize_message_ends_the_session(role: Role, limit: int) -> None:
    bench = side(role, "ready")
    assert bench.text(padded(limit)) == ["! UnknownMessage"]
    assert len(bench.event(UnknownMessage).raw) == 64 * 1024
    assert bench.text(padded(limit + 1)) == ["! ProtocolViolation", "x 1009 message too big"]
    assert bench.event(ProtocolViolation).fatal is True
    bench.close(1009)
    assert bench.event(Closed).cause is CloseCause.VIOLATION


def test_the_limit_is_in_bytes() -> None:
    bench = client("ready", limits=Limits(server_message=400))
    text = '{"type":"unheard.of","pad":"' + "\u20ac" * 130 + '"}'
    assert len(text) < 400 < len(text.encode())
    assert bench.text(text)[-1] == "x 1009 message too big"


def test_an_sdp_over_its_limit_is_a_violation() -> None:
    bench = client("ready", limits=Limits(sdp=400))
    assert bench.text(offer(sdp() + "a=x\r\n" * 100)) == ["! ProtocolViolation"]
    assert bench.event(ProtocolViolation).field == "data.sdp.sdp"
    assert bench.state is State.READY
    assert bench.text(offer()) == ["OpenPeer"]


@pytest.mark.parametrize("role", list(Role))
def test_the_33rd_violation_ends_the_session(role: Role) -> None:
    bench = side(role, "ready")
    assert bench.text(*["not json"] * 32) == ["! ProtocolViolation"] * 32
    assert bench.state is State.READY
    assert bench.text("not json") == ["! ProtocolViolation", "x 1002 protocol violation"]
    assert bench.event(ProtocolViolation).fatal is True
    assert bench.text("not json") == []
    assert bench.connection.counters.violations == 33
    bench.close(1002)
    assert bench.event(Closed).cause is CloseCause.VIOLATION


@pytest.mark.parametrize("stage", list(STAGES))
def test_strict_ends_at_the_first_violation(stage: str) -> None:
    bench = client(stage, strict=True)
    assert bench.text("not json") == ["! ProtocolViolation", "x 1002 protocol violation"]
    assert bench.state is State.CLOSING


def test_strict_in_front_of_the_handshake() -> None:
    bench = client("idle", strict=True)
    assert bench.text("not json") == ["! ProtocolViolation", "! Closed"]
    assert bench.event(Closed).cause is CloseCause.VIOLATION


def test_strict_does_not_take_a_wrong_order() -> None:
    bench = client("welcoming", strict=True)
    assert bench.text(offer()) == [
        "! OutOfOrder",
        "! ProtocolViolation",
        "x 1002 protocol violation",
    ]
    assert bench.connection.negotiation_state is negotiation.State.CLOSED


def test_strict_lets_unknown_types_and_binary_frames_live() -> None:
    bench = client("ready", strict=True)
    assert bench.text({"type": "unheard.of"}) == ["! UnknownMessage"]
    bench.connection.receive_binary(12, now=bench.now)
    assert bench.take() == ["! BinaryIgnored"]
    assert bench.event(BinaryIgnored) == BinaryIgnored(size=12)
    assert bench.connection.counters.binary == 1
    assert bench.state is State.READY


# ---- what we get wrong


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("stage", ["closing", "closed"])
def test_sending_after_the_close_raises(role: Role, stage: str, snapshot: Snapshot) -> None:
    bench = side(role, stage)
    ours: Intent = ResponseCreate() if role is Role.CLIENT else SpeechStarted()
    for intent in (ours, SendAudio(pcm=b"\0"), Negotiate(media=()), SayText(text="hi")):
        before = snapshot(bench.connection)
        with pytest.raises(SessionClosedError):
            bench.connection.send(intent, now=T0 + 1.0)
        assert snapshot(bench.connection) == before


IMAGE = InputImage(content="data:image/jpeg;base64,/9j/4AAQ")
WISH = Negotiate(media=RECEIVE_MEDIA)
LOCAL: type[Exception] = LocalProtocolError
EARLY: type[Exception] = NotReadyError
ANY_STAGE = ["idle", *STAGES]
MISUSE: list[tuple[Role, list[str], Any, type[Exception]]] = [
    # too early: it will be allowed later
    (Role.CLIENT, ANY_STAGE[:4], SendAudio(pcm=b"\0\0"), EARLY),
    (Role.CLIENT, ANY_STAGE[:4], AudioAppend(audio=b"\0\0"), EARLY),
    (Role.CLIENT, ANY_STAGE[:4], IMAGE, EARLY),
    (Role.CLIENT, ["welcoming"], WISH, EARLY),
    (Role.SERVER, ["welcoming"], WISH, EARLY),
    # not ours to send
    (Role.CLIENT, ANY_STAGE, SessionUpdated(), LOCAL),
    (Role.CLIENT, ANY_STAGE, ConnectedSuccess(session_id="s"), LOCAL),
    (Role.CLIENT, ANY_STAGE, GpuFull(), LOCAL),
    (Role.SERVER, ANY_STAGE, SendAudio(pcm=b"\0\0"), LOCAL),
    (Role.SERVER, ANY_STAGE, SayText(text="hi"), LOCAL),
    (Role.SERVER, ANY_STAGE, InputConfig(voice="ash"), LOCAL),
    (Role.SERVER, ANY_STAGE, ResponseCreate(), LOCAL),
    # not messages of an application at all
    (Role.CLIENT, ANY_STAGE, Offer(sdp=sdp()), LOCAL),
    (Role.SERVER, ANY_STAGE, Answer(sdp=sdp()), LOCAL),
    (Role.CLIENT, ANY_STAGE, IceCandidate(candidate=""), LOCAL),
    (Role.CLIENT, ANY_STAGE, Unknown(type="x", raw="{}"), LOCAL),
    (Role.CLIENT, ANY_STAGE, "hello", LOCAL),
    # in the wrong order
    (Role.SERVER, ["idle"], ConnectedSuccess(session_id="s", ice_servers=TURN), LOCAL),
    (Role.SERVER, ["idle"], GpuFull(), LOCAL),
    (Role.SERVER, ["idle"], WISH, LOCAL),
    (Role.CLIENT, ["idle"], WISH, LOCAL),
    (Role.SERVER, ["opening", "configuring", "ready"], ConnectedSuccess(session_id="t"), LOCAL),
    (Role.SERVER, ["idle", "welcoming"], ConnectedWarning(message="w"), LOCAL),
    (Role.SERVER, ["idle", "welcoming", "configuring", "ready"], SessionCreated(), LOCAL),
    (Role.SERVER, ["idle", "welcoming", "opening"], SessionUpdated(), LOCAL),
    (Role.SERVER, ["idle", "welcoming"], SpeechStarted(), LOCAL),
    # of the wrong shape
    (Role.CLIENT, ANY_STAGE, SendAudio(pcm=b"\0\0\0"), LOCAL),
    (Role.CLIENT, ["ready"], AudioAppend(audio=b"\0"), LOCAL),
    (Role.CLIENT, ANY_STAGE, Negotiate(media=()), LOCAL),
    (Role.SERVER, ANY_STAGE, Negotiate(media=()), LOCAL),
    (Role.CLIENT, ANY_STAGE, SayText(text="\ud800"), LOCAL),
    (Role.CLIENT, ANY_STAGE, InputConfig(tools=({"x": float("inf")},)), LOCAL),
    (Role.SERVER, ["opening", "ready"], GpuFull(message="\ud800"), LOCAL),
    (Role.CLIENT, ANY_STAGE, Close(code=1005), LOCAL),
    (Role.CLIENT, ANY_STAGE, Close(code=1002), LOCAL),
    (Role.CLIENT, ANY_STAGE, Close(code=2999), LOCAL),
    (Role.CLIENT, ANY_STAGE, Close(code=5000), LOCAL),
    (Role.SERVER, ANY_STAGE, Close(reason="x" * 124), LOCAL),
    (Role.CLIENT, ANY_STAGE, Close(reason="\u20ac" * 42), LOCAL),
    (Role.CLIENT, ["closing"], Close(reason="x" * 124), LOCAL),
]


@pytest.mark.parametrize(
    ("role", "stage", "intent", "error"),
    [(role, stage, intent, error) for role, stages, intent, error in MISUSE for stage in stages],
)
def test_a_misused_send_raises_and_changes_nothing(
    role: Role, stage: str, intent: Any, error: type[Exception], snapshot: Snapshot
) -> None:
    bench = side(role, stage)
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError) as caught:
        bench.connection.send(intent, now=T0 + 1.0)
    assert type(caught.value) is error
    assert snapshot(bench.connection) == before
    assert bench.take() == []


@pytest.mark.parametrize("role", list(Role))
def test_a_connection_without_media_cannot_wish(role: Role, snapshot: Snapshot) -> None:
    bench = side(role, "ready", media=())
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError, match="without media"):
        bench.connection.send(Negotiate(media=SEND_MEDIA), now=T0 + 1.0)
    assert snapshot(bench.connection) == before


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 3000, 4999])
def test_close_codes_of_applications(code: int) -> None:
    reason = "\u20ac" * 41
    assert len(reason.encode()) == 123
    assert client("ready").send(Close(code=code, reason=reason)) == [f"x {code} {reason}"]


def test_queued_intents_are_bounded(snapshot: Snapshot) -> None:
    bench = client("idle", limits=Limits(queued_intents=3))
    bench.send(InputConfig(voice="ash"), UserMessage(texts=("one",)))
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError, match="more than 3 intents"):
        bench.connection.send(SayText(text="two"), now=T0 + 1.0)
    assert snapshot(bench.connection) == before, "both of its messages or none"
    bench.send(SayText(text="two", respond=False))
    with pytest.raises(LocalProtocolError):
        bench.send(InputConfig(voice="cedar"))
    assert bench.open() == ["> realtime.input_config"]
    bench.send(ResponseCreate())
    with pytest.raises(LocalProtocolError):
        bench.send(ResponseCreate())
    assert bench.text(*STAGES["ready"])[-6:] == [
        "! Ready",
        "> conversation.item.create",
        "> conversation.item.create",
        "> response.create",
        "! UserTurn",
        "! UserTurn",
    ]


def test_queued_bytes_are_bounded_and_freed_when_they_leave(snapshot: Snapshot) -> None:
    bench = client("idle", limits=Limits(queued_bytes=1000))
    bench.send(InputConfig(prompt="x" * 700))
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError, match="more than 1000 characters"):
        bench.connection.send(UserMessage(texts=("y" * 400,)), now=T0 + 1.0)
    assert snapshot(bench.connection) == before
    bench.open()
    bench.send(UserMessage(texts=("y" * 400,)))
    with pytest.raises(LocalProtocolError):
        bench.send(UserMessage(texts=("y" * 600,)))
    bench.text(*STAGES["ready"])
    assert bench.send(UserMessage(texts=("y" * 2000,)))[0] == "> conversation.item.create"


@pytest.mark.parametrize("stage", ["idle", "welcoming", "ready"])
def test_a_message_over_the_far_ends_limit_is_not_sent(stage: str, snapshot: Snapshot) -> None:
    bench = client(stage, limits=Limits(client_message=300))
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError, match="over the limit of 300"):
        bench.connection.send(UserMessage(texts=("\u20ac" * 90,)), now=T0 + 1.0)
    assert snapshot(bench.connection) == before
    bench.send(UserMessage(texts=("e" * 90,)))
    big = server("ready", limits=Limits(server_message=300))
    with pytest.raises(LocalProtocolError, match="over the limit of 300"):
        big.send(InputTranscript(content="x" * 300))


def test_audio_leaves_in_pieces_of_64_ms() -> None:
    bench = client("ready")
    pcm = bytes(range(256)) * 16
    assert bench.send(SendAudio(pcm=pcm)) == ["> realtime.input_audio_buffer.append"] * 2
    first, second = (frame["data"]["audio"] for frame in bench.sent())
    assert len(first) == 4096
    assert len(second) == 1368
    assert bench.send(SendAudio(pcm=b"")) == []
    assert bench.send(IMAGE) == ["> realtime.input_image"]


APPENDED = "> realtime.input_audio_buffer.append"


def appended(bench: Bench) -> list[bytes]:
    """The audio of the last output's messages."""
    return [
        b64decode(message["data"]["audio"])
        for message in bench.sent()
        if message["type"] == "realtime.input_audio_buffer.append"
    ]


def test_tiny_chunks_of_audio_are_joined() -> None:
    bench = client("ready", media=())
    chunk = bytes(range(240))  # 5 ms
    assert bench.send(*[SendAudio(pcm=chunk)] * 3) == []
    assert bench.send(SendAudio(pcm=chunk)) == [APPENDED]
    assert appended(bench) == [chunk * 4]
    assert bench.connection.next_timeout() is None


def test_less_than_a_frame_of_audio_leaves_40_ms_after_its_first_byte() -> None:
    bench = client("ready", media=())
    assert bench.send(SendAudio(pcm=b"\1\2")) == []
    bench.now += 0.03
    assert bench.send(SendAudio(pcm=b"\3\4")) == []
    assert bench.expect(T0 + 0.04) == [APPENDED]
    assert appended(bench) == [b"\1\2\3\4"]
    assert bench.connection.next_timeout() is None


@pytest.mark.parametrize(
    ("intent", "kinds"),
    [
        (AudioCommit(), ["input_audio_buffer.commit"]),
        (IMAGE, ["input_image"]),
        (InputConfig(voice="ash"), ["input_config"]),
        (AudioAppend(audio=b"\0\0"), ["input_audio_buffer.append"]),
    ],
    ids=["commit", "image", "config", "append"],
)
def test_what_is_said_after_audio_leaves_after_it(intent: Intent, kinds: list[str]) -> None:
    bench = client("ready", media=())
    assert bench.send(SendAudio(pcm=b"\1\2"), intent) == [
        APPENDED,
        *[f"> realtime.{kind}" for kind in kinds],
    ]
    assert appended(bench)[0] == b"\1\2"
    assert bench.connection.next_timeout() is None


def test_signaling_and_text_leave_after_audio_too() -> None:
    bench = answered()
    bench.send(SendAudio(pcm=b"\1\2"))
    assert bench.media(LOCAL_CANDIDATE) == [APPENDED, "> webrtc.signaling.iceCandidate"]
    assert bench.send(SendAudio(pcm=b"\3\4"), SayText(text="hi")) == [
        APPENDED,
        "> conversation.item.create",
        "> response.create",
        "! UserTurn",
    ]


def test_a_clear_drops_the_audio_before_it() -> None:
    bench = client("ready", media=())
    sent = bench.send(SendAudio(pcm=b"\1\2\3\4"), AudioClear())
    assert sent == ["> realtime.input_audio_buffer.clear"]
    assert bench.connection.counters.audio_dropped == 4
    assert bench.connection.next_timeout() is None
    assert bench.send(SendAudio(pcm=bytes(960))) == [APPENDED]
    assert appended(bench) == [bytes(960)]


def test_half_a_sample_leaves_what_is_held() -> None:
    bench = client("ready", media=())
    bench.send(SendAudio(pcm=b"\1\2"))
    with pytest.raises(LocalProtocolError, match="even number"):
        bench.send(SendAudio(pcm=b"\3"))
    assert bench.expect(T0 + 0.04) == [APPENDED]
    assert appended(bench) == [b"\1\2"]


def test_our_close_sends_the_last_of_the_audio() -> None:
    bench = client("ready", media=())
    assert bench.send(SendAudio(pcm=b"\1\2"), Close()) == [APPENDED, "x 1000"]
    assert bench.connection.counters.audio_dropped == 0


@pytest.mark.parametrize("how", ["goodbye", "lost", "too many mistakes"])
def test_an_end_that_is_not_ours_drops_it(how: str) -> None:
    bench = client("ready", media=(), strict=True)
    bench.send(SendAudio(pcm=b"\1\2"))
    if how == "lost":
        assert bench.close(None) == ["! Closed"]
    else:
        bench.text(GOODBYE if how == "goodbye" else "not json")
        assert bench.state is State.CLOSING
        assert bench.expect(T0 + 3.0) == ["abort", "! Closed"]
    assert not any(isinstance(action, SendText) for action in bench.all[-4:])
    assert bench.connection.counters.audio_dropped == 2


# ---- secrets


def test_no_secret_shows_in_any_repr() -> None:
    bench = answered()
    bench.media(state(MediaState.CONNECTED), VIDEO_STARTED)
    bench.media(state(MediaState.FAILED))
    bench.send(Negotiate(media=RECEIVE_MEDIA))
    shown = repr(bench.all) + repr(bench.connection) + repr(bench.connection.counters)
    assert "ResetPeer" in shown
    assert "turn:turn.example.org" in shown
    for secret in ("cr3d", "u53r", "0123456789012345678901"):
        assert secret not in shown
    success = ConnectedSuccess(session_id="s", ice_servers=TURN)
    other = server("welcoming")
    other.send(success)
    assert "cr3d" in other.last[0].text  # type: ignore[union-attr]
    assert "cr3d" not in repr(other.all) + repr(success) + repr(other.connection)


def test_a_licence_in_a_broken_message_does_not_show() -> None:
    bench = client("ready")
    bench.text('{"type":"realtime.session.created","data":"sk_navtalk_EXAMPLE"}')
    bench.text('{"type":"webrtc.signaling.offer","data":{"sdp":{"sdp":["sk_navtalk_EXAMPLE"]}}}')
    bench.text("sk_navtalk_EXAMPLE")
    bench.text(offer("v=0\r\nm=sk_navtalk_EXAMPLE\r\n"))
    assert bench.connection.counters.violations == 4
    assert "EXAMPLE" not in repr(bench.all)


# ---- whatever comes, in any order

FRAMES: list[Any] = [
    SUCCESS,
    CREATED,
    UPDATED,
    WARNING,
    GOODBYE,
    *[refusal(kind) for kind in REFUSALS],
    SPEECH,
    CONFIG,
    TEXT,
    APPEND,
    CREATE,
    offer(),
    offer(sdp("new")),
    answer(),
    candidate(),
    candidate("candidate:2 1 udp 1 192.0.2.1 9 typ host ufrag far"),
    candidate("candidate:3 1 udp 1 192.0.2.1 9 typ host ufrag new"),
    candidate("candidate:4 1 udp 1 192.0.2.1 9 typ host ufrag else"),
    candidate(""),
    {"type": "unheard.of"},
    "not json",
]
INTENTS: list[Intent] = [
    *SERVER_STAGES["ready"],
    GpuFull(),
    ConnectedClose(),
    SpeechStarted(),
    InputConfig(voice="ash"),
    SayText(text="hi"),
    SendAudio(pcm=b"\0\0"),
    SendAudio(pcm=bytes(960)),
    AudioClear(),
    Negotiate(media=RECEIVE_MEDIA),
    Negotiate(media=(*RECEIVE_MEDIA, MediaLine(kind=MediaKind.AUDIO))),
    Close(),
]
LOCAL_CANDIDATE = LocalCandidate(
    candidate=IceCandidate(candidate="candidate:9 1 udp 1 192.0.2.9 9 typ host", sdp_mid="0")
)
EVENTS: list[MediaEvent] = [
    VIDEO_STARTED,
    LOCAL_CANDIDATE,
    NegotiationNeeded(media=RECEIVE_MEDIA),
    *[state(value) for value in MediaState if value is not MediaState.CLOSED],
]
STEPS = st.one_of(
    st.tuples(st.just("frame"), st.sampled_from(FRAMES)),
    st.tuples(st.just("send"), st.sampled_from(INTENTS)),
    st.tuples(st.just("event"), st.sampled_from(EVENTS)),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("fail"), st.none()),
    st.tuples(st.just("peer closes"), st.none()),
    st.tuples(st.just("wait"), st.floats(0.0, 40.0)),
    st.tuples(st.just("due"), st.none()),
    st.tuples(st.just("binary"), st.integers(0, 10)),
    st.tuples(st.just("lost"), st.sampled_from([None, 1000, 1006])),
)
LIMITS = Limits(candidates=3, violations=4, queued_intents=3)


class Fuzzed(Bench):
    """A connection with a strict engine: every command it gives has to be legal."""

    def __init__(self, role: Role, rollback: bool) -> None:
        capabilities = Capabilities(rollback=rollback)
        options: dict[str, Any] = {
            "limits": LIMITS,
            "idle_timeout": 35.0,
            "capabilities": capabilities,
        }
        self.engine = StrictEngine("e", capabilities=capabilities, connects=False)
        super().__init__(
            role, ClientConfig(**options) if role is Role.CLIENT else ServerConfig(**options)
        )

    def step(self, kind: str, value: Any) -> None:
        connection, engine = self.connection, self.engine
        match kind:
            case "frame":
                self.text(value)
            case "send":
                try:
                    self.send(value)
                except (LocalProtocolError, SessionClosedError):
                    assert connection.actions() == []
            case "event":
                self.media(value)
            case "finish" | "fail" if engine.busy:
                command, result, reason = engine.finish(fail="no" if kind == "fail" else None)
                if reason is None:
                    self.done(command.op, result)
                else:
                    connection.media_failed(command.op, reason, now=self.now)
            case "peer closes" if engine.signaling.value != "no peer":
                engine.close_by_itself()
                while engine.events:
                    connection.media_event(engine.events.popleft(), now=self.now)
            case "wait":
                self.now += value
                connection.handle_timeout(now=self.now)
                later = connection.next_timeout()
                assert later is None or later > self.now
            case "due":
                self.now = max(self.now, connection.next_timeout() or self.now)
                connection.handle_timeout(now=self.now)
                later = connection.next_timeout()
                assert later is None or later > self.now
            case "binary":
                connection.receive_binary(value, now=self.now)
            case "lost":
                self.close(value)
            case _:
                pass
        self.take()
        # Tracks are of no interest here; what the test wants told it tells itself.
        engine.events.clear()

    def take(self) -> list[str]:
        output = super().take()
        for action in self.last:
            if not isinstance(action, SendText | Emit | CloseTransport | AbortTransport):
                self.engine.execute(action)
        return output

    def check(self) -> None:
        connection = self.connection
        output = [words(action) for action in self.all]
        assert output.count("! Closed") == (connection.state is State.CLOSED)
        if connection.state is State.CLOSED:
            assert output[-1] == "! Closed"
            assert connection.next_timeout() is None
        closes = [index for index, word in enumerate(output) if word.startswith("x ")]
        assert len(closes) <= 1
        if closes:
            assert not [word for word in output[closes[0] :] if word.startswith("> ")]
        assert output.count("! Usable") <= 1
        assert output.count("ClosePeer") <= 1
        assert connection._negotiation.held_candidates <= LIMITS.candidates
        assert len(connection._negotiation._unsent) <= LIMITS.candidates
        assert len(connection._negotiation._adding) <= LIMITS.candidates
        assert len(connection._waiting) + len(connection._early) <= LIMITS.queued_intents
        assert connection.counters.violations <= LIMITS.violations + 1


@given(
    role=st.sampled_from(list(Role)),
    stage=st.sampled_from([*ANY_STAGE, "closing", "closed"]),
    rollback=st.booleans(),
    steps=st.lists(STEPS, max_size=60),
)
def test_any_sequence_of_anything(
    role: Role, stage: str, rollback: bool, steps: list[tuple[str, Any]]
) -> None:
    bench = Fuzzed(role, rollback)
    bring(bench, stage)
    for kind, value in steps:
        bench.step(kind, value)
        bench.check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "data", "sdp", "candidate", "item", "content", "message"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
TYPES = sorted({frame["type"] for frame in FRAMES if isinstance(frame, dict)})


@given(
    role=st.sampled_from(list(Role)),
    stage=st.sampled_from([*ANY_STAGE, "closing", "closed"]),
    texts=st.lists(
        st.text()
        | st.binary()
        | JSON.map(json.dumps)
        | st.builds(
            lambda kind, rest: json.dumps({**rest, "type": kind}),
            st.sampled_from(TYPES),
            st.dictionaries(st.sampled_from(["data", "item", "sdp", "session"]), JSON),
        ),
        max_size=10,
    ),
)
def test_any_text_never_raises(role: Role, stage: str, texts: list[str | bytes]) -> None:
    bench = Fuzzed(role, rollback=False)
    bring(bench, stage)
    for text in texts:
        bench.text(text)
        bench.check()


def test_dropped_candidates_are_told() -> None:
    bench = client("ready", limits=LIMITS)
    assert bench.text(*[candidate()] * 5) == ["! CandidateIgnored"] * 2
    assert {event.reason for event in bench.events(CandidateIgnored)} == {
        "more than 3 candidates held"
    }


# ---- the conversation: its machine is tested in test_conversation.py


CALL = {
    "type": "realtime.response.function_call_arguments.done",
    "data": {"call_id": "c1", "function_name": "clock", "arguments": {"zone": "UTC"}},
}


def test_a_call_is_answered_once_also_while_the_answer_waits() -> None:
    bench = client("opening")
    assert bench.text(CALL) == ["! MessageReceived", "! FunctionCall"]
    assert bench.connection.pending_calls == ("c1",)
    assert bench.send(ToolResult(call_id="c1", output="{}")) == []
    assert bench.connection.pending_calls == ()
    with pytest.raises(LocalProtocolError, match="answered already"):
        bench.send(ToolResult(call_id="c1", output="{}"))
    assert bench.text(CALL) == ["! MessageReceived", "! ProtocolViolation"]
    assert bench.text(CREATED, UPDATED) == ["! Ready", "> conversation.item.create"]
    assert server("ready").connection.pending_calls == ()


def test_an_answer_has_a_deadline_and_ends_before_the_session_does() -> None:
    bench = client("ready", media=(), response_timeout=4.0)
    bench.send(SayText(text="hi"))
    assert bench.expect(T0 + 4.0) == ["! ResponseFailed"]
    bench.text(
        {"type": "realtime.response.audio_transcript.delta", "data": {"id": "r", "content": "x"}},
        {"type": "realtime.response.audio.done"},
        {"type": "realtime.response.audio.done"},
    )
    assert bench.connection.counters.late == 1
    bench.connection.transport_closed(code=1006, reason="", now=bench.now)
    assert bench.take() == ["! ResponseInterrupted", "! Closed"]


@pytest.mark.parametrize("mode", [Mode.TRANSPARENCY, Mode.AUDIO_BACK])
def test_who_brings_the_speech_is_ready_at_success(mode: Mode) -> None:
    bench = client("welcoming", media=(), mode=mode)
    bench.send(InputConfig(voice="ash"))
    assert bench.text(SUCCESS) == ["! Connected", "! Ready", "! Usable"]
    assert bench.connection.session_id is not None
    assert bench.send(SendAudio(pcm=bytes(960)), AudioCommit())[0].startswith("> ")
    assert bench.text(CREATED, UPDATED) == ["! MessageReceived"] * 2
    assert bench.text(SUCCESS) == ["! ProtocolViolation"]


@pytest.mark.parametrize("state", ["welcoming", "ready"])
@pytest.mark.parametrize("mode", [Mode.TRANSPARENCY, Mode.AUDIO_BACK])
@pytest.mark.parametrize(
    "intent",
    [
        SayText(text="Hello?"),
        SayText(text="Hello?", respond=False),
        UserMessage(texts=("Hello?",)),
        InputText(content="Hello?"),
        InputImage(content="data:image/jpeg;base64,AA=="),
        ResponseCreate(),
    ],
    ids=lambda intent: type(intent).__name__,
)
def test_a_mode_without_turns_takes_no_text(
    mode: Mode, state: str, intent: Intent, snapshot: Snapshot
) -> None:
    """Nobody would answer: waiting for it would end in a time-out."""
    bench = client("welcoming", media=(), mode=mode)
    if state == "ready":
        bench.text(SUCCESS)
    before = snapshot(bench.connection)
    with pytest.raises(LocalProtocolError, match=r"mode has no turns: .* send_audio"):
        bench.send(intent)
    assert snapshot(bench.connection) == before


# ---- whether media comes: its machine is tested in test_media_flow.py


def lines(*directions: str, ufrag: str = "far") -> str:
    """A description with video and audio m-lines of mids 0 and 1."""
    head = [
        "v=0",
        f"a=ice-ufrag:{ufrag}",
        "a=ice-pwd:0123456789012345678901",
        f"a=fingerprint:sha-256 AA:{ord(ufrag[0]):02X}",
    ]
    for mid, (kind, direction) in enumerate(zip(("video", "audio"), directions, strict=True)):
        head += [f"m={kind} 9 UDP/TLS/RTP/SAVPF 96", f"a=mid:{mid}", f"a={direction}"]
    return "".join(line + "\r\n" for line in head)


TRACKS = (
    TrackAdded(track_id="v", kind=MediaKind.VIDEO, mid="0"),
    TrackAdded(track_id="a", kind=MediaKind.AUDIO, mid="1"),
)
PACKETS = (
    MediaProgress(track_id="v", kind=MediaKind.VIDEO),
    MediaProgress(track_id="a", kind=MediaKind.AUDIO),
)


def flowing(**options: Any) -> Bench:
    """A client that answered and gets video and audio."""
    bench = client("ready", **options)
    bench.text(offer(lines("sendonly", "sendonly")))
    bench.done(1)
    bench.media(*TRACKS)
    bench.done(2)
    bench.done(3, Answer(sdp=lines("recvonly", "recvonly", ufrag="ours")))
    bench.media(state(MediaState.CONNECTED), ConsentRefreshed(), VIDEO_STARTED, *PACKETS)
    return bench


def test_a_stall_a_loss_and_media_that_comes_again() -> None:
    bench = flowing()
    start = bench.now
    assert bench.expect(start + 2.0) == ["! MediaStalled", "! MediaStalled"]
    assert [event.consent_age for event in bench.events(MediaStalled)] == [2.0, 2.0]
    assert bench.expect(start + 10.0) == ["! MediaLost", "! MediaLost"]
    assert bench.state is State.READY, "the conversation works without media"
    assert bench.media(*PACKETS) == ["! MediaResumed", "! MediaResumed"]


def test_media_that_is_lost_ends_the_session_where_that_is_asked_for() -> None:
    bench = flowing(end_on_media_loss=True)
    start = bench.now
    bench.expect(start + 2.0)
    bench.now = start + 10.0
    bench.connection.handle_timeout(now=bench.now)
    lost = ["! MediaLost", "! MediaLost"]
    assert bench.take() == [*lost, "ClosePeer", "x 1000 no video for 10 s"]
    assert bench.close(1000)[-1] == "! Closed"
    assert bench.event(Closed).cause is CloseCause.MEDIA_LOST


def test_the_answers_of_both_ends_put_on_hold() -> None:
    bench = flowing()
    start = bench.now
    assert bench.send(Negotiate(media=RECEIVE_MEDIA)) == ["CreateOffer"]
    ours = Offer(sdp=lines("recvonly", "recvonly", ufrag="ours"))
    bench.done(4, ours)
    theirs = {"type": "answer", "sdp": lines("inactive", "sendonly")}
    bench.text({"type": "webrtc.signaling.answer", "data": {"sdp": theirs}})
    bench.done(5, ours)
    assert bench.done(6)[-1] == "! Negotiated"
    assert bench.expect(start + 2.0) == ["! MediaStalled"]
    assert bench.event(MediaStalled).kind is MediaKind.AUDIO


def test_an_answer_of_an_engine_that_is_not_read_puts_nothing_on_hold() -> None:
    bench = flowing()
    start = bench.now
    bench.text(offer(lines("sendonly", "sendonly")))
    bench.done(4)
    assert bench.done(5, Answer(sdp="v=0 and no more"))[-1] == "! Negotiated"
    assert bench.expect(start + 2.0) == ["! MediaStalled", "! MediaStalled"]


@pytest.mark.parametrize("how", [MediaState.FAILED, MediaState.CLOSED])
def test_a_new_peer_connection_ends_the_stall(how: MediaState) -> None:
    bench = flowing()
    start = bench.now
    bench.media(state(how))
    assert bench.expect(start + 2.0) == ["! MediaStalled", "! MediaStalled"]
    bench.text(offer(lines("sendonly", "sendonly", ufrag="new")))
    bench.done(4)
    bench.media(*TRACKS)
    bench.done(5)
    bench.done(6, Answer(sdp=lines("recvonly", "recvonly", ufrag="ours")))
    bench.media(state(MediaState.CONNECTED))
    assert bench.media(*PACKETS) == ["! MediaResumed", "! MediaResumed"]


def test_a_server_does_not_watch_its_media() -> None:
    bench = server("ready")
    bench.media(*TRACKS, state(MediaState.CONNECTED), ConsentRefreshed(), *PACKETS)
    bench.media(MediaStarted(track_id="v", kind=MediaKind.VIDEO), state(MediaState.CLOSED))
    assert bench.connection.next_timeout() is None


# ---- what an adapter asks ahead


def test_a_message_is_checked_and_not_sent(snapshot: Snapshot) -> None:
    config = ClientConfig(limits=Limits(client_message=200))
    connection = Connection(Role.CLIENT, config, now=T0)
    before = snapshot(connection)
    connection.check(UserMessage(texts=("short",)))
    with pytest.raises(LocalProtocolError, match="over the limit of 200"):
        connection.check(UserMessage(texts=("x" * 200,)))
    assert snapshot(connection) == before


def test_the_far_ends_description_says_what_can_flow() -> None:
    pair = LinkedPair()
    assert not pair.client.connection.carries(RECEIVE_MEDIA)
    pair.open()
    pair.send(pair.server, ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated())
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    assert pair.client.connection.carries(RECEIVE_MEDIA)
    assert not pair.client.connection.carries((*RECEIVE_MEDIA, *RECEIVE_MEDIA))
