"""Messages from JSON text and back: with what it is made of, all that sees the wire's spellings.

:func:`decode` accepts every variation that protocol.md sections 4 to 7 name; :func:`encode` writes
one canonical form, the one that every stock client reads. How a message gets its class:

1. The text's size is checked, then :mod:`navtalk_proto.wire.jsontext` parses it.
2. The ``type`` string picks a hook from the sender's table: one dict lookup, no union strategy.
   Descriptions, candidates and audio are tried as their usual shape first, which proves the rest
   of the JSON rules by looking at every value; all other messages are proven before their hook
   runs.
3. The hooks come from a cattrs Converter. For a class whose fields each are "the first of these
   names" :mod:`~navtalk_proto.wire.regular_messages` makes the hook from a table; where the wire is
   less regular a hook is written out, in :mod:`~navtalk_proto.wire.signaling_messages`,
   :mod:`~navtalk_proto.wire.audio_messages` and :mod:`~navtalk_proto.wire.realtime_messages`. They
   read by :mod:`~navtalk_proto.wire.fields`.
4. Four classes have bounds of their own, checked last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs
from cattrs import Converter

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.wire import audio_messages, realtime_messages, signaling_messages
from navtalk_proto.wire.fields import Hook, Raw
from navtalk_proto.wire.jsontext import dumps, parse, prove
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioDelta,
    AudioDone,
    BackendError,
    ClientMessage,
    ConnectedClose,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    ConnectionLimitExceeded,
    FunctionCallDelta,
    FunctionCallDone,
    FunctionCallOutput,
    GatewayHello,
    GpuFull,
    IceCandidate,
    IceRestartRequest,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    InsufficientBalance,
    Message,
    Offer,
    ResponseCompleted,
    ResponseCreate,
    ServerError,
    ServerMessage,
    ServerStatus,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    StreamingBreak,
    SynthesisError,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    Unknown,
    UnmappedEvent,
    UserMessage,
    VideoDelta,
)
from navtalk_proto.wire.regular_messages import structure_hook, unstructure_hook

__all__ = ["MAX_TYPE", "OversizedMessageError", "decode", "encode"]

MAX_TYPE: Final = 128
"""How many characters of an unknown type string are kept; the longest known one has 65."""


class OversizedMessageError(MalformedMessageError):
    """A text is larger than ``Limits.client_message`` or ``Limits.server_message``; not parsed."""

    code = "oversized-message"
    hint = "send less in one message, or raise the limit that is named"


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook_factory(attrs.has, structure_hook)
    converter.register_unstructure_hook_factory(attrs.has, unstructure_hook)
    for irregular in (signaling_messages, audio_messages, realtime_messages):
        for cls, hook in irregular.STRUCTURE.items():
            converter.register_structure_hook(cls, hook)
        for cls, unhook in irregular.UNSTRUCTURE.items():
            converter.register_unstructure_hook(cls, unhook)
    return converter


_converter: Final = _make_converter()

_SIGNALING: Final[tuple[type, ...]] = (Offer, Answer, IceCandidate)
_SERVER_CLASSES: Final[tuple[type, ...]] = (
    ConnectedSuccess,
    ConnectedWarning,
    ConnectedFail,
    ConnectedClose,
    InsufficientBalance,
    ConnectionLimitExceeded,
    GpuFull,
    BackendError,
    *_SIGNALING,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    InputTranscript,
    TranscriptDelta,
    TranscriptDone,
    AudioDelta,
    AudioDone,
    FunctionCallDelta,
    FunctionCallDone,
    ResponseCompleted,
    ServerError,
    ServerStatus,
    VideoDelta,
    SynthesisError,
    StreamingBreak,
    UnmappedEvent,
)
# Without ToolResult: it shares its type string with UserMessage, whose hook makes both.
_CLIENT_CLASSES: Final[tuple[type, ...]] = (
    *_SIGNALING,
    InputConfig,
    InputFunctionCall,
    UserMessage,
    FunctionCallOutput,
    ResponseCreate,
    SessionUpdate,
    AudioAppend,
    AudioClear,
    AudioCommit,
    InputImage,
    InputText,
    IceRestartRequest,
    GatewayHello,
)

_SERVER_ALIASES: Final[dict[str, type]] = {
    # v1 refusals and listener constants (4.1, 5.3)
    "session.gpu_full": GpuFull,
    "realtime.session.gpu_full": GpuFull,
    "session.insufficient_balance": InsufficientBalance,
    "realtime.session.insufficient_balance": InsufficientBalance,
    "session.backend.error": BackendError,
    "response.done": ResponseCompleted,
    "error": ServerError,
    "realtime_synthesis.stt.error": SynthesisError,
    "unknown": UnmappedEvent,
}
_CLIENT_ALIASES: Final[dict[str, type]] = {
    "input_audio_buffer.append": AudioAppend,
    "input_audio_buffer.clear": AudioClear,
    "input_audio_buffer.commit": AudioCommit,
    "realtime.input.text": InputText,
    "realtime.input_function_call_output": FunctionCallOutput,
}

_BOUNDS: Final = signaling_messages.BOUNDS
_USUAL: Final = signaling_messages.USUAL | audio_messages.USUAL

_Entry: TypeAlias = tuple[
    Hook, type, Callable[[Any, Limits], Any] | None, Callable[[Raw, Limits], Any] | None
]


def _table(classes: tuple[type[Any], ...], aliases: dict[str, type]) -> dict[str, _Entry]:
    types = {cls.TYPE: cls for cls in classes} | aliases
    return {
        name: (_converter.get_structure_hook(cls), cls, _BOUNDS.get(cls), _USUAL.get(cls))
        for name, cls in types.items()
    }


_FROM_SERVER: Final = _table(_SERVER_CLASSES, _SERVER_ALIASES)
_FROM_CLIENT: Final = _table(_CLIENT_CLASSES, _CLIENT_ALIASES)
_ENCODERS: Final[dict[type, Callable[[Any], Raw]]] = {
    cls: _converter.get_unstructure_hook(cls)
    for cls in {*_SERVER_CLASSES, *_CLIENT_CLASSES, ToolResult}
}


_SERVER: Final = Role.SERVER


def decode(
    text: str | bytes, *, sender: Role, limits: Limits
) -> ServerMessage | ClientMessage | Unknown:
    """One whole WebSocket text message as its class.

    `sender` says whose message it is and picks the table; both sides send Offer, Answer and
    IceCandidate. Left out ids of deltas are ``""``. Of connected.success the first
    ``limits.ice_servers`` entries are kept. A type string that neither side uses gives Unknown,
    with its text cut to ``limits.unknown_raw`` characters.

    Raises OversizedMessageError for a text above the sender's limit, and MalformedMessageError for
    broken JSON (no `type`), a wrong field (named in `field`), or a type of the other direction.
    """
    if sender is _SERVER:
        limit, table = limits.server_message, _FROM_SERVER
    else:
        limit, table = limits.client_message, _FROM_CLIENT
    size = len(text)
    if 4 * size > limit and (size > limit or _utf8_size(text) > limit):
        raise OversizedMessageError(f"is larger than {limit} bytes")
    message: Any = parse(text, limits.values)
    kind = message.get("type") if type(message) is dict else None
    entry = table.get(kind) if type(kind) is str else None
    if entry is None:
        return _without_entry(prove(message, text), text, sender, limits)
    hook, cls, bound, usual = entry
    if usual is not None:
        decoded = usual(message, limits)
        if decoded is not None:
            return decoded  # type: ignore[no-any-return]
    message = prove(message, text)
    try:
        decoded = hook(message, cls)
        return decoded if bound is None else bound(decoded, limits)  # type: ignore[no-any-return]
    except MalformedMessageError as error:
        raise MalformedMessageError(error.reason, type=kind, field=error.field) from None


def _utf8_size(text: str | bytes) -> int:
    if isinstance(text, bytes) or text.isascii():
        return len(text)
    return len(text.encode("utf-8", "surrogatepass"))


def _without_entry(message: Any, text: str | bytes, sender: Role, limits: Limits) -> Unknown:
    if type(message) is not dict:
        raise MalformedMessageError("is not an object")
    kind = message.get("type")
    if type(kind) is not str:
        raise MalformedMessageError(
            "is not a string" if "type" in message else "is missing", field="type"
        )
    if sender is Role.SERVER and kind in _FROM_CLIENT:
        raise MalformedMessageError("a client message sent by a server", type=kind)
    if sender is Role.CLIENT and kind in _FROM_SERVER:
        raise MalformedMessageError("a server message sent by a client", type=kind)
    kept = limits.unknown_raw
    if isinstance(text, bytes):
        # A character has at most four bytes; what the cut leaves of the last one is dropped.
        text = text[: 4 * kept].decode(errors="ignore")
    return Unknown(type=kind[:MAX_TYPE], raw=text[:kept])


def encode(message: Message) -> str:
    """A message as the JSON text that stock peers read (protocol.md section 5).

    ``data`` is always an object where the type has one, error texts stand at the top level and in
    ``data``, aliases are added where some client needs them. Credentials and the end-of-candidates
    mark are written; whether to send the latter is the caller's decision (rule E9).

    Raises LocalProtocolError when a value has no JSON form or no legal one: odd PCM, NaN, an ICE
    server with a username and no credential, something that is not a message.
    """
    encoder = _ENCODERS.get(type(message))
    if encoder is None:
        raise LocalProtocolError(f"a {type(message).__name__} is not a message")
    return dumps(encoder(message))
