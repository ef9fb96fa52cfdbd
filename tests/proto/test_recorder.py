"""What a recorder writes of what a pump does."""

from __future__ import annotations

import json
from typing import Any

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import NotReadyError
from navtalk_proto.events import Reconnecting
from navtalk_proto.inputs import IntentGiven, TextReceived, TransportOpened
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.media import MediaKind
from navtalk_proto.roles import Role
from navtalk_proto.stats import MediaStats, ReceivedTrackStats
from navtalk_proto.tracing.recorder import SAMPLE_SECONDS, Recorder, Recording
from navtalk_proto.tracing.scrubber import Scrubber

LICENCE = "sk_navtalk_EXAMPLE"


class Written:
    """A recorder, and the lines that it wrote."""

    def __init__(self, scrubber: Scrubber | None = None) -> None:
        self.lines: list[str] = []
        self.recorder = Recorder(
            self.lines.append,
            scrubber or Scrubber([LICENCE]),
            started="2026-01-01T00:00:00Z",
            versions={"navtalk": "1.2"},
        )
        self.core = Connection(Role.CLIENT, ClientConfig(media=()), now=5.0)

    def recording(self, *, complete: bool = True) -> Recording:
        return self.recorder.connection(self.core, now=5.0, complete=complete)

    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found


def test_a_trace_begins_with_what_ran() -> None:
    written = Written(Scrubber(audio=False))
    assert written.last["versions"]["navtalk"] == "1.2"
    assert written.last["versions"]["python"].startswith("3.")
    assert written.last["omitted"] == ["audio"]


def test_connections_are_numbered_and_bring_their_configuration() -> None:
    written = Written()
    written.recording()
    assert (written.last["connection"], written.last["complete"]) == (1, True)
    assert written.last["config"]["connect_timeout"] == 30.0
    written.recording(complete=False)
    assert (written.last["connection"], written.last["complete"]) == (2, False)


def test_an_input_is_followed_by_its_actions() -> None:
    written = Written()
    recording = written.recording()
    for given, now in ((TransportOpened(), 5.0), (TextReceived(text="no JSON"), 6.0)):
        given.give(written.core, now=now)  # type: ignore[attr-defined]
        recording.happened(given, written.core.actions(), now=now, raised=None)  # type: ignore[arg-type]
    told = [json.loads(line) for line in written.lines[2:]]
    assert [line["line"] for line in told] == ["in", "in", "out"]
    assert told[1]["now"] == 6.0
    assert told[2]["action"]["event"]["is"] == "ProtocolViolation"


def test_what_the_core_raised_is_recorded() -> None:
    written = Written()
    intent = IntentGiven(intent=SendAudio(pcm=bytes(2)))
    written.recording().happened(intent, [], now=6.0, raised=NotReadyError("too early"))
    assert written.last["raised"] == "NotReadyError"


def test_secrets_are_not_written() -> None:
    written = Written()
    recording = written.recording()
    recording.happened(
        IntentGiven(intent=SayText(text=f"my licence is {LICENCE}")), [], now=6.0, raised=None
    )
    event = Reconnecting(attempt=1, delay=0.5, reason=f"{LICENCE} was refused")
    written.recorder.told(event, now=7.0)
    assert written.last["event"]["is"] == "Reconnecting"
    assert LICENCE not in "".join(written.lines)


def test_a_message_that_cannot_be_scrubbed_leaves_a_gap() -> None:
    written = Written(Scrubber(text=False))
    recording = written.recording()
    recording.happened(TextReceived(text='{"type": true'), [], now=6.0, raised=None)
    assert written.last["line"] == "gap"


def test_what_cannot_be_recorded_is_said() -> None:
    written = Written()
    written.recorder.broken(KeyError(LICENCE))
    assert written.last == {
        "line": "gap",
        "reason": "this could not be recorded: KeyError",
        "lines": 0,
    }


def test_samples_are_not_more_often_than_they_are_due() -> None:
    written = Written()
    recording = written.recording()
    assert not recording.sample_due(5.0 + SAMPLE_SECONDS / 2)
    assert recording.sample_due(5.0 + SAMPLE_SECONDS)
    track = ReceivedTrackStats(track_id="v", kind=MediaKind.VIDEO, packets=7)
    recording.sample(now=6.0, outgoing=3, events=4, media=MediaStats(received=(track,)))
    assert written.last["media"]["received"][0]["packets"] == 7
    assert not recording.sample_due(6.5)
