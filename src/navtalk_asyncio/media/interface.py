"""What an asyncio media engine offers a driver. Its implementations: aiortc, and the strict fake.

An engine belongs to one connection and one event loop. The driver hands it every media command of
the core in order; each becomes one task inside the engine, and each ends in exactly one call of
`done` or `failed`. What happens on its own is reported through `event`. All three callbacks are
synchronous, are called on the engine's loop, and never raise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from navtalk_asyncio.media.sender_reports import TrackTiming
from navtalk_proto.actions import MediaCommand
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.media import Capabilities, MediaKind
from navtalk_proto.stats import MediaStats

__all__ = [
    "DirectSource",
    "EncodedFrame",
    "EncodedSource",
    "Engine",
    "EngineCallbacks",
    "EngineFactory",
    "PacedSource",
    "TrackCounters",
]


class Engine(Protocol):
    """A media engine for one connection."""

    @property
    def capabilities(self) -> Capabilities:
        """What the core may ask for."""
        ...

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once, never raises."""
        ...

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        """Decoded PyAV frames of the (first) remote track of this kind; ends when media ends."""
        ...

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id."""
        ...

    def stats(self) -> MediaStats:
        """A snapshot of the current peer connection, or else of the last one."""
        ...

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Tell when a sound begins (AUDIO) and a picture changes (VIDEO), and when it came.

        `told` is called on the driver's loop, with its clock's seconds; None ends it.
        """
        ...

    async def aclose(self) -> None:
        """Close the peer connection and every task; returns when nothing is left. Idempotent."""
        ...


class EngineFactory(Protocol):
    """Makes the engine of a new connection, on the running loop."""

    def __call__(self, callbacks: EngineCallbacks) -> Engine:
        """Make an engine; cheap, no peer connection is opened yet."""
        ...


@frozen(kw_only=True)
class EncodedFrame:
    """One complete encoded frame as it left the jitter buffer, not decoded.

    `data` is a VP8 frame (RFC 7741 without payload descriptors), an H.264 access unit with Annex B
    start codes, or one Opus packet. `timestamp` counts in 1/`clock_rate` seconds since the track's
    first frame and does not wrap. `arrival` is the loop's time at which the frame's first RTP
    packet was received.
    """

    kind: MediaKind
    track_id: str
    codec: str
    """``VP8``, ``H264``, ``opus``, ... as the rtpmap spells it."""
    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    timestamp: int
    clock_rate: int
    keyframe: bool
    """Decoding can start here. Always true for audio."""
    arrival: float
    sender_time: float | None = None
    """Seconds since 1900 on the sender's clock, by its RTCP sender reports: what relates the tracks
    of one sender. None before the first report."""


@runtime_checkable
class EncodedSource(Protocol):
    """An engine that gives frames away as they come, for recording, relaying and playing.

    All of it is to be called on the engine's loop, except `codec` and `timing`.
    """

    def add_encoded_sink(
        self,
        kind: MediaKind,
        sink: Callable[[EncodedFrame], None],
        on_end: Callable[[], None] | None = None,
    ) -> Callable[[], None]:
        """Call `sink` on the engine's loop with every encoded frame of the first track of a kind.

        Returns what removes it. A sink must be quick and must not raise: one that raises is removed
        and reported to the loop's exception handler. `on_end` is called when the media of this kind
        end; the sink stays, and gets what a later connection brings.
        """
        ...

    def add_decoded_sink(
        self, kind: MediaKind, sink: Callable[[Any], None], on_end: Callable[[], None]
    ) -> Callable[[], None]:
        """Decode, and call `sink` with every PyAV frame of the first track of a kind.

        Returns what removes it. The sink is gone after `on_end`, which is called once, unless it
        was removed before.
        """
        ...

    def codec(self, kind: MediaKind) -> str | None:
        """The codec of the newest encoded frame of a kind, as the rtpmap spells it."""
        ...

    def timing(self, kind: MediaKind) -> TrackTiming | None:
        """What is known of the time of the first track of a kind; None without one."""
        ...

    def request_keyframe(self) -> bool:
        """Ask the sender for a keyframe (PLI, RFC 4585 section 6.3.1); False without video."""
        ...


@runtime_checkable
class DirectSource(Protocol):
    """An engine that gives decoded frames away on the thread that decodes them."""

    def add_direct_sink(
        self, kind: MediaKind, sink: Callable[[Any], None], on_end: Callable[[], None]
    ) -> Callable[[], None]:
        """As ``add_decoded_sink``, but `sink` is called on any thread, one call at a time.

        What it has to do for another loop need not pass by the engine's.
        """
        ...


@runtime_checkable
class PacedSource(Protocol):
    """An engine whose decoders wait for a reader. Both are to be called on the engine's loop."""

    def add_paced_sink(
        self,
        kind: MediaKind,
        sink: Callable[[Any], None],
        on_end: Callable[[], None],
        full: Callable[[], bool],
    ) -> Callable[[], None]:
        """As ``DirectSource.add_direct_sink``, but no frame of this kind is decoded while `full`,
        which is asked on any thread, says so.

        Raises RuntimeError where the decoders cannot be made to wait.
        """
        ...

    def resume_decoding(self, kind: MediaKind) -> None:
        """A sink that was full no longer is."""
        ...
