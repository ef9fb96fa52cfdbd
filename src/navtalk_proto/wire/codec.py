"""Messages from JSON text and back: the only code that sees the wire's spellings.

:func:`decode` accepts every variation that protocol.md sections 4 to 7 name; :func:`encode` writes
one canonical form, the one that every stock client reads. How a message gets its class:

1. The text's size is checked, then :mod:`navtalk_proto.wire.jsontext` parses it.
2. The ``type`` string picks a hook from the sender's table: one dict lookup, no union strategy.
   Descriptions, candidates and audio are tried as their usual shape first, which proves the rest
   of the JSON rules by looking at every value; all other messages are proven before their hook
   runs.
3. The hooks come from a cattrs Converter. For a class whose fields each are "the first of these
   names" a hook factory makes the hook from the class and its entry in ``_SHAPES``; where the wire
   is less regular a hook is written out.
4. Four classes have bounds of their own, checked last.

Fields are looked for in ``data``, then at the top level; a message without ``data`` is flat, as the
Recruitment client takes it. JSON's null means "left out". Of several spellings the first that is
not empty wins. A value of the wrong JSON type is an error that names its path and quotes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
from attrs import NOTHING, frozen
from cattrs import Converter

from navtalk_proto.construct import positional
from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire.jsontext import decode_base64, dumps, encode_base64, loads, parse, prove
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
    Description,
    FunctionCallDelta,
    FunctionCallDone,
    FunctionCallOutput,
    GatewayHello,
    GpuFull,
    IceCandidate,
    IceRestartRequest,
    IceServer,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    InsufficientBalance,
    JsonObject,
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

__all__ = ["MAX_TYPE", "OversizedMessageError", "decode", "encode"]

MAX_TYPE: Final = 128
"""How many characters of an unknown type string are kept; the longest known one has 65."""

_Raw: TypeAlias = dict[str, Any]
_Reader: TypeAlias = Callable[[_Raw, _Raw], Any]
"""Reads one field from (payload, message); None says that it was left out."""
_Hook: TypeAlias = Callable[[Any, Any], Any]


class OversizedMessageError(MalformedMessageError):
    """A text is larger than ``Limits.client_message`` or ``Limits.server_message``; not parsed."""

    code = "oversized-message"
    hint = "send less in one message, or raise the limit that is named"


def _malformed(reason: str, field: str | None) -> MalformedMessageError:
    return MalformedMessageError(reason, field=field)


# ---- reading fields


def _payload(message: _Raw) -> _Raw:
    data = message.get("data")
    if type(data) is dict:
        return data
    if data is None:
        return message
    raise _malformed("is not an object", "data")


def _places(payload: _Raw, message: _Raw) -> tuple[tuple[str, _Raw], ...]:
    if payload is message:
        return (("", message),)
    return (("data.", payload), ("", message))


def _upstream_places(message: _Raw) -> tuple[tuple[str, _Raw], ...]:
    """The upstream's own event, for what the gateway did not put into data (protocol.md 4)."""
    upstream = message.get("raw_data")
    return (("raw_data.", upstream),) if type(upstream) is dict else ()


def _text(*names: str, missing: str | None = None, upstream: bool = False) -> _Reader:
    """A string under the first of `names` that is not empty; `missing` when there is none.

    `upstream`: raw_data is looked into last.
    """

    first = names[0]

    def read(payload: _Raw, message: _Raw) -> str | None:
        usual = payload.get(first)
        if type(usual) is str and usual:
            return usual
        found = missing
        places = _places(payload, message)
        if upstream:
            places += _upstream_places(message)
        for prefix, place in places:
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is not str:
                    raise _malformed("is not a string", prefix + name)
                if value:
                    return value
                found = value
        return found

    return read


def _object(*names: str) -> _Reader:
    """An object under the first of `names`, at the top level first."""

    def read(payload: _Raw, message: _Raw) -> _Raw | None:
        for prefix, place in reversed(_places(payload, message)):
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is not dict:
                    raise _malformed("is not an object", prefix + name)
                return value
        return None

    return read


def _json_text(*names: str) -> _Reader:
    """A string as it is, an object or array as its JSON text."""

    def read(payload: _Raw, message: _Raw) -> str | None:
        for prefix, place in _places(payload, message):
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is str:
                    return value
                if type(value) is dict or type(value) is list:
                    return dumps(value)
                raise _malformed("is not a string or an object", prefix + name)
        return None

    return read


def _flag(name: str) -> _Reader:
    """0, 1, false or true."""

    def read(payload: _Raw, message: _Raw) -> bool | None:
        for prefix, place in _places(payload, message):
            value = place.get(name)
            if value is None:
                continue
            if type(value) is bool:
                return value
            if type(value) is int and value in (0, 1):
                return value == 1
            raise _malformed("is not 0 or 1", prefix + name)
        return None

    return read


def _data(payload: _Raw, message: _Raw) -> _Raw:
    return {} if payload is message else payload


def _error_places(payload: _Raw, message: _Raw) -> list[tuple[str, Any]]:
    """Where error texts and codes were seen: objects, or a bare string for ``error``."""
    places: list[tuple[str, Any]] = [("", message)]
    if payload is not message:
        places.append(("data.", payload))
    for prefix, place in places.copy():
        error = place.get("error")
        if type(error) is dict:
            places.append((f"{prefix}error.", error))
        elif type(error) is str:
            places.append((f"{prefix}error.", {"message": error}))
        elif error is not None:
            raise _malformed("is not an object", f"{prefix}error")
    return places


def _error_text(payload: _Raw, message: _Raw) -> str:
    """The top level's message, data.message, error.message: the first that is not empty."""
    for prefix, place in _error_places(payload, message):
        value = place.get("message")
        if value is not None and type(value) is not str:
            raise _malformed("is not a string", f"{prefix}message")
        if value:
            return value
    return ""


def _error_code(payload: _Raw, message: _Raw) -> str | None:
    for prefix, place in _error_places(payload, message):
        value = place.get("code")
        if type(value) is int:
            return str(value)
        if value is not None and type(value) is not str:
            raise _malformed("is not a string", f"{prefix}code")
        if value:
            return value
    return None


# ---- regular classes: each field is the first of some names


@frozen(kw_only=True)
class _Slot:
    """One field: how it is read, under which names in ``data`` it is written."""

    read: _Reader
    write: tuple[str, ...]


@frozen(kw_only=True)
class _Shape:
    """A regular class; `message` and `data` say whether its envelope has these keys."""

    slots: Mapping[str, _Slot] = attrs.field(factory=dict)
    message: bool = False
    data: bool = True


_ID: Final = _Slot(
    read=_text("id", "response_id", "responseId", upstream=True), write=("id", "response_id")
)
# Judgement: a piece of text without an id is better shown than dropped; there is one response at a
# time, so that an empty id still belongs to it.
_ID_OR_EMPTY: Final = _Slot(
    read=_text("id", "response_id", "responseId", missing="", upstream=True),
    write=("id", "response_id"),
)
_CALL_ID: Final = _Slot(read=_text("call_id"), write=("call_id",))
_BARE: Final = _Shape(message=True)

_SHAPES: Final[dict[type, _Shape]] = {
    ConnectedWarning: _Shape(
        slots={
            "message": _Slot(read=_error_text, write=("message",)),
            "avatar_id": _Slot(read=_text("avatarId", "avatar_id"), write=("avatarId",)),
        },
        message=True,
    ),
    **{
        cls: _Shape(slots={"message": _Slot(read=_error_text, write=("message",))}, message=True)
        for cls in (
            ConnectedFail,
            ConnectedClose,
            InsufficientBalance,
            ConnectionLimitExceeded,
            GpuFull,
            BackendError,
        )
    },
    **{
        cls: _Shape(slots={"data": _Slot(read=_data, write=())}, message=message)
        for cls, message in (
            (SessionCreated, True),
            (SessionUpdated, True),
            (ServerStatus, True),
            (VideoDelta, True),
            (GatewayHello, False),
        )
    },
    SpeechStarted: _BARE,
    SpeechStopped: _BARE,
    InputTranscript: _Shape(
        slots={
            "content": _Slot(
                read=_text("content", "transcript", "delta", upstream=True),
                write=("content", "transcript"),
            )
        }
    ),
    TranscriptDelta: _Shape(
        slots={
            "response_id": _ID_OR_EMPTY,
            "content": _Slot(
                read=_text("content", "delta", "transcript", upstream=True), write=("content",)
            ),
        }
    ),
    TranscriptDone: _Shape(
        slots={
            "response_id": _ID_OR_EMPTY,
            "content": _Slot(
                read=_text("content", "transcript", "delta", upstream=True),
                write=("content", "transcript"),
            ),
        }
    ),
    AudioDone: _BARE,
    FunctionCallDelta: _Shape(
        slots={
            "call_id": _Slot(read=_text("call_id", missing="", upstream=True), write=("call_id",)),
            "delta": _Slot(read=_text("delta", upstream=True), write=("delta",)),
        }
    ),
    ResponseCompleted: _Shape(slots={"response_id": _ID}, message=True),
    ServerError: _Shape(
        slots={
            "message": _Slot(read=_error_text, write=("message",)),
            "code": _Slot(read=_error_code, write=("code",)),
        },
        message=True,
    ),
    StreamingBreak: _BARE,
    FunctionCallOutput: _Shape(
        slots={
            "call_id": _CALL_ID,
            "output": _Slot(read=_json_text("output", "content", "result"), write=("output",)),
            "reply": _Slot(read=_flag("reply"), write=("reply",)),
        }
    ),
    ResponseCreate: _Shape(data=False),
    AudioClear: _Shape(),
    AudioCommit: _Shape(),
    InputImage: _Shape(
        slots={
            "content": _Slot(read=_text("content"), write=("content",)),
            "reply": _Slot(read=_flag("reply"), write=("reply",)),
        }
    ),
    InputText: _Shape(slots={"content": _Slot(read=_text("content", "text"), write=("content",))}),
    IceRestartRequest: _Shape(),
}


def _structure_factory(cls: type[Any], _: Any) -> _Hook:
    """A structure hook for a class with a shape. Defaults are the attrs class's own."""
    slots = _SHAPES[cls].slots
    if not slots:
        only = cls()
        return lambda message, _: only
    make = positional(cls)
    made = [field.name for field in attrs.fields(cls) if hasattr(field.default, "factory")]
    assert all(slots[name].read is _data for name in made), "a default to be made, not to be copied"
    readers = tuple(
        (
            slots[field.name].read,
            field.default,
            # The path to name when a field without a default is left out; else never read.
            f"data.{slots[field.name].write[0]}" if field.default is NOTHING else "",
        )
        for field in attrs.fields(cls)
    )

    def structure(message: _Raw, _: Any) -> Any:
        payload = _payload(message)
        values = []
        for read, default, required in readers:
            value = read(payload, message)
            if value is None:
                value = default
                if value is NOTHING:
                    raise _malformed("is missing", required)
            values.append(value)
        return make(*values)

    return structure


def _unstructure_factory(cls: type[Any], _: Any) -> Callable[[Any], _Raw]:
    """An unstructure hook for a class with a shape: its message as JSON values."""
    shape = _SHAPES[cls]

    def unstructure(value: Any) -> _Raw:
        raw: _Raw = {"type": cls.TYPE}
        data: _Raw = {}
        for name, slot in shape.slots.items():
            item = getattr(value, name)
            if not slot.write:
                data = item
            elif item is not None:
                for key in slot.write:
                    data[key] = int(item) if type(item) is bool else item
        if shape.message:
            raw["message"] = data.get("message", "") if "message" in shape.slots else ""
        if shape.data:
            raw["data"] = data
        return raw

    return unstructure


# ---- signaling


def _structure_description(message: _Raw, cls: type[Description]) -> Description:
    """protocol.md 5.4. The inner type is not read, as the native SDKs do not."""
    payload = _payload(message)
    for prefix, place in _places(payload, message):
        value = place.get("sdp")
        if type(value) is dict:
            prefix += "sdp."
            value = value.get("sdp")
            if value is None:
                raise _malformed("is missing", prefix + "sdp")
        if value is None:
            continue
        if type(value) is not str:
            raise _malformed("is not a string", prefix + "sdp")
        return cls(sdp=_with_crlf(value))
    raise _malformed("is missing", "data.sdp")


def _with_crlf(sdp: str) -> str:
    """One kind of line end, so that all who read it after us see the same lines."""
    return sdp.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def _unstructure_offer(offer: Offer) -> _Raw:
    return {"type": Offer.TYPE, "data": {"sdp": {"type": "offer", "sdp": offer.sdp}}}


def _unstructure_answer(answer: Answer) -> _Raw:
    # iOS and Android read an answer from the top level only (5.4).
    sdp = {"type": "answer", "sdp": answer.sdp}
    return {"type": Answer.TYPE, "data": {"sdp": sdp}, "sdp": sdp}


def _structure_candidate(message: _Raw, _: Any) -> IceCandidate:
    """protocol.md 5.5: an object; null, missing or empty as the end mark; a bare string."""
    payload = _payload(message)
    prefix = "data." if payload is not message else ""
    inner = payload.get("candidate")
    if type(inner) is dict:
        prefix = "data.candidate." if prefix else "candidate."
    elif inner is None or type(inner) is str:
        inner = payload
    else:
        raise _malformed("is not an object", prefix + "candidate")
    text = inner.get("candidate")
    mid = inner.get("sdpMid")
    ufrag = inner.get("usernameFragment")
    index = inner.get("sdpMLineIndex")
    if not (type(text) is type(mid) is str and (ufrag is None or type(ufrag) is str)):
        for value, name in ((text, "candidate"), (mid, "sdpMid"), (ufrag, "usernameFragment")):
            if type(value) is not str and value is not None:
                raise _malformed("is not a string", prefix + name)
    if type(index) is not int or not 0 <= index <= _MAX_INDEX:
        index = _index(index, prefix + "sdpMLineIndex")
    return _ice_candidate(text or "", mid or None, index, ufrag or None)


_offer: Final = positional(Offer)
_answer: Final = positional(Answer)
_ice_candidate: Final = positional(IceCandidate)
_MAX_INDEX: Final = 65_535  # W3C webrtc-pc 4.8.1: an unsigned short
_NUMERIC: Final = re.compile("[0-9]{1,5}")


def _index(value: Any, field: str) -> int | None:
    if value is None or value == "":
        return None
    if type(value) is str and _NUMERIC.fullmatch(value) and int(value) <= _MAX_INDEX:
        return int(value)
    raise _malformed("is not an m-line index", field)


def _unstructure_candidate(candidate: IceCandidate) -> _Raw:
    inner: _Raw = {
        "candidate": candidate.candidate,
        "sdpMid": candidate.sdp_mid,
        "sdpMLineIndex": candidate.sdp_m_line_index,
    }
    if candidate.username_fragment is not None:
        inner["usernameFragment"] = candidate.username_fragment
    return {"type": IceCandidate.TYPE, "data": {"candidate": inner}}


# ---- connected.success


def _structure_ice_server(value: Any, _: Any) -> IceServer | None:
    """One entry; None for one without urls. Its errors' fields are relative to the entry."""
    if type(value) is not dict:
        raise _malformed("is not an object", None)
    urls = value.get("urls")
    if type(urls) is str:
        urls = [urls]
    elif urls is None:
        return None
    elif type(urls) is not list:
        raise _malformed("is not a string or an array", "urls")
    for number, url in enumerate(urls):
        if type(url) is not str:
            raise _malformed("is not a string", f"urls[{number}]")
    for name in ("username", "credential"):
        if value.get(name) is not None and type(value[name]) is not str:
            raise _malformed("is not a string", name)
    credential = value.get("credential")
    urls = tuple(url for url in urls if url)
    if not urls:
        return None
    return IceServer(
        urls=urls,
        username=value.get("username"),
        credential=None if credential is None else Secret(credential),
    )


def _structure_success(message: _Raw, _: Any) -> ConnectedSuccess:
    """protocol.md 5.1. Entries without urls are skipped; too many are cut by :func:`decode`."""
    payload = _payload(message)
    session_id = _read_session_id(payload, message)
    if not session_id:
        raise _malformed("is missing", "data.sessionId")
    servers: list[IceServer] = []
    for prefix, place in _places(payload, message):
        name = "iceServers" if place.get("iceServers") is not None else "ice_servers"
        entries = place.get(name)
        if entries is None:
            continue
        if type(entries) is not list:
            raise _malformed("is not an array", prefix + name)
        for number, entry in enumerate(entries):
            try:
                server = _structure_server(entry, IceServer)
            except MalformedMessageError as error:
                path = f"{prefix}{name}[{number}]" + (f".{error.field}" if error.field else "")
                raise _malformed(error.reason, path) from None
            if server is not None:
                servers.append(server)
        break
    return ConnectedSuccess(session_id=session_id, ice_servers=tuple(servers))


_read_session_id: Final = _text("sessionId", "session_id")


def _unstructure_ice_server(server: IceServer) -> _Raw:
    if not server.urls:
        raise LocalProtocolError("an ICE server without urls is not sent")
    if (server.username is None) != (server.credential is None):
        # Android fails on one without the other (5.1).
        raise LocalProtocolError("an ICE server has a username and a credential, or neither")
    raw: _Raw = {"urls": list(server.urls)}
    if server.credential is not None:
        raw["username"] = server.username
        raw["credential"] = server.credential.reveal()
    return raw


def _unstructure_success(success: ConnectedSuccess) -> _Raw:
    return {
        "type": ConnectedSuccess.TYPE,
        "message": "",
        "data": {
            "sessionId": success.session_id,
            "iceServers": [_unstructure_server(server) for server in success.ice_servers],
        },
    }


# ---- audio


def _audio(payload: _Raw, message: _Raw, names: tuple[str, str]) -> bytes:
    """PCM16 from base64 under one of two names (5.12, 5.15)."""
    for prefix, place in _places(payload, message):
        for name in names:
            value = place.get(name)
            if type(value) is str:
                return _pcm(value, prefix + name)
            if value is not None:
                raise _malformed("is not a string", prefix + name)
    raise _malformed("is missing", f"data.{names[0]}")


def _pcm(text: str, field: str) -> bytes:
    try:
        pcm = decode_base64(text)
    except MalformedMessageError as error:
        raise _malformed(error.reason, field) from None
    if len(pcm) % 2:
        raise _malformed("holds half a sample", field)
    return pcm


def _structure_append(message: _Raw, _: Any) -> AudioAppend:
    payload = _payload(message)
    pcm = _audio(payload, message, ("audio", "delta"))
    number = payload.get("sequenceNumber")
    if number is None:
        number = payload.get("sequence")  # the audioBack variant of 5.12
        if number is None:
            return _audio_append(pcm, None)
    if type(number) is not int or number < 0:
        raise _malformed("is not a sequence number", "data.sequenceNumber")
    return _audio_append(pcm, number)


_audio_append: Final = positional(AudioAppend)


def _unstructure_append(append: AudioAppend) -> _Raw:
    data: _Raw = {"audio": _base64(append.audio)}
    if append.sequence_number is not None:
        data["sequenceNumber"] = append.sequence_number
    return {"type": AudioAppend.TYPE, "data": data}


def _structure_audio_delta(message: _Raw, _: Any) -> AudioDelta:
    return _audio_delta(_audio(_payload(message), message, ("delta", "audio")))


_audio_delta: Final = positional(AudioDelta)


def _unstructure_audio_delta(delta: AudioDelta) -> _Raw:
    return {"type": AudioDelta.TYPE, "data": {"delta": _base64(delta.audio)}}


def _base64(pcm: bytes) -> str:
    if len(pcm) % 2:
        raise LocalProtocolError("audio of an odd number of bytes is not PCM16")
    return encode_base64(pcm)


# ---- function calls


def _structure_function_call(message: _Raw, _: Any) -> FunctionCallDone:
    """protocol.md 5.16; an older form has everything in raw_data."""
    payload = _payload(message)
    upstream = _read_raw_data(payload, message)
    name = _read_name(payload, message)
    call_id = _read_call_id(payload, message)
    arguments = _call_arguments(payload, message)
    if upstream is not None:
        try:
            name = name or _read_name(upstream, upstream)
            call_id = call_id or _read_call_id(upstream, upstream)
            arguments = _upstream_arguments(arguments, upstream)
        except MalformedMessageError as error:
            raise _malformed(error.reason, f"raw_data.{error.field}") from None
    if not name:
        raise _malformed("is missing", "data.function_name")
    if not call_id:
        raise _malformed("is missing", "data.call_id")
    if arguments is None:
        arguments = "{}"
    return FunctionCallDone(
        call_id=call_id,
        name=name,
        arguments=arguments if isinstance(arguments, str) else dumps(arguments),
        raw_data=upstream,
    )


_read_raw_data: Final = _object("raw_data")
_read_name: Final = _text("function_name", "name")
_read_call_id: Final = _text("call_id")


def _call_arguments(payload: _Raw, message: _Raw) -> _Raw | str | None:
    for prefix, place in _places(payload, message):
        value = place.get("arguments")
        if type(value) is dict or type(value) is str:
            return value
        if value is not None:
            raise _malformed("is not an object or a string", f"{prefix}arguments")
    return None


def _upstream_arguments(arguments: _Raw | str | None, upstream: _Raw) -> _Raw | str | None:
    """The model's own text where the gateway passed on nothing, or only its parsed value."""
    if type(arguments) is str:
        return arguments
    if arguments is None:
        return _call_arguments(upstream, upstream)
    text = upstream.get("arguments")
    return text if type(text) is str and _parsed_object(text) == arguments else arguments


def _parsed_object(text: str) -> _Raw | None:
    try:
        value = loads(text)
    except MalformedMessageError:
        return None
    return value if type(value) is dict else None


def _unstructure_function_call(call: FunctionCallDone) -> _Raw:
    """Every reader of 5.16 finds its spelling; the JS SDK throws without raw_data.name."""
    parsed = _parsed_object(call.arguments)
    raw_data = call.raw_data
    if raw_data is None:
        raw_data = {
            "type": "response.function_call_arguments.done",
            "call_id": call.call_id,
            "name": call.name,
            "arguments": call.arguments,
        }
    return {
        "type": FunctionCallDone.TYPE,
        "data": {
            "function_name": call.name,
            "name": call.name,
            "call_id": call.call_id,
            "arguments": call.arguments if parsed is None else parsed,
        },
        "raw_data": raw_data,
    }


def _structure_unmapped(message: _Raw, _: Any) -> UnmappedEvent:
    # The payload is free (4.1), whatever its JSON type.
    upstream = message.get("raw_data")
    return UnmappedEvent(raw_data=upstream if type(upstream) is dict else None)


def _unstructure_unmapped(event: UnmappedEvent) -> _Raw:
    raw: _Raw = {"type": UnmappedEvent.TYPE, "message": "", "data": {}}
    if event.raw_data is not None:
        raw["raw_data"] = event.raw_data
    return raw


_STAGES: Final = {f"realtime_synthesis.{stage}.error": stage for stage in ("tts", "stt")}


def _structure_synthesis_error(message: _Raw, _: Any) -> SynthesisError:
    return SynthesisError(
        stage=_STAGES[message["type"]], message=_error_text(_payload(message), message)
    )


def _unstructure_synthesis_error(error: SynthesisError) -> _Raw:
    kind = f"realtime_synthesis.{error.stage}.error"
    if kind not in _STAGES:
        raise LocalProtocolError("the stage of a SynthesisError is tts or stt")
    return {"type": kind, "message": error.message, "data": {"message": error.message}}


# ---- configuration


def _content(message: _Raw) -> tuple[Any, str]:
    """data.content, parsed when it is JSON text (5.7, 5.8), and its path."""
    payload = _payload(message)
    field = "content" if payload is message else "data.content"
    content = payload.get("content")
    if content is None:
        raise _malformed("is missing", field)
    if type(content) is str:
        try:
            content = loads(content)
        except MalformedMessageError as error:
            raise _malformed(error.reason, field) from None
    return content, field


def _tools(value: Any, field: str) -> tuple[JsonObject, ...]:
    # What is inside a tool is between the application and the model; the JS SDK, for one, writes
    # `properties: []` (5.8).
    if type(value) is not list:
        raise _malformed("is not an array", field)
    for number, tool in enumerate(value):
        if type(tool) is not dict:
            raise _malformed("is not an object", f"{field}[{number}]")
    return tuple(value)


def _structure_config(message: _Raw, _: Any) -> InputConfig:
    """protocol.md 5.7. An empty text keeps the console's setting, as a missing one does."""
    content, field = _content(message)
    if type(content) is not dict:
        raise _malformed("is not an object", field)
    for name in ("voice", "prompt"):
        if content.get(name) is not None and type(content[name]) is not str:
            raise _malformed("is not a string", f"{field}.{name}")
    tools = content.get("tools")
    return InputConfig(
        voice=content.get("voice") or None,
        prompt=content.get("prompt") or None,
        tools=None if tools is None else _tools(tools, f"{field}.tools"),
    )


def _unstructure_config(config: InputConfig) -> _Raw:
    content: _Raw = {}
    if config.voice is not None:
        content["voice"] = config.voice
    if config.prompt is not None:
        content["prompt"] = config.prompt
    if config.tools is not None:
        content["tools"] = config.tools
    return {"type": InputConfig.TYPE, "data": {"content": dumps(content)}}


def _structure_input_function_call(message: _Raw, _: Any) -> InputFunctionCall:
    content, field = _content(message)
    return InputFunctionCall(tools=_tools(content, field))


def _unstructure_input_function_call(call: InputFunctionCall) -> _Raw:
    return {"type": InputFunctionCall.TYPE, "data": {"content": dumps(call.tools)}}


def _structure_session_update(message: _Raw, _: Any) -> SessionUpdate:
    session = _read_session(_payload(message), message)
    if session is None:
        raise _malformed("is missing", "session")
    return SessionUpdate(session=session)


_read_session: Final = _object("session")


def _unstructure_session_update(update: SessionUpdate) -> _Raw:
    return {"type": SessionUpdate.TYPE, "session": update.session}


# ---- conversation items


def _structure_item(message: _Raw, _: Any) -> UserMessage | ToolResult:
    """conversation.item.create: a message (5.9) or a tool result (5.17), by item.type."""
    payload = _payload(message)
    item = _read_item(payload, message)
    if item is None:
        raise _malformed("is missing", "item")
    kind = item.get("type", "message")
    try:
        if kind == "message":
            return _structure_user_message(item)
        if kind == "function_call_output":
            return _structure_tool_result(item)
        raise _malformed("is not message or function_call_output", "type")
    except MalformedMessageError as error:
        raise _malformed(error.reason, f"item.{error.field}") from None


_read_item: Final = _object("item")


def _structure_user_message(item: _Raw) -> UserMessage:
    content = item.get("content")
    role = item.get("role")
    if role is None:
        role = "user"
    elif type(role) is not str:
        raise _malformed("is not a string", "role")
    if type(content) is str:
        return UserMessage(texts=_android_texts(content), role=role)
    if type(content) is not list:
        reason = "is missing" if content is None else "is not an array or a string"
        raise _malformed(reason, "content")
    texts = []
    for number, part in enumerate(content):
        if type(part) is not dict:
            raise _malformed("is not an object", f"content[{number}]")
        text = part.get("text")
        if type(text) is str:
            texts.append(text)
        elif text is not None or part.get("type") in ("input_text", "text"):
            raise _malformed("is not a string", f"content[{number}].text")
        # Else a part of another kind, for example audio: the class has texts only.
    return UserMessage(texts=tuple(texts), role=role)


_ANDROID_START: Final = "[{type=input_text, text="
_ANDROID_BETWEEN: Final = "}, {type=input_text, text="
_ANDROID_END: Final = "}]"


def _android_texts(content: str) -> tuple[str, ...]:
    """The entries of a Kotlin list printed as a string (5.9); any other string is one text."""
    if content.startswith(_ANDROID_START) and content.endswith(_ANDROID_END):
        inner = content[len(_ANDROID_START) : -len(_ANDROID_END)]
        return tuple(inner.split(_ANDROID_BETWEEN))
    return (content,)


def _structure_tool_result(item: _Raw) -> ToolResult:
    call_id = _read_call_id(item, item)
    if call_id is None:
        raise _malformed("is missing", "call_id")
    output = _read_output(item, item)
    if output is None:
        raise _malformed("is missing", "output")
    return ToolResult(call_id=call_id, output=output)


_read_output: Final = _json_text("output")


def _unstructure_user_message(message: UserMessage) -> _Raw:
    content = [{"type": "input_text", "text": text} for text in message.texts]
    return {
        "type": UserMessage.TYPE,
        "item": {"type": "message", "role": message.role, "content": content},
    }


def _unstructure_tool_result(result: ToolResult) -> _Raw:
    return {
        "type": ToolResult.TYPE,
        "item": {
            "type": "function_call_output",
            "call_id": result.call_id,
            "output": result.output,
        },
    }


# ---- bounds of single fields


def _bound_description(description: Description, limits: Limits) -> Description:
    sdp = description.sdp
    if len(sdp) > limits.sdp or (not sdp.isascii() and len(sdp.encode()) > limits.sdp):
        raise _malformed(f"is larger than {limits.sdp} bytes", "data.sdp.sdp")
    return description


def _bound_candidate(candidate: IceCandidate, limits: Limits) -> IceCandidate:
    longest = limits.candidate
    if len(candidate.candidate) > longest:
        name = "candidate"
    elif candidate.sdp_mid is not None and len(candidate.sdp_mid) > longest:
        name = "sdpMid"
    elif candidate.username_fragment is not None and len(candidate.username_fragment) > longest:
        name = "usernameFragment"
    else:
        return candidate
    raise _malformed(f"is longer than {longest} characters", f"data.candidate.{name}")


def _bound_success(success: ConnectedSuccess, limits: Limits) -> ConnectedSuccess:
    if len(success.ice_servers) > limits.ice_servers:
        return attrs.evolve(success, ice_servers=success.ice_servers[: limits.ice_servers])
    return success


# ---- the usual shapes
#
# Of the messages that come by the hundred, the shape that stock peers write them in. Each function
# looks at every value of the message, so that none is left for jsontext.prove to look at, and keeps
# the bounds; for anything else it returns None, and the hook decides.


def _usual_candidate(message: _Raw, limits: Limits) -> IceCandidate | None:
    data = message.get("data")
    if type(data) is not dict or len(data) != 1 or len(message) != 2:
        return None
    inner = data.get("candidate")
    if type(inner) is not dict or len(inner) != 4:
        return None
    try:
        text, mid = inner["candidate"], inner["sdpMid"]
        index, ufrag = inner["sdpMLineIndex"], inner["usernameFragment"]
    except KeyError:
        return None
    if (
        type(text) is type(mid) is type(ufrag) is str
        and type(index) is int
        and 0 <= index <= _MAX_INDEX
        and len(text) <= (longest := limits.candidate)
        and len(mid) <= longest
        and len(ufrag) <= longest
    ):
        return _ice_candidate(text, mid or None, index, ufrag or None)
    return None


def _usual_offer(message: _Raw, limits: Limits) -> Offer | None:
    sdp = _usual_sdp(message, limits)
    return None if sdp is None else _offer(sdp)


def _usual_answer(message: _Raw, limits: Limits) -> Answer | None:
    sdp = _usual_sdp(message, limits)
    return None if sdp is None else _answer(sdp)


def _usual_sdp(message: _Raw, limits: Limits) -> str | None:
    data = message.get("data")
    if type(data) is not dict or len(data) != 1 or len(message) != 2:
        return None
    inner = data.get("sdp")
    if type(inner) is not dict or len(inner) != 2:
        return None
    sdp = inner.get("sdp")
    if type(sdp) is type(inner.get("type")) is str and len(sdp) <= limits.sdp and sdp.isascii():
        ends = sdp.encode().translate(None, _NO_LINE_END)
        if ends == b"\r\n" * (len(ends) // 2):
            return sdp
    return None


_NO_LINE_END: Final = bytes(byte for byte in range(256) if byte not in b"\r\n")


def _usual_pcm(message: _Raw, name: str) -> bytes | None:
    data = message.get("data")
    if type(data) is not dict or len(data) != 1 or len(message) != 2:
        return None
    text = data.get(name)
    if type(text) is not str:
        return None
    try:
        pcm = decode_base64(text)
    except MalformedMessageError:
        return None
    return None if len(pcm) % 2 else pcm


def _usual_append(message: _Raw, _: Limits) -> AudioAppend | None:
    pcm = _usual_pcm(message, "audio")
    return None if pcm is None else _audio_append(pcm, None)


def _usual_audio_delta(message: _Raw, _: Limits) -> AudioDelta | None:
    pcm = _usual_pcm(message, "delta")
    return None if pcm is None else _audio_delta(pcm)


# ---- the converter and the tables


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook_factory(attrs.has, _structure_factory)
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_factory)
    structure: tuple[tuple[type, _Hook], ...] = (
        (Offer, _structure_description),
        (Answer, _structure_description),
        (IceCandidate, _structure_candidate),
        (IceServer, _structure_ice_server),
        (ConnectedSuccess, _structure_success),
        (AudioAppend, _structure_append),
        (AudioDelta, _structure_audio_delta),
        (FunctionCallDone, _structure_function_call),
        (UnmappedEvent, _structure_unmapped),
        (SynthesisError, _structure_synthesis_error),
        (InputConfig, _structure_config),
        (InputFunctionCall, _structure_input_function_call),
        (SessionUpdate, _structure_session_update),
        (UserMessage, _structure_item),
    )
    unstructure: tuple[tuple[type, Callable[[Any], _Raw]], ...] = (
        (Offer, _unstructure_offer),
        (Answer, _unstructure_answer),
        (IceCandidate, _unstructure_candidate),
        (IceServer, _unstructure_ice_server),
        (ConnectedSuccess, _unstructure_success),
        (AudioAppend, _unstructure_append),
        (AudioDelta, _unstructure_audio_delta),
        (FunctionCallDone, _unstructure_function_call),
        (UnmappedEvent, _unstructure_unmapped),
        (SynthesisError, _unstructure_synthesis_error),
        (InputConfig, _unstructure_config),
        (InputFunctionCall, _unstructure_input_function_call),
        (SessionUpdate, _unstructure_session_update),
        (UserMessage, _unstructure_user_message),
        (ToolResult, _unstructure_tool_result),
    )
    for cls, hook in structure:
        converter.register_structure_hook(cls, hook)
    for cls, unhook in unstructure:
        converter.register_unstructure_hook(cls, unhook)
    return converter


_converter: Final = _make_converter()
_structure_server: Final[_Hook] = _converter.get_structure_hook(IceServer)
_unstructure_server: Final[Callable[[Any], _Raw]] = _converter.get_unstructure_hook(IceServer)

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

_BOUNDS: Final[dict[type, Callable[[Any, Limits], Any]]] = {
    Offer: _bound_description,
    Answer: _bound_description,
    IceCandidate: _bound_candidate,
    ConnectedSuccess: _bound_success,
}

_USUAL: Final[dict[type, Callable[[_Raw, Limits], Any]]] = {
    Offer: _usual_offer,
    Answer: _usual_answer,
    IceCandidate: _usual_candidate,
    AudioAppend: _usual_append,
    AudioDelta: _usual_audio_delta,
}

_Entry: TypeAlias = tuple[
    _Hook, type, Callable[[Any, Limits], Any] | None, Callable[[_Raw, Limits], Any] | None
]


def _table(classes: tuple[type[Any], ...], aliases: dict[str, type]) -> dict[str, _Entry]:
    types = {cls.TYPE: cls for cls in classes} | aliases
    return {
        name: (_converter.get_structure_hook(cls), cls, _BOUNDS.get(cls), _USUAL.get(cls))
        for name, cls in types.items()
    }


_FROM_SERVER: Final = _table(_SERVER_CLASSES, _SERVER_ALIASES)
_FROM_CLIENT: Final = _table(_CLIENT_CLASSES, _CLIENT_ALIASES)
_ENCODERS: Final[dict[type, Callable[[Any], _Raw]]] = {
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
