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

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire import codec, jsontext
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
    JsonValue,
    Message,
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

LIMITS = Limits()
S, C = Role.SERVER, Role.CLIENT
PCM = b"\x00\x00\x01\x00\xff\xff"
PCM64 = "AAABAP//"
CANDIDATE = (
    "candidate:1666409998 1 udp 2122129151 192.168.1.81 64301 typ host generation 0 ufrag lwyK"
    " network-id 1"
)
OFFER_SDP = "v=0\r\no=- 3900000000 3900000000 IN IP4 0.0.0.0\r\n..."
ANSWER_SDP = "v=0\r\no=- 8643312983218886913 2 IN IP4 127.0.0.1\r\n..."
SHARED_NAME = "Multiple avatars share the name 'my-avatar'; using the most recently updated one."
AVATAR = "0123456789abcdef0123456789abcdef"
CLOSE_TALK: dict[str, JsonValue] = {
    "type": "function",
    "name": "close_talk",
    "description": "...",
    "parameters": {
        "type": "object",
        "properties": {"userInput": {"type": "string", "description": "..."}},
        "required": ["userInput"],
    },
}
RAW_CALL: dict[str, JsonValue] = {
    "type": "response.function_call_arguments.done",
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "call_id": "call_JZ0DW",
    "name": "function_call_close_talk",
    "arguments": '{\n  "userInput": "close"\n}',
}
CALL = FunctionCallDone(
    call_id="call_JZ0DW",
    name="function_call_close_talk",
    arguments='{\n  "userInput": "close"\n}',
    raw_data=RAW_CALL,
)


def read(sender: Role, value: object, limits: Limits = LIMITS) -> object:
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    return decode(text, sender=sender, limits=limits)


def refusal(sender: Role, value: object, limits: Limits = LIMITS) -> MalformedMessageError:
    with pytest.raises(MalformedMessageError) as caught:
        read(sender, value, limits)
    return caught.value


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


# ---- what is written

WRITTEN: list[tuple[Message, dict[str, Any]]] = [
    (
        ConnectedSuccess(
            session_id="s1",
            ice_servers=(
                IceServer(urls=("stun:a",)),
                IceServer(urls=("turn:b", "turns:c"), username="u", credential=Secret("p")),
            ),
        ),
        {
            "type": "conversation.connected.success",
            "message": "",
            "data": {
                "sessionId": "s1",
                "iceServers": [
                    {"urls": ["stun:a"]},
                    {"urls": ["turn:b", "turns:c"], "username": "u", "credential": "p"},
                ],
            },
        },
    ),
    (
        ConnectedWarning(message=SHARED_NAME, avatar_id=AVATAR),
        {
            "type": "conversation.connected.warning",
            "message": SHARED_NAME,
            "data": {"avatarId": AVATAR, "message": SHARED_NAME},
        },
    ),
    (
        ConnectedWarning(message="x"),
        {"type": "conversation.connected.warning", "message": "x", "data": {"message": "x"}},
    ),
    *(
        (
            cls(message="why"),
            {
                "type": f"conversation.connected.{name}",
                "message": "why",
                "data": {"message": "why"},
            },
        )
        for cls, name in (
            (ConnectedFail, "fail"),
            (ConnectedClose, "close"),
            (InsufficientBalance, "insufficient_balance"),
            (ConnectionLimitExceeded, "connection_limit_exceeded"),
            (GpuFull, "gpu_full"),
            (BackendError, "backend_error"),
        )
    ),
    (
        Offer(sdp=OFFER_SDP),
        {"type": "webrtc.signaling.offer", "data": {"sdp": {"type": "offer", "sdp": OFFER_SDP}}},
    ),
    (
        Answer(sdp=ANSWER_SDP),
        {
            "type": "webrtc.signaling.answer",
            "data": {"sdp": {"type": "answer", "sdp": ANSWER_SDP}},
            "sdp": {"type": "answer", "sdp": ANSWER_SDP},
        },
    ),
    (
        IceCandidate(
            candidate=CANDIDATE, sdp_mid="0", sdp_m_line_index=0, username_fragment="lwyK"
        ),
        {
            "type": "webrtc.signaling.iceCandidate",
            "data": {
                "candidate": {
                    "candidate": CANDIDATE,
                    "sdpMid": "0",
                    "sdpMLineIndex": 0,
                    "usernameFragment": "lwyK",
                }
            },
        },
    ),
    (
        IceCandidate(candidate=""),
        {
            "type": "webrtc.signaling.iceCandidate",
            "data": {"candidate": {"candidate": "", "sdpMid": None, "sdpMLineIndex": None}},
        },
    ),
    *(
        (cls(data={"id": 1}), {"type": name, "message": "", "data": {"id": 1}})
        for cls, name in (
            (SessionCreated, "realtime.session.created"),
            (SessionUpdated, "realtime.session.updated"),
            (ServerStatus, "realtime.status"),
            (VideoDelta, "realtime.response.video.delta"),
        )
    ),
    *(
        (cls(), {"type": name, "message": "", "data": {}})
        for cls, name in (
            (SessionCreated, "realtime.session.created"),
            (SessionUpdated, "realtime.session.updated"),
            (SpeechStarted, "realtime.input_audio_buffer.speech_started"),
            (SpeechStopped, "realtime.input_audio_buffer.speech_stopped"),
            (AudioDone, "realtime.response.audio.done"),
            (ResponseCompleted, "realtime.response.completed"),
            (StreamingBreak, "webrtc.streaming.break"),
            (UnmappedEvent, "unknow"),
        )
    ),
    (
        InputTranscript(content="Hi"),
        {
            "type": "realtime.conversation.item.input_audio_transcription.completed",
            "data": {"content": "Hi", "transcript": "Hi"},
        },
    ),
    (
        TranscriptDelta(response_id="r", content="Hi "),
        {
            "type": "realtime.response.audio_transcript.delta",
            "data": {"id": "r", "response_id": "r", "content": "Hi "},
        },
    ),
    (
        TranscriptDone(response_id="r", content="Hi all"),
        {
            "type": "realtime.response.audio_transcript.done",
            "data": {"id": "r", "response_id": "r", "content": "Hi all", "transcript": "Hi all"},
        },
    ),
    (
        TranscriptDone(response_id="r"),
        {
            "type": "realtime.response.audio_transcript.done",
            "data": {"id": "r", "response_id": "r"},
        },
    ),
    (
        AudioDelta(audio=PCM),
        {"type": "realtime.response.audio.delta", "data": {"delta": PCM64}},
    ),
    (
        FunctionCallDelta(call_id="c", delta='{"a'),
        {
            "type": "realtime.response.function_call_arguments.delta",
            "data": {"call_id": "c", "delta": '{"a'},
        },
    ),
    (
        CALL,
        {
            "type": "realtime.response.function_call_arguments.done",
            "data": {
                "function_name": "function_call_close_talk",
                "name": "function_call_close_talk",
                "call_id": "call_JZ0DW",
                "arguments": {"userInput": "close"},
            },
            "raw_data": RAW_CALL,
        },
    ),
    (
        FunctionCallDone(call_id="c", name="f", arguments='{"a": 1}'),
        {
            "type": "realtime.response.function_call_arguments.done",
            "data": {"function_name": "f", "name": "f", "call_id": "c", "arguments": {"a": 1}},
            "raw_data": {
                "type": "response.function_call_arguments.done",
                "call_id": "c",
                "name": "f",
                "arguments": '{"a": 1}',
            },
        },
    ),
    *(
        (
            FunctionCallDone(call_id="c", name="f", arguments=text, raw_data={}),
            {
                "type": "realtime.response.function_call_arguments.done",
                "data": {"function_name": "f", "name": "f", "call_id": "c", "arguments": text},
                "raw_data": {},
            },
        )
        for text in ("[1]", "not JSON", "", '{"a":NaN}')
    ),
    (
        ResponseCompleted(response_id="r"),
        {
            "type": "realtime.response.completed",
            "message": "",
            "data": {"id": "r", "response_id": "r"},
        },
    ),
    (
        ServerError(message="why", code="rate_limit"),
        {
            "type": "realtime.response.error",
            "message": "why",
            "data": {"message": "why", "code": "rate_limit"},
        },
    ),
    (
        SynthesisError(message="why"),
        {"type": "realtime_synthesis.tts.error", "message": "why", "data": {"message": "why"}},
    ),
    (
        SynthesisError(stage="stt", message="why"),
        {"type": "realtime_synthesis.stt.error", "message": "why", "data": {"message": "why"}},
    ),
    (
        UnmappedEvent(raw_data={"type": "x"}),
        {"type": "unknow", "message": "", "data": {}, "raw_data": {"type": "x"}},
    ),
    (
        InputConfig(voice="cedar", prompt="Be brief.", tools=(CLOSE_TALK,)),
        {
            "type": "realtime.input_config",
            "data": {
                "content": '{"voice":"cedar","prompt":"Be brief.","tools":[{"type":"function",'
                '"name":"close_talk","description":"...","parameters":{"type":"object",'
                '"properties":{"userInput":{"type":"string","description":"..."}},'
                '"required":["userInput"]}}]}'
            },
        },
    ),
    (InputConfig(), {"type": "realtime.input_config", "data": {"content": "{}"}}),
    (
        InputConfig(tools=()),
        {"type": "realtime.input_config", "data": {"content": '{"tools":[]}'}},
    ),
    (
        InputFunctionCall(tools=({"name": "f"},)),
        {"type": "realtime.input_function_call", "data": {"content": '[{"name":"f"}]'}},
    ),
    (
        UserMessage(texts=("My name is Ana.", "Hi")),
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "My name is Ana."},
                    {"type": "input_text", "text": "Hi"},
                ],
            },
        },
    ),
    (
        ToolResult(call_id="c", output='{"ok":true}'),
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": "c", "output": '{"ok":true}'},
        },
    ),
    (
        FunctionCallOutput(call_id="c", output="done", reply=False),
        {
            "type": "realtime.function_call_output",
            "data": {"call_id": "c", "output": "done", "reply": 0},
        },
    ),
    (ResponseCreate(), {"type": "response.create"}),
    (
        SessionUpdate(session={"voice": "sage", "temperature": 0.8}),
        {"type": "session.update", "session": {"voice": "sage", "temperature": 0.8}},
    ),
    (
        AudioAppend(audio=PCM),
        {"type": "realtime.input_audio_buffer.append", "data": {"audio": PCM64}},
    ),
    (
        AudioAppend(audio=b"", sequence_number=0),
        {
            "type": "realtime.input_audio_buffer.append",
            "data": {"audio": "", "sequenceNumber": 0},
        },
    ),
    (AudioClear(), {"type": "realtime.input_audio_buffer.clear", "data": {}}),
    (AudioCommit(), {"type": "realtime.input_audio_buffer.commit", "data": {}}),
    (
        InputImage(content="data:,x", reply=True),
        {"type": "realtime.input_image", "data": {"content": "data:,x", "reply": 1}},
    ),
    (InputText(content="Hello"), {"type": "realtime.input_text", "data": {"content": "Hello"}}),
    (IceRestartRequest(), {"type": "webrtc.signaling.iceRestartRequest", "data": {}}),
    (
        GatewayHello(data={"provider": {"model": "m"}}),
        {"type": "conversation.connected.success", "data": {"provider": {"model": "m"}}},
    ),
]


@pytest.mark.parametrize(("message", "expected"), WRITTEN)
def test_messages_are_written_in_their_canonical_form(
    message: Message, expected: dict[str, Any]
) -> None:
    text = encode(message)
    written = json.loads(text)
    assert written == expected
    # 0 and False are equal to Python, and different to a client.
    assert json.dumps(written, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert text.startswith('{"type":"')


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (AudioAppend(audio=b"abc"), "odd number"),
        (AudioDelta(audio=b"a"), "odd number"),
        (SynthesisError(stage="llm"), "tts or stt"),
        (
            ConnectedSuccess(
                session_id="s", ice_servers=(IceServer(urls=("turn:b",), username="u"),)
            ),
            "username and a credential, or neither",
        ),
        (
            ConnectedSuccess(
                session_id="s",
                ice_servers=(IceServer(urls=("turn:b",), credential=Secret("TOP")),),
            ),
            "username and a credential, or neither",
        ),
        (
            ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=()),)),
            "without urls",
        ),
        (SessionUpdate(session={"temperature": float("nan")}), "not finite"),
        (SessionCreated(data={"credential": Secret("TOP")}), "a Secret is not JSON"),  # type: ignore[dict-item]
        (InputText(content="\ud800"), "lone surrogate"),
        (Unknown(type="x", raw="{}"), "a Unknown is not a message"),
        ("text", "a str is not a message"),
    ],
)
def test_what_has_no_json_form_is_a_local_mistake(message: Any, says: str) -> None:
    with pytest.raises(LocalProtocolError, match=says) as caught:
        encode(message)
    assert "TOP" not in str(caught.value)


# ---- every spelling

CALL_TYPE = "realtime.response.function_call_arguments.done"
CONFIG = "realtime.input_config"
ITEM = "conversation.item.create"
ICE = "webrtc.signaling.iceCandidate"
OFFER = "webrtc.signaling.offer"
ANSWER = "webrtc.signaling.answer"
SUCCESS = "conversation.connected.success"
TRANSCRIPT = "realtime.conversation.item.input_audio_transcription.completed"
DELTA = "realtime.response.audio_transcript.delta"
DONE = "realtime.response.audio_transcript.done"
APPEND = "realtime.input_audio_buffer.append"
OUTPUT = "realtime.function_call_output"
IMAGE = "realtime.input_image"
AUDIO = "realtime.response.audio.delta"
RESPONSE_ERROR = "realtime.response.error"


def msg(type: str, **fields: object) -> dict[str, object]:
    return {"type": type, **fields}


SPELLINGS: list[tuple[Role, dict[str, object], object]] = [
    # connected.success: 5.1, 6.6
    (S, msg(SUCCESS, data={"session_id": "s"}), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data={}, session_id="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data={}, sessionId="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, sessionId="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data=None, sessionId="s"), ConnectedSuccess(session_id="s")),
    (
        S,
        msg(SUCCESS, data={"sessionId": "", "session_id": "s"}),
        ConnectedSuccess(session_id="s"),
    ),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": None}),
        ConnectedSuccess(session_id="s"),
    ),
    *(
        (
            S,
            message,
            ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("stun:a",)),)),
        )
        for message in (
            msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "stun:a"}]}),
            msg(SUCCESS, data={"sessionId": "s", "ice_servers": [{"urls": ["stun:a"]}]}),
            msg(SUCCESS, data={"sessionId": "s"}, iceServers=[{"urls": "stun:a"}]),
            msg(SUCCESS, sessionId="s", ice_servers=[{"urls": "stun:a"}]),
            msg(
                SUCCESS,
                data={
                    "sessionId": "s",
                    "iceServers": [
                        {},
                        {"urls": None},
                        {"urls": []},
                        {"urls": ""},
                        {"urls": ["", "stun:a"], "username": None, "credential": None},
                    ],
                },
            ),
        )
    ),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "turn:b", "username": "u"}]}),
        ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("turn:b",), username="u"),)),
    ),
    # texts of connection errors: 5.3, 6.6
    *(
        (S, msg(f"conversation.connected.{name}", **fields), cls(message="why"))
        for cls, name in (
            (ConnectedWarning, "warning"),
            (ConnectedFail, "fail"),
            (ConnectedClose, "close"),
            (InsufficientBalance, "insufficient_balance"),
            (ConnectionLimitExceeded, "connection_limit_exceeded"),
            (GpuFull, "gpu_full"),
            (BackendError, "backend_error"),
        )
        for fields in (
            {"message": "why"},
            {"message": "why", "data": None},
            {"message": "", "data": {"message": "why"}},
            {"message": "why", "data": {"message": "other"}},
            {"message": None, "data": {"message": None}, "error": {"message": "why"}},
            {"data": {"error": {"message": "why"}}},
            {"error": "why"},
        )
    ),
    (S, msg("conversation.connected.close"), ConnectedClose()),
    (
        S,
        msg("conversation.connected.warning", data={"avatar_id": AVATAR}),
        ConnectedWarning(avatar_id=AVATAR),
    ),
    # v1 refusals and listener constants: 4.1, 5.3
    (S, msg("session.gpu_full", message="why"), GpuFull(message="why")),
    (S, msg("realtime.session.gpu_full", data={}), GpuFull()),
    (S, msg("session.insufficient_balance"), InsufficientBalance()),
    (S, msg("realtime.session.insufficient_balance"), InsufficientBalance()),
    (S, msg("session.backend.error", message="why"), BackendError(message="why")),
    (S, msg("response.done"), ResponseCompleted()),
    (S, msg("response.done", data={"id": "r"}), ResponseCompleted(response_id="r")),
    (
        S,
        msg("realtime.response.completed", response_id="r"),
        ResponseCompleted(response_id="r"),
    ),
    (S, msg("error", message="why"), ServerError(message="why")),
    (
        S,
        msg("error", error={"message": "why", "code": "c"}),
        ServerError(message="why", code="c"),
    ),
    (
        S,
        msg(RESPONSE_ERROR, data={"message": "why", "code": 429}),
        ServerError(message="why", code="429"),
    ),
    (
        S,
        msg(RESPONSE_ERROR, code="", data={"code": None, "error": {"code": "c"}}),
        ServerError(code="c"),
    ),
    (S, msg("unknown", data={}), UnmappedEvent()),
    (S, msg("unknow", data=[1], raw_data="free"), UnmappedEvent()),
    # session events without data: 6.6
    (S, msg("realtime.session.created"), SessionCreated()),
    (S, msg("realtime.session.updated", data=None), SessionUpdated()),
    (S, msg("realtime.session.updated", data={"id": "x"}), SessionUpdated(data={"id": "x"})),
    (S, msg("realtime.input_audio_buffer.speech_started"), SpeechStarted()),
    (S, msg("realtime.response.audio.done", data=None), AudioDone()),
    (S, msg("realtime.status", data={"a": 1}), ServerStatus(data={"a": 1})),
    (S, msg("realtime.response.video.delta", data={"delta": ""}), VideoDelta(data={"delta": ""})),
    (
        S,
        msg("realtime_synthesis.tts.error", message="why"),
        SynthesisError(stage="tts", message="why"),
    ),
    (
        S,
        msg("realtime_synthesis.stt.error", data={"message": "why"}),
        SynthesisError(stage="stt", message="why"),
    ),
    (S, msg("webrtc.streaming.break", message="x"), StreamingBreak()),
    # descriptions: 5.4
    (S, msg(OFFER, data={"sdp": "v=0\r\n"}), Offer(sdp="v=0\r\n")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\ns=-\n"}}), Offer(sdp="v=0\r\ns=-\r\n")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\r\ns=-\nt=0"}}), Offer(sdp="v=0\r\ns=-\r\nt=0")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\rs=-\r\n"}}), Offer(sdp="v=0\r\ns=-\r\n")),
    (S, msg(OFFER, sdp={"type": "offer", "sdp": "v=0\n"}), Offer(sdp="v=0\r\n")),
    (C, msg(OFFER, data={"sdp": {"type": "answer", "sdp": "v=0"}}), Offer(sdp="v=0")),
    (C, msg(ANSWER, data={}, sdp={"type": "answer", "sdp": "v=0\n"}), Answer(sdp="v=0\r\n")),
    (S, msg(ANSWER, sdp="v=0\n"), Answer(sdp="v=0\r\n")),
    (S, msg(ANSWER, data={"sdp": None}, sdp="v=0"), Answer(sdp="v=0")),
    (
        S,
        msg(ANSWER, data={"sdp": {"type": "answer", "sdp": "v=0"}}, sdp={"sdp": "other"}),
        Answer(sdp="v=0"),
    ),
    # candidates: 5.5
    (C, msg(ICE, data={"candidate": None}), IceCandidate(candidate="")),
    (C, msg(ICE, data={}), IceCandidate(candidate="")),
    (C, msg(ICE), IceCandidate(candidate="")),
    (C, msg(ICE, data={"candidate": ""}), IceCandidate(candidate="")),
    (C, msg(ICE, data={"candidate": "candidate:1"}), IceCandidate(candidate="candidate:1")),
    (
        C,
        msg(ICE, data={"candidate": "candidate:1", "sdpMid": "1", "sdpMLineIndex": 1}),
        IceCandidate(candidate="candidate:1", sdp_mid="1", sdp_m_line_index=1),
    ),
    (
        S,
        msg(ICE, candidate={"candidate": "candidate:1", "sdpMid": "0"}),
        IceCandidate(candidate="candidate:1", sdp_mid="0"),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}}),
        IceCandidate(candidate="", sdp_mid="0", sdp_m_line_index=0),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": None, "sdpMLineIndex": 3}}),
        IceCandidate(candidate="", sdp_m_line_index=3),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": "c", "sdpMid": "", "usernameFragment": ""}}),
        IceCandidate(candidate="c"),
    ),
    (
        C,
        msg(
            ICE,
            data={
                "candidate": {
                    "candidate": "c",
                    "sdpMid": None,
                    "sdpMLineIndex": None,
                    "usernameFragment": None,
                }
            },
        ),
        IceCandidate(candidate="c"),
    ),
    *(
        (
            C,
            msg(ICE, data={"candidate": {"candidate": "c", "sdpMLineIndex": index}}),
            IceCandidate(candidate="c", sdp_m_line_index=number),
        )
        for index, number in ((0, 0), (65535, 65535), ("2", 2), ("65535", 65535), ("", None))
    ),
    # transcripts: 5.15
    *(
        (S, msg(TRANSCRIPT, **fields), InputTranscript(content="Hi"))
        for fields in (
            {"data": {"content": "Hi"}},
            {"data": {"transcript": "Hi"}},
            {"data": {"content": "", "transcript": "Hi"}},
            {"data": {"content": None, "delta": "Hi"}},
            {"data": {}, "transcript": "Hi"},
            {"data": {"content": ""}, "transcript": "Hi"},
            {"transcript": "Hi"},
            {"content": "Hi"},
            {"data": {}, "raw_data": {"transcript": "Hi"}},
            {"data": {"content": "Hi"}, "raw_data": {"transcript": "Ho"}},
            {"data": {"content": "Hi"}, "raw_data": "free"},
        )
    ),
    (S, msg(TRANSCRIPT, data={"content": ""}), InputTranscript(content="")),
    *(
        (S, msg(DELTA, **fields), TranscriptDelta(response_id="r", content="Hi"))
        for fields in (
            {"data": {"id": "r", "content": "Hi"}},
            {"data": {"response_id": "r", "delta": "Hi"}},
            {"data": {"responseId": "r", "transcript": "Hi"}},
            {"response_id": "r", "delta": "Hi"},
            {"data": {"content": "Hi"}, "id": "r"},
            {"data": {"id": "r"}, "delta": "Hi"},
            {"data": {}, "raw_data": {"response_id": "r", "delta": "Hi"}},
            {"data": {"content": "Hi"}, "raw_data": {"response_id": "r", "delta": "Ho"}},
            {"raw_data": {"response_id": "r", "delta": "Hi"}},
        )
    ),
    (S, msg(DELTA, data={"content": "Hi"}), TranscriptDelta(response_id="", content="Hi")),
    *(
        (S, msg(DONE, **fields), TranscriptDone(response_id="r", content="Hi"))
        for fields in (
            {"data": {"id": "r", "content": "Hi"}},
            {"data": {"response_id": "r", "transcript": "Hi"}},
            {"data": {"responseId": "r", "content": "", "transcript": "Hi"}},
            {"response_id": "r", "transcript": "Hi"},
            {"data": {}, "raw_data": {"response_id": "r", "transcript": "Hi"}},
        )
    ),
    (S, msg(DONE, data={"id": "r"}), TranscriptDone(response_id="r")),
    (S, msg(DONE, data={"id": "r", "content": None}), TranscriptDone(response_id="r")),
    (S, msg(DONE, data={"content": ""}), TranscriptDone(response_id="", content="")),
    # audio: 5.12, 5.15
    (S, msg(AUDIO, delta=PCM64), AudioDelta(audio=PCM)),
    (S, msg(AUDIO, data={"audio": PCM64}), AudioDelta(audio=PCM)),
    (S, msg(AUDIO, data={}, delta=PCM64), AudioDelta(audio=PCM)),
    (C, msg(APPEND, data={"delta": PCM64}), AudioAppend(audio=PCM)),
    (C, msg(APPEND, audio=PCM64), AudioAppend(audio=PCM)),
    (C, msg(APPEND, data={}, audio=PCM64), AudioAppend(audio=PCM)),
    (C, msg("input_audio_buffer.append", data={"audio": PCM64}), AudioAppend(audio=PCM)),
    (C, msg(APPEND, data={"audio": "", "sequenceNumber": None}), AudioAppend(audio=b"")),
    (C, msg("realtime.input_audio_buffer.clear"), AudioClear()),
    (C, msg("input_audio_buffer.clear", data={}), AudioClear()),
    (C, msg("input_audio_buffer.commit"), AudioCommit()),
    # function calls: 5.16
    *(
        (S, msg(CALL_TYPE, **fields), FunctionCallDone(call_id="c", name="f", arguments='{"a":1}'))
        for fields in (
            {"data": {"function_name": "f", "call_id": "c", "arguments": {"a": 1}}},
            {"data": {"name": "f", "call_id": "c", "arguments": '{"a":1}'}},
            {"name": "f", "call_id": "c", "arguments": {"a": 1}},
            {"data": {"function_name": "", "name": "f", "call_id": "c"}, "arguments": '{"a":1}'},
        )
    ),
    (
        S,
        msg(CALL_TYPE, data={"name": "f", "call_id": "c"}),
        FunctionCallDone(call_id="c", name="f", arguments="{}"),
    ),
    (
        S,
        msg(CALL_TYPE, data={"name": "f", "call_id": "c", "arguments": None}, raw_data=None),
        FunctionCallDone(call_id="c", name="f", arguments="{}"),
    ),
    (S, msg(CALL_TYPE, data={}, raw_data=RAW_CALL), CALL),
    (S, msg(CALL_TYPE, raw_data=RAW_CALL), CALL),
    (
        S,
        msg(
            CALL_TYPE,
            data={"name": "g", "call_id": "d", "arguments": {"a": 2}},
            raw_data={"name": "f", "call_id": "c", "arguments": '{"a": 1}'},
        ),
        FunctionCallDone(
            call_id="d",
            name="g",
            arguments='{"a":2}',
            raw_data={"name": "f", "call_id": "c", "arguments": '{"a": 1}'},
        ),
    ),
    (
        S,
        msg(
            CALL_TYPE,
            data={"name": "g", "call_id": "d", "arguments": {"a": 2}},
            raw_data={"name": 1, "call_id": [], "arguments": 5},
        ),
        FunctionCallDone(
            call_id="d",
            name="g",
            arguments='{"a":2}',
            raw_data={"name": 1, "call_id": [], "arguments": 5},
        ),
    ),
    (
        S,
        msg(CALL_TYPE, data={}, raw_data={"name": "f", "call_id": "c", "arguments": {"a": 1}}),
        FunctionCallDone(
            call_id="c",
            name="f",
            arguments='{"a":1}',
            raw_data={"name": "f", "call_id": "c", "arguments": {"a": 1}},
        ),
    ),
    (
        S,
        msg("realtime.response.function_call_arguments.delta", data={"delta": ""}, call_id="c"),
        FunctionCallDelta(call_id="c", delta=""),
    ),
    (
        S,
        msg("realtime.response.function_call_arguments.delta", delta="x"),
        FunctionCallDelta(call_id="", delta="x"),
    ),
    # configuration: 5.7, 5.8, 5.18
    (C, msg(CONFIG, data={"content": '{"voice":"sage"}'}), InputConfig(voice="sage")),
    (C, msg(CONFIG, data={"content": "{}"}), InputConfig()),
    (
        C,
        msg(CONFIG, data={"content": '{"voice":"","prompt":"","tools":null}'}),
        InputConfig(),
    ),
    (C, msg(CONFIG, data={"content": {"prompt": "p", "voice": None}}), InputConfig(prompt="p")),
    (C, msg(CONFIG, content='{"prompt":"p"}'), InputConfig(prompt="p")),
    (C, msg(CONFIG, data={"content": {"tools": [{"a": 1}]}}), InputConfig(tools=({"a": 1},))),
    (
        C,
        msg(
            "realtime.input_function_call",
            data={"content": '[{"name":"f","parameters":{"type":"object","properties":[]}}]'},
        ),
        InputFunctionCall(
            tools=({"name": "f", "parameters": {"type": "object", "properties": []}},)
        ),
    ),
    (
        C,
        msg("realtime.input_function_call", data={"content": [{"name": "f"}]}),
        InputFunctionCall(tools=({"name": "f"},)),
    ),
    (
        C,
        msg("session.update", data={"session": {"voice": "sage"}}),
        SessionUpdate(session={"voice": "sage"}),
    ),
    # conversation items: 5.9, 5.17
    (
        C,
        msg(ITEM, item={"content": [{"type": "text", "text": "a"}, {"text": "b"}]}),
        UserMessage(texts=("a", "b")),
    ),
    (
        C,
        msg(
            ITEM,
            item={
                "type": "message",
                "role": "assistant",
                "content": [
                    {"type": "input_audio", "audio": ""},
                    {"type": "output_text", "text": "a"},
                ],
            },
        ),
        UserMessage(texts=("a",), role="assistant"),
    ),
    (
        C,
        msg(ITEM, item={"type": "message", "role": None, "content": []}),
        UserMessage(texts=()),
    ),
    (
        C,
        msg(ITEM, item={"type": "message", "content": "[{type=input_text, text=hi}]"}),
        UserMessage(texts=("hi",)),
    ),
    (
        C,
        msg(
            ITEM,
            item={
                "type": "message",
                "content": "[{type=input_text, text=a, b}, {type=input_text, text=}c}]",
            },
        ),
        UserMessage(texts=("a, b", "}c")),
    ),
    (
        C,
        msg(ITEM, item={"type": "message", "content": "plain text"}),
        UserMessage(texts=("plain text",)),
    ),
    (
        C,
        msg(ITEM, data={"item": {"type": "message", "content": "x"}}),
        UserMessage(texts=("x",)),
    ),
    (
        C,
        msg(ITEM, item={"type": "function_call_output", "call_id": "c", "output": {"ok": True}}),
        ToolResult(call_id="c", output='{"ok":true}'),
    ),
    *(
        (C, msg(OUTPUT, **fields), FunctionCallOutput(call_id="c", output=output))
        for fields, output in (
            ({"data": {"call_id": "c", "output": "x"}}, "x"),
            ({"data": {"call_id": "c", "content": "x", "reply": True}}, "x"),
            ({"data": {"call_id": "c", "result": "x", "reply": None}}, "x"),
            ({"data": {"call_id": "c", "output": {"a": [1]}, "reply": 1}}, '{"a":[1]}'),
            ({"data": {"call_id": "c", "result": [1, 2.5]}}, "[1,2.5]"),
            ({"data": {"call_id": "c", "output": ""}}, ""),
            ({"call_id": "c", "output": "x"}, "x"),
        )
    ),
    (
        C,
        msg(
            "realtime.input_function_call_output",
            data={"call_id": "c", "output": "x", "reply": False},
        ),
        FunctionCallOutput(call_id="c", output="x", reply=False),
    ),
    (C, msg(IMAGE, data={"content": "data:,x"}), InputImage(content="data:,x")),
    (
        C,
        msg(IMAGE, data={"content": "data:,x", "reply": 1}),
        InputImage(content="data:,x", reply=True),
    ),
    (C, msg(IMAGE, content="data:,x", reply=True), InputImage(content="data:,x", reply=True)),
    (C, msg("realtime.input_text", data={"text": "Hi"}), InputText(content="Hi")),
    (C, msg("realtime.input.text", data={"content": "Hi"}), InputText(content="Hi")),
    (C, msg("realtime.input.text", data={"text": "Hi"}), InputText(content="Hi")),
    (C, msg("response.create", response={"modalities": ["text"]}), ResponseCreate()),
    (C, msg("webrtc.signaling.iceRestartRequest", data={}), IceRestartRequest()),
    (C, msg(SUCCESS, data={"provider": {}}), GatewayHello(data={"provider": {}})),
    (C, msg(SUCCESS), GatewayHello()),
]


@pytest.mark.parametrize(("sender", "message", "expected"), SPELLINGS)
def test_every_spelling_is_read(sender: Role, message: dict[str, object], expected: object) -> None:
    assert read(sender, message) == expected


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


# ---- malformed fields: the error names the type and the path


def success(**entry: object) -> dict[str, object]:
    return msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "stun:a"}, entry]})


def candidate(**fields: object) -> dict[str, object]:
    return msg(ICE, data={"candidate": {"candidate": "c", **fields}})


def call(**fields: object) -> dict[str, object]:
    return msg(CALL_TYPE, data={"name": "f", "call_id": "c", **fields})


NO_INDICES: list[object] = [True, False, -1, 65536, 1.0, "x", "-1", "65536", " 1", "¹", "000001"]
NO_INDICES += [[], {}]
NO_SEQUENCE_NUMBERS: list[object] = [True, -1, "1", 1.5, []]
NO_FLAGS: list[object] = [2, -1, "1", 1.0, []]
MALFORMED: list[tuple[Role, dict[str, object], str, str]] = [
    (S, msg(SUCCESS, data=[]), "data", "is not an object"),
    (S, msg(SUCCESS, data="x"), "data", "is not an object"),
    (S, msg(SUCCESS, data={}), "data.sessionId", "is missing"),
    (S, msg(SUCCESS), "data.sessionId", "is missing"),
    (S, msg(SUCCESS, data={"sessionId": ""}), "data.sessionId", "is missing"),
    (S, msg(SUCCESS, data={"sessionId": 5}), "data.sessionId", "is not a string"),
    (S, msg(SUCCESS, data={"session_id": 5}), "data.session_id", "is not a string"),
    (S, msg(SUCCESS, data={}, session_id=True), "session_id", "is not a string"),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": {}}),
        "data.iceServers",
        "is not an array",
    ),
    (S, msg(SUCCESS, sessionId="s", ice_servers="x"), "ice_servers", "is not an array"),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "ice_servers": ["stun:a"]}),
        "data.ice_servers[0]",
        "is not an object",
    ),
    (S, success(urls=5), "data.iceServers[1].urls", "is not a string or an array"),
    (S, success(urls=["a", 5]), "data.iceServers[1].urls[1]", "is not a string"),
    (S, success(urls="a", username=5), "data.iceServers[1].username", "is not a string"),
    (S, success(urls="a", credential={}), "data.iceServers[1].credential", "is not a string"),
    (S, msg("conversation.connected.fail", message=5), "message", "is not a string"),
    (
        S,
        msg("conversation.connected.fail", data={"message": []}),
        "data.message",
        "is not a string",
    ),
    (S, msg("conversation.connected.fail", error=5), "error", "is not an object"),
    (S, msg("conversation.connected.fail", data={"error": 5}), "data.error", "is not an object"),
    (S, msg("error", error={"message": 5}), "error.message", "is not a string"),
    (S, msg("error", error={"code": []}), "error.code", "is not a string"),
    (S, msg("error", code=True), "code", "is not a string"),
    (S, msg("error", data=5), "data", "is not an object"),
    (S, msg("realtime_synthesis.stt.error", message={}), "message", "is not a string"),
    (
        S,
        msg("conversation.connected.warning", data={"avatarId": 1}),
        "data.avatarId",
        "is not a string",
    ),
    (S, msg("realtime.session.created", data=[]), "data", "is not an object"),
    (S, msg("realtime.status", data="x"), "data", "is not an object"),
    (C, msg(SUCCESS, data=[]), "data", "is not an object"),
    (S, msg(OFFER, data={}), "data.sdp", "is missing"),
    (S, msg(OFFER), "data.sdp", "is missing"),
    (S, msg(OFFER, data={"sdp": {}}), "data.sdp.sdp", "is missing"),
    (S, msg(OFFER, data={"sdp": {"sdp": 5}}), "data.sdp.sdp", "is not a string"),
    (S, msg(OFFER, data={"sdp": 5}), "data.sdp", "is not a string"),
    (C, msg(ANSWER, sdp={}), "sdp.sdp", "is missing"),
    (C, msg(ANSWER, data={}, sdp=[]), "sdp", "is not a string"),
    (C, msg(ICE, data={"candidate": 5}), "data.candidate", "is not an object"),
    (C, msg(ICE, data={"candidate": []}), "data.candidate", "is not an object"),
    (C, msg(ICE, candidate=True), "candidate", "is not an object"),
    (C, msg(ICE, data=5), "data", "is not an object"),
    (C, candidate(candidate=5), "data.candidate.candidate", "is not a string"),
    (C, candidate(sdpMid=0), "data.candidate.sdpMid", "is not a string"),
    (C, candidate(usernameFragment=0), "data.candidate.usernameFragment", "is not a string"),
    *(
        (
            C,
            candidate(sdpMLineIndex=index),
            "data.candidate.sdpMLineIndex",
            "is not an m-line index",
        )
        for index in NO_INDICES
    ),
    (
        C,
        msg(ICE, data={"candidate": "c", "sdpMLineIndex": "x"}),
        "data.sdpMLineIndex",
        "is not an m-line index",
    ),
    (S, msg(TRANSCRIPT, data={}), "data.content", "is missing"),
    (S, msg(TRANSCRIPT), "data.content", "is missing"),
    (S, msg(TRANSCRIPT, data={"content": None}), "data.content", "is missing"),
    (S, msg(TRANSCRIPT, data={"content": 5}), "data.content", "is not a string"),
    (S, msg(TRANSCRIPT, data={"transcript": 5}), "data.transcript", "is not a string"),
    (S, msg(TRANSCRIPT, transcript=5), "transcript", "is not a string"),
    (S, msg(DELTA, data={"id": "r"}), "data.content", "is missing"),
    (S, msg(DELTA, data={"id": 5, "content": "x"}), "data.id", "is not a string"),
    (S, msg(DONE, data={"id": "r", "content": []}), "data.content", "is not a string"),
    (S, msg("response.done", data={"id": 5}), "data.id", "is not a string"),
    (S, msg(AUDIO, data={}), "data.delta", "is missing"),
    (S, msg(AUDIO, data={"delta": 5}), "data.delta", "is not a string"),
    (S, msg(AUDIO, data={"delta": "AAA"}), "data.delta", "is not standard base64 with padding"),
    (S, msg(AUDIO, data={"delta": "AA=="}), "data.delta", "holds half a sample"),
    (S, msg(AUDIO, delta="AA=="), "delta", "holds half a sample"),
    (C, msg(APPEND, data={}), "data.audio", "is missing"),
    (C, msg(APPEND), "data.audio", "is missing"),
    (C, msg(APPEND, data={"audio": [0, 0]}), "data.audio", "is not a string"),
    (C, msg(APPEND, data={"audio": "AAAA\n"}), "data.audio", "is not standard base64 with padding"),
    (C, msg(APPEND, data={"audio": "AAAA"}), "data.audio", "holds half a sample"),
    (C, msg("input_audio_buffer.append", audio="AAAA"), "audio", "holds half a sample"),
    *(
        (
            C,
            msg(APPEND, data={"audio": "", name: number}),
            "data.sequenceNumber",
            "is not a sequence number",
        )
        for name in ("sequenceNumber", "sequence")
        for number in NO_SEQUENCE_NUMBERS
    ),
    (S, msg(CALL_TYPE, data={}), "data.function_name", "is missing"),
    (S, msg(CALL_TYPE, data={"name": "f"}), "data.call_id", "is missing"),
    (S, msg(CALL_TYPE, data={}, raw_data={"name": "f"}), "data.call_id", "is missing"),
    (S, msg(DELTA, data={}, raw_data={"delta": 5}), "raw_data.delta", "is not a string"),
    (S, msg(DELTA, data={}, raw_data=[]), "data.content", "is missing"),
    (S, call(name=5), "data.name", "is not a string"),
    (S, call(call_id=5), "data.call_id", "is not a string"),
    (S, call(arguments=[]), "data.arguments", "is not an object or a string"),
    (S, call(arguments=5), "data.arguments", "is not an object or a string"),
    (S, msg(CALL_TYPE, data={}, raw_data=[]), "raw_data", "is not an object"),
    (S, msg(CALL_TYPE, data={}, raw_data={"name": 5}), "raw_data.name", "is not a string"),
    (
        S,
        msg(CALL_TYPE, data={"name": "f"}, raw_data={"call_id": 5}),
        "raw_data.call_id",
        "is not a string",
    ),
    (
        S,
        msg(CALL_TYPE, data={"name": "f", "call_id": "c"}, raw_data={"arguments": 5}),
        "raw_data.arguments",
        "is not an object or a string",
    ),
    (
        S,
        msg("realtime.response.function_call_arguments.delta", data={"call_id": "c"}),
        "data.delta",
        "is missing",
    ),
    (C, msg(CONFIG, data={}), "data.content", "is missing"),
    (C, msg(CONFIG), "content", "is missing"),
    (C, msg(CONFIG, data={"content": ""}), "data.content", "is not JSON (at character 0)"),
    (C, msg(CONFIG, data={"content": "[]"}), "data.content", "is not an object"),
    (C, msg(CONFIG, data={"content": 5}), "data.content", "is not an object"),
    (C, msg(CONFIG, data={"content": {"voice": 5}}), "data.content.voice", "is not a string"),
    (C, msg(CONFIG, data={"content": '{"prompt":[]}'}), "data.content.prompt", "is not a string"),
    (C, msg(CONFIG, data={"content": {"tools": {}}}), "data.content.tools", "is not an array"),
    (
        C,
        msg(CONFIG, data={"content": {"tools": [{}, 5]}}),
        "data.content.tools[1]",
        "is not an object",
    ),
    (C, msg("realtime.input_function_call", data={}), "data.content", "is missing"),
    (
        C,
        msg("realtime.input_function_call", data={"content": "{}"}),
        "data.content",
        "is not an array",
    ),
    (
        C,
        msg("realtime.input_function_call", data={"content": '["x"]'}),
        "data.content[0]",
        "is not an object",
    ),
    (C, msg(ITEM), "item", "is missing"),
    (C, msg(ITEM, item=None), "item", "is missing"),
    (C, msg(ITEM, item=[]), "item", "is not an object"),
    (C, msg(ITEM, data={"item": 5}), "data.item", "is not an object"),
    (
        C,
        msg(ITEM, item={"type": "item_reference"}),
        "item.type",
        "is not message or function_call_output",
    ),
    (C, msg(ITEM, item={"type": []}), "item.type", "is not message or function_call_output"),
    (C, msg(ITEM, item={"type": "message"}), "item.content", "is missing"),
    (C, msg(ITEM, item={"content": 5}), "item.content", "is not an array or a string"),
    (C, msg(ITEM, item={"content": ["x"]}), "item.content[0]", "is not an object"),
    (
        C,
        msg(ITEM, item={"content": [{"type": "input_text"}]}),
        "item.content[0].text",
        "is not a string",
    ),
    (C, msg(ITEM, item={"content": [{"text": 5}]}), "item.content[0].text", "is not a string"),
    (C, msg(ITEM, item={"role": 5, "content": "x"}), "item.role", "is not a string"),
    (C, msg(ITEM, item={"type": "function_call_output"}), "item.call_id", "is missing"),
    (
        C,
        msg(ITEM, item={"type": "function_call_output", "call_id": "c"}),
        "item.output",
        "is missing",
    ),
    (
        C,
        msg(ITEM, item={"type": "function_call_output", "call_id": "c", "output": 5}),
        "item.output",
        "is not a string or an object",
    ),
    (C, msg(OUTPUT, data={"output": "x"}), "data.call_id", "is missing"),
    (C, msg(OUTPUT, data={"call_id": "c"}), "data.output", "is missing"),
    (
        C,
        msg(OUTPUT, data={"call_id": "c", "result": True}),
        "data.result",
        "is not a string or an object",
    ),
    *(
        (
            C,
            msg(OUTPUT, data={"call_id": "c", "output": "", "reply": value}),
            "data.reply",
            "is not 0 or 1",
        )
        for value in NO_FLAGS
    ),
    (C, msg("session.update"), "session", "is missing"),
    (C, msg("session.update", session=[]), "session", "is not an object"),
    (C, msg(IMAGE, data={}), "data.content", "is missing"),
    (C, msg(IMAGE, data={"content": 5}), "data.content", "is not a string"),
    (C, msg("realtime.input_text", data={}), "data.content", "is missing"),
    (C, msg("realtime.input.text", data={"text": 5}), "data.text", "is not a string"),
]


@pytest.mark.parametrize(("sender", "message", "field", "reason"), MALFORMED)
def test_a_malformed_field_is_named(
    sender: Role, message: dict[str, object], field: str, reason: str
) -> None:
    error = refusal(sender, message)
    assert (error.type, error.field, error.reason) == (message["type"], field, reason)
    assert str(error) == f"{message['type']}: {field}: {reason}"


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


@pytest.mark.parametrize("type", [OFFER, ANSWER])
def test_an_oversized_description_is_malformed(type: str) -> None:
    limits = Limits(sdp=20)
    fits = read(S, msg(type, data={"sdp": "v=0\n" + "x" * 15}), limits)
    assert isinstance(fits, Offer | Answer)
    assert len(fits.sdp) == 20
    for sdp in ("v=0\n" + "x" * 16, "v=0\n" + "x" * 14 + "é"):
        error = refusal(S, msg(type, data={"sdp": sdp}), limits)
        assert (error.type, error.field) == (type, "data.sdp.sdp")
        assert error.reason == "is larger than 20 bytes"
    assert read(S, msg(type, data={"sdp": "v=0\n" + "x" * 13 + "é"}), limits)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("candidate", "candidate"),
        ("sdpMid", "sdp_mid"),
        ("usernameFragment", "username_fragment"),
    ],
)
def test_an_oversized_candidate_is_malformed(name: str, attribute: str) -> None:
    limits = Limits(candidate=20)
    fits = read(C, candidate(**{name: "x" * 20}), limits)
    assert getattr(fits, attribute) == "x" * 20
    error = refusal(C, candidate(**{name: "x" * 21}), limits)
    assert (error.type, error.field) == (ICE, f"data.candidate.{name}")
    assert error.reason == "is longer than 20 characters"


def test_of_many_ice_servers_the_first_are_kept() -> None:
    entries = [{"urls": f"stun:{n}"} for n in range(5)]
    message = msg(SUCCESS, data={"sessionId": "s", "iceServers": [{}, *entries]})
    three = ConnectedSuccess(
        session_id="s", ice_servers=tuple(IceServer(urls=(f"stun:{n}",)) for n in range(3))
    )
    assert read(S, message, Limits(ice_servers=3)) == three
    all_of_them = read(S, message, Limits(ice_servers=5))
    assert isinstance(all_of_them, ConnectedSuccess)
    assert len(all_of_them.ice_servers) == 5


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


def test_a_decoded_credential_is_a_secret() -> None:
    message = read(S, success(urls="turn:a", username="user-name", credential="turn-password"))
    assert "turn-password" not in repr(message)
    assert "user-name" not in repr(message)
    assert isinstance(message, ConnectedSuccess)
    assert message.ice_servers[1].credential == Secret("turn-password")
    assert "turn-password" in encode(message)


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
        patch.setattr(codec, "loads", jsontext._loads_reference)
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
