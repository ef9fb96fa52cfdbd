"""Events for one reader: order, the bound, and what gives way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navtalk_proto import SessionClosedError
from navtalk_proto.event_buffer import EventBuffer
from navtalk_proto.events import BinaryIgnored, CloseCause, Closed, MessageReceived
from navtalk_proto.wire.messages import ServerStatus

CLOSED = Closed(cause=CloseCause.LOCAL, code=1000, reason="")


def numbered(number: int) -> BinaryIgnored:
    return BinaryIgnored(size=number)


def sizes(events: list[Any]) -> list[int]:
    return [event.size for event in events if isinstance(event, BinaryIgnored)]


def test_order_and_the_end(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=10)
        for number in range(3):
            buffer.put(numbered(number))
        buffer.put(CLOSED)
        assert len(buffer) == 4
        events = [event async for event in buffer]
        assert sizes(events) == [0, 1, 2]
        assert events[-1] == CLOSED
        assert [event async for event in buffer] == []
        assert buffer.dropped == 0

    kit.run(main())


def test_a_reader_waits_for_events(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=10)
        reading = asyncio.create_task(anext(aiter(buffer)))
        await kit.settle()
        assert not reading.done()
        buffer.put(numbered(7))
        assert await reading == numbered(7)

    kit.run(main())


def test_unread_events_give_way_oldest_first(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=4)
        for number in range(10):
            buffer.put(numbered(number))
            await buffer.room()  # Never waits: nobody reads.
        assert len(buffer) == 4
        assert buffer.dropped == 6
        buffer.put(CLOSED)
        assert buffer.dropped == 7
        events = [event async for event in buffer]
        assert sizes(events) == [7, 8, 9]
        assert events[-1] == CLOSED

    kit.run(main())


def test_once_read_nothing_gives_way_and_room_waits(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=4)
        reader = aiter(buffer)
        for number in range(4):
            buffer.put(numbered(number))
        await buffer.room()
        buffer.put(numbered(4))
        room = asyncio.create_task(buffer.room())
        await kit.settle()
        assert not room.done()
        # Room is made at half the mark, not at every event: no start and stop per message.
        assert [await anext(reader) for _ in range(2)] == [numbered(0), numbered(1)]
        await kit.settle()
        assert not room.done()
        assert await anext(reader) == numbered(2)
        await room
        assert buffer.dropped == 0
        assert len(buffer) == 2

    kit.run(main())


def test_release_ends_all_waiting(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=1)
        reader = aiter(buffer)
        buffer.put(numbered(0))
        buffer.put(numbered(1))
        room = asyncio.create_task(buffer.room())
        await kit.settle()
        assert not room.done()
        buffer.release()
        await room
        buffer.put(numbered(2))
        await buffer.room()
        assert len(buffer) == 3
        del reader

    kit.run(main())


def test_a_second_reader_is_refused(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=10)
        first = aiter(buffer)
        reading = asyncio.create_task(anext(first))
        await kit.settle()
        with pytest.raises(RuntimeError, match="another task reads"):
            aiter(buffer)
        with pytest.raises(RuntimeError, match="another task reads"):
            await anext(first)
        buffer.put(numbered(1))
        assert await reading == numbered(1)  # The first one is unharmed.

    kit.run(main())


def test_one_reader_after_another(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=10)
        for number in range(4):
            buffer.put(numbered(number))
        async for event in buffer:
            if event == numbered(1):
                break
        buffer.put(CLOSED)
        assert sizes([event async for event in buffer]) == [2, 3]

    kit.run(main())


def test_a_cancelled_reader_loses_nothing(kit: Any) -> None:
    async def main() -> None:
        buffer = EventBuffer(asyncio.Event, high_water=10)
        reading = asyncio.create_task(anext(aiter(buffer)))
        await kit.settle()
        buffer.put(numbered(1))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await anext(aiter(buffer)) == numbered(1)

    kit.run(main())


# ---- in a session: the mark is 1024 events


async def chatter(far: Any, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        # One event each: nothing of the conversation follows from it.
        await far.say("realtime.status", {"number": number})


def contents(events: list[Any]) -> list[Any]:
    return [
        event.message.data["number"]
        for event in events
        if isinstance(event, MessageReceived) and isinstance(event.message, ServerStatus)
    ]


def test_a_slow_reader_pauses_receiving(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            reader = session.events()
            for _ in range(3):  # Connected, Ready, Usable
                await anext(reader)
            await chatter(far, 5000)
            await kit.settle()
            # 1025 events wait here; the far end's other messages wait in the transport.
            assert session.counters.received == 3 + 1025
            assert far.near.waiting == 5000 - 1025
            read = [await anext(reader) for _ in range(513)]
            await kit.settle()
            assert session.counters.received == 3 + 1025 + 513
            read += [await anext(reader) for _ in range(5000 - 513)]
            assert contents(read) == list(range(5000))
            assert far.near.waiting == 0
            assert session.events_dropped == 0

    kit.run(main())


def test_sending_goes_on_while_receiving_is_paused(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            reader = session.events()
            await anext(reader)
            await chatter(far, 3000)
            await kit.settle()
            await session.send_text("are you there?", respond=False)
            assert (await far.hear())["type"] == "conversation.item.create"

    kit.run(main())


def test_a_lost_connection_is_noticed_while_receiving_is_paused(kit: Any) -> None:
    """One task that answers what it reads must not wait for room in a socket that is gone."""

    async def main() -> None:
        async with kit.session() as (session, far):
            reader = session.events()
            await anext(reader)
            await chatter(far, 3000)
            await kit.settle()
            far.near.lose()

            async def speak() -> None:
                while True:
                    await session.send_audio(bytes(48_000))

            with pytest.raises(SessionClosedError):
                await speak()
            events = [event async for event in reader]
            assert isinstance(events[-1], Closed)
            assert events[-1].cause is CloseCause.REMOTE

    elapsed, _ = kit.run(kit.elapsed(main()))
    assert elapsed == 0.001


def test_nobody_reads(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            await chatter(far, 5000)
            await kit.settle()
            assert session.counters.received == 5003
            assert session.events_dropped == 5003 - 1024
            assert far.near.waiting == 0
            late = session.events()
            assert contents([await anext(late) for _ in range(1024)]) == list(range(3976, 5000))

    kit.run(main())


def test_events_has_one_reader(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            reader = session.events()
            for _ in range(3):
                await anext(reader)
            reading = asyncio.create_task(anext(reader))
            await kit.settle()
            with pytest.raises(RuntimeError, match="another task reads"):
                session.events()
            await chatter(far, 1)
            assert contents([await reading]) == [0]

    kit.run(main())
