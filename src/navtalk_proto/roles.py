"""Which side of the WebSocket a connection is."""

from __future__ import annotations

from enum import Enum

__all__ = ["Role"]


class Role(Enum):
    """The side of the connection that is ours.

    The client talks to a digital human; the server is one. Both run the same tables
    (see :mod:`navtalk_proto.machines`); only :mod:`navtalk_proto.connection` asks which is ours.
    """

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        """The other side."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT
