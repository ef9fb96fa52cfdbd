"""Decoded sound and picture in the order in which they belong, for players.

Each frame gets its time from the :class:`~navtalk_asyncio.media.timeline.Timeline`, and waits until
the other kind has come as far: the kind that arrives early is held back by as much as the other is
late, at most :data:`HOLD_SECONDS`. No timer is needed, because every frame that comes is a tick.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from attrs import frozen

from navtalk_asyncio.media.sender_reports import TrackTiming
from navtalk_asyncio.media.timeline import Timeline
from navtalk_proto.media import MediaKind

__all__ = ["HOLD_SECONDS", "AvBuffer", "AvFrame", "DecodedFrame"]

HOLD_SECONDS: Final = 0.25
"""A kind that is further behind than this, or that is not there, is not waited for."""

PICTURES: Final = 12
"""Decoded pictures that wait; one 720p picture is 1.4 MB."""

SOUNDS: Final = 50
"""Sound frames of 20 ms that wait."""


@frozen(kw_only=True)
class DecodedFrame:
    """A frame as the decoder gave it."""

    kind: MediaKind
    frame: Any
    timing: TrackTiming
    arrival: float


@frozen(kw_only=True)
class AvFrame:
    """A decoded frame and when to play it."""

    kind: MediaKind
    frame: Any
    """``av.AudioFrame`` (s16, 48,000 Hz stereo, 20 ms each) or ``av.VideoFrame`` (yuv420p)."""
    time: float
    """Seconds on a monotonic clock: when it would have come, had nothing been late. A player shows
    every frame a constant time after this. The sound's times follow each other to the sample."""


class AvBuffer:
    """What waits for one player. The oldest give way where it is slow, counted."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._held: dict[MediaKind, deque[tuple[AvFrame, float]]] = {
            MediaKind.AUDIO: deque(),
            MediaKind.VIDEO: deque(),
        }
        self._newest: dict[MediaKind, tuple[float, float]] = {}
        """Time and arrival of the newest frame of each kind."""
        self._began = float("inf")
        """When the first frame came."""
        self.dropped: int = 0

    def put(self, decoded: DecodedFrame) -> None:
        """Add the newest frame of a kind."""
        seconds = float(decoded.frame.pts * decoded.frame.time_base)
        clock = decoded.timing.clock
        shift = self._timeline.place(
            decoded.kind,
            decoded.timing.track_id,
            seconds,
            arrival=decoded.arrival,
            sender_time=None if clock is None else clock.offset + seconds,
        )
        frame = AvFrame(kind=decoded.kind, frame=decoded.frame, time=seconds + shift)
        self._began = min(self._began, decoded.arrival)
        held = self._held[decoded.kind]
        held.append((frame, decoded.arrival))
        self._newest[decoded.kind] = frame.time, decoded.arrival
        if len(held) > (PICTURES if decoded.kind is MediaKind.VIDEO else SOUNDS):
            held.popleft()
            self.dropped += 1

    def take(self) -> AvFrame | None:
        """The next frame to play; None while that is not known."""
        audio, video = self._held[MediaKind.AUDIO], self._held[MediaKind.VIDEO]
        if audio and video:
            first = audio if audio[0][0].time <= video[0][0].time else video
            return first.popleft()[0]
        held = audio or video
        if not held:
            return None
        frame, arrival = held[0]
        other = MediaKind.VIDEO if frame.kind is MediaKind.AUDIO else MediaKind.AUDIO
        if self._may_go(frame, arrival, self._newest.get(other)):
            return held.popleft()[0]
        return None

    def _may_go(self, frame: AvFrame, arrival: float, other: tuple[float, float] | None) -> bool:
        now = self._newest[frame.kind][1]
        # One that has never come is as one that stopped before the first frame.
        time, arrived = (float("-inf"), self._began) if other is None else other
        return (
            time >= frame.time  # the other kind is past it already
            or now - arrived >= HOLD_SECONDS  # the other kind has stopped
            or now - arrival >= HOLD_SECONDS
        )

    def clear(self) -> None:
        """Throw away what waits."""
        for held in self._held.values():
            held.clear()
