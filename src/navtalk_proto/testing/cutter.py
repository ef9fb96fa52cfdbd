"""A WebSocket that is cut, goes silent or slow when a test says so, or when something has passed.

It acts on whole messages, above a WebSocket library that goes on answering pings. For a connection
that is silent down to its socket there is the `tcp_proxy` of the adapters' test kits.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

from navtalk_proto.event_buffer import Flag
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.transport import Transport, TransportClosedError

__all__ = ["Cutter", "CutTransport", "Flow"]

_LEADS_TO: Final = {
    State.OPENING: "conversation.connected.success",
    State.CONFIGURING: "realtime.session.created",
    State.READY: "realtime.session.updated",
}
"""The message of the server that takes a session of stock order to a state."""


PASSED: Final = 1000
"""Types of messages that are kept. The emulator has a cutter in sessions that last for days."""


class Flow(Enum):
    """What passes."""

    OPEN = "open"
    SILENT = "silent"
    """Nothing: what is sent vanishes, and so does what arrives. Nobody is told."""
    CUT = "cut"
    """Nothing more: both ends see the connection end without a close frame."""


class Cutter:
    """What becomes of the messages of one connection; :meth:`wrap` it once.

    `race` runs something until the flag is set, and returns None then; `sleep` waits so many
    seconds. Both are a loop's: made by :func:`navtalk_asyncio.testing.cutter` and its twin.
    """

    def __init__(
        self,
        flag: Callable[[], Flag],
        race: Callable[[Callable[[], Awaitable[str | bytes]], Flag], Awaitable[str | bytes | None]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.flow: Flow = Flow.OPEN
        self.slow: float = 0.0
        """Seconds that each message takes longer, in both directions."""
        self.passed: list[str] = []
        """The types of the newest 1000 messages that passed, ``>`` sent or ``<`` received before
        each."""
        self.vanished: int = 0
        """Messages that did not pass, since the flow was silent."""
        self._was_cut = flag()
        self._race = race
        self._sleep = sleep
        self._plans: list[tuple[str | int, Flow]] = []
        self._passed = 0

    def wrap(self, transport: Transport) -> CutTransport:
        """The transport to use instead."""
        return CutTransport(transport, self)

    def cut(self) -> None:
        """End the connection now, as when the far machine or a middle box dropped it."""
        self.flow = Flow.CUT
        self._was_cut.set()

    def go_silent(self) -> None:
        """Let nothing pass from now on, and tell nobody."""
        if self.flow is Flow.OPEN:
            self.flow = Flow.SILENT

    def heal(self) -> None:
        """Undo :meth:`go_silent`; what vanished meanwhile is gone."""
        if self.flow is Flow.SILENT:
            self.flow = Flow.OPEN

    def at(self, what: State | str | int, flow: Flow = Flow.CUT) -> None:
        """Do that as soon as something has passed.

        `what` is a lifecycle state of the client that the server's messages lead to, a message's
        type in either direction, as in ``"webrtc.signaling.answer"``, or a number of messages.
        Raises KeyError for a state that no message leads to.
        """
        self._plans.append((_LEADS_TO[what] if isinstance(what, State) else what, flow))

    def _has_passed(self, mark: str, text: str | bytes) -> None:
        kind = _kind(text)
        self._passed += 1
        self.passed.append(f"{mark} {kind}")
        del self.passed[:-PASSED]
        for what, flow in self._plans:
            if what in (kind, self._passed):
                if flow is Flow.CUT:
                    self.cut()
                elif flow is Flow.SILENT:
                    self.go_silent()


class CutTransport:
    """A Transport under a :class:`Cutter`."""

    def __init__(self, transport: Transport, cutter: Cutter) -> None:
        self._transport = transport
        self._cutter = cutter
        self._received: str | bytes | None = None

    async def send_text(self, text: str) -> None:
        """Send one message, if it passes. Raises TransportClosedError once it was cut."""
        cutter = self._cutter
        if cutter.slow:
            await cutter._sleep(cutter.slow)
        await self._end_if_cut()
        if cutter.flow is Flow.SILENT:
            cutter.vanished += 1
            return
        await self._transport.send_text(text)
        cutter._has_passed(">", text)

    async def receive(self) -> str | bytes:
        """Receive the next message that passes. Raises TransportClosedError once it was cut."""
        cutter = self._cutter
        while True:
            await self._end_if_cut()
            if self._received is None:
                self._received = await cutter._race(self._transport.receive, cutter._was_cut)
            if self._received is None:
                continue  # It was cut.
            if cutter.slow:
                await cutter._sleep(cutter.slow)
            message, self._received = self._received, None
            if cutter.flow is Flow.OPEN:
                cutter._has_passed("<", message)
                return message
            cutter.vanished += 1

    async def close(self, code: int, reason: str) -> None:
        """Close, if that passes; in silence the handshake never ends, and waits for a cut."""
        if self._cutter.flow is Flow.SILENT:
            await self._cutter._was_cut.wait()
        if self._cutter.flow is Flow.OPEN:
            await self._transport.close(code, reason)

    async def aclose(self) -> None:
        """Drop the connection."""
        await self._transport.aclose()

    async def _end_if_cut(self) -> None:
        if self._cutter.flow is Flow.CUT:
            await self._transport.aclose()
            raise TransportClosedError(None, "")


def _kind(text: str | bytes) -> str:
    if isinstance(text, bytes):
        return "binary"
    try:
        message = json.loads(text)
    except ValueError:
        return "no JSON"
    kind = message.get("type") if isinstance(message, dict) else None
    return kind if isinstance(kind, str) else "no type"
