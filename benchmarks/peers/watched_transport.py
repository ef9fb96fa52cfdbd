"""What navtalk's two receivers have in common: when the offer came and the answer left."""

from __future__ import annotations

import time

from attrs import frozen

from navtalk_proto import ClientConfig, Endpoint
from navtalk_proto.ice import any_ice_server
from navtalk_proto.transport import Transport
from peers.visit import Visit


@frozen
class WatchedTransport:
    """A transport whose messages a visit is told of."""

    inner: Transport
    visit: Visit

    async def send_text(self, text: str) -> None:
        """As the transport."""
        self.visit.sent(text)
        await self.inner.send_text(text)

    async def receive(self) -> str | bytes:
        """As the transport."""
        text = await self.inner.receive()
        if isinstance(text, str):
            self.visit.received(text, time.monotonic())
        return text

    async def close(self, code: int, reason: str) -> None:
        """As the transport."""
        await self.inner.close(code, reason)

    async def aclose(self) -> None:
        """As the transport."""
        await self.inner.aclose()


def human_at(url: str) -> Endpoint:
    return Endpoint(base_url=url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")


def plain_config() -> ClientConfig:
    """The silent STUN server is on loopback, where the default rule would not ask it."""
    return ClientConfig(allow_ice_server=any_ice_server)
