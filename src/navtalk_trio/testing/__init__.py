"""The public test kit for trio: no sockets, no media, and with trio's MockClock no real time.

:func:`memory_transports` is a WebSocket without one, :class:`PaperEngine` runs the core's strict
engine, and ``emulate()`` is a digital human on real sockets. :func:`udp_wire` is a bad network
between two peers, :func:`cutter` one for a WebSocket's messages, :func:`tcp_proxy` one for its
bytes; :func:`through` puts a session under them. Virtual time and real sockets do
not mix: a timer fires while a socket read is pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.testing import paper_engine
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.testing.memory_transport import MemoryTransport
from navtalk_proto.testing.memory_transport import memory_transports as _memory_transports
from navtalk_trio.flag import Flag
from navtalk_trio.testing.cutter import cutter, through
from navtalk_trio.testing.tcp_proxy import TcpProxy, tcp_proxy
from navtalk_trio.testing.udp_wire import udp_wire

if TYPE_CHECKING:
    from navtalk_trio.testing.emulator import emulate

__all__ = [
    "MemoryTransport",
    "PaperEngine",
    "TcpProxy",
    "cutter",
    "emulate",
    "memory_transports",
    "tcp_proxy",
    "through",
    "udp_wire",
]


class PaperEngine(paper_engine.PaperEngine):
    """A media engine that checks every command and moves no media; see StrictEngine."""

    def __init__(self, callbacks: EngineCallbacks, strict: StrictEngine | None = None) -> None:
        token = trio.lowlevel.current_trio_token()
        super().__init__(callbacks, soon=token.run_sync_soon, flag=Flag, strict=strict)


def memory_transports() -> tuple[MemoryTransport, MemoryTransport]:
    """The two ends of a new connection."""
    return _memory_transports(Flag)


def __getattr__(name: str) -> object:
    if name == "emulate":  # It brings aiortc, numpy and Pillow: only for who asks.
        from navtalk_trio.testing.emulator import emulate

        return emulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
