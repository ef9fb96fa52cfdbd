"""Looking an avatar up before a session: the request and the reply (protocol.md 2.3).

Pure: :func:`lookup_request` and :func:`list_request` say what to ask, a :class:`LookupReply` takes
what comes; HTTP between them is ``resolve_avatar()`` and ``list_avatars()`` of the adapters. No
session needs it: the socket takes a name too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final
from urllib.parse import quote, urlsplit

from attrs import evolve, field, frozen

from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarNotFoundError,
    AvatarReplyError,
    EndpointError,
    LicenseRefusedError,
    MalformedMessageError,
    UnsupportedByProviderError,
)
from navtalk_proto.limits import MIB
from navtalk_proto.redaction import redact
from navtalk_proto.secret import Secret
from navtalk_proto.wire import jsontext
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint
from navtalk_proto.wire.messages import (
    InputConfig,
    InputFunctionCall,
    InputImage,
    JsonObject,
    JsonValue,
    Message,
    SessionUpdate,
)

__all__ = [
    "DEFAULT_API_URL",
    "LOOKUP_SECONDS",
    "MAX_REPLY",
    "SHOWN_CHARACTERS",
    "AvatarDetail",
    "LicensePlace",
    "LookupReply",
    "LookupRequest",
    "ProviderCapabilities",
    "list_request",
    "lookup_request",
]

DEFAULT_API_URL: Final = "https://api.navtalk.ai"
"""Where the service answers look-ups. Its sessions are at another host (protocol.md 2.1)."""

_PATH: Final = "/api/open/v1/avatar/"

LOOKUP_SECONDS: Final = 10.0
"""How long a look-up may take, from the name's resolution to the last byte."""

MAX_REPLY: Final = 1 * MIB
"""Bytes of a reply that are read. A detail is below 10 KiB, most of which is the prompt."""

SHOWN_CHARACTERS: Final = 200
"""Of a foreign text in an error."""

_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]+")
"""RFC 9110 section 5.5, without white space, which is trimmed, and bytes beyond ASCII."""


class LicensePlace(Enum):
    """Where the licence travels; services take either, and stock clients differ (2.3)."""

    HEADER = "header"
    """As iOS and React Native do. A server's access log does not have it."""
    QUERY = "query"
    """As the JavaScript SDK does."""
    BOTH = "both"
    """As Android does."""


# ---- what a provider can do


_WITHOUT_TOOLS_AND_IMAGES: Final = frozenset({"11labs", "elevenlabs", "cartesia"})
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")


@frozen(kw_only=True)
class ProviderCapabilities:
    """What an avatar's provider takes from a client (protocol.md 2.4).

    Only of OpenAI it is known that it takes tools and pictures, and of ElevenLabs and Cartesia that
    they do not; with a name that is neither, everything is allowed.
    """

    provider: str
    tools: bool = True
    images: bool = True

    @classmethod
    def of(cls, provider: str) -> ProviderCapabilities:
        """By the provider's name, as a look-up gives it; case and punctuation do not matter."""
        plain = _NOT_IN_NAMES.sub("", provider.lower())
        takes = plain not in _WITHOUT_TOOLS_AND_IMAGES
        return cls(provider=provider, tools=takes, images=takes)

    def check(self, message: Message) -> None:
        """Called by the core with each message of ours that is not signaling, before it is sent.

        Raises UnsupportedByProviderError for tools and pictures that the provider does not take.
        """
        match message:
            case InputImage():
                what, takes = "images", self.images
            case (
                InputFunctionCall(tools=tools)
                | InputConfig(tools=tools)
                | SessionUpdate(session={"tools": tools})
            ) if tools:
                what, takes = "tools", self.tools
            case _:
                return
        if not takes:
            raise UnsupportedByProviderError(what, self.provider)


def _characters(text: str) -> str:
    return f"<{len(text)} characters>"


@frozen(kw_only=True)
class AvatarDetail:
    """An avatar as the service describes it. Texts that it leaves out are empty."""

    id: str
    name: str = ""
    url: str = ""
    """Its picture."""
    thumbnail_url: str = ""
    provider_id: str = ""
    provider_name: str = ""
    model: str = ""
    voice: str = ""
    first_message: str = field(default="", repr=_characters)
    prompt: str = field(default="", repr=_characters)
    video_file: bool = False
    """Whether it was made from a video rather than a picture."""
    status: str = ""
    """``Success`` once it can be used."""

    @property
    def capabilities(self) -> ProviderCapabilities:
        """What its provider takes."""
        return ProviderCapabilities.of(self.provider_name)

    def at(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint of this very avatar, whatever others have its name.

        Raises EndpointError where the endpoint asks for another id.
        """
        if endpoint.avatar_id not in (None, self.id):
            raise EndpointError("the endpoint is that of another avatar than the one looked up")
        return evolve(endpoint, avatar_id=self.id)


# ---- the request


@frozen(kw_only=True)
class LookupRequest:
    """A GET request. `url` and `headers` may hold the licence: for the wire, not for a log."""

    url: Secret
    headers: tuple[tuple[str, Secret], ...]
    license: Secret

    def without_license(self, text: str) -> str:
        """A text of the service, or of an HTTP library, without the licence in any likely spelling.

        For errors and logs.
        """
        license = self.license.reveal()
        for spelling in (license, quote(license, safe=""), json.dumps(license)[1:-1]):
            text = text.replace(spelling, "***")
        return redact(text)


def lookup_request(
    endpoint: Endpoint,
    *,
    api_url: str | None = None,
    license_in: LicensePlace = LicensePlace.HEADER,
) -> LookupRequest:
    """What to ask for an endpoint's avatar: by id where it has one, else by name.

    `api_url` is the service's scheme and host, and may have a path before the service's own; None
    is the endpoint's host, and :data:`DEFAULT_API_URL` for an endpoint of the service itself.
    Raises EndpointError for a URL that is none, and for a licence that no header can carry.
    """
    if endpoint.avatar_id is not None:
        path, wanted = "detail", f"avatarId={quote(endpoint.avatar_id, safe='')}"
    else:
        path, wanted = "getByName", f"name={quote(endpoint.name or '', safe='')}"
    return _request(endpoint, path, wanted, api_url=api_url, license_in=license_in)


def list_request(
    endpoint: Endpoint,
    *,
    api_url: str | None = None,
    license_in: LicensePlace = LicensePlace.HEADER,
) -> LookupRequest:
    """What to ask for all avatars of a licence. Whose the endpoint is does not matter.

    Arguments and errors are those of :func:`lookup_request`.
    """
    return _request(endpoint, "list", "", api_url=api_url, license_in=license_in)


def _request(
    endpoint: Endpoint, path: str, wanted: str, *, api_url: str | None, license_in: LicensePlace
) -> LookupRequest:
    base = _api_url(endpoint) if api_url is None else _checked(api_url)
    license = endpoint.license.reveal()
    headers = [
        ("accept", Secret("application/json")),
        # A compressed reply could unpack to any size before it is counted.
        ("accept-encoding", Secret("identity")),
    ]
    query = []
    if license_in is not LicensePlace.HEADER:
        query.append(f"license={quote(license, safe='')}")
    if license_in is not LicensePlace.QUERY:
        if not _HEADER_VALUE.fullmatch(license):
            raise EndpointError("the licence holds characters that no header can carry")
        headers.append(("license", endpoint.license))
    if wanted:
        query.append(wanted)
    url = f"{base}{_PATH}{path}" + (f"?{'&'.join(query)}" if query else "")
    return LookupRequest(url=Secret(url), headers=tuple(headers), license=endpoint.license)


def _api_url(endpoint: Endpoint) -> str:
    parts = urlsplit(endpoint.base_url)
    if parts.netloc.lower() == urlsplit(DEFAULT_BASE_URL).netloc:
        return DEFAULT_API_URL
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


def _checked(url: str) -> str:
    if not url.isprintable() or not url.isascii() or " " in url:
        raise EndpointError("a look-up URL is ASCII without white space and control characters")
    wrong = ""
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.scheme not in ("http", "https") or not parts.hostname:
            wrong = "a look-up URL starts with https:// or http:// and has a host"
        elif "@" in parts.netloc or "?" in url or "#" in url:
            wrong = "a look-up URL has no user name, no query and no fragment"
    except ValueError:
        wrong = "the look-up URL's host or port is not one"
    if wrong:
        raise EndpointError(wrong)
    return url.rstrip("/")


# ---- the reply


class LookupReply:
    """Takes a reply as it comes and makes an AvatarDetail of it, or an error.

    Driven by the adapter: :meth:`feed` with each piece of the body, :meth:`detail` at its end.
    """

    def __init__(self, request: LookupRequest, *, status: int, max_size: int = MAX_REPLY) -> None:
        self._request = request
        self._status = status
        self._max_size = max_size
        self._body = bytearray()
        self._too_big = False

    def feed(self, piece: bytes) -> bool:
        """A piece of the body. Whether more is wanted: not of a reply that is too big."""
        if len(self._body) + len(piece) > self._max_size:
            self._too_big = True
        if not self._too_big:
            self._body += piece
        return not self._too_big

    def detail(self) -> AvatarDetail:
        """The avatar, from all that was fed. Raises a subclass of AvatarLookupError.

        The service tells refusals in the envelope's ``code``, mostly with HTTP status 200; where
        the body is no envelope, the status counts.
        """
        data = self._data()
        if data is None:
            raise AvatarNotFoundError("the reply is empty")
        if not isinstance(data, Mapping):
            raise AvatarReplyError("is not an object", field="data")
        return _detail(data, "data")

    def details(self) -> tuple[AvatarDetail, ...]:
        """The avatars of a list, from all that was fed. Raises a subclass of AvatarLookupError."""
        data = self._data()
        if data is None:
            return ()
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise AvatarReplyError("is not a list", field="data")
        found = []
        for number, entry in enumerate(data):
            if not isinstance(entry, Mapping):
                raise AvatarReplyError("is not an object", field=f"data[{number}]")
            found.append(_detail(entry, f"data[{number}]"))
        return tuple(found)

    def _data(self) -> JsonValue:
        """What a reply that is no refusal holds."""
        if self._too_big:
            raise AvatarReplyError(f"is larger than {self._max_size} bytes")
        envelope, problem = self._envelope()
        if envelope is None:
            if not 200 <= self._status < 300:
                raise self._refusal(self._status)
            raise AvatarReplyError(problem)
        code = _code(envelope.get("code"))
        if code is None:
            raise AvatarReplyError("is not a number", field="code")
        data = envelope.get("data")
        text = envelope.get("message")
        message = (
            self._request.without_license(text)[:SHOWN_CHARACTERS] if isinstance(text, str) else ""
        )
        if code == 404:
            raise AvatarNotFoundError(message)
        if code != 200:
            raise self._refusal(code, message)
        if not 200 <= self._status < 300:
            raise self._refusal(self._status, message)
        return data

    def _envelope(self) -> tuple[JsonObject | None, str]:
        """The reply's object, or None and why there is none."""
        try:
            value = jsontext.loads(bytes(self._body))
        except MalformedMessageError as error:
            return None, f"is not JSON: {error.reason}"
        if not isinstance(value, Mapping) or "code" not in value:
            return None, "is not a look-up's envelope"
        return value, ""

    def _refusal(self, status: int, text: str = "") -> AvatarLookupError:
        if status in (401, 403):
            return LicenseRefusedError(text)
        # Also of HTTP 404 without an envelope: it is the URL that was not found.
        return AvatarLookupFailedError(
            f"the service said {status}" + (f": {text}" if text else ""), status=status
        )


def _code(value: JsonValue) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 6:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _detail(data: Mapping[str, Any], where: str) -> AvatarDetail:
    def text(key: str) -> str:
        value = data.get(key)
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)  # Identifiers of a database.
        if not isinstance(value, str):
            raise AvatarReplyError("is not a string", field=f"{where}.{key}")
        return value

    video_file = data.get("videoFile")
    if not (video_file is None or isinstance(video_file, bool)):
        raise AvatarReplyError("is not true or false", field=f"{where}.videoFile")
    id = text("id")
    if not id:
        raise AvatarReplyError("is missing", field=f"{where}.id")
    return AvatarDetail(
        id=id,
        name=text("name"),
        url=text("url"),
        thumbnail_url=text("thumbnailUrl"),
        provider_id=text("providerId"),
        provider_name=text("providerName"),
        model=text("model"),
        voice=text("voice"),
        first_message=text("firstMessage"),
        prompt=text("prompt"),
        video_file=bool(video_file),
        status=text("status"),
    )
