"""Function calls, items, configuration, in structures of the model (protocol.md 5.7-5.9, 5.16)."""

from __future__ import annotations

from typing import Any

import pytest
from wire_json import (
    CALL,
    CALL_TYPE,
    CLOSE_TALK,
    CONFIG,
    ITEM,
    RAW_CALL,
    C,
    S,
    call,
    check_malformed,
    check_mistake,
    check_written,
    msg,
    read,
)

from navtalk_proto.roles import Role
from navtalk_proto.wire.messages import (
    AudioDone,
    FunctionCallDone,
    InputConfig,
    InputFunctionCall,
    Message,
    ResponseCompleted,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    StreamingBreak,
    SynthesisError,
    ToolResult,
    UnmappedEvent,
    UserMessage,
)

WRITTEN: list[tuple[Message, dict[str, Any]]] = [
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
        SessionUpdate(session={"voice": "sage", "temperature": 0.8}),
        {"type": "session.update", "session": {"voice": "sage", "temperature": 0.8}},
    ),
]


@pytest.mark.parametrize(("message", "expected"), WRITTEN)
def test_they_are_written_in_their_canonical_form(
    message: Message, expected: dict[str, Any]
) -> None:
    check_written(message, expected)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (SynthesisError(stage="llm"), "tts or stt"),
        (SessionUpdate(session={"temperature": float("nan")}), "not finite"),
    ],
)
def test_what_has_no_json_form_is_a_local_mistake(message: Any, says: str) -> None:
    check_mistake(message, says)


SPELLINGS: list[tuple[Role, dict[str, object], object]] = [
    (S, msg("unknown", data={}), UnmappedEvent()),
    (S, msg("unknow", data=[1], raw_data="free"), UnmappedEvent()),
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
]


@pytest.mark.parametrize(("sender", "message", "expected"), SPELLINGS)
def test_every_spelling_is_read(sender: Role, message: dict[str, object], expected: object) -> None:
    assert read(sender, message) == expected


MALFORMED: list[tuple[Role, dict[str, object], str, str]] = [
    (S, msg("realtime_synthesis.stt.error", message={}), "message", "is not a string"),
    (S, msg(CALL_TYPE, data={}), "data.function_name", "is missing"),
    (S, msg(CALL_TYPE, data={"name": "f"}), "data.call_id", "is missing"),
    (S, msg(CALL_TYPE, data={}, raw_data={"name": "f"}), "data.call_id", "is missing"),
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
    (C, msg("session.update"), "session", "is missing"),
    (C, msg("session.update", session=[]), "session", "is not an object"),
]


@pytest.mark.parametrize(("sender", "message", "field", "reason"), MALFORMED)
def test_a_malformed_field_is_named(
    sender: Role, message: dict[str, object], field: str, reason: str
) -> None:
    check_malformed(sender, message, field, reason)
