"""What stands where a receiver's decoder queue stood: nothing is decoded that nobody looks at.

aiortc's decoder threads hand each frame over by a coroutine, its task, a queue and the task that
waits for it. Here pictures are decoded on that same thread, but inside of its one call of
:meth:`DecoderGate.get`, which returns at the end; sound is decoded where it arrives.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from navtalk_asyncio.media.frame_decoder import FrameDecoder
from navtalk_proto.media import MediaKind

__all__ = ["DecoderGate"]

DECODER_BACKLOG: Final = 30
"""Pictures waiting for the decoder thread, one second. aiortc has no limit here: a slow decoder
costs seconds of delay and stalls the loop at close."""

SOUND_BACKLOG: Final = 50
"""Packets of sound that wait while a reader has no room, one second; the oldest give way."""

KEYFRAME_CACHE_FRAMES: Final = 30
KEYFRAME_CACHE_BYTES: Final = 2 * 1024 * 1024
"""What is kept of the running group of pictures while nobody reads, so that a first reader need
not wait for a keyframe: senders of prepared clips ignore keyframe requests."""

SOUND_CACHE_SECONDS: Final = 0.04
"""How old the newest sound may be that a first reader gets at once: two packets of 20 ms. Where no
packet came since, the sound has stopped."""


class DecoderGate:
    """Stands where a receiver's decoder queue stood: sees every encoded frame, has decoded what
    somebody wants decoded, and never holds more than a second.

    `deliver` gets every (codec, frame) and says whether it is a keyframe. `on_decoded` gets the
    decoded frames, pictures on the decoder thread and sound on the loop.
    """

    def __init__(
        self, kind: MediaKind, deliver: Callable[[Any, Any], bool], now: Callable[[], float]
    ) -> None:
        self._kind = kind
        self._decoder = FrameDecoder()
        self._deliver = deliver
        self._now = now
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._synced = kind is MediaKind.AUDIO
        self._cache: deque[Any] = deque()
        self._cached_bytes = 0
        self._cached_at = 0.0
        """When the newest of the cache came."""
        self._ended = False
        self._late: deque[Any] = deque()
        """Sound that waits for room."""
        self._room = threading.Condition()
        self._waits = False
        """Whether the decoder thread waits for room."""
        self.decodes_late: bool = False
        """Whether what is being decoded, of sound, has waited for room."""
        self.full: Callable[[], bool] = lambda: False
        """Whether a reader has no room and wants to miss nothing. Asked on both threads."""
        self.wanted: Callable[[], bool] = lambda: False
        self.on_drop: Callable[[], None] = lambda: None
        self.need_keyframe: Callable[[], None] = lambda: None
        self.on_decoded: Callable[[Any], None] = lambda _frame: None
        self.on_unreadable: Callable[[], None] = lambda: None
        """A picture could not be decoded. Called on the decoder thread."""

    @property
    def queued(self) -> int:
        """Frames that wait for the decoder."""
        return self._queue.qsize()

    @property
    def decode_seconds(self) -> float | None:
        """Processor time of decoding a frame, a mean of the newest; None before the first."""
        return self._decoder.seconds

    def open(self, codec: Any) -> None:
        """Open the decoder of a codec of aiortc's, before its first frame comes."""
        self._decoder.open(codec)

    @property
    def holds(self) -> bool:
        """Whether something waits, or would, until a reader has room."""
        return self._waits or bool(self._late) or self.full()

    def get(self) -> None:
        """Called by aiortc's decoder thread: decodes what is let through until the end."""
        while (item := self._queue.get()) is not None:
            if not self._wait_for_room():
                self.on_drop()
            elif not self._decode(item):
                self.on_unreadable()

    def _wait_for_room(self) -> bool:
        """On the decoder thread; False at the end. :meth:`resume` and the end wake it."""
        with self._room:
            self._waits = True
            while not self._ended and self.full():
                self._room.wait()
            self._waits = False
            return not self._ended

    def resume(self) -> None:
        """A reader has room again, or is gone. To be called on the loop, after that is so."""
        with self._room:
            self._room.notify_all()
        if not self.wanted():
            self._late.clear()
        self.decodes_late = True
        while self._late and not self.full():
            self._decode(self._late.popleft())
        self.decodes_late = False

    def _decode(self, item: Any) -> bool:
        frames = self._decoder.decode(*item)
        if frames is None:
            return False
        for frame in frames:
            self.on_decoded(frame)
        return True

    def put(self, item: Any) -> None:
        """Called by the receiver on the loop with (codec, frame), and with None at the end."""
        if item is None:
            self._ended = True
            self.discard()
        if self._ended:
            return
        keyframe = self._deliver(*item)
        if not self.wanted():
            self._synced = self._kind is MediaKind.AUDIO
            self._late.clear()
            self._remember(item, keyframe)
        elif self._kind is MediaKind.AUDIO:
            self._forget()
            self._decode_sound(item)
        else:
            self._decode_video(item, keyframe)

    def begin(self) -> None:
        """Somebody begins to read: what is kept is decoded now, and not with the next frame."""
        if self._ended or not self.wanted():
            return
        if self._kind is MediaKind.AUDIO:
            if self._cache and self._now() - self._cached_at <= SOUND_CACHE_SECONDS:
                self._decode_sound(self._cache[-1])
        elif self._cache:
            for item in self._cache:
                self._queue.put(item)
            self._synced = True
        elif not self._synced:
            self.need_keyframe()
        self._forget()

    def lost(self) -> None:
        """What follows refers to frames that never came: pictures wait for a keyframe."""
        if self._kind is MediaKind.VIDEO:
            self._synced = False
            self._forget()

    def discard(self) -> None:
        """Forget what the decoder has not taken, so that joining its thread takes one frame."""
        self._forget()
        while not self._queue.empty():
            self._drop_oldest()
        if self._ended:
            self._late.clear()
            self._queue.put(None)  # The thread may not have seen its end yet.
            with self._room:
                self._room.notify_all()

    def _drop_oldest(self) -> None:
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return  # the decoder thread was quicker
        if item is not None:
            self.on_drop()

    def _decode_sound(self, item: Any) -> None:
        if not self._late and not self.full():
            self._decode(item)
            return
        self._late.append(item)
        if len(self._late) > SOUND_BACKLOG:
            self._late.popleft()
            self.on_drop()

    def _decode_video(self, item: Any, keyframe: bool) -> None:
        if self._queue.qsize() >= DECODER_BACKLOG:
            # The decoder or its reader is too slow. What follows refers to what is dropped here.
            self._synced = False
            self.on_drop()
            if not self.full():  # Otherwise there is no use for one yet.
                self.need_keyframe()
        elif self._synced or keyframe:
            self._synced = True
            self._queue.put(item)
        elif self._cache:
            for earlier in self._cache:
                self._queue.put(earlier)
            self._queue.put(item)
            self._synced = True
        else:
            self.on_drop()
            self.need_keyframe()
        self._forget()

    def _remember(self, item: Any, keyframe: bool) -> None:
        size = len(item[1].data)
        if keyframe:  # As every packet of sound is.
            self._forget()
        elif not self._cache:
            return
        self._cache.append(item)
        self._cached_bytes += size
        self._cached_at = self._now()
        if len(self._cache) > KEYFRAME_CACHE_FRAMES or self._cached_bytes > KEYFRAME_CACHE_BYTES:
            self._forget()

    def _forget(self) -> None:
        self._cache.clear()
        self._cached_bytes = 0
