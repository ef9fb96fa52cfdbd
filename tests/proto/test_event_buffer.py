"""Events for one reader: order, the bound, what gives way, and who waits for whom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from navtalk_proto.event_buffer import (
    EVENTS_HIGH_WATER,
    EVENTS_HIGH_WATER_SIZE,
    Buffer,
    DroppingBuffer,
    EventBuffer,
)
from navtalk_proto.events import BinaryIgnored, CloseCause, Closed

CLOSED = Closed(cause=CloseCause.LOCAL, code=1000, reason="")


def numbered(number: int) -> BinaryIgnored:
    return BinaryIgnored(size=number)


def read_all(crank: Any, buffer: EventBuffer) -> list[Any]:
    async def main() -> list[Any]:
        return [event async for event in buffer]

    events: list[Any] = crank(main()).result()
    return events


def test_the_mark_is_1024_events_unless_given(flag: Any) -> None:
    assert EventBuffer(flag).high_water == EVENTS_HIGH_WATER == 1024
    assert EventBuffer(flag, high_water=3).high_water == 3


def test_in_order_to_the_end_and_no_further(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=10)
    for number in range(3):
        buffer.put(numbered(number))
    buffer.put(CLOSED)
    assert len(buffer) == 4
    assert read_all(crank, buffer) == [numbered(0), numbered(1), numbered(2), CLOSED]
    assert read_all(crank, buffer) == []
    assert buffer.dropped == 0


def test_a_reader_waits_for_an_event_and_for_the_end(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag)
    reader = crank(anext(aiter(buffer)))
    assert not reader.turn()
    buffer.put(numbered(7))
    assert reader.result() == numbered(7)
    reader = crank(anext(aiter(buffer)))
    assert not reader.turn()
    buffer.put(CLOSED)
    assert reader.result() == CLOSED
    with pytest.raises(StopAsyncIteration):
        crank(anext(aiter(buffer))).result()


def test_while_nobody_reads_the_oldest_give_way_and_are_counted(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=4)
    for number in range(10):
        buffer.put(numbered(number))
        assert crank(buffer.room()).done  # Nobody waits for a reader that may never come.
    assert len(buffer) == 4
    assert buffer.dropped == 6
    buffer.put(CLOSED)
    assert buffer.dropped == 7
    assert read_all(crank, buffer) == [numbered(7), numbered(8), numbered(9), CLOSED]


def test_while_a_reader_is_there_nothing_gives_way(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=2)
    buffer.put(numbered(0))
    reader = aiter(buffer)
    assert aiter(reader) is reader
    assert crank(anext(reader)).result() == numbered(0)
    for number in range(1, 6):
        buffer.put(numbered(number))
    buffer.put(CLOSED)
    assert buffer.dropped == 0
    assert [crank(anext(reader)).result() for _ in range(6)] == [
        *map(numbered, range(1, 6)),
        CLOSED,
    ]


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_reader_that_is_gone_stops_nobody(crank: Any, flag: Any, how: str) -> None:
    buffer = EventBuffer(flag, high_water=2)
    reader = aiter(buffer)
    for number in range(5):
        buffer.put(numbered(number))
    room = crank(buffer.room())
    assert not room.turn()
    if how == "closed":
        crank(reader.aclose()).result()
        crank(reader.aclose()).result()
        with pytest.raises(StopAsyncIteration):
            crank(anext(reader)).result()
    del reader
    assert room.turn(), "the driver receives again"
    assert (len(buffer), buffer.dropped) == (2, 3)
    buffer.put(numbered(5))
    assert (len(buffer), buffer.dropped) == (2, 4)


def test_one_of_two_readers_is_enough_to_keep_everything(flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=1)
    readers = [aiter(buffer), aiter(buffer)]
    readers.pop()
    buffer.put(numbered(0))
    buffer.put(numbered(1))
    assert buffer.dropped == 0


def test_room_is_made_at_half_the_mark(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=4)
    reader = aiter(buffer)
    for number in range(4):
        buffer.put(numbered(number))
    assert crank(buffer.room()).done
    buffer.put(numbered(4))
    waiting = [crank(buffer.room()), crank(buffer.room())]
    assert [crank(anext(reader)).result() for _ in range(2)] == [numbered(0), numbered(1)]
    assert not any(room.turn() for room in waiting)
    assert crank(anext(reader)).result() == numbered(2)
    assert all(room.turn() for room in waiting)
    # Between the marks there is room: no start and stop for every event.
    buffer.put(numbered(5))
    buffer.put(numbered(6))
    assert len(buffer) == 4
    assert crank(buffer.room()).done


def test_release_ends_all_waiting_for_room(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=1)
    reader = aiter(buffer)
    buffer.put(numbered(0))
    buffer.put(numbered(1))
    room = crank(buffer.room())
    assert not room.turn()
    buffer.release()
    assert room.turn()
    buffer.put(numbered(2))
    assert crank(buffer.room()).done
    assert len(buffer) == 3
    del reader


def test_a_second_reader_is_refused_and_harms_nobody(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag)
    first = crank(anext(aiter(buffer)))
    with pytest.raises(RuntimeError, match="another task reads"):
        aiter(buffer)
    for _ in range(2):  # The first refusal must not let the next one in.
        with pytest.raises(RuntimeError, match="another task reads"):
            crank(anext(aiter(buffer))).result()
    buffer.put(numbered(1))
    assert first.result() == numbered(1)
    buffer.put(numbered(2))
    assert crank(anext(aiter(buffer))).result() == numbered(2)


@pytest.mark.parametrize("woken", [False, True])
def test_a_cancelled_reader_loses_nothing(crank: Any, flag: Any, woken: bool) -> None:
    buffer = EventBuffer(flag)
    reader = crank(anext(aiter(buffer)))
    if woken:
        buffer.put(numbered(1))
    reader.cancel()
    if not woken:
        buffer.put(numbered(1))
    buffer.put(numbered(2))
    assert [crank(anext(aiter(buffer))).result() for _ in range(2)] == [numbered(1), numbered(2)]


# ---- other items, other policies


def turns(flag: Any, *, high_water: int = 10) -> DroppingBuffer[str]:
    return DroppingBuffer(flag, high_water=high_water, what="turns")


def test_it_ends_without_an_item_that_says_so(crank: Any, flag: Any) -> None:
    buffer = turns(flag)
    buffer.put("a")
    reader = aiter(buffer)
    assert crank(anext(reader)).result() == "a"
    reading = crank(anext(reader))
    assert not reading.turn()
    buffer.end()
    with pytest.raises(StopAsyncIteration):
        reading.result()


def test_what_came_before_the_end_is_still_read(crank: Any, flag: Any) -> None:
    buffer = turns(flag)
    buffer.put("a")
    buffer.end()
    reader = aiter(buffer)
    assert crank(anext(reader)).result() == "a"
    with pytest.raises(StopAsyncIteration):
        crank(anext(reader)).result()


def test_the_oldest_give_way_also_beside_a_reader_that_lags(crank: Any, flag: Any) -> None:
    buffer = turns(flag, high_water=2)
    reader = aiter(buffer)
    for item in "abc":
        buffer.put(item)
    assert (len(buffer), buffer.dropped) == (2, 1)
    assert [crank(anext(reader)).result() for _ in range(2)] == ["b", "c"]
    del reader
    for item in "defg":
        buffer.put(item)
    assert (len(buffer), buffer.dropped) == (2, 3)


def test_a_second_reader_is_told_what_is_read_already(crank: Any, flag: Any) -> None:
    buffer = turns(flag)
    reading = crank(anext(aiter(buffer)))
    with pytest.raises(RuntimeError, match="another task reads this session's turns already"):
        aiter(buffer)
    reading.cancel()


def test_a_buffer_without_a_policy_does_not_overflow_in_silence(flag: Any) -> None:
    buffer: Buffer[str] = Buffer(flag, high_water=1)
    buffer.put("a")
    with pytest.raises(NotImplementedError):
        buffer.put("b")


# ---- against a list


OPERATIONS = st.lists(
    st.sampled_from(["put", "put", "put", "iter", "read", "turn", "cancel", "leave", "room"]),
    max_size=60,
)


@example(1, ["iter", "read", "put", "cancel", "leave"], False)
@given(st.integers(1, 5), OPERATIONS, st.booleans())
def test_any_order_of_calls_does_what_a_list_does(
    crank: Any, flag: Any, high_water: int, operations: list[str], released: bool
) -> None:
    buffer = EventBuffer(flag, high_water=high_water)
    if released:
        buffer.release()
    events: list[int] = []
    dropped = put = 0
    full = False
    reader: Any = None
    reading: Any = None
    rooms: list[Any] = []

    def give_way() -> None:
        nonlocal dropped
        while len(events) > high_water:
            del events[0]
            dropped += 1

    def popped() -> None:
        nonlocal full, reading
        assert reading.result() == numbered(events.pop(0))
        reading = None
        if len(events) <= high_water // 2:
            full = False

    for operation in operations:
        if operation == "put":
            buffer.put(numbered(put))
            events.append(put)
            put += 1
            if reader is None:
                give_way()
            elif len(events) > high_water and not released:
                full = True
        elif operation == "iter" and reader is None:
            reader = aiter(buffer)
        elif operation == "read" and reader is not None and reading is None:
            reading = crank(anext(reader))
            assert reading.done is bool(events)
            if events:
                popped()
        elif operation == "turn" and reading is not None and events:
            popped()
        elif operation == "cancel" and reading is not None:
            reading.cancel()
            reading = None
        elif operation == "leave" and reading is None:
            reader = None
            give_way()
            full = False
        elif operation == "room":
            rooms.append(crank(buffer.room()))
            assert rooms[-1].done is not full
        if not full:
            assert all(room.turn() for room in rooms)
            rooms.clear()
        assert not any(room.turn() for room in rooms)
        assert (len(buffer), buffer.dropped) == (len(events), dropped)
    if reading is not None:
        reading.cancel()
    buffer.put(CLOSED)
    if reader is None and len(events) + 1 > high_water:
        del events[0]
    reader = aiter(buffer) if reader is None else reader
    left = [crank(anext(reader)).result() for _ in range(len(events) + 1)]
    assert left == [*map(numbered, events), CLOSED]


# ---- the size of what waits


def test_the_driver_waits_for_the_reader_of_large_events(crank: Any, flag: Any) -> None:
    assert EVENTS_HIGH_WATER_SIZE == 4 * 1024 * 1024
    buffer = EventBuffer(flag)
    reader = aiter(buffer)
    buffer.put(numbered(0), EVENTS_HIGH_WATER_SIZE)
    assert crank(buffer.room()).done
    buffer.put(numbered(1), 1)
    waiting = crank(buffer.room())
    assert not waiting.done
    assert crank(anext(reader)).result() == numbered(0)
    assert waiting.turn()
    buffer.put(numbered(2), 3 * EVENTS_HIGH_WATER_SIZE)
    waiting = crank(buffer.room())
    assert crank(anext(reader)).result() == numbered(1)
    assert not waiting.turn(), "the large one is still there"
    assert crank(anext(reader)).result() == numbered(2)
    assert waiting.turn()
    assert buffer.dropped == 0


def test_large_events_give_way_while_nobody_reads_but_for_the_newest(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag)
    buffer.put(numbered(0), EVENTS_HIGH_WATER_SIZE)
    buffer.put(numbered(1), 1)
    assert (len(buffer), buffer.dropped) == (1, 1)
    buffer.put(numbered(2), EVENTS_HIGH_WATER_SIZE + 1)
    assert (len(buffer), buffer.dropped) == (1, 2)
    assert crank(buffer.room()).done
    buffer.put(CLOSED)
    assert read_all(crank, buffer) == [CLOSED]
    assert buffer.dropped == 3


def test_another_connections_events_are_waited_for_again(crank: Any, flag: Any) -> None:
    buffer = EventBuffer(flag, high_water=2)
    reader = aiter(buffer)
    for number in range(3):
        buffer.put(numbered(number))
    assert not crank(buffer.room()).done
    buffer.release()
    assert crank(buffer.room()).done
    buffer.hold()
    waiting = crank(buffer.room())
    assert not waiting.done
    for number in range(3):
        assert crank(anext(reader)).result() == numbered(number)
    assert waiting.turn()
    buffer.release()
    buffer.hold()
    assert crank(buffer.room()).done
