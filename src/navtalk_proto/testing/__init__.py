"""The public test kit of the core: no I/O, no event loop, no real time.

:class:`LinkedPair` joins a client and a server connection by a link that a test can hold, reorder
and cut. :class:`StrictEngine` stands in for a media engine and raises on any step that a real one
would refuse or, worse, get wrong in silence. :class:`VirtualClock` is the time of both.
:class:`Playbook` writes down a conversation with one connection as it should go, and
:class:`ScriptedPeer` is the far end of a session on an adapter.

:class:`UdpWire` and :class:`Cutter` are bad networks, for media and for a WebSocket; the adapters'
kits give them sockets and a loop.
"""

from __future__ import annotations

from navtalk_proto.testing.clock import VirtualClock
from navtalk_proto.testing.cutter import Cutter, CutTransport, Flow
from navtalk_proto.testing.engine import EngineMisuseError, StrictEngine
from navtalk_proto.testing.impairment import FateCounters, Impairment, PacketKind
from navtalk_proto.testing.memory_transport import MemoryTransport, memory_transports
from navtalk_proto.testing.pair import End, Link, LinkedPair
from navtalk_proto.testing.paper_engine import PaperEngine
from navtalk_proto.testing.playbook import Playbook
from navtalk_proto.testing.scripted_peer import ScriptedPeer
from navtalk_proto.testing.udp_wire import Side, UdpWire, WiredTransport

__all__ = [
    # two connections, no loop
    "LinkedPair",
    "End",
    "Link",
    "StrictEngine",
    "EngineMisuseError",
    "VirtualClock",
    "Playbook",
    # under an adapter; navtalk_asyncio.testing and navtalk_trio.testing fit these to their loop
    "MemoryTransport",
    "memory_transports",
    "PaperEngine",
    "ScriptedPeer",
    # bad networks; the same modules fit them to their loop
    "UdpWire",
    "WiredTransport",
    "Side",
    "PacketKind",
    "Impairment",
    "FateCounters",
    "Cutter",
    "CutTransport",
    "Flow",
]
