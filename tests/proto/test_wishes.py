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
from navtalk_proto.media import Direction, MediaKind, MediaLine
from navtalk_proto.wishes import PendingWishes

VIDEO = (MediaLine(kind=MediaKind.VIDEO),)
AUDIO = (MediaLine(kind=MediaKind.AUDIO),)
BOTH = (*VIDEO, *AUDIO)
CLOSED = Closed(cause=CloseCause.REMOTE, code=1000, reason="")


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
    book.wishes.add(VIDEO, "a")
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert book.told == [("a", None)]
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert book.told == [("a", None)]


def test_an_equal_wish_is_the_same_wish() -> None:
    book = Book()
    book.wishes.add((MediaLine(kind=MediaKind.VIDEO, direction=Direction.RECVONLY),), "a")
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert book.told == [("a", None)]


def test_exchanges_for_others_decide_nothing() -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    others: list[Event] = [
        Negotiated(offered_by_us=False),
        Negotiated(offered_by_us=False, media=VIDEO),
        Negotiated(offered_by_us=True, media=AUDIO),
        Negotiated(offered_by_us=True, media=BOTH),
        NegotiationFailed(reason="the far end's offer"),
        NegotiationFailed(reason="another wish", media=AUDIO),
        ConfigUpdated(),
    ]
    for event in others:
        book.wishes.observe(event)
    assert book.told == []
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert book.who(None) == ["a"]


def test_a_failure_says_why() -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    book.wishes.observe(NegotiationFailed(reason="no answer within 10 s", media=VIDEO))
    ((waiter, error),) = book.told
    assert waiter == "a"
    assert type(error) is MediaError
    assert str(error) == "negotiation failed: no answer within 10 s"


def test_the_newest_wish_ends_those_before_it() -> None:
    book = Book()
    for media, waiter in ((VIDEO, "a"), (AUDIO, "b"), (BOTH, "c"), (VIDEO, "d")):
        book.wishes.add(media, waiter)
    book.wishes.observe(Negotiated(offered_by_us=True, media=BOTH))
    assert book.who(None) == ["a", "b", "c"]
    book.wishes.observe(NegotiationFailed(reason="why", media=VIDEO))
    assert book.who(MediaError) == ["d"]
    assert len(book.told) == 4


def test_the_same_wish_twice_is_met_by_the_first_exchange() -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    book.wishes.add(VIDEO, "b")
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert book.who(None) == ["a", "b"]


def test_the_end_of_the_session_ends_every_wish() -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    book.wishes.add(AUDIO, "b")
    book.wishes.observe(CLOSED)
    assert book.who(SessionClosedError) == ["a", "b"]
    assert len(book.wishes) == 0
    book.wishes.observe(CLOSED)
    assert len(book.told) == 2


@pytest.mark.parametrize("event", [NegotiationFailed(reason="why", media=VIDEO), CLOSED])
def test_everybody_gets_an_exception_of_their_own(event: Event) -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    book.wishes.add(VIDEO, "b")
    book.wishes.observe(event)
    (_, one), (_, other) = book.told
    assert one is not other
    assert (type(one), str(one)) == (type(other), str(other))


def test_who_is_forgotten_is_not_told() -> None:
    book = Book()
    book.wishes.add(VIDEO, "a")
    book.wishes.add(VIDEO, "b")
    book.wishes.forget("a")
    book.wishes.forget("nobody")
    assert len(book.wishes) == 1
    book.wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
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
    wishes.add(VIDEO, one)
    wishes.add(VIDEO, other)
    wishes.forget(one)
    wishes.observe(CLOSED)
    assert len(told) == 1
    assert told[0] is other


def test_a_waiter_that_is_told_may_wish_again_at_once() -> None:
    told: list[str] = []

    def tell(waiter: str, error: NavTalkError | None) -> None:
        told.append(waiter)
        if waiter == "a":
            wishes.add(VIDEO, "again")

    wishes: PendingWishes[str] = PendingWishes(tell)
    wishes.add(VIDEO, "a")
    wishes.add(VIDEO, "b")
    wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert told == ["a", "b"]
    wishes.observe(Negotiated(offered_by_us=True, media=VIDEO))
    assert told == ["a", "b", "again"]


# ---- in any order


MEDIA = st.sampled_from([VIDEO, AUDIO, BOTH])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), MEDIA),
        st.tuples(st.just("granted"), MEDIA),
        st.tuples(st.just("failed"), MEDIA),
        st.tuples(st.just("forget"), st.integers(0, 5)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_waiter_is_told_exactly_once(steps: list[tuple[str, Any]]) -> None:
    book = Book()
    # The naive account: a wish is decided by the newest equal one, and decides the older ones.
    waiting: list[tuple[Any, str]] = []
    expected: list[tuple[str, str]] = []
    added: list[str] = []
    forgotten: set[str] = set()
    for action, what in steps:
        if action == "add":
            added.append(str(len(added)))
            book.wishes.add(what, added[-1])
            waiting.append((what, added[-1]))
        elif action == "forget":
            if what < len(waiting):
                _, waiter = waiting.pop(what)
                book.wishes.forget(waiter)
                forgotten.add(waiter)
        else:
            if action == "granted":
                book.wishes.observe(Negotiated(offered_by_us=True, media=what))
            else:
                book.wishes.observe(NegotiationFailed(reason="why", media=what))
            while any(media == what for media, _ in waiting):
                expected.append((waiting.pop(0)[1], action))
        assert len(book.wishes) == len(waiting)
    book.wishes.observe(CLOSED)
    expected += [(waiter, "closed") for _, waiter in waiting]
    meaning = {type(None): "granted", MediaError: "failed", SessionClosedError: "closed"}
    assert [(waiter, meaning[type(error)]) for waiter, error in book.told] == expected
    told = [waiter for waiter, _ in book.told]
    assert sorted([*told, *forgotten], key=int) == added
