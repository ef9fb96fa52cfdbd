"""What a meter is told of sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navtalk_proto.connection import Counters
from navtalk_proto.instruments import INSTRUMENTS, observe_sessions
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import (
    AvSync,
    MediaStats,
    ReceivedTrackStats,
    SentTrackStats,
    SessionStats,
    TurnLatency,
)

FULL = SessionStats(
    at=1.0,
    media=MediaStats(
        received=(
            ReceivedTrackStats(
                track_id="v", kind=MediaKind.VIDEO, bytes=1000, freezes=2, decode_seconds=0.003
            ),
            ReceivedTrackStats(track_id="a", kind=MediaKind.AUDIO, bytes=10, loss=0.5),
        ),
        sent=(SentTrackStats(kind=MediaKind.AUDIO, bytes=7, round_trip_time=0.04),),
        av_sync=AvSync(source="sender-reports", offset=-0.02),
    ),
    latencies=(
        TurnLatency(speech_end=1.0, first_text=1.25, first_audio=1.5),
        TurnLatency(speech_end=5.0, first_text=5.5),
    ),
    counters=Counters(),
)


class Meter:
    """Keeps what it is to ask."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.asked: dict[str, Callable[[object], list[Any]]] = {}

    def create_observable_counter(
        self, name: str, callbacks: Any = (), unit: str = "", description: str = ""
    ) -> None:
        self.kinds[name] = "counter"
        (self.asked[name],) = callbacks

    def create_observable_gauge(
        self, name: str, callbacks: Any = (), unit: str = "", description: str = ""
    ) -> None:
        self.kinds[name] = "gauge"
        (self.asked[name],) = callbacks

    def points(self, name: str) -> list[Any]:
        return self.asked[name](None)


def observed(*sessions: tuple[SessionStats, dict[str, str]]) -> Meter:
    meter = Meter()
    observe_sessions(lambda: sessions, meter, lambda value, attributes: (value, dict(attributes)))
    return meter


def test_points_say_which_track_and_which_session() -> None:
    meter = observed((FULL, {"room": "1"}))
    video = {"room": "1", "media.kind": "video", "media.direction": "received"}
    audio = {**video, "media.kind": "audio"}
    assert meter.points("navtalk.media.received") == [(1000, video), (10, audio)]
    assert meter.points("navtalk.media.sent") == [(7, {**audio, "media.direction": "sent"})]
    assert meter.points("navtalk.media.decode.duration") == [(0.003, video)]
    assert meter.points("navtalk.media.loss") == [(0.0, video), (0.5, audio)]


def test_a_latency_is_that_of_the_newest_turn_that_has_it() -> None:
    meter = observed((FULL, {}))
    assert meter.points("navtalk.answer.latency") == [
        (0.5, {"navtalk.answer": "first_text"}),
        (0.5, {"navtalk.answer": "first_audio"}),
    ]
    assert meter.points("navtalk.round_trip.duration") == [(0.04, {})]
    assert meter.points("navtalk.media.av_offset") == [(-0.02, {})]


def test_what_is_not_known_is_not_told() -> None:
    silent = SessionStats(
        at=0.0, media=MediaStats(sent=(SentTrackStats(kind=MediaKind.VIDEO),)), counters=Counters()
    )
    meter = observed((silent, {}))
    told = {name: meter.points(name) for name in meter.asked}
    sent = {"media.kind": "video", "media.direction": "sent"}
    assert told.pop("navtalk.media.sent") == [(0, sent)]
    assert not any(told.values())
    assert all(not Meter.points(observed(), name) for name in meter.asked)


def test_sums_are_counters_and_the_rest_are_gauges() -> None:
    meter = observed()
    assert {name for name, kind in meter.kinds.items() if kind == "counter"} == {
        "navtalk.media.received",
        "navtalk.media.sent",
        "navtalk.media.freeze",
        "navtalk.media.freeze.duration",
    }
    assert len(meter.kinds) == len(INSTRUMENTS)
