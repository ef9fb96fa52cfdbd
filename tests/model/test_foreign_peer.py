"""One of our cores and a far end of foreign make, which does what stock peers do and worse.

It may answer late, twice, or never; it offers when it likes; its candidates overtake its
descriptions. Only when it is asked to behave does it answer each offer once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from negotiation_model import (
    ANSWER_TIMEOUT,
    FAR_AWAY,
    LIMITS,
    NUMBERS,
    WELCOME,
    WISHES,
    NegotiationModel,
    Watched,
    make_candidate,
    model_settings,
)

from navtalk_proto.actions import AbortTransport, CloseTransport, Emit, SendText
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.events import Negotiated
from navtalk_proto.machines.negotiation import State
from navtalk_proto.media import Capabilities
from navtalk_proto.roles import Role
from navtalk_proto.testing import End, StrictEngine
from navtalk_proto.testing.pair import Cut, Link
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, Offer
from navtalk_proto.wire.sdp import check_description

FLIPPED = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
STYLES = st.sampled_from(["field", "text", "none", "end", "end without"])
TRICKLE = st.lists(STYLES, max_size=3)
"""The candidates of a description; they travel beside it, and may come first."""

Lines = list[tuple[str, str]]
"""Kind and direction of each m-line."""


class ForeignPeer:
    """Writes what a peer of foreign make would write. One ICE generation per peer connection."""

    def __init__(self, answers: dict[str, Offer]) -> None:
        self.answers = answers
        self.generation = 1
        self.written = 0
        """How many descriptions it wrote: each is another one, as aiortc's are."""
        self.heard: list[Offer] = []
        """Our offers that reached it."""
        self.facing = ""
        """The ufrag of our peer connection that its own was made for."""
        self.descriptions: deque[Description] = deque()
        self.candidates: deque[IceCandidate] = deque()

    @property
    def ufrag(self) -> str:
        return f"f{self.generation}"

    def hear(self, offer: Offer) -> None:
        self.heard.append(offer)

    def answer(self, offer: Offer) -> Answer:
        """The answer to an offer; a new peer connection of ours takes a new one of its own."""
        sdp = check_description(offer, LIMITS)
        (facing,) = sdp.ufrags
        if self.facing not in ("", facing):
            self.generation += 1
        self.facing = facing
        lines = [(one.kind, FLIPPED[one.direction]) for one in sdp.medias]
        answer = Answer(sdp=self.write(lines, [one.mid or "" for one in sdp.medias]))
        self.answers[answer.sdp] = offer
        self.descriptions.append(answer)
        return answer

    def write(self, lines: Lines, mids: Sequence[str] = ("0", "1", "2")) -> str:
        self.written += 1
        text = ["v=0", f"o=- {self.written} 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        for mid, (kind, direction) in zip(mids, lines, strict=False):
            text += [
                f"m={kind} 9 UDP/TLS/RTP/SAVPF 96",
                f"a=mid:{mid}",
                f"a={direction}",
                f"a=ice-ufrag:{self.ufrag}",
                "a=ice-pwd:" + "q" * 22,
                f"a=fingerprint:sha-256 {self.generation // 256:02X}:{self.generation % 256:02X}",
            ]
        return "".join(f"{line}\r\n" for line in text)


class ServerAndForeignClient(NegotiationModel):
    """Our server, from a session that is ready and has no peer connections yet."""

    role: ClassVar[Role] = Role.SERVER

    @initialize(rollback=st.booleans(), own_mids=st.booleans())
    def begin(self, rollback: bool, own_mids: bool) -> None:
        capabilities = Capabilities(rollback=rollback)
        name = self.role.value
        config: ClientConfig | ServerConfig
        if self.role is Role.CLIENT:
            config = ClientConfig(
                limits=LIMITS, capabilities=capabilities, connect_timeout=FAR_AWAY
            )
        else:
            config = ServerConfig(limits=LIMITS, capabilities=capabilities)
        end = End(
            name=name,
            connection=Connection(self.role, config, now=self.clock.now),
            engine=StrictEngine(name[0], capabilities=capabilities, own_mids=own_mids),
            outbox=Link(),
        )
        ours = Watched(end, self.clock, self.answers)
        self.far = ForeignPeer(self.answers)
        self.lines: Lines = [("video", "sendrecv"), ("audio", "sendrecv")]
        end.connection.transport_opened(now=self.clock.now)
        for message in WELCOME:
            if self.role is Role.SERVER:
                end.connection.send(message, now=self.clock.now)
            else:
                end.connection.receive_text(codec.encode(message), now=self.clock.now)
        self.watched = (ours,)
        self.perform(ours)
        end.outbox.queue.clear()
        if self.established:
            self.wish(ours, WISHES[name][0])
            self.wish_is_granted(ours)

    @property
    def ours(self) -> Watched:
        return self.watched[0]

    def perform(self, end: Watched) -> None:
        for action in end.connection.actions():
            end.end.actions.append(action)
            match action:
                case Emit():
                    end.end.events.append(action.event)
                case SendText():
                    end.end.outbox.queue.append(action)
                case CloseTransport():
                    end.end.outbox.queue.append(Cut(code=action.code, reason=action.reason))
                case AbortTransport():
                    end.end.outbox.queue.append(Cut(code=None, reason=""))
                case _:
                    end.engine.execute(action)

    def moves(self) -> Iterator[Callable[[], None]]:
        yield from self.engine_moves(self.ours)
        if self.ours.end.outbox.queue:
            yield self.the_far_end_hears
        if self.far.descriptions:
            yield self.a_description_arrives
        if self.far.candidates:
            yield self.a_candidate_arrives

    def reaches(self, end: Watched) -> bool:
        """What it does with our answers to its offers is not modelled: those connect."""
        remote = end.engine.remote
        faces_us = isinstance(remote, Offer) or self.far.facing == end.engine.ufrag
        return end.faces == self.far.ufrag and faces_us

    def the_far_end_hears(self) -> None:
        item = self.ours.end.outbox.queue.popleft()
        if isinstance(item, Cut):
            self.ours.connection.transport_closed(
                code=item.code, reason=item.reason, now=self.clock.now
            )
            self.perform(self.ours)
        elif isinstance(offer := codec.decode(item.text, sender=self.role, limits=LIMITS), Offer):
            self.far.hear(offer)

    def a_description_arrives(self) -> None:
        self.receive(self.far.descriptions.popleft())

    def a_candidate_arrives(self) -> None:
        self.receive(self.far.candidates.popleft())

    def receive(self, message: Description | IceCandidate) -> None:
        self.ours.arrives(message)
        self.ours.connection.receive_text(codec.encode(message), now=self.clock.now)
        self.perform(self.ours)

    # ---- what the far end does

    @rule(times=st.integers(1, 2), styles=TRICKLE)
    def it_answers_the_newest_offer(self, times: int, styles: list[str]) -> None:
        for _ in range(times):
            if self.far.heard:
                self.far.answer(self.far.heard[-1])
        self.trickle(styles)

    @rule(number=NUMBERS)
    def it_answers_any_offer(self, number: int) -> None:
        if self.far.heard:
            self.far.answer(self.far.heard[number % len(self.far.heard)])

    @rule(more=st.booleans(), styles=TRICKLE)
    def it_offers(self, more: bool, styles: list[str]) -> None:
        lines = [*self.lines, ("video", "sendonly")] if more else self.lines
        self.far.descriptions.append(Offer(sdp=self.far.write(lines)))
        self.trickle(styles)

    @rule()
    def it_rebuilds_its_peer(self) -> None:
        self.far.generation += 1
        self.far.facing = ""

    @rule(styles=TRICKLE, whose=st.sampled_from(["present", "present", "previous", "unknown"]))
    def it_gathers(self, styles: list[str], whose: str) -> None:
        generation = self.far.generation - (whose == "previous")
        self.trickle(styles, "nobody" if whose == "unknown" else f"f{generation}")

    def trickle(self, styles: list[str], ufrag: str | None = None) -> None:
        for style in styles:
            candidate = make_candidate(self.next_number(), ufrag or self.far.ufrag, style)
            self.far.candidates.append(candidate)

    @rule()
    def its_candidates_are_fast(self) -> None:
        while self.far.candidates:
            self.a_candidate_arrives()

    @rule(style=st.sampled_from(["field", "text"]))
    def its_offer_is_outrun_while_our_peer_is_lost(self, style: str) -> None:
        """What was under way comes to nothing; an offer's candidate comes; our peer ends; the offer
        comes."""
        if self.ours.connection.negotiation_state is State.HAVE_LOCAL_OFFER:
            self._pass(ANSWER_TIMEOUT)
        elif self.ours.engine.busy:
            self.an_operation_fails(number=0)
            self.check_all()
        self.it_offers(more=False, styles=[style])
        self.its_candidates_are_fast()
        if self.ours.has_peer:
            self.a_transport_fails(number=0, closes=True)
        elif self.ours.engine.busy:
            self.an_operation_fails(number=0)

    @rule()
    def its_descriptions_are_fast(self) -> None:
        while self.far.descriptions:
            self.a_description_arrives()

    # ---- agreement

    def wish_is_granted(self, end: Watched) -> None:
        """The far end behaves: it answers each offer that is made for this wish, once."""
        number = len(end.wishes)
        heard = len(self.far.heard)
        answers = []
        for _ in range(20):
            while (move := next(self.moves(), None)) is not None:
                move()
                self.check_all()
            if len(self.far.heard) == heard:
                break
            heard = len(self.far.heard)
            answers.append((self.far.heard[-1], self.far.answer(self.far.heard[-1])))
        self.settle()
        assert number in [event.wish for event in end.end.of(Negotiated)]
        assert end.connection.negotiation_state is State.STABLE
        assert (end.engine.local, end.engine.remote) == answers[-1]


class EstablishedServerAndForeignClient(ServerAndForeignClient):
    """From a session with media."""

    established = True


class ClientAndForeignServer(ServerAndForeignClient):
    """Our client, the polite one, against such a server."""

    role = Role.CLIENT


class EstablishedClientAndForeignServer(ClientAndForeignServer):
    """From a session with media."""

    established = True


MODELS = (
    ServerAndForeignClient,
    EstablishedServerAndForeignClient,
    ClientAndForeignServer,
    EstablishedClientAndForeignServer,
)
for _model in MODELS:
    _model.TestCase.settings = model_settings()
TestServerAndForeignClient = ServerAndForeignClient.TestCase
TestEstablishedServerAndForeignClient = EstablishedServerAndForeignClient.TestCase
TestClientAndForeignServer = ClientAndForeignServer.TestCase
TestEstablishedClientAndForeignServer = EstablishedClientAndForeignServer.TestCase
