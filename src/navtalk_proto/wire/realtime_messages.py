"""What client and realtime model tell each other through the gateway, in structures of the model.

Function calls, conversation items, the model's configuration (protocol.md 5.7 to 5.9, 5.16, 5.17),
and its events that the gateway has no name for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.wire.fields import (
    Hook,
    Raw,
    error_text,
    json_text_field,
    malformed,
    object_field,
    payload_of,
    places_of,
    text_field,
)
from navtalk_proto.wire.jsontext import dumps, loads
from navtalk_proto.wire.messages import (
    FunctionCallDone,
    InputConfig,
    InputFunctionCall,
    JsonObject,
    SessionUpdate,
    SynthesisError,
    ToolResult,
    UnmappedEvent,
    UserMessage,
)

__all__ = ["STRUCTURE", "UNSTRUCTURE"]


def _structure_function_call(message: Raw, _: Any) -> FunctionCallDone:
    """protocol.md 5.16; an older form has everything in raw_data."""
    payload = payload_of(message)
    upstream = _read_raw_data(payload, message)
    name = _read_name(payload, message)
    call_id = _read_call_id(payload, message)
    arguments = _call_arguments(payload, message)
    if upstream is not None:
        try:
            name = name or _read_name(upstream, upstream)
            call_id = call_id or _read_call_id(upstream, upstream)
            arguments = _upstream_arguments(arguments, upstream)
        except MalformedMessageError as error:
            raise malformed(error.reason, f"raw_data.{error.field}") from None
    if not name:
        raise malformed("is missing", "data.function_name")
    if not call_id:
        raise malformed("is missing", "data.call_id")
    if arguments is None:
        arguments = "{}"
    return FunctionCallDone(
        call_id=call_id,
        name=name,
        arguments=arguments if isinstance(arguments, str) else dumps(arguments),
        raw_data=upstream,
    )


_read_raw_data: Final = object_field("raw_data")
_read_name: Final = text_field("function_name", "name")
_read_call_id: Final = text_field("call_id")


def _call_arguments(payload: Raw, message: Raw) -> Raw | str | None:
    for prefix, place in places_of(payload, message):
        value = place.get("arguments")
        if type(value) is dict or type(value) is str:
            return value
        if value is not None:
            raise malformed("is not an object or a string", f"{prefix}arguments")
    return None


def _upstream_arguments(arguments: Raw | str | None, upstream: Raw) -> Raw | str | None:
    """The model's own text where the gateway passed on nothing, or only its parsed value."""
    if type(arguments) is str:
        return arguments
    if arguments is None:
        return _call_arguments(upstream, upstream)
    text = upstream.get("arguments")
    return text if type(text) is str and _parsed_object(text) == arguments else arguments


def _parsed_object(text: str) -> Raw | None:
    try:
        value = loads(text)
    except MalformedMessageError:
        return None
    return value if type(value) is dict else None


def _unstructure_function_call(call: FunctionCallDone) -> Raw:
    """Every reader of 5.16 finds its spelling; the JS SDK throws without raw_data.name."""
    parsed = _parsed_object(call.arguments)
    raw_data = call.raw_data
    if raw_data is None:
        raw_data = {
            "type": "response.function_call_arguments.done",
            "call_id": call.call_id,
            "name": call.name,
            "arguments": call.arguments,
        }
    return {
        "type": FunctionCallDone.TYPE,
        "data": {
            "function_name": call.name,
            "name": call.name,
            "call_id": call.call_id,
            "arguments": call.arguments if parsed is None else parsed,
        },
        "raw_data": raw_data,
    }


def _structure_unmapped(message: Raw, _: Any) -> UnmappedEvent:
    # The payload is free (4.1), whatever its JSON type.
    upstream = message.get("raw_data")
    return UnmappedEvent(raw_data=upstream if type(upstream) is dict else None)


def _unstructure_unmapped(event: UnmappedEvent) -> Raw:
    raw: Raw = {"type": UnmappedEvent.TYPE, "message": "", "data": {}}
    if event.raw_data is not None:
        raw["raw_data"] = event.raw_data
    return raw


_STAGES: Final = {f"realtime_synthesis.{stage}.error": stage for stage in ("tts", "stt")}


def _structure_synthesis_error(message: Raw, _: Any) -> SynthesisError:
    return SynthesisError(
        stage=_STAGES[message["type"]], message=error_text(payload_of(message), message)
    )


def _unstructure_synthesis_error(error: SynthesisError) -> Raw:
    kind = f"realtime_synthesis.{error.stage}.error"
    if kind not in _STAGES:
        raise LocalProtocolError("the stage of a SynthesisError is tts or stt")
    return {"type": kind, "message": error.message, "data": {"message": error.message}}


# ---- configuration


def _content(message: Raw) -> tuple[Any, str]:
    """data.content, parsed when it is JSON text (5.7, 5.8), and its path."""
    payload = payload_of(message)
    field = "content" if payload is message else "data.content"
    content = payload.get("content")
    if content is None:
        raise malformed("is missing", field)
    if type(content) is str:
        try:
            content = loads(content)
        except MalformedMessageError as error:
            raise malformed(error.reason, field) from None
    return content, field


def _tools(value: Any, field: str) -> tuple[JsonObject, ...]:
    # What is inside a tool is between the application and the model; the JS SDK, for one, writes
    # `properties: []` (5.8).
    if type(value) is not list:
        raise malformed("is not an array", field)
    for number, tool in enumerate(value):
        if type(tool) is not dict:
            raise malformed("is not an object", f"{field}[{number}]")
    return tuple(value)


def _structure_config(message: Raw, _: Any) -> InputConfig:
    """protocol.md 5.7. An empty text keeps the console's setting, as a missing one does."""
    content, field = _content(message)
    if type(content) is not dict:
        raise malformed("is not an object", field)
    for name in ("voice", "prompt"):
        if content.get(name) is not None and type(content[name]) is not str:
            raise malformed("is not a string", f"{field}.{name}")
    tools = content.get("tools")
    return InputConfig(
        voice=content.get("voice") or None,
        prompt=content.get("prompt") or None,
        tools=None if tools is None else _tools(tools, f"{field}.tools"),
    )


def _unstructure_config(config: InputConfig) -> Raw:
    content: Raw = {}
    if config.voice is not None:
        content["voice"] = config.voice
    if config.prompt is not None:
        content["prompt"] = config.prompt
    if config.tools is not None:
        content["tools"] = config.tools
    return {"type": InputConfig.TYPE, "data": {"content": dumps(content)}}


def _structure_input_function_call(message: Raw, _: Any) -> InputFunctionCall:
    content, field = _content(message)
    return InputFunctionCall(tools=_tools(content, field))


def _unstructure_input_function_call(call: InputFunctionCall) -> Raw:
    return {"type": InputFunctionCall.TYPE, "data": {"content": dumps(call.tools)}}


def _structure_session_update(message: Raw, _: Any) -> SessionUpdate:
    session = _read_session(payload_of(message), message)
    if session is None:
        raise malformed("is missing", "session")
    return SessionUpdate(session=session)


_read_session: Final = object_field("session")


def _unstructure_session_update(update: SessionUpdate) -> Raw:
    return {"type": SessionUpdate.TYPE, "session": update.session}


# ---- conversation items


def _structure_item(message: Raw, _: Any) -> UserMessage | ToolResult:
    """conversation.item.create: a message (5.9) or a tool result (5.17), by item.type."""
    payload = payload_of(message)
    item = _read_item(payload, message)
    if item is None:
        raise malformed("is missing", "item")
    kind = item.get("type", "message")
    try:
        if kind == "message":
            return _structure_user_message(item)
        if kind == "function_call_output":
            return _structure_tool_result(item)
        raise malformed("is not message or function_call_output", "type")
    except MalformedMessageError as error:
        raise malformed(error.reason, f"item.{error.field}") from None


_read_item: Final = object_field("item")


def _structure_user_message(item: Raw) -> UserMessage:
    content = item.get("content")
    role = item.get("role")
    if role is None:
        role = "user"
    elif type(role) is not str:
        raise malformed("is not a string", "role")
    if type(content) is str:
        return UserMessage(texts=_android_texts(content), role=role)
    if type(content) is not list:
        reason = "is missing" if content is None else "is not an array or a string"
        raise malformed(reason, "content")
    texts = []
    for number, part in enumerate(content):
        if type(part) is not dict:
            raise malformed("is not an object", f"content[{number}]")
        text = part.get("text")
        if type(text) is str:
            texts.append(text)
        elif text is not None or part.get("type") in ("input_text", "text"):
            raise malformed("is not a string", f"content[{number}].text")
        # Else a part of another kind, for example audio: the class has texts only.
    return UserMessage(texts=tuple(texts), role=role)


_ANDROID_START: Final = "[{type=input_text, text="
_ANDROID_BETWEEN: Final = "}, {type=input_text, text="
_ANDROID_END: Final = "}]"


def _android_texts(content: str) -> tuple[str, ...]:
    """The entries of a Kotlin list printed as a string (5.9); any other string is one text."""
    if content.startswith(_ANDROID_START) and content.endswith(_ANDROID_END):
        inner = content[len(_ANDROID_START) : -len(_ANDROID_END)]
        return tuple(inner.split(_ANDROID_BETWEEN))
    return (content,)


def _structure_tool_result(item: Raw) -> ToolResult:
    call_id = _read_call_id(item, item)
    if call_id is None:
        raise malformed("is missing", "call_id")
    output = _read_output(item, item)
    if output is None:
        raise malformed("is missing", "output")
    return ToolResult(call_id=call_id, output=output)


_read_output: Final = json_text_field("output")


def _unstructure_user_message(message: UserMessage) -> Raw:
    content = [{"type": "input_text", "text": text} for text in message.texts]
    return {
        "type": UserMessage.TYPE,
        "item": {"type": "message", "role": message.role, "content": content},
    }


def _unstructure_tool_result(result: ToolResult) -> Raw:
    return {
        "type": ToolResult.TYPE,
        "item": {
            "type": "function_call_output",
            "call_id": result.call_id,
            "output": result.output,
        },
    }


# ---- what the codec takes

STRUCTURE: Final[dict[type, Hook]] = {
    FunctionCallDone: _structure_function_call,
    UnmappedEvent: _structure_unmapped,
    SynthesisError: _structure_synthesis_error,
    InputConfig: _structure_config,
    InputFunctionCall: _structure_input_function_call,
    SessionUpdate: _structure_session_update,
    UserMessage: _structure_item,
}
UNSTRUCTURE: Final[dict[type, Callable[[Any], Raw]]] = {
    FunctionCallDone: _unstructure_function_call,
    UnmappedEvent: _unstructure_unmapped,
    SynthesisError: _unstructure_synthesis_error,
    InputConfig: _unstructure_config,
    InputFunctionCall: _unstructure_input_function_call,
    SessionUpdate: _unstructure_session_update,
    UserMessage: _unstructure_user_message,
    ToolResult: _unstructure_tool_result,
}
