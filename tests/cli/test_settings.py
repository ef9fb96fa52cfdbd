"""Where a value comes from, `--json`, and what a terminal is not."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)
LICENCE = "sk_navtalk_EXAMPLE_of_the_settings_tests"


def printed(text: str) -> dict[str, Any]:
    """The one object that a command printed, checked against the schema."""
    document: dict[str, Any] = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A port that refuses, and a folder with an empty environment to ask from."""
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "AVATAR", "AVATAR_ID", "MODEL", "LICENSE", "TALK_TEXT", "TALK_LIMIT"):
        monkeypatch.delenv(f"NAVTALK_{name}", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        yield taken.getsockname()[1]


def talk(*arguments: str) -> int:
    return run(AsyncioBackend(), ["talk", "-o", "a.mkv", *arguments])


def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text)
    monkeypatch.setenv("NAVTALK_CONFIG", str(path))


def test_argument_environment_file_default(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    configure(
        monkeypatch,
        tmp_path,
        f'license = "{LICENCE}"\nurl = "ws://127.0.0.1:{closed_port}/file"\n'
        'avatar = "of the file"\n[talk]\ntext = "Hi"\n',
    )
    seen = []
    for environment, argument in (("", ""), ("env", ""), ("env", "argument")):
        if environment:
            url = f"ws://127.0.0.1:{closed_port}/{environment}"
            monkeypatch.setenv("NAVTALK_URL", url)
        given = ("--url", f"ws://127.0.0.1:{closed_port}/{argument}") if argument else ()
        assert talk(*given) == 4
        err = capsys.readouterr().err
        seen.append(err.partition(f":{closed_port}/")[2].partition("?")[0])
        assert "name=of%20the%20file" in err
        assert LICENCE not in err
    assert seen == ["file", "env", "argument"]


def test_options_of_a_command_in_the_environment(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    monkeypatch.setenv("NAVTALK_TALK_LIMIT", "0")
    assert talk("--text", "Hi", "--avatar", "x") == 2
    assert "NAVTALK_TALK_LIMIT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("licence = 'x'", "licence is none of url, avatar, avatar-id, model, license"),
        ("url = ", "Invalid value"),
        ("license = 3", "license is not a text"),
        ("[talk]\nlimits = 3", "limits"),
    ],
)
def test_a_mistake_in_the_config_file_is_2_and_names_it(
    text: str, problem: str, closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    configure(monkeypatch, tmp_path, text)
    assert talk("--text", "Hi", "--avatar", "x") == 2
    err = capsys.readouterr().err.replace("\n", " ")
    assert problem in err
    # A frame around it may break a long path anywhere.
    assert "ours.toml" in "".join(err.replace("│", "").split())


def test_a_config_file_that_was_named_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAVTALK_CONFIG", str(tmp_path / "none.toml"))
    assert run(AsyncioBackend(), ["--version"]) == 2
    assert "NAVTALK_CONFIG: there is no file" in capsys.readouterr().err


def test_an_error_as_json(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk("--text", "Hi", "--avatar", "x", "--json") == 3
    assert printed(capsys.readouterr().out)["code"] == "no-licence"
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    url = f"ws://127.0.0.1:{closed_port}"
    assert talk("--text", "Hi", "--avatar", "x", "--url", url, "--json") == 4
    out = capsys.readouterr().out
    error = printed(out)
    assert (error["code"], error["exit_code"], error["retryable"]) == ("connect-failed", 4, True)
    assert error["hint"]
    assert LICENCE not in out


def test_an_answer_as_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(backend(), ["demo", "--text", "Hi", "--json"]) == 0
    captured = capsys.readouterr()
    answer = printed(captured.out)
    assert (answer["schema"], answer["text"]) == ("navtalk.talk/1", "Parrot: Hi")
    assert (answer["output"], answer["still"]) == ("answer.mkv", "answer.png")
    assert "\x1b" not in captured.err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_heeded(
    no_color: str, coloured: bool, closed_port: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    url = f"ws://127.0.0.1:{closed_port}"
    assert talk("--text", "Hi", "--avatar", "x", "--url", url) == 4
    assert (re.search(r"\x1b\[[0-9;]*3[0-7]", capsys.readouterr().err) is not None) == coloured


def test_completion_is_written_for_a_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert run(AsyncioBackend(), ["--install-completion", "--shell", "bash"]) == 0
    [script] = [path for path in tmp_path.rglob("*navtalk*") if path.is_file()]
    assert "talk" in script.read_text()
