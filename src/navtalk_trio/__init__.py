"""navtalk for trio: talk to a digital human, or be one.

The same names and signatures as navtalk_asyncio: porting a program is changing the import and the
``run``. Media runs on an asyncio loop in a worker thread (:mod:`navtalk_trio.engine_thread`), which
is started for the first session that has media.
"""

from __future__ import annotations

try:
    from navtalk_trio.client import ClientSession, TransportOpener, connect
    from navtalk_trio.driver import Engine, EngineFactory
    from navtalk_trio.rest import list_avatars, resolve_avatar
    from navtalk_trio.server import Server, ServerHandler, ServerSession, serve, serve_session
    from navtalk_trio.session import Session
except ModuleNotFoundError as _error:
    if _error.name != "trio":
        raise
    raise ImportError("trio is not installed; pip install 'navtalk[trio]'", name="trio") from None
from navtalk_proto.engine import EngineCallbacks, TrackCounters
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
