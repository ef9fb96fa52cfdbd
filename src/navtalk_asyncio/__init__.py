"""navtalk for asyncio: talk to a digital human, or be one.

::

    async with navtalk_asyncio.connect(Endpoint(license=..., name="navtalk.Leo")) as session:
        await session.send_text("Hello!")
        async for frame in session.video:
            ...

:func:`connect` is the client, :func:`serve` the server. Messages, events and errors are the core's
(:mod:`navtalk_proto`). The WebSocket library and the media engine are imported at first use.
"""

from __future__ import annotations

from navtalk_asyncio.client import ClientSession, TransportOpener, connect
from navtalk_asyncio.media.interface import Engine, EngineCallbacks, EngineFactory, TrackCounters
from navtalk_asyncio.rest import list_avatars, resolve_avatar
from navtalk_asyncio.server import (
    Server,
    ServerHandler,
    ServerSession,
    serve,
    serve_session,
)
from navtalk_asyncio.session import Session
from navtalk_proto.history import History
from navtalk_proto.transport import Transport, TransportClosedError
from navtalk_proto.wire.avatar_lookup import AvatarDetail
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.plain_http import HttpHandler, HttpReply, HttpRequest

__all__ = [
    # talk to a human
    "connect",
    "ClientSession",
    "Endpoint",
    "History",
    "resolve_avatar",
    "list_avatars",
    "AvatarDetail",
    # be one
    "serve",
    "serve_session",
    "Server",
    "ServerHandler",
    "ServerSession",
    "HttpHandler",
    "HttpReply",
    "HttpRequest",
    # both
    "Session",
    # replaceable parts
    "Transport",
    "TransportClosedError",
    "TransportOpener",
    "Engine",
    "EngineCallbacks",
    "EngineFactory",
    "TrackCounters",
]
