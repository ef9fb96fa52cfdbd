"""Whether the media that was negotiated comes: one small machine for each received track.

Theory of operation
===================

1. A media engine reports, at most every PROGRESS_SECONDS while packets of a track arrive, how long
   ago the last one came. Silence reports nothing: it is a deadline here, ``Timer.VIDEO_FLOW`` or
   ``Timer.AUDIO_FLOW``, each the nearest one of its kind's tracks.

2. A track is expected when its m-line is received by the last answer, whoever gave it, and the
   media connection is up. From then on it has `start_timeout` to begin. Once it flows, silence of
   `stall_timeout` is a stall, and one of `give_up` is a loss. Packets end both.

3. An engine that has reported no progress yet is not watched for stalls: its silence says nothing.

4. The tracks of a peer connection that failed, closed or was replaced go on being missed. A track
   of the same kind on the next one takes the place of such a track, with its deadlines: a recovery
   by a new peer connection ends the stall that it cures.

5. A timer that fires late says that this process did not run, or its host slept, and that the
   reports of that time may be waiting still: the verdict is put off, once, by GRACE.

6. A picture can freeze while packets flow. The engine says with its progress how old the picture
   is, as long as somebody decodes it; from `freeze_timeout` on it is frozen.

What does not fit: sound that stays away beside a picture that flows is a stall and never a loss.
The path is alive then; a far end may well send nothing while it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from attrs import define, field

from navtalk_proto.events import (
    MediaFlowEvent,
    MediaLost,
    MediaNotStarted,
    MediaResumed,
    MediaStalled,
    PictureFrozen,
    PictureResumed,
)
from navtalk_proto.media import PROGRESS_SECONDS, MediaKind, MediaProgress, MediaStarted, TrackAdded
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.sdp import SdpMedia

__all__ = ["GRACE", "TIMERS", "TRANSITIONS", "Input", "MediaFlow", "Phase"]

GRACE: Final = 2 * PROGRESS_SECONDS
"""How late a timer may be, and how long it then waits for the reports that are on their way."""

TIMERS: Final[Mapping[MediaKind, Timer]] = MappingProxyType(
    {MediaKind.VIDEO: Timer.VIDEO_FLOW, MediaKind.AUDIO: Timer.AUDIO_FLOW}
)


class Phase(Enum):
    """Where a track is."""

    HELD = "held"
    """Nothing is expected: not received by the last answer, or not connected yet."""
    AWAITED = "awaited"
    """The first packet is due."""
    OVERDUE = "overdue"
    """It did not come."""
    STARTED = "started"
    """It came; the engine has reported no progress."""
    FLOWING = "flowing"
    STALLED = "stalled"
    LOST = "lost"


class Input(Enum):
    """What can happen to a track."""

    EXPECT = "received by the last answer"
    HOLD = "not received by the last answer"
    STARTED = "first packet"
    PROGRESS = "progress"
    SILENCE = "deadline"


class Effect(Enum):
    """What an edge does."""

    AWAIT = "run the start deadline"
    START = "note that it began"
    FLOW = "run the stall deadline"
    RESUME = "tell that it came again, run the stall deadline"
    TELL_NOT_STARTED = "tell that it did not begin"
    TELL_STALLED = "tell the silence, run the give-up deadline"
    GIVE_UP = "tell the loss, or look again later"
    REST = "forget the deadline"


Edge: TypeAlias = tuple[Phase, Effect]
"""The next phase, and what is done."""


def _build() -> dict[tuple[Phase, Input], Edge]:
    phase, flow, resume = Phase, (Phase.FLOWING, Effect.FLOW), (Phase.FLOWING, Effect.RESUME)
    table: dict[tuple[Phase, Input], Edge] = {
        (phase.HELD, Input.EXPECT): (phase.AWAITED, Effect.AWAIT),
        (phase.HELD, Input.STARTED): (phase.STARTED, Effect.START),
        (phase.AWAITED, Input.STARTED): (phase.STARTED, Effect.START),
        (phase.AWAITED, Input.PROGRESS): flow,
        (phase.AWAITED, Input.SILENCE): (phase.OVERDUE, Effect.TELL_NOT_STARTED),
        (phase.OVERDUE, Input.STARTED): (phase.STARTED, Effect.START),
        (phase.OVERDUE, Input.PROGRESS): resume,
        (phase.STARTED, Input.PROGRESS): flow,
        (phase.FLOWING, Input.PROGRESS): flow,
        (phase.FLOWING, Input.SILENCE): (phase.STALLED, Effect.TELL_STALLED),
        (phase.STALLED, Input.PROGRESS): resume,
        (phase.STALLED, Input.SILENCE): (phase.LOST, Effect.GIVE_UP),
        (phase.LOST, Input.PROGRESS): resume,
    }
    for one in Phase:
        if one is not Phase.HELD:
            table[one, Input.HOLD] = (phase.HELD, Effect.REST)
    return table


TRANSITIONS: Final[Mapping[tuple[Phase, Input], Edge]] = MappingProxyType(_build())
"""Every other pair changes nothing: a packet that was under way when its m-line was put on hold, an
answer that says again what the one before it said."""


@define
class _Track:
    kind: MediaKind
    mid: str | None
    phase: Phase = Phase.HELD
    since: float = 0.0
    """When the last packet came, or the first one was due."""
    deadline: float | None = None
    put_off: bool = False
    started: bool = False
    """Whether it ever began."""
    gone: bool = False
    """Its peer connection is no more."""
    frozen_since: float | None = field(default=None)


class MediaFlow:
    """The received media of one connection. Feed it inputs, then take :attr:`out`.

    Durations are seconds; None: that is not watched.
    """

    def __init__(
        self,
        *,
        start_timeout: float | None,
        stall_timeout: float | None,
        give_up: float | None,
        freeze_timeout: float | None,
        tracks: int,
        timers: Timers,
    ) -> None:
        """`tracks` bounds how many are watched: what an engine reports beyond is not."""
        self.out: list[MediaFlowEvent] = []
        self._start_timeout = start_timeout
        self._stall_timeout = stall_timeout
        self._give_up = give_up
        self._freeze_timeout = freeze_timeout
        self._limit = tracks
        self._timers = timers
        self._tracks: dict[str, _Track] = {}
        self._received: dict[str, bool] = {}
        """By mid, whether the last answer lets it be received."""
        self._answer: dict[str, bool] = {}
        """The same of an answer whose exchange is not complete."""
        self._connected = False
        self._reports = False
        self._consent: float | None = None

    def phase(self, track_id: str) -> Phase | None:
        """Where a track is; None: it is not watched."""
        track = self._tracks.get(track_id)
        return None if track is None else track.phase

    # ---- inputs

    def answered(self, medias: tuple[SdpMedia, ...], *, ours: bool) -> None:
        """An answer is on its way to be applied; its m-lines say what is received (RFC 3264 6)."""
        receives = ("sendrecv", "recvonly") if ours else ("sendrecv", "sendonly")
        self._answer = {
            line.mid: line.active and line.direction in receives
            for line in medias
            if line.mid is not None
        }

    def exchanged(self, *, now: float) -> None:
        """The exchange of that answer is complete."""
        self._received = self._answer
        for track_id, track in list(self._tracks.items()):
            if track.gone:
                # What took its place is there by now: this one is wanted no more.
                del self._tracks[track_id]
            elif not self._receives(track):
                self._take(track_id, track, Input.HOLD, now)
        self._expect(now)
        self._arm()

    def connected(self, *, now: float) -> None:
        """The media connection is up."""
        self._connected = True
        self._expect(now)
        self._arm()

    def peer_gone(self) -> None:
        """The peer connection failed, closed, or is being replaced."""
        self._connected = False
        self._received = {}
        missed = (Phase.FLOWING, Phase.STALLED, Phase.LOST)
        for track_id, track in list(self._tracks.items()):
            if track.phase in missed:
                track.gone = True
            else:
                del self._tracks[track_id]
        self._arm()

    def added(self, event: TrackAdded, *, now: float) -> None:
        """The far end's description added a track."""
        old_id, old = next(
            ((i, t) for i, t in self._tracks.items() if t.gone and t.kind is event.kind),
            (None, None),
        )
        if old_id is not None and old is not None:
            del self._tracks[old_id]
            old.mid, old.gone = event.mid, False
            self._tracks[event.track_id] = old
        elif len(self._tracks) < self._limit:
            self._tracks[event.track_id] = _Track(kind=event.kind, mid=event.mid, since=now)
        self._arm()

    def started(self, event: MediaStarted, *, now: float) -> None:
        """The first packet of a track came."""
        track = self._tracks.get(event.track_id)
        if track is not None and self._receives(track):
            self._take(event.track_id, track, Input.STARTED, now)
            self._arm()

    def progress(self, event: MediaProgress, *, now: float) -> None:
        """Packets of a track arrive."""
        self._reports = True
        track = self._tracks.get(event.track_id)
        if track is None:
            return
        came = now - event.age
        # A report that was under way for longer than the next one says nothing new.
        self._take(event.track_id, track, Input.PROGRESS, max(came, track.since))
        if track.phase is Phase.FLOWING:
            self._look(event.track_id, track, event.picture_age, now)
        self._arm()

    def consent(self, *, now: float) -> None:
        """The far end answered a consent check (RFC 7675)."""
        self._consent = now

    def timeout(self, *, now: float) -> bool:
        """A flow timer fired; whether media was given up."""
        lost = False
        for track_id, track in list(self._tracks.items()):
            if track.deadline is None or track.deadline > now:
                continue
            if now - track.deadline > GRACE and not track.put_off:
                track.deadline, track.put_off = now + GRACE, True
                continue
            self._take(track_id, track, Input.SILENCE, now)
            lost = lost or track.phase is Phase.LOST
        self._arm()
        return lost

    # ---- parts

    def _receives(self, track: _Track) -> bool:
        return track.mid is None or self._received.get(track.mid, True)

    def _expect(self, now: float) -> None:
        if not self._connected:
            return
        for track_id, track in self._tracks.items():
            # Where an engine reports no progress, a track that began once is not asked for again.
            if self._receives(track) and (self._reports or not track.started):
                self._take(track_id, track, Input.EXPECT, now)

    def _take(self, track_id: str, track: _Track, kind: Input, at: float) -> None:
        edge = TRANSITIONS.get((track.phase, kind))
        if edge is None:
            return
        track.phase, effect = edge
        track.put_off = False
        silent_for = at - track.since
        match effect:
            case Effect.AWAIT:
                track.since = at
                track.deadline = _after(at, self._start_timeout)
            case Effect.START:
                track.started = True
                track.since, track.deadline = at, None
            case Effect.FLOW | Effect.RESUME:
                track.started = True
                track.since = at
                track.deadline = _after(at, self._stall_timeout)
                if effect is Effect.RESUME:
                    self.out.append(
                        MediaResumed(kind=track.kind, track_id=track_id, after=silent_for)
                    )
            case Effect.TELL_NOT_STARTED:
                track.deadline = None
                self.out.append(
                    MediaNotStarted(kind=track.kind, track_id=track_id, after=silent_for)
                )
            case Effect.TELL_STALLED:
                due = _after(track.since, self._give_up)
                track.deadline = None if due is None else max(due, at + PROGRESS_SECONDS)
                self.out.append(
                    MediaStalled(
                        kind=track.kind,
                        track_id=track_id,
                        silent_for=silent_for,
                        consent_age=self._consent_age(at),
                    )
                )
            case Effect.GIVE_UP:
                self._give_up_track(track_id, track, at)
            case _:
                assert effect is Effect.REST
                track.deadline, track.frozen_since = None, None

    def _give_up_track(self, track_id: str, track: _Track, now: float) -> None:
        flows = any(one.phase is Phase.FLOWING for one in self._tracks.values())
        if track.kind is MediaKind.AUDIO and flows:
            track.phase = Phase.STALLED
            track.deadline = _after(now, self._give_up)
            return
        track.deadline = None
        self.out.append(
            MediaLost(
                kind=track.kind,
                track_id=track_id,
                silent_for=now - track.since,
                consent_age=self._consent_age(now),
            )
        )

    def _look(self, track_id: str, track: _Track, picture_age: float | None, now: float) -> None:
        if picture_age is None:
            track.frozen_since = None
            return
        frozen = self._freeze_timeout is not None and picture_age >= self._freeze_timeout
        if frozen and track.frozen_since is None:
            track.frozen_since = now - picture_age
            self.out.append(PictureFrozen(track_id=track_id, frozen_for=picture_age))
        elif track.frozen_since is not None and not frozen:
            after = now - picture_age - track.frozen_since
            track.frozen_since = None
            self.out.append(PictureResumed(track_id=track_id, after=after))

    def _consent_age(self, now: float) -> float | None:
        return None if self._consent is None else now - self._consent

    def _arm(self) -> None:
        for kind, timer in TIMERS.items():
            deadlines = [
                track.deadline
                for track in self._tracks.values()
                if track.kind is kind and track.deadline is not None
            ]
            if deadlines:
                self._timers.arm(timer, min(deadlines))
            else:
                self._timers.stop(timer)

    def __repr__(self) -> str:
        tracks = ", ".join(f"{t.kind.value} {t.phase.value}" for t in self._tracks.values())
        return f"<MediaFlow {tracks or 'no track'}>"


def _after(start: float, seconds: float | None) -> float | None:
    return None if seconds is None else start + seconds
