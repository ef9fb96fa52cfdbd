"""Where a field is looked for, which of several spellings wins, and what its error names."""

from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.wire.fields import (
    Reader,
    data_field,
    error_code,
    error_text,
    flag_field,
    json_text_field,
    object_field,
    payload_of,
    places_of,
    text_field,
)

TEXT = text_field("id", "response_id", missing="none")
UPSTREAM = text_field("id", upstream=True)
OBJECT = object_field("item", "thing")
JSON = json_text_field("output", "result")
FLAG = flag_field("reply")


def read(reader: Reader, message: dict[str, Any]) -> object:
    return reader(payload_of(message), message)


@pytest.mark.parametrize("message", [{}, {"data": None}])
def test_a_message_without_data_is_its_own_payload(message: dict[str, Any]) -> None:
    assert payload_of(message) is message
    assert places_of(message, message) == (("", message),)
    assert read(data_field, message) == {}


def test_data_is_looked_into_first() -> None:
    message = {"data": {"id": "a"}, "id": "b"}
    payload = payload_of(message)
    assert payload == {"id": "a"} == read(data_field, message)
    assert places_of(payload, message) == (("data.", payload), ("", message))


@pytest.mark.parametrize(
    ("reader", "message", "value"),
    [
        (TEXT, {"data": {"id": "a"}, "id": "b"}, "a"),
        (TEXT, {"data": {"id": "", "response_id": "a"}}, "a"),
        (TEXT, {"data": {"id": None}, "response_id": "b"}, "b"),
        (TEXT, {"data": {"id": ""}}, ""),
        (TEXT, {"data": {}}, "none"),
        (TEXT, {"data": {}, "raw_data": {"id": "c"}}, "none"),
        (UPSTREAM, {"data": {}, "raw_data": {"id": "c"}}, "c"),
        (UPSTREAM, {"data": {}, "raw_data": "c"}, None),
        (OBJECT, {"data": {"item": {"a": 1}}, "thing": {"b": 2}}, {"b": 2}),
        (OBJECT, {"data": {"item": {"a": 1}}}, {"a": 1}),
        (OBJECT, {"data": {}}, None),
        (JSON, {"data": {"output": "as it is"}}, "as it is"),
        (JSON, {"data": {"output": {"a": [1]}}}, '{"a":[1]}'),
        (JSON, {"result": [1, 2]}, "[1,2]"),
        (JSON, {}, None),
        (FLAG, {"data": {"reply": 1}}, True),
        (FLAG, {"reply": False}, False),
        (FLAG, {"reply": None}, None),
        (error_text, {"message": "top", "data": {"message": "inner"}}, "top"),
        (error_text, {"message": "", "error": "bare"}, "bare"),
        (error_text, {"data": {"error": {"message": "deep"}}}, "deep"),
        (error_text, {}, ""),
        (error_code, {"code": "", "data": {"code": 429}}, "429"),
        (error_code, {"error": {"code": "c"}}, "c"),
        (error_code, {"error": "bare"}, None),
    ],
)
def test_a_field(reader: Reader, message: dict[str, Any], value: object) -> None:
    found = read(reader, message)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("reader", "message", "field", "reason"),
    [
        (TEXT, {"data": []}, "data", "is not an object"),
        (TEXT, {"data": {"response_id": 5}}, "data.response_id", "is not a string"),
        (UPSTREAM, {"data": {}, "raw_data": {"id": 5}}, "raw_data.id", "is not a string"),
        (OBJECT, {"thing": "x"}, "thing", "is not an object"),
        (JSON, {"data": {"output": 5}}, "data.output", "is not a string or an object"),
        (FLAG, {"data": {"reply": 2}}, "data.reply", "is not 0 or 1"),
        (error_text, {"error": 5}, "error", "is not an object"),
        (error_text, {"data": {"message": 5}}, "data.message", "is not a string"),
        (error_code, {"error": {"code": []}}, "error.code", "is not a string"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_by_its_path(
    reader: Reader, message: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        read(reader, message)
    assert (caught.value.field, caught.value.reason) == (field, reason)
