"""Where speech begins and ends; and that the cuts of the stream do not matter.

The stream of the first tests is made of whole frames (20 ms, 480 samples), so that every offset can
be written down beforehand. ``question.wav`` was made by::

    printf '%s' 'Hello! What can you tell me about yourself?' |
        espeak-ng --stdin -v en-us+f3 -s 150 -p 55 -w question-22050.wav

then cut to the speech, resampled to 24,000 Hz, with 0.2 s of silence put at both ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import navtalk_asyncio
from navtalk_asyncio.emulator.voice_activity import (
    SpeechBegan,
    SpeechEnded,
    SpeechEvent,
    VoiceActivityConfig,
    VoiceActivityDetector,
    measure,
    rms_dbfs,
)
from navtalk_asyncio.media.audio_file import iter_pcm

QUESTION = b"".join(
    iter_pcm(Path(navtalk_asyncio.__file__).parent / "cli" / "question.wav", frame_ms=1000)
)


def silence(seconds: float) -> bytes:
    return bytes(round(seconds * 24_000) * 2)


def tone(seconds: float, dbfs: float = -20.0) -> bytes:
    """A sine of 300 Hz; its periods fill 20 ms, so each frame has the same level."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    amplitude = 32_768 * 10 ** (dbfs / 20) * np.sqrt(2)
    return bytes(np.round(amplitude * np.sin(2 * np.pi * 300 * t)).astype("<i2"))


def noise(seconds: float, dbfs: float, seed: int = 1) -> bytes:
    samples = np.random.default_rng(seed).normal(0, 32_768 * 10 ** (dbfs / 20), int(seconds * 24e3))
    return bytes(np.clip(samples, -32_768, 32_767).astype("<i2"))


def run(stream: bytes, config: VoiceActivityConfig | None = None) -> list[SpeechEvent]:
    return VoiceActivityDetector(config).feed(stream)


def is_speaking(vad: VoiceActivityDetector) -> bool:
    return vad.speaking


def ended(events: Iterable[SpeechEvent]) -> list[SpeechEnded]:
    return [event for event in events if isinstance(event, SpeechEnded)]


@pytest.mark.parametrize(
    ("pcm", "level"),
    [
        (b"", -96.0),
        (silence(0.1), -96.0),
        (b"\xff\x7f\x01\x80" * 100, 0.0),  # +-32767
        (b"\x00\x40\x00\xc0" * 100, -6.02),  # +-16384, half
        (tone(0.1, -20.0), -20.0),
        (tone(0.1, -50.0), -50.0),
    ],
)
def test_levels(pcm: bytes, level: float) -> None:
    assert rms_dbfs(pcm) == pytest.approx(level, abs=0.05)


def test_half_a_sample_has_no_level() -> None:
    with pytest.raises(ValueError, match="buffer size"):
        rms_dbfs(b"\x00")
    with pytest.raises(ValueError, match="odd"):
        measure(b"\x00")


def test_one_utterance_with_its_padding() -> None:
    stream = silence(1) + tone(1) + silence(1)
    # 300 ms before and 200 ms after, in bytes of 24,000 samples a second.
    assert run(stream) == [
        SpeechBegan(at=24_000),
        SpeechEnded(
            began=24_000, at=48_000, pcm=stream[48_000 - 14_400 : 96_000 + 9_600], forced=False
        ),
    ]


def test_when_the_events_are_told() -> None:
    vad = VoiceActivityDetector()
    assert vad.feed(silence(1) + tone(0.1)) == []
    assert not is_speaking(vad)
    # The sixth voiced frame makes 120 ms.
    assert vad.feed(tone(0.02)) == [SpeechBegan(at=24_000)]
    assert is_speaking(vad)
    assert vad.feed(tone(0.5) + silence(0.48)) == []
    (event,) = vad.feed(silence(0.02))
    assert isinstance(event, SpeechEnded)
    assert event.at == 24_000 + round(0.62 * 24_000)
    assert not is_speaking(vad)


def test_speech_from_the_first_sample_has_no_prefix() -> None:
    stream = tone(0.5) + silence(0.6)
    assert run(stream) == [
        SpeechBegan(at=0),
        SpeechEnded(began=0, at=12_000, pcm=stream[: 2 * (12_000 + 4_800)], forced=False),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        silence(5),
        noise(5, -60),
        silence(1) + noise(5, -60) + silence(1),
        tone(5, -47),
        silence(1) + tone(0.1) + silence(1),
        (silence(0.4) + tone(0.06)) * 8,
    ],
    ids=["silence", "noise", "noise-in-silence", "below-threshold", "click", "clicks"],
)
def test_no_speech(stream: bytes) -> None:
    vad = VoiceActivityDetector()
    assert vad.feed(stream) == []
    assert vad.end() == []


def test_a_short_pause_is_part_of_the_utterance_and_a_long_one_is_not() -> None:
    stream = tone(0.5) + silence(0.46) + tone(0.5) + silence(0.7) + tone(0.5) + silence(0.7)
    first, second = ended(run(stream))
    assert (first.began, first.at) == (0, round(1.46 * 24_000))
    assert (second.began, second.at) == (round(2.16 * 24_000), round(2.66 * 24_000))
    # The first took 0.2 s of the pause, and the second has its 0.3 s before.
    assert second.pcm == stream[2 * round(1.86 * 24_000) : 2 * round(2.86 * 24_000)]


def test_two_utterances_never_hold_the_same_sound() -> None:
    config = VoiceActivityConfig(silence_ms=300, prefix_ms=300, suffix_ms=200)
    stream = tone(0.4) + silence(0.32) + tone(0.4) + silence(0.4)
    first, second = ended(run(stream, config))
    # 0.32 s lie between; 0.2 s are the suffix of the first, so 0.12 s are left.
    assert first.pcm + second.pcm == stream[: 2 * round(1.32 * 24_000)]


def test_a_syllable_gap_does_not_restart_the_beginning() -> None:
    stream = silence(0.2) + (tone(0.04) + silence(0.06)) * 3 + tone(0.3) + silence(0.6)
    first = run(stream)[0]
    assert first == SpeechBegan(at=round(0.2 * 24_000))


def test_speech_above_the_noise_is_found_in_noise() -> None:
    stream = noise(4, -50) + tone(1, -25) + noise(1, -50, seed=2)
    (only,) = ended(run(stream))
    assert (only.began, only.at) == (96_000, 120_000)


def test_steady_loud_noise_stops_being_speech() -> None:
    vad = VoiceActivityDetector()
    events = vad.feed(noise(20, -38))
    (only,) = ended(events)
    assert only.at < 8 * 24_000
    # And speech is still heard in it.
    (again,) = ended(vad.feed(tone(1, -15) + noise(1, -38, seed=2)))
    assert (again.began, again.at) == (20 * 24_000, 21 * 24_000)
    assert -45 < vad.noise_floor < -35


def test_an_endless_utterance_is_cut() -> None:
    config = VoiceActivityConfig(max_utterance_ms=1000)
    stream = silence(1) + tone(2.5) + silence(1)
    events = run(stream, config)
    assert [event.forced for event in ended(events)] == [True, True, False]
    assert [(e.began / 24_000, e.at / 24_000) for e in ended(events)] == [(1, 2), (2, 3), (3, 3.5)]
    # Nothing is lost and nothing told twice: 0.3 s before, 2.5 s, 0.2 s after.
    heard = b"".join(event.pcm for event in ended(events))
    assert heard == stream[2 * round(0.7 * 24_000) : 2 * round(3.7 * 24_000)]


def test_end_cuts_the_utterance_now() -> None:
    vad = VoiceActivityDetector()
    stream = silence(0.1) + tone(1) + silence(0.1)
    assert vad.feed(stream) == [SpeechBegan(at=2400)]
    assert vad.end() == [SpeechEnded(began=2400, at=26_400, pcm=stream, forced=True)]
    assert vad.end() == []
    assert vad.feed(silence(2)) == []


def test_clear_forgets_without_a_word() -> None:
    vad = VoiceActivityDetector()
    vad.feed(silence(0.5) + tone(1))
    assert is_speaking(vad)
    vad.clear()
    assert not is_speaking(vad)
    assert vad.feed(silence(2)) == []
    # Numbers go on: 1.5 s and 2 s were fed before. The prefix holds nothing from before the clear.
    events = vad.feed(tone(0.5) + silence(0.6))
    assert events[0] == SpeechBegan(at=round(3.5 * 24_000))


def test_clear_drops_the_prefix() -> None:
    vad = VoiceActivityDetector()
    vad.feed(noise(1, -60) + b"\x01")
    vad.clear()
    stream = tone(0.5) + silence(0.6)
    (only,) = ended(vad.feed(stream))
    assert only.pcm == stream[: 2 * (12_000 + 4_800)]


def test_the_question_is_one_utterance() -> None:
    events = run(QUESTION + silence(1))
    began, only = events
    assert isinstance(began, SpeechBegan)
    assert isinstance(only, SpeechEnded)
    assert began.at == only.began
    assert 0.15 <= only.began / 24_000 <= 0.35
    assert 2.3 <= (only.at - only.began) / 24_000 <= 3.3
    assert not only.forced


def test_the_question_file_is_what_its_command_makes() -> None:
    assert 2.5 <= len(QUESTION) / 48_000 <= 3.6
    assert rms_dbfs(QUESTION[:9000]) < -80
    assert rms_dbfs(QUESTION[-9000:]) < -80
    assert -26 < rms_dbfs(QUESTION) < -14


STREAM = (
    noise(0.5, -60)
    + tone(0.31, -22)
    + silence(0.2)
    + QUESTION[: 48_000 * 2]
    + silence(0.613)
    + noise(0.7, -30)
    + b"\x01\x02\x03"
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_chunks_do_not_matter(cuts: Sequence[int]) -> None:
    expected = VoiceActivityDetector(VoiceActivityConfig(max_utterance_ms=1500))
    whole = [*expected.feed(STREAM), *expected.end()]
    assert len(ended(whole)) >= 2
    vad = VoiceActivityDetector(VoiceActivityConfig(max_utterance_ms=1500))
    events: list[SpeechEvent] = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for begin, end in pairwise(edges):
        events += vad.feed(STREAM[begin:end])
    assert [*events, *vad.end()] == whole
    assert vad.noise_floor == expected.noise_floor


def test_the_smallest_chunks() -> None:
    vad = VoiceActivityDetector()
    stream = silence(0.1) + tone(0.3) + silence(0.52)
    events = [event for i in range(len(stream)) for event in vad.feed(stream[i : i + 1])]
    assert events == run(stream)
    assert len(events) == 2


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.02, 0.1, 0.5, 1.3]), st.sampled_from([-96, -55, -40, -15])),
        max_size=12,
    )
)
def test_events_alternate_and_padding_is_bounded(pieces: list[tuple[float, int]]) -> None:
    stream = b"".join(
        silence(seconds) if level == -96 else tone(seconds, level) for seconds, level in pieces
    )
    config = VoiceActivityConfig(max_utterance_ms=1000)
    vad = VoiceActivityDetector(config)
    events = [*vad.feed(stream), *vad.end()]
    assert [type(event) for event in events] == [SpeechBegan, SpeechEnded] * (len(events) // 2)
    last = 0
    for event in ended(events):
        assert last <= event.began < event.at <= len(stream) // 2
        last = event.at
        # 1 s of speech with 0.3 s before and 0.2 s after at most, and it is a piece of the stream.
        assert 0 < len(event.pcm) <= 2 * 24_000 * 1.5
        assert event.pcm in stream


def test_a_measurement_leaves_the_padding_out() -> None:
    # 1.9 s are 95 frames, 0.5 s are 25.
    measured = measure(silence(0.5) + tone(1.9, -21) + silence(0.5))
    assert measured.seconds == pytest.approx(1.9)
    assert measured.dbfs == pytest.approx(-21.0, abs=0.05)


def test_a_measurement_of_nothing() -> None:
    assert measure(silence(1)).seconds == 0.0
    assert measure(silence(1)).dbfs == -96.0
    assert measure(b"").seconds == 0.0
    quiet = measure(tone(1, -60))
    assert quiet.seconds == 0.0
    assert quiet.dbfs == pytest.approx(-60.0, abs=0.5)


def test_an_utterance_does_not_show_its_sound() -> None:
    (only,) = ended(run(tone(0.5) + silence(0.6)))
    assert repr(only) == ("SpeechEnded(began=0, at=12000, pcm=<33600 bytes>, forced=False)")
