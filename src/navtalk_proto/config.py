"""What a connection is told once, at its start. All times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve, field, frozen, validators

from navtalk_proto.ice import IceServerRule
from navtalk_proto.limits import Limits, ToolLimits
from navtalk_proto.media import (
    PROGRESS_SECONDS,
    Capabilities,
    Direction,
    IcePolicy,
    MediaKind,
    MediaLine,
)
from navtalk_proto.wire.avatar_lookup import ProviderCapabilities
from navtalk_proto.wire.endpoint import Mode
from navtalk_proto.wire.messages import (
    IceServer,
    InputConfig,
    InputFunctionCall,
    JsonObject,
    UserMessage,
)

__all__ = [
    "DEFAULT_ICE_SERVERS",
    "RECEIVE_MEDIA",
    "SEND_MEDIA",
    "ClientConfig",
    "Mode",
    "ServerConfig",
]

DEFAULT_ICE_SERVERS: Final = (IceServer(urls=("stun:stun.l.google.com:19302",)),)
"""Used until connected.success brings a list (seed step 2)."""

RECEIVE_MEDIA: Final = (MediaLine(kind=MediaKind.VIDEO), MediaLine(kind=MediaKind.AUDIO))
"""The human's video and voice; the user's own voice travels over the WebSocket (6.3 item 10)."""

SEND_MEDIA: Final = (
    MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY),
    MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY),
)
"""Video before audio, as the real service offers (protocol.md 5.4)."""

_seconds = validators.gt(0.0)
_watched: Any = validators.optional(validators.ge(2 * PROGRESS_SECONDS))
"""Shorter than two reports of progress, a stall would be told between them."""


@frozen(kw_only=True)
class _Config:
    limits: Limits = field(factory=Limits)
    capabilities: Capabilities = field(factory=Capabilities)
    strict: bool = False
    """Close on the first mistake of the far end instead of dropping and counting it."""
    ice_policy: IcePolicy = IcePolicy.ALL
    close_timeout: float = field(default=3.0, validator=_seconds)
    """How long the closing handshake may take before the transport is dropped."""
    answer_timeout: float = field(default=10.0, validator=_seconds)
    """How long an offer of ours waits for its answer. Some stock clients never answer (6.3)."""
    transport_timeout: float = field(default=20.0, validator=_seconds)
    """How long ICE and DTLS may take after an exchange of descriptions before they count as failed.
    Engines take a minute or longer to say so, or never do. A client's first connection has
    `connect_timeout` instead. A third of the DTLS packets lost took 11 s."""
    idle_timeout: float | None = field(default=None, validator=validators.optional(_seconds))
    """Close when nothing was received for this long; None: never."""


@frozen(kw_only=True)
class ClientConfig(_Config):
    """A client's settings."""

    media: tuple[MediaLine, ...] = RECEIVE_MEDIA
    """The m-lines to receive; empty for a connection without media (``media=False``)."""
    default_ice_servers: tuple[IceServer, ...] = DEFAULT_ICE_SERVERS
    allow_ice_server: IceServerRule | None = None
    """Which of the ICE servers that connected.success names may be contacted; None: the rule that
    docs/ice-servers.md describes, :func:`~navtalk_proto.ice.default_ice_rule`."""
    input_config: InputConfig | None = None
    input_function_call: InputFunctionCall | None = None
    tool_limits: ToolLimits = field(factory=ToolLimits)
    """How many of the functions given as ``connect(tools=...)`` run at once."""
    history: tuple[UserMessage, ...] = ()
    """Earlier user messages, replayed once after session.created (protocol.md 5.9)."""
    welcome_timeout: float = field(default=10.0, validator=_seconds)
    """From the open transport to connected.success."""
    setup_timeout: float = field(default=15.0, validator=_seconds)
    """From connected.success to session.updated; restarted by session.created."""
    connect_timeout: float = field(default=30.0, validator=_seconds)
    """From the open transport to READY and flowing media."""
    media_start_timeout: float | None = field(default=10.0, validator=_watched)
    """How long a negotiated track may take to send its first packet before MediaNotStarted; None:
    not told."""
    stall_timeout: float | None = field(default=2.0, validator=_watched)
    """Silence of a track that was flowing before MediaStalled; None: stalls are not looked for."""
    stall_give_up: float | None = field(default=10.0, validator=_watched)
    """Silence of a track, from its last packet, before MediaLost; None: never. Longer than a short
    blackout, after which media comes back by itself."""
    end_on_media_loss: bool = False
    """Whether MediaLost ends the session. The conversation works without media, so by default it
    goes on; a client that reconnects wants the end."""
    freeze_timeout: float | None = field(default=5.0, validator=_watched)
    """How long a decoded picture may stay the same before PictureFrozen; None: not looked for."""
    mode: Mode = Mode.NORMAL
    """In the other modes the session is READY at connected.success: session.created and updated are
    not documented there, and mean nothing when they come."""
    response_timeout: float = field(default=30.0, validator=_seconds)
    """How long an answer that was asked for may take to begin, and then to go on."""
    speech_rate: float = field(default=15.0, validator=_seconds)
    """Characters a second that the human speaks: what an interrupted answer's `heard` is reckoned
    by, because no message tells when its voice ends. English has about 150 words a minute."""
    provider: ProviderCapabilities | None = None
    """What the avatar's provider takes, where it was looked up; None: not known, all is allowed."""
    farewell_timeout: float = field(default=2.0, validator=_seconds)
    """How long a server that refused a running session may take to close it."""

    def __attrs_post_init__(self) -> None:
        for message in (self.input_config, self.input_function_call):
            if self.provider is not None and message is not None:
                self.provider.check(message)

    def configured(
        self,
        *,
        media: bool | Sequence[MediaLine] = True,
        voice: str | None = None,
        prompt: str | None = None,
        tools: Sequence[JsonObject] = (),
        history: Sequence[UserMessage] = (),
        mode: Mode = Mode.NORMAL,
    ) -> ClientConfig:
        """This configuration with what an adapter's ``connect()`` was given; that wins.

        `media` False means none, True this configuration's own (or the default ones). `voice` and
        `prompt` replace one field each, so does a `mode` other than NORMAL; `tools` and `history`
        replace the whole list.
        """
        config = self
        if media is False:
            config = evolve(config, media=())
        elif media is not True:
            config = evolve(config, media=tuple(media))
        elif not config.media:
            config = evolve(config, media=RECEIVE_MEDIA)
        if voice is not None or prompt is not None:
            own = config.input_config or InputConfig()
            config = evolve(
                config,
                input_config=evolve(
                    own,
                    voice=own.voice if voice is None else voice,
                    prompt=own.prompt if prompt is None else prompt,
                ),
            )
        if tools:
            config = evolve(config, input_function_call=InputFunctionCall(tools=tuple(tools)))
        if history:
            config = evolve(config, history=tuple(history))
        if mode is not Mode.NORMAL:
            config = evolve(config, mode=mode)
        return config


@frozen(kw_only=True)
class ServerConfig(_Config):
    """A server's settings."""

    media: tuple[MediaLine, ...] = SEND_MEDIA
    """The m-lines to offer; empty for a connection without media."""
    ice_servers: tuple[IceServer, ...] = ()
    """What our own peer connection uses; what the client gets is in ConnectedSuccess."""
