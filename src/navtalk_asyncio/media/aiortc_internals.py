"""What is asked of aiortc's peer connections, ICE agents and senders by private names.

:mod:`navtalk_asyncio.media.private_names` lists and tests those names.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import aioice
from aiortc import (
    MediaStreamTrack,
    RTCPeerConnection,
    RTCRtpTransceiver,
)
from aiortc.codecs import CODECS, get_capabilities, is_rtx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcpeerconnection import filter_preferred_codecs, is_codec_compatible
from aiortc.sdp import SessionDescription
from cryptography.hazmat.primitives.hashes import SHA256

from navtalk_asyncio.media.private_names import works
from navtalk_proto.media import CandidatePair, MediaLine
from navtalk_proto.stats import IcePairStats

__all__ = [
    "AbandonedTasks",
    "ConsentWatch",
    "DatagramClock",
    "OfferDraft",
    "SentTrack",
    "candidate_pairs",
    "check_description",
    "has_foreign_certificate",
    "ice_connections",
    "may_send",
    "mid_at",
    "pair_in_use",
    "prefer_codecs",
]

logger: Final = logging.getLogger("navtalk.media")

ABANDONED_SECONDS: Final = 5.0
"""How long closing waits for aiortc's own tasks; they end within milliseconds."""

PAIRS: Final = 64
"""Candidate pairs shown in a failure."""

_FINGERPRINT: Final = re.compile(r"^a=fingerprint:(\S+) ([0-9A-Fa-f:]+)", re.MULTILINE)


# ---- ICE


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


def has_foreign_certificate(peer: RTCPeerConnection) -> bool:
    """Whether DTLS failed because the far end's certificate is none that its description names.

    RFC 8827 section 6.5: who relays the packets then has read along. False where that is not known.
    """
    if not works("datagrams") or peer.remoteDescription is None:
        return False
    named = {
        value.upper()
        for algorithm, value in _FINGERPRINT.findall(peer.remoteDescription.sdp)
        if algorithm.lower() == "sha-256"
    }
    for transceiver in peer.getTransceivers():
        connection = transceiver.receiver.transport._ssl
        shown = connection and connection.get_peer_certificate(as_cryptography=True)
        if shown is not None and named:
            return shown.fingerprint(SHA256()).hex(":").upper() not in named
    return False


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


def pair_in_use(peer: RTCPeerConnection) -> IcePairStats | None:
    """The candidate pair that media takes; None before ICE has one."""
    if not works("consent"):
        return None
    for connection in ice_connections(peer):
        for pair in connection._nominated.values():
            return IcePairStats(
                local=_address(pair.local_candidate),
                remote=_address(pair.remote_candidate),
                local_type=pair.local_candidate.type,
                remote_type=pair.remote_candidate.type,
                protocol=pair.local_candidate.transport.lower(),
            )
    return None


def _address(candidate: aioice.Candidate) -> str:
    host = f"[{candidate.host}]" if ":" in candidate.host else candidate.host
    return f"{host}:{candidate.port}"


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


class ConsentWatch:
    """Tells when the far end answers an ICE check on the pair in use (RFC 7675).

    Made when ICE has completed, which is the first time. aioice checks every 4 to 6 s, and closes
    the connection after the sixth check in a row without an answer.
    """

    def __init__(self, connection: aioice.Connection, on_refresh: Callable[[], None]) -> None:
        self._connection = connection
        self._on_refresh = on_refresh
        self.checks: int = 0
        """Checks that were answered."""
        self.round_trip_time: float | None = None
        """Seconds that the newest of them took."""
        for protocol in connection._protocols:
            protocol.request = functools.partial(self._request, protocol.request)  # type: ignore[method-assign]
        on_refresh()

    async def _request(
        self, stock: Callable[..., Awaitable[Any]], request: Any, addr: Any, **options: Any
    ) -> Any:
        asked = time.monotonic()
        answer = await stock(request, addr, **options)
        # The same sockets also ask STUN servers.
        if any(pair.remote_addr == addr for pair in self._connection._nominated.values()):
            self.checks += 1
            self.round_trip_time = time.monotonic() - asked
            self._on_refresh()
        return answer


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
        ours = CODECS[media.kind]
        theirs = [codec for codec in media.rtp.codecs if not is_rtx(codec)]
        if not any(is_codec_compatible(one, other) for one in ours for other in theirs):
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
        self.source = source
        """The application's track."""
        self.handed_over: float | None = None
        """When the source gave its newest frame, in monotonic seconds."""

    async def recv(self) -> Any:
        """The source's next frame or encoded packet; raises MediaStreamError after stop()."""
        if self.readyState != "live":
            raise MediaStreamError
        frame = await self.source.recv()
        self.handed_over = time.monotonic()
        return frame


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
