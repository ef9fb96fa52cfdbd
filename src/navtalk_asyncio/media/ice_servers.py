"""Which ICE servers are asked, in which order, at which address, and why one was of no use.

docs/ice-servers.md is the same for users.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

from aioice import stun
from attrs import field, frozen

from navtalk_proto.ice import IceServerRule, IceTransport, IceUrl, IpAddress, shown_ice_url
from navtalk_proto.media import IceServerFailed
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer

__all__ = [
    "ANSWER_SECONDS",
    "IceServers",
    "Server",
    "ServerError",
    "failure_reason",
    "resolve",
    "tls_context",
]

ANSWER_SECONDS: Final = 5.0
"""How long a server may take to answer, from the look-up of its name on. TURN over TLS through a
slow network was seen to need two; aioice gives up after five."""

URLS: Final = 32
"""URLs read of a peer connection's servers; providers list four to eight."""

STUN_SERVERS: Final = 4
"""STUN servers asked, each from every IPv4 interface. More say nothing new about the same NAT."""

TURN_SERVERS: Final = 8
"""TURN URLs tried: two servers by four ways each, the most that a provider was seen to list."""

ADDRESSES: Final = 3
"""Addresses tried of a host name; each may cost :data:`ANSWER_SECONDS`."""

_PREFERENCE: Final = (IceTransport.UDP, IceTransport.TCP, IceTransport.TLS)
"""TCP delays everything behind one lost packet, TLS costs a handshake more; but they pass more
firewalls."""


class ServerError(Exception):
    """A server that cannot be used; the text is the reason."""


@frozen(kw_only=True)
class Server:
    """One URL to ask, with what it wants to hear."""

    url: IceUrl
    username: str | None = field(default=None, repr=False)
    credential: Secret | None = None


@frozen(kw_only=True)
class IceServers:
    """What a peer connection asks: STUN servers all at once, TURN servers in this order."""

    stun: tuple[Server, ...] = ()
    turn: tuple[Server, ...] = ()
    left_out: tuple[IceServerFailed, ...] = ()

    @classmethod
    def of(cls, servers: Iterable[IceServer]) -> IceServers:
        """Read the servers of an OpenPeer command; never raises."""
        found: dict[IceUrl, Server] = {}
        left_out: list[IceServerFailed] = []
        urls = [(url, server) for server in servers for url in server.urls]
        for text, server in urls[:URLS]:
            try:
                url = IceUrl.parse(text)
            except ValueError as exc:
                left_out.append(IceServerFailed(url=shown_ice_url(text), reason=str(exc)))
                continue
            if not url.relay and url.transport is not IceTransport.UDP:
                left_out.append(
                    IceServerFailed(url=str(url), reason="STUN over TLS is not supported")
                )
                continue
            found.setdefault(
                url, Server(url=url, username=server.username, credential=server.credential)
            )
        if len(urls) > URLS:
            surplus = shown_ice_url(urls[URLS][0])
            reason = f"only {URLS} URLs are read; {len(urls) - URLS} are left out"
            left_out.append(IceServerFailed(url=surplus, reason=reason))
        reflexive = [server for server in found.values() if not server.url.relay]
        relays = sorted(
            (server for server in found.values() if server.url.relay),
            key=lambda server: _PREFERENCE.index(server.url.transport),
        )
        for kind, cap in ((reflexive, STUN_SERVERS), (relays, TURN_SERVERS)):
            left_out += [
                IceServerFailed(url=str(server.url), reason=f"only {cap} of a kind are asked")
                for server in kind[cap:]
            ]
        return cls(
            stun=tuple(reflexive[:STUN_SERVERS]),
            turn=tuple(relays[:TURN_SERVERS]),
            left_out=tuple(left_out),
        )

    def for_stock_aiortc(self, allow: IceServerRule) -> IceServers:
        """What may be handed to aiortc itself, where the private names of aioice have changed: it
        looks names up by itself, and asks one server of a kind and stops."""
        usable = []
        for server in (*self.stun, *self.turn):
            try:
                address = ipaddress.IPv4Address(server.url.host)
            except ValueError:
                continue
            if _is_allowed(allow, server.url, address):
                usable.append(server)
        stun, turn = self.stun[:0], self.turn[:0]
        for server in reversed(usable):
            if server.url.relay:
                turn = (server,)
            else:
                stun = (server,)
        left_out = [
            IceServerFailed(url=str(server.url), reason="not possible with this version of aioice")
            for server in (*self.stun, *self.turn)
            if server not in (*stun, *turn)
        ]
        return IceServers(stun=stun, turn=turn, left_out=(*self.left_out, *left_out))


async def resolve(server: Server, allow: IceServerRule) -> Sequence[IpAddress]:
    """Where a server may be contacted: IPv4 before IPv6, because relays are IPv4.

    Raises ServerError when its name is unknown, or leads to no address that is allowed.
    """
    url = server.url
    try:
        found: list[IpAddress] = [ipaddress.ip_address(url.host)]
    except ValueError:
        loop = asyncio.get_running_loop()
        try:
            known = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise ServerError("its name cannot be resolved") from exc
        found = list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in known))
    if not server.url.relay:
        # aioice asks from IPv4 sockets only; there is no NAT to see through on IPv6.
        found = [address for address in found if address.version == 4]
        if not found:
            raise ServerError("STUN is asked over IPv4 only")
    allowed = [address for address in found if _is_allowed(allow, url, address)]
    if not allowed:
        listed = ", ".join(str(address) for address in found[:ADDRESSES])
        raise ServerError(f"contacting {listed} port {url.port} is not allowed (allow_ice_server)")
    return sorted(allowed, key=lambda address: address.version)[:ADDRESSES]


def _is_allowed(allow: IceServerRule, url: IceUrl, address: IpAddress) -> bool:
    try:
        return bool(allow(url, address))
    except Exception as exc:  # noqa: BLE001 - the application's code; it must not end gathering
        asyncio.get_running_loop().call_exception_handler(
            {"message": "allow_ice_server raised; the server is not contacted", "exception": exc}
        )
        return False


class _NamedContext(ssl.SSLContext):
    """Verifies the certificate for the host name of the URL, while the connection is made to the
    address that the name was found to have when it was allowed."""

    hostname: str

    def wrap_bio(self, incoming: Any, outgoing: Any, *args: Any, **options: Any) -> ssl.SSLObject:
        return super().wrap_bio(
            incoming, outgoing, *args, **{**options, "server_hostname": self.hostname}
        )


def tls_context(hostname: str) -> ssl.SSLContext:
    """A client's context for TURN over TLS, with the system's trust store (``SSL_CERT_FILE``).

    Reads files: not to be called on a loop.
    """
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname = hostname
    context.load_default_certs()
    return context


_CODES: Final = {
    400: "it does not understand us",
    401: "wrong or expired credentials",
    403: "forbidden",
    437: "the allocation is gone",
    438: "stale credentials",
    441: "wrong credentials",
    442: "it does not relay UDP",
    486: "the user has too many allocations",
    508: "it has no capacity left",
}
"""RFC 8489 section 14.8, RFC 8656 section 18. The server's own phrase may repeat the user name."""


def failure_reason(exc: BaseException) -> str:
    """Why asking a server failed. Never holds a text of the server, nor a user name."""
    match exc:
        case ServerError():
            return str(exc)
        case stun.TransactionFailed():
            code = exc.response.error_code
            return f"{_CODES.get(code or 0, 'refused')} ({code})"
        case stun.TransactionTimeout() | TimeoutError():
            return f"no answer within {ANSWER_SECONDS:g} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {exc.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {getattr(exc, 'reason', None) or type(exc).__name__}"
        case OSError() if exc.errno:
            return os.strerror(exc.errno)
        case _:
            return f"an answer that makes no sense ({type(exc).__name__})"
