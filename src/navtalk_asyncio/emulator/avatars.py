"""The REST calls that stock clients make before they open the socket (protocol.md 2.3).

Pure: a request's method, target and headers go in, a reply comes out or None for another path. Who
serves HTTP is the caller's choice. Refusals are told in the envelope, as ``code``, with HTTP status
200: clients read the body of the look-ups and not their status. Every reply lets any web page read
it (Access-Control-Allow-Origin, rule E10).
"""

from __future__ import annotations

import hmac
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from attrs import field, frozen, validators

from navtalk_asyncio.emulator.face import Face
from navtalk_proto.errors import EndpointError
from navtalk_proto.secret import Secret
from navtalk_proto.wire.endpoint import RequestTarget, parse_request_target
from navtalk_proto.wire.messages import IceServer
from navtalk_proto.wire.plain_http import HttpReply

__all__ = [
    "DETAIL_PATH",
    "BY_NAME_PATH",
    "LIST_PATH",
    "ICE_SERVERS_PATH",
    "Avatar",
    "AvatarDirectory",
    "FoundAvatar",
    "answer",
    "portrait_png",
]

DETAIL_PATH: Final = "/api/open/v1/avatar/detail"
BY_NAME_PATH: Final = "/api/open/v1/avatar/getByName"
LIST_PATH: Final = "/api/open/v1/avatar/list"
ICE_SERVERS_PATH: Final = "/api/webrtc/generate-ice-servers"
_PORTRAIT_PATH: Final = re.compile(r"/avatars/([A-Za-z0-9_-]{1,64})\.png")

_METHODS: Final = {
    DETAIL_PATH: "GET",
    BY_NAME_PATH: "GET",
    LIST_PATH: "GET",
    ICE_SERVERS_PATH: "POST",
}
_HOST: Final = re.compile(
    r"[A-Za-z0-9.\-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)
_THUMBNAIL_SIDE: Final = 256
_CORS: Final = ("Access-Control-Allow-Origin", "*")


@frozen(kw_only=True)
class Avatar:
    """A digital human of the emulator. The fields are those of the reply's `data`."""

    id: str = field(validator=validators.matches_re(r"[A-Za-z0-9_-]{1,64}"))
    name: str = field(validator=validators.min_len(1))
    model: str = "gpt-realtime"
    voice: str = "marin"
    first_message: str = ""
    prompt: str = ""


@frozen(kw_only=True)
class FoundAvatar:
    """The result of a look-up. `ambiguous`: other avatars have the same name.

    A session by an ambiguous name gets conversation.connected.warning (protocol.md 2.2).
    """

    avatar: Avatar
    ambiguous: bool = False


def _secrets(licences: Iterable[str | Secret] | None) -> tuple[Secret, ...] | None:
    if licences is None:
        return None
    return tuple(one if isinstance(one, Secret) else Secret(one) for one in licences)


@frozen(kw_only=True)
class AvatarDirectory:
    """Who may call whom. `licences`: None accepts any that is not empty."""

    avatars: tuple[Avatar, ...] = (
        Avatar(id="0f1e2d3c4b5a69788796a5b4c3d2e1f0", name="navtalk.Lea"),
    )
    """By age: of several with one name, the last was updated most recently."""

    licences: tuple[Secret, ...] | None = field(default=None, converter=_secrets)

    def accepts(self, licence: Secret | None) -> bool:
        """Whether the licence is one of ours; the time it takes does not say how much of it is."""
        if not licence:
            return False
        if self.licences is None:
            return True
        given = licence.reveal().encode("utf-8", "surrogatepass")
        matches = [
            hmac.compare_digest(given, known.reveal().encode("utf-8", "surrogatepass"))
            for known in self.licences
        ]
        return any(matches)

    def find(self, *, avatar_id: str | None = None, name: str | None = None) -> FoundAvatar | None:
        """The avatar of that id, which wins, or of that name; None for neither."""
        if avatar_id is not None:
            by_id = [one for one in self.avatars if one.id == avatar_id]
            return FoundAvatar(avatar=by_id[-1]) if by_id else None
        named = [one for one in self.avatars if one.name == name]
        return FoundAvatar(avatar=named[-1], ambiguous=len(named) > 1) if named else None


def answer(
    method: str,
    target: str,
    headers: Mapping[str, str],
    *,
    directory: AvatarDirectory,
    ice_servers: Sequence[IceServer] = (),
    secure: bool = False,
) -> HttpReply | None:
    """Answer a REST request, or return None when the path is none of ours. Never raises.

    `target` is the request target with its query; `headers` are looked up in any case, a licence
    in the query wins over the ``license`` header. `ice_servers` is what generate-ice-servers
    gives, to anybody: its callers send no licence. `secure` says that the URLs in the reply are
    https. The first request for a portrait takes about half a second, see :func:`portrait_png`.
    """
    try:
        request = parse_request_target(target)
    except EndpointError:
        return None
    portrait = _PORTRAIT_PATH.fullmatch(request.path)
    wanted = "GET" if portrait else _METHODS.get(request.path)
    if wanted is None:
        return None
    if method == "OPTIONS":
        return _preflight(wanted)
    if method != wanted:
        reply = _envelope(405, f"{request.path} wants {wanted}")
        return HttpReply(
            status=405, headers=(*reply.headers, ("Allow", f"{wanted}, OPTIONS")), body=reply.body
        )
    if portrait:
        if directory.find(avatar_id=portrait[1]) is None:
            return _reply(404, "text/plain; charset=utf-8", b"no such avatar\n")
        return _reply(200, "image/png", portrait_png())
    if request.path == ICE_SERVERS_PATH:
        return _envelope(200, "SUCCESS", {"iceServers": [_ice_server(one) for one in ice_servers]})
    return _look_up(request, headers, directory, secure)


@cache
def portrait_png() -> bytes:
    """The drawn face as a PNG of 256 x 256. The first call draws it, which takes half a second."""
    file = io.BytesIO()
    Face(_THUMBNAIL_SIDE, _THUMBNAIL_SIDE).still().save(file, "PNG")
    return file.getvalue()


def _look_up(
    request: RequestTarget, headers: Mapping[str, str], directory: AvatarDirectory, secure: bool
) -> HttpReply:
    given = request.license
    if given is None:
        header = _header(headers, "license")
        given = None if header is None else Secret(header)
    if not directory.accepts(given):
        return _envelope(401, "Invalid license key")
    origin = _origin(headers, secure)
    if request.path == LIST_PATH:
        return _envelope(200, "SUCCESS", [_data(one, origin) for one in directory.avatars])
    if request.path == DETAIL_PATH:
        if request.avatar_id is None:
            return _envelope(400, "avatarId is missing")
        found = directory.find(avatar_id=request.avatar_id)
    else:
        if request.name is None:
            return _envelope(400, "name is missing")
        found = directory.find(name=request.name)
    if found is None:
        return _envelope(404, "Avatar not found")
    return _envelope(200, "SUCCESS", _data(found.avatar, origin))


def _data(avatar: Avatar, origin: str) -> dict[str, Any]:
    portrait = f"{origin}/avatars/{quote(avatar.id)}.png"
    return {
        "id": avatar.id,
        "name": avatar.name,
        "url": portrait,
        "thumbnailUrl": portrait,
        "providerId": "1",
        # Any other provider switches camera and function calls off in stock clients (2.3).
        "providerName": "openai",
        "model": avatar.model,
        "voice": avatar.voice,
        "firstMessage": avatar.first_message,
        "prompt": avatar.prompt,
        "videoFile": False,
        "status": "Success",
    }


def _ice_server(server: IceServer) -> dict[str, Any]:
    entry: dict[str, Any] = {"urls": list(server.urls)}
    if server.username is not None and server.credential is not None:
        entry |= {"username": server.username, "credential": server.credential.reveal()}
    return entry


def _origin(headers: Mapping[str, str], secure: bool) -> str:
    """Scheme and host of the URLs in a reply; empty, which makes them relative, without a host."""
    host = _header(headers, "host")
    if host is None or not _HOST.fullmatch(host):
        return ""
    return f"{'https' if secure else 'http'}://{host}"


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value.strip() for key, value in headers.items() if key.lower() == name), None)


def _envelope(code: int, message: str, data: object = None) -> HttpReply:
    text = json.dumps({"code": code, "message": message, "data": data}, ensure_ascii=False)
    body = text.encode("utf-8", "replace")
    return _reply(200, "application/json; charset=utf-8", body)


def _preflight(wanted: str) -> HttpReply:
    """The answer to a browser that asks whether a page may send `license` (Fetch, 3.2)."""
    return HttpReply(
        status=204,
        headers=(
            _CORS,
            ("Access-Control-Allow-Methods", f"{wanted}, OPTIONS"),
            ("Access-Control-Allow-Headers", "license, content-type"),
            ("Access-Control-Max-Age", "600"),
            ("Content-Length", "0"),
        ),
    )


def _reply(status: int, content_type: str, body: bytes) -> HttpReply:
    return HttpReply(
        status=status,
        headers=(
            _CORS,
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ),
        body=body,
    )
