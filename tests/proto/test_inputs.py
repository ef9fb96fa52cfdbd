"""Each input calls the method of the core that it stands for."""

from __future__ import annotations

import pytest

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.inputs import (
    BinaryReceived,
    Input,
    IntentGiven,
    MediaDone,
    MediaFailed,
    MediaHappened,
    TextReceived,
    TimePassed,
    TransportClosed,
    TransportOpened,
)
from navtalk_proto.intents import Close
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaState, MediaStateChanged, OpId
from navtalk_proto.roles import Role


def core() -> Connection:
    return Connection(Role.CLIENT, ClientConfig(), now=1.0)


def test_what_opens_and_closes() -> None:
    connection = core()
    TransportOpened().give(connection, now=1.0)
    assert connection.state is State.WELCOMING
    IntentGiven(intent=Close(reason="enough")).give(connection, now=2.0)
    assert connection.state is State.CLOSING
    TransportClosed(code=1000, reason="enough").give(connection, now=3.0)
    assert connection.state is State.CLOSED


def test_what_is_received() -> None:
    connection = core()
    TransportOpened().give(connection, now=1.0)
    TextReceived(text="{}").give(connection, now=1.0)
    BinaryReceived(size=3).give(connection, now=1.0)
    assert (connection.counters.violations, connection.counters.binary) == (1, 1)


def test_what_media_does() -> None:
    connection = core()
    TransportOpened().give(connection, now=1.0)
    MediaDone(op=OpId(7)).give(connection, now=1.0)
    MediaFailed(op=OpId(8), reason="?").give(connection, now=1.0)
    assert connection.counters.stale_completions == 2
    MediaHappened(event=MediaStateChanged(state=MediaState.CHECKING)).give(connection, now=1.0)
    assert connection.media_state is MediaState.CHECKING


def test_the_timer() -> None:
    connection = core()
    TransportOpened().give(connection, now=1.0)
    due = connection.next_timeout()
    assert due is not None
    TimePassed().give(connection, now=due)
    assert connection.state is State.CLOSING


@pytest.mark.parametrize("given", [TransportOpened(), TimePassed(), TextReceived(text="{}")])
def test_what_the_core_raises_leaves(given: Input) -> None:
    with pytest.raises(ValueError, match="time went back"):
        given.give(core(), now=0.5)
