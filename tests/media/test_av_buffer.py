"""Sound and picture for a player: in the order in which they belong."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest

from navtalk_asyncio.media.av_buffer import HOLD_SECONDS, PICTURES, AvBuffer, DecodedFrame
from navtalk_asyncio.media.sender_reports import SenderClock, TrackTiming
from navtalk_proto.media import MediaKind

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
RATES = {VIDEO: 90_000, AUDIO: 48_000}


class Player:
    def __init__(self, *, reports: bool = True) -> None:
        self.buffer = AvBuffer()
        self.reports = reports

    def put(self, kind: MediaKind, at: float, *, delay: float = 0.0) -> None:
        """A frame of the sender's time `at`."""
        rate = RATES[kind]
        clock = SenderClock(clock_rate=rate, offset=1e9) if self.reports else None
        self.buffer.put(
            DecodedFrame(
                kind=kind,
                frame=SimpleNamespace(pts=round(at * rate), time_base=Fraction(1, rate)),
                timing=TrackTiming(track_id=kind.value, clock=clock),
                arrival=100 + at + delay,
            )
        )

    def taken(self) -> list[tuple[str, float]]:
        found = []
        while (frame := self.buffer.take()) is not None:
            found.append((frame.kind.value, round(frame.time - 100, 3)))
        return found


def test_what_arrives_early_waits_for_what_belongs_before_it() -> None:
    """The picture is 0.1 s late."""
    player = Player()
    player.put(AUDIO, 0.0)
    player.put(AUDIO, 0.02)
    assert player.taken() == []
    player.put(VIDEO, 0.0, delay=0.1)
    assert player.taken() == [("audio", 0.0), ("video", 0.0)]
    player.put(AUDIO, 0.04)
    player.put(VIDEO, 0.03, delay=0.1)
    assert player.taken() == [("audio", 0.02), ("video", 0.03)]


def test_a_whole_call_comes_in_order_with_nothing_lost() -> None:
    player = Player()
    frames = [(n * 0.02, AUDIO, 0.01) for n in range(500)]
    frames += [(n * 0.04, VIDEO, 0.15) for n in range(250)]
    times = []
    for at, kind, delay in sorted(frames, key=lambda frame: frame[0] + frame[2]):
        player.put(kind, at, delay=delay)
        times += [time for _, time in player.taken()]
    assert times == sorted(times)
    assert len(times) >= 735
    assert player.buffer.dropped == 0


@pytest.mark.parametrize("kind", [VIDEO, AUDIO])
def test_one_kind_alone_is_held_only_at_the_beginning(kind: MediaKind) -> None:
    player = Player()
    player.put(kind, 0.0)
    assert player.taken() == []
    player.put(kind, HOLD_SECONDS)
    assert player.taken() == [(kind.value, 0.0), (kind.value, HOLD_SECONDS)]
    player.put(kind, 0.3)
    assert player.taken() == [(kind.value, 0.3)]


def test_a_kind_that_stops_is_not_waited_for() -> None:
    player = Player()
    player.put(VIDEO, 0.0)
    player.put(AUDIO, 0.0)
    assert len(player.taken()) == 2
    for n in range(1, 40):
        player.put(AUDIO, n * 0.02)
    assert [time for _, time in player.taken()][-1] == 0.78


def test_without_reports_what_arrives_together_belongs_together() -> None:
    player = Player(reports=False)
    player.put(AUDIO, 0.0)
    player.put(VIDEO, 0.0, delay=0.1)
    player.put(AUDIO, 0.12)
    assert player.taken() == [("audio", 0.0), ("video", 0.1)]


def test_a_slow_player_loses_the_oldest_and_is_bounded() -> None:
    player = Player()
    for n in range(PICTURES + 3):
        player.put(VIDEO, n * 0.04)
    assert player.buffer.dropped == 3
    player.buffer.clear()
    assert player.taken() == []
