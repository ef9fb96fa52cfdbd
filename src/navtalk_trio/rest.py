"""Looking avatars up over HTTP, with httpx: ``resolve_avatar()``, ``list_avatars()``.

The requests are those of protocol.md 2.3. httpx's transport is used, and not its client: the client
logs every URL, licence and all. The transport's own log has the headers of replies, in which a
redirect says the URL back.
"""

from __future__ import annotations

import logging
import ssl as ssl_module
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from typing import Literal

import trio

from navtalk_proto.errors import AvatarLookupFailedError, AvatarLookupTimeoutError
from navtalk_proto.wire.avatar_lookup import (
    LOOKUP_SECONDS,
    SHOWN_CHARACTERS,
    AvatarDetail,
    LicensePlace,
    LookupReply,
    LookupRequest,
    list_request,
    lookup_request,
)
from navtalk_proto.wire.endpoint import Endpoint

__all__ = ["list_avatars", "resolve_avatar"]


async def resolve_avatar(
    endpoint: Endpoint,
    *,
    api_url: str | None = None,
    license_in: LicensePlace = LicensePlace.HEADER,
    timeout: float = LOOKUP_SECONDS,  # noqa: ASYNC109 - the error names the seconds
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
) -> AvatarDetail:
    """Look up the avatar of an endpoint by its id, else by its name.

    No session needs it. It tells what the avatar's provider takes (``connect(avatar=...)``), and
    finds a wrong name or licence without opening one. `api_url` is the look-up service; None is
    NavTalk's for an endpoint there, else the endpoint's own host. `proxy` True takes the
    environment's, None uses none.

    Raises within `timeout` seconds, and none shows the licence: AvatarNotFoundError,
    LicenseRefusedError, AvatarReplyError, AvatarLookupTimeoutError, AvatarLookupFailedError for the
    network and what the service says of itself. Before anything is sent: EndpointError,
    ValueError for a proxy of a kind that httpx does not know, ImportError without httpx.
    """
    request = lookup_request(endpoint, api_url=api_url, license_in=license_in)
    reply = await _replied(request, timeout, ssl, proxy)
    return reply.detail()


async def list_avatars(
    endpoint: Endpoint,
    *,
    api_url: str | None = None,
    license_in: LicensePlace = LicensePlace.HEADER,
    timeout: float = LOOKUP_SECONDS,  # noqa: ASYNC109 - the error names the seconds
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
) -> tuple[AvatarDetail, ...]:
    """List the avatars of a licence; whose the endpoint is does not matter.

    Several may have one name, which a session by that name cannot tell apart. Arguments and errors
    are those of :func:`resolve_avatar`, but for AvatarNotFoundError.
    """
    request = list_request(endpoint, api_url=api_url, license_in=license_in)
    reply = await _replied(request, timeout, ssl, proxy)
    return reply.details()


async def _replied(
    request: LookupRequest,
    timeout: float,  # noqa: ASYNC109 - the error names the seconds
    ssl: ssl_module.SSLContext | None,
    proxy: str | Literal[True] | None,
) -> LookupReply:
    # One limit for all: those of httpx are for each read, and a slow reply has many.
    with trio.move_on_after(timeout):
        return await _ask(request, ssl, proxy)
    raise AvatarLookupTimeoutError(timeout)


async def _ask(
    request: LookupRequest, ssl: ssl_module.SSLContext | None, proxy: str | Literal[True] | None
) -> LookupReply:
    try:
        import httpx
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(
            f"{missing} is not installed; pip install 'navtalk[rest]'", name=missing
        ) from None
    url = request.url.reveal()
    through = _proxy_from_environment(url) if proxy is True else proxy
    verify = True if ssl is None else ssl
    failure = ""
    try:
        with _redacted_log(request):
            async with httpx.AsyncHTTPTransport(verify=verify, proxy=through) as transport:
                headers = [(name, value.reveal()) for name, value in request.headers]
                response = await transport.handle_async_request(
                    httpx.Request("GET", url, headers=headers)
                )
                reply = LookupReply(request, status=response.status_code)
                async with aclosing(response):
                    with trio.CancelScope() as reading:
                        async for piece in response.aiter_raw():
                            if not reply.feed(piece):
                                # Leaving the loop would abandon generators inside httpcore.
                                reading.cancel()
                return reply
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        failure = request.without_license(f"{type(error).__name__}: {error}")
    # Not raised above: what httpx raised may hold the licence, and would be its context.
    raise AvatarLookupFailedError(failure[:SHOWN_CHARACTERS])


@contextmanager
def _redacted_log(request: LookupRequest) -> Generator[None]:
    """While a request runs, its licence is taken out of what httpcore logs of HTTP/1.1."""
    log = logging.getLogger("httpcore.http11")

    def redacted(record: logging.LogRecord) -> bool:
        record.msg, record.args = request.without_license(record.getMessage()), ()
        return True

    log.addFilter(redacted)
    try:
        yield
    finally:
        log.removeFilter(redacted)


def _proxy_from_environment(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
