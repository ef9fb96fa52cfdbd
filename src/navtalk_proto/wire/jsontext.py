"""The JSON and the base64 that NavTalk texts are made of, the same with every parser.

The rules (docs/architecture.md), whichever parser is installed:

- RFC 8259 JSON; white space is space, tab, LF and CR; no byte order mark; bytes are UTF-8.
- No NaN, no Infinity, no number that overflows to one.
- An integer literal lies within -2**53 to 2**53 (RFC 7493 section 2.2).
- No lone surrogates, neither as characters nor as escapes.
- Objects and arrays nest at most 64 deep.
- A text has a bounded number of commas and opening brackets outside strings, so of values.
- Of equal keys in one object the last one wins.

orjson and pybase64 are used when installed (``navtalk[speed]``). What orjson refuses, and the
few values in which it differs, are decided by the standard library's parser: there is one verdict.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NoReturn, Protocol

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.wire.messages import JsonValue

try:
    import orjson
except ImportError:
    _HAVE_ORJSON = False
else:
    _HAVE_ORJSON = True

try:
    import pybase64
except ImportError:
    _HAVE_PYBASE64 = False
else:
    _HAVE_PYBASE64 = True

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_VALUES",
    "decode_base64",
    "dumps",
    "encode_base64",
    "loads",
    "parse",
    "prove",
]

MAX_DEPTH: Final = 64
"""How many objects and arrays may be open at once. The deepest known message has 5."""

MAX_INTEGER: Final = 2**53
"""The largest magnitude of an integer; beyond it JavaScript peers lose digits."""

MAX_VALUES: Final = 100_000
"""How many commas and opening brackets a text may have, unless its reader says otherwise. A value
costs up to 100 bytes of memory for 2 bytes of text; the largest tool list has some thousands."""

_TOO_DEEP: Final = f"is nested deeper than {MAX_DEPTH} levels"
_LONE_SURROGATE: Final = "holds a lone surrogate"
_NOT_BASE64: Final = "is not standard base64 with padding"

# orjson turns integers beyond 64 bits into floats; every such float is at least this large.
_MAYBE_INTEGER: Final = 2.0**63
_LONGEST_INTEGER: Final = len(str(-MAX_INTEGER))

# Possessive, and the closing quote is optional: one pass, whatever the text.
_STRING_PATTERN: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_STRING: Final = re.compile(_STRING_PATTERN, re.DOTALL)
_TO_NEXT_VALUE: Final = rf'[^"\[{{,]*+(?:{_STRING_PATTERN}[^"\[{{,]*+)*+[\[{{,]'
_TO_NEXT_VALUE_TEXT: Final = re.compile(_TO_NEXT_VALUE, re.DOTALL)
_TO_NEXT_VALUE_BYTES: Final = re.compile(_TO_NEXT_VALUE.encode(), re.DOTALL)
_NO_BRACKET: Final = re.compile(r"[^\[\]{}]+")
_MANY_CLOSED: Final = re.compile(rf"\]{{{MAX_DEPTH + 2},}}")
_AS_SQUARE: Final = str.maketrans("{}", "[]")
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def _integer(text: str) -> int:
    # The length first: Python refuses to convert very long texts with a ValueError of its own.
    if len(text) <= _LONGEST_INTEGER:
        value = int(text)
        if -MAX_INTEGER <= value <= MAX_INTEGER:
            return value
    raise MalformedMessageError("holds an integer beyond 2**53")


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise MalformedMessageError("holds a number that is not finite")
    return value


def _constant(_: str) -> NoReturn:
    raise MalformedMessageError("holds a number that is not finite")


_decode: Final = json.JSONDecoder(
    parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _has_more(text: str | bytes, characters: str, most: int) -> bool:
    """Whether more than `most` of these characters are in the text, inside strings or out."""
    # find() is a memchr; count() would cost more than parsing the text.
    found = 0
    for character in characters:
        wanted: Any = character if isinstance(text, str) else character.encode()
        at = text.find(wanted)
        while at >= 0:
            found += 1
            if found > most:
                return True
            at = text.find(wanted, at + 1)
    return False


def _has_many_values(text: str | bytes, most: int) -> bool:
    """Whether the text has more than `most` commas and opening brackets outside strings.

    Runs before any parser, of which one would make all the values first. One pass, and no more
    steps in it than `most`; texts of up to `most` characters are not looked at.
    """
    if len(text) <= most or not _has_more(text, "{[,", most):
        return False
    at = 0
    for _ in range(most + 1):
        match = (
            _TO_NEXT_VALUE_TEXT.match(text, at)
            if isinstance(text, str)
            else _TO_NEXT_VALUE_BYTES.match(text, at)
        )
        if match is None:
            return False
        at = match.end()
    return True


def _is_too_deep(text: str) -> bool:
    """Whether brackets outside strings fail to pair up within MAX_DEPTH levels.

    Runs before the parser recurses. Each round takes the innermost pairs away, so that the work is
    a few passes over a shrinking text.
    """
    if not _has_more(text, "{[", MAX_DEPTH):
        return False
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text)).translate(_AS_SQUARE)
    # More than these in a row close what is too deep, or nothing; each round would carry them on.
    brackets = _MANY_CLOSED.sub("]" * (MAX_DEPTH + 1), brackets)
    for _ in range(MAX_DEPTH):
        size = len(brackets)
        brackets = brackets.replace("[]", "")
        if len(brackets) == size:
            break
    # What is left over without reaching the depth does not pair: the parser says so better.
    return brackets.count("[") > MAX_DEPTH or "[]" in brackets


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # not raised from here: the exception holds the data
    raise MalformedMessageError("is not UTF-8")


def _loads_reference(text: str | bytes, values: int = MAX_VALUES) -> JsonValue:
    """:func:`loads` with the standard library: the definition."""
    if _has_many_values(text, values):
        raise MalformedMessageError(_too_many(values))
    return _parse_reference(text)


def _too_many(values: int) -> str:
    return f"holds more than {values} values"


def _parse_reference(text: str | bytes) -> JsonValue:
    if isinstance(text, bytes):
        text = _from_utf8(text)
    elif not text.isascii() and not _is_utf8(text):
        raise MalformedMessageError(_LONE_SURROGATE)
    if _is_too_deep(text):
        raise MalformedMessageError(_TOO_DEEP)
    value: JsonValue = None
    wrong_at: int | None = None
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        # Not raised from here: the exception holds the text, and would live on as __context__.
        wrong_at = error.pos
    if wrong_at is not None:
        raise MalformedMessageError(f"is not JSON (at character {wrong_at})")
    if "\\" in text and _SURROGATE_ESCAPE.search(text) is not None and not _is_utf8(_encode(value)):
        raise MalformedMessageError(_LONE_SURROGATE)
    return value


def _loads_orjson(text: str | bytes, values: int = MAX_VALUES) -> JsonValue:
    """:func:`loads` with orjson, and the reference wherever the two could differ."""
    return _prove_orjson(_parse_orjson(text, values), text)


def _parse_orjson(text: str | bytes, values: int = MAX_VALUES) -> JsonValue:
    """:func:`parse` with orjson."""
    if len(text) > values and _has_many_values(text, values):
        raise MalformedMessageError(_too_many(values))
    try:
        return orjson.loads(text)  # type: ignore[no-any-return]
    except orjson.JSONDecodeError:
        pass  # not raised from here: the exception holds the text
    return _parse_reference(text)


def _prove_orjson(value: JsonValue, text: str | bytes) -> JsonValue:
    """:func:`prove` with orjson."""
    return value if _is_plain(value) else _parse_reference(text)


def _prove_reference(value: JsonValue, _: str | bytes) -> JsonValue:
    """:func:`prove` with the standard library, whose parser proved it."""
    return value


def _is_plain(value: Any) -> bool:
    """Whether an object or array certainly obeys the rules; False sends it to the reference."""
    containers: list[Any]
    if type(value) is dict:
        containers = [value.values()]
    elif type(value) is list:
        containers = [value]
    else:
        return False
    for items in containers:
        for item in items:
            kind = type(item)
            if kind is str:
                continue
            if kind is dict:
                containers.append(item.values())
            elif kind is list:
                containers.append(item)
            elif kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:
                    return False
            elif kind is float and not -_MAYBE_INTEGER < item < _MAYBE_INTEGER:
                return False
    # So few containers cannot be nested deeper than the limit.
    return len(containers) <= MAX_DEPTH or _is_shallow(value)


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return True
    return False


class _Loads(Protocol):
    def __call__(self, text: str | bytes, values: int = ...) -> JsonValue: ...


loads: Final[_Loads] = _loads_orjson if _HAVE_ORJSON else _loads_reference
"""Parse one JSON text by the rules above. `values` bounds its commas and opening brackets.

Raises MalformedMessageError; its reason never quotes the text. Callers bound the size.
"""

parse: Final[_Loads] = _parse_orjson if _HAVE_ORJSON else _loads_reference
"""The first half of :func:`loads`: the value may still hold numbers that are too large, or be too
deep. For callers that look at every value in it; others have to :func:`prove` it."""

prove: Final[Callable[[JsonValue, str | bytes], JsonValue]] = (
    _prove_orjson if _HAVE_ORJSON else _prove_reference
)
"""The second half of :func:`loads`: what :func:`parse` made of a text, by all the rules."""


_NOT_ARRAYS: Final = (str, bytes, bytearray, memoryview)


def _plain(value: Any, depth: int, floats: list[float]) -> Any:
    """A copy of str, bool, None, int, float, dict and list only; collects the floats."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise LocalProtocolError("an integer beyond 2**53 is not sent")
        return value
    if kind is float:
        if not isfinite(value):
            raise LocalProtocolError("a number that is not finite is not JSON")
        floats.append(value)
        return value
    if depth == MAX_DEPTH:
        raise LocalProtocolError(f"a value {_TOO_DEEP}")
    if kind is dict or isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if type(key) is not str:
                raise LocalProtocolError("an object's key is not a string")
            plain[key] = _plain(item, depth + 1, floats)
        return plain
    if kind is list or (isinstance(value, Sequence) and not isinstance(value, _NOT_ARRAYS)):
        return [_plain(item, depth + 1, floats) for item in value]
    raise LocalProtocolError(f"a {kind.__name__} is not JSON")


def _dumps_reference(value: JsonValue) -> str:
    """:func:`dumps` with the standard library: the definition."""
    text = _encode(_plain(value, 0, []))
    if not text.isascii() and not _is_utf8(text):
        raise LocalProtocolError("a string holds a lone surrogate")
    return text


def _dumps_orjson(value: JsonValue) -> str:
    """:func:`dumps` with orjson; values with floats are left to the reference.

    orjson writes some exponents differently (1e16, where Python writes 1e+16).
    """
    floats: list[float] = []
    plain = _plain(value, 0, floats)
    if floats:
        return _dumps_reference(plain)
    text: str | None
    try:
        text = orjson.dumps(plain).decode()
    except orjson.JSONEncodeError:
        text = None
    # Of a plain value only a lone surrogate is refused; the reference says it.
    return _dumps_reference(plain) if text is None else text


dumps: Final[Callable[[JsonValue], str]] = _dumps_orjson if _HAVE_ORJSON else _dumps_reference
"""Write one value as JSON text: compact, keys in their order, non-ASCII characters as they are.

Mappings become objects, sequences arrays. What :func:`loads` would refuse, keys that are not
strings, and other types raise LocalProtocolError, which does not quote the value.
"""


_FIRST: Final = 64
"""Characters of base64 that are decoded twice. The first call after a parser has run takes twice as
long for each character, and the next one does not: a processor's habit, seen with x86 under CPython
3.11 and 3.13. So the first one is a short one; benchmarks/core_speed.py shows it without [speed].
What is wrong with the first characters is wrong with all of them."""


def _decode_base64_reference(text: str) -> bytes:
    """:func:`decode_base64` with the standard library: the definition."""
    data: bytes | None = None
    # binascii takes superfluous padding after a whole quantum ("AAAA===="); RFC 4648 has none.
    if len(text) % 4 == 0 and not text.endswith("==="):
        try:
            binascii.a2b_base64(text[:_FIRST], strict_mode=True)
            data = binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            data = None
    if data is None:
        raise MalformedMessageError(_NOT_BASE64)
    return data


def _decode_base64_fast(text: str) -> bytes:
    """:func:`decode_base64` with pybase64."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise MalformedMessageError(_NOT_BASE64)


def _encode_base64_reference(data: bytes) -> str:
    """:func:`encode_base64` with the standard library: the definition."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _encode_base64_fast(data: bytes) -> str:
    """:func:`encode_base64` with pybase64."""
    return pybase64.b64encode_as_string(data)


decode_base64: Final[Callable[[str], bytes]] = (
    _decode_base64_fast if _HAVE_PYBASE64 else _decode_base64_reference
)
"""Bytes from RFC 4648 section 4 base64: standard alphabet, padded, nothing else in between.

Unused trailing bits are not checked. Raises MalformedMessageError, which does not quote the text.
"""

encode_base64: Final[Callable[[bytes], str]] = (
    _encode_base64_fast if _HAVE_PYBASE64 else _encode_base64_reference
)
"""Bytes as RFC 4648 section 4 base64, padded, in one line."""
