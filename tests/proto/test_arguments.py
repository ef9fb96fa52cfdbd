"""The model's JSON becomes arguments or a refusal that names the field; results become JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.tools.arguments import (
    MAX_MESSAGE,
    MAX_RESULT,
    ArgumentsError,
    ErrorCode,
    error_text,
    make_typeddict,
    reader,
    result_text,
    typeddict_members,
)


class Colour(Enum):
    RED = "red"
    ONE = 1


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Unit(StrEnum):
    C = "c"


class Mood(str, Enum):  # noqa: UP042 - as programs have it that are older than StrEnum
    GLAD = "glad"


class Place(TypedDict, total=False):
    city: Required[str]
    size: int


class Trip(Place):
    days: Annotated[NotRequired[int], "how many"]
    via: Annotated[str, "where"]


@attrs.frozen
class Point:
    x: float
    y: float = attrs.field(default=0.0, validator=attrs.validators.lt(100.0))


@dataclass
class Line:
    start: Point
    end: Point | None = None


def read(hint: Any, value: Any) -> Any:
    """What a parameter `a` of this type becomes."""
    text = json.dumps({"a": value})
    return reader(make_typeddict("Arguments", {"a": Required[hint]}))(text)["a"]


@pytest.mark.parametrize(
    ("hint", "value", "becomes"),
    [
        (str, "5", "5"),
        (int, 5, 5),
        (float, 5, 5.0),
        (float, 0.5, 0.5),
        (bool, True, True),
        (type(None), None, None),
        (Literal[1, "a", None], 1, 1),
        (Literal[1, "a", None], None, None),
        (Colour, "red", Colour.RED),
        (Colour, 1, Colour.ONE),
        (Level, 2, Level.HIGH),
        (Unit, "c", Unit.C),
        (Mood, "glad", Mood.GLAD),
        (Level | None, 1, Level.LOW),
        (Level | str, "c", "c"),
        (dict[str, Level], {"a": 1}, {"a": Level.LOW}),
        (Annotated[list[Annotated[Unit, "which"]], "all"], ["c"], [Unit.C]),
        (tuple[Level, Unit], [1, "c"], (Level.LOW, Unit.C)),
        (int | None, None, None),
        (int | str, "5", "5"),
        (int | str, 5, 5),
        (float | int, 5, 5),
        (int | float, 0.5, 0.5),
        (str | Annotated[float, "number"], 5, 5.0),
        (int | list[int] | None, None, None),
        (int | list[int] | None, [1], [1]),
        (Point | Line, {"start": {"x": 1}}, Line(Point(1.0))),
        (list[int], [1, 2], [1, 2]),
        (list[Annotated[int, "one"]], [1], [1]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[Point, ...], [], ()),
        (Place, {"city": "Oslo"}, {"city": "Oslo"}),
        (
            Trip,
            {"city": "Oslo", "via": "Bergen", "days": 2},
            {"city": "Oslo", "via": "Bergen", "days": 2},
        ),
        (Point, {"x": 1}, Point(1.0)),
        (Line, {"start": {"x": 1}, "end": {"x": 2, "y": 3}}, Line(Point(1.0), Point(2.0, 3.0))),
    ],
)
def test_a_value_of_its_type_is_taken(hint: Any, value: Any, becomes: Any) -> None:
    got = read(hint, value)
    # Also what they show: inside a container an IntEnum's member equals its number.
    assert (type(got), got, repr(got)) == (type(becomes), becomes, repr(becomes))


@pytest.mark.parametrize(
    ("hint", "value", "why"),
    [
        (str, 5, "a: must be a string"),
        (int, "5", "a: must be an integer"),
        (int, True, "a: must be an integer"),
        (int, 5.0, "a: must be an integer"),
        (int, None, "a: must be an integer"),
        (float, "5", "a: must be a number"),
        (float, True, "a: must be a number"),
        (bool, 1, "a: must be true or false"),
        (type(None), 0, "a: must be null"),
        (Literal[1, "a"], True, 'a: must be one of 1, "a"'),
        (Literal[1, "a"], 1.0, 'a: must be one of 1, "a"'),
        (Colour, "blue", 'a: must be one of "red", 1'),
        (Colour, True, 'a: must be one of "red", 1'),
        (Level, 3, "a: must be one of 1, 2"),
        (Level, True, "a: must be one of 1, 2"),
        (Unit, "f", 'a: must be one of "c"'),
        (list[Mood], ["glad", "sad"], 'a[1]: must be one of "glad"'),
        (int | None, "5", "a: must be an integer"),
        (int | str, 0.5, "a: fits no member of the union"),
        (int | str | None, True, "a: fits no member of the union"),
        (Point | Line, {"end": None}, "a: fits no member of the union"),
        (list[str], "abc", "a: must be an array"),
        (list[int], {"0": 1}, "a: must be an array"),
        (list[int], [1, "2", 3, None], "a[1]: must be an integer; a[3]: must be an integer"),
        (dict[str, int], [["k", 1]], "a: must be an object"),
        (dict[str, int], {"k": "1"}, "a['k']: must be an integer"),
        (tuple[int, str], [1], "a: must have 2 items"),
        (tuple[int, str], [1, "a", 2], "a: must have 2 items"),
        (tuple[int, str], "ab", "a: must be an array"),
        (tuple[int, Point], ["1", {"y": 1}], "a[0]: must be an integer; a[1].x: is missing"),
        (tuple[int, ...], [1, "2"], "a[1]: must be an integer"),
        (Place, {"size": 1}, "a.city: is missing"),
        (Place, {"city": "Oslo", "zip": "0150"}, "a: has unknown keys: zip"),
        (Place, ["city"], "a: must be an object"),
        (Trip, {"city": "Oslo"}, "a.via: is missing"),
        (Point, "x", "a: must be an object"),
        (Point, {"x": 1, "z": 1, "w": 1}, "a: has unknown keys: w, z"),
        (Line, {"start": {"x": 1}, "end": {"x": "far"}}, "a.end.x: must be a number"),
        (list[Point], [{"x": 1}, {"x": None}], "a[1].x: must be a number"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(hint: Any, value: Any, why: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        read(hint, value)
    assert str(caught.value) == why


def test_what_a_validator_says_is_not_repeated() -> None:
    with pytest.raises(ArgumentsError) as caught:
        read(Point, {"x": 1, "y": 31337.0})
    assert str(caught.value) == "a: is refused (ValueError)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the text is not JSON (at character 0)"),
        ('{"a": ', "the text is not JSON (at character 6)"),
        ('{"a": NaN}', "the text holds a number that is not finite"),
        ("[]", "the whole: must be an object"),
        ('"a"', "the whole: must be an object"),
        ("{}", "a: is missing"),
        ('{"a": 1, "b": 2}', "the whole: has unknown keys: b"),
    ],
)
def test_arguments_that_are_no_object_of_that_shape_are_refused(text: str, why: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        reader(make_typeddict("Arguments", {"a": Required[int]}))(text)
    assert str(caught.value) == why


def test_a_key_that_is_not_required_may_be_missing() -> None:
    read = reader(make_typeddict("Arguments", {"a": NotRequired[Annotated[int, "n"]]}))
    assert read("{}") == {}
    assert read('{"a": 1}') == {"a": 1}
    with pytest.raises(ArgumentsError, match="a: must be an integer"):
        read('{"a": "1"}')


def test_required_keys_are_found_behind_string_annotations() -> None:
    assert typeddict_members(Trip) == [
        ("city", str, True),
        ("size", int, False),
        ("days", int, False),
        ("via", str, True),
    ]


# ---- answers


def test_a_string_is_the_result_as_it_is() -> None:
    assert result_text('noon, "they" say') == 'noon, "they" say'


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (0.5, "0.5"),
        ([1, (2, "ä")], '[1,[2,"ä"]]'),
        ({"a": Colour.RED}, '{"a":"red"}'),
        (Line(Point(1.0)), '{"start":{"x":1.0,"y":0.0},"end":null}'),
        ({"lines": [Point(1.0)]}, '{"lines":[{"x":1.0,"y":0.0}]}'),
    ],
)
def test_a_result_becomes_json(result: object, text: str) -> None:
    assert result_text(result) == text


class Broken(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("sk_navtalk_EXAMPLE")


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (datetime(2026, 1, 1), "a datetime is not JSON"),
        ({1: 2}, "an object's key is not a string"),
        (float("nan"), "a number that is not finite is not JSON"),
        (2**60, "an integer beyond 2"),
        (b"raw", "a bytes is not JSON"),
        ("\ud800", "a string holds a lone surrogate"),
        (["\ud800"], "a string holds a lone surrogate"),
        (looped(), "a list is not JSON: RecursionError"),
        (Broken(), "a Broken is not JSON: RuntimeError"),
        ("x" * (MAX_RESULT + 1), f"a result of {MAX_RESULT + 1} characters; {MAX_RESULT} are"),
        (["x" * MAX_RESULT], f"a result of {MAX_RESULT + 4} characters"),
    ],
)
def test_what_cannot_be_sent_is_refused(result: object, why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why) as caught:
        result_text(result)
    assert "EXAMPLE" not in str(caught.value)


def test_the_longest_result() -> None:
    assert len(result_text("x" * MAX_RESULT)) == MAX_RESULT


def test_an_error_is_json_that_says_what() -> None:
    assert json.loads(error_text(ErrorCode.TIMEOUT, "no result")) == {
        "error": {"code": "timeout", "message": "no result"}
    }


@given(st.text(st.characters(), max_size=2 * MAX_MESSAGE))
def test_an_error_can_always_be_sent(message: str) -> None:
    told = json.loads(error_text(ErrorCode.FAILED, message))["error"]["message"]
    assert len(told) <= MAX_MESSAGE
    told.encode()


def test_a_long_message_is_cut() -> None:
    told = json.loads(error_text(ErrorCode.FAILED, "x" * (MAX_MESSAGE + 1)))["error"]["message"]
    assert told == "x" * (MAX_MESSAGE - 1) + "…"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
EVERYTHING = make_typeddict(
    "Arguments",
    {
        "a": Required[int | str | None],
        "b": NotRequired[list[Point] | dict[str, float]],
        "c": NotRequired[tuple[Colour, Trip]],
    },
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), JSON) | JSON)
def test_nothing_but_a_refusal_is_raised(value: Any) -> None:
    try:
        read = reader(EVERYTHING)(json.dumps(value, ensure_ascii=False))
    except ArgumentsError:
        return
    assert set(read) <= {"a", "b", "c"}
    assert read["a"] == value["a"]
