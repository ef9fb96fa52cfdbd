"""The core's media commands, carried out by aiortc.

How a command runs: :meth:`AiortcEngine.execute` binds it to the peer connection that is current at
that moment and starts one task; the tasks of one peer connection run one after the other in the
order of the commands. ClosePeer and ResetPeer take the peer connection away at once: what still
waits for it fails, the one operation inside aiortc is let finish (a cancelled setLocalDescription
leaves a connection that never starts, engine.md section 7) and then the connection is closed.

What aiortc cannot do is dealt with here and nowhere in the core: candidates before the remote
description, ``candidate:`` prefixes, empty candidates, ``.local`` names, descriptions it breaks on
(:mod:`navtalk_asyncio.media.sdp_rewrite`, :mod:`~navtalk_asyncio.media.remote_candidates`),
gathering that blocks the answer and asks one server of a kind
(:mod:`~navtalk_asyncio.media.gathering`), unbounded decoder and frame queues
(:mod:`~navtalk_asyncio.media.receiver_tap`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from attrs import evolve

try:
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
    from aiortc.mediastreams import MediaStreamError
    from aiortc.rtcconfiguration import RTCIceTransportPolicy
except ModuleNotFoundError as _missing:
    if _missing.name not in ("aiortc", "aioice", "av"):
        raise
    raise ImportError(
        "the aiortc media engine is not installed: pip install 'navtalk[asyncio]'",
        name=_missing.name,
    ) from _missing

from navtalk_asyncio.media import aiortc_internals as internals
from navtalk_asyncio.media.answer_watch import AnswerTold, AnswerWatch
from navtalk_asyncio.media.command_error import CommandError
from navtalk_asyncio.media.datagram_path import DatagramPath
from navtalk_asyncio.media.early_peer import EarlyPeer
from navtalk_asyncio.media.frame_buffer import AUDIO_MICROSECONDS, VIDEO_FRAMES, FrameBuffer
from navtalk_asyncio.media.frame_readers import FrameReaders
from navtalk_asyncio.media.gathering import Gathering
from navtalk_asyncio.media.ice_checks import PromptChecks
from navtalk_asyncio.media.ice_servers import IceServers
from navtalk_asyncio.media.interface import EncodedFrame, EngineCallbacks, TrackCounters
from navtalk_asyncio.media.parameter_sets import described_parameter_sets
from navtalk_asyncio.media.payload_types import PayloadTypes
from navtalk_asyncio.media.picture_clock import LOOK_SECONDS, PictureClock
from navtalk_asyncio.media.private_names import test_all, works
from navtalk_asyncio.media.receive_path import BLACKOUT_SECONDS
from navtalk_asyncio.media.receiver_meter import ReceiverMeter, sent_stats
from navtalk_asyncio.media.receiver_tap import ReceiverTap, discard_queued_frames, join_decoders
from navtalk_asyncio.media.remote_candidates import RemoteCandidates
from navtalk_asyncio.media.rtcp_reports import read_reports, send_right_reports
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
from navtalk_asyncio.media.sender_reports import SenderReports, TrackTiming, av_sync
from navtalk_asyncio.media.sinks import DecodedSink, EncodedSinks
from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    MediaCommand,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.ice import IceServerRule, default_ice_rule
from navtalk_proto.media import (
    PROGRESS_SECONDS,
    CandidatePair,
    Capabilities,
    ConsentRefreshed,
    Direction,
    IcePolicy,
    IceServerFailed,
    LocalCandidate,
    MediaEvent,
    MediaKind,
    MediaLine,
    MediaProgress,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    OpId,
    TrackAdded,
)
from navtalk_proto.stats import MediaStats
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, Offer

if TYPE_CHECKING:
    import aioice

__all__ = ["AiortcEngine"]

logger: Final = logging.getLogger("navtalk.media")

GATHER_TIMEOUT: Final = 0.25
"""Seconds an offer waits for STUN and TURN answers; the slowest healthy server seen needs 0.1. An
answer leaves with its host candidates. What comes after either is trickled."""

STILL_CHECKING: Final = 2.0
"""Seconds of ICE checks until the pairs are told that nobody has answered on: a pair that works is
found within a few round trips."""

SILENCE: Final = 5.0
"""A connection that closes by itself this long after its last datagram is dead, not hung up: a
hang-up is a datagram, and aiortc takes 30 s to give up on silence."""

FLOWING_SECONDS: Final = min(BLACKOUT_SECONDS, PROGRESS_SECONDS) / 2
"""A packet this soon after another of its track begins nothing, ends no blackout, and is in a
report that is on its way."""

REASON_LENGTH: Final = 200
"""Characters of a failure's reason."""

_T = TypeVar("_T")


class AiortcEngine:
    """A media engine on aiortc, for one connection and one event loop; see the Engine protocol.

    `tracks` are what is sent, lent to every peer connection of this engine and stopped by
    :meth:`aclose`. `loopback` adds host candidates on 127.0.0.1, which aioice leaves out.
    `gather_timeout` bounds, in seconds, how long an offer waits for STUN and TURN servers.

    Frames are decoded only while somebody reads them. Several readers of a kind share one decoder;
    each has its own buffer. If the private parts of aiortc that this needs have changed, everything
    is decoded, packets are not counted and MediaStarted is told at the first frame instead.
    """

    def __init__(
        self,
        callbacks: EngineCallbacks,
        *,
        tracks: Sequence[MediaStreamTrack] = (),
        loopback: bool = False,
        gather_timeout: float = GATHER_TIMEOUT,
    ) -> None:
        if not gather_timeout > 0:
            raise ValueError("gather_timeout must be positive")
        self._callbacks = callbacks
        self._tracks = tuple(tracks)
        self._loopback = loopback
        self._gather_timeout = gather_timeout
        self._loop = asyncio.get_running_loop()
        self._peer: _Peer | None = None
        self._peers = 0
        self._received: list[_Received] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._ignored: Counter[str] = Counter()
        self._answer_watch = AnswerWatch()
        self._last_stats = MediaStats()
        self._readers = {kind: FrameReaders(self._loop) for kind in MediaKind}
        self._sinks = {kind: EncodedSinks(self._loop) for kind in MediaKind}
        test_all()
        self._early = self._make_early(IcePolicy.ALL)

    @property
    def capabilities(self) -> Capabilities:
        """aiortc accepts a rollback without an error and corrupts its state by it."""
        return Capabilities(rollback=False)

    @property
    def ignored_candidates(self) -> Mapping[str, int]:
        """Remote candidates that could not be used, by reason.

        ``tcp``, ``component``, ``unreadable`` (only inside descriptions; a lone one fails),
        ``surplus``, ``bundled`` (of an m-line without a transport of its own), ``unresolved``,
        ``empty`` (an end mark that is repeated, or of a bundled m-line), ``after-end``.
        """
        return dict(self._ignored)

    def add_tracks(self, *tracks: MediaStreamTrack) -> None:
        """Send these tracks too, from the next description on. They are lent as `tracks` are."""
        self._tracks = (*self._tracks, *tracks)

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once, never raises. Ends in one call of done or failed."""
        if self._closing is not None:
            self._loop.call_soon(self._callbacks.failed, command.op, "the engine is closed")
            return
        peer = self._peer
        match command:
            case OpenPeer():
                if peer is not None:
                    self._start(command.op, _refuse("a peer connection is already open"))
                else:
                    self._start(command.op, self._open(command, old=None))
            case ResetPeer():
                self._start(command.op, self._open(command, old=peer))
            case ClosePeer():
                self._peer = None
                self._start(command.op, self._close(peer))
            case SetLocal():
                self._start(command.op, self._set_local(peer, command), peer)
            case CreateOffer():
                self._start(command.op, self._in_order(peer, lambda p: p.offer(command.media)))
            case SetRemote():
                self._start(
                    command.op, self._in_order(peer, lambda p: p.set_remote(command.description))
                )
            case AddCandidate():
                self._start(
                    command.op, self._in_order(peer, lambda p: p.add_candidate(command.candidate))
                )

    def frames(self, kind: MediaKind) -> FrameBuffer[Any]:
        """Decoded PyAV frames of the first remote track of a kind, read from now on.

        Video keeps the newest two frames, audio the newest 0.4 s; older ones are dropped and
        counted. The iteration survives ResetPeer and ends when the peer connection or the track
        ends. Each call makes an independent reader that gets every frame; decoding stops when the
        last reader is dropped. Before a peer connection is open, reading waits for one.
        """
        if kind is MediaKind.VIDEO:
            reader: FrameBuffer[Any] = FrameBuffer(
                limit=VIDEO_FRAMES, on_drop=lambda: self._count_drop(kind)
            )
        else:
            reader = FrameBuffer(
                limit=AUDIO_MICROSECONDS,
                cost=lambda frame: frame.samples * 1_000_000 // frame.sample_rate,
                on_drop=lambda: self._count_drop(kind),
            )
        if self._closing is not None:
            reader.close()
        self._readers[kind].add(reader)
        self._begin_decoding(kind)
        return reader

    def add_encoded_sink(
        self,
        kind: MediaKind,
        sink: Callable[[EncodedFrame], None],
        on_end: Callable[[], None] | None = None,
    ) -> Callable[[], None]:
        """Call `sink` on the loop with every encoded frame of the first remote track of a kind.

        Returns what removes it. A sink must be quick and must not raise: one that raises is removed
        and reported to the loop's exception handler. `on_end` is called when the media of this kind
        end; at once where this engine is closed. Raises RuntimeError when aiortc's private parts
        have changed so that encoded frames cannot be had.
        """
        if not works("receiving"):
            raise RuntimeError("this version of aiortc does not let encoded frames be seen")
        remove = self._sinks[kind].add(sink, on_end)
        if self._closing is not None and on_end is not None:
            on_end()
        return remove

    def add_decoded_sink(
        self, kind: MediaKind, sink: Callable[[Any], None], on_end: Callable[[], None]
    ) -> Callable[[], None]:
        """Decode, and call `sink` on the loop with every PyAV frame of the first track of a kind.

        Returns what removes it; decoding stops with the last reader or sink. `on_end` is called
        once, when the media of this kind end, unless the sink was removed before.
        """
        return self._add_reader(kind, DecodedSink(sink, on_end, self._loop))

    def add_direct_sink(
        self, kind: MediaKind, sink: Callable[[Any], None], on_end: Callable[[], None]
    ) -> Callable[[], None]:
        """As :meth:`add_decoded_sink`, but `sink` is called on the thread that decodes: a picture
        does not wake the loop."""
        return self._add_reader(kind, DecodedSink(sink, on_end, self._loop, any_thread=True))

    def _add_reader(self, kind: MediaKind, reader: DecodedSink) -> Callable[[], None]:
        if self._closing is not None:
            reader.close()
        else:
            self._readers[kind].add(reader)
            self._begin_decoding(kind)
        # What it returns is what keeps the reader.
        return reader.remove

    def codec(self, kind: MediaKind) -> str | None:
        """The codec of the newest encoded frame of a kind; None before the first."""
        return self._sinks[kind].codec

    def timing(self, kind: MediaKind) -> TrackTiming | None:
        """What is known of the time of the first track of a kind; None without one."""
        received = self._first(kind)
        return None if received is None else received.reports.timing

    def request_keyframe(self) -> bool:
        """Send a PLI (RFC 4585 section 6.3.1) for the first video track; False before its first
        packet. Senders of prepared clips ignore it."""
        received = self._first(MediaKind.VIDEO)
        return received is not None and received.request_keyframe()

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id, of the current peer connection or else of the last one."""
        return {received.track_id: received.counters for received in self._received}

    def stats(self) -> MediaStats:
        """What is known of the current peer connection, or else was of the last one."""
        if self._peer is not None and not self._peer.closing:
            self._last_stats = self._peer.stats()
        return evolve(self._last_stats, ignored_candidates=self.ignored_candidates)

    def await_answer(self, told: AnswerTold | None) -> None:
        """Tell when a sound begins and a picture changes, until this is called with None.

        Sound is listened to in any case, pictures only while somebody reads them.
        """
        self._answer_watch.wait(told)

    def candidate_pairs(self) -> tuple[CandidatePair, ...]:
        """What ICE has tried so far; empty without a peer connection."""
        return () if self._peer is None else internals.candidate_pairs(self._peer.pc)

    async def aclose(self) -> None:
        """Close the peer connection and every task; returns when nothing is left. Idempotent.

        Commands in flight end first. The sent tracks are stopped.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_everything())
        await asyncio.shield(self._closing)

    # ---- commands

    def _start(
        self,
        op: OpId,
        result: Coroutine[Any, Any, MediaResult],
        peer: _Peer | None = None,
    ) -> None:
        self._own(self._run(op, result, peer))

    async def _run(
        self, op: OpId, result: Coroutine[Any, Any, MediaResult], peer: _Peer | None
    ) -> None:
        try:
            value = await result
        except asyncio.CancelledError:
            self._callbacks.failed(op, "cancelled")
            raise
        except CommandError as exc:
            self._callbacks.failed(op, str(exc)[:REASON_LENGTH])
        except Exception as exc:  # noqa: BLE001 - aiortc raises anything; every command must end
            self._callbacks.failed(op, f"{type(exc).__name__}: {exc}"[:REASON_LENGTH])
        else:
            self._callbacks.done(op, value)
        if peer is not None:
            peer.release_candidates()
            # After the answer, whose way out does not wait for threads to start.
            self._own(peer.begin_receiving())

    async def _in_order(
        self, peer: _Peer | None, work: Callable[[_Peer], Coroutine[Any, Any, _T]]
    ) -> _T:
        if peer is None:
            raise CommandError("there is no peer connection")
        async with peer.order:
            peer.check_open()
            return await work(peer)

    async def _set_local(self, peer: _Peer | None, command: SetLocal) -> MediaResult:
        return await self._in_order(peer, lambda p: p.set_local(command.description, command.media))

    def _open(
        self, command: OpenPeer | ResetPeer, *, old: _Peer | None
    ) -> Coroutine[Any, Any, None]:
        """Make the new peer connection now, so that the next command is bound to it."""
        if old is not None:
            old.begin_close()
        self._peer = None
        self._peers += 1
        servers = IceServers.of(command.ice_servers)
        allow = self._rule(command.allow_ice_server)
        if not works("gathering"):
            servers = servers.for_stock_aiortc(allow)
        try:
            self._peer = peer = _Peer(
                self,
                self._take_early(command.policy),
                number=self._peers,
                servers=servers,
                allow=allow,
                policy=command.policy,
                media=command.media,
                tracks=self._tracks,
                loopback=self._loopback,
                gather_timeout=self._gather_timeout,
            )
        except Exception as exc:  # noqa: BLE001 - execute() never raises
            reason = f"{type(exc).__name__}: {exc}"
        else:
            reason = ""
            self._received = peer.received

        async def finish() -> None:
            if old is not None:
                await old.close()
            if reason:
                raise CommandError(reason)
            for failed in servers.left_out:
                peer.server_failed(failed.url, failed.reason)

        return finish()

    def _make_early(self, policy: IcePolicy) -> EarlyPeer | None:
        if not EarlyPeer.possible():
            return None
        return EarlyPeer(policy, loopback=self._loopback, own=self._own)

    def _take_early(self, policy: IcePolicy) -> EarlyPeer | None:
        """The peer connection that was made before it was asked for, or one made now."""
        early, self._early = self._early, None
        if early is not None and early.policy is not policy:
            self._own(early.aclose())
            early = None
        return early or self._make_early(policy)

    def _rule(self, asked_for: IceServerRule | None) -> IceServerRule:
        if asked_for is not None:
            return asked_for
        if self._loopback:
            return lambda url, address: address.is_loopback or default_ice_rule(url, address)
        return default_ice_rule

    def _close(self, peer: _Peer | None) -> Coroutine[Any, Any, None]:
        if peer is not None:
            peer.begin_close()

        async def finish() -> None:
            if peer is not None:
                await peer.close()
            if self._peer is None:
                self._end_frames(*MediaKind)

        return finish()

    async def _close_everything(self) -> None:
        peer, self._peer = self._peer, None
        early, self._early = self._early, None
        try:
            if early is not None:
                await early.aclose()
            if peer is not None:
                peer.begin_close()
                await peer.close()
        finally:
            while self._tasks:
                await asyncio.wait(self._tasks)
            self._end_frames(*MediaKind)
            for sinks in self._sinks.values():
                sinks.clear()
            for track in self._tracks:
                track.stop()

    # ---- called by the peer connection

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _event(self, event: MediaEvent) -> None:
        self._callbacks.event(event)

    def _lost(self, peer: _Peer) -> None:
        """aiortc closed a peer connection by itself; a new one may be opened from now on."""
        if peer is self._peer:
            self._peer = None
            peer.begin_close()
            self._end_frames(*MediaKind)
            self._own(peer.close())

    def _ignore(self, reason: str, count: int = 1) -> None:
        self._ignored[reason] += count

    def _first(self, kind: MediaKind) -> _Received | None:
        return next((track for track in self._received if track.kind is kind), None)

    def _wanted(self, received: _Received) -> bool:
        return self._first(received.kind) is received and self._watched(received.kind)

    def _watched(self, kind: MediaKind) -> bool:
        return self._readers[kind].wanted

    def _begin_decoding(self, kind: MediaKind) -> None:
        received = self._first(kind)
        if received is not None:
            received.begin_decoding()

    def _decoded(self, received: _Received, frame: Any, *, on_loop: bool) -> None:
        """A frame was decoded: sound on the loop, pictures on a thread, on the loop without tap."""
        if self._first(received.kind) is not received:
            return
        if received.kind is MediaKind.AUDIO and self._listens():
            self._answer_watch.decoded_sound(frame, received.sound_arrival)
        self._readers[received.kind].push(frame, on_loop=on_loop)

    def _look(self, received: _Received, frame: Any) -> None:
        if self._first(received.kind) is received:
            self._answer_watch.picture(frame, received.meter.arrival(frame.pts))

    def _listens(self) -> bool:
        return self._answer_watch.told is not None or self._watched(MediaKind.VIDEO)

    def _encoded(self, received: _Received, frame: EncodedFrame) -> None:
        if self._first(received.kind) is not received:
            return
        if (
            received.kind is MediaKind.AUDIO
            and not self._watched(MediaKind.AUDIO)
            and self._listens()
        ):
            self._answer_watch.sound(frame)
        self._sinks[received.kind].give(frame)

    def _track_ended(self, peer: _Peer, received: _Received) -> None:
        if peer is self._peer and self._first(received.kind) is received:
            self._end_frames(received.kind)

    def _count_drop(self, kind: MediaKind) -> None:
        received = self._first(kind)
        if received is not None:
            received.count_drop()

    def _end_frames(self, *kinds: MediaKind) -> None:
        for kind in kinds:
            self._readers[kind].end()
            self._sinks[kind].end()


async def _refuse(reason: str) -> None:
    raise CommandError(reason)


class _Received:
    """One remote track: its counters, its tap, and the task that takes decoded frames off it."""

    def __init__(
        self, peer: _Peer, receiver: RTCRtpReceiver, track: MediaStreamTrack, track_id: str
    ) -> None:
        self.kind = MediaKind(track.kind)
        self.track_id = track_id
        # Plain numbers: a frozen object for each packet would cost half a percent of a core.
        self._packets = self._bytes = self._frames_decoded = self._frames_dropped = 0
        self.last_packet: float | None = None
        self.reports = SenderReports(track_id)
        self._peer = peer
        self._engine = engine = peer.engine
        self._started = False
        self._arrived = float("-inf")
        self._reported = float("-inf")
        """Up to which packet progress was told."""
        self._next_report: asyncio.TimerHandle | None = None
        self._picture = PictureClock() if self.kind is MediaKind.VIDEO else None
        self._watched = False
        """Whether somebody decoded this at the last report."""
        self._looked = float("-inf")
        """When a picture was last given to `_picture`, in monotonic seconds."""
        self.sound_arrival = 0.0
        """When the newest packet of sound came."""
        self._tap: ReceiverTap | None = None
        if works("receiving"):
            self._tap = ReceiverTap(
                receiver,
                kind=self.kind,
                track_id=track_id,
                reports=self.reports,
                loop=engine._loop,
                on_packet=self._packet,
                on_frame=self._frame,
                on_drop=self.count_drop,
                on_decoded=self._decoded,
                wanted=lambda: engine._wanted(self),
                spawn=engine._own,
                parameter_sets=lambda payload_type: peer.parameter_sets.get(payload_type),
            )
            read_reports(receiver, self.reports)
        self.meter = ReceiverMeter(receiver, self._tap, kind=self.kind, now=engine._loop.time)
        self.pump = engine._own(self._pump(track))

    @property
    def take(self) -> Callable[[Any, int], None] | None:
        """What takes its packets, where they are seen."""
        return None if self._tap is None else self._tap.take

    def begin_decoding(self) -> None:
        if self._tap is not None:
            self._tap.begin_decoding()

    def request_keyframe(self) -> bool:
        return self._tap is not None and self._tap.request_keyframe()

    def take_thread(self) -> None:
        if self._tap is not None:
            self._tap.take_thread()

    @property
    def decoder_thread(self) -> threading.Thread | None:
        """The thread that nobody has joined yet."""
        return None if self._tap is None else self._tap.decoder_thread

    @property
    def counters(self) -> TrackCounters:
        """What was counted until now."""
        return TrackCounters(
            kind=self.kind,
            packets=self._packets,
            bytes=self._bytes,
            frames_decoded=self._frames_decoded,
            frames_dropped=self._frames_dropped,
            last_packet=self.last_packet,
        )

    def count_drop(self) -> None:
        self._frames_dropped += 1

    def _frame(self, frame: EncodedFrame) -> None:
        self.meter.frame(frame)
        self.sound_arrival = frame.arrival
        self._engine._encoded(self, frame)

    def _packet(self, packet: Any) -> None:
        now = self._engine._loop.time()
        self._packets += 1
        self._bytes += len(packet.payload)
        self.last_packet = now
        self.meter.packet(packet, now)
        if now - self._arrived < FLOWING_SECONDS:
            self._arrived = now
        else:
            self._came(now)

    def _came(self, now: float) -> None:
        """A packet came, or a frame where packets are not seen."""
        if self._peer.closing:
            return
        if now - self._arrived >= BLACKOUT_SECONDS and self._picture is not None:
            self._picture.restart(now)
        self._arrived = now
        if not self._started:
            self._started = True
            self._engine._event(MediaStarted(track_id=self.track_id, kind=self.kind))
        if self._next_report is None:
            self._report()

    def _report(self) -> None:
        """Tell progress, and again PROGRESS_SECONDS later, until nothing came in between."""
        self._next_report = None
        if self._arrived == self._reported:
            return
        self._reported = self._arrived
        loop = self._engine._loop
        self._next_report = loop.call_later(PROGRESS_SECONDS, self._report)
        self._engine._event(
            MediaProgress(
                track_id=self.track_id,
                kind=self.kind,
                age=loop.time() - self._arrived,
                picture_age=self._picture_age(loop.time()),
            )
        )

    def _picture_age(self, now: float) -> float | None:
        watched, self._watched = self._watched, self._engine._wanted(self)
        if self._picture is None or not self._watched:
            return None
        if not watched:
            self._picture.restart(now)
        return self._picture.age(now)

    def stop_reporting(self) -> None:
        """The peer connection closes: nothing is told any more."""
        if self._next_report is not None:
            self._next_report.cancel()
            self._next_report = None
        if self._tap is not None:
            self._tap.close()

    def _decoded(self, frame: Any) -> None:
        """A frame that the tap decoded: pictures on the decoder's thread, sound on the loop."""
        self._frames_decoded += 1
        if self._picture is None:
            self._engine._decoded(self, frame, on_loop=True)
            return
        self._engine._decoded(self, frame, on_loop=False)
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS or self._engine._answer_watch.looks:
            self._looked = now
            with suppress(RuntimeError):  # The loop is gone.
                self._engine._loop.call_soon_threadsafe(self._look, frame)

    def _look(self, frame: Any) -> None:
        assert self._picture is not None
        self._picture.see(frame, self._engine._loop.time())
        self._engine._look(self, frame)

    async def _pump(self, track: MediaStreamTrack) -> None:
        """Take the frames off aiortc's track; with a tap it gives none, but ends."""
        try:
            while True:
                frame = await track.recv()
                self._frames_decoded += 1
                self._came(self._engine._loop.time())
                if self._picture is not None:
                    self._look(frame)
                self._engine._decoded(self, frame, on_loop=True)
        except MediaStreamError:
            self._engine._track_ended(self._peer, self)


class _Peer:
    """One RTCPeerConnection, from OpenPeer or ResetPeer to its close."""

    def __init__(
        self,
        engine: AiortcEngine,
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
    ) -> None:
        self.engine = engine
        self.pc = RTCPeerConnection(_configuration(servers, policy)) if early is None else early.pc
        self.candidates = RemoteCandidates(self.pc, ignore=engine._ignore, own=engine._own)
        self.order = asyncio.Lock()
        self.closing = False
        self.received: list[_Received] = []
        self._number = number
        self._media = media
        self._tracks = [internals.SentTrack(track) for track in tracks]
        self._loopback = loopback
        self._gather_timeout = gather_timeout
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
        # of setRemoteDescription or leave the connection stuck (engine.md section 7, item 5).
        self.pc.on("track", self._on_track)
        self.pc.on("iceconnectionstatechange", self._on_ice_state)
        self.pc.on("connectionstatechange", self._on_state)
        self._early = early
        if early is not None:
            self._checks.append(early.checks)
            self._ask(early.agent, early.gathering)

    def check_open(self) -> None:
        if self.closing:
            raise CommandError("the peer connection was closed")

    # ---- commands, one at a time under `order`

    async def offer(self, media: tuple[MediaLine, ...]) -> Offer:
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
        known = [mid for one in self.pc.getTransceivers() if (mid := one.mid) is not None]
        sdp = mark_mids(created.sdp, self._number, known)
        return RTCSessionDescription(sdp=sdp, type=created.type)

    async def set_local(
        self, description: Offer | None, media: tuple[MediaLine, ...]
    ) -> Offer | Answer:
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
        await asyncio.shield(self.engine._own(self._describe(raw)))
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
        async with self.order:
            if self._early is None or self.closing or self.pc.signalingState != "stable":
                return
            await self._early.begin_receiving()
            for received in self.received:
                received.take_thread()

    async def _describe(self, raw: RTCSessionDescription | None) -> None:
        if self._early is not None:
            await asyncio.shield(self._early.gathered)
        await self.pc.setLocalDescription(raw)

    async def set_remote(self, description: Description) -> None:
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
            self._checks = [PromptChecks(agent) for agent in internals.ice_connections(self.pc)]
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
        self._clocks.append(internals.DatagramClock(agent, self.engine._loop.time))

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
                    agent, transport, self._takers, self.engine._loop.time
                )

    def _on_consent(self) -> None:
        if not self.closing:
            self.engine._event(ConsentRefreshed())

    def server_failed(self, url: str, reason: str) -> None:
        """An ICE server was of no use; tell it."""
        if not self.closing:
            self.engine._event(IceServerFailed(url=url, reason=reason))

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
            self.engine._event(
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
        received = _Received(self, transceiver.receiver, track, track_id)
        self.received.append(received)
        if received.take is not None:
            self._takers[transceiver.receiver] = received.take
        labels = {} if self._remote is None else self._remote.stream_labels
        self.engine._event(
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
                self._still_checking = self.engine._loop.call_later(
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
                self.engine._lost(self)

    def _tell_still_checking(self) -> None:
        """ICE gives up after half a minute only: who stops waiting earlier wants the pairs too."""
        if not self.closing and self.pc.iceConnectionState == "checking":
            pairs = internals.candidate_pairs(self.pc)
            self.engine._event(
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
        age = self.engine._loop.time() - max(times)
        if age < SILENCE:
            return "closed by the far end"
        return f"dead: nothing was received for {age:.1f} s"

    def _tell(
        self, state: MediaState, reason: str = "", pairs: tuple[CandidatePair, ...] = ()
    ) -> None:
        if not self.closing and state not in self._told:
            self._told.add(state)
            self.engine._event(MediaStateChanged(state=state, reason=reason, pairs=pairs))

    # ---- the end

    def begin_close(self) -> None:
        """Refuse further work, and make the work in progress end soon. Nothing is told any more."""
        if not self.closing:
            self.engine._last_stats = self.stats()
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
