"""PCM on the wire, as base64 in JSON (protocol.md 5.12, 5.15): the most frequent messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from navtalk_proto.construct import positional
from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.wire.fields import Hook, Raw, malformed, payload_of, places_of
from navtalk_proto.wire.jsontext import decode_base64, encode_base64
from navtalk_proto.wire.messages import AudioAppend, AudioDelta

__all__ = ["STRUCTURE", "UNSTRUCTURE", "USUAL"]


def _audio(payload: Raw, message: Raw, names: tuple[str, str]) -> bytes:
    """PCM16 from base64 under one of two names (5.12, 5.15)."""
    for prefix, place in places_of(payload, message):
        for name in names:
            value = place.get(name)
            if type(value) is str:
                return _pcm(value, prefix + name)
            if value is not None:
                raise malformed("is not a string", prefix + name)
    raise malformed("is missing", f"data.{names[0]}")


def _pcm(text: str, field: str) -> bytes:
    try:
        pcm = decode_base64(text)
    except MalformedMessageError as error:
        raise malformed(error.reason, field) from None
    if len(pcm) % 2:
        raise malformed("holds half a sample", field)
    return pcm


def _structure_append(message: Raw, _: Any) -> AudioAppend:
    payload = payload_of(message)
    pcm = _audio(payload, message, ("audio", "delta"))
    number = payload.get("sequenceNumber")
    if number is None:
        number = payload.get("sequence")  # the audioBack variant of 5.12
        if number is None:
            return _audio_append(pcm, None)
    if type(number) is not int or number < 0:
        raise malformed("is not a sequence number", "data.sequenceNumber")
    return _audio_append(pcm, number)


_audio_append: Final = positional(AudioAppend)


def _unstructure_append(append: AudioAppend) -> Raw:
    data: Raw = {"audio": _base64(append.audio)}
    if append.sequence_number is not None:
        data["sequenceNumber"] = append.sequence_number
    return {"type": AudioAppend.TYPE, "data": data}


def _structure_audio_delta(message: Raw, _: Any) -> AudioDelta:
    return _audio_delta(_audio(payload_of(message), message, ("delta", "audio")))


_audio_delta: Final = positional(AudioDelta)


def _unstructure_audio_delta(delta: AudioDelta) -> Raw:
    return {"type": AudioDelta.TYPE, "data": {"delta": _base64(delta.audio)}}


def _base64(pcm: bytes) -> str:
    if len(pcm) % 2:
        raise LocalProtocolError("audio of an odd number of bytes is not PCM16")
    return encode_base64(pcm)


def _usual_pcm(message: Raw, name: str) -> bytes | None:
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


def _usual_append(message: Raw, _: Limits) -> AudioAppend | None:
    pcm = _usual_pcm(message, "audio")
    return None if pcm is None else _audio_append(pcm, None)


def _usual_audio_delta(message: Raw, _: Limits) -> AudioDelta | None:
    pcm = _usual_pcm(message, "delta")
    return None if pcm is None else _audio_delta(pcm)


STRUCTURE: Final[dict[type, Hook]] = {
    AudioAppend: _structure_append,
    AudioDelta: _structure_audio_delta,
}
UNSTRUCTURE: Final[dict[type, Callable[[Any], Raw]]] = {
    AudioAppend: _unstructure_append,
    AudioDelta: _unstructure_audio_delta,
}
USUAL: Final[dict[type, Callable[[Raw, Limits], Any]]] = {
    AudioAppend: _usual_append,
    AudioDelta: _usual_audio_delta,
}
"""Readers of the shape that stock peers write these in, as they come by the hundred. Each looks at
every value of the message, so that none is left for :func:`~navtalk_proto.wire.jsontext.prove`, and
keeps the bounds. For anything else it returns None, and the hook decides."""
