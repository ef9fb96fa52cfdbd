"""What a peer connection and its tracks ask of the engine that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_proto.media import MediaEvent
from navtalk_proto.stats import MediaStats

if TYPE_CHECKING:
    from navtalk_asyncio.media.peer import Peer
    from navtalk_asyncio.media.received_track import ReceivedTrack

__all__ = ["PeerHost"]


class _Ignore(Protocol):
    def __call__(self, reason: str, count: int = 1) -> None: ...


class _Decoded(Protocol):
    def __call__(self, received: ReceivedTrack, frame: Any, *, on_loop: bool) -> None: ...


@frozen
class PeerHost:
    """Several peer connections of one engine share it, one after the other."""

    loop: asyncio.AbstractEventLoop
    own: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    """Run something in a task that the engine waits for when it closes."""
    event: Callable[[MediaEvent], None]
    ignore: _Ignore
    """Count remote candidates that cannot be used, by reason."""
    lost: Callable[[Peer], None]
    """aiortc closed this peer connection by itself."""
    keep_stats: Callable[[MediaStats], None]
    """The last statistics of a peer connection that closes."""
    wanted: Callable[[ReceivedTrack], bool]
    """Whether somebody wants the frames of this track decoded; called from any thread."""
    full: Callable[[ReceivedTrack], bool]
    """Whether decoding this track has to wait for a reader; called from any thread."""
    decoded: _Decoded
    """A frame was decoded: on the decoder's thread, or with `on_loop` on the loop."""
    encoded: Callable[[ReceivedTrack, str, Callable[[], EncodedFrame]], None]
    """A frame of a codec is complete; it is made where somebody wants it."""
    look: Callable[[ReceivedTrack, Any], None]
    """A decoded picture, now and then, to see whether it moves."""
    looks: Callable[[], bool]
    """Whether every picture is to be looked at for now; called from the decoder's thread."""
    track_ended: Callable[[Peer, ReceivedTrack], None]
