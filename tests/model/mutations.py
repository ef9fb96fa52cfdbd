"""Mistakes that could have been made in the negotiation machine, as replacements of source text.

Each takes away one thing that the machine must get right. The models have to catch every one;
run_mutations.py tries. Each old text is in the source exactly once.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["MUTATIONS", "NEGOTIATION", "Mutation"]

NEGOTIATION: Final = "navtalk_proto/machines/negotiation.py"


@frozen(kw_only=True)
class Mutation:
    """One replacement in one file below ``src``."""

    breaks: str
    """What the machine gets wrong then."""
    old: str
    new: str
    file: str = NEGOTIATION


MUTATIONS: Final = (
    Mutation(
        breaks="candidates before the description reach the engine, which loses them",
        old="""            elif self._applied is None or offer_out:
                self._hold(self._early, candidate)
""",
        new="""            elif offer_out:
                self._hold(self._early, candidate)
""",
    ),
    Mutation(
        breaks="candidates that overtake the answer are thrown away",
        old="""            if candidate_ufrag(candidate) in (None, *remote.sdp.ufrags):
                joining.append(candidate)
            else:
""",
        new="""            if candidate_ufrag(candidate) is None:
                joining.append(candidate)
            else:
""",
    ),
    Mutation(
        breaks="candidates that overtake an offer are thrown away with our peer connection",
        old="""        if session_ended:
            # Otherwise those of a description still to come wait for it (see _forget_peer).
            self._discard(self._early, reason)
""",
        new="""        self._discard(self._early, reason)
""",
    ),
    Mutation(
        breaks="candidates of an unknown ICE generation reach the engine",
        old="""        elif self._applied is not None and ufrag in self._applied.ufrags:
            self._add(candidate)
        elif self._ignored_offer""",
        new="""        elif self._applied is not None:
            self._add(candidate)
        elif self._ignored_offer""",
    ),
    Mutation(
        breaks="early candidates are given to the engine after those that came later",
        old="        remote.batch[:0] = joining\n",
        new="        remote.batch += joining\n",
    ),
    Mutation(
        breaks="candidates over the limit vanish untold",
        old="            batch.append(candidate)\n        else:\n            self._ignore(",
        new="            batch.append(candidate)\n        else:\n            (lambda *_: None)(",
    ),
    Mutation(
        breaks="held candidates are not bounded",
        old="        if self.held_candidates < self._limits.candidates:\n",
        new="        if self.held_candidates < 2 * self._limits.candidates:\n",
    ),
    Mutation(
        breaks="our candidates while an offer is made are not bounded",
        old="            if len(self._unsent) < self._limits.candidates:\n",
        new="            if len(self._unsent) < 2 * self._limits.candidates:\n",
    ),
    Mutation(
        breaks="both ends ignore the other's offer in glare",
        old="""        assert remote is not None
        if not self._polite:
            self._ignore_offer(remote)
            return None
""",
        new="""        assert remote is not None
        if True:
            self._ignore_offer(remote)
            return None
""",
    ),
    Mutation(
        breaks="both ends give up their offer in glare",
        old="""        if not self._polite:
            self._ignore_offer(remote)
            return None
""",
        new="",
    ),
    Mutation(
        breaks="the wish of the end that yields is forgotten",
        old="State.OFFER_EXPIRED:\n            self._wish_again(local)\n",
        new="State.OFFER_EXPIRED:\n            pass\n",
    ),
    Mutation(
        breaks="an applied offer is given up by an engine that cannot roll back",
        old="        if local.applied and not self._capabilities.rollback:\n",
        new="        if False:\n",
    ),
    Mutation(
        breaks="a later offer is applied at once, so that it cannot be given up",
        old="        if self._exchanged:\n            self.out.append(CreateOffer(",
        new="        if False:\n            self.out.append(CreateOffer(",
    ),
    Mutation(
        breaks="an offer of a new transport is applied to the old peer connection",
        old="        if new or self._dead:\n",
        new="        if self._dead:\n",
    ),
    Mutation(
        breaks="an answer of a new transport is applied to the old peer connection",
        old="same_transport(self._applied, remote.sdp):\n            # Theory 5",
        new="True:\n            # Theory 5",
    ),
    Mutation(
        breaks="the impolite end answers, on its new peer, offers made for the old one",
        old="        if self._polite or self._wish is None or self._parked is not None:\n",
        new="        if True:\n",
    ),
    Mutation(
        breaks="an offer that comes while another is answered is answered too, by the first answer",
        old="""        self._exchanged = True
        if self._parked is None:
            self.out.append(self._result)
""",
        new="""        self._exchanged = True
        if True:
            self.out.append(self._result)
""",
    ),
    Mutation(
        breaks="a wish made during an exchange is never taken up",
        old="        if self._wish is not None:\n            return self._offer(None)\n",
        new="",
    ),
    Mutation(
        breaks="nobody waits for the answer with a timer",
        old="        self._timers.arm(Timer.ANSWER, self._now + self._answer_timeout)\n",
        new="",
    ),
    Mutation(
        breaks="the answer's time is counted from an earlier moment",
        old="        self._now = now\n        incoming = remote\n",
        new="        incoming = remote\n",
    ),
    Mutation(
        breaks="the answer timer outlives the offer that was given up",
        old="""        assert local is not None
        self._timers.stop(Timer.ANSWER)
        if self._wish is None and""",
        new="""        assert local is not None
        if self._wish is None and""",
    ),
    Mutation(
        breaks="a failed operation leaves the broken peer connection in use",
        old="        self._fail(self._reason, local)\n        return self._reset()\n",
        new="        self._fail(self._reason, local)\n        return State.RESETTING\n",
    ),
    Mutation(
        breaks="an exchange whose operation fails is not told of",
        old="        self._fail(self._reason, local)\n        return self._settle()\n",
        new="        return self._settle()\n",
    ),
    Mutation(
        breaks="a wish that waits when the transport fails is not told of",
        old="""            self._fail(_DEAD, local)
        self._fail_wish(_DEAD)
""",
        new="""            self._fail(_DEAD, local)
""",
    ),
    Mutation(
        breaks="a transport that fails during an operation counts as alive",
        old="    def _note_dead(self, _: _Remote | None) -> None:\n        self._dead = True\n",
        new="    def _note_dead(self, _: _Remote | None) -> None:\n        pass\n",
    ),
    Mutation(
        breaks="the answer is applied before our offer is",
        old="        if local.applied:\n"
        "            return self._set_remote(remote, State.APPLYING_ANSWER)\n",
        new="        if True:\n"
        "            return self._set_remote(remote, State.APPLYING_ANSWER)\n",
    ),
    Mutation(
        breaks="the peer connection is left open at the end",
        old="        if had_peer:\n",
        new="        if had_peer and self._exchanged:\n",
    ),
    Mutation(
        breaks="a late completion is taken for that of the operation in flight",
        old="""        if op == self._op:
            self._op = None
            self._reason = reason
""",
        new="""        if self._op is not None and op <= self._op:
            self._op = None
            self._reason = reason
""",
    ),
    Mutation(
        breaks="a result of the wrong type is noticed after the state moved",
        old="""            if not isinstance(result, expected):
                raise""",
        new="""            if not isinstance(result, expected):
                self._op = None
                raise""",
    ),
    Mutation(
        breaks="a rejected send lets time pass",
        old="""        match intent:
            case Close():
                check_close(intent)
""",
        new="""        self._advance(now)
        match intent:
            case Close():
                check_close(intent)
""",
        file="navtalk_proto/connection.py",
    ),
    Mutation(
        breaks="Closed is told again when the transport ends after it",
        old="            return  # CLOSED already, told once.\n",
        new="            self._tell_closed(code, reason)\n            return\n",
        file="navtalk_proto/connection.py",
    ),
    Mutation(
        breaks="the wishes of a session that ends are left waiting",
        old="        self._fail_wish(reason, session_ended=session_ended)\n",
        new="",
    ),
    Mutation(
        breaks="an answer to an offer that was given up is taken for the newest one's",
        old="""        if match is Match.GIVEN_UP:
            self._ignore_answer()
            return None
""",
        new="",
    ),
    Mutation(
        breaks="an answer with other m-lines than the offer's is taken",
        old="""        if match is Match.NEITHER:
            self._emit(AnswerIgnored(reason="its m-lines are not those of the offer that is out"))
            return None
""",
        new="",
    ),
    Mutation(
        breaks="what was exchanged by an older offer's answer is never offered again",
        old="            self._doubtful = local\n",
        new="",
    ),
    Mutation(
        breaks="no answer is expected any more to an offer lost with its peer connection",
        old="        self._drop_local()\n        self._remote = None\n",
        new="        self._local = None\n        self._remote = None\n",
    ),
    Mutation(
        breaks="no answer is expected any more to an offer that took too long",
        old="        self._drop_local()\n        return self._settle()\n",
        new="        self._local = None\n        return self._settle()\n",
    ),
    Mutation(
        breaks="what is offered again is taken for the newest wish",
        old="        self._wish_number = local.wish\n",
        new="        self._wish_number = self.wishes\n",
    ),
    Mutation(
        breaks="the mids of an answer are not looked at",
        old="        offered.kind == answered.kind and answered.mid in (offered.mid, None)\n",
        new="        offered.kind == answered.kind\n",
        file="navtalk_proto/wire/sdp.py",
    ),
    Mutation(
        breaks="a transport that never comes up is waited for without an end",
        old="            self._arm(Timer.TRANSPORT)\n",
        new="            pass\n",
        file="navtalk_proto/connection.py",
    ),
)
