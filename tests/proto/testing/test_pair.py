from __future__ import annotations

import pytest

from navtalk_proto.actions import AbortTransport, ClosePeer, CreateOffer, SendText, SetRemote
from navtalk_proto.config import RECEIVE_MEDIA, SEND_MEDIA, ClientConfig, ServerConfig
from navtalk_proto.events import CloseCause, Closed, Connected, ConnectFailed, TimedOut, Usable
from navtalk_proto.intents import Close, Negotiate, SayText
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.testing import LinkedPair, StrictEngine, VirtualClock
from navtalk_proto.testing.pair import Cut
from navtalk_proto.wire.messages import ConnectedSuccess, IceServer, SessionCreated, SessionUpdated

SUCCESS = ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("stun:example.org",)),))


def ready(pair: LinkedPair) -> LinkedPair:
    pair.open()
    pair.send(pair.server, SUCCESS, SessionCreated(), SessionUpdated())
    return pair


def usable(pair: LinkedPair) -> LinkedPair:
    ready(pair)
    pair.send(pair.server, Negotiate(media=SEND_MEDIA))
    return pair


def test_a_whole_session() -> None:
    pair = usable(LinkedPair())
    for end in (pair.client, pair.server):
        assert end.connection.usable
        assert len(end.of(Usable)) == 1
    assert pair.server.sent() == [
        "conversation.connected.success",
        "realtime.session.created",
        "realtime.session.updated",
        "webrtc.signaling.offer",
    ]
    assert pair.client.sent() == ["webrtc.signaling.answer"]
    assert pair.client.of(Connected)[0].session_id == "s"
    pair.send(pair.client, Close())
    for end in (pair.client, pair.server):
        assert end.connection.state is State.CLOSED
        assert len(end.of(Closed)) == 1
        assert end.events[-1] == end.of(Closed)[0]
        assert not end.open
        assert isinstance(end.engine.history[-1], ClosePeer)


def test_it_uses_what_it_is_given() -> None:
    clock = VirtualClock(7.0)
    engines = (StrictEngine("x"), StrictEngine("y"))
    pair = LinkedPair(
        ClientConfig(media=()),
        ServerConfig(media=()),
        clock=clock,
        client_engine=engines[0],
        server_engine=engines[1],
    )
    assert pair.clock is clock
    assert (pair.client.engine, pair.server.engine) == engines
    ready(pair)
    assert pair.client.connection.usable
    assert engines[0].history == []


def test_a_held_link_keeps_what_was_sent_until_it_is_delivered() -> None:
    pair = LinkedPair()
    pair.open()
    pair.to_client.held = True
    pair.send(pair.server, SUCCESS, SessionCreated())
    assert pair.to_client.kinds() == ["conversation.connected.success", "realtime.session.created"]
    assert pair.client.events == []
    item = pair.deliver(pair.server)
    assert isinstance(item, SendText)
    assert pair.client.connection.state.value == "opening"
    pair.to_client.held = False
    pair.run()
    assert pair.client.connection.state.value == "configuring"
    assert pair.to_client.kinds() == []


def test_a_held_engine_finishes_when_told_and_as_told() -> None:
    pair = usable(LinkedPair())
    pair.client.engine_held = True
    pair.send(pair.client, Negotiate(media=RECEIVE_MEDIA))
    busy = [pair.client.engine.busy]
    assert isinstance(pair.finish(pair.client, fail="no"), CreateOffer)
    busy.append(pair.client.engine.busy)
    assert busy == [True, False]
    pair.send(pair.client, Negotiate(media=RECEIVE_MEDIA))
    pair.finish(pair.client)
    pair.client.engine_held = False
    pair.run()
    assert isinstance(pair.client.engine.history[-1], SetRemote)


def test_a_held_engine_keeps_its_news() -> None:
    pair = usable(LinkedPair())
    pair.client.engine_held = True
    pair.client.engine.fail_transport()
    pair.run()
    told = len(pair.client.events)
    pair.client.engine_held = False
    pair.run()
    assert len(pair.client.events) == told + 1


def test_time_passes_in_order_on_both_ends() -> None:
    pair = LinkedPair(ClientConfig(), ServerConfig(idle_timeout=4.0))
    pair.open()
    start = pair.clock.now
    pair.to_server.held = pair.to_client.held = True
    pair.advance(20.0)
    assert pair.clock.now == start + 20.0
    assert [event.seconds for event in pair.server.of(TimedOut)] == [4.0]
    assert [event.seconds for event in pair.client.of(TimedOut)] == [10.0]
    # Neither close was delivered: each end forced its own.
    for end in (pair.server, pair.client):
        assert [closed.forced for closed in end.of(Closed)] == [True]
        assert end.actions.count(AbortTransport()) == 1
    assert pair.to_client.queue[-1] == Cut(code=None, reason="")


def test_an_abort_reaches_the_other_end_as_a_loss() -> None:
    pair = ready(LinkedPair())
    pair.to_server.held = True
    pair.send(pair.client, Close())
    pair.to_server.queue.clear()
    pair.advance(3.0)
    pair.to_server.held = False
    pair.run()
    (closed,) = pair.server.of(Closed)
    assert (closed.cause, closed.code) == (CloseCause.REMOTE, None)


def test_what_follows_a_close_frame_is_never_delivered() -> None:
    pair = ready(LinkedPair())
    pair.to_server.held = True
    pair.send(pair.client, SayText(text="hi"), Close(code=4000, reason="bye"))
    assert pair.to_server.kinds() == ["conversation.item.create", "response.create"]
    pair.to_server.held = False
    pair.run()
    assert pair.server.of(Closed) == [Closed(cause=CloseCause.REMOTE, code=4000, reason="bye")]
    assert pair.client.of(Closed) == [Closed(cause=CloseCause.LOCAL, code=4000, reason="bye")]
    assert not pair.to_server.queue


def test_both_close_at_once() -> None:
    pair = ready(LinkedPair())
    pair.to_server.held = pair.to_client.held = True
    pair.send(pair.client, Close(code=4001))
    pair.send(pair.server, Close(code=4002))
    pair.to_server.held = pair.to_client.held = False
    pair.run()
    for end in (pair.client, pair.server):
        assert [closed.cause for closed in end.of(Closed)] == [CloseCause.LOCAL]


def test_a_cut_is_a_loss_on_both_ends() -> None:
    pair = LinkedPair()
    pair.open()
    pair.to_client.held = True
    pair.send(pair.server, SUCCESS)
    pair.cut()
    assert not pair.to_client.queue
    assert pair.client.of(ConnectFailed) == [ConnectFailed(code=None, reason="", stage="welcoming")]
    assert pair.server.of(Closed) == [Closed(cause=CloseCause.REMOTE, code=None, reason="")]


def test_a_pair_that_never_settles_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = LinkedPair()
    monkeypatch.setattr(LinkedPair, "_step", lambda *_: True)
    with pytest.raises(AssertionError, match="does not settle"):
        pair.run()
