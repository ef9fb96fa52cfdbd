"""Fields of a message on the wire: where they are looked for, and under which names.

A field is looked for in ``data``, then at the top level; a message without ``data`` is flat, as the
Recruitment client takes it. JSON's null means "left out". Of several spellings the first that is
not empty wins. A value of the wrong JSON type is an error that names its path and quotes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.wire.jsontext import dumps

__all__ = [
    "Hook",
    "Raw",
    "Reader",
    "data_field",
    "error_code",
    "error_text",
    "flag_field",
    "json_text_field",
    "malformed",
    "object_field",
    "payload_of",
    "places_of",
    "text_field",
]

Raw: TypeAlias = dict[str, Any]
"""A JSON object."""

Reader: TypeAlias = Callable[[Raw, Raw], Any]
"""Reads one field from (payload, message); None says that it was left out."""

Hook: TypeAlias = Callable[[Any, Any], Any]
"""A structure hook of cattrs: a JSON value and the class that is wanted, to an object of it."""


def malformed(reason: str, field: str | None) -> MalformedMessageError:
    """The error for one field, by its path; ``decode()`` adds the message's type."""
    return MalformedMessageError(reason, field=field)


def payload_of(message: Raw) -> Raw:
    """The object under ``data``; the message itself where there is none."""
    data = message.get("data")
    if type(data) is dict:
        return data
    if data is None:
        return message
    raise malformed("is not an object", "data")


def places_of(payload: Raw, message: Raw) -> tuple[tuple[str, Raw], ...]:
    """Where a field is looked for, in this order, each with what precedes its name in a path."""
    if payload is message:
        return (("", message),)
    return (("data.", payload), ("", message))


def _upstream_places(message: Raw) -> tuple[tuple[str, Raw], ...]:
    """The upstream's own event, for what the gateway did not put into data (protocol.md 4)."""
    upstream = message.get("raw_data")
    return (("raw_data.", upstream),) if type(upstream) is dict else ()


def text_field(*names: str, missing: str | None = None, upstream: bool = False) -> Reader:
    """A string under the first of `names` that is not empty; `missing` when there is none.

    `upstream`: raw_data is looked into last.
    """

    first = names[0]

    def read(payload: Raw, message: Raw) -> str | None:
        usual = payload.get(first)
        if type(usual) is str and usual:
            return usual
        found = missing
        places = places_of(payload, message)
        if upstream:
            places += _upstream_places(message)
        for prefix, place in places:
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is not str:
                    raise malformed("is not a string", prefix + name)
                if value:
                    return value
                found = value
        return found

    return read


def object_field(*names: str) -> Reader:
    """An object under the first of `names`, at the top level first."""

    def read(payload: Raw, message: Raw) -> Raw | None:
        for prefix, place in reversed(places_of(payload, message)):
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is not dict:
                    raise malformed("is not an object", prefix + name)
                return value
        return None

    return read


def json_text_field(*names: str) -> Reader:
    """A string as it is, an object or array as its JSON text."""

    def read(payload: Raw, message: Raw) -> str | None:
        for prefix, place in places_of(payload, message):
            for name in names:
                value = place.get(name)
                if value is None:
                    continue
                if type(value) is str:
                    return value
                if type(value) is dict or type(value) is list:
                    return dumps(value)
                raise malformed("is not a string or an object", prefix + name)
        return None

    return read


def flag_field(name: str) -> Reader:
    """0, 1, false or true."""

    def read(payload: Raw, message: Raw) -> bool | None:
        for prefix, place in places_of(payload, message):
            value = place.get(name)
            if value is None:
                continue
            if type(value) is bool:
                return value
            if type(value) is int and value in (0, 1):
                return value == 1
            raise malformed("is not 0 or 1", prefix + name)
        return None

    return read


def data_field(payload: Raw, message: Raw) -> Raw:
    """Reads all of ``data``; empty where the message has none."""
    return {} if payload is message else payload


def _error_places(payload: Raw, message: Raw) -> list[tuple[str, Any]]:
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
            raise malformed("is not an object", f"{prefix}error")
    return places


def error_text(payload: Raw, message: Raw) -> str:
    """The top level's message, data.message, error.message: the first that is not empty."""
    for prefix, place in _error_places(payload, message):
        value = place.get("message")
        if value is not None and type(value) is not str:
            raise malformed("is not a string", f"{prefix}message")
        if value:
            return value
    return ""


def error_code(payload: Raw, message: Raw) -> str | None:
    """The first ``code`` in the same places that is not empty; a number as its digits."""
    for prefix, place in _error_places(payload, message):
        value = place.get("code")
        if type(value) is int:
            return str(value)
        if value is not None and type(value) is not str:
            raise malformed("is not a string", f"{prefix}code")
        if value:
            return value
    return None
