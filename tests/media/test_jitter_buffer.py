from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio.media.jitter_buffer import (
    MAX_SOUND_WAIT,
    PICTURE_WAIT,
    REPAIRABLE_GAP,
    SPAN,
    AudioJitterBuffer,
    CompleteFrame,
    VideoJitterBuffer,
    unwrap,
)

CLOCK = 90_000


@frozen(kw_only=True)
class Rtp:
    seq: int
    timestamp: int
    marker: bool
    data: bytes
    begins: bool | None


def pictures(
    sizes: Sequence[int], *, first: int = 0, marked: bool = True, told: bool = True
) -> list[Rtp]:
    """The packets of pictures of so many packets each, 30 a second."""
    packets = []
    seq = first
    for number, size in enumerate(sizes):
        for part in range(size):
            packets.append(
                Rtp(
                    seq=seq & 0xFFFF,
                    timestamp=(number * CLOCK // 30 + 2**32 - 9000) % 2**32,
                    marker=marked and part == size - 1,
                    data=b"%d.%d;" % (number, part),
                    begins=(part == 0) if told else None,
                )
            )
            seq += 1
    return packets


def whole(number: int, size: int) -> bytes:
    return b"".join(b"%d.%d;" % (number, part) for part in range(size))


def put(buffer: VideoJitterBuffer, packet: Rtp, now: float) -> list[CompleteFrame]:
    return buffer.add(
        sequence_number=packet.seq,
        timestamp=packet.timestamp,
        marker=packet.marker,
        data=packet.data,
        begins=packet.begins,
        now=now,
    )


def put_all(buffer: VideoJitterBuffer, packets: Sequence[Rtp], now: float = 0.0) -> list[bytes]:
    return [frame.data for packet in packets for frame in put(buffer, packet, now)]


# ---- video


def test_a_picture_is_released_on_its_marker_packet() -> None:
    buffer = VideoJitterBuffer()
    first, second, third = pictures([3])
    assert put(buffer, first, 1.0) == put(buffer, second, 1.1) == []
    [frame] = put(buffer, third, 1.2)
    assert frame == CompleteFrame(whole(0, 3), first.timestamp, 1.0, after_loss=False)
    assert len(buffer) == 0
    assert buffer.deadline is None


def test_without_marker_bits_the_next_timestamp_ends_a_picture() -> None:
    buffer = VideoJitterBuffer()
    assert put_all(buffer, pictures([2, 1, 3, 1], marked=False, told=False)) == [
        whole(0, 2),
        whole(1, 1),
        whole(2, 3),
    ]


def test_marker_bits_that_end_no_picture_are_not_believed_for_long() -> None:
    buffer = VideoJitterBuffer()
    packets = [evolve(packet, marker=True) for packet in pictures([2, 2, 2, 2], told=False)]
    assert put_all(buffer, packets) == [b"0.0;", whole(1, 2), whole(2, 2)]
    assert buffer.counters.given_up == 1


def test_disorder_is_undone_and_duplicates_are_ignored() -> None:
    buffer = VideoJitterBuffer()
    a, b, c, d = pictures([2, 2])
    assert put_all(buffer, [a, c, c, b]) == [whole(0, 2)]
    assert put_all(buffer, [b, a, d]) == [whole(1, 2)]
    assert (buffer.counters.duplicates, buffer.counters.late) == (1, 2)


def test_the_stream_may_begin_out_of_order() -> None:
    buffer = VideoJitterBuffer()
    a, b, c = pictures([3])
    assert put_all(buffer, [b, c, a]) == []  # b is not the first of a picture: not joined there
    buffer = VideoJitterBuffer()
    a, b = pictures([1, 1])
    assert put_all(buffer, [evolve(b, begins=None)]) == [b.data]
    buffer = VideoJitterBuffer()
    a, b, c = pictures([3], told=False)
    assert put_all(buffer, [b, a, c]) == [whole(0, 3)]


def test_joined_in_the_middle_it_begins_with_the_next_picture() -> None:
    buffer = VideoJitterBuffer()
    frames = [frame for packet in pictures([3, 2])[1:] for frame in put(buffer, packet, 0.0)]
    assert [(frame.data, frame.after_loss) for frame in frames] == [(whole(1, 2), True)]
    assert buffer.counters.discarded == 2


def test_a_hole_is_given_up_after_its_deadline() -> None:
    buffer = VideoJitterBuffer()
    packets = pictures([1, 3, 2, 1])
    put(buffer, packets[0], 0.0)
    for at, packet in enumerate(packets[2:]):
        assert put(buffer, packet, 1.0 + at / 100) == []
    assert buffer.deadline == 1.0 + PICTURE_WAIT
    assert buffer.expire(1.0 + PICTURE_WAIT - 0.001) == []
    frames = buffer.expire(1.0 + PICTURE_WAIT)
    assert [(frame.data, frame.after_loss) for frame in frames] == [
        (whole(2, 2), True),
        (whole(3, 1), False),
    ]
    assert (buffer.deadline, len(buffer)) == (None, 0)
    assert buffer.counters.given_up == 1
    # What comes after that is late.
    assert put(buffer, packets[1], 2.0) == []
    assert buffer.counters.late == 1


def test_after_a_hole_an_unmarked_stream_begins_with_the_next_timestamp() -> None:
    buffer = VideoJitterBuffer()
    packets = pictures([2, 2, 2, 2], marked=False, told=False)
    put_all(buffer, packets[:2] + packets[3:4])
    buffer.expire(PICTURE_WAIT)
    assert put_all(buffer, packets[4:]) == [whole(2, 2)]


def test_a_gap_that_nobody_can_fill_is_not_waited_for() -> None:
    buffer = VideoJitterBuffer()
    packets = pictures([1] * (REPAIRABLE_GAP + 3))
    put(buffer, packets[0], 0.0)
    [frame] = put(buffer, packets[-1], 0.0)
    assert frame.after_loss
    assert buffer.counters.given_up == 1


def test_a_sender_that_starts_anew_is_followed_from_its_second_packet() -> None:
    buffer = VideoJitterBuffer()
    put_all(buffer, pictures([1, 1], first=30_000))
    stray, *again = pictures([1, 1, 1], first=100)
    assert put_all(buffer, [stray]) == []
    assert put_all(buffer, again) == [whole(1, 1), whole(2, 1)]


def test_a_stray_packet_changes_nothing() -> None:
    buffer = VideoJitterBuffer()
    a, b = pictures([2])
    [stray] = pictures([1], first=30_000)
    assert put_all(buffer, [a, stray, b]) == [whole(0, 2)]


def test_padding_belongs_to_no_picture() -> None:
    buffer = VideoJitterBuffer()
    a, b, c = pictures([1, 2])
    padding = evolve(a, seq=1, marker=False, data=b"", begins=None)
    b, c = evolve(b, seq=2), evolve(c, seq=3)
    assert put_all(buffer, [a, padding, b, c]) == [whole(0, 1), whole(1, 2)]


def test_a_restart_forgets_what_was_there() -> None:
    buffer = VideoJitterBuffer()
    packets = pictures([1, 3, 2, 2])
    put_all(buffer, packets[:3])
    buffer.restart()
    assert len(buffer) == 0
    frames = [frame for packet in packets[5:] for frame in put(buffer, packet, 0.0)]
    assert [(frame.data, frame.after_loss) for frame in frames] == [(whole(3, 2), True)]


def test_a_picture_that_never_ends_is_bounded() -> None:
    buffer = VideoJitterBuffer()
    for seq in range(2 * SPAN):
        put(buffer, Rtp(seq=seq, timestamp=0, marker=False, data=b"x", begins=None), 0.0)
    assert len(buffer) <= SPAN


def test_unwrap() -> None:
    assert unwrap(2, 65534, 16) == 65538
    assert unwrap(65534, 65538, 16) == 65534
    assert unwrap(0, 2**32 - 1, 32) == 2**32


# What a network does to a stream: each packet's delay in ms, None for one that never comes, and
# how many copies come.
fates = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 300)), st.integers(1, 2)),
    min_size=60,
    max_size=60,
)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=8, max_size=12),
    fate=fates,
    first=st.sampled_from([0, 100, 65_500, 65_530]),
    marked=st.booleans(),
    told=st.booleans(),
)
def test_every_picture_that_comes_in_time_is_released_once_and_in_order(
    sizes: list[int],
    fate: list[tuple[int | None, int]],
    first: int,
    marked: bool,
    told: bool,
) -> None:
    packets = pictures(sizes, first=first, marked=marked, told=told)
    fate = [(0, 1), *fate[1 : len(packets)]]  # where a stream begins is tested above
    arrivals = sorted(
        (number * 0.005 + (delay + copy) / 1000, number)
        for number, (delay, copies) in enumerate(fate)
        if delay is not None
        for copy in range(copies)
    )
    buffer = VideoJitterBuffer()
    released: list[bytes] = []

    def expire(now: float) -> None:
        for frame in buffer.expire(now):
            # The last of it came before the hole was noticed, and the first 0.3 s before that.
            assert now - frame.arrival <= PICTURE_WAIT + 0.35
            released.append(frame.data)

    for now, number in arrivals:
        while (deadline := buffer.deadline) is not None and deadline <= now:
            expire(deadline)
        released += [frame.data for frame in put(buffer, packets[number], now)]
    while (deadline := buffer.deadline) is not None:
        expire(deadline)

    everything = [whole(number, size) for number, size in enumerate(sizes)]
    numbers = [everything.index(data) for data in released]  # whole, or a ValueError
    assert numbers == sorted(set(numbers))
    lost = [number for number, (delay, _) in enumerate(fate) if delay is None]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    if marked and told:
        # Nothing is later than PICTURE_WAIT: what all came of is released.
        assert numbers == [
            number
            for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
            if not any(end - size <= packet < end for packet in lost)
        ]
    elif not lost:
        assert numbers == list(range(len(sizes) if marked else len(sizes) - 1))


# ---- sound

RATE = 48_000


def sound(buffer: AudioJitterBuffer, number: int, now: float) -> list[int]:
    frames = buffer.add(
        sequence_number=(65_530 + number) & 0xFFFF,
        timestamp=(2**32 - 4800 + number * 960) % 2**32,
        clock_rate=RATE,
        data=b"%d" % number,
        now=now,
    )
    return [int(frame.data) for frame in frames]


def test_sound_in_order_is_never_held() -> None:
    buffer = AudioJitterBuffer()
    for number in range(20):
        assert sound(buffer, number, number * 0.02) == [number]
    assert buffer.depth == 1
    assert buffer.deadline is None


def test_one_lost_packet_costs_one_packets_wait_and_once() -> None:
    buffer = AudioJitterBuffer()
    for number in range(10):
        sound(buffer, number, number * 0.02)
    assert sound(buffer, 11, 0.22) == []
    assert buffer.deadline == pytest.approx(0.24)
    [frame] = buffer.expire(0.24)
    assert (frame.data, frame.after_loss) == (b"11", True)
    for number in range(12, 30):
        assert sound(buffer, number, number * 0.02) == [number]
    assert buffer.counters.given_up == 1


def test_a_packet_out_of_order_is_waited_for() -> None:
    buffer = AudioJitterBuffer()
    sound(buffer, 0, 0.0)
    assert sound(buffer, 2, 0.04) == []
    assert sound(buffer, 1, 0.045) == [1, 2]
    assert buffer.deadline is None
    assert sound(buffer, 1, 0.05) == []
    assert buffer.counters.duplicates == 1


def test_a_late_packet_teaches_patience_and_calm_forgets_it() -> None:
    buffer = AudioJitterBuffer()
    sound(buffer, 0, 0.0)
    sound(buffer, 2, 0.04)
    assert buffer.expire(0.06)
    assert sound(buffer, 1, 0.13) == []  # 90 ms after it was missed
    assert buffer.counters.late == 1
    assert buffer.depth == 5
    now = 0.06
    for number in range(3, 3000):
        now = number * 0.02
        assert sound(buffer, number, now) == [number]
    assert buffer.depth == 1


def test_jitter_alone_teaches_patience() -> None:
    chance = random.Random(1)
    buffer = AudioJitterBuffer()
    arrivals = sorted((n * 0.02 + chance.uniform(0, 0.06), n) for n in range(400))
    released = []
    for now, number in arrivals:
        while buffer.deadline is not None and buffer.deadline <= now:
            released += [int(frame.data) for frame in buffer.expire(buffer.deadline)]
        released += sound(buffer, number, now)
    assert released == sorted(released)
    assert 0.01 < buffer.jitter < 0.04
    assert 2 <= buffer.depth <= 10
    # Disorder costs some packets until it is known, and nearly none afterwards.
    assert len([number for number in released if number >= 100]) >= 295


def test_a_restart_of_sound() -> None:
    buffer = AudioJitterBuffer()
    sound(buffer, 0, 0.0)
    sound(buffer, 2, 0.04)
    buffer.restart()
    assert buffer.deadline is None
    assert sound(buffer, 500, 10.0) == [500]


@given(
    fate=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 150)), st.integers(1, 2)), max_size=40
    )
)
def test_sound_comes_once_in_order_and_never_later_than_the_longest_wait(
    fate: list[tuple[int | None, int]],
) -> None:
    fate = [(0, 1), *fate]
    arrivals = sorted(
        (number * 0.02 + (delay + copy) / 1000, number)
        for number, (delay, copies) in enumerate(fate)
        if delay is not None
        for copy in range(copies)
    )
    buffer = AudioJitterBuffer()
    released: list[int] = []
    for now, number in arrivals:
        while buffer.deadline is not None and buffer.deadline <= now:
            at = buffer.deadline
            for frame in buffer.expire(at):
                assert at - frame.arrival <= MAX_SOUND_WAIT + 1e-9
                released.append(int(frame.data))
        released += sound(buffer, number, now)
    while (deadline := buffer.deadline) is not None:
        released += [int(frame.data) for frame in buffer.expire(deadline)]
    assert released == sorted(set(released))
    assert len(buffer) == 0
    came = {number for _, number in arrivals}
    assert len(came) == len(released) + buffer.counters.late
