"""What a server says of our licence does not get past the transport."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.redacting_transport import SHORTEST, RedactingTransport
from navtalk_proto.secret import Secret
from navtalk_proto.transport import TransportClosedError

LICENSE = "sk_navtalk_EXAMPLE"


class Inner:
    """A transport whose far end says one thing."""

    def __init__(self, says: Any) -> None:
        self.says = says
        self.done: list[Any] = []

    async def send_text(self, text: str) -> None:
        self.done.append(text)

    async def receive(self) -> Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def close(self, code: int, reason: str) -> None:
        self.done.append((code, reason))

    async def aclose(self) -> None:
        self.done.append("closed")


def received(says: Any, license: str = LICENSE) -> Any:
    coroutine = RedactingTransport(Inner(says), Secret(license)).receive()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def test_a_message_that_quotes_the_licence() -> None:
    assert received(f"Invalid license key {LICENSE}!") == "Invalid license key ***!"
    assert received("Invalid license key") == "Invalid license key"
    assert received(LICENSE.encode()) == LICENSE.encode(), "a binary message is not read at all"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST))
def test_in_every_spelling(license: str) -> None:
    escaped, plain = json.dumps(license), json.dumps(license, ensure_ascii=False)
    assert received(escaped, license) == received(plain, license) == '"***"'
    assert received(quote(license, safe=""), license) == "***"


def test_a_licence_that_may_stand_in_any_message_is_left_there() -> None:
    assert received('{"type": "test"}', "test") == '{"type": "test"}'


def test_a_close_reason_that_quotes_it() -> None:
    closed = TransportClosedError(1008, f"bad {LICENSE}", violation=True)
    with pytest.raises(TransportClosedError) as caught:
        received(closed)
    assert (caught.value.code, caught.value.reason) == (1008, "bad ***")
    assert caught.value.violation
    assert caught.value.__context__ is None
    assert LICENSE not in str(caught.value)
    other = TransportClosedError(None, "gone")
    with pytest.raises(TransportClosedError) as caught:
        received(other)
    assert caught.value is other


def test_everything_else_is_passed_on() -> None:
    inner = Inner("")
    transport = RedactingTransport(inner, Secret(LICENSE))
    for coroutine in (transport.send_text("hi"), transport.close(1000, "r"), transport.aclose()):
        with pytest.raises(StopIteration):
            coroutine.send(None)
    assert inner.done == ["hi", (1000, "r"), "closed"]
