"""Encoded packets that wait for a relay: bounded, and never what cannot be decoded.

The policy is called *drop to keyframe*. Pictures refer to earlier ones, so dropping one is
dropping all up to the next keyframe. When more than :data:`PACKET_BYTES` or :data:`PACKET_SECONDS`
wait, what is older than the newest waiting keyframe gives way, sound and picture alike. Where none
waits, all pictures give way, the next one is a keyframe, which is asked for, and the oldest sound
gives way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_proto.media import MediaKind

__all__ = ["PACKET_BYTES", "PACKET_SECONDS", "PacketBuffer", "PacketCounters"]

PACKET_BYTES: Final = 4 * 1024 * 1024
"""Encoded bytes that may wait: 16 s of a 2 Mb/s call."""

PACKET_SECONDS: Final = 2.0
"""How long, in arrival time. A relay that is later than this is no conversation any more."""


@define
class PacketCounters:
    """Counted over all connections of a session. Packets, not bytes."""

    taken: int = 0
    """Given to the reader."""
    dropped: int = 0
    """Gave way because the reader was slow, also when the session had reconnected meanwhile."""
    before_keyframe: int = 0
    """Pictures that came before the first keyframe, or before the one after a drop."""


class PacketBuffer:
    """What waits for one reader. `ask_keyframe` is called when a keyframe is needed."""

    def __init__(self, counters: PacketCounters, ask_keyframe: Callable[[], None]) -> None:
        self._counters = counters
        self._ask_keyframe = ask_keyframe
        self._held: deque[EncodedFrame] = deque()
        self._bytes = 0
        self._synced: str | None = None
        """The video track that the reader can go on decoding."""

    def put(self, frame: EncodedFrame) -> None:
        """Add the newest packet."""
        if frame.kind is MediaKind.VIDEO:
            if frame.keyframe:
                self._synced = frame.track_id
            elif self._synced != frame.track_id:
                self._counters.before_keyframe += 1
                return
        self._held.append(frame)
        self._bytes += len(frame.data)
        if self._full():
            self._drop()

    def take(self) -> EncodedFrame | None:
        """The oldest packet; None where none waits."""
        if not self._held:
            return None
        self._counters.taken += 1
        return self._pop()

    def clear(self) -> None:
        """Throw away what waits."""
        self._counters.dropped += len(self._held)
        self._held.clear()
        self._bytes = 0

    def _full(self) -> bool:
        return len(self._held) > 1 and (
            self._bytes > PACKET_BYTES
            or self._held[-1].arrival - self._held[0].arrival > PACKET_SECONDS
        )

    def _drop(self) -> None:
        keyframes = [
            at
            for at, frame in enumerate(self._held)
            if at > 0 and frame.kind is MediaKind.VIDEO and frame.keyframe
        ]
        if keyframes:
            for _ in range(keyframes[-1]):
                self._pop()
            self._counters.dropped += keyframes[-1]
        elif any(frame.kind is MediaKind.VIDEO for frame in self._held):
            sound = [frame for frame in self._held if frame.kind is MediaKind.AUDIO]
            self._counters.dropped += len(self._held) - len(sound)
            self._held = deque(sound)
            self._bytes = sum(len(frame.data) for frame in sound)
            self._synced = None
            self._ask_keyframe()
        while self._full():
            self._pop()
            self._counters.dropped += 1

    def _pop(self) -> EncodedFrame:
        frame = self._held.popleft()
        self._bytes -= len(frame.data)
        return frame
