"""The offers of ours that were sent and given up, and whose answers may still come.

Theory of operation
===================

Nothing on the wire says which offer an answer is to (protocol.md 5.4). An offer is given up when
its peer connection ended, its time was over, or the far end's went first; another one may be out
before the answer to it arrives, or never does. What is known then:

1. An answer has its offer's m-lines: their number, kinds and mids. One that has others is not to
   the offer that is out, whatever it is to, and no engine could take it. An engine whose peer
   connections name their m-lines differently thereby marks its offers.
2. Messages keep their order, and so do a far end's answers. It may leave an offer unanswered.
3. On one peer connection the mids stay, and two offers may look the same but for the directions. An
   answer that fits both is taken for the newest one: mostly the older one was never answered. If it
   was, another answer follows, which nothing else explains. Then the newest offer has to be made
   again.

What cannot be known is an answer that came in place of another when that other never comes. Where
it brought a wrong transport, no media flows, and the transport's deadline tells.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from navtalk_proto.wire.sdp import Sdp, directions_fit, may_answer

__all__ = ["GIVEN_UP_OFFERS", "GivenUpOffers", "Match"]

GIVEN_UP_OFFERS: Final = 8
"""Offers that are remembered. A far end that left eight unanswered is not about to answer them."""


class Match(Enum):
    """What an answer may be to."""

    NEWEST = "newest"
    """The offer that is out."""
    GIVEN_UP = "given up"
    """An offer that was given up, and not the one that is out."""
    EITHER = "either"
    """Both fit."""
    NEITHER = "neither"
    """None of them."""


class GivenUpOffers:
    """Offers without their answers, oldest first."""

    def __init__(self) -> None:
        self._offers: deque[Sdp] = deque(maxlen=GIVEN_UP_OFFERS)

    def __len__(self) -> int:
        return len(self._offers)

    def add(self, offer: Sdp) -> None:
        """An answer to `offer` may still come."""
        self._offers.append(offer)

    def match(self, answer: Sdp, *newest: Sdp) -> Match:
        """What `answer` may be to. Those before that are not waited for any more.

        `newest` is the offer that is out, if one is.
        """
        fitting = [offer for offer in newest if may_answer(offer, answer)]
        for number, older in enumerate(self._offers, 1):
            if may_answer(older, answer) and directions_fit(older, answer):
                for _ in range(number):
                    self._offers.popleft()
                fits_both = any(directions_fit(offer, answer) for offer in fitting)
                return Match.EITHER if fits_both else Match.GIVEN_UP
        if not fitting:
            return Match.NEITHER
        self._offers.clear()
        return Match.NEWEST
