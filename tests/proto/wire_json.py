"""What the tests of the codec and of its messages share: the JSON of the document, and checks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.wire.codec import decode, encode
from navtalk_proto.wire.messages import FunctionCallDone, JsonValue, Message

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


def read(sender: Role, value: object, limits: Limits = LIMITS) -> object:
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    return decode(text, sender=sender, limits=limits)


def refusal(sender: Role, value: object, limits: Limits = LIMITS) -> MalformedMessageError:
    with pytest.raises(MalformedMessageError) as caught:
        read(sender, value, limits)
    return caught.value


def msg(type: str, **fields: object) -> dict[str, object]:
    return {"type": type, **fields}


def success(**entry: object) -> dict[str, object]:
    return msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "stun:a"}, entry]})


def candidate(**fields: object) -> dict[str, object]:
    return msg(ICE, data={"candidate": {"candidate": "c", **fields}})


def call(**fields: object) -> dict[str, object]:
    return msg(CALL_TYPE, data={"name": "f", "call_id": "c", **fields})


def check_written(message: Message, expected: dict[str, Any]) -> None:
    """A message is written in its canonical form."""
    text = encode(message)
    written = json.loads(text)
    assert written == expected
    # 0 and False are equal to Python, and different to a client.
    assert json.dumps(written, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert text.startswith('{"type":"')


def check_malformed(sender: Role, message: dict[str, object], field: str, reason: str) -> None:
    """The error of a malformed field names the type and the path."""
    error = refusal(sender, message)
    assert (error.type, error.field, error.reason) == (message["type"], field, reason)
    assert str(error) == f"{message['type']}: {field}: {reason}"


def check_mistake(message: Any, says: str) -> None:
    """What has no JSON form is a local mistake, which quotes nothing."""
    with pytest.raises(LocalProtocolError, match=says) as caught:
        encode(message)
    assert "TOP" not in str(caught.value)
