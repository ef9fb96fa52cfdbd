"""The core's media commands, carried out by aiortc.

How a command runs: :meth:`AiortcEngine.execute` binds it to the peer connection that is current at
that moment and starts one task; the tasks of one peer connection run one after the other in the
order of the commands. ClosePeer and ResetPeer take the peer connection away at once: what still
waits for it fails, the one operation inside aiortc is let finish (a cancelled setLocalDescription
leaves a connection that never starts) and then the connection is closed.

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
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import evolve

try:
    from aiortc import MediaStreamTrack
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
from navtalk_asyncio.media.early_peer import EarlyPeer
from navtalk_asyncio.media.frame_buffer import (
    AUDIO_MICROSECONDS,
    BURST_FRAMES,
    VIDEO_FRAMES,
    FrameBuffer,
)
from navtalk_asyncio.media.frame_readers import FrameReaders
from navtalk_asyncio.media.ice_servers import IceServers
from navtalk_asyncio.media.interface import EncodedFrame, EngineCallbacks, TrackCounters
from navtalk_asyncio.media.peer import Peer
from navtalk_asyncio.media.peer_host import PeerHost
from navtalk_asyncio.media.private_names import test_all, works
from navtalk_asyncio.media.received_track import ReceivedTrack
from navtalk_asyncio.media.sender_reports import TrackTiming
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
    CandidatePair,
    Capabilities,
    IcePolicy,
    MediaKind,
    OpId,
)
from navtalk_proto.stats import MediaStats

if TYPE_CHECKING:
    pass

__all__ = ["AiortcEngine"]

logger: Final = logging.getLogger("navtalk.media")

GATHER_TIMEOUT: Final = 0.25
"""Seconds an offer waits for STUN and TURN answers; the slowest healthy server seen needs 0.1. An
answer leaves with its host candidates. What comes after either is trickled."""

REASON_LENGTH: Final = 200
"""Characters of a failure's reason."""

_T = TypeVar("_T")


class AiortcEngine:
    """A media engine on aiortc, for one connection and one event loop; see the Engine protocol.

    `tracks` are what is sent, lent to every peer connection of this engine and stopped by
    :meth:`aclose`. `loopback` adds host candidates on 127.0.0.1, which aioice leaves out.
    `gather_timeout` bounds, in seconds, how long an offer waits for STUN and TURN servers.
    `head_start` is how long, in seconds, ICE waits for whoever sends an answer: for an engine whose
    user is on another thread (:data:`navtalk_asyncio.media.engine_thread.HEAD_START`).
    With `early` the first peer connection is made, and its sockets bound, before it is asked for;
    a server that may refuse whom it has accepted does without.

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
        head_start: float = 0.0,
        early: bool = True,
    ) -> None:
        if not gather_timeout > 0:
            raise ValueError("gather_timeout must be positive")
        self._callbacks = callbacks
        self._tracks = tuple(tracks)
        self._loopback = loopback
        self._gather_timeout = gather_timeout
        self._head_start = head_start
        self._loop = asyncio.get_running_loop()
        self._peer: Peer | None = None
        self._peers = 0
        self._received: list[ReceivedTrack] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._ignored: Counter[str] = Counter()
        self._answer_watch = AnswerWatch()
        self._last_stats = MediaStats()
        self._host = PeerHost(
            loop=self._loop,
            own=self._own,
            event=callbacks.event,
            ignore=self._ignore,
            lost=self._lost,
            keep_stats=self._keep_stats,
            wanted=self._wanted,
            full=self._full,
            decoded=self._decoded,
            encoded=self._encoded,
            look=self._look,
            looks=lambda: self._answer_watch.looks,
            track_ended=self._track_ended,
        )
        self._readers = {kind: FrameReaders(self._loop) for kind in MediaKind}
        self._sinks = {kind: EncodedSinks(self._loop) for kind in MediaKind}
        test_all()
        self._early = self._make_early(IcePolicy.ALL) if early else None

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

        Video keeps the newest two frames, and eight for 20 ms where they come at once; audio the
        newest 0.4 s; older ones are dropped and counted. The iteration survives ResetPeer and ends
        when the peer connection or the track ends. Each call makes an independent reader that gets
        every frame; decoding stops when the last reader is dropped. Before a peer connection is
        open, reading waits for one.
        """
        if kind is MediaKind.VIDEO:
            reader: FrameBuffer[Any] = FrameBuffer(
                limit=VIDEO_FRAMES, burst=BURST_FRAMES, on_drop=lambda: self._count_drop(kind)
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

    def add_paced_sink(
        self,
        kind: MediaKind,
        sink: Callable[[Any], None],
        on_end: Callable[[], None],
        full: Callable[[], bool],
    ) -> Callable[[], None]:
        """As :meth:`add_direct_sink`, but no frame of this kind is decoded while `full` says so.

        All readers of the kind wait with it. `full` is asked on any thread. Raises RuntimeError
        when aiortc's private parts have changed so that its decoders cannot wait.
        """
        if not works("receiving"):
            raise RuntimeError("this version of aiortc does not let its decoders wait")
        reader = DecodedSink(sink, on_end, self._loop, any_thread=True, full=full)
        remove = self._add_reader(kind, reader)

        def removed() -> None:
            remove()
            self.resume_decoding(kind)

        return removed

    def resume_decoding(self, kind: MediaKind) -> None:
        """A sink that was full no longer is. To be called on the engine's loop."""
        received = self._first(kind)
        if received is not None:
            received.resume_decoding()

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
        peer: Peer | None = None,
    ) -> None:
        self._own(self._run(op, result, peer))

    async def _run(
        self, op: OpId, result: Coroutine[Any, Any, MediaResult], peer: Peer | None
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
        self, peer: Peer | None, work: Callable[[Peer], Coroutine[Any, Any, _T]]
    ) -> _T:
        if peer is None:
            raise CommandError("there is no peer connection")
        async with peer.order:
            peer.check_open()
            return await work(peer)

    async def _set_local(self, peer: Peer | None, command: SetLocal) -> MediaResult:
        return await self._in_order(peer, lambda p: p.set_local(command.description, command.media))

    def _open(
        self, command: OpenPeer | ResetPeer, *, old: Peer | None
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
            self._peer = peer = Peer(
                self._host,
                self._take_early(command.policy),
                number=self._peers,
                servers=servers,
                allow=allow,
                policy=command.policy,
                media=command.media,
                tracks=self._tracks,
                loopback=self._loopback,
                gather_timeout=self._gather_timeout,
                head_start=self._head_start,
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
        return EarlyPeer(
            policy, loopback=self._loopback, head_start=self._head_start, own=self._own
        )

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

    def _close(self, peer: Peer | None) -> Coroutine[Any, Any, None]:
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

    def _lost(self, peer: Peer) -> None:
        """aiortc closed a peer connection by itself; a new one may be opened from now on."""
        if peer is self._peer:
            self._peer = None
            peer.begin_close()
            self._end_frames(*MediaKind)
            self._own(peer.close())

    def _keep_stats(self, stats: MediaStats) -> None:
        self._last_stats = stats

    def _ignore(self, reason: str, count: int = 1) -> None:
        self._ignored[reason] += count

    def _first(self, kind: MediaKind) -> ReceivedTrack | None:
        for track in self._received:
            if track.kind is kind:
                return track
        return None

    def _wanted(self, received: ReceivedTrack) -> bool:
        return self._readers[received.kind].wanted and self._first(received.kind) is received

    def _full(self, received: ReceivedTrack) -> bool:
        return self._readers[received.kind].full and self._first(received.kind) is received

    def _watched(self, kind: MediaKind) -> bool:
        return self._readers[kind].wanted

    def _begin_decoding(self, kind: MediaKind) -> None:
        received = self._first(kind)
        if received is not None:
            received.begin_decoding()

    def _decoded(self, received: ReceivedTrack, frame: Any, *, on_loop: bool) -> None:
        """A frame was decoded: sound on the loop, pictures on a thread, on the loop without tap."""
        if self._first(received.kind) is not received:
            return
        if received.kind is MediaKind.AUDIO and self._listens() and not received.decodes_late:
            self._answer_watch.decoded_sound(frame, received.sound_arrival)
        self._readers[received.kind].push(frame, on_loop=on_loop)

    def _look(self, received: ReceivedTrack, frame: Any) -> None:
        if self._first(received.kind) is received:
            self._answer_watch.picture(frame, received.meter.arrival(frame.pts))

    def _listens(self) -> bool:
        return self._answer_watch.told is not None or self._watched(MediaKind.VIDEO)

    def _encoded(
        self, received: ReceivedTrack, codec: str, make: Callable[[], EncodedFrame]
    ) -> None:
        """A frame is complete. It is made only where somebody takes it: nobody does that reads."""
        kind = received.kind
        if self._first(kind) is not received:
            return
        sinks = self._sinks[kind]
        sinks.codec = codec
        listens = (
            kind is MediaKind.AUDIO
            and (not self._watched(kind) or received.holds)
            and self._listens()
        )
        if not listens and sinks.empty:
            return
        frame = make()
        if listens:
            self._answer_watch.sound(frame)
        sinks.give(frame)

    def _track_ended(self, peer: Peer, received: ReceivedTrack) -> None:
        if peer is self._peer and self._first(received.kind) is received:
            self._end_frames(received.kind)

    def _count_drop(self, kind: MediaKind) -> None:
        received = self._first(kind)
        if received is not None:
            received.count_drop()

    def _end_frames(self, *kinds: MediaKind) -> None:
        for kind in kinds:
            self._readers[kind].end()
            self.resume_decoding(kind)
            self._sinks[kind].end()


async def _refuse(reason: str) -> None:
    raise CommandError(reason)
