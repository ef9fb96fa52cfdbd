"""One clock for a sound and a picture that count from origins of their own.

The sound leads: its timestamps are kept to the sample, because a shifted sound is heard. The
picture is fitted to it. With sender reports of both tracks the picture's shift follows what they
say, so that drift is taken out while it is too small to be seen; without, both are placed by when
they arrived, and stay there. Which it was, :attr:`Timeline.source` names.

Nothing here knows a clock or a file. Times are seconds on the clock of the arrivals.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import define

from navtalk_proto.media import MediaKind

__all__ = ["Timeline"]

STILL_SECONDS: Final = 0.005
"""A picture this little off is left alone: reports are not more exact, and steps stay even."""

SLEW_SECONDS: Final = 0.001
"""By which the picture is moved with each frame: 25 ms in a second, unseen."""

STEP_SECONDS: Final = 0.25
"""More than this is no drift: a clock was set. It is believed after :data:`STEP_PATIENCE`, when the
reports of the other track can have said the same."""

STEP_PATIENCE: Final = 3.0
"""Seconds."""


@define
class _Placed:
    track_id: str
    shift: float
    """What is added to a timestamp in seconds."""
    offset: float | None
    """The sender's time of timestamp 0, as the newest frame knew it."""
    end: float
    """Where the newest frame was placed."""


class Timeline:
    """Says by how much the timestamps of each track are shifted. One sound and one picture."""

    def __init__(self) -> None:
        self._placed: dict[MediaKind, _Placed] = {}
        self._off_since: float | None = None
        """Since when the picture is off by more than a step."""

    @property
    def source(self) -> Literal["sender-reports", "arrival"]:
        """What relates sound and picture now."""
        return "arrival" if self._relation() is None else "sender-reports"

    def _relation(self) -> float | None:
        """Sender's time of the picture's timestamp 0 minus that of the sound's."""
        audio = self._placed.get(MediaKind.AUDIO)
        video = self._placed.get(MediaKind.VIDEO)
        if audio is None or video is None or audio.offset is None or video.offset is None:
            return None
        return video.offset - audio.offset

    def place(
        self,
        kind: MediaKind,
        track_id: str,
        seconds: float,
        *,
        arrival: float,
        sender_time: float | None,
        earliest: float | None = None,
    ) -> float:
        """The shift of a frame: its timestamp `seconds` plus this is its time.

        `earliest` is the smallest arrival minus timestamp that is known of the track, for a first
        frame that was late itself. Another `track_id` starts anew, never before what was placed.
        """
        offset = None if sender_time is None else sender_time - seconds
        placed = self._placed.get(kind)
        if placed is None or placed.track_id != track_id:
            placed = self._first(kind, track_id, seconds, offset, arrival, earliest)
        elif offset is not None:
            placed.offset = offset
        if kind is MediaKind.VIDEO:
            self._fit(placed, arrival)
        placed.end = seconds + placed.shift
        return placed.shift

    def _first(
        self,
        kind: MediaKind,
        track_id: str,
        seconds: float,
        offset: float | None,
        arrival: float,
        earliest: float | None,
    ) -> _Placed:
        shift = arrival - seconds if earliest is None else earliest
        before = self._placed.get(kind)
        placed = self._placed[kind] = _Placed(track_id, shift, offset, 0.0)
        relation = self._relation()
        if relation is not None:
            audio, video = self._placed[MediaKind.AUDIO], self._placed[MediaKind.VIDEO]
            related = video.shift - relation if placed is audio else audio.shift + relation
            # What a sender says of two streams is no reason to play one at another time.
            if abs(related - shift) < STEP_PATIENCE:
                placed.shift = related
        if before is not None:
            placed.shift = max(placed.shift, before.end - seconds)
        self._off_since = None
        return placed

    def _fit(self, video: _Placed, arrival: float) -> None:
        relation = self._relation()
        if relation is None:
            return
        missing = self._placed[MediaKind.AUDIO].shift + relation - video.shift
        if abs(missing) <= STEP_SECONDS:
            self._off_since = None
            if abs(missing) > STILL_SECONDS:
                video.shift += max(-SLEW_SECONDS, min(SLEW_SECONDS, missing))
        elif self._off_since is None:
            self._off_since = arrival
        elif arrival - self._off_since >= STEP_PATIENCE:
            video.shift += missing
            self._off_since = None
