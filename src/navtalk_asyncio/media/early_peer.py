"""A peer connection that is made, and gathers, before anybody asks for one.

aiortc makes a certificate with the peer connection, transceivers and the ICE agent with m-lines,
binds sockets when a local description is set, and makes what DTLS needs after ICE: most of what
stands between an offer and the first packet. What is made here has all of that, and waits.

Uses private names of aiortc: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import aioice
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpTransceiver,
)
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from navtalk_asyncio.media.early_thread import EarlyThread
from navtalk_asyncio.media.gathering import Gathering
from navtalk_asyncio.media.ice_checks import PromptChecks
from navtalk_asyncio.media.private_names import works
from navtalk_proto.media import IcePolicy, MediaKind

__all__ = ["EarlyPeer"]

_RECEIVES: Final = frozenset({"recvonly", "sendrecv"})


class EarlyPeer:
    """A peer connection with one transport, whose sockets are being bound.

    `own` starts a task that somebody waits for. Whoever takes `pc` closes it, and this after it.
    """

    def __init__(
        self,
        policy: IcePolicy,
        *,
        loopback: bool,
        head_start: float,
        own: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.policy: IcePolicy = policy
        # None would be a public server that nobody configured; ours are asked by the gathering.
        self.pc: RTCPeerConnection = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[],
                iceTransportPolicy=RTCIceTransportPolicy(policy.value),
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        self._private = cast("Any", self.pc)
        self._stock_transport = self._private._RTCPeerConnection__createDtlsTransport
        self._stock_transceiver = self._private._RTCPeerConnection__createTransceiver
        self._transport: RTCDtlsTransport = self._stock_transport()
        self._private._RTCPeerConnection__createDtlsTransport = self._give_transport
        private: Any = self._transport
        # A third of a millisecond between ICE and DTLS, and ten the first time in a process.
        certificate = private._RTCDtlsTransport__local_certificate
        context = certificate._create_ssl_context(srtp_profiles=private._srtp_profiles)
        certificate._create_ssl_context = lambda *, srtp_profiles: context
        self._threads = {kind.value: EarlyThread(f"{kind.value}-decoder") for kind in MediaKind}
        self._transceivers = {kind.value: self._make_transceiver(kind) for kind in MediaKind}
        self._private._RTCPeerConnection__createTransceiver = self._give_transceiver
        gatherer = self._transport.transport.iceGatherer
        self.agent: aioice.Connection = gatherer._connection
        self.gathering: Gathering = Gathering(self.agent, loopback=loopback)
        self.checks: PromptChecks = PromptChecks(self.agent, head_start=head_start)
        self.gathered: asyncio.Task[None] = own(gatherer.gather())
        """Done when the description may be made. aiortc takes a gathering that has begun for one
        that is over: a local description must wait for this."""

    @staticmethod
    def possible() -> bool:
        """Whether the private names are there that it takes."""
        return works("gathering") and works("checks") and works("opening")

    async def begin_receiving(self) -> None:
        """Start the receivers of a description that is complete, while ICE and DTLS are at work.

        aiortc starts them when DTLS is done, and waits for their threads, while the first packets
        are there; started receivers it leaves alone.
        """
        for transceiver in self.pc.getTransceivers():
            if transceiver.currentDirection in _RECEIVES:
                await transceiver.receiver.receive(
                    self._private._RTCPeerConnection__remoteRtp(transceiver)
                )

    def dismiss_threads(self) -> None:
        """End the threads of kinds that are not received, once m-lines have their directions."""
        received = {
            transceiver.kind
            for transceiver in self.pc.getTransceivers()
            if transceiver.direction in _RECEIVES
        }
        for kind, thread in self._threads.items():
            if kind not in received:
                thread.dismiss()

    async def release(self) -> None:
        """Before `pc` is closed: aiortc closes no socket that is bound after its end."""
        self.gathering.abort()
        await asyncio.wait([self.gathered])

    async def aclose(self) -> None:
        """Close `pc` and what it does not know, having no m-line. Idempotent."""
        await self.release()
        await self.pc.close()
        await self._transport.stop()
        await self._transport.transport.stop()
        await self.gathering.join()
        for thread in self._threads.values():
            thread.dismiss()
            if thread.dismissed and thread.is_alive():
                await asyncio.to_thread(thread.join)

    def _give_transport(self) -> RTCDtlsTransport:
        """With max-bundle the first m-line is the only one that asks."""
        return self._transport

    def _make_transceiver(self, kind: MediaKind) -> RTCRtpTransceiver:
        """A transceiver that is not an m-line's yet: a video receiver takes half a millisecond."""
        made: RTCRtpTransceiver = self._stock_transceiver(direction="recvonly", kind=kind.value)
        self._private._RTCPeerConnection__transceivers.remove(made)
        self._threads[kind.value].serve(made.receiver)
        return made

    def _give_transceiver(
        self, direction: str, kind: str, sender_track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        transceiver = self._transceivers.pop(kind, None) if sender_track is None else None
        if transceiver is None:
            return cast(
                "RTCRtpTransceiver",
                self._stock_transceiver(direction=direction, kind=kind, sender_track=sender_track),
            )
        transceivers: list[RTCRtpTransceiver] = self._private._RTCPeerConnection__transceivers
        transceiver.direction = direction
        transceiver._bundled = bool(transceivers)
        transceivers.append(transceiver)
        return transceiver
