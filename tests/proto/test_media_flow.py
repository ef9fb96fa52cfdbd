"""Whether media comes: times of a virtual clock, reports of a made-up engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.events import (
    MediaFlowEvent,
    MediaLost,
    MediaNotStarted,
    MediaResumed,
    MediaStalled,
    PictureFrozen,
    PictureResumed,
)
from navtalk_proto.limits import Limits
from navtalk_proto.machines.media_flow import GRACE, TIMERS, TRANSITIONS, Input, MediaFlow, Phase
from navtalk_proto.media import (
    PROGRESS_SECONDS,
    MediaKind,
    MediaProgress,
    MediaStarted,
    TrackAdded,
)
from navtalk_proto.timers import Timers
from navtalk_proto.wire.messages import Answer
from navtalk_proto.wire.sdp import SdpMedia, check_description

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
T0 = 500.0


def m_lines(
    *directions: str, kinds: tuple[str, ...] = ("video", "audio", "video")
) -> tuple[SdpMedia, ...]:
    """m-lines video, audio, video with mids 0, 1, 2; ``rejected`` is port 0."""
    lines = ["v=0", "a=ice-ufrag:u", "a=ice-pwd:pppppppppppppppppppppp"]
    lines.append("a=fingerprint:sha-256 01:02")
    for mid, (kind, direction) in enumerate(zip(kinds, directions, strict=False)):
        rejected = direction == "rejected"
        lines += [f"m={kind} {0 if rejected else 9} UDP/TLS/RTP/SAVPF 96", f"a=mid:{mid}"]
        lines += [] if rejected else [f"a={direction}"]
    return check_description(Answer(sdp="\r\n".join(lines)), Limits()).medias


class Watch:
    """A MediaFlow, its clock and its timers."""

    def __init__(self, **options: Any) -> None:
        self.timers = Timers()
        durations: dict[str, Any] = {
            "start_timeout": 10.0,
            "stall_timeout": 2.0,
            "give_up": 10.0,
            "freeze_timeout": 5.0,
            "tracks": 8,
        }
        self.flow = MediaFlow(**{**durations, **options}, timers=self.timers)
        self.now = T0

    def told(self) -> list[MediaFlowEvent]:
        out, self.flow.out = self.flow.out, []
        return out

    def wait(self, seconds: float) -> list[MediaFlowEvent]:
        """Let time pass; every timer fires when it is due."""
        until = self.now + seconds
        while (due := self.timers.next()) is not None and due <= until:
            self.now = due
            assert self.timers.pop_due(due) in TIMERS.values()
            self.flow.timeout(now=due)
            later = self.timers.next()
            assert later is None or later > due or self.timers.pop_due(due) is not None
        self.now = until
        return self.told()

    def late(self, seconds: float) -> list[MediaFlowEvent]:
        """Let time pass, and run what was due meanwhile only now."""
        self.now += seconds
        while self.timers.pop_due(self.now) is not None:
            self.flow.timeout(now=self.now)
        return self.told()

    def add(self, track_id: str = "v", kind: MediaKind = VIDEO, mid: str | None = "0") -> None:
        self.flow.added(TrackAdded(track_id=track_id, kind=kind, mid=mid), now=self.now)

    def exchange(self, *directions: str, ours: bool = True) -> list[MediaFlowEvent]:
        self.flow.answered(m_lines(*directions), ours=ours)
        self.flow.exchanged(now=self.now)
        return self.told()

    def connect(self) -> None:
        self.flow.connected(now=self.now)

    def start(self, track_id: str = "v", kind: MediaKind = VIDEO) -> None:
        self.flow.started(MediaStarted(track_id=track_id, kind=kind), now=self.now)

    def progress(
        self,
        track_id: str = "v",
        kind: MediaKind = VIDEO,
        *,
        age: float = 0.0,
        picture_age: float | None = None,
    ) -> list[MediaFlowEvent]:
        self.flow.progress(
            MediaProgress(track_id=track_id, kind=kind, age=age, picture_age=picture_age),
            now=self.now,
        )
        return self.told()

    def flowing(self) -> Watch:
        """Video and audio flow."""
        self.add()
        self.add("a", AUDIO, "1")
        self.exchange("recvonly", "recvonly")
        self.connect()
        self.both()
        return self

    def both(self) -> list[MediaFlowEvent]:
        return self.progress() + self.progress("a", AUDIO)


# ---- stalls


def test_a_silent_track_is_stalled_resumed_and_lost() -> None:
    watch = Watch().flowing()
    assert watch.wait(1.999) == []
    assert watch.wait(0.001) == [
        MediaStalled(kind=VIDEO, track_id="v", silent_for=2.0),
        MediaStalled(kind=AUDIO, track_id="a", silent_for=2.0),
    ]
    assert watch.wait(3.0) == []
    assert watch.progress() == [MediaResumed(kind=VIDEO, track_id="v", after=5.0)]
    assert watch.progress("a", AUDIO) == [MediaResumed(kind=AUDIO, track_id="a", after=5.0)]
    told = watch.wait(9.999)
    assert [type(event) for event in told] == [MediaStalled, MediaStalled]
    assert watch.wait(0.001) == [
        MediaLost(kind=VIDEO, track_id="v", silent_for=10.0),
        MediaLost(kind=AUDIO, track_id="a", silent_for=10.0),
    ]
    assert watch.wait(1000.0) == []
    assert watch.both() == [
        MediaResumed(kind=VIDEO, track_id="v", after=1010.0),
        MediaResumed(kind=AUDIO, track_id="a", after=1010.0),
    ]
    assert len(watch.wait(2.0)) == 2, "and it is watched again"


def test_packets_that_go_on_are_no_stall() -> None:
    watch = Watch().flowing()
    for _ in range(100):
        watch.now += PROGRESS_SECONDS
        assert watch.both() == []
    assert watch.wait(1.9) == []


def test_the_silence_counts_from_the_last_packet_and_not_from_its_report() -> None:
    watch = Watch().flowing()
    watch.now += 1.0
    watch.progress(age=0.25)
    watch.progress("a", AUDIO)
    assert watch.wait(1.625) == []
    assert watch.wait(0.125) == [MediaStalled(kind=VIDEO, track_id="v", silent_for=2.0)]


def test_sound_that_stays_away_beside_a_picture_is_never_a_loss() -> None:
    watch = Watch().flowing()
    told: list[MediaFlowEvent] = []
    for _ in range(200):
        told += watch.wait(0.25) + watch.progress()
    assert told == [MediaStalled(kind=AUDIO, track_id="a", silent_for=2.0)]
    assert [type(event) for event in watch.wait(11.0)] == [MediaStalled, MediaLost, MediaLost]


def test_a_picture_that_stays_away_beside_sound_is_a_loss() -> None:
    watch = Watch().flowing()
    told: list[MediaFlowEvent] = []
    for _ in range(200):
        told += watch.wait(0.25) + watch.progress("a", AUDIO)
    assert told == [
        MediaStalled(kind=VIDEO, track_id="v", silent_for=2.0),
        MediaLost(kind=VIDEO, track_id="v", silent_for=10.0),
    ]


def test_the_age_of_consent_stands_beside_the_silence() -> None:
    watch = Watch().flowing()
    watch.flow.consent(now=watch.now)
    watch.now += 1.5
    watch.both()
    (stalled, _) = watch.wait(2.0)
    assert isinstance(stalled, MediaStalled)
    assert stalled.consent_age == 3.5
    watch.flow.consent(now=watch.now)
    (lost, _) = watch.wait(8.0)
    assert isinstance(lost, MediaLost)
    assert lost.consent_age == 8.0


def test_an_engine_that_reports_no_progress_is_not_watched() -> None:
    watch = Watch()
    watch.add()
    watch.exchange("recvonly")
    watch.connect()
    watch.start()
    assert watch.wait(1000.0) == []
    watch.exchange("inactive")
    watch.exchange("recvonly")
    assert watch.wait(1000.0) == [], "nor for a track that it would have to report again"
    assert watch.flow.phase("v") is Phase.HELD


@pytest.mark.parametrize(("stall", "give_up"), [(None, 10.0), (2.0, None)])
def test_what_has_no_duration_is_not_looked_for(stall: float | None, give_up: float | None) -> None:
    watch = Watch(stall_timeout=stall, give_up=give_up).flowing()
    told = watch.wait(1000.0)
    assert [type(event) for event in told] == ([] if stall is None else [MediaStalled] * 2)
    assert watch.timers.next() is None


def test_a_give_up_before_the_stall_follows_it() -> None:
    watch = Watch(stall_timeout=2.0, give_up=1.0).flowing()
    told = watch.wait(2.0 + PROGRESS_SECONDS)
    assert [type(event) for event in told] == [MediaStalled, MediaStalled, MediaLost, MediaLost]


def test_a_host_that_slept_is_not_a_stall_when_packets_come_again() -> None:
    watch = Watch().flowing()
    assert watch.late(60.0) == [], "the reports of that time may be waiting"
    watch.now += 0.1
    assert watch.both() == []
    assert watch.late(60.0) == []
    assert [type(event) for event in watch.wait(GRACE)] == [MediaStalled, MediaStalled]
    assert watch.wait(PROGRESS_SECONDS), "given up at once: the silence is as long as it is"


# ---- starts


def test_a_track_that_never_starts_is_told() -> None:
    watch = Watch()
    watch.add()
    watch.add("a", AUDIO, "1")
    watch.exchange("recvonly", "recvonly")
    assert watch.wait(100.0) == [], "not before the connection is up"
    watch.connect()
    watch.progress("a", AUDIO)
    told: list[MediaFlowEvent] = []
    for _ in range(60):
        told += watch.wait(0.25) + watch.progress("a", AUDIO)
    assert told == [MediaNotStarted(kind=VIDEO, track_id="v", after=10.0)]
    watch.now = T0 + 115.0
    assert watch.progress() == [MediaResumed(kind=VIDEO, track_id="v", after=15.0)]


@pytest.mark.parametrize("late", [False, True])
def test_the_first_packet_ends_the_wait(late: bool) -> None:
    watch = Watch()
    watch.add()
    watch.exchange("recvonly")
    watch.connect()
    assert len(watch.wait(20.0 if late else 9.0)) == late
    watch.start()
    assert watch.flow.phase("v") is Phase.STARTED
    assert watch.wait(1000.0) == []


def test_a_second_track_of_a_kind_has_its_own_start() -> None:
    watch = Watch().flowing()
    watch.add("v2", VIDEO, "2")
    watch.exchange("recvonly", "recvonly", "recvonly")
    told: list[MediaFlowEvent] = []
    for _ in range(60):
        told += watch.wait(0.25) + watch.both()
    assert told == [MediaNotStarted(kind=VIDEO, track_id="v2", after=10.0)]


def test_a_track_taken_back_has_to_start_again() -> None:
    watch = Watch().flowing()
    assert watch.exchange("inactive", "recvonly") == []
    assert watch.flow.phase("v") is Phase.HELD
    assert watch.progress() == [], "what was under way"
    assert watch.flow.phase("v") is Phase.HELD
    watch.exchange("recvonly", "recvonly")
    told: list[MediaFlowEvent] = []
    for _ in range(60):
        told += watch.wait(0.25) + watch.progress("a", AUDIO)
    assert told == [MediaNotStarted(kind=VIDEO, track_id="v", after=10.0)]


def test_a_first_packet_of_a_track_on_hold_starts_no_watch() -> None:
    watch = Watch()
    watch.add()
    watch.exchange("inactive")
    watch.connect()
    watch.start()
    assert watch.flow.phase("v") is Phase.HELD


@pytest.mark.parametrize(
    ("direction", "ours", "received"),
    [
        ("recvonly", True, True),
        ("sendrecv", True, True),
        ("sendonly", True, False),
        ("inactive", True, False),
        ("rejected", True, False),
        ("sendonly", False, True),
        ("sendrecv", False, True),
        ("recvonly", False, False),
        ("inactive", False, False),
        ("rejected", False, False),
    ],
)
def test_the_answer_says_what_is_received(direction: str, ours: bool, received: bool) -> None:
    watch = Watch().flowing()
    watch.exchange(direction, "inactive", ours=ours)
    assert [event.kind for event in watch.wait(2.0)] == ([VIDEO] if received else [])  # type: ignore[union-attr]


def test_an_m_line_that_no_answer_names_is_received() -> None:
    watch = Watch()
    watch.add("v", VIDEO, None)
    watch.add("w", VIDEO, "7")
    watch.exchange("inactive")
    watch.connect()
    assert len(watch.wait(10.0)) == 2


# ---- peer connections


def test_the_next_peer_connection_takes_over_what_is_missed() -> None:
    watch = Watch().flowing()
    watch.now += 1.0
    watch.flow.peer_gone()
    assert [type(event) for event in watch.wait(1.5)] == [MediaStalled, MediaStalled]
    watch.flow.peer_gone()
    watch.add("v'", VIDEO, "0")
    watch.add("a'", AUDIO, "1")
    watch.exchange("recvonly", "recvonly")
    watch.connect()
    assert watch.progress("v'") == [MediaResumed(kind=VIDEO, track_id="v'", after=2.5)]
    assert watch.progress("v") == [], "the old one is forgotten"
    assert watch.wait(7.5) == [
        MediaStalled(kind=VIDEO, track_id="v'", silent_for=2.0),
        MediaLost(kind=AUDIO, track_id="a'", silent_for=10.0),
    ]


def test_without_a_next_peer_connection_media_is_lost() -> None:
    watch = Watch().flowing()
    watch.flow.peer_gone()
    told = watch.wait(10.0)
    assert [type(event) for event in told] == [MediaStalled, MediaStalled, MediaLost, MediaLost]


def test_what_the_next_peer_connection_has_no_track_for_is_not_missed() -> None:
    watch = Watch().flowing()
    watch.flow.peer_gone()
    watch.add("v'", VIDEO, "0")
    watch.exchange("recvonly")
    told = watch.wait(10.0)
    assert {event.track_id for event in told} == {"v'"}


def test_a_track_that_never_began_is_not_missed() -> None:
    watch = Watch()
    watch.add()
    watch.exchange("recvonly")
    watch.connect()
    watch.flow.peer_gone()
    assert watch.wait(100.0) == []
    assert watch.flow.phase("v") is None


def test_tracks_beyond_the_limit_are_not_watched() -> None:
    watch = Watch(tracks=1)
    watch.add()
    watch.add("w", VIDEO, "2")
    watch.exchange("recvonly", "inactive", "recvonly")
    watch.connect()
    watch.start("w")
    assert watch.progress("w") == []
    assert watch.flow.phase("w") is None
    assert watch.wait(10.0) == [MediaNotStarted(kind=VIDEO, track_id="v", after=10.0)]


# ---- pictures


def test_a_picture_that_does_not_change_is_frozen() -> None:
    watch = Watch().flowing()
    assert watch.progress(picture_age=4.9) == []
    watch.now += 0.25
    assert watch.progress(picture_age=5.15) == [PictureFrozen(track_id="v", frozen_for=5.15)]
    watch.now += 10.0
    assert watch.progress(picture_age=15.15) == [], "told once"
    watch.now += 0.25
    (resumed,) = watch.progress(picture_age=0.1)
    assert isinstance(resumed, PictureResumed)
    assert resumed.after == pytest.approx(15.3)
    assert watch.progress(picture_age=0.1) == []


def test_nobody_who_looks_sees_no_frozen_picture() -> None:
    watch = Watch().flowing()
    watch.progress(picture_age=6.0)
    assert watch.progress() == []
    assert watch.progress(picture_age=0.0) == [], "what it was is forgotten"
    assert Watch(freeze_timeout=None).flowing().progress(picture_age=1e6) == []


def test_hold_forgets_a_frozen_picture() -> None:
    watch = Watch().flowing()
    assert len(watch.progress(picture_age=6.0)) == 1
    watch.exchange("inactive", "recvonly")
    assert watch.progress(picture_age=9.0) == []
    watch.exchange("recvonly", "recvonly")
    assert watch.progress(picture_age=0.0) == []


# ---- the machine


def test_every_phase_is_left_by_hold() -> None:
    for phase in set(Phase) - {Phase.HELD}:
        assert TRANSITIONS[phase, Input.HOLD][0] is Phase.HELD
    reached = {to for to, _ in TRANSITIONS.values()}
    assert reached == set(Phase)


def test_repr_says_where_each_track_is() -> None:
    watch = Watch()
    assert repr(watch.flow) == "<MediaFlow no track>"
    assert repr(watch.flowing().flow) == "<MediaFlow video flowing, audio flowing>"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["v", "a"]),
            st.sampled_from(["add", "start", "progress", "hold", "take", "gone", "up", "wait"]),
            st.floats(0.0, 30.0),
        ),
        max_size=60,
    )
)
def test_no_silence_is_told_twice(steps: list[tuple[str, str, float]]) -> None:
    watch = Watch()
    kinds = {"v": VIDEO, "a": AUDIO}
    held = dict.fromkeys(kinds, False)
    last: dict[MediaKind, type | None] = {}
    may_follow = {
        MediaNotStarted: (None, MediaResumed),
        MediaStalled: (None, MediaResumed),
        MediaLost: (None, MediaStalled),
        MediaResumed: (None, MediaNotStarted, MediaStalled, MediaLost),
    }
    for track_id, step, seconds in steps:
        told: list[MediaFlowEvent] = []
        match step:
            case "add":
                watch.add(track_id, kinds[track_id], "01"["va".index(track_id)])
            case "start":
                watch.start(track_id, kinds[track_id])
            case "progress":
                told = watch.progress(track_id, kinds[track_id])
            case "hold" | "take":
                held[track_id] = step == "hold"
                told = watch.exchange(*("inactive" if held[one] else "recvonly" for one in "va"))
                last.clear()
            case "gone":
                watch.flow.peer_gone()
                last.clear()
            case "up":
                watch.connect()
            case _:
                told = watch.wait(seconds)
        for event in told:
            assert not isinstance(event, PictureFrozen | PictureResumed)
            assert last.get(event.kind) in may_follow[type(event)]
            last[event.kind] = type(event)
