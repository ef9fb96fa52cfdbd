"""Snapshots: what is derived from them."""

from __future__ import annotations

import attrs
import pytest

from navtalk_proto.connection import Counters
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import (
    IcePairStats,
    MediaStats,
    ReceivedTrackStats,
    SentTrackStats,
    SessionStats,
    TurnLatency,
)


def session(media: MediaStats) -> SessionStats:
    return SessionStats(at=1.0, media=media, counters=Counters())


def pair(round_trip_time: float | None) -> IcePairStats:
    return IcePairStats(
        local="127.0.0.1:1",
        remote="127.0.0.1:2",
        local_type="host",
        remote_type="host",
        protocol="udp",
        round_trip_time=round_trip_time,
    )


def test_the_round_trip_is_that_of_the_pair_or_else_of_rtcp() -> None:
    sent = (
        SentTrackStats(kind=MediaKind.VIDEO),
        SentTrackStats(kind=MediaKind.AUDIO, round_trip_time=0.2),
    )
    assert session(MediaStats()).round_trip_time is None
    assert session(MediaStats(sent=sent)).round_trip_time == 0.2
    assert session(MediaStats(sent=sent, pair=pair(None))).round_trip_time == 0.2
    assert session(MediaStats(sent=sent, pair=pair(0.1))).round_trip_time == 0.1


def test_the_first_track_of_a_kind_is_the_one() -> None:
    first = ReceivedTrackStats(track_id="a", kind=MediaKind.VIDEO)
    second = ReceivedTrackStats(track_id="b", kind=MediaKind.VIDEO)
    stats = session(MediaStats(received=(first, second)))
    assert stats.received(MediaKind.VIDEO) is first
    assert stats.received(MediaKind.AUDIO) is None


def test_a_latency_that_is_not_known_is_none() -> None:
    turn = TurnLatency(speech_end=1.0, first_audio=1.5)
    assert (turn.to_first_text, turn.to_first_audio, turn.to_first_movement) == (None, 0.5, None)
    assert turn.lip_offset is None
    assert TurnLatency(speech_end=1.0).lip_offset is None


@pytest.mark.parametrize("kind", [SessionStats, MediaStats, TurnLatency, ReceivedTrackStats])
def test_a_snapshot_cannot_be_changed(kind: type) -> None:
    stats = {
        SessionStats: session(MediaStats()),
        MediaStats: MediaStats(),
        TurnLatency: TurnLatency(speech_end=0.0),
        ReceivedTrackStats: ReceivedTrackStats(track_id="a", kind=MediaKind.AUDIO),
    }[kind]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        stats.at = 3.0  # type: ignore[attr-defined]
