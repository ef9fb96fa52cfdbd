"""Who waits for which negotiation: everybody is told once, and by the exchange that decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import MediaError, NavTalkError, SessionClosedError
from navtalk_proto.events import (
    CloseCause,
    Closed,
    ConfigUpdated,
    Event,
    Negotiated,
    NegotiationFailed,
)
from navtalk_proto.wishes import PendingWishes

CLOSED = Closed(cause=CloseCause.REMOTE, code=1000, reason="")


def granted(wish: int) -> Negotiated:
    return Negotiated(offered_by_us=wish > 0, wish=wish)


def failed(wish: int, *, session_ended: bool = False) -> NegotiationFailed:
    return NegotiationFailed(reason="why", wish=wish, session_ended=session_ended)


class Book:
    """A PendingWishes, and what its waiters were told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, NavTalkError | None]] = []
        self.wishes: PendingWishes[str] = PendingWishes(
            lambda waiter, error: self.told.append((waiter, error))
        )

    def who(self, kind: type[NavTalkError] | None) -> list[str]:
        return [
            waiter
            for waiter, error in self.told
            if (error is None if kind is None else type(error) is kind)
        ]


def test_an_exchange_of_ours_grants_the_wish() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.observe(granted(1))
    assert book.told == [("a", None)]
    book.wishes.observe(granted(1))
    assert book.told == [("a", None)]


def test_exchanges_for_others_decide_nothing() -> None:
    book = Book()
    book.wishes.add(3, "a")
    for event in (granted(0), granted(2), failed(0), failed(1), ConfigUpdated()):
        book.wishes.observe(event)
    assert book.told == []
    book.wishes.observe(granted(3))
    assert book.who(None) == ["a"]


def test_a_failure_says_why() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.observe(NegotiationFailed(reason="no answer within 10 s", wish=1))
    ((waiter, error),) = book.told
    assert waiter == "a"
    assert type(error) is MediaError
    assert str(error) == "negotiation failed: no answer within 10 s"


def test_a_wish_that_fails_because_the_session_ends_says_so() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.add(2, "b")
    book.wishes.observe(failed(1, session_ended=True))
    assert book.who(SessionClosedError) == ["a"]
    book.wishes.observe(CLOSED)
    assert book.who(SessionClosedError) == ["a", "b"]


def test_the_newest_wish_ends_those_before_it() -> None:
    book = Book()
    # The third is the engine's, or of somebody who does not wait.
    for number, waiter in ((1, "a"), (2, "b"), (4, "c")):
        book.wishes.add(number, waiter)
    book.wishes.observe(granted(3))
    assert book.who(None) == ["a", "b"]
    book.wishes.observe(failed(4))
    assert book.who(MediaError) == ["c"]
    assert len(book.told) == 3


def test_the_same_wish_made_twice_is_two() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.add(2, "b")
    book.wishes.observe(failed(1))
    assert book.who(MediaError) == ["a"]
    book.wishes.observe(granted(2))
    assert book.who(None) == ["b"]


def test_the_end_of_the_session_ends_every_wish() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.add(2, "b")
    book.wishes.observe(CLOSED)
    assert book.who(SessionClosedError) == ["a", "b"]
    assert len(book.wishes) == 0
    book.wishes.observe(CLOSED)
    assert len(book.told) == 2


@pytest.mark.parametrize("event", [failed(2), failed(2, session_ended=True), CLOSED])
def test_everybody_gets_an_exception_of_their_own(event: Event) -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.add(2, "b")
    book.wishes.observe(event)
    (_, one), (_, other) = book.told
    assert one is not other
    assert (type(one), str(one)) == (type(other), str(other))


def test_who_is_forgotten_is_not_told() -> None:
    book = Book()
    book.wishes.add(1, "a")
    book.wishes.add(2, "b")
    book.wishes.forget("a")
    book.wishes.forget("nobody")
    assert len(book.wishes) == 1
    book.wishes.observe(granted(2))
    assert book.who(None) == ["b"]
    book.wishes.forget("b")


def test_waiters_are_told_apart_by_identity() -> None:
    class Same:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    told: list[Same] = []
    wishes: PendingWishes[Same] = PendingWishes(lambda waiter, error: told.append(waiter))
    one, other = Same(), Same()
    wishes.add(1, one)
    wishes.add(2, other)
    wishes.forget(one)
    wishes.observe(CLOSED)
    assert len(told) == 1
    assert told[0] is other


def test_a_waiter_that_is_told_may_wish_again_at_once() -> None:
    told: list[str] = []

    def tell(waiter: str, error: NavTalkError | None) -> None:
        told.append(waiter)
        if waiter == "a":
            wishes.add(3, "again")

    wishes: PendingWishes[str] = PendingWishes(tell)
    wishes.add(1, "a")
    wishes.add(2, "b")
    wishes.observe(granted(2))
    assert told == ["a", "b"]
    wishes.observe(granted(3))
    assert told == ["a", "b", "again"]


# ---- in any order

STEPS = st.lists(
    st.one_of(
        st.just(("wish", True)),
        st.just(("wish", False)),
        st.tuples(st.sampled_from(["granted", "failed"]), st.integers(0, 9)),
        st.tuples(st.just("forget"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_waiter_is_told_exactly_once(steps: list[tuple[str, Any]]) -> None:
    book = Book()
    names = [str(number) for number in range(len(steps) + 10)]  # Told apart by identity.
    wished = 0
    waiting: set[int] = set()
    expected: dict[str, str] = {}
    for action, what in steps:
        if action == "wish":
            wished += 1
            if what:  # Not every wish is waited for.
                book.wishes.add(wished, names[wished])
                waiting.add(wished)
        elif action == "forget":
            book.wishes.forget(names[what])
            waiting.discard(what)
        elif what <= wished:
            book.wishes.observe(granted(what) if action == "granted" else failed(what))
            expected |= {str(number): action for number in waiting if number <= what}
            waiting = {number for number in waiting if number > what}
        assert len(book.wishes) == len(waiting)
    book.wishes.observe(CLOSED)
    expected |= {str(number): "closed" for number in waiting}
    meaning = {type(None): "granted", MediaError: "failed", SessionClosedError: "closed"}
    assert {waiter: meaning[type(error)] for waiter, error in book.told} == expected
    told = [int(waiter) for waiter, _ in book.told]
    assert told == sorted(told)
