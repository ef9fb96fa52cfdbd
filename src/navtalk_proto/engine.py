"""What a media engine reports, and what it counts: the parts of an engine that no loop shapes."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from navtalk_proto.actions import MediaResult
from navtalk_proto.media import MediaEvent, MediaKind, OpId

__all__ = ["EngineCallbacks", "TrackCounters"]


@frozen(kw_only=True)
class EngineCallbacks:
    """Where an engine reports to: synchronous, on the driver's loop, not from inside execute()."""

    done: Callable[[OpId, MediaResult], None]
    failed: Callable[[OpId, str], None]
    event: Callable[[MediaEvent], None]


@frozen(kw_only=True)
class TrackCounters:
    """One received track, counted since it was added. Times are the loop's monotonic seconds."""

    kind: MediaKind
    packets: int = 0
    bytes: int = 0
    """RTP payload bytes, without headers and padding."""
    frames_decoded: int = 0
    frames_dropped: int = 0
    """Frames that a full buffer gave up, by its named policy, before or after decoding."""
    last_packet: float | None = field(default=None)
