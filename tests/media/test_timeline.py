"""Where sound and picture are placed, by reports and by arrival. No file, no clock."""

from __future__ import annotations

from itertools import pairwise

import pytest

from navtalk_asyncio.media.timeline import SLEW_SECONDS, Timeline
from navtalk_proto.media import MediaKind

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
NTP = 3_990_000_000.0


def test_without_reports_what_arrives_together_belongs_together() -> None:
    timeline = Timeline()
    assert timeline.place(AUDIO, "a", 0.0, arrival=100.0, sender_time=None) == 100.0
    assert timeline.place(VIDEO, "v", 0.0, arrival=100.25, sender_time=None) == 100.25
    # Jitter and drift change nothing from then on.
    assert timeline.place(AUDIO, "a", 0.02, arrival=100.4, sender_time=None) == 100.0
    assert timeline.place(VIDEO, "v", 0.04, arrival=100.8, sender_time=None) == 100.25
    assert timeline.source == "arrival"


def test_a_first_frame_that_was_late_is_placed_by_those_that_were_not() -> None:
    timeline = Timeline()
    shift = timeline.place(AUDIO, "a", 0.0, arrival=100.5, sender_time=None, earliest=100.1)
    assert shift == 100.1


@pytest.mark.parametrize("first", [AUDIO, VIDEO])
def test_reports_relate_the_tracks_whichever_comes_first(first: MediaKind) -> None:
    """The picture arrives 0.3 s late; its timestamp 0 is 0.1 s after the sound's."""
    timeline = Timeline()

    def audio() -> float:
        return timeline.place(AUDIO, "a", 0.0, arrival=100.0, sender_time=NTP)

    def video() -> float:
        return timeline.place(VIDEO, "v", 0.0, arrival=100.4, sender_time=NTP + 0.1)

    if first is AUDIO:
        sound, picture = audio(), video()
    else:
        picture, sound = video(), audio()
    assert picture - sound == pytest.approx(0.1)
    assert timeline.source == "sender-reports"


def test_drift_of_the_picture_is_taken_out_and_the_sound_is_left_alone() -> None:
    """The sound's clock runs 200 ppm fast: 0.12 s in ten minutes."""
    timeline = Timeline()
    speed, worst = 1 + 200e-6, 0.0
    for number in range(30_000):
        at = number * 0.02
        sound = timeline.place(AUDIO, "a", at * speed, arrival=100 + at, sender_time=NTP + at)
        assert sound == 100.0
        if number % 2 == 0:
            picture = timeline.place(VIDEO, "v", at, arrival=100 + at, sender_time=NTP + at)
            worst = max(worst, abs((picture + at) - (sound + at * speed)))
    assert worst <= 0.006


def test_first_reports_move_the_picture_gently() -> None:
    timeline = Timeline()
    timeline.place(AUDIO, "a", 0.0, arrival=100.0, sender_time=None)
    timeline.place(VIDEO, "v", 0.0, arrival=100.1, sender_time=None)
    shifts = []
    for number in range(1, 200):
        at = number * 0.04
        timeline.place(AUDIO, "a", at, arrival=100 + at, sender_time=NTP + at)
        shifts.append(timeline.place(VIDEO, "v", at, arrival=100.1 + at, sender_time=NTP + at))
    assert shifts[0] == pytest.approx(100.1 - SLEW_SECONDS)
    assert shifts[-1] == pytest.approx(100.0, abs=0.006)
    assert all(b <= a for a, b in pairwise(shifts))


def test_a_clock_that_is_set_is_no_drift() -> None:
    """The picture's reports jump an hour, the sound's two seconds later: nothing moves. If the
    sound's do not follow, the picture does."""
    timeline = Timeline()

    def both(start: float, end: float, audio_jump: float, video_jump: float) -> float:
        at, shift = start, 0.0
        while at < end:
            timeline.place(AUDIO, "a", at, arrival=100 + at, sender_time=NTP + at + audio_jump)
            shift = timeline.place(
                VIDEO, "v", at, arrival=100 + at, sender_time=NTP + at + video_jump
            )
            at += 0.04
        return shift

    assert both(0, 5, 0, 0) == 100.0
    assert both(5, 7, 0, 3600) == 100.0
    assert both(7, 60, 3600, 3600) == 100.0
    assert both(60, 62, 3600, 3601) == 100.0
    assert both(62, 70, 3600, 3601) == pytest.approx(101.0)


def test_a_sender_that_relates_what_is_far_apart_is_not_believed_at_first() -> None:
    timeline = Timeline()
    timeline.place(AUDIO, "a", 0.0, arrival=100.0, sender_time=NTP)
    assert timeline.place(VIDEO, "v", 0.0, arrival=100.2, sender_time=NTP + 900) == 100.2


def test_a_new_track_goes_on_behind_what_was_placed() -> None:
    timeline = Timeline()
    timeline.place(VIDEO, "one", 0.0, arrival=7.0, sender_time=None)
    timeline.place(VIDEO, "one", 4.0, arrival=9.0, sender_time=None)
    assert timeline.place(VIDEO, "two", 1.0, arrival=13.0, sender_time=None) == 12.0
    # One that would be placed before the end of the last is placed there.
    timeline.place(AUDIO, "one", 0.0, arrival=7.0, sender_time=None)
    timeline.place(AUDIO, "one", 5.0, arrival=7.2, sender_time=None)
    assert timeline.place(AUDIO, "two", 0.0, arrival=8.0, sender_time=None) == 12.0
