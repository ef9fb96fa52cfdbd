"""From RTP packets back to whole encoded frames, in order, with a limit to every wait.

Two buffers, because the two media want different things. A picture is many packets and later
pictures refer to it: it is released on its last packet (the marker bit, RFC 3550 section 5.1), a
hole in it is waited for as long as asking again may help, and when it is given up, what follows is
of no use until a keyframe. A packet of sound stands for itself: it is released at once when it is
the next one, and a hole is waited for only as long as packets are seen to be out of order here.

Nothing here knows aiortc, a clock or a timer. `now` is given, in monotonic seconds; `deadline` says
when :meth:`expire` is to be called, and calling it early or again is harmless. Sequence numbers
wrap (RFC 3550 section 5.1) and are unwrapped on entry.

Source: RFC 3550 sections 5.1, 6.4.1 and A.1 (a source that restarts).
"""

from __future__ import annotations

from math import ceil
from typing import Final

from attrs import define, field, frozen

__all__ = ["AudioJitterBuffer", "BufferCounters", "CompleteFrame", "VideoJitterBuffer", "unwrap"]

PICTURE_WAIT: Final = 0.5
"""Seconds that a hole in the video is waited for. Asking again takes a round trip, and may have to
be repeated; a picture that is half a second late is no use to a conversation."""

REPAIRABLE_GAP: Final = 256
"""Missing packets in a row that asking again may bring. aiortc keeps 128 sent packets, browsers
about a second of them, which is 250 at 2.5 Mb/s: of a longer gap the beginning is gone already."""

SPAN: Final = 2048
"""Sequence numbers between the oldest awaited and the newest packet. At 20 Mb/s the half second of
:data:`PICTURE_WAIT` is 900."""

MISORDER: Final = 512
"""A packet this far behind, or :data:`SPAN` ahead, is a stray, or the sender has started anew: the
second one in a row decides (RFC 3550 section A.1)."""

PACKET_SECONDS: Final = 0.02
"""What one packet of sound holds before two have been seen; Opus in WebRTC always."""

MAX_SOUND_WAIT: Final = 0.2
"""Seconds that a hole in the sound is waited for at most, however bad the path is."""

JITTERS: Final = 3
"""Mean deviations that a packet may be late without being given up."""

CALM_SECONDS: Final = 10.0
"""After so long without a need for it, a wait that disorder asked for is forgotten."""

SKIPPED: Final = 64
"""Sequence numbers given up that are remembered, to learn how late they were."""

_HALF = {16: 1 << 15, 32: 1 << 31}


def unwrap(value: int, near: int, bits: int) -> int:
    """The number that is `value` modulo 2**bits and nearest to `near`."""
    half = _HALF[bits]
    return near + ((value - near + half) & (2 * half - 1)) - half


@frozen(slots=True)
class CompleteFrame:
    """A picture, or a packet of sound."""

    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    timestamp: int
    """The 32-bit RTP timestamp."""
    arrival: float
    """When the first of its packets came."""
    after_loss: bool
    """Something before it was given up since the last frame."""


@define(slots=True)
class BufferCounters:
    """What became of the packets that were given to a buffer."""

    frames: int = 0
    duplicates: int = 0
    late: int = 0
    """Came after they had been given up."""
    discarded: int = 0
    """Came, and belong to a picture that was given up."""
    given_up: int = 0
    """Holes that were waited for in vain, joins in the middle of a picture, restarts."""


@define(slots=True)
class _Packet:
    timestamp: int
    marker: bool
    data: bytes
    begins: bool | None
    arrival: float


class _Sequence:
    """Unwraps sequence numbers, and finds strays and restarts."""

    __slots__ = ("highest", "stray")

    def __init__(self) -> None:
        self.highest: int | None = None
        self.stray: int | None = None

    def place(self, sequence_number: int) -> tuple[int | None, bool]:
        """The unwrapped number, None for a stray; and whether the sender has started anew."""
        if self.highest is None:
            self.highest = sequence_number
            return sequence_number, False
        placed = unwrap(sequence_number, self.highest, 16)
        ahead = placed - self.highest
        if -MISORDER < ahead < SPAN:
            self.stray = None
            self.highest = max(self.highest, placed)
            return placed, False
        if self.stray is not None and sequence_number == (self.stray + 1) & 0xFFFF:
            self.stray = None
            self.highest = placed
            return placed, True
        self.stray = sequence_number
        return None, False


class VideoJitterBuffer:
    """Pictures of one RTP stream.

    `wait` is how many seconds a hole is waited for.
    """

    def __init__(self, *, wait: float = PICTURE_WAIT) -> None:
        self.counters: BufferCounters = BufferCounters()
        self._wait = wait
        self._sequence = _Sequence()
        self._packets: dict[int, _Packet] = {}
        self._next: int | None = None
        """The first packet of the picture that is being put together."""
        self._scan = 0
        """The first packet not known to be there."""
        self._at_start = False
        """Whether `_next` is surely the first packet of a picture."""
        self._virgin = True
        """Nothing has been released since the stream began: its beginning may still move."""
        self._lost = False
        self._marked = True
        """Whether this sender's marker bits are believed."""
        self._last_timestamp: int | None = None
        self._useless: int | None = None
        """The timestamp of what was just taken away: another one begins a picture."""
        self._hole: int | None = None
        self.deadline: float | None = None
        """When :meth:`expire` is to be called; None while nothing is missing."""

    @property
    def awaited(self) -> int | None:
        """The oldest sequence number, modulo 2**16, that is still of use; None at the beginning."""
        return None if self._next is None else self._next & 0xFFFF

    def __len__(self) -> int:
        return len(self._packets)

    def add(
        self,
        *,
        sequence_number: int,
        timestamp: int,
        marker: bool,
        data: bytes,
        begins: bool | None,
        now: float,
    ) -> list[CompleteFrame]:
        """A packet; returns the pictures that it completes.

        `data` is the payload without its descriptor, empty for padding. `begins` says whether the
        payload is the first of a picture, as far as it tells by itself: True and False are sure.
        """
        packets, before, scan = self._packets, self._sequence.highest, self._scan
        if (
            sequence_number == scan & 0xFFFF
            and scan != self._next
            and before == scan - 1
            and timestamp == packets[before].timestamp
            and len(packets) < SPAN
        ):
            # Nearly always: the next packet of the picture that is being put together.
            packets[scan] = _Packet(timestamp, marker, data, begins, now)
            self._sequence.highest, self._sequence.stray = scan, None
            self._scan = scan + 1
            if not (marker and self._marked):
                return []
            pictures: list[CompleteFrame] = []
            self._release(pictures)
            return pictures
        seq, anew = self._sequence.place(sequence_number)
        if seq is None:
            return []
        if (
            anew
            or (before is not None and seq - before > REPAIRABLE_GAP)
            or len(self._packets) >= SPAN
        ):
            self._start_over(seq)
        elif self._next is None:
            self._next = self._scan = seq
            self._at_start = begins is not False if self._virgin else begins is True
        elif seq < self._next:
            if not (self._virgin and self._next - seq < REPAIRABLE_GAP):
                self.counters.late += 1
                return []
            self._next = self._scan = seq
            self._at_start = begins is not False
        if seq in self._packets:
            self.counters.duplicates += 1
            return []
        self._packets[seq] = _Packet(timestamp, marker, data, begins, now)
        if seq != self._scan:
            self._look_for_hole()
            return []
        frames: list[CompleteFrame] = []
        self._advance(frames)
        return frames

    def expire(self, now: float) -> list[CompleteFrame]:
        """Give up what was waited for too long; returns the pictures that were held up by it."""
        frames: list[CompleteFrame] = []
        while self.deadline is not None and now >= self.deadline:
            beyond = min(seq for seq in self._packets if seq > self._scan)
            self._drop_until(beyond)
            self._give_up()
            self._advance(frames)
        return frames

    def restart(self) -> None:
        """Forget everything: what comes next follows a gap that nobody will fill."""
        self._drop_until(None)
        self._next = None
        self._sequence = _Sequence()
        self._virgin = False
        self._give_up()
        self._look_for_hole()

    # ---- inside

    def _start_over(self, seq: int) -> None:
        self._drop_until(None)
        self._next = self._scan = seq
        self._virgin = False
        self._give_up()

    def _give_up(self) -> None:
        self._at_start = False
        self._useless = self._last_timestamp = None
        self._lost = True
        self.counters.given_up += 1

    def _drop_until(self, end: int | None) -> None:
        """Forget the packets before `end`, and go on there."""
        gone = [seq for seq in self._packets if end is None or seq < end]
        for seq in gone:
            del self._packets[seq]
        self.counters.discarded += len(gone)
        if end is not None:
            self._next = self._scan = end

    def _advance(self, frames: list[CompleteFrame]) -> None:
        """Go on as far as there is no hole, and release what is whole."""
        packets = self._packets
        while (packet := packets.get(self._scan)) is not None:
            if self._scan != self._next:
                assert self._next is not None
                if packet.timestamp != packets[self._next].timestamp:
                    # A sender that sets no marker: the next picture has begun.
                    self._release(frames)
                    continue
            elif not self._begin(packet):
                continue
            self._scan += 1
            if packet.marker and self._marked:
                self._release(frames)
        self._look_for_hole()

    def _begin(self, packet: _Packet) -> bool:
        """Whether a picture begins with this packet at `_next`; else it is taken away."""
        if not packet.data:
            pass  # Padding, which belongs to no picture.
        elif packet.timestamp == self._last_timestamp:
            # More of a picture that was released on its marker: this sender marks something else.
            self._marked = False
            if not self._lost:
                self._give_up()
            self._last_timestamp = packet.timestamp
        elif (
            self._at_start
            or packet.begins
            or (self._useless is not None and self._useless != packet.timestamp)
        ):
            self._at_start, self._useless = True, None
            return True
        elif not self._lost:
            self._give_up()  # The stream was joined in the middle of a picture.
        del self._packets[self._scan]
        self._scan += 1
        self._next = self._scan
        if packet.data:
            self.counters.discarded += 1
            self._useless = packet.timestamp
            self._at_start = packet.marker and self._marked
        return False

    def _release(self, frames: list[CompleteFrame]) -> None:
        assert self._next is not None
        taken = [self._packets.pop(seq) for seq in range(self._next, self._scan)]
        self._next = self._scan
        self._at_start = True
        self._virgin = False
        self._last_timestamp = taken[0].timestamp
        frames.append(
            CompleteFrame(
                b"".join([packet.data for packet in taken]) if len(taken) > 1 else taken[0].data,
                taken[0].timestamp,
                min([packet.arrival for packet in taken]),
                self._lost,
            )
        )
        self._lost = False
        self.counters.frames += 1

    def _look_for_hole(self) -> None:
        highest = self._sequence.highest
        if self._next is None or highest is None or highest < self._scan or not self._packets:
            self._hole = self.deadline = None
        elif self._hole != self._scan:
            arrivals = [p.arrival for seq, p in self._packets.items() if seq > self._scan]
            self._hole = self._scan if arrivals else None
            self.deadline = min(arrivals) + self._wait if arrivals else None


class AudioJitterBuffer:
    """Packets of sound of one RTP stream: each is a frame.

    A hole is waited for as long as `depth` packets last. That begins at one, grows with the jitter
    that is measured and with the lateness of packets that came too late, and shrinks again.
    """

    def __init__(self) -> None:
        self.counters: BufferCounters = BufferCounters()
        self._sequence = _Sequence()
        self._packets: dict[int, CompleteFrame] = {}
        self._next: int | None = None
        self._virgin = True
        self._lost = False
        self._since: float | None = None
        """Since when something is missing."""
        self._packet_seconds = PACKET_SECONDS
        self._jitter = 0.0
        self._transit: tuple[int, float] | None = None
        """Timestamp and arrival of the newest packet."""
        self._needed = 0.0
        """Seconds that a packet was out of order lately."""
        self._needed_at = float("-inf")
        self._skipped: dict[int, float] = {}
        """Since when a packet that was given up had been waited for."""

    @property
    def deadline(self) -> float | None:
        """When :meth:`expire` is to be called; None while nothing is missing."""
        return None if self._since is None else self._since + self._wait

    @property
    def awaited(self) -> int | None:
        """The sequence number, modulo 2**16, that goes next; None at the beginning."""
        return None if self._next is None else self._next & 0xFFFF

    @property
    def jitter(self) -> float:
        """Mean deviation of the spacing, in seconds (RFC 3550 section 6.4.1)."""
        return self._jitter

    @property
    def depth(self) -> int:
        """For how many packets' duration a hole is waited for."""
        seconds = min(MAX_SOUND_WAIT, max(JITTERS * self._jitter, self._needed))
        return max(1, ceil(seconds / self._packet_seconds - 1e-9))

    def __len__(self) -> int:
        return len(self._packets)

    def add(
        self,
        *,
        sequence_number: int,
        timestamp: int,
        clock_rate: int,
        data: bytes,
        now: float,
    ) -> list[CompleteFrame]:
        """A packet; returns the frames that may go now."""
        expected = self._next
        if (
            expected is not None
            and sequence_number == expected & 0xFFFF
            and self._sequence.highest == expected - 1
            and not self._packets
            and not self._lost
        ):
            # Nearly always: the next packet, and nothing waits.
            self._sequence.highest, self._sequence.stray = expected, None
            self._measure(expected, timestamp, clock_rate, now)
            self._next = expected + 1
            self.counters.frames += 1
            return [CompleteFrame(data, timestamp, now, after_loss=False)]
        seq, anew = self._sequence.place(sequence_number)
        if seq is None:
            return []
        if anew:
            self._packets.clear()
            self._skipped.clear()
            self._next = None
            self._transit = None
            self._lost = True
            self.counters.given_up += 1
        if self._next is None:
            self._next = seq
        if seq < self._next:
            if not self._virgin:
                self._came_late(seq, now)
                return []
            self._next = seq
        if seq in self._packets:
            self.counters.duplicates += 1
            return []
        self._measure(seq, timestamp, clock_rate, now)
        self._packets[seq] = CompleteFrame(data, timestamp, now, after_loss=False)
        frames: list[CompleteFrame] = []
        if seq == self._next:
            if self._since is not None:
                self._need(now - self._since, now)
            self._release(frames)
        self._look_for_hole()
        return frames

    def expire(self, now: float) -> list[CompleteFrame]:
        """Give up what was waited for too long; returns the frames that were held up by it."""
        frames: list[CompleteFrame] = []
        while (deadline := self.deadline) is not None and now >= deadline:
            assert self._next is not None
            beyond = min(self._packets)
            since = self._packets[beyond].arrival
            for seq in range(max(self._next, beyond - SKIPPED), beyond):
                self._skipped[seq] = since
            while len(self._skipped) > SKIPPED:
                del self._skipped[next(iter(self._skipped))]
            self._next = beyond
            self._lost = True
            self.counters.given_up += 1
            self._release(frames)
            self._look_for_hole()
        return frames

    def restart(self) -> None:
        """Forget everything: what comes next follows a gap that nobody will fill."""
        self._packets.clear()
        self._skipped.clear()
        self._sequence = _Sequence()
        self._next = self._since = self._transit = None
        self._lost = True
        self.counters.given_up += 1

    # ---- inside

    @property
    def _wait(self) -> float:
        return min(self.depth * self._packet_seconds, MAX_SOUND_WAIT)

    def _came_late(self, seq: int, now: float) -> None:
        since = self._skipped.pop(seq, None)
        if since is None:
            self.counters.duplicates += 1
        else:
            self.counters.late += 1
            self._need(now - since, now)

    def _need(self, seconds: float, now: float) -> None:
        if seconds >= self._needed or now - self._needed_at > CALM_SECONDS:
            self._needed, self._needed_at = min(seconds, MAX_SOUND_WAIT), now

    def _measure(self, seq: int, timestamp: int, clock_rate: int, now: float) -> None:
        if self._needed and now - self._needed_at > CALM_SECONDS:
            self._needed /= 2
            self._needed_at = now
        if self._transit is not None:
            before, arrival = self._transit
            step = (unwrap(timestamp, before, 32) - before) / clock_rate
            if self._sequence.highest == seq and 0 < step <= 0.12:
                # Not over a silence that was not sent, nor over what came out of order.
                self._jitter += (abs(now - arrival - step) - self._jitter) / 16
                if seq - 1 in self._packets or seq == self._next:
                    self._packet_seconds = step
        if self._sequence.highest == seq:
            self._transit = timestamp, now

    def _release(self, frames: list[CompleteFrame]) -> None:
        assert self._next is not None
        while (frame := self._packets.pop(self._next, None)) is not None:
            if self._lost:
                frame = CompleteFrame(frame.data, frame.timestamp, frame.arrival, after_loss=True)
                self._lost = False
            frames.append(frame)
            self._next += 1
            self._virgin = False
            self.counters.frames += 1

    def _look_for_hole(self) -> None:
        self._since = min((frame.arrival for frame in self._packets.values()), default=None)
