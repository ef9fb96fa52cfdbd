"""Plain HTTP on a server's WebSocket port: what stock clients look up before they connect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import field, frozen

__all__ = ["HttpHandler", "HttpReply", "HttpRequest"]


@frozen(kw_only=True)
class HttpRequest:
    """A plain HTTP request on the server's port. `headers` have lower-case names."""

    method: str
    target: str = field(repr=False)  # May carry the licence in its query.
    headers: Mapping[str, str] = field(repr=False)


@frozen(kw_only=True)
class HttpReply:
    """The answer to an HttpRequest; `headers` includes Content-Length."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=lambda body: f"<{len(body)} bytes>")


HttpHandler: TypeAlias = Callable[[HttpRequest], HttpReply | None]
"""Answers plain HTTP on the same port; None: not a known path (404), or a WebSocket upgrade."""
