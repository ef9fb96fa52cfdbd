"""The URL of a session: where, with which licence, which human (protocol.md 2.1 and 2.2).

The licence travels in the query. It leaves an :class:`Endpoint` through :meth:`Endpoint.url` and
nowhere else; no repr and no error shows it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, quote, unquote_plus, urlsplit

from attrs import field, frozen

from navtalk_proto.errors import EndpointError
from navtalk_proto.secret import Secret

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_PATH",
    "MAX_URL",
    "Endpoint",
    "Mode",
    "RequestTarget",
    "parse_request_target",
]

DEFAULT_PATH: Final = "/wss/v2/realtime-chat"
DEFAULT_BASE_URL: Final = "wss://transfer.navtalk.ai" + DEFAULT_PATH

MAX_URL: Final = 8192
"""The longest URL or request target that is read, in characters; HTTP servers take no more."""

_SCHEMES_TO_WRITE: Final = {"https": "wss://", "http": "ws://"}
# Digits only: 127.example.org is somebody else's name.
_LOOPBACK_V4: Final = re.compile(r"127(\.[0-9]{1,3}){3}")


def _as_secret(license: Secret | str) -> Secret:
    return license if isinstance(license, Secret) else Secret(license)


def _base_url(url: str) -> str:
    """Check a base URL and give it the default path where it has none."""
    if not url.isprintable() or " " in url:
        raise EndpointError("a base URL has no white space and no control characters")
    parts = _split(url)
    if parts.scheme in _SCHEMES_TO_WRITE:
        raise EndpointError(
            f"the base URL starts with {parts.scheme}://; write {_SCHEMES_TO_WRITE[parts.scheme]}"
        )
    if parts.scheme not in ("ws", "wss"):
        raise EndpointError("a base URL starts with wss:// or ws://")
    if not parts.hostname:
        raise EndpointError("the base URL has no host")
    if "@" in parts.netloc:
        raise EndpointError("the base URL has a user name; NavTalk knows the licence only")
    if "?" in url or "#" in url:
        raise EndpointError("a base URL has no query and no fragment; give the parts by name")
    path = DEFAULT_PATH if parts.path in ("", "/") else parts.path
    return f"{parts.scheme}://{parts.netloc}{path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        pass  # not raised from here: the exception quotes parts of the URL
    else:
        return parts
    raise EndpointError("the base URL's host or port is not one")


def _none_if_empty(text: str | None) -> str | None:
    return text or None


class Mode(Enum):
    """Who decides what the human says (protocol.md 6.2)."""

    NORMAL = "normal"
    """The server: it listens, thinks and speaks. Audio is what the user says."""
    TRANSPARENCY = "transparency"
    """The caller: audio that is sent is what the human says, and nothing is told of turns."""
    AUDIO_BACK = "audio back"
    """As TRANSPARENCY, for servers that bring their own speech; silence has to flow in between."""


def _mode(model: str | None, *, audio_back: bool) -> Mode:
    if model == Mode.TRANSPARENCY.value:
        return Mode.TRANSPARENCY
    return Mode.AUDIO_BACK if audio_back else Mode.NORMAL


@frozen(kw_only=True)
class Endpoint:
    """One digital human at one service.

    `base_url` is ``ws://`` or ``wss://``; without a path it gets :data:`DEFAULT_PATH`. One of
    `avatar_id` and `name` is needed, and `avatar_id` wins. `model` is for services that read it
    from the URL (``transparency`` pushes PCM that the avatar says, 6.2); `audio_back` says that the
    caller brings its own speech. Raises EndpointError.
    """

    base_url: str = field(default=DEFAULT_BASE_URL, converter=_base_url)
    license: Secret = field(converter=_as_secret)
    avatar_id: str | None = field(default=None, converter=_none_if_empty)
    name: str | None = field(default=None, converter=_none_if_empty)
    model: str | None = field(default=None, converter=_none_if_empty)
    audio_back: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.license:
            raise EndpointError("there is no licence")
        if self.avatar_id is None and self.name is None:
            raise EndpointError("there is neither an avatar id nor a name")
        for text in (self.license.reveal(), self.avatar_id, self.name, self.model):
            if text is not None and any("\ud800" <= c <= "\udfff" for c in text):
                raise EndpointError("a value holds a lone surrogate")

    def url(self) -> str:
        """The URL to open, with the licence in it: for the transport, not for a log.

        The order is licence, avatar, model, audioBack; values are percent-encoded, a space as %20.
        """
        return self._url(quote(self.license.reveal(), safe=""))

    @property
    def mode(self) -> Mode:
        """Who decides what the human says, as the URL's parameters have it."""
        return _mode(self.model, audio_back=self.audio_back)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by name or address (RFC 6761, RFC 1122)."""
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or _LOOPBACK_V4.fullmatch(host) is not None

    def redacted_url(self) -> str:
        """The URL with ``***`` in the licence's place."""
        return self._url("***")

    def _url(self, license: str) -> str:
        query = [f"license={license}"]
        if self.avatar_id is not None:
            query.append(f"avatarId={quote(self.avatar_id, safe='')}")
        else:
            query.append(f"name={quote(self.name or '', safe='')}")
        if self.model is not None:
            query.append(f"model={quote(self.model, safe='')}")
        if self.audio_back:
            query.append("audioBack=true")
        return f"{self.base_url}?{'&'.join(query)}"

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read a full URL, for example one that a stock client would open.

        Parameters come in any order; unknown ones are ignored; ``characterName`` is the v1 name of
        ``name``. See :func:`parse_request_target` for how values are decoded. Raises EndpointError.
        """
        if len(url) > MAX_URL:
            raise EndpointError(f"the URL is longer than {MAX_URL} characters")
        if "#" in url:
            raise EndpointError("a WebSocket URL has no fragment; write # as %23")
        base, _, query = url.partition("?")
        values = _query(query)
        return cls(
            base_url=base,
            license=values.get("license", ""),
            avatar_id=values.get("avatarId"),
            name=_name(values),
            model=values.get("model"),
            audio_back=_audio_back(values),
        )


@frozen(kw_only=True)
class RequestTarget:
    """What a client asks a server for in its upgrade request; nothing is required here."""

    path: str
    license: Secret | None = None
    avatar_id: str | None = None
    name: str | None = None
    model: str | None = None
    audio_back: bool = False

    @property
    def mode(self) -> Mode:
        """Who decides what the human says, as the client asked for it."""
        return _mode(self.model, audio_back=self.audio_back)


def parse_request_target(target: str) -> RequestTarget:
    """Read an HTTP request target, ``/wss/v2/realtime-chat?license=..&name=..`` (RFC 9112 3.2).

    Any order; unknown names are ignored, of repeated ones the first counts, and an empty value is
    an absent one. Values are percent-decoded as UTF-8, and ``+`` is a space, because Android
    encodes so. That is ambiguous: iOS leaves ``+`` and ``&`` of a value as they are, and such a
    value arrives changed. Values that were not encoded at all are taken as they stand. A server
    that finds something missing refuses after the upgrade (2.5). Raises EndpointError when the
    target does not start with ``/`` or is longer than :data:`MAX_URL`.
    """
    if len(target) > MAX_URL:
        raise EndpointError(f"the request target is longer than {MAX_URL} characters")
    if not target.startswith("/"):
        raise EndpointError("a request target starts with a slash")
    path, _, query = target.partition("?")
    values = _query(query)
    license = values.get("license")
    return RequestTarget(
        path=path,
        license=None if license is None else Secret(license),
        avatar_id=values.get("avatarId"),
        name=_name(values),
        model=values.get("model"),
        audio_back=_audio_back(values),
    )


def _query(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if value:
            # Names are taken as they are: no client encodes them, and one that is encoded would
            # hide a licence from what takes licences out of logs.
            values.setdefault(name, unquote_plus(value))
    return values


def _name(values: dict[str, str]) -> str | None:
    return values.get("name", values.get("characterName"))


def _audio_back(values: dict[str, str]) -> bool:
    return values.get("audioBack", "").lower() == "true"
