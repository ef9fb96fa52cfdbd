"""Ask one STUN or TURN server what an ICE agent would ask it, and nothing else: for diagnosis.

Needs a running asyncio loop, and no peer connection. Uses public names of aioice only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterable
from typing import Any, Final

from aioice import stun, turn
from attrs import frozen

from navtalk_asyncio.media.ice_servers import (
    ANSWER_SECONDS,
    Server,
    ServerError,
    failure_reason,
    resolve,
    tls_context,
)
from navtalk_proto.ice import IceServerRule, IceTransport, IceUrl, IpAddress, shown_ice_url
from navtalk_proto.wire.messages import IceServer

__all__ = ["IceProbe", "probe_ice_servers"]

_REPEATS: Final = (0.0, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the requests to a STUN server, before each: a packet may be lost (RFC 8489
section 6.2.1 doubles from 0.5 s; nobody waits for us here)."""

_RELEASE_SECONDS: Final = 1.0
"""How long giving an allocation back may take."""


@frozen(kw_only=True)
class IceProbe:
    """What came of asking one URL. Shows neither a user name nor a credential."""

    url: str
    answered: bool
    seconds: float
    text: str
    """The address that the server told, or why it is of no use."""


async def probe_ice_servers(
    servers: Iterable[IceServer], allow: IceServerRule, *, seconds: float = ANSWER_SECONDS
) -> list[IceProbe]:
    """Ask every URL of `servers`, all at once, each for at most so many `seconds`.

    Addresses that `allow` refuses are not contacted. Never raises.
    """
    asked = [_ask(url, server, allow, seconds) for server in servers for url in server.urls]
    return list(await asyncio.gather(*asked))


async def _ask(text: str, ice: IceServer, allow: IceServerRule, seconds: float) -> IceProbe:
    began = time.monotonic()
    shown = shown_ice_url(text)
    try:
        url = IceUrl.parse(text)
        server = Server(url=url, username=ice.username, credential=ice.credential)
        async with asyncio.timeout(seconds):
            addresses = await resolve(server, allow)
            ask = _allocated if url.relay else _bound
            told = await ask(server, addresses[0])
    except TimeoutError:
        answered, told = False, f"no answer within {seconds:g} s"
    except ValueError as error:
        answered, told = False, str(error)
    except (OSError, ServerError, stun.TransactionError) as error:
        answered, told = False, failure_reason(error)
    else:
        answered = True
    return IceProbe(url=shown, answered=answered, seconds=time.monotonic() - began, text=told)


class _Binding(asyncio.DatagramProtocol):
    """One STUN client: resolves to the address that it is told."""

    def __init__(self, request: stun.Message) -> None:
        self._request = request
        self.told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        with contextlib.suppress(ValueError):  # Not for us: anybody may send to a port.
            reply = stun.parse_message(data)
            if reply.transaction_id != self._request.transaction_id or self.told.done():
                return
            address = reply.attributes.get("XOR-MAPPED-ADDRESS")
            if address is None:
                self.told.set_exception(ServerError("its answer has no address"))
            else:
                self.told.set_result(f"this machine is seen as {address[0]}:{address[1]}")

    def error_received(self, exc: Exception) -> None:
        if not self.told.done():
            self.told.set_exception(exc)


async def _bound(server: Server, address: IpAddress) -> str:
    if server.url.transport is not IceTransport.UDP:
        raise ServerError("STUN over TLS is not supported")
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Binding(request),
        remote_addr=(str(address), server.url.port),
        family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
    )
    try:
        for pause in _REPEATS:
            done, _ = await asyncio.wait([protocol.told], timeout=pause)
            if done:
                break
            transport.sendto(bytes(request))
        return await protocol.told
    finally:
        transport.close()


class _Relayed(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def _allocated(server: Server, address: IpAddress) -> str:
    url = server.url
    context = None
    if url.transport is IceTransport.TLS:
        context = await asyncio.to_thread(tls_context, url.host)
    relay, protocol = await turn.create_turn_endpoint(
        _Relayed,
        server_addr=(str(address), url.port),
        username=server.username,
        password=None if server.credential is None else server.credential.reveal(),
        ssl=context,
        transport="udp" if url.transport is IceTransport.UDP else "tcp",
    )
    host, port = relay.get_extra_info("sockname")
    relay.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_RELEASE_SECONDS):
            await protocol.lost.wait()
    return f"relays at {host}:{port}"
