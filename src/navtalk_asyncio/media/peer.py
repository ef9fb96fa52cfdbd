"""One RTCPeerConnection of aiortc, from OpenPeer or ResetPeer to its close.

The engine calls it with one command at a time; what it notices by itself goes to its
:class:`~navtalk_asyncio.media.peer_host.PeerHost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from attrs import evolve

from navtalk_asyncio.media import aiortc_internals as internals
from navtalk_asyncio.media.command_error import CommandError
from navtalk_asyncio.media.datagram_path import DatagramPath
from navtalk_asyncio.media.early_peer import EarlyPeer
from navtalk_asyncio.media.gathering import Gathering
from navtalk_asyncio.media.ice_checks import PromptChecks
from navtalk_asyncio.media.ice_servers import IceServers
from navtalk_asyncio.media.parameter_sets import described_parameter_sets
from navtalk_asyncio.media.payload_types import PayloadTypes
from navtalk_asyncio.media.peer_host import PeerHost
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.received_track import ReceivedTrack
from navtalk_asyncio.media.receiver_meter import sent_stats
from navtalk_asyncio.media.receiver_tap import discard_queued_frames, join_decoders
from navtalk_asyncio.media.remote_candidates import RemoteCandidates
from navtalk_asyncio.media.rtcp_reports import send_right_reports
from navtalk_asyncio.media.sdp_rewrite import (
    RemoteSdp,
    UnusableSdpError,
    drop_end_of_candidates,
    mark_mids,
    restore_rejected,
    rewrite_answer,
    rewrite_offer,
)
from navtalk_asyncio.media.sender_codec import follow_codec
from navtalk_asyncio.media.sender_reports import TrackTiming, av_sync
from navtalk_proto.ice import IceServerRule
from navtalk_proto.media import (
    CandidatePair,
    ConsentRefreshed,
    Direction,
    IcePolicy,
    IceServerFailed,
    LocalCandidate,
    MediaKind,
    MediaLine,
    MediaState,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.stats import MediaStats
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, Offer

if TYPE_CHECKING:
    import aioice

__all__ = ["SILENCE", "STILL_CHECKING", "Peer"]

STILL_CHECKING: Final = 2.0
"""Seconds of ICE checks until the pairs are told that nobody has answered on: a pair that works is
found within a few round trips."""

SILENCE: Final = 5.0
"""A connection that closes by itself this long after its last datagram is dead, not hung up: a
hang-up is a datagram, and aiortc takes 30 s to give up on silence."""


class Peer:
    """One RTCPeerConnection, from OpenPeer or ResetPeer to its close."""

    def __init__(
        self,
        host: PeerHost,
        early: EarlyPeer | None,
        *,
        number: int,
        servers: IceServers,
        allow: IceServerRule,
        policy: IcePolicy,
        media: tuple[MediaLine, ...],
        tracks: Sequence[MediaStreamTrack],
        loopback: bool,
        gather_timeout: float,
        head_start: float,
    ) -> None:
        self.host = host
        self.pc: RTCPeerConnection = (
            RTCPeerConnection(_configuration(servers, policy)) if early is None else early.pc
        )
        self.candidates: RemoteCandidates = RemoteCandidates(
            self.pc, ignore=host.ignore, own=host.own
        )
        self.order: asyncio.Lock = asyncio.Lock()
        self.closing: bool = False
        self.received: list[ReceivedTrack] = []
        self._number = number
        self._media = media
        self._tracks = [internals.SentTrack(track) for track in tracks]
        self._loopback = loopback
        self._gather_timeout = gather_timeout
        self._head_start = head_start
        self._servers = servers
        self._allow = allow
        self._gatherings: dict[int, Gathering] = {}
        self._clocks: list[internals.DatagramClock] = []
        self._consents: list[internals.ConsentWatch] = []
        self._checks: list[PromptChecks] = []
        self._paths: dict[int, DatagramPath] = {}
        self._takers: dict[RTCRtpReceiver, Callable[[Any, int], None]] = {}
        self._draft: internals.OfferDraft | None = None
        self._payload_types = PayloadTypes()
        self._remote: RemoteSdp | None = None
        self._rejected: Mapping[str, str] = {}
        self.parameter_sets: Mapping[int, bytes] = {}
        """H.264's, by payload type, as the far end described them last."""
        self._late: list[aioice.Candidate | None] = []
        self._describing = False
        self._local_sdp = ""
        self._told: set[MediaState] = set()
        self._still_checking: asyncio.TimerHandle | None = None
        # aiortc calls these in the middle of its own work: whatever they raised would come out
        # of setRemoteDescription or leave the connection stuck.
        self.pc.on("track", self._on_track)
        self.pc.on("iceconnectionstatechange", self._on_ice_state)
        self.pc.on("connectionstatechange", self._on_state)
        self._early = early
        if early is not None:
            self._checks.append(early.checks)
            self._ask(early.agent, early.gathering)

    def check_open(self) -> None:
        """Raise CommandError once it is closing."""
        if self.closing:
            raise CommandError("the peer connection was closed")

    # ---- commands, one at a time under `order`

    async def offer(self, media: tuple[MediaLine, ...]) -> Offer:
        """CreateOffer: these m-lines, not applied yet."""
        self._take_back_draft()
        draft = internals.OfferDraft(self.pc)
        try:
            self._arrange(media or self._offerable())
            created = await self._create_offer()
        except BaseException:
            draft.take_back()
            raise
        draft.raw_sdp = self._payload_types.keep(created.sdp)
        draft.sdp = self._outgoing(draft.raw_sdp)
        draft.media = media
        self._draft = draft
        return Offer(sdp=draft.sdp)

    async def _create_offer(self) -> RTCSessionDescription:
        created = await self.pc.createOffer()
        if self._number == 1:
            return (
                created  # With plain numbers, as most engines have: there is nothing to tell apart.
            )
        known = [mid for one in self.pc.getTransceivers() if (mid := one.mid) is not None]
        return RTCSessionDescription(sdp=mark_mids(created.sdp, known), type=created.type)

    async def set_local(
        self, description: Offer | None, media: tuple[MediaLine, ...]
    ) -> Offer | Answer:
        """SetLocal: the offer that was made, or an answer to the remote one; as it goes out."""
        raw: RTCSessionDescription | None = None
        if description is not None:
            draft, self._draft = self._draft, None
            if draft is None or draft.sdp != description.sdp:
                self._draft = draft
                raise CommandError("this is not the offer that CreateOffer made last")
            raw = RTCSessionDescription(sdp=draft.raw_sdp, type="offer")
            self._media = draft.media or self._media
        elif self.pc.signalingState == "have-remote-offer":
            self._arrange_answer()
        else:
            self._take_back_draft()
            self._media = media or self._offerable()
            self._arrange(self._media)
            raw = await self._create_offer()
        self._watch_ice()
        # What the far end of an answer gets later it adds; who is offered something may not: stock
        # clients read no candidate but the offer's.
        answering = self.pc.signalingState == "have-remote-offer"
        for gathering in self._gatherings.values():
            gathering.describe(0.0 if answering else self._gather_timeout)
        self._describing = True  # until release_candidates()
        # Shielded: a cancelled one leaves a gatherer that never finishes.
        await asyncio.shield(self.host.own(self._describe(raw)))
        self.check_open()
        local = self.pc.localDescription
        if "a=candidate:" not in local.sdp:
            reason = "no ICE candidate was gathered: no network, or no relay answered"
            # A server may offer again, but no offer will find a path: who waits is told now.
            self._tell(MediaState.FAILED, reason)
            raise CommandError(reason)
        self._payload_types.saw(local.sdp)
        self._local_sdp = self._outgoing(local.sdp)
        kind = Offer if local.type == "offer" else Answer
        return kind(sdp=self._local_sdp)

    async def begin_receiving(self) -> None:
        """Have the receivers of an answered offer ready before the first packet comes."""
        if self._head_start:
            await asyncio.sleep(self._head_start)
        async with self.order:
            if self._early is None or self.closing:
                return
            self._early.dismiss_threads()
            if self.pc.signalingState != "stable":
                return
            await self._early.begin_receiving()
            for received in self.received:
                received.get_ready()

    async def _describe(self, raw: RTCSessionDescription | None) -> None:
        if self._early is not None:
            await asyncio.shield(self._early.gathered)
        await self.pc.setLocalDescription(raw)

    async def set_remote(self, description: Description) -> None:
        """SetRemote; raises CommandError where aiortc would break on it."""
        if isinstance(description, Offer):
            self._take_back_draft()
            kind = "offer"
        else:
            kind = "answer"
        try:
            if isinstance(description, Offer):
                remote = rewrite_offer(description.sdp)
            elif self.pc.signalingState != "have-local-offer":
                raise CommandError("an answer, and no offer of ours is set")
            else:
                remote = rewrite_answer(description.sdp, local_offer=self.pc.localDescription.sdp)
            internals.check_description(self.pc, remote.sdp, remote.mids, remote.rejected)
        except (UnusableSdpError, ValueError) as exc:
            raise CommandError(f"cannot take this {kind}: {exc}") from exc
        before = self._remote
        self._remote = remote
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(sdp=remote.sdp, type=kind))
        except BaseException:
            self._remote = before
            raise
        self.parameter_sets = described_parameter_sets(remote.sdp)
        self._payload_types.saw(remote.sdp, original=description.sdp)
        if isinstance(description, Offer):
            self._rejected = remote.rejected
        self.candidates.described(remote)

    async def add_candidate(self, candidate: IceCandidate) -> None:
        """AddCandidate, after the remote description."""
        if self._remote is None:
            raise CommandError("there is no remote description yet; aiortc would lose this")
        await self.candidates.add(candidate, self._remote)

    # ---- m-lines

    def _offerable(self) -> tuple[MediaLine, ...]:
        """What to offer when nothing was asked for: the peer's media, or else what is sent."""
        if self._media:
            return self._media
        kinds = sorted((MediaKind(track.kind) for track in self._tracks), key=_video_first)
        return tuple(MediaLine(kind=kind, direction=Direction.SENDONLY) for kind in kinds)

    def _live_transceivers(self) -> list[RTCRtpTransceiver]:
        return [
            transceiver
            for transceiver in self.pc.getTransceivers()
            if not transceiver.stopped and transceiver.mid not in self._rejected
        ]

    def _arrange(self, media: Sequence[MediaLine]) -> None:
        """Make the transceivers what an offer of `media` needs: existing ones first, by kind and
        order; new ones for the rest; those left over become inactive."""
        if not media:
            raise CommandError("nothing to offer")
        unused = self._live_transceivers()
        for line in media:
            kind = line.kind.value
            transceiver = next((t for t in unused if t.kind == kind), None)
            if transceiver is None:
                transceiver = self.pc.addTransceiver(kind, direction=line.direction.value)
            else:
                unused.remove(transceiver)
                transceiver.direction = line.direction.value
            if line.direction in _SENDS:
                self._attach(transceiver)
            if line.codecs and not internals.prefer_codecs(transceiver, line.codecs):
                raise CommandError(f"aiortc has none of the codecs {', '.join(line.codecs)}")
        for transceiver in unused:
            transceiver.direction = Direction.INACTIVE.value

    def _arrange_answer(self) -> None:
        """Decide what to answer: the peer's media by kind and order; m-lines beyond it are received
        if their kind is wanted at all. Without media everything offered is received."""
        lines = {kind: [line for line in self._media if line.kind is kind] for kind in MediaKind}
        for transceiver in self._live_transceivers():
            kind = MediaKind(transceiver.kind)
            if not self._media:
                if internals.may_send(transceiver) and self._attach(transceiver):
                    transceiver.direction = Direction.SENDRECV.value
            elif lines[kind]:
                line = lines[kind].pop(0)
                if not lines[kind]:
                    lines[kind].append(MediaLine(kind=kind))
                transceiver.direction = line.direction.value
                if line.direction in _SENDS and internals.may_send(transceiver):
                    self._attach(transceiver)
                if line.codecs:
                    # A preference that shares nothing with the offer is only a preference.
                    internals.prefer_codecs(transceiver, line.codecs)
            else:
                transceiver.direction = Direction.INACTIVE.value

    def _attach(self, transceiver: RTCRtpTransceiver) -> bool:
        """Send the next free track of the transceiver's kind on it; whether it sends one."""
        if cast("MediaStreamTrack | None", transceiver.sender.track) is not None:
            return True
        taken = [t.sender.track for t in self.pc.getTransceivers()]
        for track in self._tracks:
            if track.kind == transceiver.kind and track not in taken:
                transceiver.sender.replaceTrack(track)
                follow_codec(transceiver.sender)
                send_right_reports(transceiver.sender)
                return True
        return False

    def _take_back_draft(self) -> None:
        if self._draft is not None:
            self._draft.take_back()
            self._draft = None

    def _outgoing(self, sdp: str) -> str:
        sdp = restore_rejected(sdp, self._rejected)
        if any(gathering.pending for gathering in self._gatherings.values()):
            sdp = drop_end_of_candidates(sdp)
        return sdp

    # ---- ICE

    def _watch_ice(self) -> None:
        if works("checks") and not self._checks:
            self._checks = [
                PromptChecks(agent, head_start=self._head_start)
                for agent in internals.ice_connections(self.pc)
            ]
        if not works("gathering"):
            return
        for agent in internals.ice_connections(self.pc):
            if id(agent) not in self._gatherings:
                self._ask(agent, Gathering(agent, loopback=self._loopback))

    def _ask(self, agent: aioice.Connection, gathering: Gathering) -> None:
        self._gatherings[id(agent)] = gathering
        gathering.ask(
            self._servers,
            allow=self._allow,
            on_candidate=self._on_late_candidate,
            on_failure=self.server_failed,
        )
        self._clocks.append(internals.DatagramClock(agent, self.host.loop.time))

    def _watch_consent(self) -> None:
        if works("consent") and not self._consents:
            self._consents = [
                internals.ConsentWatch(agent, self._on_consent)
                for agent in internals.ice_connections(self.pc)
            ]

    def _shorten(self) -> None:
        if not (works("receiving") and works("jitter") and works("datagrams")) or self._paths:
            return
        for transceiver in self.pc.getTransceivers():
            transport = transceiver.receiver.transport
            agent = transport.transport.iceGatherer._connection
            if id(agent) not in self._paths:
                self._paths[id(agent)] = DatagramPath(
                    agent, transport, self._takers, self.host.loop.time
                )

    def _on_consent(self) -> None:
        if not self.closing:
            self.host.event(ConsentRefreshed())

    def server_failed(self, url: str, reason: str) -> None:
        """An ICE server was of no use; tell it."""
        if not self.closing:
            self.host.event(IceServerFailed(url=url, reason=reason))

    def _on_late_candidate(self, candidate: aioice.Candidate | None) -> None:
        self._late.append(candidate)
        if not self._describing:
            self.release_candidates()

    def stats(self) -> MediaStats:
        """A snapshot."""
        pair = internals.pair_in_use(self.pc)
        if pair is not None and self._consents:
            watch = self._consents[0]
            pair = evolve(pair, round_trip_time=watch.round_trip_time, consent_checks=watch.checks)
        sent = (sent_stats(transceiver.sender) for transceiver in self.pc.getTransceivers())
        return MediaStats(
            received=tuple(
                received.meter.stats(received.track_id, received.counters)
                for received in self.received
            ),
            sent=tuple(stats for stats in sent if stats is not None),
            pair=pair,
            av_sync=av_sync(self._timing(MediaKind.AUDIO), self._timing(MediaKind.VIDEO)),
        )

    def _timing(self, kind: MediaKind) -> TrackTiming | None:
        timings = (one.reports.timing for one in self.received if one.kind is kind)
        return next(timings, None)

    def release_candidates(self) -> None:
        """Report late candidates; none may overtake the description it belongs to."""
        self._describing = False
        late, self._late = self._late, []
        if self.closing:
            return
        agents = internals.ice_connections(self.pc)
        for candidate in late:
            text = "" if candidate is None else f"candidate:{candidate.to_sdp()}"
            if text and f"a={text}\r\n" in self._local_sdp:
                continue
            self.host.event(
                LocalCandidate(
                    candidate=IceCandidate(
                        candidate=text,
                        sdp_mid=internals.mid_at(self.pc, 0),
                        sdp_m_line_index=0,
                        username_fragment=agents[0].local_username,
                    )
                )
            )

    # ---- what aiortc reports

    def _on_track(self, track: MediaStreamTrack) -> None:
        transceiver = next(t for t in self.pc.getTransceivers() if t.receiver.track is track)
        taken = {received.track_id for received in self.received}
        track_id = track.id if track.id not in taken else f"{track.id}#{transceiver.mid}"
        received = ReceivedTrack(self, transceiver.receiver, track, track_id)
        self.received.append(received)
        if received.take is not None:
            self._takers[transceiver.receiver] = received.take
        labels = {} if self._remote is None else self._remote.stream_labels
        self.host.event(
            TrackAdded(
                track_id=track_id,
                kind=received.kind,
                mid=transceiver.mid,
                stream_id=labels.get(transceiver.mid or ""),
            )
        )

    def _on_ice_state(self) -> None:
        match self.pc.iceConnectionState:
            case "checking":
                self._tell(MediaState.CHECKING)
                self._still_checking = self.host.loop.call_later(
                    STILL_CHECKING, self._tell_still_checking
                )
            case "completed":
                self._tell(MediaState.ICE_CONNECTED)
                self._watch_consent()
                self._shorten()
            case "failed":
                self._tell_failed()

    def _on_state(self) -> None:
        match self.pc.connectionState:
            case "connected":
                self._tell(MediaState.CONNECTED)
            case "failed":
                self._tell_failed()
            case "closed":
                self._tell(MediaState.CLOSED, self._why_closed())
                self.host.lost(self)

    def _tell_still_checking(self) -> None:
        """ICE gives up after half a minute only: who stops waiting earlier wants the pairs too."""
        if not self.closing and self.pc.iceConnectionState == "checking":
            pairs = internals.candidate_pairs(self.pc)
            self.host.event(
                MediaStateChanged(
                    state=MediaState.CHECKING, reason="no answer on any pair yet", pairs=pairs
                )
            )

    def _tell_failed(self) -> None:
        if MediaState.CONNECTED in self._told:
            reason = "the connection was lost"
        elif MediaState.ICE_CONNECTED in self._told:
            reason = "the DTLS handshake failed"
            if internals.has_foreign_certificate(self.pc):
                reason = "the DTLS certificate is not the one that the far end's description names"
        else:
            reason = "no candidate pair works"
        self._tell(MediaState.FAILED, reason, internals.candidate_pairs(self.pc))

    def _why_closed(self) -> str:
        times = [clock.last for clock in self._clocks if clock.last is not None]
        times += [t.last_packet for t in self.received if t.last_packet]
        if not times:
            return "closed before anything was received"
        age = self.host.loop.time() - max(times)
        if age < SILENCE:
            return "closed by the far end"
        return f"dead: nothing was received for {age:.1f} s"

    def _tell(
        self, state: MediaState, reason: str = "", pairs: tuple[CandidatePair, ...] = ()
    ) -> None:
        if not self.closing and state not in self._told:
            self._told.add(state)
            self.host.event(MediaStateChanged(state=state, reason=reason, pairs=pairs))

    # ---- the end

    def begin_close(self) -> None:
        """Refuse further work, and make the work in progress end soon. Nothing is told any more."""
        if not self.closing:
            self.host.keep_stats(self.stats())
        self.closing = True
        if self._still_checking is not None:
            self._still_checking.cancel()
        for received in self.received:
            received.stop_reporting()
        for gathering in self._gatherings.values():
            gathering.abort()
        self.candidates.abort()

    async def close(self) -> None:
        """Close the connection and end everything that belongs to it; after begin_close()."""
        async with self.order:
            # Let the decoder threads have nothing left to do.
            discard_queued_frames(self.pc)
            for received in self.received:
                received.pump.cancel()
            abandoned = internals.AbandonedTasks(self.pc)
            try:
                if self._early is not None:
                    await self._early.release()
                await abandoned.stop_connecting()
                await self.pc.close()
                if self._early is not None:
                    await self._early.aclose()
            finally:
                for gathering in self._gatherings.values():
                    await gathering.join()
                pumps = [received.pump for received in self.received]
                if rest := {*pumps, *self.candidates.resolving}:
                    await asyncio.wait(rest)
                await abandoned.end()
                await join_decoders(received.decoder_thread for received in self.received)
                for track in self._tracks:
                    track.stop()


def _configuration(servers: IceServers, policy: IcePolicy) -> RTCConfiguration:
    """aiortc's own configuration: without servers, where Gathering asks them."""
    stock = [] if works("gathering") else [*servers.stun, *servers.turn]
    return RTCConfiguration(
        # Never None: aiortc would ask a public server that nobody configured.
        iceServers=[
            RTCIceServer(
                urls=[str(server.url)],
                username=server.username,
                credential=None if server.credential is None else server.credential.reveal(),
            )
            for server in stock
        ],
        iceTransportPolicy=RTCIceTransportPolicy(policy.value),
        bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
    )


_SENDS: Final = frozenset({Direction.SENDRECV, Direction.SENDONLY})


def _video_first(kind: MediaKind) -> bool:
    """A sort key: the real service offers video before audio (protocol.md 5.4)."""
    return kind is not MediaKind.VIDEO
