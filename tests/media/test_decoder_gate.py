from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from navtalk_asyncio.media.decoder_gate import (
    KEYFRAME_CACHE_FRAMES,
    SOUND_CACHE_SECONDS,
    DecoderGate,
)
from navtalk_proto.media import MediaKind


def test_the_end_is_not_discarded() -> None:
    """A thread that is busy with a frame has not seen its end when what is queued is dropped."""
    delivered: list[Any] = []
    dropped: list[None] = []

    def deliver(codec: Any, frame: Any) -> bool:
        delivered.append((codec, frame))
        return True

    gate = DecoderGate(MediaKind.AUDIO, deliver, lambda: 0.0)
    gate.wanted = lambda: True
    gate.on_drop = lambda: dropped.append(None)
    gate.put(("opus", 1))
    gate.put(None)
    gate.discard()
    assert gate.get() is None
    assert delivered == [("opus", 1)]
    assert len(dropped) == 1
    # The end itself is no frame.
    gate.put(("opus", 2))
    assert delivered == [("opus", 1)]


class Frame(NamedTuple):
    data: bytes
    keyframe: bool = True


class Watched:
    """A gate, what it has for the decoder, and how often it asked for a keyframe."""

    def __init__(self, kind: MediaKind) -> None:
        self.time = 0.0
        self.reading = False
        self.asked = 0
        self.gate = DecoderGate(kind, lambda _codec, frame: frame.keyframe, lambda: self.time)
        self.gate.wanted = lambda: self.reading
        self.gate.need_keyframe = self._ask

    def _ask(self) -> None:
        self.asked += 1

    def put(self, *frames: Frame) -> None:
        for frame in frames:
            self.gate.put(("codec", frame))

    def read(self) -> None:
        self.reading = True
        self.gate.begin()

    def queued(self) -> list[bytes]:
        self.gate.put(("codec", Frame(b"mark")))
        found = []
        while (frame := self.gate.get()[1]).data != b"mark":
            found.append(frame.data)
        return found


KEY, NEXT, THIRD = Frame(b"key"), Frame(b"next", keyframe=False), Frame(b"third", keyframe=False)


def test_a_first_reader_need_not_wait_for_another_picture() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY, NEXT)
    watched.read()
    watched.put(THIRD)
    assert watched.queued() == [b"key", b"next", b"third"]
    assert watched.asked == 0


def test_a_second_reader_changes_nothing() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY)
    watched.read()
    watched.put(NEXT)
    watched.read()
    assert watched.queued() == [b"key", b"next"]
    assert watched.asked == 0


@pytest.mark.parametrize("pictures", [0, KEYFRAME_CACHE_FRAMES + 1])
def test_where_nothing_is_kept_a_keyframe_is_asked_for_at_once(pictures: int) -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(*([KEY, *[NEXT] * pictures][:pictures]))
    watched.read()
    assert watched.asked == 1
    assert watched.queued() == []


@pytest.mark.parametrize("kind", MediaKind)
def test_after_the_end_nothing_is_decoded_for_a_reader(kind: MediaKind) -> None:
    watched = Watched(kind)
    watched.put(KEY)
    watched.gate.put(None)
    watched.read()
    assert watched.gate.get() is None
    assert watched.asked == 0


def test_nothing_begins_for_a_reader_that_is_gone_again() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY)
    watched.gate.begin()
    assert watched.asked == 0
    watched.read()
    assert watched.queued() == [b"key"]


@pytest.mark.parametrize(
    ("later", "heard"), [(SOUND_CACHE_SECONDS, [b"two"]), (SOUND_CACHE_SECONDS + 0.001, [])]
)
def test_a_first_listener_gets_the_newest_sound_unless_it_is_old(
    later: float, heard: list[bytes]
) -> None:
    watched = Watched(MediaKind.AUDIO)
    watched.put(Frame(b"one"), Frame(b"two"))
    watched.time += later
    watched.read()
    assert watched.queued() == heard
    assert watched.asked == 0


def test_a_second_listener_does_not_repeat_a_sound() -> None:
    watched = Watched(MediaKind.AUDIO)
    watched.put(Frame(b"one"))
    watched.read()
    watched.put(Frame(b"two"))
    watched.read()
    assert watched.queued() == [b"one", b"two"]
