"""JSON text to messages and back (protocol.md sections 4, 5, 6.6 and 7).

The JSON and the objects are written here by hand from the document; no table of the codec is read.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_json import (
    ANSWER,
    ANSWER_SDP,
    APPEND,
    AVATAR,
    CALL,
    CANDIDATE,
    CLOSE_TALK,
    CONFIG,
    ITEM,
    LIMITS,
    OFFER,
    OFFER_SDP,
    PCM,
    SHARED_NAME,
    SUCCESS,
    C,
    S,
    check_mistake,
    read,
    refusal,
)

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire import codec, jsontext, realtime_messages
from navtalk_proto.wire.codec import OversizedMessageError, decode, encode
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioDelta,
    AudioDone,
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    ConnectionLimitExceeded,
    FunctionCallDelta,
    FunctionCallDone,
    FunctionCallOutput,
    GatewayHello,
    GpuFull,
    IceCandidate,
    IceRestartRequest,
    IceServer,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    InsufficientBalance,
    Offer,
    ResponseCompleted,
    ResponseCreate,
    ServerError,
    ServerStatus,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    StreamingBreak,
    SynthesisError,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    Unknown,
    UnmappedEvent,
    UserMessage,
    VideoDelta,
)

# ---- every JSON example of section 5

EXAMPLES: list[tuple[Role, str, object]] = [
    (
        S,
        """{
          "type": "conversation.connected.success",
          "message": "",
          "data": {
            "sessionId": "3f1c0a52-6a0b-4f0e-9a53-0f6a3f0c9d11",
            "iceServers": [
              {"urls": ["stun:stun.example.org:3478"]},
              {"urls": ["turn:turn.example.org:3478?transport=udp",
                        "turns:turn.example.org:5349?transport=tcp"],
               "username": "u", "credential": "p"}
            ]
          }
        }""",
        ConnectedSuccess(
            session_id="3f1c0a52-6a0b-4f0e-9a53-0f6a3f0c9d11",
            ice_servers=(
                IceServer(urls=("stun:stun.example.org:3478",)),
                IceServer(
                    urls=(
                        "turn:turn.example.org:3478?transport=udp",
                        "turns:turn.example.org:5349?transport=tcp",
                    ),
                    username="u",
                    credential=Secret("p"),
                ),
            ),
        ),
    ),
    (
        S,
        """{"type": "conversation.connected.warning",
         "message": "Multiple avatars share the name 'my-avatar'; using the most recently updated one.",
         "data": {"avatarId": "0123456789abcdef0123456789abcdef",
                  "message": "Multiple avatars share the name 'my-avatar'; using the most recently updated one."}}""",  # noqa: E501
        ConnectedWarning(message=SHARED_NAME, avatar_id=AVATAR),
    ),
    (
        S,
        '{"type": "conversation.connected.fail", "data": {}, "message": "Invalid license key"}',
        ConnectedFail(message="Invalid license key"),
    ),
    (
        S,
        '{"type": "conversation.connected.close", "data": {}, "message": "Session timeout"}',
        ConnectedClose(message="Session timeout"),
    ),
    (
        S,
        '{"type": "conversation.connected.insufficient_balance", "data": {},'
        ' "message": "Insufficient balance to continue service"}',
        InsufficientBalance(message="Insufficient balance to continue service"),
    ),
    (
        S,
        '{"type": "conversation.connected.connection_limit_exceeded", "data": {},'
        ' "message": "Maximum concurrent connections (5) exceeded."}',
        ConnectionLimitExceeded(message="Maximum concurrent connections (5) exceeded."),
    ),
    (
        S,
        '{"type": "conversation.connected.gpu_full", "data": {},'
        ' "message": "No GPU worker is free, try again later."}',
        GpuFull(message="No GPU worker is free, try again later."),
    ),
    (
        S,
        '{"type": "conversation.connected.backend_error", "data": {}, "message": "Backend error"}',
        BackendError(message="Backend error"),
    ),
    (
        S,
        r"""{"type": "webrtc.signaling.offer",
         "data": {"sdp": {"type": "offer", "sdp": "v=0\r\no=- 3900000000 3900000000 IN IP4 0.0.0.0\r\n..."}}}""",  # noqa: E501
        Offer(sdp=OFFER_SDP),
    ),
    (
        C,
        r"""{"type": "webrtc.signaling.answer",
         "data": {"sdp": {"type": "answer", "sdp": "v=0\r\no=- 8643312983218886913 2 IN IP4 127.0.0.1\r\n..."}}}""",  # noqa: E501
        Answer(sdp=ANSWER_SDP),
    ),
    (
        C,
        """{"type": "webrtc.signaling.iceCandidate",
         "data": {"candidate": {
           "candidate": "candidate:1666409998 1 udp 2122129151 192.168.1.81 64301 typ host generation 0 ufrag lwyK network-id 1",
           "sdpMid": "0",
           "sdpMLineIndex": 0,
           "usernameFragment": "lwyK"}}}""",  # noqa: E501
        IceCandidate(
            candidate=CANDIDATE, sdp_mid="0", sdp_m_line_index=0, username_fragment="lwyK"
        ),
    ),
    (S, '{"type": "realtime.session.created", "message": "", "data": {}}', SessionCreated()),
    (S, '{"type": "realtime.session.updated", "message": "", "data": {}}', SessionUpdated()),
    (
        C,
        r"""{"type": "realtime.input_config",
         "data": {"content": "{\"voice\":\"cedar\",\"prompt\":\"You are a hotel receptionist.\",\"tools\":[]}"}}""",  # noqa: E501
        InputConfig(voice="cedar", prompt="You are a hotel receptionist.", tools=()),
    ),
    (
        C,
        r"""{"type": "realtime.input_function_call",
         "data": {"content": "[{\"type\":\"function\",\"name\":\"close_talk\",\"description\":\"...\",\"parameters\":{\"type\":\"object\",\"properties\":{\"userInput\":{\"type\":\"string\",\"description\":\"...\"}},\"required\":[\"userInput\"]}}]"}}""",  # noqa: E501
        InputFunctionCall(tools=(CLOSE_TALK,)),
    ),
    (
        C,
        """{"type": "conversation.item.create",
         "item": {"type": "message", "role": "user",
                  "content": [{"type": "input_text", "text": "My name is Ana."}]}}""",
        UserMessage(texts=("My name is Ana.",)),
    ),
    (
        C,
        '{"type": "realtime.input_text", "data": {"content": "Hello"}}',
        InputText(content="Hello"),
    ),
    (C, '{"type": "response.create"}', ResponseCreate()),
    (
        C,
        '{"type": "realtime.input_audio_buffer.append", "data": {"audio": "AAABAP//"}}',
        AudioAppend(audio=PCM),
    ),
    (
        C,
        '{"type": "realtime.input_audio_buffer.append",'
        ' "data": {"audio": "AAABAP//", "sequenceNumber": 17}}',
        AudioAppend(audio=PCM, sequence_number=17),
    ),
    (C, '{"type": "input_audio_buffer.append", "audio": "AAABAP//"}', AudioAppend(audio=PCM)),
    (
        C,
        """{"type": "realtime.input_audio_buffer.append", "messageId": "s1_0", "traceId": "t1",
         "data": {"audio": "AAABAP//", "sampleRate": 24000, "mimeType": "audio/pcm;rate=24000",
                  "streamId": "s1", "traceId": "t1", "sequence": 0, "messageId": "s1_0",
                  "source": "user"}}""",
        AudioAppend(audio=PCM, sequence_number=0),
    ),
    (C, '{"type": "realtime.input_audio_buffer.clear", "data": {}}', AudioClear()),
    (C, '{"type": "realtime.input_audio_buffer.commit", "data": {}}', AudioCommit()),
    (C, '{"type": "input_audio_buffer.clear"}', AudioClear()),
    (
        C,
        '{"type": "realtime.input_image",'
        ' "data": {"content": "data:image/jpeg;base64,/9j/4AAQ...", "reply": 0}}',
        InputImage(content="data:image/jpeg;base64,/9j/4AAQ...", reply=False),
    ),
    (
        S,
        '{"type": "realtime.input_audio_buffer.speech_started", "message": "", "data": {}}',
        SpeechStarted(),
    ),
    (
        S,
        '{"type": "realtime.input_audio_buffer.speech_stopped", "message": "", "data": {}}',
        SpeechStopped(),
    ),
    (
        S,
        """{"type": "realtime.conversation.item.input_audio_transcription.completed",
         "data": {"content": "What time is breakfast?", "transcript": "What time is breakfast?"}}""",  # noqa: E501
        InputTranscript(content="What time is breakfast?"),
    ),
    (
        S,
        '{"type": "realtime.response.audio_transcript.delta",'
        ' "data": {"id": "resp_01", "content": "Breakfast "}}',
        TranscriptDelta(response_id="resp_01", content="Breakfast "),
    ),
    (
        S,
        '{"type": "realtime.response.audio_transcript.done", "data": {"id": "resp_01",'
        ' "content": "Breakfast is at seven.", "transcript": "Breakfast is at seven."}}',
        TranscriptDone(response_id="resp_01", content="Breakfast is at seven."),
    ),
    (
        S,
        '{"type": "realtime.response.audio.delta", "data": {"delta": "AAABAP//"}}',
        AudioDelta(audio=PCM),
    ),
    (S, '{"type": "realtime.response.audio.done", "message": "", "data": {}}', AudioDone()),
    (
        S,
        r"""{"type": "realtime.response.function_call_arguments.done",
         "data": {"function_name": "function_call_close_talk", "call_id": "call_JZ0DW", "arguments": {"userInput": "close"}},
         "raw_data": {"type": "response.function_call_arguments.done", "event_id": "event_1", "response_id": "resp_1",
                      "item_id": "item_1", "output_index": 0, "call_id": "call_JZ0DW", "name": "function_call_close_talk",
                      "arguments": "{\n  \"userInput\": \"close\"\n}"}}""",  # noqa: E501
        CALL,
    ),
    (
        S,
        r'{"type":"realtime.response.function_call_arguments.delta",'
        r'"data":{"call_id":"call_JZ0DW","delta":"{\"user"}}',
        FunctionCallDelta(call_id="call_JZ0DW", delta='{"user'),
    ),
    (
        C,
        r'{"type": "conversation.item.create", "item": {"type": "function_call_output",'
        r' "call_id": "call_JZ0DW", "output": "{\"ok\":true}"}}',
        ToolResult(call_id="call_JZ0DW", output='{"ok":true}'),
    ),
    (
        C,
        r'{"type": "realtime.function_call_output",'
        r' "data": {"call_id": "call_JZ0DW", "output": "{\"ok\":true}", "reply": 1}}',
        FunctionCallOutput(call_id="call_JZ0DW", output='{"ok":true}', reply=True),
    ),
    (
        C,
        '{"type": "session.update", "session": {"instructions": "Be brief.", "voice": "sage",'
        ' "temperature": 0.8, "modalities": ["text", "audio"]}}',
        SessionUpdate(
            session={
                "instructions": "Be brief.",
                "voice": "sage",
                "temperature": 0.8,
                "modalities": ["text", "audio"],
            }
        ),
    ),
    (
        S,
        '{"type": "unknow", "message": "", "data": {},'
        ' "raw_data": {"type": "response.content_part.added"}}',
        UnmappedEvent(raw_data={"type": "response.content_part.added"}),
    ),
]


@pytest.mark.parametrize(("sender", "text", "message"), EXAMPLES)
def test_the_documents_examples_are_read(sender: Role, text: str, message: object) -> None:
    assert read(sender, text) == message
    assert read(sender, text.encode()) == message


# ---- what is no message


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (SessionCreated(data={"credential": Secret("TOP")}), "a Secret is not JSON"),  # type: ignore[dict-item]
        (InputText(content="\ud800"), "lone surrogate"),
        (Unknown(type="x", raw="{}"), "a Unknown is not a message"),
        ("text", "a str is not a message"),
    ],
)
def test_what_has_no_json_form_is_a_local_mistake(message: Any, says: str) -> None:
    check_mistake(message, says)


# ---- every type string of section 4

SERVER_TYPES = [
    "conversation.connected.success",
    "conversation.connected.warning",
    "conversation.connected.fail",
    "conversation.connected.close",
    "conversation.connected.insufficient_balance",
    "conversation.connected.connection_limit_exceeded",
    "conversation.connected.gpu_full",
    "conversation.connected.backend_error",
    "webrtc.signaling.offer",
    "webrtc.signaling.answer",
    "webrtc.signaling.iceCandidate",
    "realtime.session.created",
    "realtime.session.updated",
    "realtime.input_audio_buffer.speech_started",
    "realtime.input_audio_buffer.speech_stopped",
    "realtime.conversation.item.input_audio_transcription.completed",
    "realtime.response.audio_transcript.delta",
    "realtime.response.audio_transcript.done",
    "realtime.response.audio.delta",
    "realtime.response.audio.done",
    "realtime.response.function_call_arguments.delta",
    "realtime.response.function_call_arguments.done",
    "unknow",
    "unknown",
    "realtime.response.completed",
    "realtime.response.error",
    "error",
    "response.done",
    "realtime.session.gpu_full",
    "realtime.session.insufficient_balance",
    "realtime.status",
    "realtime.response.video.delta",
    "realtime_synthesis.tts.error",
    "realtime_synthesis.stt.error",
    "webrtc.streaming.break",
    "session.gpu_full",
    "session.insufficient_balance",
    "session.backend.error",
]
CLIENT_TYPES = [
    "realtime.input_config",
    "realtime.input_function_call",
    "conversation.item.create",
    "realtime.function_call_output",
    "realtime.input_function_call_output",
    "response.create",
    "session.update",
    "realtime.input_audio_buffer.append",
    "input_audio_buffer.append",
    "realtime.input_audio_buffer.clear",
    "realtime.input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "input_audio_buffer.commit",
    "realtime.input_image",
    "realtime.input_text",
    "realtime.input.text",
    "webrtc.signaling.answer",
    "webrtc.signaling.offer",
    "webrtc.signaling.iceCandidate",
    "webrtc.signaling.iceRestartRequest",
    "conversation.connected.success",
]
# Enough fields for any type.
FULL = {
    "sessionId": "s",
    "sdp": "v=0",
    "id": "r",
    "call_id": "c",
    "name": "f",
    "content": "[]",
    "delta": "AAA=",
    "output": "x",
}


@pytest.mark.parametrize(
    ("sender", "type"), [(S, t) for t in SERVER_TYPES] + [(C, t) for t in CLIENT_TYPES]
)
def test_every_type_of_the_document_has_a_class(sender: Role, type: str) -> None:
    fields: dict[str, object] = dict(FULL)
    if type == "realtime.input_config":
        fields["content"] = "{}"
    message = read(sender, {"type": type, "data": fields, "item": {"content": "x"}, "session": {}})
    assert not isinstance(message, Unknown)
    assert message is not None


BOTH = set(SERVER_TYPES) & set(CLIENT_TYPES)


def test_both_sides_share_signaling_and_success_only() -> None:
    assert sorted(BOTH) == [
        "conversation.connected.success",
        "webrtc.signaling.answer",
        "webrtc.signaling.iceCandidate",
        "webrtc.signaling.offer",
    ]


@pytest.mark.parametrize("type", [t for t in SERVER_TYPES if t not in BOTH])
def test_a_server_message_from_a_client_is_malformed(type: str) -> None:
    error = refusal(C, {"type": type, "data": dict(FULL)})
    assert (error.reason, error.type, error.field) == (
        "a server message sent by a client",
        type,
        None,
    )


@pytest.mark.parametrize("type", [t for t in CLIENT_TYPES if t not in BOTH])
def test_a_client_message_from_a_server_is_malformed(type: str) -> None:
    error = refusal(S, {"type": type, "data": dict(FULL)})
    assert (error.reason, error.type, error.field) == (
        "a client message sent by a server",
        type,
        None,
    )


# ---- unknown types


@pytest.mark.parametrize("sender", [S, C])
def test_other_types_are_unknown_not_malformed(sender: Role) -> None:
    text = '{"type": "realtime.brand_new", "data": 5}'
    assert read(sender, text) == Unknown(type="realtime.brand_new", raw=text)
    assert read(sender, text.encode()) == Unknown(type="realtime.brand_new", raw=text)


def test_an_unknown_messages_text_is_cut_to_its_limit() -> None:
    text = json.dumps({"type": "x", "text": "é😀" * 50}, ensure_ascii=False)
    limits = Limits(unknown_raw=30)
    assert read(S, text, limits) == Unknown(type="x", raw=text[:30])
    assert read(S, text.encode(), limits) == Unknown(type="x", raw=text[:30])


def test_an_unknown_type_string_is_cut() -> None:
    message = read(S, {"type": "x" * 1000})
    assert isinstance(message, Unknown)
    assert message.type == "x" * 128


# ---- malformed envelopes


@pytest.mark.parametrize("sender", [S, C])
@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        ("", "is not JSON (at character 0)", None),
        ("{", "is not JSON (at character 1)", None),
        (b"\xff", "is not UTF-8", None),
        ("[]", "is not an object", None),
        ('"type"', "is not an object", None),
        ("null", "is not an object", None),
        ("{}", "is missing", "type"),
        ('{"type":null}', "is not a string", "type"),
        ('{"type":5}', "is not a string", "type"),
        ('{"type":["response.create"]}', "is not a string", "type"),
        ('{"type":"x","n":NaN}', "holds a number that is not finite", None),
    ],
)
def test_a_text_that_is_no_envelope(
    sender: Role, text: str | bytes, reason: str, field: str | None
) -> None:
    error = refusal(sender, text)
    assert (error.reason, error.type, error.field) == (reason, None, field)
    assert not isinstance(error, OversizedMessageError)


# ---- limits


def test_size_is_counted_in_utf8_bytes_of_the_sender() -> None:
    text = '{"type":"response.create","x":"é"}'
    size = len(text) + 1
    fits = Limits(client_message=size, server_message=1)
    assert read(C, text, fits) == ResponseCreate()
    assert read(C, text.encode(), fits) == ResponseCreate()
    tight = Limits(client_message=size - 1, server_message=size)
    for form in (text, text.encode()):
        error = refusal(C, form, tight)
        assert isinstance(error, OversizedMessageError)
        assert error.reason == f"is larger than {size - 1} bytes"
        assert error.type is None
    assert not isinstance(refusal(S, text, tight), OversizedMessageError)
    tiny = Limits(server_message=5)
    assert isinstance(refusal(S, "x" * 6, tiny), OversizedMessageError)
    assert isinstance(refusal(S, "\ud800\ud800", tiny), OversizedMessageError)
    assert not isinstance(refusal(S, "x" * 5, tiny), OversizedMessageError)


def test_an_oversized_text_is_not_parsed() -> None:
    # Parsing these hundred megabytes would fail with another error, and much later.
    error = refusal(S, "[" * 100_000_000)
    assert isinstance(error, OversizedMessageError)
    assert error.code == "oversized-message"


# ---- round trip, by class

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SOME_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
AUDIO_BYTES = st.binary(max_size=20).map(lambda data: data + data)
SDP = st.lists(TEXT.filter(lambda t: not set(t) & set("\r\n")), max_size=4).map("\r\n".join)
TOOLS = st.lists(OBJECT, max_size=2).map(tuple)
ICE_SERVER = st.builds(
    IceServer,
    urls=st.lists(SOME_TEXT, min_size=1, max_size=3).map(tuple),
    username=st.none(),
    credential=st.none(),
) | st.builds(
    IceServer,
    urls=st.lists(SOME_TEXT, min_size=1, max_size=3).map(tuple),
    username=TEXT,
    credential=st.builds(Secret, TEXT),
)
ARGUMENTS = TEXT | OBJECT.map(json.dumps) | OBJECT.map(lambda o: json.dumps(o, indent=1))

CANDIDATES = st.builds(
    IceCandidate,
    candidate=TEXT,
    sdp_mid=st.none() | SOME_TEXT,
    sdp_m_line_index=st.none() | st.integers(0, 65535),
    username_fragment=st.none() | SOME_TEXT,
)
SERVER_MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "success": st.builds(
        ConnectedSuccess,
        session_id=SOME_TEXT,
        ice_servers=st.lists(ICE_SERVER, max_size=3).map(tuple),
    ),
    "warning": st.builds(ConnectedWarning, message=TEXT, avatar_id=st.none() | TEXT),
    "fail": st.builds(ConnectedFail, message=TEXT),
    "close": st.builds(ConnectedClose, message=TEXT),
    "balance": st.builds(InsufficientBalance, message=TEXT),
    "limit": st.builds(ConnectionLimitExceeded, message=TEXT),
    "gpu": st.builds(GpuFull, message=TEXT),
    "backend": st.builds(BackendError, message=TEXT),
    "offer": st.builds(Offer, sdp=SDP),
    "answer": st.builds(Answer, sdp=SDP),
    "candidate": CANDIDATES,
    "created": st.builds(SessionCreated, data=OBJECT),
    "updated": st.builds(SessionUpdated, data=OBJECT),
    "speech started": st.builds(SpeechStarted),
    "speech stopped": st.builds(SpeechStopped),
    "input transcript": st.builds(InputTranscript, content=TEXT),
    "delta": st.builds(TranscriptDelta, response_id=TEXT, content=TEXT),
    "done": st.builds(TranscriptDone, response_id=TEXT, content=st.none() | TEXT),
    "audio delta": st.builds(AudioDelta, audio=AUDIO_BYTES),
    "audio done": st.builds(AudioDone),
    "call delta": st.builds(FunctionCallDelta, call_id=TEXT, delta=TEXT),
    "call": st.builds(
        lambda call_id, name, arguments, more: FunctionCallDone(
            call_id=call_id,
            name=name,
            arguments=arguments,
            raw_data={**more, "arguments": arguments},
        ),
        SOME_TEXT,
        SOME_TEXT,
        ARGUMENTS,
        OBJECT,
    ),
    "completed": st.builds(ResponseCompleted, response_id=st.none() | TEXT),
    "error": st.builds(ServerError, message=TEXT, code=st.none() | SOME_TEXT),
    "status": st.builds(ServerStatus, data=OBJECT),
    "video": st.builds(VideoDelta, data=OBJECT),
    "synthesis": st.builds(SynthesisError, stage=st.sampled_from(["tts", "stt"]), message=TEXT),
    "break": st.builds(StreamingBreak),
    "unmapped": st.builds(UnmappedEvent, raw_data=st.none() | OBJECT),
}
CLIENT_MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "offer": st.builds(Offer, sdp=SDP),
    "answer": st.builds(Answer, sdp=SDP),
    "candidate": CANDIDATES,
    "config": st.builds(
        InputConfig,
        voice=st.none() | SOME_TEXT,
        prompt=st.none() | SOME_TEXT,
        tools=st.none() | TOOLS,
    ),
    "tools": st.builds(InputFunctionCall, tools=TOOLS),
    "user": st.builds(UserMessage, texts=st.lists(TEXT, max_size=3).map(tuple), role=TEXT),
    "result": st.builds(ToolResult, call_id=TEXT, output=TEXT),
    "output": st.builds(FunctionCallOutput, call_id=TEXT, output=TEXT, reply=st.booleans()),
    "create": st.builds(ResponseCreate),
    "update": st.builds(SessionUpdate, session=OBJECT),
    "append": st.builds(
        AudioAppend, audio=AUDIO_BYTES, sequence_number=st.none() | st.integers(0, 2**53)
    ),
    "clear": st.builds(AudioClear),
    "commit": st.builds(AudioCommit),
    "image": st.builds(InputImage, content=TEXT, reply=st.booleans()),
    "text": st.builds(InputText, content=TEXT),
    "restart": st.builds(IceRestartRequest),
    "hello": st.builds(GatewayHello, data=OBJECT),
}


@pytest.mark.parametrize("name", SERVER_MESSAGES)
@given(data=st.data())
def test_server_messages_come_back_as_they_were(name: str, data: st.DataObject) -> None:
    message = data.draw(SERVER_MESSAGES[name])
    assert decode(encode(message), sender=S, limits=LIMITS) == message


@pytest.mark.parametrize("name", CLIENT_MESSAGES)
@given(data=st.data())
def test_client_messages_come_back_as_they_were(name: str, data: st.DataObject) -> None:
    message = data.draw(CLIENT_MESSAGES[name])
    assert decode(encode(message), sender=C, limits=LIMITS) == message


@given(arguments=ARGUMENTS, name=SOME_TEXT, call_id=SOME_TEXT)
def test_a_call_without_raw_data_comes_back_with_it(
    arguments: str, name: str, call_id: str
) -> None:
    message = FunctionCallDone(call_id=call_id, name=name, arguments=arguments)
    back = decode(encode(message), sender=S, limits=LIMITS)
    assert isinstance(back, FunctionCallDone)
    assert attrs.evolve(back, raw_data=None) == message
    assert back.raw_data is not None
    assert back.raw_data["name"] == name


# ---- whatever comes: a message or MalformedMessageError, and no secret in it

MARK = "sk_navtalk_EXAMPLE"
ODD = (
    JSON
    | st.just(MARK)
    | st.sampled_from(["", "AAA=", "AAAA", "[]", "{}", "[{type=input_text, text=x}]", "v=0\n"])
)
KEYS = st.sampled_from(
    [
        "data",
        "message",
        "error",
        "raw_data",
        "item",
        "session",
        "sdp",
        "candidate",
        "sdpMid",
        "sdpMLineIndex",
        "usernameFragment",
        "sessionId",
        "iceServers",
        "ice_servers",
        "urls",
        "username",
        "credential",
        "content",
        "transcript",
        "delta",
        "audio",
        "sequenceNumber",
        "id",
        "call_id",
        "name",
        "function_name",
        "arguments",
        "output",
        "reply",
        "type",
        "role",
        "text",
        "tools",
        "voice",
        "prompt",
        "code",
        "avatarId",
    ]
)
NEST = st.recursive(
    ODD,
    lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=12,
)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_any(text: str | bytes, sender: Role) -> None:
    try:
        message = decode(text, sender=sender, limits=LIMITS)
    except MalformedMessageError as error:
        for each in chain(error):
            assert isinstance(each, MalformedMessageError)
            assert MARK not in str(each)
            assert MARK not in repr(each)
    else:
        assert attrs.has(type(message))


@given(
    type=st.sampled_from(SERVER_TYPES + CLIENT_TYPES),
    fields=st.dictionaries(KEYS.filter(lambda key: key != "type"), NEST, max_size=6),
    sender=st.sampled_from([S, C]),
)
def test_any_object_is_a_message_or_malformed(
    type: str, fields: dict[str, object], sender: Role
) -> None:
    check_any(json.dumps({"type": type, **fields}), sender)


@given(text=st.text() | st.binary() | JSON.map(json.dumps), sender=st.sampled_from([S, C]))
def test_any_text_is_a_message_or_malformed(text: str | bytes, sender: Role) -> None:
    check_any(text, sender)


@given(
    example=st.sampled_from([(sender, text) for sender, text, _ in EXAMPLES]),
    at=st.integers(0, 400),
    cut=st.integers(0, 40),
    insert=st.text('{}[]",:\\0aé', max_size=4),
)
def test_a_damaged_example_is_a_message_or_malformed(
    example: tuple[Role, str], at: int, cut: int, insert: str
) -> None:
    sender, text = example
    check_any(text[:at] + insert + text[at + cut :], sender)


@pytest.mark.parametrize(
    ("sender", "text"),
    [
        (S, f'{{"type":"x" "{MARK}"'),
        (S, f'{{"type":"{MARK}", "n":1e999}}'),
        (S, f'{{"type":["{MARK}"]}}'),
        (S, f'{{"type":"{OFFER}","data":{{"sdp":["{MARK}"]}}}}'),
        (C, f'{{"type":"{CONFIG}","data":{{"content":"{MARK}"}}}}'),
        (C, f'{{"type":"{APPEND}","data":{{"audio":"{MARK}"}}}}'),
        (C, f'{{"type":"{ITEM}","item":{{"type":"{MARK}"}}}}'),
        (S, f'{{"type":"{SUCCESS}","data":{{"sessionId":"s","iceServers":["{MARK}"]}}}}'),
    ],
)
def test_an_error_quotes_nothing(sender: Role, text: str) -> None:
    error = refusal(sender, text)
    for each in chain(error):
        assert isinstance(each, MalformedMessageError)
        assert MARK not in f"{each} {each!r} {each.args} {each.field} {each.type}"


# ---- one meaning, whichever parser


def verdict(text: str, sender: Role) -> object:
    try:
        return decode(text, sender=sender, limits=Limits())
    except MalformedMessageError as error:
        return type(error), error.type, error.field


def verdict_of_the_reference(text: str, sender: Role) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "parse", jsontext._loads_reference)
        patch.setattr(codec, "prove", jsontext._prove_reference)
        patch.setattr(realtime_messages, "loads", jsontext._loads_reference)
        patch.setattr(codec, "_FROM_SERVER", without_usual_shapes(codec._FROM_SERVER))
        patch.setattr(codec, "_FROM_CLIENT", without_usual_shapes(codec._FROM_CLIENT))
        return verdict(text, sender)


def without_usual_shapes(table: dict[str, Any]) -> dict[str, Any]:
    return {kind: (hook, cls, bound, None) for kind, (hook, cls, bound, _) in table.items()}


USUAL = [
    (S, {"type": "webrtc.signaling.iceCandidate", "data": {"candidate": {
        "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host",
        "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd",
    }}}),
    (S, {"type": "realtime.response.audio.delta", "data": {"delta": "AQIDBA=="}}),
    (C, {"type": APPEND, "data": {"audio": "AQIDBA=="}}),
    (S, {"type": OFFER, "data": {"sdp": {"type": "offer", "sdp": "v=0\r\ns=-\r\n"}}}),
    (C, {"type": ANSWER, "data": {"sdp": {"type": "answer", "sdp": "v=0\r\ns=-\r\n"}}}),
]  # fmt: skip
STRANGE = st.sampled_from(
    [
        *[2**53, 2**53 + 1, 2**64, -(2**70), 1e300, -1, 65_536, None, True, [], {}],
        *["", "AQI=", "A"],
        *["v=0\r\ns=\n", "v=0\rs=\n", "\n\r", "s=\xe9\r\n", "s=" + "x" * Limits().candidate],
    ]
) | NEST  # fmt: skip


def places(value: object) -> list[dict[str, object]]:
    """The objects within a message."""
    if not isinstance(value, dict):
        return []
    return [value, *(place for item in value.values() for place in places(item))]


@given(usual=st.sampled_from(USUAL), data=st.data())
def test_a_message_means_the_same_with_either_parser(
    usual: tuple[Role, dict[str, object]], data: st.DataObject
) -> None:
    sender, message = usual[0], copy.deepcopy(usual[1])
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.sampled_from(places(message)))
        key = data.draw(st.sampled_from([*place, "extra", "data", "candidate", "sdp", "sequence"]))
        if data.draw(st.booleans()):
            place.pop(key, None)
        else:
            place[key] = data.draw(STRANGE)
    text = json.dumps(message)
    assert verdict(text, sender) == verdict_of_the_reference(text, sender)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (OFFER, {"sdp": {"type": "offer", "sdp": "v=0\ns=-\r\n"}}),
        (OFFER, {"sdp": {"type": "offer", "sdp": "v=0\r\ns=\xe9\r\n"}}),
        (OFFER, {"sdp": {"type": "offer", "sdp": "s" * (Limits().sdp + 1)}}),
        (USUAL[0][1]["type"], {"candidate": {
            "candidate": "x" * (Limits().candidate + 1),
            "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd",
        }}),
        (USUAL[0][1]["type"], {"candidate": {
            "candidate": "x", "sdpMid": "0", "sdpMLineIndex": 0, "relayProtocol": "udp",
        }}),
    ],
)  # fmt: skip
def test_what_the_usual_shape_does_not_settle_is_left_to_the_hook(
    kind: str, data: dict[str, object]
) -> None:
    text = json.dumps({"type": kind, "data": data})
    assert verdict(text, S) == verdict_of_the_reference(text, S)


@pytest.mark.parametrize(("sender", "message"), USUAL)
@pytest.mark.parametrize("number", ["9007199254740993", "18446744073709551616", "1e999"])
@pytest.mark.parametrize("at", range(4))
def test_a_number_that_is_too_large_is_found_beside_what_is_read(
    sender: Role, message: dict[str, object], number: str, at: int
) -> None:
    message = copy.deepcopy(message)
    inside = places(message)
    inside[min(at, len(inside) - 1)]["extra"] = "HERE"
    text = json.dumps(message).replace('"HERE"', number)
    error = refusal(sender, text)
    assert error.type is None
    assert verdict(text, sender) == verdict_of_the_reference(text, sender)
