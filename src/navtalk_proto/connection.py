"""One session as a state machine without I/O: text and times in, actions out.

An adapter makes one :class:`Connection` per WebSocket and never reuses it. It feeds what happens
(transport, messages, media completions, timeouts, the application's intents), takes
:meth:`Connection.actions` after each input, and carries them out in order. It owns one timer, set
to :meth:`Connection.next_timeout`.

This is the only file that knows which role is ours. The order of a session is in
:mod:`navtalk_proto.machines.lifecycle`, the exchange of descriptions in
:mod:`navtalk_proto.machines.negotiation`, what is said in
:mod:`navtalk_proto.machines.conversation`; they are tables, and this file carries out what the
edges of the first two name.
"""

from __future__ import annotations

from typing import Final, TypeAlias, assert_never, cast, get_args

from attrs import define

from navtalk_proto.actions import (
    AbortTransport,
    Action,
    CloseTransport,
    Emit,
    MediaResult,
    ResetPeer,
    SendText,
    SetRemote,
)
from navtalk_proto.config import ClientConfig, Mode, ServerConfig
from navtalk_proto.construct import positional
from navtalk_proto.errors import (
    LocalProtocolError,
    MalformedMessageError,
    NotReadyError,
    SessionClosedError,
)
from navtalk_proto.events import (
    BinaryIgnored,
    CloseCause,
    Closed,
    ConfigUpdated,
    Connected,
    ConnectFailed,
    Event,
    MediaLost,
    MessageReceived,
    Negotiated,
    NegotiationFailed,
    Notice,
    OutOfOrder,
    PeerClosing,
    ProtocolViolation,
    Ready,
    Refused,
    ServerWarning,
    TimedOut,
    UnknownMessage,
    Usable,
)
from navtalk_proto.ice import any_ice_server
from navtalk_proto.intents import Close, Intent, Negotiate, SayText, SendAudio
from navtalk_proto.machines import negotiation
from navtalk_proto.machines.conversation import Conversation
from navtalk_proto.machines.lifecycle import Edge, Effect, Input, Lifecycle, Local, State, Verdict
from navtalk_proto.machines.media_flow import TIMERS as FLOW_TIMERS
from navtalk_proto.machines.media_flow import MediaFlow
from navtalk_proto.machines.negotiation import Negotiation
from navtalk_proto.media import (
    ConsentRefreshed,
    Direction,
    IceServerFailed,
    LocalCandidate,
    MediaEvent,
    MediaLine,
    MediaProgress,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    NegotiationNeeded,
    OpId,
    TrackAdded,
)
from navtalk_proto.refusals import REFUSAL_CLOSES, REFUSALS, refusal_in, refusal_of
from navtalk_proto.roles import Role
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire import codec, obsolete
from navtalk_proto.wire.audio import HOLD_SECONDS, FrameAssembler
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioClear,
    AudioCommit,
    ClientMessage,
    ConnectedClose,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    Description,
    GatewayHello,
    IceCandidate,
    IceRestartRequest,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    Message,
    Offer,
    ResponseCreate,
    ServerMessage,
    SessionCreated,
    SessionUpdated,
    Unknown,
    UserMessage,
)
from navtalk_proto.wire.sdp import check_description

__all__ = ["Connection", "Counters", "check_close"]

_CLOSE_CODES: Final = frozenset({1000, 1001, 1008, 1011, 1013})
_CLOSE_REASON_BYTES: Final = 123
"""RFC 6455 section 5.5: a control frame carries at most 125 bytes, two are the code."""

_INPUTS: Final[dict[type, Input]] = {
    **dict.fromkeys(get_args(ServerMessage), Input.S_CONVERSATION),
    **dict.fromkeys(get_args(ClientMessage), Input.C_ITEM),
    Unknown: Input.UNKNOWN,
    ConnectedWarning: Input.S_WARNING,
    ConnectedClose: Input.S_GOODBYE,
    SessionCreated: Input.S_CREATED,
    SessionUpdated: Input.S_UPDATED,
    InputConfig: Input.C_CONFIG,
    InputFunctionCall: Input.C_CONFIG,
    GatewayHello: Input.C_CONFIG,
    AudioAppend: Input.C_MEDIA,
    AudioClear: Input.C_MEDIA,
    AudioCommit: Input.C_MEDIA,
    InputImage: Input.C_MEDIA,
    IceRestartRequest: Input.C_ITEM,
    **dict.fromkeys(REFUSALS, Input.S_REFUSAL),
    **dict.fromkeys((Offer, Answer, IceCandidate), Input.SIGNALING),
}
"""Message classes to inputs. ConnectedSuccess is none: it depends on whether there was one."""
del _INPUTS[ConnectedSuccess]

_INPUTS_WITHOUT_TURNS: Final = _INPUTS | dict.fromkeys(
    # Said, and of no meaning: READY does not wait for them.
    (SessionCreated, SessionUpdated),
    Input.S_CONVERSATION,
)
"""The same in the modes without turns."""

_TURNS: Final = (UserMessage, InputText, InputImage, ResponseCreate)
"""What asks for an answer, or is a part of what one is given to: of no use where the caller brings
the human's speech (protocol.md 6.2)."""

_TIMER_INPUTS: Final[dict[Timer, Input]] = {
    Timer.WELCOME: Input.T_WELCOME,
    Timer.SETUP: Input.T_SETUP,
    Timer.CONNECT: Input.T_CONNECT,
    Timer.FAREWELL: Input.T_FAREWELL,
    Timer.IDLE: Input.T_IDLE,
    Timer.CLOSE: Input.T_CLOSE,
}

_WAITING_FOR: Final[dict[State, str]] = {
    State.WELCOMING: "connected.success",
    State.OPENING: "session.created",
    State.CONFIGURING: "session.updated",
}

_OVER: Final = frozenset({State.CLOSING, State.CLOSED})

_SIGNALING: Final = (Offer, Answer, IceCandidate)
_SENT: Final = frozenset(_SIGNALING)
_DESCRIPTION: Final = (Offer, Answer)
_DESCRIPTIONS: Final = frozenset(_DESCRIPTION)
_FOLLOWED: Final = frozenset({Answer, SetRemote, Emit, ResetPeer})
"""What of the negotiation's output may change what media is to be received."""

_MESSAGE: Final = Effect.MESSAGE
"""What most edges do: looked up in its class once, not with every message."""

_emit: Final = positional(Emit)
_message_received: Final = positional(MessageReceived)
_send_text: Final = positional(SendText)

_Encoded: TypeAlias = tuple[Message, str]
"""A message and its JSON text."""

_SENDERS: Final[dict[type, Role]] = {
    **dict.fromkeys(get_args(ServerMessage), Role.SERVER),
    **dict.fromkeys(get_args(ClientMessage), Role.CLIENT),
}
"""Who may send a message class. Signaling is in both and is handled apart."""


@define
class Counters:
    """What a connection counted. Nothing that is dropped goes uncounted."""

    received: int = 0
    sent: int = 0
    violations: int = 0
    out_of_order: int = 0
    unknown: int = 0
    binary: int = 0
    ignored: int = 0
    """Messages and requests after the close began."""
    stale_completions: int = 0
    """Media completions of operations that nobody waits for any more."""
    unsent: int = 0
    """Candidates of ours that were not sent: too many waited for the description they belong to."""
    late: int = 0
    """Conversation messages for an answer or a call that had ended, or never was."""
    calls_forgotten: int = 0
    """Function calls that can be answered no more: more than ``Limits.calls`` others came since."""
    audio_dropped: int = 0
    """Bytes of SendAudio that were held for a frame when AudioClear, or the end, came."""


def check_close(intent: Close) -> None:
    """Raise LocalProtocolError for a close code or reason that no connection sends."""
    if intent.code not in _CLOSE_CODES and not 3000 <= intent.code <= 4999:
        raise LocalProtocolError(f"close code {intent.code} is not for applications")
    if len(intent.reason.encode("utf-8", "replace")) > _CLOSE_REASON_BYTES:
        raise LocalProtocolError(f"a close reason has at most {_CLOSE_REASON_BYTES} bytes")


class Connection:
    """The protocol state of one WebSocket, client or server.

    Inputs return None and take `now`, the adapter's monotonic seconds, which never go back: a
    smaller value raises ValueError. What the far end sends never makes an input raise.
    """

    def __init__(self, role: Role, config: ClientConfig | ServerConfig, *, now: float) -> None:
        if isinstance(config, ClientConfig) is not (role is Role.CLIENT):
            raise TypeError(f"a {role.value} does not take a {type(config).__name__}")
        self._role = role
        self._peer = role.peer
        self._config = config
        self._limits = config.limits
        self._now = now
        self._timers = Timers()
        self._lifecycle = Lifecycle()
        client = config if isinstance(config, ClientConfig) else None
        self._durations: dict[Timer, float] = {
            Timer.CLOSE: config.close_timeout,
            Timer.TRANSPORT: config.transport_timeout,
        }
        if config.idle_timeout is not None:
            self._durations[Timer.IDLE] = config.idle_timeout
        if client is not None:
            self._durations |= {
                Timer.WELCOME: client.welcome_timeout,
                Timer.SETUP: client.setup_timeout,
                Timer.CONNECT: client.connect_timeout,
                Timer.FAREWELL: client.farewell_timeout,
                Timer.AUDIO: HOLD_SECONDS,
            }
        self._negotiation = Negotiation(
            polite=role is Role.CLIENT,
            media=config.media,
            ice_servers=(
                config.default_ice_servers
                if isinstance(config, ClientConfig)
                else config.ice_servers
            ),
            policy=config.ice_policy,
            capabilities=config.capabilities,
            limits=config.limits,
            answer_timeout=config.answer_timeout,
            timers=self._timers,
            # A server's list is its own; a client's is what the far end named.
            allow_ice_server=any_ice_server if client is None else client.allow_ice_server,
        )
        self._mode = Mode.NORMAL if client is None else client.mode
        self._inputs = _INPUTS if self._mode is Mode.NORMAL else _INPUTS_WITHOUT_TURNS
        self._conversation = (
            None
            if client is None
            else Conversation(
                limits=config.limits,
                response_timeout=client.response_timeout,
                speech_rate=client.speech_rate,
                timers=self._timers,
            )
        )
        self._flow = (
            None
            if client is None
            else MediaFlow(
                start_timeout=client.media_start_timeout,
                stall_timeout=client.stall_timeout,
                give_up=client.stall_give_up,
                freeze_timeout=client.freeze_timeout,
                tracks=config.limits.m_lines,
                timers=self._timers,
            )
        )
        receives = (Direction.RECVONLY, Direction.SENDRECV)
        self._receives_media = any(line.direction in receives for line in config.media)
        self._end_on_media_loss = client is not None and client.end_on_media_loss
        self._actions: list[Action] = []
        self._counters = Counters()
        self._audio = FrameAssembler()
        self._early: list[_Encoded] = []
        """Configuration for the moment the transport opens."""
        self._waiting: list[_Encoded] = []
        """What waits for READY."""
        self._history: list[_Encoded] = []
        """What waits for session.created."""
        # Encoded here: what cannot be sent must raise where it is given, not while receiving.
        if client is not None:
            for config_message in (client.input_config, client.input_function_call):
                if config_message is not None:
                    self._early.append((config_message, self._encode(config_message)))
            self._history += ((item, self._encode(item)) for item in client.history)
        self._session_id: str | None = None
        self._media_state = MediaState.NEW
        self._media_started = False
        self._usable = False
        self._cause: CloseCause | None = None
        self._close_sent: tuple[int, str] | None = None

    # ---- what an adapter may ask

    @property
    def role(self) -> Role:
        """Our side."""
        return self._role

    @property
    def config(self) -> ClientConfig | ServerConfig:
        """What it was told at its start."""
        return self._config

    @property
    def state(self) -> State:
        """The lifecycle state."""
        return self._lifecycle.state

    @property
    def negotiation_state(self) -> negotiation.State:
        """The negotiation state."""
        return self._negotiation.state

    @property
    def media_state(self) -> MediaState:
        """The media connection's last reported state."""
        return self._media_state

    @property
    def session_id(self) -> str | None:
        """The session's id once connected.success was received (or sent)."""
        return self._session_id

    @property
    def pending_calls(self) -> tuple[str, ...]:
        """The ids of the function calls that wait for our answer, oldest first."""
        return () if self._conversation is None else self._conversation.pending_calls

    @property
    def wishes(self) -> int:
        """How many wishes were taken so far, ours and the engine's; events name them by number."""
        return self._negotiation.wishes

    def carries(self, media: tuple[MediaLine, ...]) -> bool:
        """Whether the far end's last applied description lets these m-lines flow, whatever codec.

        For who has agreed on them in an earlier session, and may have to offer them in this one.
        """
        return self._negotiation.carries(media)

    def check(self, message: Message) -> None:
        """Raise LocalProtocolError for a message that no state lets us send; nothing changes.

        It is larger than the far end takes, or the avatar's provider does not take it.
        """
        self._encode(message)

    @property
    def usable(self) -> bool:
        """Whether Usable was told and the session has not ended."""
        return self._usable and self.state is State.READY

    @property
    def waiting_for(self) -> str:
        """The step that has to happen next before the session is usable, in words."""
        if self.state in _WAITING_FOR:
            return _WAITING_FOR[self.state]
        if self._media_state is MediaState.CONNECTED:
            return "the first media packet"
        if self._media_state is MediaState.ICE_CONNECTED:
            return "DTLS"
        if (
            self._media_state is MediaState.NEW
            and not self._negotiation.exchanged
            and (self._negotiation.state in (negotiation.State.NO_PEER, negotiation.State.STABLE))
        ):
            return "the offer"
        if self._negotiation.state in (
            negotiation.State.HAVE_LOCAL_OFFER,
            negotiation.State.OFFER_EXPIRED,
        ):
            return "the answer"
        return "ICE"

    @property
    def counters(self) -> Counters:
        """What was counted so far; a live object."""
        self._counters.stale_completions = self._negotiation.stale_completions
        self._counters.unsent = self._negotiation.unsent
        if self._conversation is not None:
            self._counters.late = self._conversation.late
            self._counters.calls_forgotten = self._conversation.calls_forgotten
        return self._counters

    def __repr__(self) -> str:
        return (
            f"<Connection {self._role.value} {self.state.value}, "
            f"negotiation {self._negotiation.state.value}, media {self._media_state.value}>"
        )

    # ---- outputs

    def actions(self) -> list[Action]:
        """Take the actions that came about since the last call, in causal order."""
        taken, self._actions = self._actions, []
        return taken

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`; None: no timer runs."""
        return self._timers.next()

    # ---- inputs: the transport

    def transport_opened(self, *, now: float) -> None:
        """The WebSocket handshake is done."""
        self._advance(now)
        self._require(Input.OPENED)
        self._end_input()

    def receive_text(self, text: str | bytes, *, now: float) -> None:
        """One whole WebSocket text message was received."""
        if now < self._now:
            self._advance(now)
        self._now = now
        self._counters.received += 1
        if self._config.idle_timeout is not None and self._timers.armed(Timer.IDLE):
            self._arm(Timer.IDLE)
        if self._lifecycle.state in _OVER:
            # Not decoded: what crossed our close is not worth a parse, nor a violation.
            self._counters.ignored += 1
            return
        try:
            message = codec.decode(text, sender=self._peer, limits=self._limits)
            sdp = (
                check_description(cast("Description", message), self._limits)
                if type(message) in _DESCRIPTIONS
                else None
            )
        except MalformedMessageError as error:
            self._violation(
                error.reason,
                type=error.type,
                field=error.field,
                close=(1009, "message too big")
                if isinstance(error, codec.OversizedMessageError)
                else None,
            )
            self._end_input()
            return
        kind = self._inputs.get(type(message)) or self._input_of(message)
        edge = self._lifecycle.look(kind)
        if type(message) is Unknown and self._is_obsolete(message):
            if self._role is Role.SERVER:
                self._send_message(ConnectedFail(message=obsolete.REASON))  # E8: told, then closed.
            self._violation(obsolete.REASON, type=message.type, close=(1002, "protocol version 1"))
        elif type(edge) is not Edge:
            self._violation(f"not expected in state {self.state.value}", type=_type(message))
        elif not edge.out_of_order or self._tolerate(message):
            if edge.state is not self._lifecycle.state or edge.start or edge.stop:
                self._move(edge)
            if edge.effect is _MESSAGE:
                self._conversed(message)
            elif type(message) is IceCandidate:
                self._negotiation.remote_candidate(message)
            elif sdp is not None:
                assert isinstance(message, _DESCRIPTION)
                self._negotiation.remote_description(message, sdp, now=now)
            else:
                self._received(message, edge)
        self._end_input()

    def _tolerate(self, message: Message | Unknown) -> bool:
        """Tell of a message that came out of order; False: it ended the session."""
        self._counters.out_of_order += 1
        self._emit(OutOfOrder(type=_type(message), state=self.state.value))
        if self._config.strict:
            self._violation("out of order", type=_type(message))
        return self._lifecycle.state not in _OVER

    def receive_binary(self, size: int, *, now: float) -> None:
        """A binary message of `size` bytes was received; v2 has none (protocol.md 2.1)."""
        self._advance(now)
        if self.state in _OVER:
            self._counters.ignored += 1
            return
        if self._timers.armed(Timer.IDLE):
            self._arm(Timer.IDLE)
        self._counters.binary += 1
        self._emit(BinaryIgnored(size=size))

    def transport_closed(
        self, *, code: int | None, reason: str, now: float, violation: bool = False
    ) -> None:
        """The WebSocket is gone; `code` None where no close frame was received.

        `violation`: the transport itself closed it because of the far end's mistake, such as a
        message too big to be read; `reason` says which.
        """
        self._advance(now)
        edge = self._lifecycle.look(Input.LOST)
        if isinstance(edge, Verdict):
            return  # CLOSED already, told once.
        stage = self.state
        self._move(edge)
        if violation:
            self._counters.violations += 1
            self._cause = CloseCause.VIOLATION
            self._emit(ProtocolViolation(reason=reason, fatal=True))
        kind = refusal_in(reason)
        if self._role is Role.CLIENT and kind is not None and self._cause is None:
            self._cause = CloseCause.REFUSED
            if stage is State.READY:
                self._emit(Notice(kind=kind, text=reason))
            else:
                self._emit(Refused(kind=kind, text=reason, retryable=kind.retryable))
        elif edge.effect is Effect.FAILED and self._role is Role.CLIENT:
            self._emit(ConnectFailed(code=code, reason=reason, stage=stage.value))
        self._end_parts()
        self._tell_closed(code, reason)

    # ---- inputs: the application

    def send(self, intent: Intent, *, now: float) -> None:
        """Carry out an intent.

        Raises LocalProtocolError where the protocol does not allow it now (NotReadyError where it
        will later), and SessionClosedError once the session is closing. Nothing changed then.
        """
        if self.state is State.CLOSED or (
            self.state is State.CLOSING and not isinstance(intent, Close)
        ):
            raise SessionClosedError("the session is over")
        match intent:
            case Close():
                check_close(intent)
                self._advance(now)
                self._close(intent)
            case Negotiate():
                if not intent.media:
                    raise LocalProtocolError("a wish for no media cannot be negotiated")
                if not self._negotiation.wants_media:
                    raise LocalProtocolError("this connection was opened without media")
                self._local_edge(Input.WISH)
                self._advance(now)
                self._negotiation.wish(intent.media, now=now)
            case SendAudio():
                self._require_role(Role.CLIENT, intent)
                if len(intent.pcm) % 2:
                    raise LocalProtocolError("PCM16 audio has an even number of bytes")
                self._local_edge(Input.C_MEDIA)
                self._advance(now)
                for piece in self._audio.push(intent.pcm):
                    self._send_message(AudioAppend(audio=piece))
                if self._audio.held and not self._timers.armed(Timer.AUDIO):
                    self._arm(Timer.AUDIO)
            case SayText():
                self._require_role(Role.CLIENT, intent)
                messages: list[Message] = [UserMessage(texts=(intent.text,))]
                if intent.respond:
                    messages.append(ResponseCreate())
                self._send_ours(messages, now)
            case _:
                self._send_ours([intent], now)
        self._end_input()

    # ---- inputs: the media engine

    def media_done(self, op: OpId, result: MediaResult = None, *, now: float) -> None:
        """A media command was carried out. Stale and unknown ids are ignored and counted.

        A result of the wrong type raises LocalProtocolError: the engine is broken, not the call.
        """
        self._advance(now)
        self._negotiation.operation_done(op, result, now=now)
        self._end_input()

    def media_failed(self, op: OpId, reason: str, *, now: float) -> None:
        """A media command could not be carried out."""
        self._advance(now)
        self._negotiation.operation_failed(op, reason, now=now)
        self._end_input()

    def media_event(self, event: MediaEvent, *, now: float) -> None:
        """Something happened to the media on its own."""
        self._advance(now)
        if self.state in _OVER:
            self._counters.ignored += 1
            return
        match event:
            case MediaStateChanged():
                self._media_state_changed(event)
            case TrackAdded():
                self._emit(event)
                if self._flow is not None:
                    self._flow.added(event, now=now)
            case IceServerFailed():
                self._emit(event)
            case MediaStarted():
                self._media_started = True
                self._negotiation.transport_connected()
                self._time_transport()
                self._emit(event)
                if self._flow is not None:
                    self._flow.started(event, now=now)
            case MediaProgress():
                if self._flow is not None:
                    self._flow.progress(event, now=now)
            case ConsentRefreshed():
                if self._flow is not None:
                    self._flow.consent(now=now)
            case LocalCandidate():
                self._negotiation.local_candidate(event.candidate)
            case NegotiationNeeded():
                edge = self._lifecycle.look(Input.WISH)
                if isinstance(edge, Verdict) or edge.local is not Local.SEND:
                    reason = f"the engine's wish came in state {self.state.value}"
                    self._emit(NegotiationFailed(reason=reason, media=event.media))
                elif not event.media or not self._negotiation.wants_media:
                    reason = "the engine's wish names no media, or this connection has none"
                    self._emit(NegotiationFailed(reason=reason, media=event.media))
                else:
                    self._negotiation.wish(event.media, now=now)
            case _:
                assert_never(event)
        self._end_input()

    # ---- inputs: time

    def handle_timeout(self, *, now: float) -> None:
        """Fire what is due. Early and repeated calls are harmless."""
        self._advance(now)
        while (timer := self._timers.pop_due(now)) is not None:
            if timer is Timer.ANSWER:
                self._negotiation.answer_timeout(now=now)
            elif timer is Timer.RESPONSE:
                assert self._conversation is not None
                self._conversation.timeout(now=now)
            elif timer is Timer.TRANSPORT:
                self._transport_timed_out()
            elif timer is Timer.AUDIO:
                self._flush_audio()
            elif timer in FLOW_TIMERS.values():
                assert self._flow is not None
                if self._flow.timeout(now=now) and self._end_on_media_loss:
                    self._end_for_media()
            else:
                waiting_for = "any message" if timer is Timer.IDLE else self.waiting_for
                self._require(_TIMER_INPUTS[timer], timer=timer, waiting_for=waiting_for)
            self._end_input()

    # ---- edges

    def _advance(self, now: float) -> None:
        if now < self._now:
            raise ValueError(f"time went back from {self._now!r} to {now!r}")
        self._now = now

    def _require(self, kind: Input, *, timer: Timer | None = None, waiting_for: str = "") -> None:
        """Take an edge that does not carry a message."""
        edge = self._lifecycle.look(kind)
        if isinstance(edge, Verdict):
            if edge is Verdict.IGNORED:
                self._counters.ignored += 1
                return
            raise LocalProtocolError(f"{kind.value} in state {self.state.value}")
        self._move(edge)
        match edge.effect:
            case Effect.START:
                self._push_all(self._early)
            case Effect.TIMED_OUT:
                assert timer is not None
                self._cause = CloseCause.TIMEOUT
                self._emit(TimedOut(waiting_for=waiting_for, seconds=self._durations[timer]))
                self._close_transport(1000, f"timed out waiting for {waiting_for}")
            case Effect.FAREWELL:
                self._close_transport(1000, "")
            case _:
                assert edge.effect is Effect.FORCE_END
                assert self._close_sent is not None
                self._push(AbortTransport())
                self._tell_closed(*self._close_sent, forced=True)

    def _move(self, edge: Edge) -> None:
        """Take an edge and its timers."""
        if edge.state is not self._lifecycle.state:
            self._lifecycle.take(edge)
            if edge.state in _OVER:
                self._timers.stop_all()
                self._drop_audio()
        if edge.stop:
            self._timers.stop(*edge.stop)
        for timer in edge.start:
            # A repeated refusal must not prolong the farewell; a set-up step starts anew.
            if timer is not Timer.FAREWELL or not self._timers.armed(timer):
                self._arm(timer)

    def _arm(self, timer: Timer) -> None:
        duration = self._durations.get(timer)
        if duration is not None:
            self._timers.arm(timer, self._now + duration)

    def _is_obsolete(self, message: Unknown) -> bool:
        """Whether the far end speaks version 1: a server that welcomes so, a client at any time.

        A server that has welcomed us in version 2 may pass on an event of its upstream as it is.
        """
        welcomed = self._role is Role.CLIENT and self.state is not State.WELCOMING
        return not welcomed and obsolete.is_obsolete(message.type, sender=self._peer)

    def _received(self, message: Message | Unknown, edge: Edge) -> None:
        """Carry out the effect of a message from the far end."""
        match edge.effect:
            case Effect.WELCOME | Effect.WELCOME_READY:
                assert isinstance(message, ConnectedSuccess)
                self._session_id = message.session_id
                if message.ice_servers:
                    self._negotiation.ice_servers = message.ice_servers
                self._emit(
                    Connected(session_id=message.session_id, ice_servers=message.ice_servers)
                )
                if edge.effect is Effect.WELCOME_READY:
                    self._become_ready()
            case Effect.WARN:
                assert isinstance(message, ConnectedWarning)
                self._emit(ServerWarning(text=message.message, avatar_id=message.avatar_id))
            case Effect.REFUSE:
                kind, text = refusal_of(message)
                self._cause = CloseCause.REFUSED
                self._emit(Refused(kind=kind, text=text, retryable=kind.retryable))
                self._close_transport(1000, "")
            case Effect.NOTICE:
                kind, text = refusal_of(message)
                self._cause = CloseCause.REFUSED
                self._emit(Notice(kind=kind, text=text))
            case Effect.GOODBYE:
                assert isinstance(message, ConnectedClose)
                self._cause = CloseCause.REMOTE
                self._emit(PeerClosing(text=message.message))
                self._close_transport(1000, "")
            case Effect.CREATED:
                self._push_all(self._history)
            case Effect.READY:
                self._push_all(self._history)
                self._become_ready()
            case _:
                assert edge.effect is Effect.RECONFIGURED
                self._emit(ConfigUpdated())

    def _conversed(self, message: Message | Unknown) -> None:
        """Pass on a message of the far end that is neither signaling nor a step of the set-up."""
        if isinstance(message, Unknown):
            self._counters.unknown += 1
            self._emit(UnknownMessage(type=message.type, raw=message.raw))
            return
        self._actions.append(_emit(_message_received(message)))
        if self._conversation is not None:
            wrong = self._conversation.received(message, now=self._now)
            if wrong is not None:
                self._violation(wrong, type=_type(message))

    def _send_ours(self, messages: list[Message], now: float) -> None:
        """Send, or queue, messages of ours. All or none."""
        edges = []
        for message in messages:
            if isinstance(message, _SIGNALING):
                raise LocalProtocolError("signaling is sent by the negotiation, not by hand")
            sender = _SENDERS.get(type(message))
            if sender is not self._role:
                raise LocalProtocolError(
                    f"a {self._role.value} does not send {type(message).__name__}"
                )
            if self._mode is not Mode.NORMAL and isinstance(message, _TURNS):
                raise LocalProtocolError(
                    f"{self._mode.value} mode has no turns: what the human is to say is sent as "
                    f"voice, with send_audio(); {message.TYPE} would never be answered"
                )
            edge = self._local_edge(self._input_of(message))
            edges.append(edge)
            if self._conversation is not None:
                self._conversation.check(message)
        texts = [self._encode(message) for message in messages]
        if any(edge.local is Local.QUEUE for edge in edges):
            queued = [text for _, text in (*self._early, *self._waiting)] + texts
            if len(queued) > self._limits.queued_intents:
                raise LocalProtocolError(f"more than {self._limits.queued_intents} intents wait")
            if sum(map(len, queued)) > self._limits.queued_bytes:
                raise LocalProtocolError(
                    f"more than {self._limits.queued_bytes} characters of JSON wait"
                )
        self._advance(now)
        for message, edge, text in zip(messages, edges, texts, strict=True):
            if self._conversation is not None:
                self._conversation.accepted(message)
            if edge.local is Local.QUEUE:
                config = self._input_of(message) is Input.C_CONFIG
                (self._early if config else self._waiting).append((message, text))
            else:
                self._sending(message, edge, text)

    def _sending(self, message: Message, edge: Edge, text: str) -> None:
        """Carry out the effect of a message of ours."""
        was = self.state
        self._move(edge)
        self._push_text(text, message)
        if self._conversation is not None:
            self._conversation.sent(message, now=self._now)
        match edge.effect:
            case Effect.WELCOME:
                assert isinstance(message, ConnectedSuccess)
                self._session_id = message.session_id
            case Effect.REFUSE | Effect.NOTICE:
                kind, _ = refusal_of(message)
                self._cause = CloseCause.LOCAL
                code, reason = REFUSAL_CLOSES[kind]
                if was is State.READY:
                    self._close(Close(code=code, reason=reason))
                else:
                    self._close_transport(code, reason)
            case Effect.GOODBYE:
                self._cause = CloseCause.LOCAL
                self._close_transport(1000, "")
            case Effect.READY:
                self._become_ready()
            case _:
                pass  # WARN, CREATED, RECONFIGURED, MESSAGE: the message is all there is.

    def _require_role(self, role: Role, intent: Intent) -> None:
        if self._role is not role:
            raise LocalProtocolError(f"a {self._role.value} does not {type(intent).__name__}")

    def _local_edge(self, kind: Input) -> Edge:
        """The edge for something of ours, or the error that says why there is none."""
        edge = self._lifecycle.look(kind)
        if isinstance(edge, Verdict) or edge.out_of_order:
            raise LocalProtocolError(f"{kind.value} cannot be sent in state {self.state.value}")
        if edge.local is Local.TOO_EARLY:
            raise NotReadyError(f"{kind.value}: the session is not ready ({self.state.value})")
        return edge

    def _become_ready(self) -> None:
        self._emit(Ready())
        self._push_all(self._waiting, said=True)

    # ---- the end

    def _close(self, intent: Close) -> None:
        edge = self._lifecycle.look(Input.CLOSE)
        if isinstance(edge, Verdict):
            self._counters.ignored += 1
            return
        self._flush_audio()
        self._move(edge)
        if self._cause is None:
            self._cause = CloseCause.LOCAL
        if edge.effect is Effect.END:
            self._tell_closed(None, intent.reason)
        else:
            self._close_transport(intent.code, intent.reason)

    def _close_transport(self, code: int, reason: str) -> None:
        """CLOSING began: what is said ends, the peer connection, then the socket."""
        self._end_parts()
        self._close_sent = (code, reason)
        self._push(CloseTransport(code=code, reason=reason))

    def _end_for_media(self) -> None:
        """Media did not come back: MediaLost was told, and ends the session."""
        assert self._flow is not None
        lost = [event for event in self._flow.out if isinstance(event, MediaLost)]
        self._take_parts()
        edge = self._lifecycle.look(Input.MEDIA_LOST)
        assert isinstance(edge, Edge)
        self._flush_audio()
        self._move(edge)
        self._cause = CloseCause.MEDIA_LOST
        self._close_transport(1000, f"no {lost[0].kind.value} for {lost[0].silent_for:.0f} s")

    def _lose_peer(self) -> None:
        self._media_started = False
        if self._flow is not None:
            self._flow.peer_gone()

    def _media_state_changed(self, event: MediaStateChanged) -> None:
        self._media_state = event.state
        self._emit(event)
        if event.state is MediaState.CONNECTED:
            self._negotiation.transport_connected()
            if self._flow is not None:
                self._flow.connected(now=self._now)
        elif event.state is MediaState.FAILED:
            self._lose_peer()
            self._negotiation.transport_failed(now=self._now)
        elif event.state is MediaState.CLOSED:
            self._lose_peer()
            self._negotiation.peer_closed(now=self._now)
        self._time_transport()

    def _time_transport(self) -> None:
        """A new transport has a deadline of its own once the session was usable."""
        if not self._negotiation.unconnected or self._timers.armed(Timer.CONNECT):
            self._timers.stop(Timer.TRANSPORT)
        elif not self._timers.armed(Timer.TRANSPORT):
            self._arm(Timer.TRANSPORT)

    def _transport_timed_out(self) -> None:
        """The engine did not say that its transport failed, as far as it got: we do."""
        step = "DTLS" if self._media_state is MediaState.ICE_CONNECTED else "ICE"
        reason = f"{step} took longer than {self._durations[Timer.TRANSPORT]:g} s"
        self._media_state_changed(MediaStateChanged(state=MediaState.FAILED, reason=reason))

    def _end_parts(self) -> None:
        if self._conversation is not None:
            self._conversation.close(now=self._now)
        self._negotiation.close(now=self._now)
        self._take_parts()

    def _tell_closed(self, code: int | None, reason: str, *, forced: bool = False) -> None:
        self._timers.stop_all()
        cause = self._cause or CloseCause.REMOTE
        self._emit(Closed(cause=cause, code=code, reason=reason, forced=forced))

    def _violation(
        self,
        reason: str,
        *,
        type: str | None = None,
        field: str | None = None,
        close: tuple[int, str] | None = None,
    ) -> None:
        self._counters.violations += 1
        if close is None and (
            self._config.strict or self._counters.violations > self._limits.violations
        ):
            close = (1002, "protocol violation")
        self._emit(
            ProtocolViolation(reason=reason, type=type, field=field, fatal=close is not None)
        )
        if close is None:
            return
        edge = self._lifecycle.look(Input.FATAL)
        assert isinstance(edge, Edge)
        self._move(edge)
        self._cause = CloseCause.VIOLATION
        if edge.effect is Effect.END:
            self._tell_closed(None, reason)
        else:
            self._close_transport(*close)

    # ---- output

    def _end_input(self) -> None:
        """What every input ends with: the machines' output, and the one-time Usable."""
        self._take_parts()
        if not self._usable and self.state is State.READY and self._media_is_there():
            self._usable = True
            self._timers.stop(Timer.CONNECT)
            self._emit(Usable())

    def _media_is_there(self) -> bool:
        if not self._negotiation.wants_media:
            return True
        if self._receives_media:
            return self._media_started
        return self._media_state is MediaState.CONNECTED

    def _take_parts(self) -> None:
        if self._conversation is not None and self._conversation.out:
            events, self._conversation.out = self._conversation.out, []
            self._actions += map(_emit, events)
        if self._negotiation.out:
            out, self._negotiation.out = self._negotiation.out, []
            for output in out:
                kind = type(output)
                if kind not in _SENT:
                    self._actions.append(output)  # type: ignore[arg-type]
                else:
                    self._send_message(output)  # type: ignore[arg-type]
                if kind in _FOLLOWED and self._flow is not None:
                    self._follow(self._flow, output)
            if self._lifecycle.state not in _OVER:
                self._time_transport()
        if self._flow is not None and self._flow.out:
            flow_events, self._flow.out = self._flow.out, []
            self._actions += map(_emit, flow_events)

    def _follow(self, flow: MediaFlow, output: negotiation.Output) -> None:
        """Let the watch of media know what is negotiated."""
        match output:
            case Answer():
                try:
                    flow.answered(check_description(output, self._limits).medias, ours=True)
                except MalformedMessageError:
                    # What an engine wrote is sent as it is; unread, it puts nothing on hold.
                    flow.answered((), ours=True)
            case SetRemote(description=Answer() as answer):
                flow.answered(check_description(answer, self._limits).medias, ours=False)
            case Emit(event=Negotiated()):
                flow.exchanged(now=self._now)
            case ResetPeer():
                flow.peer_gone()
            case _:
                pass  # It changes nothing about what is received.

    def _input_of(self, message: Message | Unknown) -> Input:
        kind = self._inputs.get(type(message))
        if kind is not None:
            return kind
        assert isinstance(message, ConnectedSuccess)
        if self._session_id is not None:
            return Input.S_SUCCESS_AGAIN
        return Input.S_SUCCESS if self._mode is Mode.NORMAL else Input.S_SUCCESS_READY

    def _encode(self, message: Message) -> str:
        if isinstance(self._config, ClientConfig) and self._config.provider is not None:
            self._config.provider.check(message)
        text = codec.encode(message)
        limit = (
            self._limits.client_message
            if self._role is Role.CLIENT
            else self._limits.server_message
        )
        size = len(text.encode())
        if size > limit:
            raise LocalProtocolError(f"{message.TYPE} of {size} bytes is over the limit of {limit}")
        return text

    def _send_message(self, message: Message) -> None:
        self._push_text(codec.encode(message), message)

    def _push_all(self, queue: list[_Encoded], *, said: bool = False) -> None:
        """Send a queue and empty it; `said`: its messages are of this conversation."""
        for message, text in queue:
            self._push_text(text, message)
            if said and self._conversation is not None:
                self._conversation.sent(message, now=self._now)
        queue.clear()

    def _flush_audio(self) -> None:
        """Send what is held of the user's voice, however little."""
        held = self._audio.flush()
        self._timers.stop(Timer.AUDIO)
        if held:
            self._send_message(AudioAppend(audio=held))

    def _drop_audio(self) -> None:
        self._counters.audio_dropped += self._audio.clear()
        self._timers.stop(Timer.AUDIO)

    def _push_text(self, text: str, message: Message) -> None:
        # What was said before a message leaves before it; a clear is about just that.
        if isinstance(message, AudioClear):
            self._drop_audio()
        else:
            self._flush_audio()
        self._counters.sent += 1
        self._actions.append(_send_text(text, message.TYPE))

    def _emit(self, event: Event) -> None:
        self._actions.append(_emit(event))

    def _push(self, action: Action) -> None:
        self._actions.append(action)


def _type(message: Message | Unknown) -> str:
    return message.type if isinstance(message, Unknown) else message.TYPE
