"""A brain that says what a file tells it to, and brains by name.

A script is TOML. Its lines are tried in their order, and the first one that fits answers::

    hears = ["What time is breakfast?"]

    [[line]]
    when = "breakfast"
    say = "Breakfast is at seven."

``hears`` are the transcripts of the first utterances of a session. What a line fits:

- ``when``: the text has this in it, in any case; ``""`` is for when nothing was said;
- ``matches``: the text has a match of this regular expression, in any case;
- ``turn``: this is the n-th answer of the session, from 1;
- ``result``: a result of the function of this name has come, or will not come any more.

Several must all fit; a line with none fits always. What it does, after ``delay`` seconds:

- ``say``: this text, spoken; ``{text}`` is what was said to it, ``{result}`` the function's result;
- ``call``: the function of this name, with the table ``arguments``, or with what
  :mod:`navtalk_asyncio.emulator.calls` makes of the text; ``say`` may stand beside it;
- ``silence = true``: nothing is said, and nothing told;
- ``error``: the answer fails with this text.

Where no line fits, the echo brain answers.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from attrs import frozen

from navtalk_asyncio.emulator.brain import Brain, Call, Conversation, EchoBrain, Reply
from navtalk_asyncio.emulator.calls import arguments_for
from navtalk_asyncio.emulator.voice import MAX_TEXT, Synthesiser
from navtalk_proto.errors import NavTalkError
from navtalk_proto.limits import MIB
from navtalk_proto.wire.messages import JsonObject

__all__ = ["BrainLoadError", "ScriptError", "ScriptedBrain", "ScriptedError", "load_brain"]

MAX_SCRIPT: Final = 1 * MIB
"""Bytes of a script file: thousands of lines."""

MAX_DELAY: Final = 3600.0
"""Seconds that a line may wait."""


class ScriptError(NavTalkError):
    """A script cannot be used. Its text names the file, and the line or the key."""

    code = "script"
    hint = "see docs/emulator.md for the keys of a script"


class ScriptedError(NavTalkError):
    """The failure that a script asks for with ``error``."""

    code = "scripted"
    hint = "the script of the emulator's brain says so"


class BrainLoadError(NavTalkError):
    """A brain's name leads to no brain."""

    code = "brain-name"
    hint = 'name a brain as "module:attribute", or a script as "lines.toml"'


@frozen(kw_only=True)
class _Line:
    when: str | None = None
    matches: re.Pattern[str] | None = None
    turn: int | None = None
    result: str | None = None
    say: str | None = None
    call: str | None = None
    arguments: JsonObject | None = None
    silence: bool = False
    error: str | None = None
    delay: float = 0.0

    def fits(self, asked: Conversation) -> bool:
        if self.when == "" and (asked.text or asked.heard is not None or asked.results):
            return False
        return (
            (self.when is None or self.when.casefold() in asked.text.casefold())
            and (self.matches is None or self.matches.search(asked.text) is not None)
            and self.turn in (None, asked.turn)
            and (self.result is None or self.result in {one.name for one in asked.results})
        )

    def result_in(self, asked: Conversation) -> str:
        """What ``{result}`` stands for: of this line's function, else the first there is."""
        outputs = [one.output for one in asked.results if self.result in (None, one.name)]
        return next((one for one in outputs if one is not None), "")


class ScriptedBrain:
    """Answers by a script; see the module. One brain serves every session."""

    def __init__(
        self, lines: tuple[_Line, ...], hears: tuple[str, ...], synthesiser: Synthesiser | None
    ) -> None:
        self._lines = lines
        self._hears = hears
        self._otherwise = EchoBrain(synthesiser)

    @classmethod
    def from_file(
        cls, path: str | PathLike[str], *, synthesiser: Synthesiser | None = None
    ) -> ScriptedBrain:
        """Read a script file, in UTF-8. `synthesiser` speaks, else the one that is installed.

        Raises ScriptError for a file that cannot be read, with the line or the key.
        """
        name = Path(path).name
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_SCRIPT + 1)
        except OSError as error:
            raise ScriptError(f"{name} cannot be read: {error.strerror}") from error
        if len(data) > MAX_SCRIPT:
            raise ScriptError(f"{name} has more than {MAX_SCRIPT} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ScriptError(f"{name}, line {line}: this is not UTF-8") from error
        return cls.from_text(text, name=name, synthesiser=synthesiser)

    @classmethod
    def from_text(
        cls, text: str, *, name: str = "the script", synthesiser: Synthesiser | None = None
    ) -> ScriptedBrain:
        """Read a script's text; errors call it `name`. Raises ScriptError."""
        try:
            script = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ScriptError(f"{name}: {error}") from error
        _check_keys(script, {"line": list, "hears": list}, name)
        hears = script.get("hears", [])
        for number, one in enumerate(hears, 1):
            if not isinstance(one, str):
                raise ScriptError(f"{name}: hears, entry {number} is not a string")
        lines = tuple(
            _line(one, f"{name}, [[line]] {number}")
            for number, one in enumerate(script.get("line", []), 1)
        )
        if not lines:
            raise ScriptError(f"{name} has no [[line]]")
        return cls(lines, tuple(hears), synthesiser)

    async def hear(self, conversation: Conversation) -> str:
        """The script's transcript of this utterance, else the echo brain's measurement."""
        at = conversation.utterances - 1
        if 0 <= at < len(self._hears):
            return self._hears[at]
        return await self._otherwise.hear(conversation)

    async def reply(self, conversation: Conversation) -> Reply | None:
        """What the first line that fits says. Raises ScriptedError and SynthesisError."""
        line = next((one for one in self._lines if one.fits(conversation)), None)
        if line is None:
            return await self._otherwise.reply(conversation)
        if line.delay:
            await asyncio.sleep(line.delay)
        if line.error is not None:
            raise ScriptedError(line.error)
        if line.silence:
            return None
        text, pcm = "", b""
        if line.say is not None:
            said = {"text": conversation.text, "result": line.result_in(conversation)}
            text = _FIELD.sub(lambda found: said[found[1]], line.say)[:MAX_TEXT]
            pcm = await self._otherwise.synthesiser.synthesise(text)
        calls: tuple[Call, ...] = ()
        if line.call is not None:
            arguments = line.arguments
            if arguments is None:
                tool = next((one for one in conversation.tools if one.name == line.call), None)
                arguments = {} if tool is None else arguments_for(tool, conversation.text)
            calls = (Call(name=line.call, arguments=arguments),)
        # What is said is the script's alone where it has no field.
        return Reply(text=text, pcm=pcm, calls=calls, canned=text == line.say)


_FIELD: Final = re.compile(r"\{(text|result)\}")

_Kinds: TypeAlias = Mapping[str, type | tuple[type, ...]]

_KINDS: Final[_Kinds] = {
    "when": str,
    "matches": str,
    "turn": int,
    "result": str,
    "say": str,
    "call": str,
    "arguments": dict,
    "silence": bool,
    "error": str,
    "delay": (int, float),
}
_NAMES: Final = {str: "a string", int: "a whole number", dict: "a table", list: "an array"}


def _check_keys(table: Mapping[str, Any], kinds: _Kinds, where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise ScriptError(f"{where}: there is no key {key!r}; there are {', '.join(kinds)}")
        kind = kinds[key]
        # To Python, true is a whole number.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            named = _NAMES.get(kind, "true or false") if isinstance(kind, type) else "a number"
            raise ScriptError(f"{where}: {key} is not {named}")


def _line(table: object, where: str) -> _Line:
    if not isinstance(table, dict):
        raise ScriptError(f"{where} is not a table; write [[line]]")
    _check_keys(table, _KINDS, where)
    does = [key for key in ("say", "call", "silence", "error") if key in table]
    if not does:
        raise ScriptError(f"{where} does nothing: say, call, silence and error are all missing")
    if len(does) > 1 and does != ["say", "call"]:
        raise ScriptError(f"{where} has {' and '.join(does)}; only say and call go together")
    if "arguments" in table and "call" not in table:
        raise ScriptError(f"{where}: arguments are of a call, and there is none")
    if table.get("silence") is False:
        raise ScriptError(f"{where}: silence is true or not there")
    if table.get("turn", 1) < 1:
        raise ScriptError(f"{where}: turn counts from 1")
    if not 0.0 <= table.get("delay", 0.0) <= MAX_DELAY:
        raise ScriptError(f"{where}: delay is not in 0 to {MAX_DELAY:g} seconds")
    if len(table.get("say", "")) > MAX_TEXT:
        raise ScriptError(f"{where}: say has more than {MAX_TEXT} characters")
    values = dict(table)
    try:
        json.dumps(values.get("arguments"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ScriptError(f"{where}: arguments are not JSON: {error}") from error
    if "matches" in values:
        try:
            values["matches"] = re.compile(values["matches"], re.IGNORECASE)
        except re.error as error:
            raise ScriptError(f"{where}: matches is no regular expression: {error}") from error
    return _Line(**values)


def load_brain(name: str) -> Brain:
    """The brain of that name: ``"module:attribute"``, or a script file, ``"lines.toml"``.

    The attribute is a brain, or a class or function that makes one without arguments. The module is
    found as by ``import``. Raises BrainLoadError, ScriptError, and what the module itself raises.
    """
    if name.endswith(".toml"):
        return ScriptedBrain.from_file(name)
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise BrainLoadError(f'{name!r} is neither "module:attribute" nor a .toml file')
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # The module is there; one that it imports is not.
        raise BrainLoadError(f"there is no module {module_name!r}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BrainLoadError(f"{module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if isinstance(found, type) or not _is_brain(found):
        if not callable(found):
            raise BrainLoadError(f"{name} has no hear() and reply()")
        found = cast("Callable[[], Any]", found)()
    if not _is_brain(found):
        raise BrainLoadError(f"{name} makes a {type(found).__name__}, which is no brain")
    return cast("Brain", found)


def _is_brain(found: object) -> bool:
    return callable(getattr(found, "hear", None)) and callable(getattr(found, "reply", None))
