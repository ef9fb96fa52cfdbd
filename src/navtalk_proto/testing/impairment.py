"""What a bad network does to packets, decided by a seed and the time: no dice, no clock, no socket.

The fate of the n-th packet of a kind depends on the seed, the direction, the kind and n only, so
that a run with more STUN packets than the last loses the same RTP packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

from attrs import define, evolve, field, frozen, validators

__all__ = [
    "Bottleneck",
    "FateCounters",
    "Impairer",
    "Impairment",
    "PacketKind",
    "packet_kind",
]

REORDER_SECONDS: Final = 0.02
"""How much later a reordered packet leaves: behind the rest of its picture, and a voice packet."""

QUEUE_SECONDS: Final = 0.5
"""What waits at a bottleneck at most; more is dropped. A home router's buffer is of this size."""

_DRAW: Final = 8
"""Bytes of hash that make one number in [0, 1)."""


class PacketKind(Enum):
    """What shares a WebRTC port (RFC 7983 section 7, RFC 5761 section 4)."""

    STUN = "stun"
    DTLS = "dtls"
    RTP = "rtp"
    RTCP = "rtcp"
    OTHER = "other"


def packet_kind(data: bytes) -> PacketKind:
    """The kind of a datagram, by its first byte and, for RTP and RTCP, its second."""
    first = data[0] if data else 0xFF
    if first < 4:
        return PacketKind.STUN
    if 20 <= first < 64:
        return PacketKind.DTLS
    if 128 <= first < 192 and len(data) > 1:
        return PacketKind.RTCP if 192 <= data[1] < 224 else PacketKind.RTP
    return PacketKind.OTHER


_share = validators.and_(validators.ge(0.0), validators.le(1.0))
_seconds = validators.and_(validators.ge(0.0), validators.le(60.0))


@frozen(kw_only=True)
class Impairment:
    """What happens to packets. Shares are in [0, 1], times are seconds, of at most a minute."""

    loss: float = field(default=0.0, validator=_share)
    """The share that is lost."""
    duplicate: float = field(default=0.0, validator=_share)
    """The share that leaves twice."""
    delay: float = field(default=0.0, validator=_seconds)
    """What every packet waits."""
    jitter: float = field(default=0.0, validator=_seconds)
    """What is added to the delay or taken from it, evenly spread: packets overtake each other."""
    reorder: float = field(default=0.0, validator=_share)
    """The share that leaves :data:`REORDER_SECONDS` later than its turn."""
    rate: float | None = field(default=None, validator=validators.optional(validators.gt(0.0)))
    """Bits per second that pass, of the payload; None: all. See :class:`Bottleneck`."""
    blackhole: bool = False
    """Nothing passes."""


@define
class FateCounters:
    """What became of the packets of one kind in one direction; a live object."""

    passed: int = 0
    """Left, once or twice."""
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    overflowed: int = 0
    """Found a queue full: the bottleneck's, or that of all packets that wait."""
    swallowed: int = 0
    """Came while nothing passes."""
    unroutable: int = 0
    """Not from the address that the peer announced, or the other peer has not announced any."""


@define
class Bottleneck:
    """A link of so many bits per second, shared by all kinds that were given it together."""

    rate: float
    _busy_until: float = 0.0

    def leave_at(self, size: int, now: float) -> float | None:
        """When a packet of `size` bytes that comes now has passed; None: the queue is full."""
        start = max(now, self._busy_until)
        if start - now > QUEUE_SECONDS:
            return None
        self._busy_until = start + size * 8 / self.rate
        return self._busy_until


class Impairer:
    """Decides the fate of every packet of one direction. Deterministic, but for what is set.

    `label` tells the two directions of one seed apart.
    """

    def __init__(self, seed: int, label: str = "") -> None:
        self._key = blake2b(f"{seed} {label}".encode(), digest_size=32).digest()
        self._impairments = dict.fromkeys(PacketKind, Impairment())
        self._bottlenecks: dict[PacketKind, Bottleneck] = {}
        self._numbers = dict.fromkeys(PacketKind, 0)
        self.counters: dict[PacketKind, FateCounters] = {
            kind: FateCounters() for kind in PacketKind
        }

    def set(self, kinds: Iterable[PacketKind] = (), **changes: Any) -> None:
        """Change these fields of the Impairment of these kinds, all of them by default.

        Raises TypeError for a field that does not exist, ValueError for a value out of range;
        nothing is changed then.
        """
        changed = {kind: evolve(self._impairments[kind], **changes) for kind in self._kinds(kinds)}
        self._impairments |= changed
        rate = changes.get("rate")
        if "rate" in changes:
            for kind in changed:
                self._bottlenecks.pop(kind, None)
        if rate is not None:
            self._bottlenecks |= dict.fromkeys(changed, Bottleneck(rate))

    def impairment(self, kind: PacketKind) -> Impairment:
        """What happens to packets of this kind now."""
        return self._impairments[kind]

    def departures(self, kind: PacketKind, size: int, now: float) -> tuple[float, ...]:
        """When a packet of `size` bytes that comes now leaves: not at all, once, or twice."""
        number = self._numbers[kind]
        self._numbers[kind] = number + 1
        bad, counters = self._impairments[kind], self.counters[kind]
        lost, twice, late, first, second = self._draws(kind, number)
        if bad.blackhole:
            counters.swallowed += 1
            return ()
        if lost < bad.loss:
            counters.lost += 1
            return ()
        bottleneck = self._bottlenecks.get(kind)
        at = now if bottleneck is None else bottleneck.leave_at(size, now)
        if at is None:
            counters.overflowed += 1
            return ()
        counters.passed += 1
        if late < bad.reorder:
            counters.reordered += 1
            at += REORDER_SECONDS
        copies = [first]
        if twice < bad.duplicate:
            counters.duplicated += 1
            copies.append(second)
        return tuple(
            at + max(0.0, bad.delay + bad.jitter * (2.0 * spread - 1.0)) for spread in copies
        )

    def _draws(self, kind: PacketKind, number: int) -> tuple[float, float, float, float, float]:
        text = f"{kind.value} {number}".encode()
        drawn = blake2b(text, key=self._key, digest_size=5 * _DRAW).digest()
        one, two, three, four, five = (
            int.from_bytes(drawn[at : at + _DRAW]) / 2 ** (8 * _DRAW)
            for at in range(0, len(drawn), _DRAW)
        )
        return one, two, three, four, five

    @staticmethod
    def _kinds(kinds: Iterable[PacketKind]) -> tuple[PacketKind, ...]:
        return tuple(kinds) or tuple(PacketKind)
