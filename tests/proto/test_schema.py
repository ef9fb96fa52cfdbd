"""What the model is told of a function, and which functions are refused."""

# No `from __future__ import annotations` here: strings are tested on purpose, next to real types,
# and so are the old spellings of types.
# ruff: noqa: UP006, UP007, UP035, UP045

import builtins
import dataclasses
import enum
import functools
import sys
from collections.abc import Callable, Mapping
from typing import (
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    Union,
)

import attrs
import pytest

from navtalk_proto.errors import NavTalkError, ToolError
from navtalk_proto.tools.arguments import ArgumentsError
from navtalk_proto.tools.schema import DEFAULT_TIMEOUT, OnInterrupt, Tool, ToolSet, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Place(TypedDict):
    city: Annotated[str, "Its name."]
    country: NotRequired[str]


class Filter(TypedDict, total=False):
    name: "Required[Annotated[str, 'All of it.']]"
    size: "int"


class Strict(Filter):
    limit: "Annotated[NotRequired[int], 'At most.']"


@attrs.frozen
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = attrs.field(factory=list)
    norm: float = attrs.field(init=False, default=0.0)


@dataclasses.dataclass
class Line:
    start: Point
    end: "Optional[Point]" = None
    style: list[str] = dataclasses.field(default_factory=list)
    length: float = dataclasses.field(init=False, default=0.0)


def schema_of(hint: Any) -> Any:
    """What the schema of a parameter with this hint is."""

    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    return tool(function).parameters["properties"]["value"]  # type: ignore[index, call-overload]


def obj(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
POINT = obj(["x"], x=NUMBER, y=NUMBER, tags={"type": "array", "items": STRING})


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, STRING),
        (int, INTEGER),
        (float, NUMBER),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1, None, True], {"enum": ["a", 1, None, True]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Mixed, {"enum": [1, "two"]}),
        (Optional[str], {"anyOf": [STRING, {"type": "null"}]}),
        (str | None, {"anyOf": [STRING, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [INTEGER, STRING]}),
        (
            int | Annotated[str, "by name"],
            {"anyOf": [INTEGER, {**STRING, "description": "by name"}]},
        ),
        (list[int], {"type": "array", "items": INTEGER}),
        (List[int], {"type": "array", "items": INTEGER}),
        (
            dict[str, list[int]],
            {"type": "object", "additionalProperties": {"type": "array", "items": INTEGER}},
        ),
        (tuple[int, ...], {"type": "array", "items": INTEGER}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
        ),
        (Annotated[int, "how many", "and more", 5], {**INTEGER, "description": "how many"}),
        (Annotated[int, 5], INTEGER),
        (Place, obj(["city"], city={**STRING, "description": "Its name."}, country=STRING)),
        (Filter, obj(["name"], name={**STRING, "description": "All of it."}, size=INTEGER)),
        (
            Strict,
            obj(
                ["name"],
                name={**STRING, "description": "All of it."},
                size=INTEGER,
                limit={**INTEGER, "description": "At most."},
            ),
        ),
        (Point, POINT),
        (
            Line,
            obj(
                ["start"],
                start=POINT,
                end={"anyOf": [POINT, {"type": "null"}]},
                style={"type": "array", "items": STRING},
            ),
        ),
    ],
)
def test_a_hint_has_a_schema(hint: Any, schema: Any) -> None:
    assert schema_of(hint) == schema


class Node(TypedDict):
    next: "Optional[Node]"


@attrs.frozen
class Tree:
    branches: "list[Tree]"


@attrs.frozen
class Untyped:
    value = attrs.field()


@attrs.frozen
class Lost:
    value: "NoSuchType"  # type: ignore[name-defined] # noqa: F821


class Empty(enum.Enum):
    pass


class Bytes(enum.Enum):
    RAW = b"raw"


class Plain:
    pass


@pytest.mark.parametrize(
    ("hint", "where", "why"),
    [
        (Any, "value", "Any has no JSON schema"),
        (object, "value", "object has no JSON schema"),
        (bytes, "value", "bytes has no JSON schema"),
        (Plain, "value", "Plain has no JSON schema"),
        (list, "value", "list has no JSON schema"),
        (List, "value", "typing.List has no JSON schema"),
        (Dict, "value", "typing.Dict has no JSON schema"),
        (dict[int, str], "value", "dict[int, str] has no JSON schema"),
        (set[int], "value", "set[int] has no JSON schema"),
        (Callable[[], int], "value", "has no JSON schema"),
        (Literal[b"a"], "value", "has no JSON schema"),
        (Empty, "value", "Empty has no JSON schema"),
        (Bytes, "value", "Bytes has no JSON schema"),
        (list[dict[str, tuple[int, bytes]]], "value[]{}[1]", "bytes has no JSON schema"),
        (tuple[bytes, ...], "value[]", "bytes has no JSON schema"),
        (Node, "value.next", "Node contains itself"),
        (Tree, "value.branches[]", "Tree contains itself"),
        (Untyped, "value.value", "has no type hint"),
        (Lost, "value", "a hint of Lost is no type: name 'NoSuchType' is not defined"),
        ("NoSuchType", "value", "'NoSuchType' is no type: name 'NoSuchType' is not defined"),
        ([int], "value", "has no JSON schema"),
    ],
)
def test_a_hint_without_a_schema_is_refused_by_name(hint: Any, where: str, why: str) -> None:
    with pytest.raises(ToolError) as caught:
        schema_of(hint)
    assert f"schema_of.<locals>.function, parameter {where}: " in str(caught.value)
    assert why in str(caught.value)
    assert isinstance(caught.value, NavTalkError)
    assert isinstance(caught.value, TypeError)


def test_the_same_class_may_come_twice() -> None:
    assert schema_of(tuple[Point, Point])["prefixItems"] == [POINT, POINT]


def weather(
    city: str, days: Annotated[int, "1 to 14."] = 1, *, unit: Literal["C", "F"] = "C"
) -> "Forecast":  # type: ignore[name-defined] # noqa: F821 - what is returned does not matter
    """Forecast the
    weather.

    From the station at the airport.

    Args:
        city: In any
            language.
        days: How far ahead.
        nowhere: No such parameter.
    """


def test_a_function_is_described() -> None:
    made = tool(weather)
    assert made.schema == {
        "type": "function",
        "name": "weather",
        "description": "Forecast the weather.",
        "parameters": obj(
            ["city"],
            city={**STRING, "description": "In any language."},
            days={**INTEGER, "description": "1 to 14."},
            unit={"type": "string", "enum": ["C", "F"]},
        ),
    }
    assert (made.timeout, made.on_interrupt) == (DEFAULT_TIMEOUT, OnInterrupt.FINISH)
    assert made.function is weather
    assert not made.asynchronous
    assert "function=" not in repr(made)


def numpy_style(city: str) -> None:
    """Do it.

    Parameters
    ----------
    city : str
        In any language.
    """


def sphinx_style(city: str) -> None:
    """Do it.

    :param city: In any language.
    :param days:
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style])
def test_parameters_are_described_in_other_styles(function: Any) -> None:
    made = tool(function)
    assert made.description == "Do it."
    assert made.parameters == obj(["city"], city={**STRING, "description": "In any language."})


def test_without_docstring_parser_the_first_paragraph_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "docstring_parser", None)
    made = tool(weather)
    assert made.description == "Forecast the weather."
    assert made.parameters["properties"]["city"] == STRING  # type: ignore[index, call-overload]


def test_a_function_without_parameters_and_documentation() -> None:
    def now() -> str:
        return "noon"

    made = tool(now)
    assert made.description == ""
    assert made.parameters == obj([])
    assert made.read("{}") == {}


def test_settings_replace_what_the_function_says() -> None:
    @tool(name="forecast", description="Says.", timeout=5, on_interrupt=OnInterrupt.CANCEL)
    async def weather(city: str) -> None:
        """Else."""

    assert isinstance(weather, Tool)
    assert (weather.name, weather.description) == ("forecast", "Says.")
    assert (weather.timeout, weather.on_interrupt) == (5, OnInterrupt.CANCEL)
    assert weather.asynchronous


def test_a_plain_decorator() -> None:
    @tool
    def clock(zone: str) -> str:
        return zone

    assert isinstance(clock, Tool)
    assert clock.name == "clock"
    assert clock.function(**clock.read('{"zone": "UTC"}')) == "UTC"


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
def test_a_timeout_is_positive_and_finite(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        tool(weather, timeout=timeout)


class Shop:
    def price(self, item: str) -> int:
        """What it costs."""
        return len(item)

    def __call__(self, item: str) -> int:
        return len(item)


def test_a_method_is_a_tool_of_its_object() -> None:
    made = tool(Shop().price)
    assert (made.name, made.description) == ("price", "What it costs.")
    assert made.parameters == obj(["item"], item=STRING)
    assert made.function(**made.read('{"item": "tea"}')) == 3


def test_a_decorated_function_has_the_hints_of_the_one_inside() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    assert tool(logged(weather)).schema == tool(weather).schema


def positional(city: str, /) -> None: ...
def several(*cities: str) -> None: ...
def anything(**options: str) -> None: ...
def untyped(city) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (positional, r"positional, parameter city: a model cannot give a positional-only one"),
        (several, r"several, parameter cities: a model cannot give a variadic positional one"),
        (anything, r"anything, parameter options: a model cannot give a variadic keyword one"),
        (untyped, r"untyped, parameter city: has no type hint"),
        (lambda: None, r"'<lambda>' is no name for a tool"),
        (Shop(), r"Shop is no function; wrap it in one"),
        (functools.partial(weather, "Oslo"), r"partial is no function; wrap it in one"),
        (builtins.len, r"len is no function"),
        (Shop, r"Shop is no function"),
    ],
)
def test_a_function_that_a_model_cannot_call_is_refused(function: Any, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        tool(function)


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "ä"])
def test_a_name_that_a_model_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(ToolError, match="is no name for a tool"):
        tool(weather, name=name)


# ---- the tools of a session


def test_a_set_of_tools_keeps_their_order() -> None:
    plain: Mapping[str, Any] = {"type": "function", "name": "hang_up"}
    made = tool(weather, name="forecast")
    tools = ToolSet.of([plain, numpy_style, made])
    assert tools.announced == (plain, tool(numpy_style).schema, made.schema)
    assert list(tools.functions) == ["numpy_style", "forecast"]
    assert tools.functions["forecast"] is made


def test_no_tools() -> None:
    assert ToolSet.of(()) == ToolSet({}, ())


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([weather, {"name": "weather"}], "two tools are called weather"),
        ([{"name": "a"}, {"name": "a"}], "two tools are called a"),
        ([{"type": "function"}], r"has no name: \['type'\]"),
        ([{"name": 5}], "has no name"),
        ([untyped], "has no type hint"),
        ([5], "int is no function"),
    ],
)
def test_a_set_that_is_no_set_is_refused(tools: Any, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        ToolSet.of(tools)


def test_what_is_announced_is_what_is_read() -> None:
    made = tool(weather)
    assert made.read('{"city": "Oslo", "unit": "F"}') == {"city": "Oslo", "unit": "F"}
    with pytest.raises(ArgumentsError, match="city: is missing"):
        made.read("{}")
