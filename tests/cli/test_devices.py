"""``navtalk devices``: what a sound server has, and what is said where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)
Command = Callable[..., subprocess.CompletedProcess[str]]


def test_the_devices_of_a_sound_server(sound_server: dict[str, str], command: Command) -> None:
    done = command("devices", "--json", **sound_server)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    for kind in ("speakers", "microphones"):
        [default] = [one for one in document[kind] if one["default"]]
        assert default["interface"] == "ALSA"
    plain = command("devices", **sound_server)
    [number] = [one["number"] for one in document["speakers"] if one["name"] == "pulse"]
    rows = [line.split("\t") for line in plain.stdout.splitlines()]
    assert ["speaker", str(number), "pulse", "ALSA"] in [row[:4] for row in rows]
    assert [row[0] for row in rows if row[4] == "default"] == ["speaker", "microphone"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_has_a_table(sound_server: dict[str, str]) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "navtalk_trio", "devices"],
        env={**sound_server, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        seen = b""
        while b"default" not in seen or b"microphone" not in seen:
            seen += os.read(ours, 4096)  # EIO where it ended before
        assert b"interface" in seen
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("arguments", [["devices", "--json"], ["chat", "--avatar=navtalk.Lea"]])
@pytest.mark.parametrize(
    ("raised", "code", "problem", "name"),
    [
        (
            "ModuleNotFoundError('No module', name='sounddevice')",
            2,
            "error: sounddevice is not installed: pip install 'navtalk[audio]'",
            "usage",
        ),
        (
            "OSError('PortAudio library not found')",
            6,
            "error: PortAudio cannot be loaded: PortAudio library not found",
            "sound-device",
        ),
    ],
    ids=["no package", "no library"],
)
def test_what_is_missing_is_said_with_what_to_install(
    raised: str,
    code: int,
    problem: str,
    name: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sounddevice.py").write_text(f"raise {raised}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setenv("NAVTALK_LICENSE", "sk_navtalk_EXAMPLE")
    assert run(AsyncioBackend(), arguments) == code
    captured = capsys.readouterr()
    first, hint = captured.err.splitlines()
    assert first == problem
    assert hint.startswith("hint: ")
    assert hint.endswith("apt install libportaudio2")
    if "--json" in arguments:
        document = json.loads(captured.out)
        jsonschema.validate(document, SCHEMA)
        assert (document["code"], document["exit_code"]) == (name, code)
