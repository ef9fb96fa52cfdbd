"""Messages whose fields are each the first of some names (protocol.md 5, 6.6)."""

from __future__ import annotations

from typing import Any

import pytest
from wire_json import (
    AVATAR,
    DELTA,
    DONE,
    IMAGE,
    OUTPUT,
    RESPONSE_ERROR,
    SHARED_NAME,
    TRANSCRIPT,
    C,
    S,
    check_malformed,
    check_written,
    msg,
    read,
)

from navtalk_proto.roles import Role
from navtalk_proto.wire.messages import (
    AudioClear,
    AudioCommit,
    AudioDone,
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectedWarning,
    ConnectionLimitExceeded,
    FunctionCallDelta,
    FunctionCallOutput,
    GatewayHello,
    GpuFull,
    IceRestartRequest,
    InputImage,
    InputText,
    InputTranscript,
    InsufficientBalance,
    Message,
    ResponseCompleted,
    ResponseCreate,
    ServerError,
    ServerStatus,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    StreamingBreak,
    TranscriptDelta,
    TranscriptDone,
    VideoDelta,
)

WRITTEN: list[tuple[Message, dict[str, Any]]] = [
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
    *(
        (cls(data={"id": 1}), {"type": name, "message": "", "data": {"id": 1}})
        for cls, name in (
            (SessionCreated, "realtime.session.created"),
            (SessionUpdated, "realtime.session.updated"),
            (ServerStatus, "realtime.status"),
            (VideoDelta, "realtime.response.video.delta"),
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
        FunctionCallDelta(call_id="c", delta='{"a'),
        {
            "type": "realtime.response.function_call_arguments.delta",
            "data": {"call_id": "c", "delta": '{"a'},
        },
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
        FunctionCallOutput(call_id="c", output="done", reply=False),
        {
            "type": "realtime.function_call_output",
            "data": {"call_id": "c", "output": "done", "reply": 0},
        },
    ),
    (ResponseCreate(), {"type": "response.create"}),
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
def test_they_are_written_in_their_canonical_form(
    message: Message, expected: dict[str, Any]
) -> None:
    check_written(message, expected)


SPELLINGS: list[tuple[Role, dict[str, object], object]] = [
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
    # session events without data: 6.6
    (S, msg("realtime.session.created"), SessionCreated()),
    (S, msg("realtime.session.updated", data=None), SessionUpdated()),
    (S, msg("realtime.session.updated", data={"id": "x"}), SessionUpdated(data={"id": "x"})),
    (S, msg("realtime.input_audio_buffer.speech_started"), SpeechStarted()),
    (S, msg("realtime.response.audio.done", data=None), AudioDone()),
    (S, msg("realtime.status", data={"a": 1}), ServerStatus(data={"a": 1})),
    (S, msg("realtime.response.video.delta", data={"delta": ""}), VideoDelta(data={"delta": ""})),
    (S, msg("webrtc.streaming.break", message="x"), StreamingBreak()),
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
    (C, msg("realtime.input_audio_buffer.clear"), AudioClear()),
    (C, msg("input_audio_buffer.clear", data={}), AudioClear()),
    (C, msg("input_audio_buffer.commit"), AudioCommit()),
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
]


@pytest.mark.parametrize(("sender", "message", "expected"), SPELLINGS)
def test_every_spelling_is_read(sender: Role, message: dict[str, object], expected: object) -> None:
    assert read(sender, message) == expected


NO_FLAGS: list[object] = [2, -1, "1", 1.0, []]
MALFORMED: list[tuple[Role, dict[str, object], str, str]] = [
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
    (
        S,
        msg("conversation.connected.warning", data={"avatarId": 1}),
        "data.avatarId",
        "is not a string",
    ),
    (S, msg("realtime.session.created", data=[]), "data", "is not an object"),
    (S, msg("realtime.status", data="x"), "data", "is not an object"),
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
    (S, msg(DELTA, data={}, raw_data={"delta": 5}), "raw_data.delta", "is not a string"),
    (S, msg(DELTA, data={}, raw_data=[]), "data.content", "is missing"),
    (
        S,
        msg("realtime.response.function_call_arguments.delta", data={"call_id": "c"}),
        "data.delta",
        "is missing",
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
    (C, msg(IMAGE, data={}), "data.content", "is missing"),
    (C, msg(IMAGE, data={"content": 5}), "data.content", "is not a string"),
    (C, msg("realtime.input_text", data={}), "data.content", "is missing"),
    (C, msg("realtime.input.text", data={"text": 5}), "data.text", "is not a string"),
]


@pytest.mark.parametrize(("sender", "message", "field", "reason"), MALFORMED)
def test_a_malformed_field_is_named(
    sender: Role, message: dict[str, object], field: str, reason: str
) -> None:
    check_malformed(sender, message, field, reason)
