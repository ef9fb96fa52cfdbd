from __future__ import annotations

import pytest

from navtalk_proto import ClientConfig, Role, ServerConfig
from navtalk_proto.actions import (
    CloseTransport,
    Emit,
    OpenPeer,
    SendText,
    SetLocal,
    SetRemote,
)
from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.events import (
    BinaryIgnored,
    Closed,
    MessageReceived,
    NegotiationFailed,
    ProtocolViolation,
    Ready,
    TimedOut,
    Usable,
    UserTurn,
)
from navtalk_proto.intents import Close, SayText
from navtalk_proto.media import MediaState, MediaStateChanged
from navtalk_proto.testing.playbook import OPENED, Done, Failed, Lost, Ours, Pass, Playbook
from navtalk_proto.testing.scripted_peer import ScriptedPeer
from navtalk_proto.wire.messages import (
    Answer,
    AudioDone,
    ConnectedSuccess,
    Offer,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
)


def ready(book: Playbook) -> Playbook:
    book >> OPENED
    book >> ConnectedSuccess(session_id="s1") << Emit
    book >> SessionCreated()
    return book


def test_a_conversation_as_it_should_go() -> None:
    book = ready(Playbook(Role.CLIENT, ClientConfig(media=())))
    book >> SessionUpdated() << Emit(event=Ready()) << Emit(event=Usable())
    book >> SayText(text="hi", respond=False) << SendText
    book << Emit(event=UserTurn(text="hi", typed=True))
    book >> AudioDone() << Emit(event=MessageReceived(message=AudioDone()))
    book >> "not JSON" << Emit
    assert isinstance(book.last, Emit)
    assert isinstance(book.last.event, ProtocolViolation)
    book >> b"1234" << Emit(event=BinaryIgnored(size=4))
    book >> Close() << CloseTransport(code=1000, reason="")
    book >> Lost(1000) << Emit
    assert isinstance(book.last.event, Closed)
    book.end()


def test_the_servers_side() -> None:
    book = Playbook(Role.SERVER, ServerConfig(media=()))
    book >> OPENED
    book >> ConnectedSuccess(session_id="s1") << SendText
    book >> ResponseCreate() << Emit(event=MessageReceived(message=ResponseCreate()))
    book.end()


def test_media_commands_and_their_completions() -> None:
    peer = ScriptedPeer(None)  # type: ignore[arg-type]
    book = ready(Playbook(Role.CLIENT, ClientConfig()))
    book >> peer.offer() << OpenPeer
    book >> Done(book.op) << SetRemote
    book >> Done(book.op) << SetLocal
    answer = Answer(sdp=peer.offer().sdp)
    book >> Done(book.op, answer) << SendText << Emit
    book >> MediaStateChanged(state=MediaState.CHECKING) << Emit
    book.end()


def test_a_command_that_fails() -> None:
    book = ready(Playbook(Role.CLIENT, ClientConfig()))
    book >> ScriptedPeer(None).offer() << OpenPeer  # type: ignore[arg-type]
    book >> Failed(book.op, "no sockets") << Emit(event=NegotiationFailed(reason="no sockets"))


def test_only_a_media_command_has_an_op() -> None:
    book = ready(Playbook(Role.CLIENT, ClientConfig(media=())))
    with pytest.raises(AssertionError, match="no media command"):
        _ = book.op


def test_time_passes() -> None:
    book = Playbook(Role.CLIENT, ClientConfig(welcome_timeout=2.0))
    book >> OPENED
    book >> Pass(1.5)
    book >> Pass(0.5) << Emit(event=TimedOut(waiting_for="connected.success", seconds=2.0))
    book << CloseTransport
    book.end()


def test_a_class_of_both_sides_is_ours_when_it_says_so() -> None:
    book = Playbook(Role.CLIENT, ClientConfig(media=()))
    book >> OPENED
    with pytest.raises(LocalProtocolError):
        book >> Ours(Offer(sdp="v=0\r\n"))


def test_surprises() -> None:
    book = ready(Playbook(Role.CLIENT, ClientConfig(media=())))
    with pytest.raises(AssertionError, match="no further action"):
        book << SendText
    with pytest.raises(AssertionError, match=r"not .*SendText"):
        book >> SessionUpdated() << SendText
    with pytest.raises(AssertionError, match="also brought about"):
        book >> SayText(text="the second event was not expected")
