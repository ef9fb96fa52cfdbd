"""Offer and answer: JSEP (RFC 8829) as it looks from the signaling channel.

Theory of operation
===================

1. The machine decides what to ask of a media engine and when; the engine does it. A command that
   touches a description carries an operation id, and at most one such command is in flight. What
   other code keeps in booleans ("making an offer", "ignoring", "answer pending") are states.

2. Like the lifecycle, the table does not know which role is ours. The two ends differ in one
   datum, ``polite``: when offers collide (glare), the impolite end ignores the other's offer and
   the polite end gives up its own (W3C webrtc-pc 10.7, "perfect negotiation").

3. An edge lists the states it may lead to; its effect picks one by the data at hand. Data are:
   the wish not offered yet, the description in hand, the parked offer (the newest one that came
   while something was in flight), and the candidates that belong to each.

4. Engines differ in whether an applied local offer can be taken back. Once an exchange is
   complete, an offer of ours is therefore only *made* (CreateOffer) and stays unapplied until its
   answer comes; yielding or giving up is then forgetting it, and running media never notices. The
   first offer has to be applied to gather candidates; giving that one up takes an engine that
   rolls back, or a new peer connection.

5. Does an offer continue the transport that runs, or start a new one (a far end that rebuilt its
   peer connection)? ICE ufrag and DTLS fingerprint of the m-lines tell (:func:`same_transport`);
   the ``o=`` line does not, because aiortc writes a new session id each time. A new transport
   takes a new peer connection here too; when it is an answer that brings it, the offer is made
   again there.

6. Remote candidates belong to a description. The ufrag says to which; without one, order does.
   They wait in that description's batch until the engine applied it, because engines lose early
   candidates in silence. End-of-candidates marks keep their place. Local candidates wait until
   the description they belong to was sent.

7. A wish ends in Negotiated or NegotiationFailed, always. Wishes coalesce: the newest one names
   all the m-lines wanted, and the event that ends it, by its number, ends those before it.

8. No answer says which offer it is to. One that can only be to an offer that was given up is told
   and ignored; one that may be to either is taken, and if another follows, what was exchanged is
   offered again (:mod:`navtalk_proto.machines.given_up_offers`).

What does not fit: a failed transport is learnt in the middle of operations that still have to
finish; ``_dead`` remembers it until the machine settles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from attrs import define, field, frozen

from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    Emit,
    MediaCommand,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.construct import positional
from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.events import (
    AnswerIgnored,
    CandidateFailed,
    CandidateIgnored,
    Event,
    Negotiated,
    NegotiationFailed,
    OfferIgnored,
)
from navtalk_proto.ice import IceServerRule
from navtalk_proto.identity_hash import identity_hash
from navtalk_proto.limits import Limits
from navtalk_proto.machines.given_up_offers import GivenUpOffers, Match
from navtalk_proto.media import Capabilities, Direction, IcePolicy, MediaLine, OpId
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, IceServer, Offer
from navtalk_proto.wire.sdp import Sdp, candidate_ufrag, check_description, same_transport

__all__ = [
    "State",
    "Input",
    "Effect",
    "Edge",
    "TRANSITIONS",
    "IGNORED",
    "Output",
    "Negotiation",
]


@identity_hash
class State(Enum):
    """Where the negotiation is."""

    OFF = "off"
    """No media on this connection: offers and candidates are told, not applied."""
    NO_PEER = "no peer"
    OPENING_PEER = "opening peer"
    RESETTING = "resetting"
    """A new peer connection replaces the old one."""
    STABLE = "stable"
    MAKING_OFFER = "making offer"
    HAVE_LOCAL_OFFER = "have local offer"
    OFFER_EXPIRED = "offer expired"
    """The first offer got no answer in time. A late one is still taken."""
    COMMITTING_OFFER = "committing offer"
    """The answer came: the offer that was only made is being applied before it."""
    APPLYING_ANSWER = "applying answer"
    APPLYING_OFFER = "applying offer"
    MAKING_ANSWER = "making answer"
    FAILED = "failed"
    """The media transport failed; only a new peer connection helps."""
    CLOSED = "closed"


@identity_hash
class Input(Enum):
    """What can happen to a negotiation."""

    WISH = "wish"
    REMOTE_OFFER = "remote offer"
    REMOTE_ANSWER = "remote answer"
    DONE = "operation done"
    FAILED = "operation failed"
    ANSWER_TIMEOUT = "answer timer"
    TRANSPORT_FAILED = "transport failed"
    PEER_CLOSED = "peer closed"
    CLOSE = "close"


@identity_hash
class Effect(Enum):
    """What an edge does. Each is a method of :class:`Negotiation`."""

    OPEN_FOR_WISH = "remember the wish, open a peer"
    OPEN_FOR_OFFER = "park the offer, open a peer"
    REMEMBER = "remember the wish"
    OFFER = "make an offer for the wish"
    REBUILD_FOR_WISH = "remember the wish, reset the peer"
    REBUILD_FOR_OFFER = "park the offer, reset the peer"
    PARK = "park the offer, replacing an older one"
    APPLY_OFFER = "apply the offer, on a new peer if its transport is new"
    COLLIDE = "glare: ignore the offer, or park it"
    COLLIDE_AHEAD = "park the offer; glare if a wish waits for the peer: ignore it"
    YIELD = "glare: ignore the offer, or give ours up and apply it"
    TAKE_OVER = "our offer expired: give it up and apply theirs"
    SKIP_OFFER = "tell of the offer"
    STRAY = "tell of the answer; offer again if an older one was taken for it"
    ACCEPT = "apply the answer, or ignore an older offer's, or offer again if its transport is new"
    SETTLE = "go on with what is parked or wished"
    SEND_OFFER = "send the offer made, or yield"
    APPLY_HELD_ANSWER = "apply the answer that waited for our offer"
    EXCHANGED = "tell of the exchange, release candidates, settle"
    MAKE_ANSWER = "release candidates, make the answer, or apply a newer offer"
    SEND_ANSWER = "send the answer, or drop it for a newer offer"
    OPEN_FAILED = "fail everything that waited for the peer"
    OFFER_FAILED = "fail the exchange, settle"
    BROKEN = "fail the exchange, reset the peer"
    EXPIRE = "fail the exchange; keep the first offer open, forget a later one"
    NOTE_DEAD = "remember until the operation ends that the transport failed"
    DIE = "fail the exchange; the transport is dead"
    DROP_PEER = "fail everything; there is no peer any more"
    END = "fail everything, close the peer"


@frozen(kw_only=True)
class Edge:
    """One row of the table: what happens, and the states it may lead to."""

    effect: Effect
    to: tuple[State, ...]


_SETTLED: Final = (
    State.STABLE,
    State.MAKING_OFFER,
    State.APPLYING_OFFER,
    State.RESETTING,
    State.FAILED,
)
"""Where settling may lead: nothing to do, a wish, a parked offer on this or a new transport, and a
transport that failed meanwhile."""

_IN_FLIGHT: Final = (
    State.OPENING_PEER,
    State.RESETTING,
    State.MAKING_OFFER,
    State.COMMITTING_OFFER,
    State.APPLYING_ANSWER,
    State.APPLYING_OFFER,
    State.MAKING_ANSWER,
)
"""The states with a description operation in flight."""

_WITHOUT_PEER: Final = (State.OFF, State.NO_PEER, State.OPENING_PEER, State.RESETTING)
"""The states without a peer connection that could fail or close."""

_UNROUTED: Final = frozenset({State.OFF, State.CLOSED})
"""The states in which no candidate of the far end's belongs anywhere."""

_OFFER_OUT: Final = (State.HAVE_LOCAL_OFFER, State.OFFER_EXPIRED)


def _build() -> dict[tuple[State, Input], Edge]:
    s, i, e = State, Input, Effect
    table: dict[tuple[State, Input], Edge] = {}

    def edge(state: State, kind: Input, effect: Effect, *to: State) -> None:
        assert (state, kind) not in table, (state, kind)
        table[state, kind] = Edge(effect=effect, to=to)

    edge(s.NO_PEER, i.WISH, e.OPEN_FOR_WISH, s.OPENING_PEER)
    edge(s.NO_PEER, i.REMOTE_OFFER, e.OPEN_FOR_OFFER, s.OPENING_PEER)

    # A peer is opened for a wish or an offer; a reset may also leave nothing to go on with.
    edge(s.OPENING_PEER, i.DONE, e.SETTLE, s.MAKING_OFFER, s.APPLYING_OFFER)
    edge(s.RESETTING, i.DONE, e.SETTLE, s.STABLE, s.MAKING_OFFER, s.APPLYING_OFFER)
    for state in (s.OPENING_PEER, s.RESETTING):
        edge(state, i.FAILED, e.OPEN_FAILED, s.NO_PEER)

    edge(s.STABLE, i.WISH, e.OFFER, s.MAKING_OFFER)
    edge(s.STABLE, i.REMOTE_OFFER, e.APPLY_OFFER, s.APPLYING_OFFER, s.RESETTING)
    edge(s.STABLE, i.TRANSPORT_FAILED, e.DIE, s.FAILED)

    edge(s.MAKING_OFFER, i.REMOTE_OFFER, e.COLLIDE, s.MAKING_OFFER)
    edge(
        s.MAKING_OFFER,
        i.DONE,
        e.SEND_OFFER,
        s.HAVE_LOCAL_OFFER,
        s.APPLYING_OFFER,
        s.RESETTING,
        s.FAILED,
    )
    edge(s.MAKING_OFFER, i.FAILED, e.OFFER_FAILED, *_SETTLED)

    edge(
        s.HAVE_LOCAL_OFFER,
        i.REMOTE_OFFER,
        e.YIELD,
        s.HAVE_LOCAL_OFFER,
        s.APPLYING_OFFER,
        s.RESETTING,
    )
    edge(s.HAVE_LOCAL_OFFER, i.WISH, e.REMEMBER, s.HAVE_LOCAL_OFFER)
    edge(
        s.HAVE_LOCAL_OFFER,
        i.ANSWER_TIMEOUT,
        e.EXPIRE,
        s.OFFER_EXPIRED,
        s.STABLE,
        s.MAKING_OFFER,
    )
    edge(s.OFFER_EXPIRED, i.WISH, e.REBUILD_FOR_WISH, s.RESETTING)
    edge(s.OFFER_EXPIRED, i.REMOTE_OFFER, e.TAKE_OVER, s.APPLYING_OFFER, s.RESETTING)
    edge(
        s.HAVE_LOCAL_OFFER,
        i.REMOTE_ANSWER,
        e.ACCEPT,
        s.HAVE_LOCAL_OFFER,
        s.COMMITTING_OFFER,
        s.APPLYING_ANSWER,
        s.RESETTING,
    )
    edge(s.OFFER_EXPIRED, i.REMOTE_ANSWER, e.ACCEPT, s.OFFER_EXPIRED, s.APPLYING_ANSWER)
    for state in _OFFER_OUT:
        edge(state, i.TRANSPORT_FAILED, e.DIE, s.FAILED)

    edge(s.COMMITTING_OFFER, i.DONE, e.APPLY_HELD_ANSWER, s.APPLYING_ANSWER)
    edge(s.COMMITTING_OFFER, i.FAILED, e.BROKEN, s.RESETTING)

    edge(s.APPLYING_ANSWER, i.DONE, e.EXCHANGED, *_SETTLED)
    edge(s.APPLYING_ANSWER, i.FAILED, e.BROKEN, s.RESETTING)

    edge(s.APPLYING_OFFER, i.DONE, e.MAKE_ANSWER, s.MAKING_ANSWER, s.APPLYING_OFFER, s.RESETTING)
    edge(s.APPLYING_OFFER, i.FAILED, e.BROKEN, s.RESETTING)
    edge(s.MAKING_ANSWER, i.DONE, e.SEND_ANSWER, *_SETTLED)
    edge(s.MAKING_ANSWER, i.FAILED, e.BROKEN, s.RESETTING)

    edge(s.FAILED, i.WISH, e.REBUILD_FOR_WISH, s.RESETTING)
    edge(s.FAILED, i.REMOTE_OFFER, e.REBUILD_FOR_OFFER, s.RESETTING)

    for state in _IN_FLIGHT:
        edge(state, i.WISH, e.REMEMBER, state)
        if state in (s.OPENING_PEER, s.RESETTING):
            edge(state, i.REMOTE_OFFER, e.COLLIDE_AHEAD, state)
        elif state is not s.MAKING_OFFER:
            edge(state, i.REMOTE_OFFER, e.PARK, state)
    for state in _IN_FLIGHT[2:]:
        edge(state, i.TRANSPORT_FAILED, e.NOTE_DEAD, state)
    edge(s.STABLE, i.REMOTE_ANSWER, e.STRAY, s.STABLE, s.MAKING_OFFER)
    for state in (*_IN_FLIGHT, s.NO_PEER, s.FAILED):
        edge(state, i.REMOTE_ANSWER, e.STRAY, state)
    for state in (*_IN_FLIGHT[2:], *_OFFER_OUT, s.STABLE, s.FAILED):
        edge(state, i.PEER_CLOSED, e.DROP_PEER, s.NO_PEER)
    edge(s.OFF, i.REMOTE_OFFER, e.SKIP_OFFER, s.OFF)
    edge(s.OFF, i.REMOTE_ANSWER, e.STRAY, s.OFF)
    for state in State:
        if state is not s.CLOSED:
            edge(state, i.CLOSE, e.END, s.CLOSED)
    return table


TRANSITIONS: Final[Mapping[tuple[State, Input], Edge]] = MappingProxyType(_build())

IGNORED: Final[frozenset[tuple[State, Input]]] = frozenset(
    {(State.CLOSED, kind) for kind in Input}
    # Late news of a peer that is gone, or about to be replaced.
    | {(state, Input.PEER_CLOSED) for state in _WITHOUT_PEER}
    | {(state, Input.TRANSPORT_FAILED) for state in (*_WITHOUT_PEER, State.FAILED)}
)
"""Pairs ignored on purpose. The rest cannot happen (an operation ends that was not started), or is
a local mistake (a wish without media)."""

Output: TypeAlias = MediaCommand | Emit | Offer | Answer | IceCandidate
"""What the machine gives out, in causal order. A bare description or candidate is to be sent."""


@define(kw_only=True)
class _Remote:
    """A remote description and the candidates that wait for it."""

    description: Description
    sdp: Sdp
    batch: list[IceCandidate] = field(factory=list)


@define(kw_only=True)
class _LocalOffer:
    """An offer of ours. `applied`: the engine has it as its local description."""

    media: tuple[MediaLine, ...]
    wish: int
    """The number of the newest wish that it grants."""
    applied: bool
    offer: Offer | None = None
    sdp: Sdp | None = None
    """The offer as it was sent. None: it was not, or the engine wrote what cannot be read."""
    answered: bool = False


_add_candidate: Final = positional(AddCandidate)
_set_remote: Final = positional(SetRemote)

_DEAD: Final = "the media transport failed"

_LET_FLOW: Final[Mapping[Direction, tuple[str, ...]]] = MappingProxyType(
    {
        Direction.SENDRECV: ("sendrecv",),
        Direction.SENDONLY: ("sendrecv", "recvonly"),
        Direction.RECVONLY: ("sendrecv", "sendonly"),
        Direction.INACTIVE: ("sendrecv", "sendonly", "recvonly", "inactive"),
    }
)
"""What an m-line of theirs may say for one of ours to flow (RFC 3264 section 6.1)."""

_RESULTS: Final[Mapping[State, type]] = MappingProxyType(
    {State.MAKING_OFFER: Offer, State.COMMITTING_OFFER: Offer, State.MAKING_ANSWER: Answer}
)
"""What the operation in flight results in; None elsewhere."""


class Negotiation:
    """The negotiation of one connection. Feed it inputs, then take :attr:`out`."""

    def __init__(
        self,
        *,
        polite: bool,
        media: tuple[MediaLine, ...],
        ice_servers: tuple[IceServer, ...],
        policy: IcePolicy,
        capabilities: Capabilities,
        limits: Limits,
        answer_timeout: float,
        timers: Timers,
        allow_ice_server: IceServerRule | None = None,
    ) -> None:
        self.out: list[Output] = []
        self.stale_completions: int = 0
        self.unsent: int = 0
        """Local candidates dropped because too many waited for their description."""
        self.wishes: int = 0
        """Wishes taken so far. The one not offered yet, if any, is always the newest."""
        self._state = State.NO_PEER if media else State.OFF
        self._polite = polite
        self._desired = media
        self.ice_servers = ice_servers
        self._policy = policy
        self._allow_ice_server = allow_ice_server
        self._capabilities = capabilities
        self._limits = limits
        self._answer_timeout = answer_timeout
        self._timers = timers
        self._last_op: int = 0
        """The newest operation's id."""
        self._op: OpId | None = None
        self._closing: OpId | None = None
        self._adding: dict[OpId, IceCandidate] = {}
        self._wish: tuple[MediaLine, ...] | None = None
        self._wish_number = 0
        """The number of that wish, or of the last one."""
        self._local: _LocalOffer | None = None
        self._remote: _Remote | None = None
        """The remote description in hand: held, being applied, or not answered yet."""
        self._parked: _Remote | None = None
        self._applied: Sdp | None = None
        """The remote description that the engine has."""
        self._exchanged = False
        """Whether an exchange is complete on this peer connection."""
        self._connected = False
        """Whether the transport of this peer connection was ever up."""
        self._given_up = GivenUpOffers()
        self._doubtful: _LocalOffer | None = None
        """The offer whose answer, just taken, may have been to an older one."""
        self._mistaken: _LocalOffer | None = None
        """That offer, once another answer has proved it."""
        self._early: list[IceCandidate] = []
        self._ignored_offer: Sdp | None = None
        """The newest offer, if it is one that was ignored."""
        self._unsent: list[IceCandidate] = []
        self._dead = False
        self._now = 0.0
        self._result: MediaResult = None
        self._reason = ""

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def wants_media(self) -> bool:
        """Whether this connection has media at all."""
        return self._state is not State.OFF

    @property
    def exchanged(self) -> bool:
        """Whether an offer/answer exchange is complete on the present peer connection."""
        return self._exchanged

    @property
    def unconnected(self) -> bool:
        """Whether descriptions were exchanged and the transport was not up yet, nor failed."""
        return self._exchanged and not self._connected and self._state is not State.FAILED

    def carries(self, media: tuple[MediaLine, ...]) -> bool:
        """Whether these m-lines, by kind and order, can flow by the far end's applied description.

        Codecs are not looked at: a preference is told by an answer too.
        """
        there: dict[str, list[str]] = {}
        for line in self._applied.medias if self._applied is not None else ():
            if line.active:
                there.setdefault(line.kind, []).append(line.direction)
        for wanted in media:
            rest = there.get(wanted.kind.value)
            theirs = rest.pop(0) if rest else Direction.INACTIVE.value
            if theirs not in _LET_FLOW[wanted.direction]:
                return False
        return True

    @property
    def held_candidates(self) -> int:
        """Remote candidates that wait for their description."""
        batches = [self._early]
        batches += [remote.batch for remote in (self._remote, self._parked) if remote]
        return sum(map(len, batches))

    # ---- inputs

    def wish(self, media: tuple[MediaLine, ...], *, now: float) -> bool:
        """Want these m-lines negotiated. False: this connection has no media."""
        return self._handle(Input.WISH, now, wish=media)

    def remote_description(self, description: Description, sdp: Sdp, *, now: float) -> None:
        """An offer or answer was received and is well-formed."""
        kind = Input.REMOTE_OFFER if isinstance(description, Offer) else Input.REMOTE_ANSWER
        self._handle(kind, now, remote=_Remote(description=description, sdp=sdp))

    def remote_candidate(self, candidate: IceCandidate) -> None:
        """A candidate or end mark was received."""
        self._route(candidate)

    def local_candidate(self, candidate: IceCandidate) -> None:
        """The engine gathered a candidate that its description did not carry."""
        if candidate.is_end:
            return  # Rule E9: browsers throw on end marks without mid; no stock client needs them.
        if self._state in (State.MAKING_OFFER, State.APPLYING_OFFER, State.MAKING_ANSWER):
            if len(self._unsent) < self._limits.candidates:
                self._unsent.append(candidate)
            else:
                self.unsent += 1
        elif self._state not in (*_WITHOUT_PEER, State.CLOSED):
            self.out.append(candidate)

    def operation_done(self, op: OpId, result: MediaResult, *, now: float) -> None:
        """The engine finished a command."""
        if op == self._op:
            expected = _RESULTS.get(self._state, type(None))
            if not isinstance(result, expected):
                raise LocalProtocolError(
                    f"the engine finished {self._state.value!r} with {type(result).__name__}, "
                    f"not {expected.__name__}"
                )
            self._op = None
            self._result = result
            self._handle(Input.DONE, now)
        elif op == self._closing:
            self._closing = None
        elif self._adding.pop(op, None) is None:
            self.stale_completions += 1

    def operation_failed(self, op: OpId, reason: str, *, now: float) -> None:
        """The engine could not carry out a command."""
        if op == self._op:
            self._op = None
            self._reason = reason
            self._handle(Input.FAILED, now)
        elif (candidate := self._adding.pop(op, None)) is not None:
            self._emit(CandidateFailed(candidate=candidate, reason=reason))
        elif op == self._closing:
            self._closing = None
        else:
            self.stale_completions += 1

    def answer_timeout(self, *, now: float) -> None:
        """The ANSWER timer fired."""
        self._handle(Input.ANSWER_TIMEOUT, now)

    def transport_connected(self) -> None:
        """Media can flow: ICE and DTLS are done."""
        self._connected = True

    def transport_failed(self, *, now: float) -> None:
        """ICE or DTLS failed."""
        self._handle(Input.TRANSPORT_FAILED, now)

    def peer_closed(self, *, now: float) -> None:
        """The peer connection ended without our asking."""
        self._handle(Input.PEER_CLOSED, now)

    def close(self, *, now: float) -> None:
        """The session is closing."""
        self._handle(Input.CLOSE, now)

    def _handle(
        self,
        kind: Input,
        now: float,
        *,
        wish: tuple[MediaLine, ...] | None = None,
        remote: _Remote | None = None,
    ) -> bool:
        edge = TRANSITIONS.get((self._state, kind))
        if edge is None:
            return (self._state, kind) in IGNORED
        self._now = now
        incoming = remote
        if wish is not None:
            self._wish = wish
            self._desired = wish
            self.wishes += 1
            self._wish_number = self.wishes
        before = self._state
        landed = _EFFECTS[edge.effect](self, incoming)
        self._state = before if landed is None else landed
        assert self._state in edge.to, (before, kind, self._state)
        return True

    # ---- effects: each returns the state it leads to, None to stay

    def _open_for_wish(self, _: _Remote | None) -> State:
        self.out.append(self._open(OpenPeer))
        return State.OPENING_PEER

    def _open_for_offer(self, remote: _Remote | None) -> State:
        self._park(remote)
        self.out.append(self._open(OpenPeer))
        return State.OPENING_PEER

    def _remember(self, _: _Remote | None) -> None:
        """The wish is noted already; settling takes it up."""

    def _offer(self, _: _Remote | None) -> State:
        assert self._wish is not None
        media, self._wish = self._wish, None
        # Theory 4: once an exchange is complete, an offer is made but not applied.
        self._local = _LocalOffer(media=media, wish=self._wish_number, applied=not self._exchanged)
        op = self._start()
        if self._exchanged:
            self.out.append(CreateOffer(op=op, media=media))
        else:
            self.out.append(SetLocal(op=op, media=media))
        return State.MAKING_OFFER

    def _rebuild_for_wish(self, _: _Remote | None) -> State:
        return self._reset()

    def _rebuild_for_offer(self, remote: _Remote | None) -> State:
        self._park(remote)
        return self._reset()

    def _park(self, remote: _Remote | None) -> None:
        assert remote is not None
        if self._parked is not None:
            self._discard(self._parked.batch, "its offer was replaced by a newer one")
        self._parked = remote
        self._ignored_offer = None

    def _apply_offer(self, remote: _Remote | None) -> State:
        self._park(remote)
        return self._apply_parked()

    def _apply_parked(self) -> State:
        parked = self._parked
        assert parked is not None
        new = self._applied is not None and not same_transport(self._applied, parked.sdp)
        if new or self._dead:
            return self._reset()
        self._parked = None
        return self._set_remote(parked, State.APPLYING_OFFER)

    def _set_remote(self, remote: _Remote, state: State) -> State:
        self._remote = remote
        self._ignored_offer = None
        # Candidates that came before the description; those of another one are sorted out. They
        # go first: an end mark that came after the description would hide them from an engine.
        early, self._early = self._early, []
        joining: list[IceCandidate] = []
        for candidate in early:
            if candidate_ufrag(candidate) in (None, *remote.sdp.ufrags):
                joining.append(candidate)
            else:
                self._ignore(candidate, "it belongs to no description we know")
        remote.batch[:0] = joining
        self.out.append(_set_remote(self._start(), remote.description))
        return state

    def _collide(self, remote: _Remote | None) -> None:
        assert remote is not None
        if self._polite:
            self._park(remote)
        else:
            self._ignore_offer(remote)

    def _collide_ahead(self, remote: _Remote | None) -> None:
        """Our new peer will offer, unless an offer came before the wish.

        The impolite end must not answer here: an offer that was made for the peer given up would
        get an answer of the new one, the far end would rebuild too, and so on in turns.
        """
        assert remote is not None
        if self._polite or self._wish is None or self._parked is not None:
            self._park(remote)
        else:
            self._ignore_offer(remote)

    def _yield(self, remote: _Remote | None) -> State | None:
        assert remote is not None
        if not self._polite:
            self._ignore_offer(remote)
            return None
        return self._take_over(remote)

    def _take_over(self, remote: _Remote | None) -> State:
        self._park(remote)
        return self._give_up_offer()

    def _give_up_offer(self) -> State:
        """Forget our offer and apply the parked one; the wish is offered again afterwards."""
        local = self._drop_local()
        assert local is not None
        self._timers.stop(Timer.ANSWER)
        if self._wish is None and self._state is not State.OFFER_EXPIRED:
            self._wish_again(local)
        if local.applied and not self._capabilities.rollback:
            return self._reset()
        return self._apply_parked()

    def _ignore_offer(self, remote: _Remote) -> None:
        assert isinstance(remote.description, Offer)
        self._ignored_offer = remote.sdp
        self._emit(OfferIgnored(offer=remote.description, reason="glare: our own offer goes first"))

    def _skip_offer(self, remote: _Remote | None) -> None:
        assert remote is not None
        assert isinstance(remote.description, Offer)
        self._emit(OfferIgnored(offer=remote.description, reason="no media on this connection"))

    def _stray(self, remote: _Remote | None) -> State | None:
        assert remote is not None
        if self._given_up.match(remote.sdp) is not Match.GIVEN_UP:
            self._emit(AnswerIgnored(reason="no offer of ours waits for an answer"))
            return None
        self._ignore_answer()
        return self._settle() if self._state is State.STABLE else None

    def _ignore_answer(self) -> None:
        """An answer came to an offer that was given up; or the answer before it was that one's."""
        reason = "it is to an offer of ours that was given up"
        if self._doubtful is not None:
            self._mistaken, self._doubtful = self._doubtful, None
            reason = "another one may have been taken in its place: the offer is made again"
        self._emit(AnswerIgnored(reason=reason))

    def _accept(self, remote: _Remote | None) -> State | None:
        assert remote is not None
        local = self._local
        assert local is not None
        match = Match.NEWEST
        if local.sdp is not None:
            match = self._given_up.match(remote.sdp, local.sdp)
        if match is Match.NEITHER:
            self._emit(AnswerIgnored(reason="its m-lines are not those of the offer that is out"))
            return None
        if match is Match.GIVEN_UP:
            self._ignore_answer()
            return None
        self._timers.stop(Timer.ANSWER)
        self._ignored_offer = None
        self._mistaken = self._doubtful = None
        if match is Match.EITHER:
            self._doubtful = local
            self._expect_late_answer(local)
        local.answered = True
        if self._applied is not None and not same_transport(self._applied, remote.sdp):
            # Theory 5: they rebuilt theirs. Applied here, the answer would leave both ends deaf.
            if self._wish is None:
                self._wish_again(local)
            return self._reset()
        if local.applied:
            return self._set_remote(remote, State.APPLYING_ANSWER)
        self._remote = remote
        self.out.append(SetLocal(op=self._start(), description=local.offer))
        return State.COMMITTING_OFFER

    def _settle(self, _: _Remote | None = None) -> State:
        if self._parked is not None:
            return self._apply_parked()
        if self._dead:
            self._mistaken = self._doubtful = None
            self._fail_wish(_DEAD)
            return State.FAILED
        if self._applied is not None:
            early, self._early = self._early, []
            for candidate in early:
                self._route(candidate)
        if self._exchanged:
            self._flush_unsent()
        if self._wish is None and self._mistaken is not None:
            self._wish_again(self._mistaken)
            self._mistaken = None
        if self._wish is not None:
            return self._offer(None)
        return State.STABLE

    def _send_offer(self, _: _Remote | None) -> State:
        assert isinstance(self._result, Offer)
        assert self._local is not None
        if self._parked is not None:
            return self._give_up_offer()
        if self._dead:
            self._reason = _DEAD
            return self._offer_failed(None)
        self._local.offer = self._result
        with suppress(MalformedMessageError):  # What an engine wrote is sent as it is.
            self._local.sdp = check_description(self._result, self._limits)
        self.out.append(self._result)
        self._flush_unsent()
        self._timers.arm(Timer.ANSWER, self._now + self._answer_timeout)
        return State.HAVE_LOCAL_OFFER

    def _apply_held_answer(self, _: _Remote | None) -> State:
        assert self._remote is not None
        assert self._local is not None
        self._local.applied = True
        return self._set_remote(self._remote, State.APPLYING_ANSWER)

    def _exchange_complete(self, _: _Remote | None) -> State:
        self._description_applied()
        assert self._local is not None
        local = self._local
        self._remote = None
        self._local = None
        self._exchanged = True
        self._emit(Negotiated(offered_by_us=True, media=local.media, wish=local.wish))
        return self._settle()

    def _make_answer(self, _: _Remote | None) -> State:
        if self._parked is not None:
            assert self._remote is not None
            self._applied = self._remote.sdp
            self._discard(self._remote.batch, "its offer was replaced by a newer one")
            self._remote = None
            return self._apply_parked()
        self._description_applied()
        self.out.append(SetLocal(op=self._start()))
        return State.MAKING_ANSWER

    def _send_answer(self, _: _Remote | None) -> State:
        assert isinstance(self._result, Answer)
        self._remote = None
        self._exchanged = True
        if self._parked is None:
            self.out.append(self._result)
            self._flush_unsent()
            self._emit(Negotiated(offered_by_us=False))
        return self._settle()

    def _description_applied(self) -> None:
        assert self._remote is not None
        self._applied = self._remote.sdp
        batch, self._remote.batch = self._remote.batch, []
        for candidate in batch:
            self._add(candidate)

    def _open_failed(self, _: _Remote | None) -> State:
        self._fail_all(self._reason)
        return State.NO_PEER

    def _offer_failed(self, _: _Remote | None) -> State:
        assert self._local is not None
        local, self._local = self._local, None
        self._fail(self._reason, local)
        return self._settle()

    def _broken(self, _: _Remote | None) -> State:
        local, self._local = self._local, None
        self._fail(self._reason, local)
        return self._reset()

    def _expire(self, _: _Remote | None) -> State:
        assert self._local is not None
        reason = f"no answer within {self._answer_timeout:g} s"
        self._fail(reason, self._local)
        if self._local.applied:
            self._fail_wish(reason)
            return State.OFFER_EXPIRED
        self._drop_local()
        return self._settle()

    def _note_dead(self, _: _Remote | None) -> None:
        self._dead = True

    def _die(self, _: _Remote | None) -> State:
        self._timers.stop(Timer.ANSWER)
        self._mistaken = self._doubtful = None
        local = self._drop_local()
        if local is not None and self._state is State.HAVE_LOCAL_OFFER:
            self._fail(_DEAD, local)
        self._fail_wish(_DEAD)
        return State.FAILED

    def _drop_peer(self, _: _Remote | None) -> State:
        self._op = None
        self._fail_all("the peer connection was closed")
        return State.NO_PEER

    def _end(self, _: _Remote | None) -> State:
        had_peer = self._state not in (State.OFF, State.NO_PEER)
        self._op = None
        self._fail_all("the session is closing", session_ended=True)
        if had_peer:
            self._closing = self._next_op()
            self.out.append(ClosePeer(op=self._closing))
        return State.CLOSED

    # ---- parts of effects

    def _emit(self, event: Event) -> None:
        self.out.append(Emit(event=event))

    def _next_op(self) -> OpId:
        self._last_op += 1
        return OpId(self._last_op)

    def _start(self) -> OpId:
        assert self._op is None, "one description operation at a time"
        self._op = self._next_op()
        return self._op

    def _open(self, command: type[OpenPeer] | type[ResetPeer]) -> OpenPeer | ResetPeer:
        return command(
            op=self._start(),
            ice_servers=self.ice_servers,
            policy=self._policy,
            media=self._desired,
            allow_ice_server=self._allow_ice_server,
        )

    def _reset(self) -> State:
        """Start over on a new peer connection; parked offer and wish survive."""
        self._timers.stop(Timer.ANSWER)
        self._forget_peer()
        self.out.append(self._open(ResetPeer))
        return State.RESETTING

    def _drop_local(self) -> _LocalOffer | None:
        """Forget our offer; if it was sent and not answered, its answer may still come."""
        local, self._local = self._local, None
        if local is not None and not local.answered:
            self._expect_late_answer(local)
        return local

    def _expect_late_answer(self, local: _LocalOffer) -> None:
        if local.sdp is not None:
            self._given_up.add(local.sdp)

    def _wish_again(self, local: _LocalOffer) -> None:
        """Offer what `local` offered, under its number."""
        self._wish = local.media
        self._wish_number = local.wish

    def _forget_peer(self) -> None:
        reason = "its peer connection is gone"
        if self._remote is not None:
            self._discard(self._remote.batch, reason)
        if self._applied is not None:
            self._discard(self._early, reason)
        self._drop_local()
        self._remote = None
        self._applied = None
        self._exchanged = False
        self._connected = False
        self._mistaken = self._doubtful = None
        self._dead = False
        self._adding.clear()
        self._unsent.clear()

    def _fail(self, reason: str, local: _LocalOffer | None, *, session_ended: bool = False) -> None:
        """Tell of an exchange that failed: of our offer, or of theirs alone."""
        self._emit(
            NegotiationFailed(
                reason=reason,
                media=local.media if local is not None else (),
                wish=local.wish if local is not None else 0,
                session_ended=session_ended,
            )
        )

    def _fail_wish(self, reason: str, *, session_ended: bool = False) -> None:
        wish, self._wish = self._wish, None
        if wish is not None:
            self._emit(
                NegotiationFailed(
                    reason=reason,
                    media=wish,
                    wish=self._wish_number,
                    session_ended=session_ended,
                )
            )

    def _fail_all(self, reason: str, *, session_ended: bool = False) -> None:
        self._timers.stop(Timer.ANSWER)
        expired = self._state is State.OFFER_EXPIRED
        exchange = self._remote is not None or (self._local is not None and not expired)
        if exchange or self._parked is not None:
            self._fail(reason, self._local, session_ended=session_ended)
        self._fail_wish(reason, session_ended=session_ended)
        if self._parked is not None:
            self._discard(self._parked.batch, reason)
            self._parked = None
        if session_ended:
            # Otherwise those of a description still to come wait for it (see _forget_peer).
            self._discard(self._early, reason)
        self._forget_peer()

    def _flush_unsent(self) -> None:
        self.out.extend(self._unsent)
        self._unsent.clear()

    # ---- remote candidates

    def _route(self, candidate: IceCandidate) -> None:
        """Theory 6: to the batch of its description, to the engine, or nowhere."""
        if self._state in _UNROUTED:
            if self._state is State.OFF:
                self._ignore(candidate, "no media on this connection")
            return
        ufrag = candidate.username_fragment or candidate_ufrag(candidate)
        # A description waits in `_remote` until the engine has it; after that it is `_applied`.
        waiting = self._remote
        if waiting is not None and self._state is State.MAKING_ANSWER:
            waiting = None
        offer_out = self._local is not None and waiting is None
        if ufrag is None:
            if self._ignored_offer is not None:
                self._ignore(candidate, "it belongs to an offer that was ignored")
            elif self._parked is not None:
                self._hold(self._parked.batch, candidate)
            elif waiting is not None:
                self._hold(waiting.batch, candidate)
            elif self._applied is None or offer_out:
                self._hold(self._early, candidate)
            else:
                self._add(candidate)
        elif self._parked is not None and ufrag in self._parked.sdp.ufrags:
            self._hold(self._parked.batch, candidate)
        elif waiting is not None and ufrag in waiting.sdp.ufrags:
            self._hold(waiting.batch, candidate)
        elif self._applied is not None and ufrag in self._applied.ufrags:
            self._add(candidate)
        elif self._ignored_offer is not None and ufrag in self._ignored_offer.ufrags:
            self._ignore(candidate, "it belongs to an offer that was ignored")
        elif offer_out or (self._applied is None and waiting is None):
            self._hold(self._early, candidate)
        else:
            self._ignore(candidate, "it belongs to no description we know")

    def _hold(self, batch: list[IceCandidate], candidate: IceCandidate) -> None:
        if self.held_candidates < self._limits.candidates:
            batch.append(candidate)
        else:
            self._ignore(candidate, f"more than {self._limits.candidates} candidates held")

    def _add(self, candidate: IceCandidate) -> None:
        if len(self._adding) < self._limits.candidates:
            op = self._next_op()
            self._adding[op] = candidate
            self.out.append(_add_candidate(op, candidate))
        else:
            self._ignore(candidate, "the engine is still busy with earlier candidates")

    def _discard(self, batch: list[IceCandidate], reason: str) -> None:
        for candidate in batch:
            self._ignore(candidate, reason)
        batch.clear()

    def _ignore(self, candidate: IceCandidate, reason: str) -> None:
        self._emit(CandidateIgnored(candidate=candidate, reason=reason))

    def __repr__(self) -> str:
        return f"<Negotiation {self._state.value}>"


_EFFECTS: Final[Mapping[Effect, Callable[[Negotiation, _Remote | None], State | None]]] = (
    MappingProxyType(
        {
            Effect.OPEN_FOR_WISH: Negotiation._open_for_wish,
            Effect.OPEN_FOR_OFFER: Negotiation._open_for_offer,
            Effect.REMEMBER: Negotiation._remember,
            Effect.OFFER: Negotiation._offer,
            Effect.REBUILD_FOR_WISH: Negotiation._rebuild_for_wish,
            Effect.REBUILD_FOR_OFFER: Negotiation._rebuild_for_offer,
            Effect.PARK: Negotiation._park,
            Effect.APPLY_OFFER: Negotiation._apply_offer,
            Effect.COLLIDE: Negotiation._collide,
            Effect.COLLIDE_AHEAD: Negotiation._collide_ahead,
            Effect.YIELD: Negotiation._yield,
            Effect.TAKE_OVER: Negotiation._take_over,
            Effect.SKIP_OFFER: Negotiation._skip_offer,
            Effect.STRAY: Negotiation._stray,
            Effect.ACCEPT: Negotiation._accept,
            Effect.SETTLE: Negotiation._settle,
            Effect.SEND_OFFER: Negotiation._send_offer,
            Effect.APPLY_HELD_ANSWER: Negotiation._apply_held_answer,
            Effect.EXCHANGED: Negotiation._exchange_complete,
            Effect.MAKE_ANSWER: Negotiation._make_answer,
            Effect.SEND_ANSWER: Negotiation._send_answer,
            Effect.OPEN_FAILED: Negotiation._open_failed,
            Effect.OFFER_FAILED: Negotiation._offer_failed,
            Effect.BROKEN: Negotiation._broken,
            Effect.EXPIRE: Negotiation._expire,
            Effect.NOTE_DEAD: Negotiation._note_dead,
            Effect.DIE: Negotiation._die,
            Effect.DROP_PEER: Negotiation._drop_peer,
            Effect.END: Negotiation._end,
        }
    )
)
