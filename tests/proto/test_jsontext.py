"""One JSON and one base64, whichever parser is installed (docs/architecture.md)."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from enum import StrEnum
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.wire import jsontext

SPEED = importlib.util.find_spec("orjson") and importlib.util.find_spec("pybase64")
needs_speed = pytest.mark.skipif(not SPEED, reason="orjson and pybase64 are not installed")

LOADS = [
    pytest.param(jsontext._loads_reference, id="json"),
    pytest.param(jsontext._loads_orjson, id="orjson", marks=needs_speed),
]
DUMPS = [
    pytest.param(jsontext._dumps_reference, id="json"),
    pytest.param(jsontext._dumps_orjson, id="orjson", marks=needs_speed),
]
DECODE64 = [
    pytest.param(jsontext._decode_base64_reference, id="binascii"),
    pytest.param(jsontext._decode_base64_fast, id="pybase64", marks=needs_speed),
]
ENCODE64 = [
    pytest.param(jsontext._encode_base64_reference, id="binascii"),
    pytest.param(jsontext._encode_base64_fast, id="pybase64", marks=needs_speed),
]


def outcome(function: Callable[[Any], Any], value: Any) -> tuple[str, str]:
    """What a call came to; repr keeps 1, 1.0, True, -0.0 and the order of keys apart."""
    try:
        return "value", repr(function(value))
    except MalformedMessageError as error:
        return "malformed", str(error)
    except LocalProtocolError as error:
        return "local", str(error)


# ---- loads


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":[1,2.5,true,false,null,"x"]}', {"a": [1, 2.5, True, False, None, "x"]}),
        (b'{"a":"\xc3\xa9"}', {"a": "é"}),
        (" \t\r\n[] \t\r\n", []),
        ("{}", {}),
        ('"x"', "x"),
        ("null", None),
        ("7", 7),
        ("-0", 0),
        ("1.0", 1.0),
        ("-0.0", -0.0),
        ("0e999", 0.0),
        ("[1e-999]", [0.0]),
        ("[0.1000000000000000055511151231257827]", [0.1]),
        ("[9007199254740992]", [9007199254740992]),
        ("[-9007199254740992]", [-9007199254740992]),
        ("[1e20, -1E+20]", [1e20, -1e20]),
        ("[123456789012345678901234567890.5]", [123456789012345678901234567890.5]),
        ('{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        ('{"\\u0000":"\x7f"}', {"\x00": "\x7f"}),
        ('"\\u00e9\\/\\b\\f\\n\\r\\t\\"\\\\"', 'é/\b\f\n\r\t"\\'),
        ("[" + ",".join(["[]"] * 200) + "]", [[] for _ in range(200)]),
        ('{"sdp":"' + "[{" * 500 + '\\"[[' + '"}', {"sdp": "[{" * 500 + '"[['}),
    ],
)
def test_loads_takes(
    loads: Callable[[str | bytes], Any], text: str | bytes, expected: object
) -> None:
    assert repr(loads(text)) == repr(expected)


@pytest.mark.parametrize("loads", LOADS)
def test_loads_takes_64_levels(loads: Callable[[str | bytes], Any]) -> None:
    assert loads("[" * 64 + "1" + "]" * 64) == nested(64)
    assert repr(loads('{"a":' * 64 + "1" + "}" * 64)) == "{'a': " * 64 + "1" + "}" * 64


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON (at character 0)"),
        # Python 3.13's parser blames the comma, earlier ones what follows it.
        ("[1,]", f"is not JSON (at character {2 if sys.version_info >= (3, 13) else 3})"),
        ("[1]x", "is not JSON (at character 3)"),
        ("[1]\x0c", "is not JSON (at character 3)"),
        ("\xa0[1]", "is not JSON (at character 0)"),
        ("\ufeff[1]", "is not JSON (at character 0)"),
        (b"\xef\xbb\xbf[1]", "is not JSON (at character 0)"),
        ('"a\nb"', "is not JSON (at character 2)"),
        ('"a\x00b"', "is not JSON (at character 2)"),
        ('"\\x"', "is not JSON (at character 1)"),
        ("'a'", "is not JSON (at character 0)"),
        ("01", "is not JSON (at character 1)"),
        ("[1.]", "is not JSON (at character 2)"),
        ("[.5]", "is not JSON (at character 1)"),
        ("[+1]", "is not JSON (at character 1)"),
        ("[" * 64, "is not JSON (at character 64)"),
        ('["' + "[" * 1000, "is not JSON (at character 1)"),
        ("NaN", "holds a number that is not finite"),
        ("[Infinity]", "holds a number that is not finite"),
        ("[-Infinity]", "holds a number that is not finite"),
        ("[1e999]", "holds a number that is not finite"),
        ("[-1E400]", "holds a number that is not finite"),
        ("9007199254740993", "holds an integer beyond 2**53"),
        ("[-9007199254740993]", "holds an integer beyond 2**53"),
        ("[18446744073709551616]", "holds an integer beyond 2**53"),
        ("[-9223372036854775809]", "holds an integer beyond 2**53"),
        ("[" + "1" * 10_000 + "]", "holds an integer beyond 2**53"),
        ('"\\ud800"', "holds a lone surrogate"),
        ('"\\ude00\\ud83d"', "holds a lone surrogate"),
        ('{"\\uDFFF":1}', "holds a lone surrogate"),
        ('"\\ud83d\\u0041"', "holds a lone surrogate"),
        ('"\ud800"', "holds a lone surrogate"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
        (b'"\xff"', "is not UTF-8"),
        (b'"\xc0\x80"', "is not UTF-8"),
        ("[" * 65 + "]" * 65, "is nested deeper than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "is nested deeper than 64 levels"),
        ('[{"a":' * 33 + "1" + "}]" * 33, "is nested deeper than 64 levels"),
        ("[" * 1000 + "]" * 1000, "is nested deeper than 64 levels"),
        ("[" * 100_000, "is nested deeper than 64 levels"),
        ('{"":' * 100_000, "is nested deeper than 64 levels"),
    ],
)
def test_loads_refuses(loads: Callable[[str | bytes], Any], text: str | bytes, reason: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        loads(text)
    assert caught.value.reason == reason
    assert caught.value.__context__ is None, "a parser's exception holds the text"


@pytest.mark.parametrize("loads", LOADS)
def test_many_quotes_do_not_cost_quadratic_time(loads: Callable[[str | bytes], Any]) -> None:
    # A megabyte of escaped quotes in a string that never ends: hours if each restarts the scan.
    with pytest.raises(MalformedMessageError, match="is not JSON"):
        loads("[]" * 70 + '"' + '\\"' * 500_000)


# ---- how many values


def separators(text: str) -> int:
    """Commas and opening brackets outside strings, counted a character at a time."""
    count, inside, escaped = 0, False, False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        else:
            inside = character == '"'
            count += character in ",[{"
    return count


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1,2,3]", 3),
        ('{"a":1,"b":[]}', 3),
        ('{"a,[{":"[[[{{{,,,"}', 1),
        ('["\\\\",[",[]]', 3),
        ("[],[]", 3),
        ("[" * 70 + "]" * 70, 70),
        ('"' + "," * 10_000 + '"', 0),
        ('[é,"é,"', 2),
    ],
)
def test_values_are_counted_outside_strings(
    loads: Callable[..., Any], text: str, as_bytes: bool, values: int
) -> None:
    given = text.encode() if as_bytes else text
    assert separators(text) == values
    assert outcome(lambda it: loads(it, values), given) == outcome(loads, given)
    if values:
        reason = f"holds more than {values - 1} values"
        assert outcome(lambda it: loads(it, values - 1), given) == ("malformed", reason)


@pytest.mark.parametrize("loads", LOADS)
def test_a_text_has_at_most_100_000_values(loads: Callable[..., Any]) -> None:
    # One bracket, and a comma less than there are members.
    assert len(loads("[" + ",".join("0" * 100_000) + "]")) == 100_000
    with pytest.raises(MalformedMessageError, match="holds more than 100000 values"):
        loads("[" + ",".join("0" * 100_001) + "]")


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize(
    "text", ["[" * 200, '[,,,,"\\ud800"', "\ud800[,,,,", b"\xff[,,,,", "[1e999,,,,"]
)
def test_the_number_of_values_is_judged_before_everything_else(
    loads: Callable[..., Any], text: str | bytes
) -> None:
    """Otherwise the parsers, which look at different things first, would differ."""
    assert outcome(lambda it: loads(it, 4), text) == ("malformed", "holds more than 4 values")


@given(text=st.text('[]{},":\\aé\ud800', max_size=40), values=st.integers(0, 6))
def test_any_text_is_counted_alike(text: str, values: int) -> None:
    more = separators(text) > values
    assert jsontext._has_many_values(text, values) == more
    assert jsontext._has_many_values(text.encode("utf-8", "surrogatepass"), values) == more


JSON_TEXT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2**53, -(2**53), 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e16, 5e-324]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
).map(json.dumps)
PIECES = st.lists(
    st.sampled_from(
        [
            *'[]{}",:\\ \t\n\x0b\x00/',
            "\ud800",
            "\\ud83d",
            "\\ude00",
            "\\u0000",
            '"a":',
            "1",
            "-",
            "0",
            ".",
            "e",
            "E9",
            "e999",
            "true",
            "null",
            "NaN",
            "9" * 17,
            "é",
            "😀",
            "\ufeff",
        ]
    ),
    max_size=12,
).map("".join)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(JSON_TEXT)
    at = draw(st.integers(0, len(text)))
    cut = draw(st.integers(0, 3))
    return text[:at] + draw(PIECES) + text[at + cut :]


@needs_speed
@given(text=JSON_TEXT | mutated() | PIECES | st.text())
@example(text="[1e16,1.0,-0,-0.0]")
@example(text="[2.2250738585072011e-308,1.7976931348623159e308]")
@example(text='{"a":1,"a":{"b":2},"a":[3]}')
def test_both_parsers_have_one_verdict(text: str) -> None:
    assert outcome(jsontext._loads_orjson, text) == outcome(jsontext._loads_reference, text)
    data = text.encode("utf-8", "surrogatepass")
    assert outcome(jsontext._loads_orjson, data) == outcome(jsontext._loads_reference, data)


@needs_speed
@given(data=st.binary())
def test_both_parsers_have_one_verdict_on_bytes(data: bytes) -> None:
    assert outcome(jsontext._loads_orjson, data) == outcome(jsontext._loads_reference, data)


@needs_speed
@given(depth=st.integers(1, 1100), kind=st.sampled_from(["[]", "{}"]), siblings=st.integers(0, 70))
def test_both_parsers_count_the_same_depth(depth: int, kind: str, siblings: int) -> None:
    start = "[" if kind == "[]" else '{"a":'
    text = "[" + "[]," * siblings + start * (depth - 1) + "0" + kind[1] * (depth - 1) + "]"
    expected = "value" if depth <= 64 else "malformed"
    assert outcome(jsontext._loads_orjson, text)[0] == expected
    assert outcome(jsontext._loads_orjson, text) == outcome(jsontext._loads_reference, text)


# ---- dumps


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, False, None]}, '{"b":1,"a":[true,false,null]}'),
        ({"a": (1, ("x",))}, '{"a":[1,["x"]]}'),
        (MappingProxyType({"a": MappingProxyType({})}), '{"a":{}}'),
        (range(3), "[0,1,2]"),
        ("é😀\x7f\u2028", '"é😀\x7f\u2028"'),
        ('"\\\b\f\n\r\t\x00\x1f/', '"\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f/"'),
        ([2**53, -(2**53)], "[9007199254740992,-9007199254740992]"),
        ([1.0, 1e16, 1e-7, -0.0, 5e-324], "[1.0,1e+16,1e-07,-0.0,5e-324]"),
    ],
)
def test_dumps_writes(dumps: Callable[[Any], str], value: object, text: str) -> None:
    assert dumps(value) == text


@pytest.mark.parametrize("dumps", DUMPS)
def test_dumps_writes_64_levels(dumps: Callable[[Any], str]) -> None:
    assert dumps(nested(64)) == "[" * 64 + "1" + "]" * 64


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": float("nan")}, "not finite"),
        ([float("inf")], "not finite"),
        ([float("-inf")], "not finite"),
        ([2**53 + 1], r"beyond 2\*\*53"),
        ([-(2**64)], r"beyond 2\*\*53"),
        ({1: 2}, "key is not a string"),
        ({"a": {None: 2}}, "key is not a string"),
        (["\ud800"], "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        ([b"x"], "a bytes is not JSON"),
        ([bytearray(b"x")], "a bytearray is not JSON"),
        ({"a": {1, 2}}, "a set is not JSON"),
        ([Colour.RED], "a Colour is not JSON"),
        (nested(65), "nested deeper than 64 levels"),
    ],
)
def test_dumps_refuses(dumps: Callable[[Any], str], value: object, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        dumps(value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@needs_speed
@given(value=JSON_VALUES)
def test_both_writers_write_the_same(value: object) -> None:
    assert outcome(jsontext._dumps_orjson, value) == outcome(jsontext._dumps_reference, value)


@given(value=JSON_VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    kind, text = outcome(jsontext.dumps, value)
    if kind == "value":
        assert repr(jsontext.loads(jsontext.dumps(value))) == repr(value)
    else:
        assert kind == "local", text


# ---- base64


@pytest.mark.parametrize("decode", DECODE64)
@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("QQ==", b"A"),
        ("QUI=", b"AB"),
        ("QUJD", b"ABC"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("QR==", b"A"),
    ],
)
def test_base64_is_read(decode: Callable[[str], bytes], text: str, data: bytes) -> None:
    assert decode(text) == data


@pytest.mark.parametrize("decode", DECODE64)
@pytest.mark.parametrize(
    "text",
    [
        "Q",
        "QQ",
        "QQ=",
        "QUJ",
        "=",
        "====",
        "Q===",
        "AAAA=",
        "AAAA==",
        "AAAA====",
        "QQ==QQ==",
        "QUI=QUI=",
        "QU-_",
        "QU I",
        "QUI=\n",
        "QUJ\n",
        "éééé",
        "\ud800AAA",
        "A\x00AA",
        "QQ=A",
    ],
)
def test_other_base64_is_refused(decode: Callable[[str], bytes], text: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(text)
    assert caught.value.reason == "is not standard base64 with padding"


@needs_speed
@given(text=st.text("AQUg9+/=-_ \né", max_size=16) | st.text(max_size=8))
def test_both_base64_decoders_have_one_verdict(text: str) -> None:
    assert outcome(jsontext._decode_base64_fast, text) == outcome(
        jsontext._decode_base64_reference, text
    )


@pytest.mark.parametrize("encode", ENCODE64)
def test_base64_is_written(encode: Callable[[bytes], str]) -> None:
    assert encode(b"") == ""
    assert encode(b"\xfb\xff\xbf\x00") == "+/+/AA=="


@given(data=st.binary())
def test_base64_round_trip(data: bytes) -> None:
    assert jsontext.decode_base64(jsontext.encode_base64(data)) == data


# ---- which one is used


def fresh_module(monkeypatch: pytest.MonkeyPatch, *missing: str) -> ModuleType:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("jsontext_once_more", jsontext.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_speed_extra_the_standard_library_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = fresh_module(monkeypatch, "orjson", "pybase64")
    assert module.loads is module._loads_reference
    assert module.dumps is module._dumps_reference
    assert module.decode_base64 is module._decode_base64_reference
    assert module.encode_base64 is module._encode_base64_reference
    assert module.loads('{"a":[1]}') == {"a": [1]}
    assert module.decode_base64(module.encode_base64(b"abc")) == b"abc"


@needs_speed
def test_with_the_speed_extra_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fresh_module(monkeypatch)
    assert module.loads is module._loads_orjson
    assert module.dumps is module._dumps_orjson
    assert module.decode_base64 is module._decode_base64_fast
    assert module.encode_base64 is module._encode_base64_fast
