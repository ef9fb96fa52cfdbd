from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from navtalk_asyncio.media import frame_decoder
from navtalk_asyncio.media.decoder_gate import (
    DECODER_BACKLOG,
    KEYFRAME_CACHE_FRAMES,
    SOUND_BACKLOG,
    SOUND_CACHE_SECONDS,
    DecoderGate,
)
from navtalk_proto.media import MediaKind

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

CODEC = SimpleNamespace(name="codec")


class Frame(NamedTuple):
    data: bytes
    keyframe: bool = True


class Plain:
    """A decoder that gives what it gets, and cannot read bad frames."""

    def decode(self, frame: Frame) -> list[bytes]:
        if frame.data == b"bad":
            raise ValueError("bad")
        return [frame.data]


@pytest.fixture(autouse=True)
def plain_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_decoder, "open_decoder", lambda _codec: Plain())


class Watched:
    """A gate, what was decoded of it, and how often it asked for a keyframe."""

    def __init__(self, kind: MediaKind) -> None:
        self.time = 0.0
        self.reading = False
        self.asked = self.dropped = self.unreadable = 0
        self.decoded: list[tuple[Any, threading.Thread]] = []
        self.marked = threading.Event()
        self.gate = DecoderGate(kind, lambda _codec, frame: frame.keyframe, lambda: self.time)
        self.gate.wanted = lambda: self.reading
        self.gate.need_keyframe = self._ask
        self.gate.on_drop = self._drop
        self.gate.on_decoded = self._decoded
        self.gate.on_unreadable = self._unreadable
        self.thread = threading.Thread(target=self.gate.get)

    def _ask(self) -> None:
        self.asked += 1

    def _drop(self) -> None:
        self.dropped += 1

    def _unreadable(self) -> None:
        self.unreadable += 1

    def _decoded(self, frame: bytes) -> None:
        if frame == b"mark":
            self.marked.set()
        else:
            self.decoded.append((frame, threading.current_thread()))

    def put(self, *frames: Frame) -> None:
        for frame in frames:
            self.gate.put((CODEC, frame))

    def read(self) -> None:
        self.reading = True
        self.gate.begin()

    def result(self) -> list[bytes]:
        """What is decoded, when all has been and the gate is at its end."""
        self.thread.start()
        if self.reading:
            self.put(Frame(b"mark"))
            assert self.marked.wait(PATIENCE)
        self.gate.put(None)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return [frame for frame, _ in self.decoded]


KEY, NEXT, THIRD = Frame(b"key"), Frame(b"next", keyframe=False), Frame(b"third", keyframe=False)


def test_the_end_is_not_discarded() -> None:
    """A thread that is busy with a frame has not seen its end when what is queued is dropped."""
    watched = Watched(MediaKind.VIDEO)
    watched.read()
    watched.asked = 0
    watched.put(KEY)
    watched.gate.put(None)
    watched.gate.discard()
    # The end itself is no frame.
    assert watched.dropped == 1
    watched.put(NEXT)
    watched.reading = False
    assert watched.result() == []


def test_pictures_are_decoded_on_the_thread_and_sound_where_it_comes() -> None:
    pictures, sounds = Watched(MediaKind.VIDEO), Watched(MediaKind.AUDIO)
    for watched in (pictures, sounds):
        watched.put(KEY)
        watched.read()
        watched.put(NEXT)
        assert watched.result() == [b"key", b"next"]
    assert {thread for _, thread in pictures.decoded} == {pictures.thread}
    assert {thread for _, thread in sounds.decoded} == {threading.current_thread()}
    assert pictures.gate.queued == sounds.gate.queued == 0
    assert pictures.gate.decode_seconds is not None


@pytest.mark.parametrize(("kind", "told"), [(MediaKind.VIDEO, 1), (MediaKind.AUDIO, 0)])
def test_what_cannot_be_decoded_ends_nothing(kind: MediaKind, told: int) -> None:
    watched = Watched(kind)
    watched.put(KEY)
    watched.read()
    watched.put(Frame(b"bad"), NEXT)
    assert watched.result() == [b"key", b"next"]
    assert watched.unreadable == told


def test_a_decoder_that_is_too_slow_goes_on_with_a_keyframe() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY)
    watched.read()
    watched.put(*[NEXT] * DECODER_BACKLOG)
    assert (watched.dropped, watched.asked) == (1, 1)
    assert watched.gate.queued == DECODER_BACKLOG
    watched.gate.discard()
    watched.put(THIRD, KEY)
    assert watched.result() == [b"key"]


def test_a_first_reader_need_not_wait_for_another_picture() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY, NEXT)
    watched.read()
    watched.put(THIRD)
    assert watched.result() == [b"key", b"next", b"third"]
    assert watched.asked == 0


def test_a_second_reader_changes_nothing() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY)
    watched.read()
    watched.put(NEXT)
    watched.read()
    assert watched.result() == [b"key", b"next"]
    assert watched.asked == 0


@pytest.mark.parametrize("pictures", [0, KEYFRAME_CACHE_FRAMES + 1])
def test_where_nothing_is_kept_a_keyframe_is_asked_for_at_once(pictures: int) -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(*([KEY, *[NEXT] * pictures][:pictures]))
    watched.read()
    assert watched.asked == 1
    assert watched.result() == []


@pytest.mark.parametrize("kind", MediaKind)
def test_after_the_end_nothing_is_decoded_for_a_reader(kind: MediaKind) -> None:
    watched = Watched(kind)
    watched.put(KEY)
    watched.gate.put(None)
    watched.read()
    watched.reading = False
    assert watched.result() == []
    assert watched.asked == 0


def test_nothing_begins_for_a_reader_that_is_gone_again() -> None:
    watched = Watched(MediaKind.VIDEO)
    watched.put(KEY)
    watched.gate.begin()
    assert watched.asked == 0
    watched.read()
    assert watched.result() == [b"key"]


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
    assert watched.result() == heard
    assert watched.asked == 0


def test_a_second_listener_does_not_repeat_a_sound() -> None:
    watched = Watched(MediaKind.AUDIO)
    watched.put(Frame(b"one"))
    watched.read()
    watched.put(Frame(b"two"))
    watched.read()
    assert watched.result() == [b"one", b"two"]


class Narrow(Watched):
    """With a reader that has room for one frame, and wants to miss none."""

    def __init__(self, kind: MediaKind) -> None:
        super().__init__(kind)
        self.room = 1
        self.waits = threading.Event()
        """Somebody was told that there is no room."""
        self.gate.full = self._full

    def _full(self) -> bool:
        if self.room <= 0:
            self.waits.set()
        return self.room <= 0

    def _decoded(self, frame: bytes) -> None:
        self.room -= 1
        super()._decoded(frame)

    def make_room(self, room: int) -> None:
        self.room = room
        self.gate.resume()


def test_the_decoder_waits_for_a_reader_and_goes_on() -> None:
    narrow = Narrow(MediaKind.VIDEO)
    narrow.read()
    narrow.put(KEY, NEXT, THIRD)
    narrow.thread.start()
    assert narrow.waits.wait(PATIENCE)
    assert [frame for frame, _ in narrow.decoded] == [b"key"]
    assert narrow.gate.holds
    narrow.put(Frame(b"mark"))
    narrow.make_room(4)
    assert narrow.marked.wait(PATIENCE)
    assert [frame for frame, _ in narrow.decoded] == [b"key", b"next", b"third"]
    assert narrow.dropped == 0
    narrow.gate.put(None)
    narrow.thread.join(PATIENCE)
    assert not narrow.thread.is_alive()


def test_the_end_is_not_waited_for_by_a_decoder_without_room() -> None:
    narrow = Narrow(MediaKind.VIDEO)
    narrow.read()
    narrow.put(KEY, NEXT, THIRD)
    narrow.thread.start()
    assert narrow.waits.wait(PATIENCE)
    narrow.gate.put(None)
    narrow.thread.join(PATIENCE)
    assert not narrow.thread.is_alive()
    assert [frame for frame, _ in narrow.decoded] == [b"key"]
    assert narrow.dropped == 2


def test_no_keyframe_is_asked_for_before_there_is_room_for_it() -> None:
    narrow = Narrow(MediaKind.VIDEO)
    narrow.room = 0
    narrow.put(KEY)
    narrow.read()
    narrow.put(*[NEXT] * DECODER_BACKLOG)
    assert (narrow.dropped, narrow.asked) == (1, 0)
    narrow.gate.discard()
    narrow.room = 2
    narrow.put(THIRD)
    assert narrow.asked == 1
    narrow.put(KEY)
    assert narrow.result() == [b"key"]


def test_sound_waits_in_its_order_and_the_oldest_gives_way() -> None:
    narrow = Narrow(MediaKind.AUDIO)
    narrow.read()
    pieces = [b"%d" % number for number in range(SOUND_BACKLOG + 2)]
    late: list[bool] = []
    narrow.gate.on_decoded = lambda frame: (
        late.append(narrow.gate.decodes_late),
        narrow._decoded(frame),
    )
    narrow.put(*map(Frame, pieces[:3]))
    assert [frame for frame, _ in narrow.decoded] == pieces[:1]
    narrow.make_room(1)
    assert [frame for frame, _ in narrow.decoded] == pieces[:2]
    assert narrow.gate.holds
    narrow.put(*map(Frame, pieces[3:]))
    narrow.make_room(SOUND_BACKLOG + 2)
    assert narrow.dropped == 0
    assert not narrow.gate.holds
    narrow.put(Frame(b"now"))
    assert [frame for frame, _ in narrow.decoded] == [*pieces, b"now"]
    assert late == [False, *[True] * (len(pieces) - 1), False]
    narrow.room = 0
    narrow.put(*map(Frame, pieces[: SOUND_BACKLOG + 2]))
    assert narrow.dropped == 2
    # Nobody listens any more.
    narrow.reading = False
    narrow.make_room(1)
    assert len(narrow.decoded) == len(pieces) + 1
    assert not narrow.gate.holds
