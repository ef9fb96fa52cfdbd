"""Function calls without a language model: which tool a text names, and what it is called with.

The rule, for people: **say the tool's name, or a word of it, and quote what it needs.** In full:

1. A text names a tool when it has all words of the tool's name in a row: ``get_weather``,
   ``getWeather`` and "get weather" are the same, in any case. The longest such name wins.
2. Otherwise one word of a name is enough, if it has four letters or more; "function", "call" and
   "tool" do not count. The tool with the most such words wins, then the one announced first.

Arguments come from the schema, property by property, as they stand in it:

- an enum: the value that the text has, else its first one;
- a number: the next number of the text, else its minimum, else 0;
- a string: the next quoted piece of the text, else the whole text;
- a boolean: true; an array: one item; an object: by the same rules; ``default`` before all of these
  where the text has nothing.

A property that is not required is left out unless the text has something for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from navtalk_proto.wire.messages import JsonObject, JsonValue

__all__ = ["MAX_TOOLS", "Tool", "arguments_for", "read_tools", "tool_named"]

MAX_TOOLS: Final = 128
"""Tools of a session, as many as OpenAI takes; the rest are left out."""

_MAX_DEPTH: Final = 8
"""Objects inside objects that are filled; a schema may refer to itself."""

_SHORTEST: Final = 4
"""Letters of a word that names a tool alone: shorter are get, set, the."""

_FILLERS: Final = frozenset({"function", "call", "tool"})

_WORD: Final = re.compile(r"[^\W_]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,9})?(?!\d)")
_QUOTED: Final = re.compile(r"\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)|“([^”]+)”")


@frozen(kw_only=True)
class Tool:
    """A tool that the client announced (protocol.md 5.7, 5.8). `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: JsonObject = field(factory=dict)


def read_tools(announced: Iterable[JsonObject]) -> tuple[Tool, ...]:
    """The tools among OpenAI function tools; what has no name, and more than MAX_TOOLS, is not.

    A `parameters` that is no object is an empty one.
    """
    tools: list[Tool] = []
    for one in announced:
        name, description = one.get("name"), one.get("description")
        parameters = one.get("parameters")
        if isinstance(name, str) and name and len(tools) < MAX_TOOLS:
            tools.append(
                Tool(
                    name=name,
                    description=description if isinstance(description, str) else "",
                    parameters=parameters if isinstance(parameters, Mapping) else {},
                )
            )
    return tuple(tools)


def tool_named(text: str, tools: Sequence[Tool]) -> Tool | None:
    """The tool that a text names by the rule above; None for none."""
    said = _words(text)
    whole = [tool for tool in tools if _has(said, _words(tool.name))]
    if whole:
        return max(whole, key=lambda tool: len(_words(tool.name)))

    def shared(tool: Tool) -> int:
        words = set(_words(tool.name)) - _FILLERS
        return sum(len(word) >= _SHORTEST and word in said for word in words)

    best = max(tools, key=shared, default=None)
    return best if best is not None and shared(best) else None


def arguments_for(tool: Tool, text: str) -> dict[str, JsonValue]:
    """What to call a tool with, by the rule above. Legal for a plain schema, never an error."""
    return _Filler(tool.parameters, text).object(tool.parameters, 0)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(_HUMP.sub(" ", text))]


def _has(said: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words stand in a row; no words stand nowhere."""
    size = len(words)
    return size > 0 and any(said[at : at + size] == words for at in range(len(said) - size + 1))


class _Filler:
    """What a text has for a schema; each number and each quoted piece is used once."""

    def __init__(self, root: JsonObject, text: str) -> None:
        self._root = root
        self._text = text
        self._words = _words(text)
        self._quoted: list[str] = [next(filter(None, found)) for found in _QUOTED.findall(text)]
        outside = _QUOTED.sub(" ", text)
        self._numbers: list[float] = [
            float(found) if "." in found else int(found) for found in _NUMBER.findall(outside)
        ]

    def object(self, schema: JsonObject, depth: int) -> dict[str, JsonValue]:
        properties, required = schema.get("properties"), schema.get("required")
        filled: dict[str, JsonValue] = {}
        if not isinstance(properties, Mapping) or depth > _MAX_DEPTH:
            return filled  # The JS SDK writes `properties: []` (5.8).
        needed = required if isinstance(required, Sequence) else ()
        for name, part in properties.items():
            if not isinstance(part, Mapping):
                continue
            wanted = self._resolved(part, depth)
            found = self._found(wanted)
            if found is None and name in needed:
                found = self._made(wanted, depth + 1)
                filled[name] = found
            elif found is not None:
                filled[name] = found
        return filled

    def _resolved(self, schema: JsonObject, depth: int) -> JsonObject:
        """The schema itself, or the first one that it may be besides null."""
        for _ in range(_MAX_DEPTH - min(depth, _MAX_DEPTH) + 1):
            options = schema.get("anyOf") or schema.get("oneOf")
            reference = schema.get("$ref")
            chosen: JsonValue
            if isinstance(options, Sequence):
                real = [one for one in options if isinstance(one, Mapping)]
                chosen = next((one for one in real if one.get("type") != "null"), None)
            elif isinstance(reference, str):
                chosen = self._root
                for step in reference.removeprefix("#/").split("/"):
                    chosen = chosen.get(step) if isinstance(chosen, Mapping) else None
            else:
                return schema
            if not isinstance(chosen, Mapping):
                return {}
            schema = chosen
        return {}

    def _found(self, schema: JsonObject) -> JsonValue:
        """What the text has for this schema, taken out of it; None for nothing."""
        choices = schema.get("enum")
        if isinstance(choices, Sequence):
            mentioned: JsonValue = next((one for one in choices if self._mentions(one)), None)
            return mentioned
        match _type(schema):
            case "integer":
                return self._number(whole=True)
            case "number":
                return self._number(whole=False)
            case "string" if self._quoted:
                return self._quoted.pop(0)
            case _:
                return None

    def _mentions(self, value: JsonValue) -> bool:
        if isinstance(value, str):
            return _has(self._words, _words(value))
        return not isinstance(value, bool) and value in self._numbers

    def _number(self, *, whole: bool) -> float | None:
        for at, number in enumerate(self._numbers):
            if not whole or isinstance(number, int):
                return self._numbers.pop(at)
        return None

    def _made(self, schema: JsonObject, depth: int) -> JsonValue:
        """A value for what the text has nothing for."""
        if "default" in schema:
            return schema["default"]
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, Sequence) and choices:
            return choices[0]
        match _type(schema):
            case "integer" | "number":
                least = schema.get("minimum")
                return least if isinstance(least, int | float) else 0
            case "boolean":
                return True
            case "null":
                return None
            case "array":
                items = schema.get("items")
                if not isinstance(items, Mapping) or depth > _MAX_DEPTH:
                    return []
                wanted = self._resolved(items, depth)
                found = self._found(wanted)
                return [self._made(wanted, depth + 1) if found is None else found]
            case "object":
                return self.object(schema, depth)
            case _:
                return self._text


def _type(schema: JsonObject) -> JsonValue:
    """The schema's type; of several the first that is not null."""
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        first: JsonValue = next((one for one in kind if one != "null"), "null")
        return first
    return kind
