"""A transport on which a server cannot say our licence back to us."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from navtalk_proto.secret import Secret
from navtalk_proto.transport import Transport, TransportClosedError

__all__ = ["SHORTEST", "RedactingTransport"]

SHORTEST: Final = 16
"""Characters of the shortest licence that is looked for. Real ones have 43 (protocol.md 2.2); one
like ``test`` may stand in any message, and cutting it out there would break the message."""


class RedactingTransport:
    """A client's transport; what it receives does not hold the licence.

    A refusal that quotes it would carry it into events, errors and what an application makes of
    them. Found is the licence as it is, as a URL has it, and as JSON may escape it.
    """

    def __init__(self, transport: Transport, license: Secret) -> None:
        self._transport = transport
        plain = license.reveal()
        spellings = {
            plain,
            quote(plain, safe=""),
            json.dumps(plain)[1:-1],
            json.dumps(plain, ensure_ascii=False)[1:-1],
        }
        self._spellings: Final = (
            sorted(spellings, key=len, reverse=True) if len(plain) >= SHORTEST else []
        )

    def _without(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, "***")
        return text

    async def send_text(self, text: str) -> None:
        """As the transport's own: what we say to the server, it may know."""
        await self._transport.send_text(text)

    async def receive(self) -> str | bytes:
        """The next message, without the licence. Raises TransportClosedError, without it too."""
        try:
            message = await self._transport.receive()
        except TransportClosedError as closed:
            reason = self._without(closed.reason)
            if reason == closed.reason:
                raise
            code, violation = closed.code, closed.violation
        else:
            return self._without(message) if isinstance(message, str) else message
        raise TransportClosedError(code, reason, violation=violation)

    async def close(self, code: int, reason: str) -> None:
        """As the transport's own."""
        await self._transport.close(code, reason)

    async def aclose(self) -> None:
        """As the transport's own."""
        await self._transport.aclose()
