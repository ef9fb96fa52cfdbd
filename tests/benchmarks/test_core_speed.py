"""The core's speed as a benchmark: it runs, and it measures what it says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from navtalk_proto.actions import AddCandidate, Emit, SendText, SetRemote
from navtalk_proto.connection import State
from navtalk_proto.events import MessageReceived
from navtalk_proto.wire.jsontext import loads

FILE = Path(__file__).parents[2] / "benchmarks" / "core_speed.py"
PATIENCE = 120.0


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("navtalk_benchmark_core_speed", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


core_speed: Any = _load()


def test_a_quick_run_has_every_row_and_bar() -> None:
    run = subprocess.run(
        [sys.executable, str(FILE), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode in (0, 1)
    tables = json.loads(run.stdout.splitlines()[-1])
    assert set(tables) == {"orjson", "json"}
    bars = {
        name: {row["question"]: row["bar"] for row in rows if row["bar"] is not None}
        for name, rows in tables.items()
    }
    assert (
        bars["orjson"]
        | {
            "receive ICE candidate": 8.0,
            "receive offer, 4 kB": 4.0,
            "receive audio of the human, 10 kB": 3.5,
            "memory of an idle connection": 64.0,
        }
        == bars["orjson"]
    )
    assert bars["json"]["receive ICE candidate"] == 4.0
    assert bars["json"]["receive audio of the user, 10 kB"] == 6.0
    for rows in tables.values():
        for row in rows:
            assert row["ours"] > 0
            assert row["reference"] > 0
            assert row["met"] is (None if row["bar"] is None else row["ratio"] <= row["bar"])
    assert run.returncode == any(row["met"] is False for rows in tables.values() for row in rows)


def test_the_texts_have_the_sizes_of_the_question() -> None:
    assert 270 < len(core_speed.CANDIDATE) < 300
    assert 3900 < len(core_speed.offer(1)) < 4100
    assert len(core_speed.PCM_10_KB) == 7500
    for text in (core_speed.CANDIDATE, core_speed.offer(1), *core_speed.conversation(1)):
        assert isinstance(loads(text), dict)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("ICE candidate", AddCandidate),
        ("offer, 4 kB", SetRemote),
        ("audio of the human, 10 kB", Emit),
        ("audio of the user, 10 kB", Emit),
        ("piece of an answer", Emit),
        ("function call", Emit),
    ],
)
def test_each_block_does_what_it_is_named_after(name: str, action: type) -> None:
    kind = next(each for each in core_speed.kinds() if each.name == name and not each.sends)
    for block in range(3):
        for session, text in kind.prepare(block):
            session.core.receive_text(text, now=session.now)
            actions = session.core.actions()
            assert type(actions[0]) is action
            if action is Emit:
                assert isinstance(actions[0].event, MessageReceived)
            session.settle(actions)
            assert session.core.state is State.READY
            assert session.core.counters.violations == 0


def test_each_message_that_is_sent_becomes_one_text() -> None:
    for kind in core_speed.kinds():
        if kind.sends:
            for session, message in kind.prepare(0)[:3]:
                session.core.send(message, now=session.now)
                actions = session.core.actions()
                assert [type(each) for each in actions if isinstance(each, SendText)] == [SendText]
