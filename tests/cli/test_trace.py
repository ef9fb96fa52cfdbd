"""``navtalk trace`` and ``navtalk replay``: real traces, edited ones, hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from navtalk_asyncio.cli import trace_files
from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.cli.timeline import timeline, timeline_page
from navtalk_asyncio.cli.trace_files import trace_records
from navtalk_asyncio.cli.trace_rows import NOTE, message_type, rows
from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import NavTalkError
from navtalk_proto.events import Reconnecting
from navtalk_proto.inputs import (
    BinaryReceived,
    Input,
    IntentGiven,
    MediaDone,
    MediaFailed,
    MediaHappened,
    TextReceived,
    TimePassed,
    TransportClosed,
    TransportOpened,
)
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.media import (
    IceServerFailed,
    MediaKind,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    OpId,
    TrackAdded,
)
from navtalk_proto.roles import Role
from navtalk_proto.stats import MediaStats, ReceivedTrackStats
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.records import Gap, TraceError
from navtalk_proto.tracing.scrubber import Scrubber
from navtalk_proto.wire.messages import ToolResult

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b[31m"


def message(kind: str, **data: Any) -> TextReceived:
    return TextReceived(text=json.dumps({"type": kind, "message": "", "data": data}))


INPUTS: tuple[Input, ...] = (
    TransportOpened(),
    IntentGiven(intent=SendAudio(pcm=bytes(2))),  # too early: refused
    message("conversation.connected.success", sessionId="s-1"),
    MediaHappened(event=MediaStateChanged(state=MediaState.CHECKING)),
    MediaHappened(event=IceServerFailed(url="stun:stun.example.org", reason="no answer")),
    MediaHappened(event=MediaStateChanged(state=MediaState.CONNECTED)),
    message("webrtc.signaling.iceCandidate", candidate={"candidate": "", "sdpMid": "0"}),
    MediaHappened(event=TrackAdded(track_id="v", kind=MediaKind.VIDEO)),
    MediaHappened(event=MediaStarted(track_id="v", kind=MediaKind.VIDEO)),
    message("realtime.session.updated"),
    IntentGiven(intent=SendAudio(pcm=bytes(9600))),
    IntentGiven(intent=SendAudio(pcm=bytes(9600))),
    message("realtime.input_audio_buffer.speech_started"),
    message("realtime.input_audio_buffer.speech_stopped"),
    message("realtime.conversation.item.input_audio_transcription.completed", content=HOSTILE),
    message("realtime.response.audio_transcript.delta", id="r1", content="At "),
    message("realtime.response.audio_transcript.done", id="r1", content=f"At seven. {HOSTILE}"),
    message("realtime.response.audio.done"),
    message(
        "realtime.response.function_call_arguments.done",
        name="weather",
        call_id="c1",
        arguments='{"city": "Rome"}',
    ),
    IntentGiven(intent=ToolResult(call_id="c1", output="rain")),
    IntentGiven(intent=SayText(text="hello?")),
    message("realtime.response.audio_transcript.delta", id="r2", content="Yes"),
    message("realtime.input_audio_buffer.speech_started"),
    TextReceived(text="no JSON"),
    message(HOSTILE),
    BinaryReceived(size=3),
    MediaDone(op=OpId(90)),
    MediaFailed(op=OpId(91), reason="late"),
    MediaHappened(event=MediaStateChanged(state=MediaState.FAILED, reason="no pair")),
    TimePassed(),
    TransportClosed(code=1000, reason="bye"),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace in which everything happens, half a second apart."""
    lines: list[str] = []
    recorder = Recorder(
        lines.append, Scrubber(), started="2026-01-01T00:00:00Z", versions={"navtalk": "1"}
    )
    core = Connection(Role.CLIENT, ClientConfig(), now=100.0)
    recording = recorder.connection(core, now=100.0, complete=True)
    for number, given in enumerate(INPUTS):
        now, raised = 100.0 + number / 2, None
        try:
            given.give(core, now=now)
        except NavTalkError as error:
            raised = error
        recording.happened(given, core.actions(), now=now, raised=raised)
        track = ReceivedTrackStats(
            track_id="v", kind=MediaKind.VIDEO, frames_per_second=25.0 - number % 3
        )
        recording.sample(now=now, outgoing=number, events=2, media=MediaStats(received=(track,)))
    recorder.told(Reconnecting(attempt=1, delay=0.5, reason="lost"), now=200.0)
    path = tmp_path / "call.jsonl"
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.setenv("NAVTALK_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return lambda *arguments: run(AsyncioBackend(), [str(argument) for argument in arguments])


def edited(path: Path, old: str, new: str) -> int:
    """Replace the first of something; returns the line, counted from 1."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return text[: text.index(old)].count("\n") + 1


# ---- replay


def test_a_trace_that_goes_the_same_way(command: Any, trace: Path, capsys: Any) -> None:
    assert command("replay", trace) == 0
    assert "of 1 connection, all the same" in capsys.readouterr().out
    assert command("replay", trace, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, SCHEMA)
    assert told["inputs"] == len(INPUTS)
    assert told["divergence"] is None


def test_an_edited_line_is_named_and_shown(command: Any, trace: Path, capsys: Any) -> None:
    line = edited(trace, '"reason":"is not JSON', '"reason":"is JSON')
    assert command("replay", trace) == 8
    out = capsys.readouterr().out
    assert f"line {line}, which follows from the input in line {line - 1}" in out
    assert '-    "reason": "is JSON (at character 0)"' in out
    assert '+    "reason": "is not JSON (at character 0)"' in out
    assert command("replay", trace, "--json") == 8
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, SCHEMA)
    assert told["divergence"]["line"] == line


def test_gaps_and_beginnings_before_the_trace_are_said(
    command: Any, trace: Path, capsys: Any
) -> None:
    lines = trace.read_text("utf-8").splitlines(keepends=True)
    gap = json.dumps({"line": "gap", "reason": "the disk was too slow", "lines": 3}) + "\n"
    late = lines[1].replace('"connection":1', '"connection":2').replace("true", "false", 1)
    trace.write_text("".join([*lines[:8], late, gap, *lines[8:]]), "utf-8")
    assert command("replay", trace) == 0
    out = capsys.readouterr().out
    assert "1 more began before the trace" in out
    assert "up to line 10, where lines are missing: the disk was too slow" in out


BROKEN = {
    "empty": b"",
    "binary": b"\x00\xff\xfe\x89PNG",
    "no JSON": b"hello\n",
    "another format": b'{"some": "JSON"}\n',
    "deep": b"[" * 200_000,
    "another version": b'{"line": "trace", "trace": 99}\n',
    "a picture of a class": b'{"line":"in","input":{"is":"__class__"}}\n',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["replay", "trace"])
def test_what_is_no_trace_is_a_clear_error(
    name: str, content: bytes, command: Any, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(content)
    assert command(name, path) == 2
    told = capsys.readouterr()
    assert "error: " in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.parametrize("name", ["replay", "trace"])
def test_a_trace_that_is_cut_off(name: str, command: Any, trace: Path, capsys: Any) -> None:
    content = trace.read_bytes()
    trace.write_bytes(content[: len(content) // 2])
    assert command(name, trace) == 2
    assert "not JSON, and ends early" in capsys.readouterr().err


def test_a_trace_that_is_too_large(
    command: Any, trace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_files, "MAX_FILES", 1000)
    assert command("replay", trace) == 2
    assert "a trace has at most 1000" in capsys.readouterr().err


def test_a_trace_that_is_not_there(command: Any, tmp_path: Path, capsys: Any) -> None:
    assert command("replay", tmp_path / "none.jsonl") == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_parts_beside_the_file_belong_to_it(trace: Path) -> None:
    part = trace.with_name("call.jsonl.1")
    gap = json.dumps({"line": "gap", "reason": "x", "lines": 1})
    part.write_text(f'{{"line": "part", "number": 0}}\n{gap}\n', "utf-8")
    assert trace_records(trace)[-1][1] == Gap(reason="x", lines=1)
    part.write_text("not one of ours", "utf-8")
    with pytest.raises(TraceError, match="not a part"):
        trace_records(trace)


# ---- trace


def test_the_table_is_plain_where_there_is_no_terminal(
    command: Any, trace: Path, capsys: Any
) -> None:
    assert command("trace", trace, "--table") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "    1.000  received  conversation.connected.success" in out
    assert "refused: NotReadyError" in out
    assert "engine    failed  operation 91: late" in out
    assert "[12]" not in out.splitlines()[0]
    assert "'owned'" in out, "what the peer wrote is there, as text"


def test_the_table_on_a_terminal(
    command: Any, trace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    assert command("trace", trace) == 0
    out = capsys.readouterr().out
    assert "direction" in out
    assert "\x1b[31m" not in out.replace("\\x1b[31m", "")


def test_rows_as_json(command: Any, trace: Path, capsys: Any) -> None:
    assert command("trace", trace, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, SCHEMA)
    assert [row["event"] for row in told["rows"]][:3] == ["begins", "connection", "TransportOpened"]
    assert all(row["line"] for row in told["rows"])


def test_neighbours_that_are_alike_are_one_row(trace: Path) -> None:
    found = rows([(at, record) for at, record in trace_records(trace) if at < 400])
    assert all(
        (one.direction, one.event) != (other.direction, other.event)
        for one, other in pairwise(found)
        if one.connection == other.connection
    )


def test_two_traces_side_by_side(command: Any, trace: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(trace.read_bytes())
    assert command("trace", trace, "--diff", other) == 0
    assert capsys.readouterr().out == "the same happened in both\n"
    edited(other, '"reason":"no pair"', '"reason":"no answer"')
    assert command("trace", trace, "--diff", other) == 8
    out = capsys.readouterr().out
    assert "+engine MediaStateChanged state failed, reason no answer" in out
    assert command("trace", trace, "--diff", other, "--json") == 8
    jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)


def test_the_page_holds_what_the_peer_wrote_as_data(
    command: Any, trace: Path, tmp_path: Path, capsys: Any
) -> None:
    page = tmp_path / "call.html"
    assert command("trace", trace, "--html", page) == 0
    assert capsys.readouterr().out == f"wrote {page}\n"
    text = page.read_text("utf-8")
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "owned" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_a_page_that_cannot_be_written(command: Any, trace: Path, capsys: Any) -> None:
    assert command("trace", trace, "--html", trace.parent / "no" / "page.html") == 2
    assert "No such file" in capsys.readouterr().err


def test_the_timeline_has_a_lane_for_everything(trace: Path) -> None:
    data = timeline(trace_records(trace))
    lanes = {lane["name"]: lane["items"] for lane in data["lanes"]}
    assert all(lanes.values())
    (call,) = lanes["tools"]
    assert call["label"] == "weather"
    assert call["end"] - call["t"] == pytest.approx(0.5)
    assert call["detail"] == 'weather({"city": "Rome"})\nrain'
    assert [item["label"] for item in lanes["media"] if item["kind"] == "span"] == [
        "checking",
        "connected",
    ]
    first, second = data["turns"]
    assert (first["latency"], first["typed"]) == (1.0, False)
    assert (second["latency"], second["typed"], second["end"]) == (0.5, True, "interrupted")
    frames = [item["values"]["frames"] for item in lanes["video"] if item["kind"] == "value"]
    assert len(frames) == len(INPUTS)
    assert "@DATA@" not in timeline_page(data, title="x & y")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("no", "not JSON"), ("[]", "no type"), ('{"type": 5}', "no type"), ('{"type": "a"}', "a")],
)
def test_what_a_message_is_called(text: str, kind: str) -> None:
    assert message_type(text) == kind
    assert len(message_type(json.dumps({"type": "x" * 1000}))) == NOTE
