"""The first steps of the doctor: proxy, name, TCP and TLS, each by itself."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.findings import Finding, Verdict
from navtalk_proto.wire.endpoint import Endpoint

__all__ = ["reach"]

T = TypeVar("T")

_SHOWN: Final = 4
"""Addresses of a name that are listed."""


async def reach(
    endpoint: Endpoint,
    tell: Callable[[Finding], None],
    *,
    timeout: float,  # noqa: ASYNC109 - of each step
) -> bool:
    """Look at the way to an endpoint up to TLS. Whether the WebSocket may be tried."""
    target = urllib.parse.urlsplit(endpoint.base_url)
    secure = target.scheme == "wss"
    host, port = target.hostname or "", target.port or (443 if secure else 80)
    proxy = _proxy_for(endpoint)
    if proxy is None:
        tell(Finding(step="proxy", verdict=Verdict.OK, text="none"))
    else:
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port or 8080
        text = f"{parts.scheme}://{host}:{port}, from the environment"
        tell(Finding(step="proxy", verdict=Verdict.OK, text=text))

    async def resolved() -> tuple[str, list[str]]:
        known = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in known))
        return f"{host} is {', '.join(addresses[:_SHOWN])}", addresses

    async def connected() -> tuple[str, ByteStream]:
        return f"{host} port {port} takes connections", await anyio.connect_tcp(host, port)

    async def encrypted(stream: ByteStream) -> tuple[str, ByteStream]:
        # The stream is closed below, whatever becomes of the handshake.
        context = ssl.create_default_context()
        tls = await TLSStream.wrap(stream, server_side=False, hostname=host, ssl_context=context)
        version = tls.extra(TLSAttribute.tls_version)
        return f"{version}, the certificate is for {host}", tls

    whose = "" if proxy is None else " of the proxy"
    if await _step(tell, "name", resolved(), timeout, host=f"{host}{whose}", port=port) is None:
        return False
    stream = await _step(tell, "tcp", connected(), timeout, host=f"{host}{whose}", port=port)
    if stream is None:
        return False
    try:
        if not secure:
            tell(Finding(step="tls", verdict=Verdict.OK, text="none: the URL is ws://"))
        elif proxy is not None:
            text = "inside the proxy's tunnel, with the WebSocket"
            tell(Finding(step="tls", verdict=Verdict.OK, text=text))
        else:
            done = await _step(tell, "tls", encrypted(stream), timeout, host=host, port=port)
            return done is not None
    finally:
        await anyio.aclose_forcefully(stream)
    return True


def _proxy_for(endpoint: Endpoint) -> str | None:
    """The proxy that a session goes through, as the environment has it."""
    if endpoint.is_loopback:
        return None  # A proxy's loopback is another machine's.
    parts = urllib.parse.urlsplit(endpoint.base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    known = urllib.request.getproxies()
    schemes = ("wss", "socks", "https") if parts.scheme == "wss" else ("ws", "socks", "http")
    return next((known[scheme] for scheme in schemes if scheme in known), None)


async def _step(
    tell: Callable[[Finding], None],
    step: str,
    work: Awaitable[tuple[str, T]],
    limit: float,
    *,
    host: str,
    port: int,
) -> T | None:
    """Do a step and tell of it; None when it failed."""
    began = time.monotonic()
    try:
        with anyio.fail_after(limit):
            text, result = await work
    except (OSError, UnicodeError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        text, hint = _cause(step, error, host, port, limit)
        verdict, code, outcome = Verdict.FAILED, ExitCode.NETWORK, None
    else:
        hint, verdict, code, outcome = "", Verdict.OK, ExitCode.OK, result
    tell(
        Finding(
            step=step,
            verdict=verdict,
            text=text,
            seconds=time.monotonic() - began,
            hint=hint,
            code=code,
        )
    )
    return outcome


def _cause(step: str, error: Exception, host: str, port: int, limit: float) -> tuple[str, str]:
    """What failed, and what to do about it. ssl's errors are OSErrors: the narrow ones first."""
    while not isinstance(error, ssl.SSLError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error)
    match error:
        case ssl.SSLCertVerificationError():
            text = f"the certificate is not accepted: {error.verify_message}"
            if "mismatch" in error.verify_message:
                hint = "the certificate is another host's: check the URL's host name"
            elif "expired" in error.verify_message:
                hint = "check this machine's clock; else the server's certificate is out of date"
            else:
                hint = (
                    "its issuer is not trusted here: a proxy that reads TLS, or a server of your "
                    "own; SSL_CERT_FILE names the issuer's certificate"
                )
        case ssl.SSLError():
            text = f"no TLS: {error.reason or text}"
            hint = "this port does not speak TLS: is it ws://, or another port?"
        case TimeoutError():
            text = f"no answer within {limit:g} s"
            hint = f"a firewall drops what is sent to {host} port {port}, or nobody is there"
        case socket.gaierror() | UnicodeError():
            text = f"{host} cannot be resolved: {getattr(error, 'strerror', None) or text}"
            hint = "check the host name's spelling, and this machine's DNS"
        case ConnectionRefusedError():
            text = f"{host} refuses connections at port {port}"
            hint = "nothing listens there: check the port, and that the server runs"
        case _ if step == "tls":
            text = f"the connection was dropped in the handshake: {text or type(error).__name__}"
            hint = "this port does not speak TLS, or a firewall looks into it"
        case _:
            hint = "check the network and the firewall of this machine"
    return text, hint
