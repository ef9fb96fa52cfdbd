"""The public test kit of the core: no I/O, no event loop, no real time.

:class:`LinkedPair` joins a client and a server connection by a link that a test can hold, reorder
and cut. :class:`StrictEngine` stands in for a media engine and raises on any step that a real one
would refuse or, worse, get wrong in silence. :class:`VirtualClock` is the time of both.
"""

from __future__ import annotations

from navtalk_proto.testing.clock import VirtualClock
from navtalk_proto.testing.engine import EngineMisuseError, StrictEngine
from navtalk_proto.testing.pair import End, Link, LinkedPair

__all__ = ["End", "EngineMisuseError", "Link", "LinkedPair", "StrictEngine", "VirtualClock"]
