"""The lines of a trace: what is written is read again; what is no trace is told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navtalk_proto.actions import (
    AbortTransport,
    AddCandidate,
    Emit,
    OpenPeer,
    ResetPeer,
    SendText,
    SetLocal,
)
from navtalk_proto.config import RECEIVE_MEDIA, ClientConfig, ServerConfig
from navtalk_proto.events import CloseCause, Closed, MessageReceived, Reconnecting
from navtalk_proto.ice import any_ice_server, public_ice_servers
from navtalk_proto.inputs import IntentGiven, MediaDone, MediaHappened, TextReceived
from navtalk_proto.intents import SendAudio
from navtalk_proto.media import (
    CandidatePair,
    IcePolicy,
    MediaKind,
    MediaState,
    MediaStateChanged,
    OpId,
)
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.stats import IcePairStats, MediaStats, ReceivedTrackStats
from navtalk_proto.tracing import records
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Gap,
    Header,
    InputRecord,
    Record,
    Sample,
    Told,
    TraceError,
    decode_line,
    encode_action,
    encode_line,
)
from navtalk_proto.wire.messages import (
    Answer,
    FunctionCallDone,
    IceCandidate,
    IceServer,
    InputConfig,
    SessionUpdate,
    UserMessage,
)

OP = OpId(3)
TURN = IceServer(urls=("turn:turn.example.org",), username="u", credential=Secret("p"))
FAILED = MediaStateChanged(
    state=MediaState.FAILED, pairs=(CandidatePair(local="a:1", remote="b:2", state="failed"),)
)
CLIENT = ClientConfig(
    input_config=InputConfig(voice="cedar", tools=({"a": [1, {"b": None}]},)),
    allow_ice_server=any_ice_server,
    history=(UserMessage(texts=("hi",)),),
)


def given(value: Any) -> InputRecord:
    return InputRecord(connection=1, now=2.5, input=value)


def done(action: Any) -> ActionRecord:
    return ActionRecord(connection=1, action=action)


RECORDS: list[Record] = [
    Header(versions={"navtalk": "1"}, started="2026-01-01T00:00:00Z", omitted=("audio",)),
    ConnectionBegan(connection=1, now=1.5, role=Role.CLIENT, complete=True, config=CLIENT),
    ConnectionBegan(
        connection=2,
        now=1.5,
        role=Role.SERVER,
        complete=False,
        config=ServerConfig(ice_servers=(TURN,)),
    ),
    given(TextReceived(text="x\ud800" + "A" * 1000 + "y" + "A" * 64)),
    given(TextReceived(text="A" * 63)),
    given(TextReceived(text=b"\xff\x00x")),
    InputRecord(
        connection=1,
        now=2.0,
        input=IntentGiven(intent=SendAudio(pcm=bytes(100))),
        raised="NotReadyError",
    ),
    given(IntentGiven(intent=SendAudio(pcm=b"\1\2\3\4"))),
    given(IntentGiven(intent=SessionUpdate(session={"is": "x", "line": [1.5, None]}))),
    given(MediaDone(op=OP, result=Answer(sdp="v=0"))),
    given(MediaDone(op=OP)),
    given(MediaHappened(event=FAILED)),
    done(
        Emit(
            event=MessageReceived(
                message=FunctionCallDone(call_id="c", name="n", raw_data={"a": 1})
            )
        )
    ),
    done(OpenPeer(op=OP, ice_servers=(TURN,), policy=IcePolicy.ALL, media=RECEIVE_MEDIA)),
    done(
        ResetPeer(
            op=OP,
            ice_servers=(),
            policy=IcePolicy.RELAY,
            media=(),
            allow_ice_server=any_ice_server,
        )
    ),
    done(SetLocal(op=OP)),
    done(AddCandidate(op=OP, candidate=IceCandidate(candidate=""))),
    done(SendText(text="x", kind="y")),
    done(AbortTransport()),
    Sample(
        connection=1,
        now=3.0,
        outgoing=1,
        events=2,
        media=MediaStats(
            received=(ReceivedTrackStats(track_id="a", kind=MediaKind.AUDIO, packets=3),),
            pair=IcePairStats(
                local="a:1", remote="b:2", local_type="host", remote_type="relay", protocol="udp"
            ),
        ),
    ),
    Told(now=1.0, event=Reconnecting(attempt=1, delay=0.5, reason="lost")),
    Told(now=1.0, event=Closed(cause=CloseCause.LOCAL, code=None, reason="")),
    Gap(reason="the disk was too slow", lines=3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_again(record: Record) -> None:
    line = encode_line(record)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    assert decode_line(line) == record


def test_silence_costs_nothing() -> None:
    assert len(encode_line(given(IntentGiven(intent=SendAudio(pcm=bytes(96_000)))))) < 200
    assert len(encode_line(given(TextReceived(text=f'{{"audio": "{"A" * 128_000}"}}')))) < 200


def test_a_rule_of_the_applications_is_a_rule_of_the_applications() -> None:
    config = ClientConfig(allow_ice_server=public_ice_servers)
    line = encode_line(
        ConnectionBegan(connection=1, now=0.0, role=Role.CLIENT, complete=True, config=config)
    )
    record = decode_line(line)
    assert isinstance(record, ConnectionBegan)
    assert isinstance(record.config, ClientConfig)
    rule = record.config.allow_ice_server
    assert rule is not None
    with pytest.raises(NotImplementedError):
        rule(None, None)  # type: ignore[arg-type]
    assert encode_line(record) == line


def test_an_action_as_it_is_compared() -> None:
    assert encode_action(SendText(text="x", kind="y")) == {
        "text": "x",
        "kind": "y",
        "is": "SendText",
    }
    encoded = encode_action(SetLocal(op=OP, media=RECEIVE_MEDIA))
    assert encoded == json.loads(json.dumps(encoded))


TOLD = json.loads(encode_line(RECORDS[3]))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "line 7: not JSON, and ends early"),
        ('{"line":"in"', "line 7: not JSON, and ends early"),
        ("hello\n", "line 7: not JSON"),
        ("[" * 100_000 + "\n", "line 7: not JSON"),
        ("[]\n", "line 7: not a line of a trace"),
        ("{}\n", "line 7: not a line of a trace"),
        ('{"line": []}\n', "line 7: not a line of a trace"),
        ('{"line": "what"}\n', "line 7: not a line of a trace"),
        ('{"line": "trace", "trace": 2}\n', "not of version 1, which is all that can be read here"),
        ('{"line": "trace", "trace": 1}\n', "line 7: not a record of kind 'trace'"),
        ('{"line": "gap", "reason": 5}\n', "line 7: not a record of kind 'gap'"),
        ('{"line": "gap", "reason": "", "lines": "9"}\n', "not a record of kind 'gap'"),
        ('{"line": "gap", "reason": "", "more": 1}\n', "not a record of kind 'gap'"),
        (json.dumps({**TOLD, "now": True}), "not a record of kind 'in'"),
        (json.dumps({**TOLD, "input": {"is": "Secret"}}), "not a record of kind 'in'"),
        (
            json.dumps({**TOLD, "input": {"is": "TextReceived", "text": ["x", 10**12]}}),
            "not a record of kind 'in'",
        ),
        (
            json.dumps(
                {
                    **TOLD,
                    "input": {
                        "is": "IntentGiven",
                        "intent": {"is": "SendAudio", "pcm": {"silence": 10**12}},
                    },
                }
            ),
            "not a record of kind 'in'",
        ),
    ],
)
def test_what_is_no_record_is_an_error_that_names_the_line(line: str, reason: str) -> None:
    with pytest.raises(TraceError) as caught:
        decode_line(line, line=7)
    assert reason in str(caught.value)
    assert caught.value.line == 7
    assert caught.value.__context__ is None


def test_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 100)
    with pytest.raises(TraceError, match="longer than 100 characters"):
        decode_line(" " * 101)
