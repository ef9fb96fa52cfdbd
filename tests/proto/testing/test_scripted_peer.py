from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from navtalk_proto import Role
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.testing.scripted_peer import ScriptedPeer
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    AudioDone,
    ResponseCreate,
    SessionCreated,
    UserMessage,
)

T = TypeVar("T")


def now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait."""
    with pytest.raises(StopIteration) as done:
        work.send(None)
    result: T = done.value.value
    return result


class Pipe:
    """A transport whose inbox a test fills."""

    def __init__(self, *inbox: str | bytes | TransportClosedError) -> None:
        self.inbox = list(inbox)
        self.sent: list[str] = []

    async def send_text(self, text: str) -> None:
        self.sent.append(text)

    async def receive(self) -> str | bytes:
        item = self.inbox.pop(0)
        if isinstance(item, TransportClosedError):
            raise item
        return item

    async def close(self, code: int, reason: str) -> None:
        self.sent.append(f"close {code} {reason}")

    async def aclose(self) -> None:
        raise NotImplementedError


def test_it_says_messages_and_texts() -> None:
    pipe = Pipe()
    peer = ScriptedPeer(pipe)
    now(peer.say(SessionCreated(), "{broken"))
    now(peer.close(1008, "no"))
    assert pipe.sent[0].startswith('{"type":"realtime.session.created"')
    assert pipe.sent[1:] == ["{broken", "close 1008 no"]
    assert peer.transcript == ["> realtime.session.created", "> text", "> close 1008"]


def test_it_hears_what_it_expects() -> None:
    pipe = Pipe(
        '{"type":"response.create"}', '{"type":"new.thing"}', TransportClosedError(1000, "x")
    )
    peer = ScriptedPeer(pipe)
    assert now(peer.hear(ResponseCreate)) == ResponseCreate()
    now(peer.hear(object))
    assert now(peer.hear_end()) == (1000, "x")
    assert peer.transcript == ["< response.create", "< new.thing", "< close 1000"]


@pytest.mark.parametrize(
    "inbox",
    [b"binary", '{"type":"response.create"}', TransportClosedError(None, "")],
    ids=["binary", "another", "the end"],
)
def test_it_does_not_take_anything_else(inbox: str | bytes | TransportClosedError) -> None:
    peer = ScriptedPeer(Pipe(inbox))
    with pytest.raises(AssertionError):
        peer.hear(UserMessage).send(None)


def test_it_does_not_take_a_message_for_the_end() -> None:
    peer = ScriptedPeer(Pipe('{"type":"response.create"}'))
    with pytest.raises(AssertionError, match="not the end"):
        peer.hear_end().send(None)


def test_it_may_play_the_client() -> None:
    peer = ScriptedPeer(Pipe('{"type":"realtime.response.audio.done"}'), role=Role.CLIENT)
    assert now(peer.hear(AudioDone)) == AudioDone()


def test_its_descriptions_are_consistent() -> None:
    server, client = ScriptedPeer(Pipe()), ScriptedPeer(Pipe(), role=Role.CLIENT, name="c")
    first = server.offer()
    server.take(client.answer(first))
    again = server.offer_again(MediaLine(kind=MediaKind.AUDIO))
    assert "ice-ufrag:s1" in again.sdp
    server.take(client.answer(again))
    assert "ice-ufrag:s2" in server.offer().sdp, "a new offer is a new transport"
