"""The core imports nothing that could do I/O, tell the time or throw dice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Pure: no I/O, no clock, no threads. Nothing else may be added by `import navtalk_proto`.
# urllib.parse splits URLs without opening any; attrs or json loads it on some versions only.
ALLOWED = {"ipaddress", "math", "urllib"}

PROGRAM = """
import json, sys
import attrs, cattrs, base64
for name in ("orjson", "pybase64"):
    {accelerator}
before = set(sys.modules)
import navtalk_proto
print(json.dumps(sorted(set(sys.modules) - before)))
"""
WITH = """try:
        __import__(name)
    except ImportError:
        pass"""
WITHOUT = "sys.modules[name] = None"


@pytest.mark.parametrize("accelerator", [WITH, WITHOUT], ids=["speed", "plain"])
def test_importing_the_core_adds_only_itself_and_pure_modules(accelerator: str) -> None:
    # -I: no user site, no PYTHONPATH, no current directory; the installed package is what counts.
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM.format(accelerator=accelerator)],
        capture_output=True,
        text=True,
        check=True,
    )
    added = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "navtalk_proto" in added
    assert added - {"navtalk_proto"} <= ALLOWED


BANNED = [
    "asyncio",
    "trio",
    "anyio",
    "socket",
    "ssl",
    "threading",
    "time",
    "random",
    "uuid",
    "secrets",
    "os",
    "logging",
    "aiortc",
    "av",
    "websockets",
]


def ruff(snippet: str) -> list[tuple[int, str]]:
    """Line and rule of what ruff finds in a module of the core that reads like this."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json"),
            *("--select=TID251", "--stdin-filename=src/navtalk_proto/snippet.py", "-"),
        ],
        input=snippet,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stderr == ""
    return [(found["location"]["row"], found["code"]) for found in json.loads(done.stdout)]


@pytest.mark.parametrize("form", ["import {0}", "import {0}.x", "from {0} import x"])
def test_the_linter_refuses_every_banned_import_in_the_core(form: str) -> None:
    snippet = "".join(form.format(name) + "\n" for name in BANNED)
    assert ruff(snippet) == [(line, "TID251") for line in range(1, len(BANNED) + 1)]


def test_the_linter_takes_what_the_core_needs() -> None:
    assert ruff("import json\nimport re\nimport base64\nfrom attrs import frozen\n") == []


def test_the_rules_of_the_project_hold_in_the_core_too() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json"),
            *("--stdin-filename=src/navtalk_proto/snippet.py", "-"),
        ],
        input="import asyncio\n\n\ndef public(x):\n    return asyncio\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert {found["code"] for found in json.loads(done.stdout)} >= {"TID251", "D103", "D100"}
