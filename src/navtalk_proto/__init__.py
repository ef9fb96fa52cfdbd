"""navtalk's protocol core: a NavTalk session as a state machine, without I/O, clock or threads.

:class:`Connection` takes what happens and gives out :mod:`~navtalk_proto.actions`; what the
application learns are :mod:`~navtalk_proto.events`, what it asks for are
:mod:`~navtalk_proto.intents`, and what is on the wire are :mod:`~navtalk_proto.wire.messages`.
The adapters navtalk_asyncio and navtalk_trio drive it; so can any code that has a WebSocket.
"""

from __future__ import annotations

from navtalk_proto import actions, events, intents, media
from navtalk_proto.config import (
    DEFAULT_ICE_SERVERS,
    RECEIVE_MEDIA,
    SEND_MEDIA,
    ClientConfig,
    ServerConfig,
)
from navtalk_proto.connection import Connection, Counters
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarLookupTimeoutError,
    AvatarNotFoundError,
    AvatarReplyError,
    BackendRefusedError,
    BufferOverrunError,
    ConnectError,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    EndpointError,
    GpuFullError,
    HandshakeRefusedError,
    HistoryError,
    InsufficientBalanceError,
    LicenseRefusedError,
    LocalProtocolError,
    MalformedMessageError,
    MediaError,
    NavTalkError,
    NotReadyError,
    ObsoleteProtocolError,
    ProtocolViolatedError,
    ProxyRefusedError,
    RefusalKind,
    RefusedError,
    SessionClosedError,
    SessionLostError,
    ToolError,
    ToolFailedError,
    UnsupportedByProviderError,
)
from navtalk_proto.history import CallEntry, Ending, History, HumanTurn, Turn
from navtalk_proto.limits import Limits, ToolLimits
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.tools.schema import OnInterrupt, Tool, tool
from navtalk_proto.wire import messages
from navtalk_proto.wire.avatar_lookup import AvatarDetail, LicensePlace, ProviderCapabilities
from navtalk_proto.wire.endpoint import Endpoint, RequestTarget

__all__ = [
    # the machine
    "Connection",
    "Counters",
    "State",
    "Role",
    "ClientConfig",
    "ServerConfig",
    "Limits",
    "ReconnectPolicy",
    "Secret",
    "DEFAULT_ICE_SERVERS",
    "RECEIVE_MEDIA",
    "SEND_MEDIA",
    # tools
    "tool",
    "Tool",
    "OnInterrupt",
    "ToolLimits",
    # the vocabulary
    "actions",
    "events",
    "intents",
    "media",
    "messages",
    "Endpoint",
    "RequestTarget",
    # what was said
    "History",
    "Turn",
    "HumanTurn",
    "CallEntry",
    "Ending",
    # whom to talk to
    "AvatarDetail",
    "LicensePlace",
    "ProviderCapabilities",
    # errors
    "NavTalkError",
    "LocalProtocolError",
    "NotReadyError",
    "SessionClosedError",
    "SessionLostError",
    "MalformedMessageError",
    "EndpointError",
    "ConnectError",
    "ConnectFailedError",
    "HandshakeRefusedError",
    "ProxyRefusedError",
    "ObsoleteProtocolError",
    "ProtocolViolatedError",
    "ConnectTimeoutError",
    "MediaError",
    "BufferOverrunError",
    "RefusedError",
    "ConnectRefusedError",
    "InsufficientBalanceError",
    "ConnectionLimitExceededError",
    "GpuFullError",
    "BackendRefusedError",
    "RefusalKind",
    "ToolError",
    "ToolFailedError",
    "UnsupportedByProviderError",
    "HistoryError",
    "AvatarLookupError",
    "AvatarNotFoundError",
    "LicenseRefusedError",
    "AvatarLookupFailedError",
    "AvatarLookupTimeoutError",
    "AvatarReplyError",
]
