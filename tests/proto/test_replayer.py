"""A trace is done again: the same, different at a line, or not a trace that can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import NavTalkError
from navtalk_proto.inputs import Input, IntentGiven, TextReceived, TransportClosed, TransportOpened
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.roles import Role
from navtalk_proto.stats import MediaStats
from navtalk_proto.tracing import replayer
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.records import Gap, Sample, TraceError, encode_line
from navtalk_proto.tracing.replayer import read, replay
from navtalk_proto.tracing.scrubber import Scrubber

WELCOME = '{"type": "conversation.connected.success", "data": {"sessionId": "s-1"}}'
INPUTS: tuple[Input, ...] = (
    TransportOpened(),
    IntentGiven(intent=SendAudio(pcm=bytes(2))),  # too early: raised
    TextReceived(text=WELCOME),
    TextReceived(text="no JSON"),
    IntentGiven(intent=SayText(text="hello")),
    TransportClosed(code=1000, reason="bye"),
)


def traced(*, complete: bool = True, connections: int = 1) -> list[str]:
    lines: list[str] = []
    recorder = Recorder(lines.append, Scrubber(), started="", versions={})
    for _ in range(connections):
        core = Connection(Role.CLIENT, ClientConfig(media=()), now=1.0)
        recording = recorder.connection(core, now=1.0, complete=complete)
        for number, given in enumerate(INPUTS):
            raised = None
            try:
                given.give(core, now=1.0 + number)
            except NavTalkError as error:
                raised = error
            recording.happened(given, core.actions(), now=1.0 + number, raised=raised)
        recording.sample(now=9.0, outgoing=0, events=0, media=MediaStats())
    return lines


def edited(lines: list[str], at: int, **changes: Any) -> list[str]:
    """The lines, with fields of the one that is counted `at` changed."""
    record = {**json.loads(lines[at - 1]), **changes}
    return [*lines[: at - 1], json.dumps(record) + "\n", *lines[at:]]


def find(lines: list[str], text: str) -> int:
    """The line, counted from 1, that is the first to hold a text."""
    return next(at for at, line in enumerate(lines, 1) if text in line)


def test_the_same_again() -> None:
    result = replay(traced(connections=2))
    assert result.divergence is None
    assert (result.connections, result.incomplete, result.gap) == (2, 0, "")
    assert result.inputs == 2 * len(INPUTS)
    assert result.actions == 8


def test_an_action_that_was_edited() -> None:
    lines = traced()
    at = find(lines, '"reason":"is not JSON')
    action = json.loads(lines[at - 1])["action"]
    action["event"]["reason"] = "is JSON"
    found = replay(edited(lines, at, action=action)).divergence
    assert found is not None
    assert (found.line, found.cause, found.connection) == (at, at - 1, 1)
    assert found.recorded == action
    assert found.replayed == json.loads(lines[at - 1])["action"]


def test_an_input_that_was_edited_is_the_cause_of_what_differs() -> None:
    lines = traced()
    at = find(lines, "sessionId")
    given = json.loads(lines[at - 1])["input"]
    given["text"] = given["text"].replace("s-1", "s-2")
    found = replay(edited(lines, at, input=given)).divergence
    assert found is not None
    assert (found.line, found.cause) == (at + 1, at)


def test_an_action_that_is_missing() -> None:
    lines = traced()
    at = find(lines, "ProtocolViolation")
    found = replay(lines[: at - 1] + lines[at:]).divergence
    assert found is not None
    assert found.line == at
    assert found.recorded is None
    assert "ProtocolViolation" in json.dumps(found.replayed)


def test_actions_that_are_missing_at_the_end() -> None:
    lines = traced()[:-2]
    found = replay(lines).divergence
    assert found is not None
    assert found.line == len(lines) + 1
    assert found.recorded is None


def test_an_action_too_many() -> None:
    lines = traced()
    at = find(lines, "ProtocolViolation")
    found = replay([*lines[:at], lines[at - 1], *lines[at:]]).divergence
    assert found is not None
    assert (found.line, found.replayed) == (at + 1, None)


def test_what_was_raised_is_compared() -> None:
    lines = traced()
    at = find(lines, "NotReadyError")
    found = replay(edited(lines, at, raised=None)).divergence
    assert found is not None
    assert (found.line, found.recorded, found.replayed) == (at, None, {"raised": "NotReadyError"})


def test_a_gap_ends_the_replay() -> None:
    lines = traced()
    lines.insert(8, encode_line(Gap(reason="the disk was too slow")))
    result = replay(lines)
    assert (result.gap, result.gap_line, result.divergence) == ("the disk was too slow", 9, None)
    assert result.inputs


def test_what_began_before_the_trace_is_left_out() -> None:
    whole = traced()
    began = edited(traced(complete=False), 2, connection=1)[1:]
    second = [line.replace('"connection":1', '"connection":2') for line in whole[1:]]
    result = replay([whole[0], *began, *second])
    assert (result.connections, result.incomplete, result.divergence) == (1, 1, None)
    with pytest.raises(TraceError, match="from its beginning"):
        replay(traced(complete=False))


def test_a_gap_before_everything() -> None:
    with pytest.raises(TraceError, match="slow"):
        replay([traced()[0], encode_line(Gap(reason="the disk was too slow"))])


def test_what_is_no_trace() -> None:
    lines = traced()
    with pytest.raises(TraceError, match="the trace is empty"):
        list(read([]))
    with pytest.raises(TraceError, match="line 1: a trace begins with its header, and has one"):
        list(read(lines[1:]))
    with pytest.raises(TraceError, match="line 2: a trace begins with its header, and has one"):
        list(read([lines[0], *lines]))
    with pytest.raises(TraceError, match="line 2: the connections are not numbered from 1"):
        list(read(edited(lines, 2, connection=2)))
    with pytest.raises(TraceError, match="line 3: of a connection that did not begin"):
        list(read(edited(lines, 3, connection=2)))
    with pytest.raises(TraceError, match="line 2: of a connection that did not begin"):
        list(read([lines[0], lines[2]]))
    sample = Sample(connection=0, now=1.0, outgoing=0, events=0)
    with pytest.raises(TraceError, match="line 3: of a connection that did not begin"):
        list(read([*lines[:2], encode_line(sample)]))


def test_a_configuration_that_makes_no_core() -> None:
    lines = traced()
    config = {**json.loads(lines[1])["config"], "is": "ClientConfig"}
    with pytest.raises(TraceError, match=r"line 2: no core can be made .*\(TypeError\)"):
        replay(edited(lines, 2, role="server", config=config))


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "MAX_CONNECTIONS", 1)
    with pytest.raises(TraceError, match="numbered"):
        replay(traced(connections=2))
