"""A UDP wire between two peers, without sockets: who is where, what passes, and when.

The wire has two addresses, one that faces each peer. It changes the signaling that passes between
them, so that each knows the other at the wire's address only. Of all candidates of a peer it keeps
one: UDP over IPv4, of type host, on loopback if the wire is there. The peer's packets must come
from there, and those of the other peer go there.

An adapter's `udp_wire` gives it its sockets and its clock; see
:func:`navtalk_asyncio.testing.udp_wire`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from navtalk_proto.testing.impairment import FateCounters, Impairer, PacketKind, packet_kind
from navtalk_proto.transport import Transport

__all__ = ["Address", "Datagram", "Side", "UdpWire", "WiredTransport"]

Address: TypeAlias = tuple[str, int]
"""Host and port."""

Datagram: TypeAlias = "tuple[Side, bytes, Address]"
"""From the port that faces this side, these bytes, to this address."""

MAX_WAITING: Final = 8192
"""Packets on the wire at a time: 100 ms of 1 Gb/s in full packets. One more is dropped."""

_CANDIDATE: Final = re.compile(
    r"candidate:\S+ 1 udp \d+ (?P<host>[0-9.]+) (?P<port>\d{1,5}) typ host", re.IGNORECASE
)
"""What the wire can take the place of (RFC 8839 section 5.1)."""

_CANDIDATE_LINE: Final = re.compile(r"^a=candidate:[^\r\n]*(?:\r?\n)?", re.MULTILINE)


class Side(Enum):
    """The two ends. NEAR is the one whose transport was wrapped."""

    NEAR = "near"
    FAR = "far"

    @property
    def other(self) -> Side:
        """The other end."""
        return Side.FAR if self is Side.NEAR else Side.NEAR


class UdpWire:
    """One wire, for one session at a time; a newer session's descriptions take it over.

    `seed` decides the fates of packets, see :class:`~navtalk_proto.testing.impairment.Impairer`.
    What it loses or delays is set with :meth:`set`, also while it runs.
    """

    def __init__(self, seed: int = 0) -> None:
        self.ports: dict[Side, Address] = {}
        """The wire's own addresses, by the side that each faces; filled by the adapter."""
        self._peers: dict[Side, Address] = {}
        self._impairers = {side: Impairer(seed, f"to {side.value}") for side in Side}
        self._waiting: list[tuple[float, int, Datagram]] = []
        self._number = 0

    # ---- what a test does

    def set(
        self,
        *kinds: PacketKind | str,
        towards: Side | None = None,
        loss: float | None = None,
        duplicate: float | None = None,
        delay: float | None = None,
        jitter: float | None = None,
        reorder: float | None = None,
        rate: float | None = None,
    ) -> None:
        """From now on, do this to packets of these kinds (``"rtp"``), all kinds by default.

        What is not named stays as it is. Times are seconds, `rate` is bits per second for all these
        kinds together, ``rate=math.inf`` lifts it, the rest are shares in [0, 1]. `towards` limits
        it to what goes to that side. Raises ValueError for what is out of range or no kind.
        """
        changes: dict[str, Any] = {
            "loss": loss,
            "duplicate": duplicate,
            "delay": delay,
            "jitter": jitter,
            "reorder": reorder,
            "rate": rate,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        for impairer in self._towards(towards):
            impairer.set(_kinds(kinds), **given)

    def cut(self, *kinds: PacketKind | str, towards: Side | None = None) -> None:
        """Let nothing pass from now on, of all kinds by default, until :meth:`heal`."""
        for impairer in self._towards(towards):
            impairer.set(_kinds(kinds), blackhole=True)

    def heal(self, *kinds: PacketKind | str, towards: Side | None = None) -> None:
        """Undo :meth:`cut`. What :meth:`set` did stays."""
        for impairer in self._towards(towards):
            impairer.set(_kinds(kinds), blackhole=False)

    def counters(self, kind: PacketKind | str, *, towards: Side) -> FateCounters:
        """What became of the packets of this kind that were to go to this side; a live object."""
        return self._impairers[towards].counters[PacketKind(kind)]

    @property
    def waiting(self) -> int:
        """Packets on the wire."""
        return len(self._waiting)

    def wrap(self, transport: Transport) -> WiredTransport:
        """The transport to use instead, for the session whose packets are to take this wire."""
        return WiredTransport(transport, self)

    # ---- signaling that passes

    def sent(self, text: str) -> str | None:
        """What the far peer is to read of a message of the near one; None: nothing."""
        return self._passing(text, Side.NEAR)

    def received(self, text: str) -> str | None:
        """What the near peer is to read of a message of the far one; None: nothing."""
        return self._passing(text, Side.FAR)

    def _passing(self, text: str, sender: Side) -> str | None:
        if '"webrtc.signaling.' not in text:
            return text
        try:
            message = json.loads(text)
        except ValueError:
            return text  # Its reader has a better word for it.
        if isinstance(message, dict) and message.get("type") == "webrtc.signaling.iceCandidate":
            changed = _each_string(message, partial(self._trickled, sender))
        else:
            self._peers.pop(sender, None)
            changed = _each_string(message, partial(self._description, sender))
        return None if changed is None else json.dumps(changed, ensure_ascii=False)

    def _description(self, sender: Side, sdp: str) -> str:
        found = [
            address
            for line in _CANDIDATE_LINE.findall(sdp)
            if (address := _host_candidate(line)) is not None
        ]
        if found:
            self._peers.setdefault(sender, min(found, key=self._is_elsewhere))
        return _CANDIDATE_LINE.sub(partial(self._line, sender), sdp)

    def _is_elsewhere(self, address: Address) -> bool:
        """Whether one of both is on loopback and the other is not."""
        host, _ = self.ports[Side.NEAR]
        return host.startswith("127.") is not address[0].startswith("127.")

    def _line(self, sender: Side, match: re.Match[str]) -> str:
        """A candidate's line as the other peer reads it: nothing, but for the one that is kept."""
        address = _host_candidate(match[0])
        if address is None or address != self._peers[sender]:
            return ""
        return self._at_the_wire(sender, match[0])

    def _trickled(self, sender: Side, text: str) -> str | None:
        if not text.startswith("candidate:"):
            return text
        address = _host_candidate(text)
        if address is None or self._peers.setdefault(sender, address) != address:
            return None
        return self._at_the_wire(sender, text)

    def _at_the_wire(self, sender: Side, text: str) -> str:
        host, port = self.ports[sender.other]
        match = _CANDIDATE.search(text)
        assert match is not None
        return f"{text[: match.start('host')]}{host} {port}{text[match.end('port') :]}"

    # ---- packets that pass

    def datagram(self, faces: Side, data: bytes, source: Address, *, now: float) -> None:
        """The port that faces this side read a datagram."""
        kind = packet_kind(data)
        impairer = self._impairers[faces.other]
        to = self._peers.get(faces.other)
        if to is None or self._peers.get(faces) != source:
            impairer.counters[kind].unroutable += 1
            return
        for at in impairer.departures(kind, len(data), now):
            if len(self._waiting) >= MAX_WAITING:
                impairer.counters[kind].overflowed += 1
                continue
            self._number += 1
            heappush(self._waiting, (at, self._number, (faces.other, data, to)))

    def due(self, *, now: float) -> list[Datagram]:
        """Take what is to be sent by now, in the order in which it leaves."""
        taken = []
        while self._waiting and self._waiting[0][0] <= now:
            taken.append(heappop(self._waiting)[2])
        return taken

    def next_due(self) -> float | None:
        """When to call :meth:`due` again; None: when a datagram was read."""
        return self._waiting[0][0] if self._waiting else None

    def unsent(self, datagram: Datagram) -> None:
        """A datagram that was due could not be sent: the system knows no way to its address."""
        faces, data, _ = datagram
        self._impairers[faces].counters[packet_kind(data)].unroutable += 1

    def _towards(self, side: Side | None) -> Iterable[Impairer]:
        return self._impairers.values() if side is None else (self._impairers[side],)


class WiredTransport:
    """A Transport whose peers meet at a wire."""

    def __init__(self, transport: Transport, wire: UdpWire) -> None:
        self._transport = transport
        self._wire = wire

    async def send_text(self, text: str) -> None:
        """Send one message as the far peer is to read it."""
        passing = self._wire.sent(text)
        if passing is not None:
            await self._transport.send_text(passing)

    async def receive(self) -> str | bytes:
        """Receive one message as the near peer is to read it."""
        while True:
            message = await self._transport.receive()
            if isinstance(message, bytes):
                return message
            passing = self._wire.received(message)
            if passing is not None:
                return passing

    async def close(self, code: int, reason: str) -> None:
        """Close."""
        await self._transport.close(code, reason)

    async def aclose(self) -> None:
        """Drop the connection."""
        await self._transport.aclose()


def _kinds(kinds: Iterable[PacketKind | str]) -> tuple[PacketKind, ...]:
    return tuple(PacketKind(kind) for kind in kinds)


def _host_candidate(text: str) -> Address | None:
    match = _CANDIDATE.search(text)
    return None if match is None else (match["host"], int(match["port"]))


def _each_string(value: Any, change: Callable[[str], str | None]) -> Any:
    """A JSON value with each of its strings changed; None where one of them is to be left out."""
    match value:
        case str():
            return change(value)
        case dict():
            made = {name: _each_string(one, change) for name, one in value.items()}
            left_out = any(made[name] is None is not value[name] for name in made)
            return None if left_out else made
        case list():
            return [_each_string(one, change) for one in value]
        case _:
            return value
