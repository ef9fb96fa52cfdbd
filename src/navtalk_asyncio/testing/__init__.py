"""The public test kit for asyncio: no sockets, no media, no real time.

:func:`memory_transports` is a WebSocket without one, :class:`PaperEngine` runs the core's strict
engine, and :func:`run_virtual` runs a coroutine on a loop whose clock jumps to the next timer
instead of waiting for it. Virtual time and real sockets do not mix: a timer fires while a socket
read is pending.

:func:`udp_wire` is a bad network between two peers, :func:`cutter` one for a WebSocket's messages,
:func:`tcp_proxy` one for its bytes; :func:`through` puts a session under them.

For real sockets, :func:`emulator_thread` is a digital human that tests on any loop can talk to;
in an asyncio test ``navtalk_asyncio.emulator.emulate()`` does on the test's own loop. The fixtures
of :mod:`navtalk_asyncio.testing.pytest_plugin` give both kinds to pytest.
"""

from __future__ import annotations

import asyncio

from navtalk_asyncio.testing.cutter import cutter, through
from navtalk_asyncio.testing.emulator_thread import emulator_thread
from navtalk_asyncio.testing.tcp_proxy import TcpProxy, tcp_proxy
from navtalk_asyncio.testing.udp_wire import udp_wire
from navtalk_asyncio.testing.virtual_loop import VirtualClockLoop, run_virtual
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.testing import paper_engine
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.testing.memory_transport import MemoryTransport
from navtalk_proto.testing.memory_transport import memory_transports as _memory_transports

__all__ = [
    "MemoryTransport",
    "PaperEngine",
    "TcpProxy",
    "VirtualClockLoop",
    "cutter",
    "emulator_thread",
    "memory_transports",
    "run_virtual",
    "tcp_proxy",
    "through",
    "udp_wire",
]


class PaperEngine(paper_engine.PaperEngine):
    """A media engine that checks every command and moves no media; see StrictEngine."""

    def __init__(self, callbacks: EngineCallbacks, strict: StrictEngine | None = None) -> None:
        soon = asyncio.get_running_loop().call_soon
        super().__init__(callbacks, soon=soon, flag=asyncio.Event, strict=strict)


def memory_transports() -> tuple[MemoryTransport, MemoryTransport]:
    """The two ends of a new connection."""
    return _memory_transports(asyncio.Event)
