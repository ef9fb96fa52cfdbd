"""The vocabulary of the wire: type strings, and what a repr may show."""

from __future__ import annotations

import typing

import attrs
import pytest

from navtalk_proto.secret import Secret
from navtalk_proto.wire import messages
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioDelta,
    ConnectedSuccess,
    GatewayHello,
    IceCandidate,
    IceServer,
    InputImage,
    Offer,
    ServerStatus,
    Unknown,
    VideoDelta,
)

# protocol.md section 4, typed by hand.
TYPES = {
    "ConnectedSuccess": "conversation.connected.success",
    "ConnectedWarning": "conversation.connected.warning",
    "ConnectedFail": "conversation.connected.fail",
    "ConnectedClose": "conversation.connected.close",
    "InsufficientBalance": "conversation.connected.insufficient_balance",
    "ConnectionLimitExceeded": "conversation.connected.connection_limit_exceeded",
    "GpuFull": "conversation.connected.gpu_full",
    "BackendError": "conversation.connected.backend_error",
    "Offer": "webrtc.signaling.offer",
    "Answer": "webrtc.signaling.answer",
    "IceCandidate": "webrtc.signaling.iceCandidate",
    "SessionCreated": "realtime.session.created",
    "SessionUpdated": "realtime.session.updated",
    "SpeechStarted": "realtime.input_audio_buffer.speech_started",
    "SpeechStopped": "realtime.input_audio_buffer.speech_stopped",
    "InputTranscript": "realtime.conversation.item.input_audio_transcription.completed",
    "TranscriptDelta": "realtime.response.audio_transcript.delta",
    "TranscriptDone": "realtime.response.audio_transcript.done",
    "AudioDelta": "realtime.response.audio.delta",
    "AudioDone": "realtime.response.audio.done",
    "FunctionCallDelta": "realtime.response.function_call_arguments.delta",
    "FunctionCallDone": "realtime.response.function_call_arguments.done",
    "ResponseCompleted": "realtime.response.completed",
    "ServerError": "realtime.response.error",
    "ServerStatus": "realtime.status",
    "VideoDelta": "realtime.response.video.delta",
    "SynthesisError": "realtime_synthesis.tts.error",
    "StreamingBreak": "webrtc.streaming.break",
    "UnmappedEvent": "unknow",
    "InputConfig": "realtime.input_config",
    "InputFunctionCall": "realtime.input_function_call",
    "UserMessage": "conversation.item.create",
    "ToolResult": "conversation.item.create",
    "FunctionCallOutput": "realtime.function_call_output",
    "ResponseCreate": "response.create",
    "SessionUpdate": "session.update",
    "AudioAppend": "realtime.input_audio_buffer.append",
    "AudioClear": "realtime.input_audio_buffer.clear",
    "AudioCommit": "realtime.input_audio_buffer.commit",
    "InputImage": "realtime.input_image",
    "InputText": "realtime.input_text",
    "IceRestartRequest": "webrtc.signaling.iceRestartRequest",
    "GatewayHello": "conversation.connected.success",
}
CLASSES = [cls for cls in vars(messages).values() if isinstance(cls, type) and attrs.has(cls)]


def members(union: object) -> set[type]:
    return set(typing.get_args(union))


def test_every_class_writes_its_type_string() -> None:
    written = {cls.__name__: cls.TYPE for cls in CLASSES if hasattr(cls, "TYPE")}
    assert written == TYPES


def test_every_message_is_in_a_union() -> None:
    union = members(messages.ServerMessage) | members(messages.ClientMessage)
    assert {cls.__name__ for cls in union} == set(TYPES)
    assert members(messages.Message) == union
    assert members(messages.ServerMessage) & members(messages.ClientMessage) == {
        Offer,
        Answer,
        IceCandidate,
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_are_frozen_slotted_and_keyword_only(cls: type[attrs.AttrsInstance]) -> None:
    fields = attrs.fields(cls)
    assert all(field.kw_only for field in fields)
    required = {f.name: "x" for f in fields if f.default is attrs.NOTHING}
    instance = cls(**required)
    assert not hasattr(instance, "__dict__")
    for field in fields:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(instance, field.name, None)


def test_the_end_of_candidates_is_an_empty_candidate() -> None:
    assert IceCandidate(candidate="").is_end
    assert not IceCandidate(candidate="candidate:1 1 udp 1 10.0.0.1 9 typ host").is_end


HIDDEN = "MUST-NOT-SHOW"
HIDING = [
    (Offer(sdp=HIDDEN), "Offer(sdp=<13 characters>)"),
    (Answer(sdp=HIDDEN), "Answer(sdp=<13 characters>)"),
    (AudioAppend(audio=HIDDEN.encode()), "AudioAppend(audio=<13 bytes>, sequence_number=None)"),
    (AudioDelta(audio=HIDDEN.encode()), "AudioDelta(audio=<13 bytes>)"),
    (InputImage(content=HIDDEN), "InputImage(content=<13 characters>, reply=False)"),
    (ServerStatus(data={"a": HIDDEN}), "ServerStatus()"),
    (VideoDelta(data={"a": HIDDEN}), "VideoDelta()"),
    (GatewayHello(data={"api_key": HIDDEN}), "GatewayHello()"),
    (Unknown(type="x", raw=HIDDEN), "Unknown(type='x', raw=<13 characters>)"),
]


@pytest.mark.parametrize(("message", "shown"), HIDING)
def test_long_and_secret_values_are_not_in_a_repr(message: object, shown: str) -> None:
    assert repr(message) == shown


def test_turn_credentials_are_not_in_a_repr() -> None:
    server = IceServer(urls=("turn:a",), username=f"user-{HIDDEN}", credential=Secret(HIDDEN))
    success = ConnectedSuccess(session_id="s", ice_servers=(server,))
    assert repr(server) == "IceServer(urls=('turn:a',), credential=Secret('***'))"
    assert HIDDEN not in repr(success)
    assert "turn:a" in repr(success)
