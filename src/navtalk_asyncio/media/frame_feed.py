"""Decoded frames of one kind, by the policy that a reader chose for when it is slow.

``latest`` and ``raise`` bound what was decoded. ``block`` lets nothing be decoded that there is no
room for: the decoder waits, and what waits for it is bounded by
:class:`~navtalk_asyncio.media.decoder_gate.DecoderGate`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, get_args

from attrs import define

from navtalk_asyncio.media.feed import Feed, Tap
from navtalk_asyncio.media.frame_buffer import VIDEO_FRAMES
from navtalk_asyncio.media.interface import DirectSource, PacedSource
from navtalk_proto.errors import BufferOverrunError, LocalProtocolError
from navtalk_proto.media import MediaKind

__all__ = ["FrameCounters", "FrameFeed", "FramePolicy", "FrameStore", "frame_feed"]

FrameT = TypeVar("FrameT")
_FrameT = TypeVar("_FrameT", covariant=True)

FramePolicy: TypeAlias = Literal["latest", "block", "raise"]
"""What happens when a reader of decoded frames is slower than the media.

``latest``: the oldest frame gives way. ``raise``: reading raises BufferOverrunError. ``block``: the
decoder waits.
"""

SIZES: Final = {MediaKind.VIDEO: VIDEO_FRAMES, MediaKind.AUDIO: 20}
"""Frames held where nothing else was asked for: the newest two pictures, 0.4 s of sound."""


@define
class FrameCounters:
    """Counted over all connections of a session."""

    taken: int = 0
    """Frames that the reader took."""
    dropped: int = 0
    """Decoded frames that it will not get: it was slow, or they waited when it was closed, or when
    the session had reconnected. With ``block`` encoded frames give way to those that come later:
    `frames_dropped` in ``session.track_counters()``."""


class FrameStore:
    """What waits for one reader."""

    def __init__(self, name: str, size: int, policy: FramePolicy, counters: FrameCounters) -> None:
        self._name = name
        self._size = size
        self.policy: FramePolicy = policy
        self.made_room: bool = False
        """Whether the newest :meth:`take` did."""
        self._counters = counters
        self._held: deque[Any] = deque()
        self._lost = 0
        """How many the next :meth:`take` has to tell of."""

    @property
    def full(self) -> bool:
        """Whether decoding has to wait. May be asked on any thread."""
        return self.policy == "block" and len(self._held) >= self._size

    def put(self, frame: Any) -> None:
        """Add the newest frame."""
        if self.policy == "raise" and (self._lost or len(self._held) >= self._size):
            self._lost += len(self._held)
            self._counters.dropped += len(self._held)
            self._held.clear()
        self._held.append(frame)
        if self.policy == "latest" and len(self._held) > self._size:
            self._held.popleft()
            self._counters.dropped += 1

    def take(self) -> Any | None:
        """The oldest frame; None where none waits. Raises BufferOverrunError."""
        if self._lost:
            lost, self._lost = self._lost, 0
            raise BufferOverrunError(self._name, size=self._size, lost=lost)
        if not self._held:
            return None
        self.made_room = self.full
        self._counters.taken += 1
        return self._held.popleft()

    def clear(self) -> None:
        """Throw away what waits."""
        self._counters.dropped += len(self._held)
        self._held.clear()
        self._lost = 0


class _Closable(Protocol[_FrameT]):
    """A Feed, or one after the other."""

    async def __anext__(self) -> _FrameT: ...
    async def aclose(self) -> None: ...


class FrameFeed(Generic[FrameT]):
    """Decoded PyAV frames of a session, as an async iterator on its loop.

    It begins with the first read, and ends with :meth:`aclose`, when it is dropped, or with the
    media. Reading is cancel-safe: a cancelled read takes nothing.
    """

    def __init__(
        self,
        kind: MediaKind,
        policy: FramePolicy,
        size: int | None,
        open: Callable[[Callable[[], Feed[Any, Any]]], AsyncIterator[Any]],
        tap: Callable[[], Tap],
    ) -> None:
        """Made by ``session.frames()``; `open` renews a feed with each connection.

        Raises ValueError for a policy that there is not, and a size that is not positive.
        """
        if policy not in get_args(FramePolicy):
            raise ValueError(f"policy is one of {', '.join(get_args(FramePolicy))}, not {policy!r}")
        if size is not None and size < 1:
            raise ValueError("size must be positive")
        self.name: str = f"reader of {kind.value}"
        self.size: int = SIZES[kind] if size is None else size
        """Frames that are held: pictures, or pieces of sound of 20 ms."""
        self.policy: FramePolicy = policy
        self.counters: FrameCounters = FrameCounters()
        name, held, counters = self.name, self.size, self.counters

        def start() -> Feed[Any, Any]:
            return frame_feed(tap(), kind, FrameStore(name, held, policy, counters))

        self._frames: _Closable[FrameT] = open(start)  # type: ignore[assignment]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FrameT:
        """The next frame. Raises BufferOverrunError with the policy ``raise``, and may be called
        again after it."""
        return await self._frames.__anext__()

    async def aclose(self) -> None:
        """Stop reading; what waits is thrown away, and no decoder waits for this any more."""
        await self._frames.aclose()


def frame_feed(tap: Tap, kind: MediaKind, store: FrameStore) -> Feed[Any, Any]:
    """Frames of one connection. Raises LocalProtocolError where its engine does not give them."""
    tap = tap.for_any_thread()
    engine: object = tap.engine
    if store.policy == "block" and isinstance(engine, PacedSource):
        paced = engine

        def subscribe(put: Callable[[Any], None], end: Callable[[], None]) -> Callable[[], None]:
            return paced.add_paced_sink(kind, put, end, lambda: store.full)

        def taken() -> None:
            if store.made_room:
                tap.run(lambda: paced.resume_decoding(kind))

        return Feed(tap, store, subscribe, taken)
    if store.policy != "block" and isinstance(engine, DirectSource):
        return Feed(tap, store, partial(engine.add_direct_sink, kind))
    raise LocalProtocolError("this session's engine does not give frames to such readers")
