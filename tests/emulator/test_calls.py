"""Which tool a text calls, and with what: the rule of the echo brain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio.emulator.calls import (
    MAX_TOOLS,
    Tool,
    arguments_for,
    read_tools,
    tool_named,
)

TOOLS = tuple(
    Tool(name=name)
    for name in ("get_weather", "get_weather_forecast", "closeTalk", "book-table", "set_it", "mail")
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("get_weather", "get_weather"),
        ("Please GET WEATHER now", "get_weather"),
        ("getWeather!", "get_weather"),
        ("get weather forecast", "get_weather_forecast"),
        ("What is the weather?", "get_weather"),
        ("a weather forecast please", "get_weather_forecast"),
        ("Will you close it?", "closeTalk"),
        ("close talk", "closeTalk"),
        ("a table for two", "book-table"),
        ("set it", "set_it"),
        ("You've got mail", "mail"),
        ("get it", None),
        ("set the alarm", None),
        ("whether or not", None),
        ("", None),
        ("Hello!", None),
    ],
)
def test_a_text_names_a_tool_by_its_name_or_a_word_of_it(text: str, name: str | None) -> None:
    found = tool_named(text, TOOLS)
    assert (found and found.name) == name


def test_the_words_that_every_function_has_name_none() -> None:
    tools = (Tool(name="function_call_close_talk"),)
    assert tool_named("call me a taxi, that is your function", tools) is None
    assert tool_named("close this", tools) is tools[0]
    assert tool_named("anything", ()) is None
    assert tool_named("___", (Tool(name="___"),)) is None


def test_what_clients_announce() -> None:
    announced: list[dict[str, Any]] = [
        {"type": "function", "name": "a", "description": "A.", "parameters": {"type": "object"}},
        {"name": "b", "parameters": {"type": "object", "properties": []}},
        {"name": "c", "parameters": "none", "description": 3},
        {"name": ""},
        {"name": 4},
        {},
    ]
    tools = read_tools(announced)
    assert tools == (
        Tool(name="a", description="A.", parameters={"type": "object"}),
        Tool(name="b", parameters={"type": "object", "properties": []}),
        Tool(name="c"),
    )
    # The JS SDK's `properties: []` (5.8).
    assert [arguments_for(tool, "text") for tool in tools] == [{}, {}, {}]
    many = read_tools({"name": f"t{n}"} for n in range(MAX_TOOLS + 1))
    assert [len(many), many[-1].name] == [MAX_TOOLS, f"t{MAX_TOOLS - 1}"]


def filled(properties: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), **more}
    return dict(arguments_for(Tool(name="f", parameters=schema), text))


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (STRING, 'The weather in "Paris"?', "Paris"),
        (STRING, "What's the weather in 'New York'?", "New York"),
        (STRING, "in “Köln”", "Köln"),
        (STRING, "no quotes, don't you see", "no quotes, don't you see"),
        (NUMBER, "about -2.5 degrees", -2.5),
        (NUMBER, "for 3", 3),
        (NUMBER, "none in v2", 0),
        (NUMBER | {"minimum": 1.5}, "none", 1.5),
        (INTEGER, "2.5 or 4", 4),
        (INTEGER, 'room "12", floor 3', 3),
        ({"type": "boolean"}, "no", True),
        ({"type": "null"}, "1", None),
        ({"enum": ["celsius", "fahrenheit"]}, "in Fahrenheit please", "fahrenheit"),
        ({"enum": ["celsius", "fahrenheit"]}, "either", "celsius"),
        ({"enum": [1, 2]}, "number 2", 2),
        ({"enum": [True, 1]}, "number 1", 1),
        ({"enum": []}, "x", "x"),
        ({"const": "c"}, "x", "c"),
        ({"type": "string", "default": "d"}, "x", "d"),
        ({"type": "string", "default": "d"}, '"q"', "q"),
        ({"type": "array", "items": STRING}, '"one"', ["one"]),
        ({"type": "array", "items": INTEGER}, "none", [0]),
        ({"type": "array"}, "x", []),
        ({"type": ["null", "integer"]}, "5", 5),
        ({"type": ["null"]}, "5", None),
        ({"anyOf": [{"type": "null"}, INTEGER]}, "7", 7),
        ({"oneOf": [{"type": "null"}]}, "7", "7"),
        ({"$ref": "#/$defs/Size"}, "large", "large"),
        ({"$ref": "#/$defs/Nowhere"}, "x", "x"),
        ({"$ref": "#/$defs/Loop"}, "x", "x"),
        ({}, "x", "x"),
        ({"type": "object", "properties": {"n": INTEGER}, "required": ["n"]}, "9", {"n": 9}),
    ],
)
def test_a_required_property_has_a_value_from_the_text(
    schema: dict[str, Any], text: str, value: Any
) -> None:
    defs = {"Size": {"enum": ["small", "large"]}, "Loop": {"$ref": "#/$defs/Loop"}}
    result = filled({"p": schema}, text, **{"$defs": defs})
    assert result == {"p": value}
    assert type(result["p"]) is type(value)


def test_each_number_and_quoted_piece_is_used_once_and_in_order() -> None:
    properties = {"a": INTEGER, "s": STRING, "b": NUMBER, "t": STRING}
    text = 'from 3 to 4.5, "here" and "there"'
    assert filled(properties, text) == {"a": 3, "s": "here", "b": 4.5, "t": "there"}


def test_what_is_not_required_is_left_out_unless_the_text_has_it() -> None:
    properties = {"city": STRING, "days": INTEGER, "unit": {"enum": ["c", "f"]}, "flag": {}}
    assert filled(properties, "nothing", required=["city"]) == {"city": "nothing"}
    assert filled(properties, '"Rome", 3 days, f', required=[]) == {
        "city": "Rome",
        "days": 3,
        "unit": "f",
    }
    assert filled(properties, "x", required="all of them") == {}


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}, "required": ["next"]}
    result = filled({"n": {"$ref": "#/$defs/N"}}, "x", **{"$defs": {"N": node}})
    depth = 0
    while result:
        (result,) = (one if isinstance(one, dict) else {} for one in result.values())
        depth += 1
    assert 1 < depth < 20


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
)
_keys = st.sampled_from(
    ["type", "properties", "required", "items", "enum", "anyOf", "oneOf", "$ref", "default", "p"]
)
_types = st.sampled_from(["object", "array", "string", "integer", "#/properties/p", "#/p", "p"])
_schemas = st.dictionaries(
    _keys,
    st.recursive(
        _types | _json,
        lambda inner: st.dictionaries(_keys, inner, max_size=4) | st.lists(inner, max_size=3),
        max_leaves=20,
    ),
    max_size=5,
)


@given(schema=_schemas, text=st.text(max_size=40))
def test_any_schema_and_text_give_json(schema: dict[str, Any], text: str) -> None:
    arguments = arguments_for(Tool(name="f", parameters=schema), text)
    assert json.loads(json.dumps(arguments)) == arguments
