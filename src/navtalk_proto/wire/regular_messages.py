"""Messages whose fields are each "the first of these names": one table, :data:`SHAPES`.

A structure and an unstructure hook are made of a class and its entry in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from attrs import NOTHING, frozen

from navtalk_proto.construct import positional
from navtalk_proto.wire.fields import (
    Hook,
    Raw,
    Reader,
    data_field,
    error_code,
    error_text,
    flag_field,
    json_text_field,
    malformed,
    payload_of,
    text_field,
)
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
    ResponseCompleted,
    ResponseCreate,
    ServerError,
    ServerStatus,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    StreamingBreak,
    TranscriptDelta,
    TranscriptDone,
    VideoDelta,
)

__all__ = ["SHAPES", "structure_hook", "unstructure_hook"]


@frozen(kw_only=True)
class _Slot:
    """One field: how it is read, under which names in ``data`` it is written."""

    read: Reader
    write: tuple[str, ...]


@frozen(kw_only=True)
class _Shape:
    """A regular class; `message` and `data` say whether its envelope has these keys."""

    slots: Mapping[str, _Slot] = attrs.field(factory=dict)
    message: bool = False
    data: bool = True


_ID: Final = _Slot(
    read=text_field("id", "response_id", "responseId", upstream=True), write=("id", "response_id")
)
# Judgement: a piece of text without an id is better shown than dropped; there is one response at a
# time, so that an empty id still belongs to it.
_ID_OR_EMPTY: Final = _Slot(
    read=text_field("id", "response_id", "responseId", missing="", upstream=True),
    write=("id", "response_id"),
)
_CALL_ID: Final = _Slot(read=text_field("call_id"), write=("call_id",))
_BARE: Final = _Shape(message=True)

SHAPES: Final[dict[type, _Shape]] = {
    ConnectedWarning: _Shape(
        slots={
            "message": _Slot(read=error_text, write=("message",)),
            "avatar_id": _Slot(read=text_field("avatarId", "avatar_id"), write=("avatarId",)),
        },
        message=True,
    ),
    **{
        cls: _Shape(slots={"message": _Slot(read=error_text, write=("message",))}, message=True)
        for cls in (
            ConnectedFail,
            ConnectedClose,
            InsufficientBalance,
            ConnectionLimitExceeded,
            GpuFull,
            BackendError,
        )
    },
    **{
        cls: _Shape(slots={"data": _Slot(read=data_field, write=())}, message=message)
        for cls, message in (
            (SessionCreated, True),
            (SessionUpdated, True),
            (ServerStatus, True),
            (VideoDelta, True),
            (GatewayHello, False),
        )
    },
    SpeechStarted: _BARE,
    SpeechStopped: _BARE,
    InputTranscript: _Shape(
        slots={
            "content": _Slot(
                read=text_field("content", "transcript", "delta", upstream=True),
                write=("content", "transcript"),
            )
        }
    ),
    TranscriptDelta: _Shape(
        slots={
            "response_id": _ID_OR_EMPTY,
            "content": _Slot(
                read=text_field("content", "delta", "transcript", upstream=True), write=("content",)
            ),
        }
    ),
    TranscriptDone: _Shape(
        slots={
            "response_id": _ID_OR_EMPTY,
            "content": _Slot(
                read=text_field("content", "transcript", "delta", upstream=True),
                write=("content", "transcript"),
            ),
        }
    ),
    AudioDone: _BARE,
    FunctionCallDelta: _Shape(
        slots={
            "call_id": _Slot(
                read=text_field("call_id", missing="", upstream=True), write=("call_id",)
            ),
            "delta": _Slot(read=text_field("delta", upstream=True), write=("delta",)),
        }
    ),
    ResponseCompleted: _Shape(slots={"response_id": _ID}, message=True),
    ServerError: _Shape(
        slots={
            "message": _Slot(read=error_text, write=("message",)),
            "code": _Slot(read=error_code, write=("code",)),
        },
        message=True,
    ),
    StreamingBreak: _BARE,
    FunctionCallOutput: _Shape(
        slots={
            "call_id": _CALL_ID,
            "output": _Slot(read=json_text_field("output", "content", "result"), write=("output",)),
            "reply": _Slot(read=flag_field("reply"), write=("reply",)),
        }
    ),
    ResponseCreate: _Shape(data=False),
    AudioClear: _Shape(),
    AudioCommit: _Shape(),
    InputImage: _Shape(
        slots={
            "content": _Slot(read=text_field("content"), write=("content",)),
            "reply": _Slot(read=flag_field("reply"), write=("reply",)),
        }
    ),
    InputText: _Shape(
        slots={"content": _Slot(read=text_field("content", "text"), write=("content",))}
    ),
    IceRestartRequest: _Shape(),
}


def structure_hook(cls: type[Any], _: Any) -> Hook:
    """A structure hook for a class with a shape. Defaults are the attrs class's own."""
    slots = SHAPES[cls].slots
    if not slots:
        only = cls()
        return lambda message, _: only
    make = positional(cls)
    made = [field.name for field in attrs.fields(cls) if hasattr(field.default, "factory")]
    assert all(slots[name].read is data_field for name in made), (
        "a default to be made, not to be copied"
    )
    readers = tuple(
        (
            slots[field.name].read,
            field.default,
            # The path to name when a field without a default is left out; else never read.
            f"data.{slots[field.name].write[0]}" if field.default is NOTHING else "",
        )
        for field in attrs.fields(cls)
    )

    def structure(message: Raw, _: Any) -> Any:
        payload = payload_of(message)
        values = []
        for read, default, required in readers:
            value = read(payload, message)
            if value is None:
                value = default
                if value is NOTHING:
                    raise malformed("is missing", required)
            values.append(value)
        return make(*values)

    return structure


def unstructure_hook(cls: type[Any], _: Any) -> Callable[[Any], Raw]:
    """An unstructure hook for a class with a shape: its message as JSON values."""
    shape = SHAPES[cls]

    def unstructure(value: Any) -> Raw:
        raw: Raw = {"type": cls.TYPE}
        data: Raw = {}
        for name, slot in shape.slots.items():
            item = getattr(value, name)
            if not slot.write:
                data = item
            elif item is not None:
                for key in slot.write:
                    data[key] = int(item) if type(item) is bool else item
        if shape.message:
            raw["message"] = data.get("message", "") if "message" in shape.slots else ""
        if shape.data:
            raw["data"] = data
        return raw

    return unstructure
