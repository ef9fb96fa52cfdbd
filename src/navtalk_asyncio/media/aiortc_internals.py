"""Everything that touches private names of aiortc 1.16 and aioice 0.13.

Nothing here patches a module or a class: what is replaced is replaced on one object of one peer
connection. Each group of private names is tested the first time it is needed in a process; if it
is not what was written against, one warning goes to the ``navtalk.media`` logger and that group
behaves as stock aiortc does:

=============  ====================================================================================
gathering      no deadline, no loopback candidates, no late candidates
receiving      everything is decoded; no packet counters, no encoded frames, no keyframe requests
transceivers   an offer that is not used leaves its new m-lines behind
=============  ====================================================================================

tests/media/test_aiortc_facts.py pins the behaviour that this rests on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import ipaddress
import logging
import queue
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeAlias, cast

import aioice
from aioice import ice
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
)
from aiortc.codecs import CODECS, get_capabilities
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.rtcpeerconnection import filter_preferred_codecs, find_common_codecs
from aiortc.sdp import SessionDescription

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_proto.media import CandidatePair, MediaKind, MediaLine

__all__ = [
    "AbandonedTasks",
    "DatagramClock",
    "Gathering",
    "OfferDraft",
    "ReceiverTap",
    "SentTrack",
    "candidate_pairs",
    "check_description",
    "discard_queued_frames",
    "ice_connections",
    "may_send",
    "mid_at",
    "prefer_codecs",
    "usable_ice_url",
    "works",
]

logger: Final = logging.getLogger("navtalk.media")

LATE_SECONDS: Final = 10.0
"""How long a STUN or TURN answer may come after the description has left. TURN over TLS through a
slow network was seen to need two."""

DECODER_BACKLOG: Final = {MediaKind.VIDEO: 30, MediaKind.AUDIO: 50}
"""Encoded frames waiting for the decoder thread, one second of each kind. aiortc has no limit here:
a slow decoder costs seconds of delay and stalls the loop at close."""

KEYFRAME_CACHE_FRAMES: Final = 30
KEYFRAME_CACHE_BYTES: Final = 2 * 1024 * 1024
"""What is kept of the running group of pictures while nobody reads, so that a first reader need
not wait for a keyframe: senders of prepared clips ignore keyframe requests."""

KEYFRAME_INTERVAL: Final = 0.5
"""Seconds between two keyframe requests of ours."""

ARRIVALS: Final = 256
"""Frames whose arrival time is remembered until they leave the jitter buffer."""

ABANDONED_SECONDS: Final = 5.0
"""How long closing waits for aiortc's own tasks; they end within milliseconds."""

PAIRS: Final = 64
"""Candidate pairs shown in a failure."""


_Query: TypeAlias = tuple[aioice.Candidate, ice.StunProtocol | None]
"""What asking a server brings: a candidate, and for a relay what it sends through."""


# ---- self-tests


def _test_gathering() -> None:
    connection = aioice.Connection(ice_controlling=False)
    inspect.signature(connection.get_component_candidates).bind(
        component=1, addresses=["127.0.0.1"], timeout=5
    )
    for name, kind in {
        "_protocols": list,
        "_local_candidates": list,
        "_remote_candidates": list,
        "_check_list": list,
        "_check_list_done": bool,
        "_early_checks_done": bool,
        "_closing": bool,
    }.items():
        if not isinstance(getattr(connection, name), kind):
            raise TypeError(f"aioice.Connection.{name} is not a {kind.__name__}")
    if connection._transport_policy is not ice.TransportPolicy.ALL:
        raise TypeError("aioice.Connection._transport_policy is not ALL")
    inspect.signature(connection._pair_remote_candidate).bind(None)
    inspect.signature(connection.sort_check_list).bind()
    inspect.signature(connection.check_start_task).bind(None)
    inspect.signature(connection.data_received).bind(b"", 1)
    inspect.signature(ice.server_reflexive_candidate).bind(None, ("127.0.0.1", 1))
    inspect.signature(ice.relayed_candidate).bind(
        component=1,
        hide_related_address=False,
        protocol_factory=None,
        turn_server=None,
        turn_username=None,
        turn_password=None,
        turn_ssl=False,
        turn_transport="udp",
    )
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transport = peer.addTransceiver("video").receiver.transport.transport
    if not isinstance(transport.iceGatherer._connection, aioice.Connection):
        raise TypeError("RTCIceGatherer._connection is not an aioice.Connection")


def _test_receiving() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver: Any = peer.addTransceiver("video").receiver
    if not isinstance(receiver._RTCRtpReceiver__decoder_queue, queue.Queue):
        raise TypeError("RTCRtpReceiver.__decoder_queue is not a queue.Queue")
    if not isinstance(receiver._RTCRtpReceiver__codecs, dict):
        raise TypeError("RTCRtpReceiver.__codecs is not a dict")
    if receiver._RTCRtpReceiver__timestamp_mapper._origin is not None:
        raise TypeError("TimestampMapper._origin is not None at first")
    inspect.signature(receiver._handle_rtp_packet).bind(None, arrival_time_ms=0)
    if not inspect.iscoroutinefunction(receiver._handle_rtp_packet):
        raise TypeError("RTCRtpReceiver._handle_rtp_packet is not a coroutine function")
    inspect.signature(receiver._send_rtcp_pli).bind(1)


def _test_transceivers() -> None:
    peer: Any = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("video")
    if peer._RTCPeerConnection__transceivers != [transceiver]:
        raise TypeError("RTCPeerConnection.__transceivers is not the list of transceivers")
    if transceiver._get_mline_index() is not None or transceiver._codecs != []:
        raise TypeError("a new transceiver has an m-line index or codecs")
    if transceiver._headerExtensions != [] or transceiver._preferred_codecs != []:
        raise TypeError("a new transceiver has extensions or preferences")


_TESTS: Final[dict[str, Callable[[], None]]] = {
    "gathering": _test_gathering,
    "receiving": _test_receiving,
    "transceivers": _test_transceivers,
}
_verdicts: dict[str, bool] = {}


def works(group: str) -> bool:
    """Whether a group of private names is what this module was written against.

    Tested once per process, on a running loop; the first failure is the one warning.
    """
    if group not in _verdicts:
        try:
            _TESTS[group]()
        except (AttributeError, TypeError, ValueError) as exc:
            logger.warning(
                "aiortc or aioice is not as expected (%s): %s; using it as it is", group, exc
            )
            _verdicts[group] = False
        else:
            _verdicts[group] = True
    return _verdicts[group]


# ---- ICE


def usable_ice_url(url: str) -> bool:
    """Whether aiortc can read a STUN or TURN URL; it raises ValueError on others, in the middle
    of a description (IPv6 literals among them)."""
    try:
        parse_stun_turn_uri(url)
    except ValueError:
        return False
    return True


def ice_connections(peer: RTCPeerConnection) -> list[aioice.Connection]:
    """The ICE agents of a peer connection: with max-bundle one, once there is an m-line."""
    transports = [t.receiver.transport for t in peer.getTransceivers()]
    if peer.sctp is not None:
        transports.append(peer.sctp.transport)
    found: list[aioice.Connection] = []
    for transport in transports:
        connection = transport.transport.iceGatherer._connection
        if connection not in found:
            found.append(connection)
    return found


def candidate_pairs(peer: RTCPeerConnection) -> tuple[CandidatePair, ...]:
    """The candidate pairs that ICE has tried or will try, at most :data:`PAIRS`."""
    if not works("gathering"):
        return ()
    pairs = [pair for connection in ice_connections(peer) for pair in connection._check_list]
    return tuple(
        CandidatePair(
            local=_address(pair.local_candidate),
            remote=_address(pair.remote_candidate),
            state=pair.state.name.lower().replace("_", "-"),
        )
        for pair in pairs[:PAIRS]
    )


def _address(candidate: aioice.Candidate) -> str:
    host = f"[{candidate.host}]" if ":" in candidate.host else candidate.host
    return f"{host}:{candidate.port}"


class Gathering:
    """Candidate gathering of one ICE agent with a deadline, and on loopback where asked for.

    aioice waits up to five seconds for every STUN and TURN answer before it hands out the first
    candidate (engine.md section 2). Here the host candidates are gathered as stock does, the
    servers are asked beside, and after `deadline` seconds the description leaves with what is
    there; an answer that comes within ten seconds more joins the agent and goes to `on_candidate`,
    and after the last one `on_candidate` gets None (end-of-candidates). An agent that has no
    candidate at all at the deadline waits as long as stock: a description without one connects to
    nothing.
    """

    def __init__(
        self,
        connection: aioice.Connection,
        *,
        loopback: bool,
        deadline: float,
        on_candidate: Callable[[aioice.Candidate | None], None],
    ) -> None:
        self._connection = connection
        self._loopback = loopback
        self._deadline = deadline
        self._on_candidate = on_candidate
        self._stock = connection.get_component_candidates
        self._queries: set[asyncio.Task[_Query]] = set()
        self._limit: asyncio.TimerHandle | None = None
        self._aborted = False
        connection.get_component_candidates = self._gather  # type: ignore[method-assign]

    @property
    def pending(self) -> bool:
        """Whether candidates may still come."""
        return bool(self._queries)

    def abort(self) -> None:
        """Ask no server any longer; a gathering in progress returns at once."""
        self._aborted = True
        for task in self._queries:
            task.cancel()

    async def join(self) -> None:
        """Wait until no query runs; call :meth:`abort` first."""
        if self._limit is not None:
            self._limit.cancel()
        if self._queries:
            await asyncio.wait(self._queries)

    async def _gather(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - the signature is aioice's
    ) -> list[aioice.Candidate]:
        connection = self._connection
        everything = connection._transport_policy is ice.TransportPolicy.ALL
        if self._loopback and everything and "127.0.0.1" not in addresses:
            addresses = [*addresses, "127.0.0.1"]
        before = len(connection._protocols)
        stun_server, turn_server = connection.stun_server, connection.turn_server
        connection.stun_server = connection.turn_server = None
        try:
            candidates = await self._stock(
                component=component, addresses=addresses, timeout=timeout
            )
        finally:
            connection.stun_server, connection.turn_server = stun_server, turn_server
        if self._aborted:
            return candidates

        queries: list[asyncio.Task[_Query]] = [
            asyncio.create_task(ice.server_reflexive_candidate(protocol, stun_server))
            for protocol in connection._protocols[before:]
            if stun_server is not None and _can_reach(protocol.local_candidate.host, stun_server[0])
        ]
        if turn_server is not None:
            queries.append(
                asyncio.create_task(
                    ice.relayed_candidate(
                        component=component,
                        hide_related_address=not everything,
                        protocol_factory=functools.partial(ice.StunProtocol, connection),
                        turn_server=turn_server,
                        turn_username=connection.turn_username,
                        turn_password=connection.turn_password,
                        turn_ssl=connection.turn_ssl,
                        turn_transport=connection.turn_transport,
                    )
                )
            )
        if not queries:
            return candidates
        self._queries.update(queries)
        try:
            await asyncio.wait(queries, timeout=self._deadline if candidates else timeout)
        finally:
            late = [task for task in queries if not task.done()]
            for task in late:
                task.add_done_callback(self._late)
            self._queries.difference_update(task for task in queries if task.done())
        for task in queries:
            if task.done() and not task.cancelled() and task.exception() is None:
                candidate, relay = task.result()
                candidates.append(candidate)
                if relay is not None:
                    connection._protocols.append(relay)
        if late:
            self._limit = asyncio.get_running_loop().call_later(LATE_SECONDS, self._give_up)
        return candidates

    def _give_up(self) -> None:
        for task in self._queries:
            task.cancel()

    def _late(self, task: asyncio.Task[_Query]) -> None:
        self._queries.discard(task)
        if not task.cancelled() and task.exception() is None:
            candidate, relay = task.result()
            if self._aborted or self._connection._closing:
                if relay is not None:
                    relay.transport.close()
                return
            self._connection._local_candidates.append(candidate)
            if relay is not None:
                self._join(relay)
            self._on_candidate(candidate)
        if not self._queries and not self._aborted:
            self._on_candidate(None)

    def _join(self, relay: ice.StunProtocol) -> None:
        """Let a relay that came late take part in the checks, whatever state they are in."""
        connection = self._connection
        connection._protocols.append(relay)
        if connection._check_list_done:
            return
        for remote in connection._remote_candidates:
            connection._pair_remote_candidate(remote)
        connection.sort_check_list()
        if connection._early_checks_done:
            # connect() may have no further check to pace and only wait for the running ones.
            for pair in connection._check_list:
                if pair.protocol is relay:
                    connection.check_start_task(pair)


def _can_reach(local: str, server: str) -> bool:
    address = ipaddress.ip_address(local.partition("%")[0])
    if address.version != 4:
        return False
    # A socket bound to loopback reaches nothing else, and would always wait for the deadline.
    return not address.is_loopback or server.startswith("127.") or server == "localhost"


class DatagramClock:
    """When an ICE agent last received a datagram that is not STUN (RTP, RTCP or DTLS).

    aiortc reports a far end that hung up and one that has been silent for 30 s as the same state;
    a hang-up is itself such a datagram (the DTLS close_notify alert).
    """

    def __init__(self, connection: aioice.Connection, now: Callable[[], float]) -> None:
        self.last: float | None = None
        self._now = now
        self._stock = connection.data_received
        connection.data_received = self._received  # type: ignore[method-assign]

    def _received(self, data: bytes, component: int) -> None:
        self.last = self._now()
        self._stock(data, component)


# ---- descriptions


def check_description(
    peer: RTCPeerConnection, sdp: str, mids: Sequence[str], rejected: Iterable[str]
) -> None:
    """Find out what aiortc would stumble over half-way, before it changes anything.

    Raises ValueError, with the reason.
    """
    try:
        description = SessionDescription.parse(sdp)
    except (AssertionError, AttributeError, IndexError, KeyError, StopIteration, ValueError) as exc:
        raise ValueError(f"aiortc cannot parse it: {type(exc).__name__}") from exc
    for index, media in enumerate(description.media):
        known = mid_at(peer, index)
        if known is not None and known != mids[index]:
            raise ValueError(
                f"m-line {index} changed its mid from {known} to {mids[index]}; aiortc cannot "
                "recycle an m-line"
            )
        if media.kind not in CODECS or mids[index] in rejected:
            continue
        if not find_common_codecs(CODECS[media.kind], media.rtp.codecs):
            names = ", ".join(sorted({codec.name for codec in media.rtp.codecs}))
            raise ValueError(f"m-line {index} ({media.kind}) has no codec in common: {names}")


def mid_at(peer: RTCPeerConnection, index: int) -> str | None:
    """The mid of the m-line at `index`, None if there is none yet."""
    for transceiver in peer.getTransceivers():
        if transceiver._get_mline_index() == index and transceiver.mid is not None:
            return transceiver.mid
    return None


def may_send(transceiver: RTCRtpTransceiver) -> bool:
    """Whether the remote offer being answered lets us send on a transceiver."""
    return transceiver._offerDirection in ("sendonly", "sendrecv")


def prefer_codecs(transceiver: RTCRtpTransceiver, names: Sequence[str]) -> bool:
    """Restrict a transceiver to codecs, by MIME subtype in falling preference.

    On a transceiver of a remote offer the codecs in common are put in that order at once. Returns
    False, having changed nothing, if none of `names` is left.
    """
    capabilities = get_capabilities(transceiver.kind).codecs
    wanted = [
        capability
        for name in names
        for capability in capabilities
        if capability.name.lower() == name.lower() and name.lower() != "rtx"
    ]
    wanted += [capability for capability in capabilities if capability.name.lower() == "rtx"]
    if all(capability.name.lower() == "rtx" for capability in wanted):
        return False
    if transceiver._codecs:
        kept = filter_preferred_codecs(transceiver._codecs, wanted)
        if not kept:
            return False
        transceiver._codecs = kept
    transceiver.setCodecPreferences(wanted)
    return True


class OfferDraft:
    """What making an offer changes in a peer connection, so that it can be taken back.

    createOffer() sets nothing, and yet the m-lines it names must exist as transceivers with their
    wanted directions first, and it overwrites their codecs. An offer that is discarded (glare, no
    answer) must leave none of it: a left-over transceiver would claim an m-line of the far end.
    """

    def __init__(self, peer: RTCPeerConnection) -> None:
        self._peer = peer
        self._before = [
            (
                transceiver,
                transceiver.direction,
                transceiver._codecs,
                transceiver._headerExtensions,
                transceiver._preferred_codecs,
            )
            for transceiver in peer.getTransceivers()
        ]
        self.raw_sdp = ""
        """The offer as aiortc made it."""
        self.sdp = ""
        """The offer as it was handed out."""
        self.media: tuple[MediaLine, ...] = ()
        """What it offers."""

    def take_back(self) -> None:
        """Make the peer connection what it was before the offer was made."""
        for transceiver, direction, codecs, extensions, preferred in self._before:
            transceiver.direction = direction
            transceiver._codecs = codecs
            transceiver._headerExtensions = extensions
            transceiver._preferred_codecs = preferred
        if not works("transceivers"):
            return
        kept = {id(transceiver) for transceiver, *_ in self._before}
        peer: Any = self._peer
        listed: list[RTCRtpTransceiver] = peer._RTCPeerConnection__transceivers
        # The first transceiver owns the transport that all others share; it stays, unnegotiated.
        listed[:] = [
            transceiver
            for position, transceiver in enumerate(listed)
            if id(transceiver) in kept or position == 0
        ]


# ---- tracks


class SentTrack(MediaStreamTrack):
    """A track of the application, lent to one peer connection.

    A closing peer connection stops the tracks it sends; what it stops is this, so that the next
    peer connection of the engine (ResetPeer) can send the same source.
    """

    def __init__(self, source: MediaStreamTrack) -> None:
        super().__init__()
        self.kind: str = source.kind
        self._id = source.id
        self._source = source

    async def recv(self) -> Any:
        """The source's next frame or encoded packet; raises MediaStreamError after stop()."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._source.recv()


class _DecoderGate:
    """Stands where a receiver's decoder queue stood: sees every encoded frame, lets through to the
    decoder thread what somebody wants decoded, and never holds more than a second."""

    def __init__(self, kind: MediaKind, deliver: Callable[[Any, Any], bool]) -> None:
        self._kind = kind
        self._deliver = deliver
        self._queue: queue.Queue[Any] = queue.Queue()
        self._synced = kind is MediaKind.AUDIO
        self._cache: deque[Any] = deque()
        self._cached_bytes = 0
        self.wanted: Callable[[], bool] = lambda: False
        self.on_drop: Callable[[], None] = lambda: None
        self.need_keyframe: Callable[[], None] = lambda: None

    def get(self) -> Any:
        """Called by aiortc's decoder thread."""
        return self._queue.get()

    def put(self, item: Any) -> None:
        """Called by the receiver on the loop with (codec, frame), and with None at the end."""
        if item is None:
            self.discard()
            self._queue.put(None)
            return
        keyframe = self._deliver(*item)
        if not self.wanted():
            self._synced = self._kind is MediaKind.AUDIO
            self._remember(item, keyframe)
        elif self._kind is MediaKind.AUDIO:
            if self._queue.qsize() >= DECODER_BACKLOG[self._kind]:
                self._drop_oldest()
            self._queue.put(item)
        else:
            self._decode_video(item, keyframe)

    def discard(self) -> None:
        """Forget what the decoder has not taken, so that joining its thread takes one frame."""
        self._cache.clear()
        self._cached_bytes = 0
        while not self._queue.empty():
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return  # the decoder thread was quicker
        self.on_drop()

    def _decode_video(self, item: Any, keyframe: bool) -> None:
        if self._queue.qsize() >= DECODER_BACKLOG[self._kind]:
            # The decoder is too slow. What follows refers to what is dropped here.
            self._synced = False
            self.on_drop()
            self.need_keyframe()
        elif self._synced or keyframe:
            self._synced = True
            self._queue.put(item)
        elif self._cache:
            for earlier in self._cache:
                self._queue.put(earlier)
            self._queue.put(item)
            self._synced = True
        else:
            self.on_drop()
            self.need_keyframe()
        self._cache.clear()
        self._cached_bytes = 0

    def _remember(self, item: Any, keyframe: bool) -> None:
        if self._kind is MediaKind.AUDIO:
            return
        size = len(item[1].data)
        if keyframe:
            self._cache.clear()
            self._cached_bytes = 0
        elif not self._cache:
            return
        self._cache.append(item)
        self._cached_bytes += size
        if len(self._cache) > KEYFRAME_CACHE_FRAMES or self._cached_bytes > KEYFRAME_CACHE_BYTES:
            self._cache.clear()
            self._cached_bytes = 0


class ReceiverTap:
    """One receiver's packets and encoded frames, seen without a thread hop and without decoding.

    To be made before the receiver starts, that is in the ``track`` event. `on_packet` gets the
    payload size of every RTP packet, `on_frame` every complete encoded frame; neither may raise.
    `wanted` says whether frames shall be decoded.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        kind: MediaKind,
        track_id: str,
        now: Callable[[], float],
        on_packet: Callable[[int], None],
        on_frame: Callable[[EncodedFrame], None],
        on_drop: Callable[[], None],
        wanted: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._receiver = cast("Any", receiver)
        self._kind = kind
        self._track_id = track_id
        self._now = now
        self._on_packet = on_packet
        self._on_frame = on_frame
        self._spawn = spawn
        self._ssrc: int | None = None
        self._keyframe_asked = float("-inf")
        self._arrivals: dict[int, float] = {}
        self._stock = receiver._handle_rtp_packet
        self._gate = _DecoderGate(kind, self._deliver)
        self._gate.wanted = wanted
        self._gate.on_drop = on_drop
        self._gate.need_keyframe = self._ask_again
        receiver._handle_rtp_packet = self._handle  # type: ignore[method-assign]
        self._receiver._RTCRtpReceiver__decoder_queue = self._gate

    def request_keyframe(self) -> bool:
        """Send a PLI; False before the first packet, and for audio."""
        if self._kind is not MediaKind.VIDEO or self._ssrc is None:
            return False
        self._keyframe_asked = self._now()
        self._spawn(self._receiver._send_rtcp_pli(self._ssrc))
        return True

    def _ask_again(self) -> None:
        if self._now() - self._keyframe_asked >= KEYFRAME_INTERVAL:
            self.request_keyframe()

    async def _handle(self, packet: Any, arrival_time_ms: int) -> None:
        codec = self._receiver._RTCRtpReceiver__codecs.get(packet.payload_type)
        if codec is not None and codec.name.lower() != "rtx":
            self._ssrc = packet.ssrc
            if packet.timestamp not in self._arrivals:
                if len(self._arrivals) >= ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
                self._arrivals[packet.timestamp] = self._now()
        self._on_packet(len(packet.payload))
        await self._stock(packet, arrival_time_ms=arrival_time_ms)

    def _deliver(self, codec: Any, frame: Any) -> bool:
        origin = self._receiver._RTCRtpReceiver__timestamp_mapper._origin or 0
        raw = (frame.timestamp + origin) & 0xFFFFFFFF
        keyframe = _is_keyframe(codec.name, frame.data)
        self._on_frame(
            EncodedFrame(
                kind=self._kind,
                track_id=self._track_id,
                codec=codec.name,
                data=frame.data,
                timestamp=frame.timestamp,
                clock_rate=codec.clockRate,
                keyframe=keyframe,
                arrival=self._arrivals.pop(raw, self._now()),
            )
        )
        return keyframe


def discard_queued_frames(peer: RTCPeerConnection) -> None:
    """Empty the decoder queues: closing joins the decoder threads on the loop."""
    if not works("receiving"):
        return
    for transceiver in peer.getTransceivers():
        receiver: Any = transceiver.receiver
        gate: object = receiver._RTCRtpReceiver__decoder_queue
        if isinstance(gate, _DecoderGate):
            gate.discard()


def _is_keyframe(codec: str, data: bytes) -> bool:
    if codec == "VP8":
        # The P bit of the frame tag (RFC 6386 section 9.1).
        return bool(data) and not data[0] & 1
    if codec == "H264":
        # An IDR slice (ITU-T H.264 section 7.4.1.2.4).
        start = data.find(b"\x00\x00\x01")
        while start != -1 and start + 3 < len(data):
            if data[start + 3] & 0x1F == 5:
                return True
            start = data.find(b"\x00\x00\x01", start + 3)
        return False
    return True


# ---- the end


class AbandonedTasks:
    """The tasks that aiortc starts for a peer connection and keeps no reference to.

    Each set description starts one that connects, and a closed DTLS transport leaves its reader to
    end by itself.
    """

    def __init__(self, peer: RTCPeerConnection) -> None:
        self._peer = peer
        self._seen = _abandoned_tasks(peer)

    async def stop_connecting(self) -> None:
        """End the tasks that connect, before close().

        One whose DTLS handshake completes while close() is at work starts senders, receivers and
        decoder threads that nothing stops any more; one that comes later raises.
        """
        while tasks := {task for task in _abandoned_tasks(self._peer) if _connects(task)}:
            for task in tasks:
                task.cancel()
            # Before Python 3.12 wait_for() may swallow a cancellation: ask again.
            await asyncio.wait(tasks, timeout=0.05)

    async def end(self) -> None:
        """Wait for them, after close(); those still there after :data:`ABANDONED_SECONDS` are
        cancelled. What they raise concerns a connection that is gone; it is logged at DEBUG."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ABANDONED_SECONDS
        while tasks := _abandoned_tasks(self._peer):
            self._seen |= tasks
            if loop.time() >= deadline:
                for task in tasks:
                    task.cancel()
            await asyncio.wait(tasks, timeout=max(0.01, deadline - loop.time()))
        for task in self._seen:
            if task.done() and not task.cancelled() and (exc := task.exception()) is not None:
                logger.debug("x %s ended with %r", task.get_coro(), exc)


def _connects(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_name == "__connect"


def _abandoned_tasks(peer: RTCPeerConnection) -> set[asyncio.Task[Any]]:
    # They are found by the object that they run a method of.
    owners: set[int] = {id(peer)}
    for transceiver in peer.getTransceivers():
        transport = transceiver.receiver.transport
        owners |= {id(transceiver.receiver), id(transceiver.sender), id(transport)}
        owners |= {id(transport.transport), id(transport.transport.iceGatherer._connection)}
    found = set()
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and id(frame.f_locals.get("self")) in owners:
            found.add(task)
    return found - {asyncio.current_task()}
