"""Which offer an answer may be to, when offers were given up before they were answered."""

from __future__ import annotations

import pytest

from navtalk_proto.limits import Limits
from navtalk_proto.machines.given_up_offers import GIVEN_UP_OFFERS, GivenUpOffers, Match
from navtalk_proto.wire.messages import Answer
from navtalk_proto.wire.sdp import Sdp, check_description


def line(mid: str, direction: str = "sendrecv") -> Sdp:
    """A description of one m-line."""
    text = [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        f"a=mid:{mid}",
        f"a={direction}",
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 AA:BB",
    ]
    return check_description(Answer(sdp="".join(f"{each}\r\n" for each in text)), Limits())


def given_up(*offers: Sdp) -> GivenUpOffers:
    offers_ = GivenUpOffers()
    for offer in offers:
        offers_.add(offer)
    return offers_


def test_an_answer_to_the_only_offer() -> None:
    assert given_up().match(line("0"), line("0")) is Match.NEWEST


def test_an_answer_to_nothing() -> None:
    assert given_up().match(line("0")) is Match.NEITHER
    assert given_up().match(line("0"), line("1")) is Match.NEITHER
    offers = given_up(line("2"))
    assert offers.match(line("0"), line("1")) is Match.NEITHER
    assert len(offers) == 1, "that one may still come"


def test_an_answer_to_an_older_offer() -> None:
    offers = given_up(line("0"))
    assert offers.match(line("0"), line("0.2")) is Match.GIVEN_UP
    assert len(offers) == 0, "it was answered"


def test_an_answer_to_an_older_offer_while_none_is_out() -> None:
    offers = given_up(line("0"), line("1"))
    assert offers.match(line("1")) is Match.GIVEN_UP
    assert len(offers) == 0, "answers come in the order of the offers"


def test_an_answer_to_the_newest_ends_the_waiting_for_older_ones() -> None:
    offers = given_up(line("0"))
    assert offers.match(line("0.2"), line("0.2")) is Match.NEWEST
    assert len(offers) == 0


def test_an_answer_that_fits_both() -> None:
    offers = given_up(line("0"), line("0"))
    assert offers.match(line("0"), line("0")) is Match.EITHER
    assert len(offers) == 1, "it may have been the first one's"


@pytest.mark.parametrize(
    ("older", "newest", "answer", "match"),
    [
        ("recvonly", "inactive", "sendonly", Match.GIVEN_UP),
        ("recvonly", "inactive", "inactive", Match.EITHER),
        ("inactive", "recvonly", "sendonly", Match.NEWEST),
        # It fits neither, and sloppy peers answer like that: the newest is taken.
        ("sendonly", "sendonly", "sendrecv", Match.NEWEST),
    ],
)
def test_directions_decide_between_offers(
    older: str, newest: str, answer: str, match: Match
) -> None:
    offers = given_up(line("0", older))
    assert offers.match(line("0", answer), line("0", newest)) is match


def test_what_is_remembered_is_bounded() -> None:
    offers = given_up(*[line(str(number)) for number in range(GIVEN_UP_OFFERS + 2)])
    assert len(offers) == GIVEN_UP_OFFERS
    assert offers.match(line("1")) is Match.NEITHER, "the oldest went first"
    assert offers.match(line("2")) is Match.GIVEN_UP
