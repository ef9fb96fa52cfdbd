"""A media engine without media that accepts no illegal step."""

from __future__ import annotations

import re
from collections import deque
from enum import Enum
from typing import TypeAlias

from navtalk_proto.actions import (
    ClosePeer,
    CreateOffer,
    MediaCommand,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.limits import Limits
from navtalk_proto.media import (
    Capabilities,
    Direction,
    MediaEvent,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, IceServer, Offer
from navtalk_proto.wire.sdp import candidate_ufrag, check_description, same_transport

__all__ = ["EngineMisuseError", "Finished", "SignalingState", "StrictEngine"]

_FLIPPED = {
    Direction.SENDRECV: Direction.SENDRECV,
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
    Direction.INACTIVE: Direction.INACTIVE,
}
_LINE = re.compile(r"m=(audio|video) .*?a=(sendrecv|sendonly|recvonly|inactive)", re.DOTALL)
_MID = re.compile(r"a=mid:(\S+)")
_DESCRIPTION_COMMANDS = (OpenPeer, ResetPeer, CreateOffer, SetLocal, SetRemote)


class EngineMisuseError(AssertionError):
    """A command that a real engine would refuse, or take and then misbehave."""


class SignalingState(Enum):
    """The signaling state of the peer connection (W3C webrtc-pc 4.3.1)."""

    NO_PEER = "no peer"
    STABLE = "stable"
    HAVE_LOCAL_OFFER = "have-local-offer"
    HAVE_REMOTE_OFFER = "have-remote-offer"


Finished: TypeAlias = tuple[MediaCommand, MediaResult, str | None]
"""A command, its result, and the reason if it failed."""


class StrictEngine:
    """Executes media commands on paper.

    :meth:`execute` starts a command and checks that it is legal now; :meth:`finish` ends the oldest
    one. Descriptions are real SDP with an ICE ufrag and fingerprint of their own per peer
    connection, so the core's comparisons work. `name` makes them readable: ufrags of engine ``c``
    are ``c1``, ``c2`` and so on, one per peer connection.

    What happens to media on its own is in :attr:`events`: with ``connects=True`` (the default) the
    transport connects, and packets arrive, as soon as an exchange is complete; otherwise when
    :meth:`connect` is called.

    From the second peer connection on its own m-lines have mids that no earlier one had, which
    tells answers apart; with ``own_mids=False`` they are numbers from 0, as those of most engines.
    """

    def __init__(
        self,
        name: str,
        *,
        capabilities: Capabilities | None = None,
        connects: bool = True,
        own_mids: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.capabilities: Capabilities = capabilities or Capabilities()
        self.connects = connects
        self.own_mids = own_mids
        self.events: deque[MediaEvent] = deque()
        self.history: list[MediaCommand] = []
        self.added: list[IceCandidate] = []
        """Candidates given to the current peer connection, in order."""
        self.ice_servers: tuple[IceServer, ...] = ()
        self.signaling: SignalingState = SignalingState.NO_PEER
        self.local: Description | None = None
        self.remote: Description | None = None
        self.peers: int = 0
        self._limits = limits or Limits()
        self._lines: tuple[MediaLine, ...] = ()
        self._mids: tuple[str, ...] = ()
        self._answered: tuple[MediaLine, ...] = ()
        self._pending: deque[MediaCommand] = deque()
        self._made: Offer | None = None
        self._connected = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a command waits for :meth:`finish`."""
        return bool(self._pending)

    @property
    def ufrag(self) -> str:
        """The ICE ufrag of the current peer connection."""
        return f"{self.name}{self.peers}"

    def execute(self, command: MediaCommand) -> None:
        """Start a command. Raises EngineMisuseError if it is illegal now."""
        if self._closed:
            raise EngineMisuseError(f"{command} after ClosePeer")
        if isinstance(command, _DESCRIPTION_COMMANDS):
            in_flight = [c for c in self._pending if isinstance(c, _DESCRIPTION_COMMANDS)]
            if in_flight:
                raise EngineMisuseError(f"{command} while {in_flight[0]} is in flight")
        self._check(command)
        self.history.append(command)
        self._pending.append(command)
        if isinstance(command, ClosePeer):
            self._closed = True

    def finish(self, *, fail: str | None = None) -> Finished:
        """End the oldest command, with a result or for a reason."""
        command = self._pending.popleft()
        if self._closed and not isinstance(command, ClosePeer):
            return command, None, "the peer connection was closed"
        if fail is not None:
            if isinstance(command, ResetPeer):  # The old peer connection was thrown away first.
                self._forget_peer()
            return command, None, fail
        return command, self._carry_out(command), None

    @property
    def connectable(self) -> bool:
        """Whether an exchange is complete on a peer connection that has not connected yet."""
        complete = self.remote is not None and self.signaling is SignalingState.STABLE
        return complete and not self._connected

    def connect(self) -> None:
        """Report that ICE and DTLS are done, and the first packet of each track."""
        self._connected = True
        for state in (MediaState.CHECKING, MediaState.ICE_CONNECTED, MediaState.CONNECTED):
            self.events.append(MediaStateChanged(state=state))
        for index, line in enumerate(self._lines):
            if line.direction in (Direction.SENDONLY, Direction.SENDRECV):
                track = f"{self.ufrag}-{index}"
                self.events.append(MediaStarted(track_id=track, kind=line.kind))

    def fail_transport(self, reason: str = "no candidate pair worked") -> None:
        """Report that ICE failed."""
        self.events.append(MediaStateChanged(state=MediaState.FAILED, reason=reason))

    def close_by_itself(self) -> None:
        """End the peer connection unasked. Deliver the event before the core's next command.

        What was pending for it ends with it; a ResetPeer is about the next one, and stays.
        """
        self._forget_peer()
        self._pending = deque(one for one in self._pending if isinstance(one, ResetPeer))
        self.events.append(MediaStateChanged(state=MediaState.CLOSED, reason="closed"))

    # ---- legality

    def _check(self, command: MediaCommand) -> None:
        state = self.signaling
        legal: bool
        match command:
            case OpenPeer():
                legal = state is SignalingState.NO_PEER
            case ResetPeer():
                legal = state is not SignalingState.NO_PEER
            case ClosePeer():
                legal = True
            case CreateOffer():
                legal = state is SignalingState.STABLE
            case SetLocal(description=None):
                legal = state in (SignalingState.STABLE, SignalingState.HAVE_REMOTE_OFFER)
            case SetLocal():
                # An offer made before something else was applied is not this engine's any more.
                legal = state is SignalingState.STABLE and command.description == self._made
            case SetRemote() if not self._same_transport(command.description):
                # Engines take it, and go on with the old transport: the media is dead in silence.
                raise EngineMisuseError(f"{command} starts a new transport")
            case SetRemote(description=Offer()):
                legal = state in (SignalingState.STABLE, SignalingState.HAVE_REMOTE_OFFER) or (
                    state is SignalingState.HAVE_LOCAL_OFFER and self.capabilities.rollback
                )
            case SetRemote():
                legal = state is SignalingState.HAVE_LOCAL_OFFER
            case _:
                self._check_candidate(command.candidate)
                legal = True
        if not legal:
            raise EngineMisuseError(f"{command} in signaling state {state.value}")

    def _same_transport(self, description: Description) -> bool:
        if self.remote is None:
            return True
        old, new = (check_description(one, self._limits) for one in (self.remote, description))
        return same_transport(old, new)

    def _check_candidate(self, candidate: IceCandidate) -> None:
        if self.remote is None:
            raise EngineMisuseError("a candidate before the remote description is lost")
        ufrag = candidate_ufrag(candidate)
        known = check_description(self.remote, self._limits).ufrags
        if ufrag is not None and ufrag not in known:
            raise EngineMisuseError(f"a candidate of {ufrag} for a description of {set(known)}")

    # ---- execution

    def _carry_out(self, command: MediaCommand) -> MediaResult:
        match command:
            case OpenPeer() | ResetPeer():
                self._forget_peer()
                self.peers += 1
                self.signaling = SignalingState.STABLE
                self.ice_servers = command.ice_servers
            case ClosePeer():
                self.signaling = SignalingState.NO_PEER
            case CreateOffer():
                self._made = Offer(sdp=self._write(self._arrange(command.media)))
                return self._made
            case SetLocal(description=None):
                if self.signaling is SignalingState.HAVE_REMOTE_OFFER:
                    answer = Answer(sdp=self._write(self._answered))
                    self.local = answer
                    self._stable()
                    return answer
                offer = Offer(sdp=self._write(self._arrange(command.media)))
                self.local = offer
                self.signaling = SignalingState.HAVE_LOCAL_OFFER
                return offer
            case SetLocal():
                self.local = command.description
                self.signaling = SignalingState.HAVE_LOCAL_OFFER
                return command.description
            case SetRemote():
                self._made = None
                self.remote = command.description
                self._read(command.description)
                if isinstance(command.description, Offer):
                    self.signaling = SignalingState.HAVE_REMOTE_OFFER
                else:
                    self._stable()
            case _:
                self.added.append(command.candidate)
        return None

    def _forget_peer(self) -> None:
        self.signaling = SignalingState.NO_PEER
        self.local = self.remote = self._made = None
        self.added.clear()
        self._connected = False
        self._lines = ()
        self._mids = ()

    def _stable(self) -> None:
        self.signaling = SignalingState.STABLE
        if self.connects and not self._connected:
            self.connect()

    def _read(self, description: Description) -> None:
        known = len(self._lines)
        found = list(_LINE.finditer(description.sdp))
        self._lines = tuple(
            MediaLine(kind=MediaKind(line[1]), direction=Direction(line[2])) for line in found
        )
        ends = [*(line.start() for line in found[1:]), len(description.sdp)]
        self._mids = tuple(
            mid[1] if (mid := _MID.search(description.sdp, line.start(), end)) else str(index)
            for index, (line, end) in enumerate(zip(found, ends, strict=False))
        )
        self._answered = tuple(
            MediaLine(kind=line.kind, direction=_FLIPPED[line.direction]) for line in self._lines
        )
        for index, line in enumerate(self._lines[known:], known):
            if line.direction in (Direction.SENDONLY, Direction.SENDRECV):
                track = f"{self.ufrag}-{index}"
                self.events.append(
                    TrackAdded(track_id=track, kind=line.kind, mid=self._mids[index])
                )

    def _arrange(self, wished: tuple[MediaLine, ...]) -> tuple[MediaLine, ...]:
        """The m-lines of an offer: those there are stay, inactive where they are not wished."""
        left = list(wished)
        lines: list[MediaLine] = []
        for old in self._lines:
            new = next((line for line in left if line.kind is old.kind), None)
            if new is None:
                lines.append(MediaLine(kind=old.kind, direction=Direction.INACTIVE))
            else:
                left.remove(new)
                lines.append(new)
        return (*lines, *left)

    def _write(self, media: tuple[MediaLine, ...]) -> str:
        lines = ["v=0", f"o=- {len(self.history)} 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        own = f".{self.ufrag}" if self.own_mids and self.peers > 1 else ""
        new = (f"{index}{own}" for index in range(len(self._mids), len(media)))
        mids = (*self._mids, *new)
        lines.append("a=group:BUNDLE " + " ".join(mids))
        for mid, line in zip(mids, media, strict=True):
            lines += [
                f"m={line.kind.value} 9 UDP/TLS/RTP/SAVPF 96",
                "c=IN IP4 0.0.0.0",
                f"a=mid:{mid}",
                f"a={line.direction.value}",
                f"a=ice-ufrag:{self.ufrag}",
                "a=ice-pwd:" + "p" * 22,
                f"a=fingerprint:sha-256 {self.peers:02X}:{ord(self.name[0]):02X}",
                "a=setup:actpass",
                "a=rtcp-mux",
            ]
        return "".join(f"{line}\r\n" for line in lines)
