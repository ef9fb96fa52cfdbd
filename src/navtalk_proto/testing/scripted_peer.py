"""The far end of a session as a script: says what it is told to, and checks what it hears."""

from __future__ import annotations

from typing import TypeVar

from navtalk_proto.actions import (
    CreateOffer,
    MediaCommand,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.limits import Limits
from navtalk_proto.media import IcePolicy, MediaLine, OpId
from navtalk_proto.roles import Role
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.transport import Transport, TransportClosedError
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import Answer, Message, Offer, Unknown

__all__ = ["ScriptedPeer"]

M = TypeVar("M")


class ScriptedPeer:
    """One end of a WebSocket, driven by a test. It has no protocol state: it may say anything.

    `role` is the side it plays. Its descriptions come from a strict engine of its own, so that the
    other side finds them well-formed and consistent.
    """

    def __init__(self, transport: Transport, *, role: Role = Role.SERVER, name: str = "s") -> None:
        self.transport: Transport = transport
        self.role: Role = role
        self.engine: StrictEngine = StrictEngine(name, connects=False)
        self.transcript: list[str] = []
        """What was said (``>``) and heard (``<``), by type string."""
        self._ops = 0

    async def say(self, *messages: Message | str) -> None:
        """Send messages, or texts as they are."""
        for message in messages:
            text = message if isinstance(message, str) else codec.encode(message)
            self.transcript.append(f"> {'text' if isinstance(message, str) else message.TYPE}")
            await self.transport.send_text(text)

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this class."""
        try:
            text = await self.transport.receive()
        except TransportClosedError as closed:
            raise AssertionError(f"{closed}, not {kind.__name__}: {self.transcript}") from None
        assert isinstance(text, str), "a binary message"
        message = codec.decode(text, sender=self.role.peer, limits=Limits())
        self.transcript.append(
            f"< {message.type if isinstance(message, Unknown) else message.TYPE}"
        )
        assert isinstance(message, kind), f"{message!r}, not {kind.__name__}: {self.transcript}"
        return message

    async def hear_end(self) -> tuple[int | None, str]:
        """The close frame's code and reason; nothing may come before it."""
        try:
            text = await self.transport.receive()
        except TransportClosedError as closed:
            self.transcript.append(f"< close {closed.code}")
            return closed.code, closed.reason
        raise AssertionError(f"{text!r}, not the end: {self.transcript}")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket."""
        self.transcript.append(f"> close {code}")
        await self.transport.close(code, reason)

    def offer(self, *media: MediaLine) -> Offer:
        """An offer of this peer's; the one before it is given up."""
        lines = media or SEND_MEDIA
        command = OpenPeer if not self.engine.peers else ResetPeer
        self._run(command(op=self._op(), ice_servers=(), policy=IcePolicy.ALL, media=lines))
        made = self._run(SetLocal(op=self._op(), media=lines))
        assert isinstance(made, Offer)
        return made

    def offer_again(self, *media: MediaLine) -> Offer:
        """An offer on the transport that runs; it counts as set when its answer is taken."""
        made = self._run(CreateOffer(op=self._op(), media=media or SEND_MEDIA))
        assert isinstance(made, Offer)
        self._run(SetLocal(op=self._op(), description=made))
        return made

    def take(self, answer: Answer) -> None:
        """Apply the far end's answer."""
        self._run(SetRemote(op=self._op(), description=answer))

    def answer(self, offer: Offer) -> Answer:
        """Answer the far end's offer."""
        if not self.engine.peers:
            self._run(OpenPeer(op=self._op(), ice_servers=(), policy=IcePolicy.ALL, media=()))
        self._run(SetRemote(op=self._op(), description=offer))
        made = self._run(SetLocal(op=self._op()))
        assert isinstance(made, Answer)
        return made

    def _op(self) -> OpId:
        self._ops += 1
        return OpId(self._ops)

    def _run(self, command: MediaCommand) -> object:
        self.engine.execute(command)
        _, result, reason = self.engine.finish()
        assert reason is None, reason
        return result
