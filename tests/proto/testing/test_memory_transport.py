"""A WebSocket in memory: order, the two ways to end, and a socket that takes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.testing.memory_transport import MemoryTransport, memory_transports
from navtalk_proto.transport import Transport, TransportClosedError


@pytest.fixture
def ends(flag: Any) -> tuple[MemoryTransport, MemoryTransport]:
    return memory_transports(flag)


def ended(task: Any) -> tuple[int | None, str]:
    """Code and reason of the TransportClosedError that a task raises."""
    with pytest.raises(TransportClosedError) as caught:
        task.result()
    return caught.value.code, caught.value.reason


def test_what_one_end_sends_the_other_receives_in_order(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    for text in ("one", "two"):
        assert crank(near.send_text(text)).result() is None
    near.send_binary(b"\x01\x02")
    assert crank(far.send_text("three")).result() is None
    assert (near.sent, far.sent) == (["one", "two"], ["three"])
    assert (near.waiting, far.waiting) == (1, 3)
    assert [crank(far.receive()).result() for _ in range(3)] == ["one", "two", b"\x01\x02"]
    assert crank(near.receive()).result() == "three"
    assert (near.waiting, far.waiting) == (0, 0)


def test_it_is_what_a_driver_takes(ends: tuple[MemoryTransport, MemoryTransport]) -> None:
    transport: Transport = ends[0]
    assert transport is ends[0]


def test_receiving_waits_and_a_cancelled_receive_loses_nothing(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    receiving = crank(far.receive())
    assert not receiving.turn()
    crank(near.send_text("one")).result()
    receiving.cancel()  # Woken, and cancelled before it ran.
    crank(near.send_text("two")).result()
    assert [crank(far.receive()).result() for _ in range(2)] == ["one", "two"]
    receiving = crank(far.receive())
    assert not receiving.turn()
    crank(near.send_text("three")).result()
    assert receiving.result() == "three"


def test_a_close_ends_both_ends_after_what_was_sent(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    crank(near.send_text("last")).result()
    assert crank(near.close(3000, "enough")).result() is None
    assert far.waiting == 1
    assert crank(far.receive()).result() == "last"
    for _ in range(2):  # The end stays the end.
        assert ended(crank(far.receive())) == (3000, "enough")
        assert ended(crank(near.receive())) == (3000, "enough")
    for end in ends:
        assert ended(crank(end.send_text("late"))) == (3000, "enough")
        with pytest.raises(TransportClosedError):
            end.send_binary(b"late")
    assert (near.sent, far.sent) == (["last"], [])
    assert (near.waiting, far.waiting) == (0, 0)


def test_only_the_first_close_counts(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    crank(near.close(1000, "first")).result()
    assert crank(far.close(1011, "second")).result() is None
    assert crank(near.close(1011, "third")).result() is None
    near.lose()
    assert ended(crank(near.receive())) == (1000, "first")
    assert ended(crank(far.receive())) == (1000, "first")


def test_a_lost_connection_has_no_close_frame(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    receiving = crank(far.receive())
    near.lose()
    assert ended(receiving) == (None, "")
    assert ended(crank(near.receive())) == (None, "")
    assert ended(crank(far.send_text("late"))) == (None, "")
    assert crank(far.close(1000, "")).done


def test_each_receiver_gets_an_exception_of_its_own(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    near.lose()
    raised = []
    for _ in range(2):
        with pytest.raises(TransportClosedError) as caught:
            crank(far.receive()).result()
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_a_stalled_end_sends_when_it_moves_again(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    assert near.stalled is False
    near.stalled = True
    assert (near.stalled, far.stalled) == (True, False)
    sending = crank(near.send_text("late"))
    assert not sending.turn()
    assert crank(far.send_text("unharmed")).done
    assert (near.sent, far.waiting) == ([], 0)
    near.stalled = False
    assert sending.result() is None
    assert near.stalled is False
    assert crank(far.receive()).result() == "late"


def test_a_cancelled_send_sends_nothing(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    near.stalled = True
    crank(near.send_text("never")).cancel()
    near.stalled = False
    assert (near.sent, far.waiting) == ([], 0)


def test_a_close_frame_waits_behind_a_full_socket(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    near.stalled = True
    closing, receiving = crank(near.close(1000, "")), crank(far.receive())
    assert not closing.turn()
    assert not receiving.turn()
    near.stalled = False
    assert closing.turn()
    assert ended(receiving) == (1000, "")


@pytest.mark.parametrize("how", ["lost", "closed", "dropped"])
def test_the_end_frees_who_waits_for_a_full_socket(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport], how: str
) -> None:
    near, far = ends
    near.stalled = True
    sending, closing = crank(near.send_text("never")), crank(near.close(1000, "ours"))
    if how == "lost":
        far.lose()
    elif how == "closed":
        assert crank(far.close(1001, "bye")).done
    else:
        assert crank(near.aclose()).done
    end = (1001, "bye") if how == "closed" else (None, "")
    assert ended(sending) == end
    assert closing.turn()
    assert near.sent == []
    # Also who comes later, and stalls it again.
    near.stalled = True
    assert ended(crank(near.send_text("later"))) == end
    assert crank(near.close(1000, "ours")).done


def test_dropping_one_end_is_a_lost_connection_for_the_other(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    assert not near.closed.is_set()
    assert crank(near.aclose()).done
    assert near.closed.is_set()
    assert not far.closed.is_set()
    assert ended(crank(far.receive())) == (None, "")
    assert crank(near.aclose()).done


def test_dropping_after_a_close_changes_nothing_for_the_other(
    crank: Any, ends: tuple[MemoryTransport, MemoryTransport]
) -> None:
    near, far = ends
    crank(near.close(1000, "done")).result()
    assert crank(near.aclose()).done
    assert ended(crank(far.receive())) == (1000, "done")
