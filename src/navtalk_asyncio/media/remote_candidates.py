"""The far end's candidates on their way into aiortc, which breaks on some and waits for others.

TCP candidates, those of another component and those of an m-line without a transport of its own
are ignored and counted. A ``.local`` name is resolved beside (aioice takes 1.0 s, and was seen to
take 5.2), so that it delays neither a description nor the candidates after it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.sdp import candidate_from_sdp

from navtalk_asyncio.media import aiortc_internals as internals
from navtalk_asyncio.media.command_error import CommandError
from navtalk_asyncio.media.private_names import works
from navtalk_asyncio.media.sdp_rewrite import DeferredCandidate, RemoteSdp
from navtalk_proto.wire.messages import IceCandidate

if TYPE_CHECKING:
    import aioice

__all__ = ["RemoteCandidates"]

MDNS_TIMEOUT: Final = 2.5
"""Seconds a .local name may take; aioice gives up after 1.0, and was seen to take 5.2."""

MDNS_PENDING: Final = 8
""".local names resolved at the same time. A browser without permissions sends one per interface."""

CANDIDATES_PER_PEER: Final = 256
"""Remote candidates taken over a peer connection's life. iOS and Android gather continually; each
candidate makes a pair with every local one."""


class RemoteCandidates:
    """What one peer connection does with remote candidates.

    `ignore` counts what is not used, by reason. `own` starts a task that the engine waits for at
    its end.
    """

    def __init__(
        self,
        peer: RTCPeerConnection,
        *,
        ignore: Callable[[str, int], None],
        own: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._peer = peer
        self._ignore = ignore
        self._own = own
        self._taken = 0
        self._ended = False
        self.resolving: set[asyncio.Task[None]] = set()
        """One task per .local name that is being looked up."""

    def described(self, remote: RemoteSdp) -> None:
        """A remote description was applied: count what it lost, and resolve what it must not wait
        for."""
        for reason, count in remote.ignored_candidates.items():
            self._ignore(reason, count)
        if remote.deferred_end or "\r\na=end-of-candidates\r\n" in remote.sdp:
            self._ended = True
        if remote.deferred:
            self._resolve_deferred(remote, remote.deferred)

    async def add(self, candidate: IceCandidate, remote: RemoteSdp) -> None:
        """Add one candidate, or the end mark (an empty text); raises CommandError."""
        text = candidate.candidate.strip().removeprefix("a=").removeprefix("candidate:").strip()
        if not text:
            await self._end(candidate, remote)
            return
        parsed = _parse(text)
        if parsed.protocol.lower() != "udp":
            self._ignore("tcp", 1)
        elif parsed.component != 1:
            self._ignore("component", 1)
        elif _mid_of(candidate, remote) != remote.tagged_mid:
            self._ignore("bundled", 1)
        elif self._ended:
            # aiortc would drop it without a word (RFC 8838 section 14 lets it).
            self._ignore("after-end", 1)
        else:
            self._taken += 1
            if self._taken > CANDIDATES_PER_PEER:
                self._ignore("surplus", 1)
                return
            parsed.sdpMid = internals.mid_at(self._peer, 0)
            if parsed.ip.lower().endswith(".local"):
                self._resolve(parsed)
            else:
                await self._peer.addIceCandidate(parsed)

    def known(self) -> list[aioice.Candidate]:
        """The candidates that the ICE agent has."""
        agents = internals.ice_connections(self._peer) if works("gathering") else []
        return [candidate for agent in agents for candidate in agent.remote_candidates]

    def abort(self) -> None:
        """Look no name up any longer."""
        for task in self.resolving:
            task.cancel()

    async def _end(self, candidate: IceCandidate, remote: RemoteSdp) -> None:
        # Firefox marks the end of each m-line. What is bundled says nothing of the one transport.
        if self._ended or _mid_of(candidate, remote) != remote.tagged_mid:
            self._ignore("empty", 1)
            return
        self._ended = True
        await self._peer.addIceCandidate(None)

    # ---- names

    def _resolve(self, candidate: RTCIceCandidate) -> None:
        if len(self.resolving) >= MDNS_PENDING:
            self._ignore("unresolved", 1)
            return
        task = self._own(self._add_resolved(candidate))
        self.resolving.add(task)
        task.add_done_callback(self.resolving.discard)

    async def _add_resolved(self, candidate: RTCIceCandidate) -> None:
        known = len(self.known())
        try:
            async with asyncio.timeout(MDNS_TIMEOUT):
                await self._peer.addIceCandidate(candidate)
        except (OSError, TimeoutError):
            # No multicast here, or port 5353 is taken: the name stays unknown.
            pass
        if len(self.known()) == known:
            self._ignore("unresolved", 1)

    def _resolve_deferred(self, remote: RemoteSdp, deferred: Sequence[DeferredCandidate]) -> None:
        for item in deferred:
            if item.mid != remote.tagged_mid:
                self._ignore("bundled", 1)
                continue
            try:
                parsed = _parse(item.candidate)
            except CommandError:
                self._ignore("unreadable", 1)
                continue
            parsed.sdpMid = internals.mid_at(self._peer, 0)
            self._resolve(parsed)
        if remote.deferred_end:
            # aioice keeps names that are being resolved when the mark comes; the tasks above
            # have been started before this one.
            self._own(self._peer.addIceCandidate(None))


def _parse(text: str) -> RTCIceCandidate:
    try:
        parsed = candidate_from_sdp(text)
    except (AssertionError, IndexError, ValueError) as exc:
        raise CommandError("this is not a candidate line (RFC 8839 section 5.1)") from exc
    if not 0 < parsed.port < 65536:
        raise CommandError(f"a candidate cannot have port {parsed.port}")
    if not parsed.ip.lower().endswith(".local"):
        try:
            ipaddress.ip_address(parsed.ip)
        except ValueError as exc:
            raise CommandError(
                "a candidate's address is neither an IP address nor a .local name"
            ) from exc
    return parsed


def _mid_of(candidate: IceCandidate, remote: RemoteSdp) -> str:
    """The mid a candidate belongs to; clients send "" for one that they do not know."""
    mids = remote.mids
    if candidate.sdp_mid:
        if candidate.sdp_mid in mids:
            return candidate.sdp_mid
        raise CommandError("a candidate's sdpMid is not in the remote description")
    index = candidate.sdp_m_line_index
    if index is None:
        # All m-lines share one transport (max-bundle).
        return remote.tagged_mid
    if not 0 <= index < len(mids):
        raise CommandError("a candidate's sdpMLineIndex is not in the remote description")
    return mids[index]
