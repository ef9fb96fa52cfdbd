"""Packets that wait for a relay, and which of them give way."""

from __future__ import annotations

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.packet_buffer import (
    PACKET_BYTES,
    PACKET_SECONDS,
    PacketBuffer,
    PacketCounters,
)
from navtalk_proto.media import MediaKind

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO


class Relay:
    def __init__(self) -> None:
        self.counters = PacketCounters()
        self.asked = 0
        self.buffer = PacketBuffer(self.counters, self.ask)

    def ask(self) -> None:
        self.asked += 1

    def put(
        self,
        kind: MediaKind,
        at: float,
        *,
        keyframe: bool = False,
        size: int = 10,
        track: str | None = None,
    ) -> None:
        self.buffer.put(
            EncodedFrame(
                kind=kind,
                track_id=track or kind.value,
                codec="VP8" if kind is VIDEO else "opus",
                data=bytes(size),
                timestamp=round(at * 1000),
                clock_rate=1000,
                keyframe=keyframe or kind is AUDIO,
                arrival=at,
            )
        )

    def taken(self) -> list[tuple[str, float]]:
        found = []
        while (frame := self.buffer.take()) is not None:
            found.append((frame.kind.value, frame.arrival))
        return found


def test_packets_come_in_order_and_video_begins_with_a_keyframe() -> None:
    relay = Relay()
    relay.put(VIDEO, 0.0)
    relay.put(AUDIO, 0.1)
    relay.put(VIDEO, 0.2, keyframe=True)
    relay.put(VIDEO, 0.3)
    assert relay.taken() == [("audio", 0.1), ("video", 0.2), ("video", 0.3)]
    assert relay.counters == PacketCounters(taken=3, before_keyframe=1)
    assert relay.taken() == []


def test_what_is_older_than_the_newest_keyframe_gives_way() -> None:
    relay = Relay()
    relay.put(VIDEO, 0.0, keyframe=True)
    relay.put(AUDIO, 0.1)
    relay.put(VIDEO, 1.0, keyframe=True)
    relay.put(VIDEO, 1.5, keyframe=True)
    relay.put(AUDIO, 1.6)
    relay.put(VIDEO, PACKET_SECONDS + 0.1)
    assert relay.taken() == [("video", 1.5), ("audio", 1.6), ("video", PACKET_SECONDS + 0.1)]
    assert relay.counters == PacketCounters(taken=3, dropped=3)
    assert relay.asked == 0


def test_without_a_later_keyframe_pictures_wait_for_the_next_and_it_is_asked_for() -> None:
    relay = Relay()
    relay.put(VIDEO, 0.0, keyframe=True)
    relay.put(AUDIO, 0.1)
    relay.put(VIDEO, 1.0)
    relay.put(AUDIO, 1.1)
    relay.put(VIDEO, PACKET_SECONDS + 0.1)
    assert relay.asked == 1
    relay.put(VIDEO, 2.2)
    relay.put(VIDEO, 2.3, keyframe=True)
    # The sound is older than the keyframe too.
    assert relay.counters == PacketCounters(dropped=5, before_keyframe=1)
    assert relay.taken() == [("video", 2.3)]


def test_sound_alone_loses_its_oldest() -> None:
    relay = Relay()
    for at in range(5):
        relay.put(AUDIO, float(at))
    assert relay.taken() == [("audio", 2.0), ("audio", 3.0), ("audio", 4.0)]
    assert relay.counters.dropped == 2


def test_bytes_are_bounded_too_but_the_newest_stays() -> None:
    relay = Relay()
    relay.put(VIDEO, 0.0, keyframe=True, size=PACKET_BYTES)
    relay.put(VIDEO, 0.1, keyframe=True, size=PACKET_BYTES + 1)
    assert relay.taken() == [("video", 0.1)]
    relay.put(VIDEO, 0.2, size=PACKET_BYTES)
    assert relay.taken() == [("video", 0.2)]
    relay.put(AUDIO, 0.3)
    before = relay.counters.dropped
    relay.buffer.clear()
    assert relay.taken() == []
    assert relay.counters.dropped == before + 1


def test_another_track_begins_with_a_keyframe_of_its_own() -> None:
    relay = Relay()
    relay.put(VIDEO, 0.0, keyframe=True)
    relay.put(VIDEO, 1.0, track="rebuilt")
    relay.put(VIDEO, 1.1, track="rebuilt", keyframe=True)
    assert relay.taken() == [("video", 0.0), ("video", 1.1)]
