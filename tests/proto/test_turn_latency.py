"""The stamps of a turn, the beginning of a sound, and the first picture that changed."""

from __future__ import annotations

import struct

import pytest

from navtalk_proto.events import (
    Ready,
    ResponseDone,
    ResponseInterrupted,
    ResponseStarted,
    UserSilent,
    UserSpeaking,
)
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import TurnLatency
from navtalk_proto.turn_latency import (
    MOUTH_LEAD,
    PictureWatch,
    SoundWatch,
    TurnLatencyMeter,
    is_voice,
)

AUDIO, VIDEO = MediaKind.AUDIO, MediaKind.VIDEO


def pcm(level: int, samples: int = 480) -> bytes:
    return struct.pack("<2h", level, -level) * (samples // 2)


LOUD, QUIET = pcm(5000), pcm(20)


def test_voice_is_louder_than_a_quiet_room() -> None:
    assert is_voice(LOUD)
    assert is_voice(LOUD + b"\x00")
    assert not is_voice(QUIET)
    assert not is_voice(b"")


def spoken() -> TurnLatencyMeter:
    """A user who spoke until 10.0, which the server told at 10.6."""
    meter = TurnLatencyMeter()
    meter.observe(UserSpeaking(), now=9.0)
    meter.voice_sent(LOUD, now=10.0)
    meter.voice_sent(QUIET, now=10.5)
    meter.observe(UserSilent(), now=10.6)
    return meter


def test_a_spoken_turn_from_the_last_voice_to_the_mouth() -> None:
    meter = spoken()
    assert meter.watching
    meter.observe(ResponseStarted(response_id="r"), now=10.9)
    meter.observe(ResponseStarted(response_id="r2"), now=10.95)
    meter.media(AUDIO, 11.0)
    meter.media(AUDIO, 11.5)
    assert meter.watching
    meter.media(VIDEO, 11.04)
    meter.media(VIDEO, 11.08)
    assert not meter.watching
    (turn,) = meter.latencies
    assert turn == TurnLatency(
        speech_end=10.0,
        silence_told=10.6,
        first_text=10.9,
        first_audio=11.0,
        first_movement=11.04,
    )
    assert turn.to_first_text == pytest.approx(0.9)
    assert turn.to_first_audio == pytest.approx(1.0)
    assert turn.to_first_movement == pytest.approx(1.04)
    assert turn.lip_offset == pytest.approx(0.04)


def test_a_session_watches_while_the_user_speaks_and_nothing_counts_then() -> None:
    meter = TurnLatencyMeter()
    assert not meter.watching
    meter.observe(Ready(), now=1.0)
    meter.observe(ResponseStarted(response_id=None), now=1.5)
    assert meter.latencies == ()
    meter.observe(UserSpeaking(), now=2.0)
    assert meter.watching
    meter.media(AUDIO, 2.1)
    assert meter.latencies == ()


def test_without_voice_of_ours_the_end_of_speech_is_when_it_was_told() -> None:
    meter = TurnLatencyMeter()
    meter.observe(UserSilent(), now=3.0)
    assert meter.latencies[0].speech_end == 3.0


def test_a_typed_turn_begins_when_it_is_sent() -> None:
    meter = TurnLatencyMeter()
    meter.asked(now=4.0)
    meter.media(AUDIO, 3.9)  # the end of what was said before
    meter.media(AUDIO, 4.2)
    (turn,) = meter.latencies
    assert (turn.typed, turn.speech_end, turn.first_audio) == (True, 4.0, 4.2)
    assert turn.to_first_movement is None
    assert turn.lip_offset is None


def test_a_mouth_may_open_a_little_before_the_sound_and_a_blink_is_no_mouth() -> None:
    meter = spoken()
    meter.media(VIDEO, 10.7)  # a blink
    meter.media(VIDEO, 10.95)
    meter.media(VIDEO, 10.99)
    meter.media(AUDIO, 11.0)
    (turn,) = meter.latencies
    assert turn.first_movement == 10.95
    meter = spoken()
    meter.media(VIDEO, 11.0 - MOUTH_LEAD - 0.01)
    meter.media(AUDIO, 11.0)
    assert meter.latencies[0].first_movement is None
    meter.media(VIDEO, 10.9)  # decoded late: it was before the mouth could
    assert meter.latencies[0].first_movement is None


def test_a_turn_ends_with_its_answer_or_with_the_next_turn() -> None:
    meter = spoken()
    meter.observe(ResponseDone(response_id="r", text=""), now=10.7)
    assert meter.watching  # it says nothing yet
    meter.media(AUDIO, 11.0)
    meter.observe(ResponseDone(response_id="r", text=""), now=12.0)
    assert not meter.watching
    meter.asked(now=20.0)
    meter.observe(UserSpeaking(), now=20.5)
    first, second = meter.latencies
    assert not first.interrupted
    assert second.interrupted


def test_an_interrupted_answer_that_was_heard_is_measured() -> None:
    meter = spoken()
    meter.media(AUDIO, 11.0)
    meter.observe(ResponseInterrupted(response_id="r", text="", heard=""), now=11.5)
    (turn,) = meter.latencies
    assert not turn.interrupted
    assert not meter.watching


def test_a_sound_begins_after_silence() -> None:
    watch = SoundWatch()
    assert not watch.heard(LOUD, at=1.00)  # an old one
    assert not watch.heard(QUIET, at=1.02)
    assert not watch.heard(LOUD, at=1.04)  # a stop consonant
    for at in (1.06, 1.08, 1.10, 1.12, 1.14):
        assert not watch.heard(QUIET, at=at)
    assert watch.heard(LOUD, at=1.17)
    assert not watch.heard(LOUD, at=1.19)


def test_silence_when_the_watch_begins_is_taken_to_have_lasted() -> None:
    watch = SoundWatch()
    assert not watch.heard(QUIET, at=1.00)
    assert watch.heard(LOUD, at=1.02)


def grid(**changed: int) -> bytes:
    picture = bytearray([100] * 64)
    for place, value in changed.items():
        picture[int(place[1:])] = value
    return bytes(picture)


def test_a_picture_changes_where_idle_ones_do_not() -> None:
    watch = PictureWatch()
    assert not watch.picture(grid(), idle=True)
    blink = grid(p1=160, p2=160, p3=160)
    assert not watch.picture(blink, idle=True)
    assert not watch.picture(grid(), idle=True)
    assert not watch.picture(grid(), idle=False)
    assert not watch.picture(blink, idle=False)  # known
    assert not watch.picture(grid(p9=0, p8=0), idle=False)  # two places are noise
    assert watch.picture(grid(p20=30, p21=30, p22=30, p9=0, p8=0), idle=False)


def test_what_is_known_fades() -> None:
    watch = PictureWatch()
    blink = grid(p1=160, p2=160, p3=160)
    for picture in (grid(), blink, grid()):
        watch.picture(picture, idle=True)
    for number in range(2000):
        watch.picture(grid(p50=100 + number % 2), idle=True)
    watch.picture(grid(), idle=False)
    assert watch.picture(blink, idle=False)


def test_pictures_of_another_size_begin_anew() -> None:
    watch = PictureWatch()
    assert not watch.picture(bytes(64), idle=False)
    assert not watch.picture(bytes([255] * 16), idle=False)
    assert watch.picture(bytes(16), idle=False)


def test_a_mouth_that_spoke_meanwhile_teaches_nothing() -> None:
    watch = PictureWatch()
    mouth = grid(p20=30, p21=30, p22=30)
    watch.picture(grid(), idle=True)
    watch.picture(mouth, idle=False)
    watch.pause()
    watch.picture(grid(), idle=True)
    watch.picture(grid(), idle=True)
    assert watch.picture(mouth, idle=False)
