"""STUN and TURN servers: what their URLs say, and which of them may be contacted.

The server's connected.success names hosts, and the engine sends to them: without a rule, whoever
runs or imitates the server chooses addresses inside our network (server-side request forgery).
docs/ice-servers.md says what the default rule lets through and why.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from attrs import frozen

__all__ = [
    "IceServerRule",
    "IceTransport",
    "IceUrl",
    "IpAddress",
    "any_ice_server",
    "default_ice_rule",
    "public_ice_servers",
    "shown_ice_url",
]

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_LENGTH: Final = 300
"""Characters of an ICE server's URL: a host name has at most 253 (RFC 1035 section 2.3.4)."""

_SHOWN: Final = 100
"""Characters of a URL that is not one, where it is shown."""

_URL: Final = re.compile(
    r"(?P<scheme>stuns?|turns?):"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>[A-Za-z]+))?",
    re.ASCII,
)

_LOW_PORTS: Final = frozenset({53, 80, 443})
"""The ports below 1024 that STUN and TURN servers are found at, to pass firewalls."""


class IceTransport(Enum):
    """How a client speaks to a server. What is relayed is UDP in any case (RFC 8656)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@frozen(kw_only=True)
class IceUrl:
    """A ``stun:``, ``stuns:``, ``turn:`` or ``turns:`` URL (RFC 7064, RFC 7065), read.

    ``str()`` is a URL of the same meaning. There is no place for credentials in one.
    """

    relay: bool
    """A TURN server; else STUN."""
    host: str
    """A name, or an IP address without brackets."""
    port: int
    transport: IceTransport

    @classmethod
    def parse(cls, url: str) -> IceUrl:
        """Read a URL. Raises ValueError, whose text does not quote it: it may hold secrets."""
        match = _URL.fullmatch(url) if len(url) <= URL_LENGTH else None
        if match is None:
            raise ValueError("not a STUN or TURN URL (RFC 7064, RFC 7065)")
        scheme, transport = match["scheme"], (match["transport"] or "").lower()
        relay, secure = scheme.startswith("turn"), scheme.endswith("s")
        port = int(match["port"]) if match["port"] else 5349 if secure else 3478
        if not 0 < port < 65536:
            raise ValueError(f"there is no port {port}")
        if match["six"]:
            try:
                ipaddress.IPv6Address(match["six"])
            except ValueError as exc:
                raise ValueError("not an IPv6 address in the brackets") from exc
        if transport and not relay:
            raise ValueError("a STUN URL has no transport (RFC 7064)")
        if transport not in ("", "udp", "tcp"):
            raise ValueError("the transport is neither udp nor tcp")
        if secure and transport == "udp":
            raise ValueError("TURN over DTLS is not supported")
        if secure:
            kind = IceTransport.TLS
        else:
            kind = IceTransport.TCP if transport == "tcp" else IceTransport.UDP
        return cls(relay=relay, host=match["six"] or match["host"], port=port, transport=kind)

    def __str__(self) -> str:
        scheme = ("turn" if self.relay else "stun") + "s" * (self.transport is IceTransport.TLS)
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = "" if not self.relay else f"?transport={_QUERY[self.transport]}"
        return f"{scheme}:{host}:{self.port}{query}"


_QUERY: Final = {IceTransport.UDP: "udp", IceTransport.TCP: "tcp", IceTransport.TLS: "tcp"}


def shown_ice_url(url: str) -> str:
    """A URL as it may be shown to people: one that cannot be read without what stands before @."""
    try:
        return str(IceUrl.parse(url))
    except ValueError:
        shown = url if "@" not in url else f"***@{url.rpartition('@')[2]}"
        return shown[:_SHOWN]


IceServerRule: TypeAlias = Callable[[IceUrl, IpAddress], bool]
"""Whether an ICE server may be contacted at an address that its host name stands for.

Called by the engine on its own loop (or thread), once per address and before the first packet. The
connection is made to that very address, so a name that changes its meaning in between gains
nothing. Must be quick; what it raises counts as False.
"""


def any_ice_server(server: IceUrl, address: IpAddress) -> bool:
    """The rule that lets everything through: for servers that the application chose itself."""
    return True


def default_ice_rule(server: IceUrl, address: IpAddress) -> bool:
    """The rule of a client that was given none: no address of this machine or of its link.

    Refused are loopback, link-local (which includes the metadata service of most clouds),
    multicast, unspecified and reserved addresses, and ports below 1024 other than 53, 80 and 443.
    Private addresses (RFC 1918, RFC 4193) are let through: a TURN server inside a company has one.
    """
    if server.port < 1024 and server.port not in _LOW_PORTS:
        return False
    plain = _unmapped(address)
    if isinstance(plain, ipaddress.IPv4Address) and (plain.is_reserved or plain in _THIS_NETWORK):
        return False
    return not (
        plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_unspecified
    )


def public_ice_servers(server: IceUrl, address: IpAddress) -> bool:
    """A stricter rule, for a machine that is trusted inside its network: public addresses only."""
    return default_ice_rule(server, address) and _unmapped(address).is_global


_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")


def _unmapped(address: IpAddress) -> IpAddress:
    """An IPv4 address that is written as an IPv6 one (RFC 4291 section 2.5.5.2) as what it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
