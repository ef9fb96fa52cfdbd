"""The demo page: a client for people, and after the steps of NavTalk's documentation (the seed).

Its files are in the folder ``page`` beside this module. Only what the table names is served: a path
is looked up, never joined. The page loads nothing from elsewhere and knows no licence but the
example one, see its app.js.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from navtalk_proto.wire.plain_http import HttpReply, HttpRequest

__all__ = ["PAGE_PATHS", "page_reply"]

_SCRIPT: Final = "text/javascript; charset=utf-8"
_RESOURCES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", _SCRIPT),
    "/microphone.js": ("microphone.js", _SCRIPT),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

PAGE_PATHS: Final = tuple(_RESOURCES)
"""What is served."""

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # The page may be pointed at another server; 'self' is for the avatar look-up.
        "connect-src 'self' ws: wss:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("Permissions-Policy", "microphone=(self), camera=(), geolocation=()"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),  # A newer navtalk on the same port has a newer page.
)


def page_reply(request: HttpRequest) -> HttpReply | None:
    """A file of the demo page; None for every other path. A query is ignored."""
    path, _, _ = request.target.partition("?")
    if path not in _RESOURCES:
        return None
    if request.method not in ("GET", "HEAD"):
        return HttpReply(status=405, headers=(("Allow", "GET, HEAD"), ("Content-Length", "0")))
    name, content_type = _RESOURCES[path]
    body = _read(name)
    return HttpReply(
        status=200,
        headers=(
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            *_HEADERS,
        ),
        body=body if request.method == "GET" else b"",
    )


@cache
def _read(name: str) -> bytes:
    return (files("navtalk_asyncio.emulator") / "page" / name).read_bytes()
