from __future__ import annotations

import attrs
import pytest

from navtalk_proto.actions import MediaResult
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.media import MediaEvent, MediaKind, MediaStarted, OpId


def test_counters_start_at_nothing_received() -> None:
    counters = TrackCounters(kind=MediaKind.AUDIO)
    assert attrs.asdict(counters) == {
        "kind": MediaKind.AUDIO,
        "packets": 0,
        "bytes": 0,
        "frames_decoded": 0,
        "frames_dropped": 0,
        "last_packet": None,
    }


def test_counters_are_a_moment_and_do_not_change() -> None:
    counters = TrackCounters(kind=MediaKind.VIDEO, packets=3, last_packet=7.5)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        counters.packets = 4  # type: ignore[misc]
    assert counters == TrackCounters(kind=MediaKind.VIDEO, packets=3, last_packet=7.5)
    with pytest.raises(TypeError):
        TrackCounters()  # type: ignore[call-arg]


def test_an_engine_reports_through_three_functions() -> None:
    reported: list[object] = []

    def done(op: OpId, result: MediaResult) -> None:
        reported.append((op, result))

    def failed(op: OpId, reason: str) -> None:
        reported.append((op, reason))

    def event(event: MediaEvent) -> None:
        reported.append(event)

    callbacks = EngineCallbacks(done=done, failed=failed, event=event)
    started = MediaStarted(track_id="t", kind=MediaKind.VIDEO)
    callbacks.done(OpId(1), None)
    callbacks.failed(OpId(2), "no codec")
    callbacks.event(started)
    assert reported == [(1, None), (2, "no codec"), started]
    with pytest.raises(TypeError):
        EngineCallbacks(done=done, failed=failed)  # type: ignore[call-arg]
