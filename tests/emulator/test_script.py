"""Brains from a file and by name: what a script does, and what is wrong with a bad one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from navtalk_asyncio.emulator import (
    Brain,
    BrainLoadError,
    Call,
    CallResult,
    Conversation,
    EchoBrain,
    Reply,
    ScriptedBrain,
    ScriptError,
    Tool,
    load_brain,
)
from navtalk_asyncio.emulator.script import ScriptedError
from navtalk_asyncio.testing import run_virtual

Visiting = Callable[..., AbstractAsyncContextManager[Any]]


class Murmur:
    """Synthesises any text as so many bytes."""

    name = "murmur"

    async def synthesise(self, text: str) -> bytes:
        return text.encode("utf-16-le")


SCRIPT = """
hears = ["What time is breakfast?", ""]

[[line]]
when = "breakfast"
say = "Breakfast is at seven."

[[line]]
matches = '\\bbooks?\\b'
call = "book"
arguments = { table = 4, names = ["Ana"] }

[[line]]
when = "weather"
say = "One moment."
call = "get_weather"

[[line]]
result = "get_weather"
say = "It is {result} where you asked for {text}."

[[line]]
when = "secret"
silence = true

[[line]]
when = "crash"
error = "The model is gone."

[[line]]
turn = 7
when = "again"
say = "For the seventh time."

[[line]]
when = ""
say = "Good day, {name}."
"""


def scripted(text: str = SCRIPT) -> ScriptedBrain:
    return ScriptedBrain.from_text(text, synthesiser=Murmur())


def reply(brain: Brain, **new: Any) -> Reply | None:
    return asyncio.run(brain.reply(Conversation(**new)))


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ({"text": "When is BREAKFAST?"}, "Breakfast is at seven."),
        ({"text": "breakfast", "heard": b"ab"}, "Breakfast is at seven."),
        ({}, "Good day, {name}."),
        ({"text": "again", "turn": 7}, "For the seventh time."),
        ({"text": "again", "turn": 6}, "You wrote: again"),
        ({"text": "anything"}, "You wrote: anything"),
        ({"text": "a fish", "heard": b"ab"}, "You said: a fish"),
        (
            {"results": (CallResult(name="get_weather", output="sunny"),)},
            "It is sunny where you asked for .",
        ),
        (
            {"results": (CallResult(name="get_weather", output=None),), "text": "Köln {result}"},
            "It is  where you asked for Köln {result}.",
        ),
        ({"results": (CallResult(name="f", output="1"),)}, "f says: 1."),
    ],
)
def test_the_first_line_that_fits_answers(new: dict[str, Any], text: str) -> None:
    answered = reply(scripted(), **new)
    assert answered is not None
    assert answered.text == text
    if "heard" not in new or text.startswith("Breakfast"):
        assert answered.pcm.decode("utf-16-le") == text


def test_what_a_line_says_is_canned_unless_it_has_a_field() -> None:
    script = """
[[line]]
when = "a"
say = "Always this."
[[line]]
say = "You said {text}."
"""
    brain = ScriptedBrain.from_text(script, synthesiser=Murmur())
    canned, with_field = reply(brain, text="a"), reply(brain, text="b")
    assert canned is not None
    assert with_field is not None
    assert (canned.canned, with_field.canned) == (True, False)


def test_a_line_may_call() -> None:
    assert reply(scripted(), text="two books") == Reply(
        text="", calls=(Call(name="book", arguments={"table": 4, "names": ["Ana"]}),)
    )


def test_a_call_without_arguments_takes_them_from_the_text() -> None:
    schema = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = (Tool(name="get_weather", parameters=schema),)
    answered = reply(scripted(), text="weather in 'Rome'", tools=tools)
    assert answered is not None
    assert answered.text == "One moment."
    assert answered.calls == (Call(name="get_weather", arguments={"city": "Rome"}),)
    unannounced = reply(scripted(), text="weather in 'Rome'")
    assert unannounced is not None
    assert unannounced.calls == (Call(name="get_weather"),)


def test_silence_and_errors() -> None:
    assert reply(scripted(), text="a secret") is None
    with pytest.raises(ScriptedError, match="The model is gone"):
        reply(scripted(), text="crash")


def test_what_is_heard() -> None:
    brain = scripted()

    def hear(utterance: int) -> str:
        return asyncio.run(brain.hear(Conversation(heard=bytes(960), utterances=utterance)))

    assert [hear(1), hear(2)] == ["What time is breakfast?", ""]
    assert hear(3) == "[no speech, -96 dBFS]"


def test_a_delay_passes_before_the_answer(visiting: Visiting) -> None:
    script = """
    [[line]]
    when = "slow"
    delay = 2.5
    say = "At last."

    [[line]]
    when = "fail"
    error = "No."
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with visiting(scripted(script)) as client:
            start = loop.time()
            await client.type("slow")
            assert await client.said() == "At last."
            assert loop.time() - start == pytest.approx(2.5)
            await client.type("fail")
            error = await client.next("response.error")
            assert error["data"] == {"message": "No.", "code": "brain"}

    run_virtual(main())


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "lines.toml"
    path.write_text('[[line]]\nsay = "Grüß Gott"\n', "utf-8")
    brain = ScriptedBrain.from_file(path, synthesiser=Murmur())
    assert reply(brain) == Reply(text="Grüß Gott", pcm="Grüß Gott".encode("utf-16-le"), canned=True)


def line(text: str) -> str:
    return f'[[line]]\nsay = "one"\n[[line]]\n{text}\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[line]\nsay = 1", r"lines\.toml: .* line 1"),
        ('[[line]]\nsay = "a"\nsay = "b"\n', r"lines\.toml: .* line 3"),
        ("", r"lines\.toml has no \[\[line\]\]"),
        ("lines = []", r"lines\.toml: there is no key 'lines'; there are line, hears"),
        ("line = 3", r"lines\.toml: line is not an array"),
        ("line = [3]", r"lines\.toml, \[\[line\]\] 1 is not a table"),
        ("hears = [1]", r"lines\.toml: hears, entry 1 is not a string"),
        (
            line('says = "a"'),
            r"\[\[line\]\] 2: there is no key 'says'; there are when, matches, turn",
        ),
        (line("say = 3"), r"\[\[line\]\] 2: say is not a string"),
        (line('say = "a"\nturn = true'), r"\[\[line\]\] 2: turn is not a whole number"),
        (line('say = "a"\nturn = 0'), r"\[\[line\]\] 2: turn counts from 1"),
        (line('say = "a"\ndelay = "1 s"'), r"\[\[line\]\] 2: delay is not a number"),
        (line('say = "a"\ndelay = true'), r"\[\[line\]\] 2: delay is not a number"),
        (line('say = "a"\ndelay = -1'), r"\[\[line\]\] 2: delay is not in 0 to 3600"),
        (line('say = "a"\ndelay = nan'), r"\[\[line\]\] 2: delay is not in 0 to 3600"),
        (line('when = "a"'), r"\[\[line\]\] 2 does nothing"),
        (line('say = "a"\nerror = "b"'), r"\[\[line\]\] 2 has say and error; only say and call"),
        (line('call = "a"\nsilence = true'), r"\[\[line\]\] 2 has call and silence"),
        (line("silence = false"), r"\[\[line\]\] 2: silence is true or not there"),
        (line("silence = 1"), r"\[\[line\]\] 2: silence is not true or false"),
        (line('say = "a"\narguments = {}'), r"\[\[line\]\] 2: arguments are of a call"),
        (line('call = "a"\narguments = []'), r"\[\[line\]\] 2: arguments is not a table"),
        (
            line('call = "a"\narguments = { at = 1979-05-27 }'),
            r"\[\[line\]\] 2: arguments are not JSON",
        ),
        (line('say = "a"\nmatches = "("'), r"\[\[line\]\] 2: matches is no regular expression"),
        (line(f'say = "{"a" * 2001}"'), r"\[\[line\]\] 2: say has more than 2000 characters"),
    ],
)
def test_a_bad_script_names_the_line_or_the_key(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "lines.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ScriptError, match=reason):
        ScriptedBrain.from_file(path)


def test_a_file_that_is_not_there_too_large_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"none\.toml cannot be read: No such file"):
        ScriptedBrain.from_file(tmp_path / "none.toml")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ScriptError, match="more than 1048576 bytes"):
        ScriptedBrain.from_file(large)
    large.write_bytes(b"# a\n# b\n# \xff")
    with pytest.raises(ScriptError, match="line 3: this is not UTF-8"):
        ScriptedBrain.from_file(large)


# ---- by name


MODULE = """
from navtalk_asyncio.emulator import EchoBrain

class Quiet:
    async def hear(self, conversation): return ""
    async def reply(self, conversation): return None

one = Quiet()

def make():
    return EchoBrain()

def nothing():
    return 3

class Box:
    inner = Quiet()

number = 4
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_brains_for_a_test.py").write_text(MODULE)
    (tmp_path / "my_broken_brain_for_a_test.py").write_text("import there_is_no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_brains_for_a_test", "my_broken_brain_for_a_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_brains_for_a_test"


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [("one", "Quiet"), ("Quiet", "Quiet"), ("make", "EchoBrain"), ("Box.inner", "Quiet")],
)
def test_a_brain_by_name(module: str, attribute: str, kind: str) -> None:
    assert type(load_brain(f"{module}:{attribute}")).__name__ == kind


def test_a_script_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lines.toml"
    path.write_text('[[line]]\nsay = "Hi."\n')
    assert isinstance(load_brain(str(path)), ScriptedBrain)


def test_navtalks_own_brain_by_name() -> None:
    assert isinstance(load_brain("navtalk_asyncio.emulator:EchoBrain"), EchoBrain)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("brain", 'neither "module:attribute" nor'),
        (":brain", 'neither "module:attribute" nor'),
        ("brain:", 'neither "module:attribute" nor'),
        ("there_is_no_such_module:x", "there is no module 'there_is_no_such_module'"),
        ("navtalk_asyncio.nowhere:x", "there is no module 'navtalk_asyncio.nowhere'"),
        ("my_brains_for_a_test:none", "'my_brains_for_a_test' has no 'none'"),
        ("my_brains_for_a_test:Box.none", "has no 'Box.none'"),
        ("my_brains_for_a_test:number", r"has no hear\(\) and reply\(\)"),
        ("my_brains_for_a_test:nothing", "makes a int, which is no brain"),
        ("my_brains_for_a_test:Box", "makes a Box, which is no brain"),
    ],
)
def test_a_name_of_no_brain(module: str, name: str, reason: str) -> None:
    with pytest.raises(BrainLoadError, match=reason):
        load_brain(name)


@pytest.mark.usefixtures("module")
def test_a_module_that_does_not_import_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        load_brain("my_broken_brain_for_a_test:x")
