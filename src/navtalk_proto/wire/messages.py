"""Every message of the NavTalk v2 WebSocket, one frozen class per meaning (protocol.md section 4).

A class is the meaning; spellings end in :mod:`navtalk_proto.wire.codec`. ``TYPE`` is the type
string that we write. Fields that a peer may leave out have the default that means "left out".
Audio is raw PCM16 little-endian, mono, 24,000 Hz (protocol.md 5.12); nothing here is base64 or
JSON text, except where the wire itself carries JSON inside a string and its exact text matters.

Texts that may hold a whole call (SDP, audio, pictures) and credentials do not show in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from attrs import field, frozen

from navtalk_proto.secret import Secret

__all__ = [
    "JsonObject",
    "JsonValue",
    "IceServer",
    "Offer",
    "Answer",
    "Description",
    "IceCandidate",
    "Signaling",
    "ConnectedSuccess",
    "ConnectedWarning",
    "ConnectedFail",
    "ConnectedClose",
    "InsufficientBalance",
    "ConnectionLimitExceeded",
    "GpuFull",
    "BackendError",
    "Refusal",
    "SessionCreated",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "InputTranscript",
    "TranscriptDelta",
    "TranscriptDone",
    "AudioDelta",
    "AudioDone",
    "FunctionCallDelta",
    "FunctionCallDone",
    "ResponseCompleted",
    "ServerError",
    "ServerStatus",
    "VideoDelta",
    "SynthesisError",
    "StreamingBreak",
    "UnmappedEvent",
    "InputConfig",
    "InputFunctionCall",
    "UserMessage",
    "ToolResult",
    "FunctionCallOutput",
    "ResponseCreate",
    "SessionUpdate",
    "AudioAppend",
    "AudioClear",
    "AudioCommit",
    "InputImage",
    "InputText",
    "IceRestartRequest",
    "GatewayHello",
    "ServerMessage",
    "ClientMessage",
    "Message",
    "Unknown",
]

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
JsonObject: TypeAlias = Mapping[str, JsonValue]


def _length(text: str | bytes) -> str:
    unit = "bytes" if isinstance(text, bytes) else "characters"
    return f"<{len(text)} {unit}>"


# ---- signaling, both directions (seed steps 1 to 3, protocol.md 5.4 and 5.5)


@frozen(kw_only=True)
class IceServer:
    """One entry of an RTCConfiguration's iceServers (W3C webrtc-pc 4.2.2)."""

    urls: tuple[str, ...]
    username: str | None = field(default=None, repr=False)
    credential: Secret | None = None


@frozen(kw_only=True)
class Offer:
    """A session description of type offer. `sdp` has CRLF line ends."""

    TYPE: ClassVar[str] = "webrtc.signaling.offer"
    sdp: str = field(repr=_length)


@frozen(kw_only=True)
class Answer:
    """A session description of type answer. `sdp` has CRLF line ends."""

    TYPE: ClassVar[str] = "webrtc.signaling.answer"
    sdp: str = field(repr=_length)


Description: TypeAlias = Offer | Answer


@frozen(kw_only=True)
class IceCandidate:
    """One ICE candidate (RFC 8839 section 5.1) as RTCIceCandidateInit carries it.

    `candidate` keeps the ``candidate:`` prefix. An empty text is the end-of-candidates mark; the
    wire's null candidate is read as one.
    """

    TYPE: ClassVar[str] = "webrtc.signaling.iceCandidate"
    candidate: str
    sdp_mid: str | None = None
    sdp_m_line_index: int | None = None
    username_fragment: str | None = None

    @property
    def is_end(self) -> bool:
        """Whether this is an end-of-candidates mark."""
        return not self.candidate


Signaling: TypeAlias = Offer | Answer | IceCandidate

# ---- server to client: the connection (protocol.md 5.1 to 5.3, 5.6)


@frozen(kw_only=True)
class ConnectedSuccess:
    """The server's first message: the session exists (protocol.md 5.1, seed step 2)."""

    TYPE: ClassVar[str] = "conversation.connected.success"
    session_id: str
    ice_servers: tuple[IceServer, ...] = ()


@frozen(kw_only=True)
class ConnectedWarning:
    """Several avatars share the name; the most recently updated one was taken (5.2)."""

    TYPE: ClassVar[str] = "conversation.connected.warning"
    message: str = ""
    avatar_id: str | None = None


@frozen(kw_only=True)
class ConnectedFail:
    """Licence, avatar or connection error (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.fail"
    message: str = ""


@frozen(kw_only=True)
class ConnectedClose:
    """The server ends the session (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.close"
    message: str = ""


@frozen(kw_only=True)
class InsufficientBalance:
    """No credit left, at setup or in mid-session (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.insufficient_balance"
    message: str = ""


@frozen(kw_only=True)
class ConnectionLimitExceeded:
    """Too many sessions for this licence (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.connection_limit_exceeded"
    message: str = ""


@frozen(kw_only=True)
class GpuFull:
    """No worker is free (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.gpu_full"
    message: str = ""


@frozen(kw_only=True)
class BackendError:
    """The service failed inside (5.3)."""

    TYPE: ClassVar[str] = "conversation.connected.backend_error"
    message: str = ""


Refusal: TypeAlias = (
    ConnectedFail | InsufficientBalance | ConnectionLimitExceeded | GpuFull | BackendError
)


@frozen(kw_only=True)
class SessionCreated:
    """The model session exists; history may be sent now (5.6)."""

    TYPE: ClassVar[str] = "realtime.session.created"
    data: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class SessionUpdated:
    """The session is configured; audio may be sent now (5.6)."""

    TYPE: ClassVar[str] = "realtime.session.updated"
    data: JsonObject = field(factory=dict)


# ---- server to client: the conversation (protocol.md 3.2, 5.15, 5.16, 5.19)


@frozen(kw_only=True)
class SpeechStarted:
    """Voice activity began; the server drops what the avatar still had to say."""

    TYPE: ClassVar[str] = "realtime.input_audio_buffer.speech_started"


@frozen(kw_only=True)
class SpeechStopped:
    """Voice activity ended."""

    TYPE: ClassVar[str] = "realtime.input_audio_buffer.speech_stopped"


@frozen(kw_only=True)
class InputTranscript:
    """What the user said, final."""

    TYPE: ClassVar[str] = "realtime.conversation.item.input_audio_transcription.completed"
    content: str


@frozen(kw_only=True)
class TranscriptDelta:
    """A piece of what the human is saying."""

    TYPE: ClassVar[str] = "realtime.response.audio_transcript.delta"
    response_id: str
    content: str


@frozen(kw_only=True)
class TranscriptDone:
    """All of what the human says in one response; wins over the deltas.

    `content` is None where the server left the text out and the accumulated deltas stand.
    """

    TYPE: ClassVar[str] = "realtime.response.audio_transcript.done"
    response_id: str
    content: str | None = None


@frozen(kw_only=True)
class AudioDelta:
    """A piece of the reply as PCM16; absent normally, because the voice comes over WebRTC."""

    TYPE: ClassVar[str] = "realtime.response.audio.delta"
    audio: bytes = field(repr=_length)


@frozen(kw_only=True)
class AudioDone:
    """The reply's audio is generated (not: played)."""

    TYPE: ClassVar[str] = "realtime.response.audio.done"


@frozen(kw_only=True)
class FunctionCallDelta:
    """A piece of a function call's arguments, JSON text."""

    TYPE: ClassVar[str] = "realtime.response.function_call_arguments.delta"
    call_id: str
    delta: str


@frozen(kw_only=True)
class FunctionCallDone:
    """The model calls a function (5.16). `arguments` is JSON text, not checked to be JSON.

    An object on the wire is rewritten as its JSON text. `raw_data` is the untouched upstream event.
    """

    TYPE: ClassVar[str] = "realtime.response.function_call_arguments.done"
    call_id: str
    name: str
    arguments: str = "{}"
    raw_data: JsonObject | None = None


@frozen(kw_only=True)
class ResponseCompleted:
    """A response is over; known from listener constants only (``response.done`` and the like)."""

    TYPE: ClassVar[str] = "realtime.response.completed"
    response_id: str | None = None


@frozen(kw_only=True)
class ServerError:
    """An error inside a running session: ``error`` and ``realtime.response.error``."""

    TYPE: ClassVar[str] = "realtime.response.error"
    message: str = ""
    code: str | None = None


@frozen(kw_only=True)
class ServerStatus:
    """``realtime.status``, seen in third-party code only; its payload is kept as it came."""

    TYPE: ClassVar[str] = "realtime.status"
    data: JsonObject = field(factory=dict, repr=False)


@frozen(kw_only=True)
class VideoDelta:
    """``realtime.response.video.delta``, seen in third-party code only."""

    TYPE: ClassVar[str] = "realtime.response.video.delta"
    data: JsonObject = field(factory=dict, repr=False)


@frozen(kw_only=True)
class SynthesisError:
    """Speech synthesis (``tts``) or recognition (``stt``) failed in audioBack mode."""

    TYPE: ClassVar[str] = "realtime_synthesis.tts.error"
    stage: str = "tts"
    message: str = ""


@frozen(kw_only=True)
class StreamingBreak:
    """Barge-in on an internal hop; never sent to public clients (rule E9)."""

    TYPE: ClassVar[str] = "webrtc.streaming.break"


@frozen(kw_only=True)
class UnmappedEvent:
    """An upstream event without a NavTalk name; the type string is misspelt on the wire (5.19)."""

    TYPE: ClassVar[str] = "unknow"
    raw_data: JsonObject | None = None


# ---- client to server (protocol.md 4.2, 5.7 to 5.18)


@frozen(kw_only=True)
class InputConfig:
    """Voice, instructions and tools for this session (5.7). None keeps the console's setting."""

    TYPE: ClassVar[str] = "realtime.input_config"
    voice: str | None = None
    prompt: str | None = None
    tools: tuple[JsonObject, ...] | None = None


@frozen(kw_only=True)
class InputFunctionCall:
    """The tools the model may call, OpenAI function format (5.8)."""

    TYPE: ClassVar[str] = "realtime.input_function_call"
    tools: tuple[JsonObject, ...]


@frozen(kw_only=True)
class UserMessage:
    """A message of the conversation: history, or typed text (5.9).

    `texts` are the content parts in order. `role` is ``user`` from every known client.
    """

    TYPE: ClassVar[str] = "conversation.item.create"
    texts: tuple[str, ...]
    role: str = "user"


@frozen(kw_only=True)
class ToolResult:
    """The answer to a function call, classic form (5.17). `output` is usually JSON text."""

    TYPE: ClassVar[str] = "conversation.item.create"
    call_id: str
    output: str


@frozen(kw_only=True)
class FunctionCallOutput:
    """The answer to a function call, newer form (5.17). `reply` asks for an answer now."""

    TYPE: ClassVar[str] = "realtime.function_call_output"
    call_id: str
    output: str
    reply: bool = True


@frozen(kw_only=True)
class ResponseCreate:
    """Ask for a response now (5.11)."""

    TYPE: ClassVar[str] = "response.create"


@frozen(kw_only=True)
class SessionUpdate:
    """Early v2 configuration with OpenAI's field names (5.18)."""

    TYPE: ClassVar[str] = "session.update"
    session: JsonObject


@frozen(kw_only=True)
class AudioAppend:
    """A piece of the user's voice (5.12): PCM16 little-endian, mono, 24,000 Hz."""

    TYPE: ClassVar[str] = "realtime.input_audio_buffer.append"
    audio: bytes = field(repr=_length)
    sequence_number: int | None = None


@frozen(kw_only=True)
class AudioClear:
    """Drop buffered speech (5.13)."""

    TYPE: ClassVar[str] = "realtime.input_audio_buffer.clear"


@frozen(kw_only=True)
class AudioCommit:
    """The utterance ends here (5.13)."""

    TYPE: ClassVar[str] = "realtime.input_audio_buffer.commit"


@frozen(kw_only=True)
class InputImage:
    """A picture as a data URL (5.14); `reply` asks for an answer now."""

    TYPE: ClassVar[str] = "realtime.input_image"
    content: str = field(repr=_length)
    reply: bool = False


@frozen(kw_only=True)
class InputText:
    """Typed text in one message (5.10); servers may not know it, UserMessage is safer."""

    TYPE: ClassVar[str] = "realtime.input_text"
    content: str


@frozen(kw_only=True)
class IceRestartRequest:
    """Asks for an ICE restart; no public client or server is known to honour it (rule E9)."""

    TYPE: ClassVar[str] = "webrtc.signaling.iceRestartRequest"


@frozen(kw_only=True)
class GatewayHello:
    """connected.success echoed to a worker with provider data: an internal hop (4.2)."""

    TYPE: ClassVar[str] = "conversation.connected.success"
    data: JsonObject = field(factory=dict, repr=False)


ServerMessage: TypeAlias = (
    ConnectedSuccess
    | ConnectedWarning
    | ConnectedFail
    | ConnectedClose
    | InsufficientBalance
    | ConnectionLimitExceeded
    | GpuFull
    | BackendError
    | Offer
    | Answer
    | IceCandidate
    | SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
    | InputTranscript
    | TranscriptDelta
    | TranscriptDone
    | AudioDelta
    | AudioDone
    | FunctionCallDelta
    | FunctionCallDone
    | ResponseCompleted
    | ServerError
    | ServerStatus
    | VideoDelta
    | SynthesisError
    | StreamingBreak
    | UnmappedEvent
)
ClientMessage: TypeAlias = (
    Offer
    | Answer
    | IceCandidate
    | InputConfig
    | InputFunctionCall
    | UserMessage
    | ToolResult
    | FunctionCallOutput
    | ResponseCreate
    | SessionUpdate
    | AudioAppend
    | AudioClear
    | AudioCommit
    | InputImage
    | InputText
    | IceRestartRequest
    | GatewayHello
)
Message: TypeAlias = ServerMessage | ClientMessage


@frozen(kw_only=True)
class Unknown:
    """A message whose type string is not in the table. `raw` is its text, cut to Limits."""

    type: str
    raw: str = field(repr=_length)
