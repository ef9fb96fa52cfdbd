"""Both machines, every state times every input, against grids typed by hand.

A cell is where the input leads; `.` is a mistake of whoever caused it, `-` ignored on purpose.
"""

from __future__ import annotations

import itertools
import pickle
from collections import defaultdict, deque
from collections.abc import Callable

import pytest

from navtalk_proto.limits import Limits
from navtalk_proto.machines import lifecycle, negotiation
from navtalk_proto.machines.lifecycle import Lifecycle, Local, Verdict
from navtalk_proto.machines.negotiation import Negotiation
from navtalk_proto.media import Capabilities, IcePolicy, MediaKind, MediaLine
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import Answer, Offer
from navtalk_proto.wire.sdp import check_description

# Lifecycle. `!`: out of order. `q`: ours waits for READY. `e`: ours is too early.
LIFECYCLE = """
                 IDLE WELCOMING OPENING CONFIGURING READY CLOSING CLOSED
OPENED           W    .         .       .           .     .       -
LOST             X    X         X       X           X     X       -
S_SUCCESS        .    O         .       C!          R!    -       -
S_SUCCESS_READY  .    R         .       .           .     -       -
S_SUCCESS_AGAIN  .    .         .       .           .     -       -
S_WARNING        .    W!        O       C           R     -       -
S_REFUSAL        .    L         L       L           R     -       -
S_GOODBYE        .    L         L       L           L     -       -
S_CREATED        .    C!        C       .           R!    -       -
S_UPDATED        .    R!        R!      R           R     -       -
S_CONVERSATION   .    W!        O       C           R     -       -
C_CONFIG         Iq   W         O       C           R     -       -
C_ITEM           Iq   Wq        Oq      Cq          R     -       -
C_MEDIA          Ie   We        Oe      Ce          R     -       -
SIGNALING        .    W!        O       C           R     -       -
UNKNOWN          .    W         O       C           R     -       -
WISH             .    We        O       C           R     .       -
CLOSE            X    L         L       L           L     -       -
FATAL            X    L         L       L           L     -       -
MEDIA_LOST       .    L         L       L           L     .       -
T_WELCOME        .    L         .       .           .     .       -
T_SETUP          .    .         L       L           .     .       -
T_CONNECT        .    L         L       L           L     .       -
T_FAREWELL       .    .         .       .           L     .       -
T_IDLE           .    L         L       L           L     .       -
T_CLOSE          .    .         .       .           .     X       -
"""
LANDS = {
    "I": "idle",
    "W": "welcoming",
    "O": "opening",
    "C": "configuring",
    "R": "ready",
    "L": "closing",
    "X": "closed",
}
# Which timers an edge starts and stops, beyond CLOSE, which every edge into CLOSING starts.
STARTS = {
    ("IDLE", "OPENED"): {"welcome", "connect", "idle"},
    ("WELCOMING", "S_SUCCESS"): {"setup"},
    ("WELCOMING", "S_CREATED"): {"setup"},
    ("OPENING", "S_CREATED"): {"setup"},
    ("READY", "S_REFUSAL"): {"farewell"},
}
STOPS = {
    ("WELCOMING", "S_SUCCESS"): {"welcome"},
    ("WELCOMING", "S_SUCCESS_READY"): {"welcome"},
    ("WELCOMING", "S_CREATED"): {"welcome"},
    ("WELCOMING", "S_UPDATED"): {"welcome", "setup"},
    ("OPENING", "S_UPDATED"): {"welcome", "setup"},
    ("CONFIGURING", "S_UPDATED"): {"setup"},
}
# What edges do; those of one input that differ by state are named with it.
EFFECTS = {
    "OPENED": "START",
    "LOST": "END",
    "IDLE LOST": "FAILED",
    "WELCOMING LOST": "FAILED",
    "OPENING LOST": "FAILED",
    "CONFIGURING LOST": "FAILED",
    "S_SUCCESS": "WELCOME",
    "S_SUCCESS_READY": "WELCOME_READY",
    "S_WARNING": "WARN",
    "S_REFUSAL": "REFUSE",
    "READY S_REFUSAL": "NOTICE",
    "S_GOODBYE": "GOODBYE",
    "S_CREATED": "CREATED",
    "S_UPDATED": "READY",
    "READY S_UPDATED": "RECONFIGURED",
    "S_CONVERSATION": "MESSAGE",
    "C_CONFIG": "MESSAGE",
    "C_ITEM": "MESSAGE",
    "C_MEDIA": "MESSAGE",
    "SIGNALING": "SIGNAL",
    "UNKNOWN": "MESSAGE",
    "WISH": "SIGNAL",
    "CLOSE": "CLOSE",
    "IDLE CLOSE": "END",
    "FATAL": "VIOLATED",
    "MEDIA_LOST": "MEDIA_LOST",
    "IDLE FATAL": "END",
    "T_WELCOME": "TIMED_OUT",
    "T_SETUP": "TIMED_OUT",
    "T_CONNECT": "TIMED_OUT",
    "T_FAREWELL": "FAREWELL",
    "T_IDLE": "TIMED_OUT",
    "T_CLOSE": "FORCE_END",
}

# Negotiation. Several landings are joined by `/`: the data at hand pick one.
NEGOTIATION = """
                 WISH REMOTE_OFFER REMOTE_ANSWER DONE           FAILED ANSWER_TIMEOUT TRANSPORT_FAILED PEER_CLOSED CLOSE
OFF              .    of           of            .              .      .              -                -           cl
NO_PEER          op   op           np            .              .      .              -                -           cl
OPENING_PEER     op   op           op            mo/ao          np     .              -                -           cl
RESETTING        rs   rs           rs            st/mo/ao       np     .              -                -           cl
STABLE           mo   ao/rs        st/mo         .              .      .              fa               np          cl
MAKING_OFFER     mo   mo           mo            ho/ao/rs/fa    +      .              mo               np          cl
HAVE_LOCAL_OFFER ho   ho/ao/rs     ho/co/aa/rs   .              .      ex/st/mo       fa               np          cl
OFFER_EXPIRED    rs   ao/rs        ex/aa         .              .      .              fa               np          cl
COMMITTING_OFFER co   co           co            aa             rs     .              co               np          cl
APPLYING_ANSWER  aa   aa           aa            +              rs     .              aa               np          cl
APPLYING_OFFER   ao   ao           ao            ma/ao/rs       rs     .              ao               np          cl
MAKING_ANSWER    ma   ma           ma            +              rs     .              ma               np          cl
FAILED           rs   rs           fa            .              .      .              -                np          cl
CLOSED           -    -            -             -              -      -              -                -           -
"""  # noqa: E501 - a grid reads by its columns
CODES = {
    "of": "off",
    "np": "no peer",
    "op": "opening peer",
    "rs": "resetting",
    "st": "stable",
    "mo": "making offer",
    "ho": "have local offer",
    "ex": "offer expired",
    "co": "committing offer",
    "aa": "applying answer",
    "ao": "applying offer",
    "ma": "making answer",
    "fa": "failed",
    "cl": "closed",
}
# `+`: the operation ended and the machine settles. Nothing to do, a wish, a parked offer on this
# or on a new transport, or a transport that failed meanwhile.
SETTLES = "st/mo/ao/rs/fa"


def lifecycle_cells() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in LIFECYCLE.strip().splitlines()]
    return [
        (state, row[0], cell) for row in rows for state, cell in zip(head, row[1:], strict=True)
    ]


def negotiation_cells() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in NEGOTIATION.strip().splitlines()]
    return [(row[0], kind, cell) for row in rows for kind, cell in zip(head, row[1:], strict=True)]


def landings(cell: str) -> set[str]:
    return {CODES[code] for code in (SETTLES if cell == "+" else cell).split("/")}


def test_the_lifecycle_grid_is_the_whole_product() -> None:
    cells = lifecycle_cells()
    assert len(cells) == 7 * 26
    assert {(state, kind) for state, kind, _ in cells} == {
        (state.name, kind.name) for state in lifecycle.State for kind in lifecycle.Input
    }


@pytest.mark.parametrize(("state", "kind", "cell"), lifecycle_cells())
def test_lifecycle_pair(state: str, kind: str, cell: str) -> None:
    pair = (lifecycle.State[state], lifecycle.Input[kind])
    edge = lifecycle.TRANSITIONS.get(pair)
    classes = (edge is not None, pair in lifecycle.IGNORED, cell == ".")
    assert classes == (cell not in ".-", cell == "-", cell == ".")
    if edge is None:
        return
    assert edge.state.value == LANDS[cell[0]]
    assert edge.out_of_order is ("!" in cell)
    local = {"q": Local.QUEUE, "e": Local.TOO_EARLY}.get(cell[-1], Local.SEND)
    assert edge.local is local
    starts = STARTS.get((state, kind), set()) | ({"close"} if cell[0] == "L" else set())
    assert {timer.value for timer in edge.start} == starts
    assert {timer.value for timer in edge.stop} == STOPS.get((state, kind), set())
    assert edge.effect.name == EFFECTS.get(f"{state} {kind}", EFFECTS[kind])


@pytest.mark.parametrize(("state", "kind", "cell"), lifecycle_cells())
def test_lifecycle_looks_and_takes(state: str, kind: str, cell: str) -> None:
    machine = Lifecycle()
    machine.take(lifecycle.Edge(state=lifecycle.State[state], effect=lifecycle.Effect.MESSAGE))
    found = machine.look(lifecycle.Input[kind])
    assert machine.state is lifecycle.State[state], "looking does not move"
    if cell in ".-":
        assert found is {".": Verdict.MISTAKE, "-": Verdict.IGNORED}[cell]
        return
    assert not isinstance(found, Verdict)
    machine.take(found)
    assert machine.state.value == LANDS[cell[0]]


def test_every_lifecycle_effect_is_used() -> None:
    assert {effect.name for effect in lifecycle.Effect} == set(EFFECTS.values())


def test_the_negotiation_grid_is_the_whole_product() -> None:
    cells = negotiation_cells()
    assert len(cells) == 14 * 9
    assert {(state, kind) for state, kind, _ in cells} == {
        (state.name, kind.name) for state in negotiation.State for kind in negotiation.Input
    }


@pytest.mark.parametrize(("state", "kind", "cell"), negotiation_cells())
def test_negotiation_pair(state: str, kind: str, cell: str) -> None:
    pair = (negotiation.State[state], negotiation.Input[kind])
    edge = negotiation.TRANSITIONS.get(pair)
    classes = (edge is not None, pair in negotiation.IGNORED, cell == ".")
    assert classes == (cell not in ".-", cell == "-", cell == ".")
    if edge is not None:
        assert {to.value for to in edge.to} == landings(cell)
        assert len(edge.to) == len(set(edge.to))


MEDIA = (MediaLine(kind=MediaKind.AUDIO),)
LIMITS = Limits()


def sdp(ufrag: str, mid: str = "0") -> str:
    lines = [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        f"a=mid:{mid}",
        f"a=ice-ufrag:{ufrag}",
        "a=ice-pwd:0123456789012345678901",
        f"a=fingerprint:sha-256 AA:{ord(ufrag[0]):02X}",
    ]
    return "".join(line + "\r\n" for line in lines)


SAME, NEW = Offer(sdp=sdp("same")), Offer(sdp=sdp("new"))
ANSWER, NEW_ANSWER = Answer(sdp=sdp("same")), Answer(sdp=sdp("new"))
OTHER_ANSWER = Answer(sdp=sdp("same", "1"))
OTHER_OFFER = Offer(sdp=sdp("ours", "1"))
RESULTS: dict[str, Offer | Answer] = {
    "making offer": Offer(sdp=sdp("ours")),
    "committing offer": Offer(sdp=sdp("ours")),
    "making answer": Answer(sdp=sdp("ours")),
}


def receive(machine: Negotiation, description: Offer | Answer) -> None:
    machine.remote_description(description, check_description(description, LIMITS), now=0.0)


def time_out(machine: Negotiation) -> None:
    assert machine._timers.pop_due(10.0) is Timer.ANSWER
    machine.answer_timeout(now=10.0)


Step = Callable[[Negotiation], object]


def steps(machine: Negotiation) -> list[tuple[str, Step]]:
    found: list[tuple[str, Step]] = [
        ("REMOTE_OFFER", lambda m: receive(m, SAME)),
        ("REMOTE_OFFER", lambda m: receive(m, NEW)),
        ("REMOTE_ANSWER", lambda m: receive(m, ANSWER)),
        ("REMOTE_ANSWER", lambda m: receive(m, NEW_ANSWER)),
        ("REMOTE_ANSWER", lambda m: receive(m, OTHER_ANSWER)),
        ("TRANSPORT_FAILED", lambda m: m.transport_failed(now=0.0)),
        ("PEER_CLOSED", lambda m: m.peer_closed(now=0.0)),
        ("CLOSE", lambda m: m.close(now=0.0)),
    ]
    if machine.wants_media:
        found.append(("WISH", lambda m: m.wish(MEDIA, now=0.0)))
    op = machine._op
    if op is not None:
        result = RESULTS.get(machine.state.value)
        found.append(("DONE", lambda m: m.operation_done(op, result, now=0.0)))
        if machine.state is negotiation.State.MAKING_OFFER:
            found.append(("DONE", lambda m: m.operation_done(op, OTHER_OFFER, now=0.0)))
        found.append(("FAILED", lambda m: m.operation_failed(op, "it broke", now=0.0)))
    if machine._timers.armed(Timer.ANSWER):
        found.append(("ANSWER_TIMEOUT", time_out))
    return found


def situation(machine: Negotiation) -> tuple[object, ...]:
    """All that a negotiation's next step can depend on."""
    remote, parked, applied = machine._remote, machine._parked, machine._applied
    return (
        machine.state,
        machine._wish is not None,
        machine._local and machine._local.applied,
        remote and remote.sdp.ufrags,
        parked and parked.sdp.ufrags,
        applied and applied.ufrags,
        machine._exchanged,
        machine._dead,
        machine._ignored_offer is not None,
        machine._timers.armed(Timer.ANSWER),
        machine._local and machine._local.sdp,
        # One that is remembered shows what more of them do.
        tuple(machine._given_up._offers)[:1],
        machine._doubtful is not None,
        machine._mistaken is not None,
    )


def explore() -> dict[tuple[str, str], set[str]]:
    """Walk every situation that any sequence of inputs leads to; the landings seen on the way."""
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for polite, rollback, media in itertools.product((True, False), (True, False), (MEDIA, ())):
        start = Negotiation(
            polite=polite,
            media=media,
            ice_servers=(),
            policy=IcePolicy.ALL,
            capabilities=Capabilities(rollback=rollback),
            limits=LIMITS,
            answer_timeout=10.0,
            timers=Timers(),
        )
        known = {situation(start)}
        ahead = deque([start])
        while ahead:
            here = ahead.popleft()
            frozen = pickle.dumps(here)  # Several times as fast as a deep copy.
            for kind, step in steps(here):
                there = pickle.loads(frozen)
                step(there)
                there.out.clear()
                seen[here.state.name, kind].add(there.state.value)
                if situation(there) not in known:
                    known.add(situation(there))
                    ahead.append(there)
    return seen


def test_negotiation_lands_where_the_grid_says_and_reaches_all_of_it() -> None:
    seen = explore()
    expected = {
        (state, kind): landings(cell)
        for state, kind, cell in negotiation_cells()
        if cell not in ".-"
    }
    ignored = {(state, kind) for state, kind, cell in negotiation_cells() if cell == "-"}
    assert {pair: seen[pair] for pair in expected} == expected
    for state, kind in seen.keys() - expected.keys():
        assert (state, kind) in ignored, "a mistake was reached"
        assert seen[state, kind] == {negotiation.State[state].value}, "ignoring does not move"
