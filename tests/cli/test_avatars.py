"""``navtalk avatars`` and ``navtalk tools``: looked up without a session."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.emulator.avatars import Avatar
from navtalk_proto import ServerConfig
from navtalk_trio.__main__ import TrioBackend

LICENCE = "sk_navtalk_EXAMPLE_of_the_avatars"
LEO = Avatar(id="a1", name="navtalk.Leo", voice="cedar")
OLD = Avatar(id="b0", name="navtalk.Lea")
NEW = Avatar(id="b1", name="navtalk.Lea")
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)


def printed(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture(params=[AsyncioBackend, TrioBackend], ids=["asyncio", "trio"])
def avatars(request: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command against an emulator with three humans; returns the exit code."""
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)

    def command(*arguments: str) -> int:
        async def main() -> int:
            async with emulate(
                licenses=[LICENCE], avatars=(LEO, OLD, NEW), config=ServerConfig(media=())
            ) as human:
                given = ["avatars", "--url", human.url, *arguments]
                return await asyncio.to_thread(run, request.param(), given)

        return asyncio.run(main())

    return command


def test_all_of_them(avatars: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert avatars() == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "navtalk.Leo\ta1\topenai\tgpt-realtime\tcedar",
        "navtalk.Lea\tb0\topenai\tgpt-realtime\tmarin",
        "navtalk.Lea\tb1\topenai\tgpt-realtime\tmarin",
    ]
    assert captured.err == ""


def test_by_name_and_by_id(avatars: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert avatars("navtalk.Leo") == 0
    assert avatars("--id", "a1", "--json") == 0
    captured = capsys.readouterr()
    plain, document = captured.out.splitlines()
    assert plain.startswith("navtalk.Leo\ta1\t")
    found = printed(document)
    assert [one["voice"] for one in found["avatars"]] == ["cedar"]
    assert found["ambiguous"] is False
    assert LICENCE not in captured.out + captured.err


def test_a_name_that_several_have_is_warned_of(
    avatars: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert avatars("navtalk.Lea", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: 2 avatars are called navtalk.Lea; use --avatar-id\n"
    found = printed(captured.out)
    assert (found["avatars"][0]["id"], found["ambiguous"]) == ("b1", True)


def test_nobody_is_5_and_a_wrong_licence_is_3(
    avatars: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert avatars("navtalk.Nobody") == 5
    assert "there is no such avatar" in capsys.readouterr().err
    monkeypatch.setenv("NAVTALK_LICENSE", "sk_navtalk_EXAMPLE_wrong")
    assert avatars() == 3
    assert "the licence was refused" in capsys.readouterr().err


# ---- tools

SOURCE = """
from navtalk_proto import tool

def weather(city: str, days: int = 1) -> str:
    \"\"\"Tell the weather of a city.\"\"\"

@tool(name="lamp")
async def switch(on: bool) -> None:
    \"\"\"Switch the lamp.\"\"\"

both = [weather, switch]
number = 3

def bad(thing: object) -> None:
    \"\"\"Cannot be one.\"\"\"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    (tmp_path / "ours_of_the_tools_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "ours_of_the_tools_test", raising=False)

    def command(*arguments: str) -> int:
        given = [one.replace("ours", "ours_of_the_tools_test") for one in arguments]
        return run(AsyncioBackend(), ["tools", *given])

    return command


def test_what_would_be_sent(tools: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert tools("ours:weather") == 0
    [schema] = json.loads(capsys.readouterr().out)
    assert (schema["name"], schema["description"]) == ("weather", "Tell the weather of a city.")
    assert schema["parameters"]["required"] == ["city"]
    assert tools("ours:both", "--json") == 0
    listed = printed(capsys.readouterr().out)["tools"]
    assert [one["name"] for one in listed] == ["weather", "lamp"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name a function, as module:attribute"),
        (("ours",), 'is not "module:attribute"'),
        (("nowhere:x",), "there is no module 'nowhere'\nhint: name a function"),
        (("ours:none",), "has no 'none'"),
        (("ours:number",), "is a int, and no function"),
        (("ours:bad",), "thing"),
        (("ours:bad",), "hint: docs/tools.md lists the types"),
        (("ours:weather", "ours:both"), "two tools are called weather"),
    ],
)
def test_what_is_no_tool_is_2(
    arguments: tuple[str, ...],
    problem: str,
    tools: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tools(*arguments) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.out == ""
