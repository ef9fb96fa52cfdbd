"""Version 1 is recognised, by either side, and named."""

from __future__ import annotations

import json

import pytest

from navtalk_proto.actions import CloseTransport, Emit, SendText
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import ObsoleteProtocolError
from navtalk_proto.events import ProtocolViolation, UnknownMessage
from navtalk_proto.opening import connect_error
from navtalk_proto.roles import Role
from navtalk_proto.wire.obsolete import REASON, is_obsolete

SUCCESS = '{"type":"conversation.connected.success","data":{"sessionId":"s"}}'


def opened(role: Role) -> Connection:
    config = ClientConfig(media=()) if role is Role.CLIENT else ServerConfig(media=())
    connection = Connection(role, config, now=0.0)
    connection.transport_opened(now=0.0)
    connection.actions()
    return connection


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"session.created","session":{}}',
        '{"type":"session.session_id","sessionId":"x"}',
        '{"type":"offer","sdp":{"type":"offer","sdp":"v=0"}}',
    ],
)
def test_a_server_that_welcomes_in_version_1(text: str) -> None:
    connection = opened(Role.CLIENT)
    connection.receive_text(text, now=0.0)
    told, *rest = connection.actions()
    assert isinstance(told, Emit)
    assert isinstance(told.event, ProtocolViolation)
    assert (told.event.reason, told.event.fatal) == (REASON, True)
    assert [one for one in rest if isinstance(one, CloseTransport)]
    error = connect_error(told.event)
    assert isinstance(error, ObsoleteProtocolError)
    assert "version 1" in str(error)
    assert "v2" in error.hint
    assert not error.retryable


def test_after_a_welcome_in_version_2_it_is_an_unknown_message() -> None:
    connection = opened(Role.CLIENT)
    connection.receive_text(SUCCESS, now=0.0)
    connection.actions()
    connection.receive_text('{"type":"session.created"}', now=0.0)
    (told,) = connection.actions()
    assert isinstance(told, Emit)
    assert isinstance(told.event, UnknownMessage)


def test_a_version_1_client_is_sent_away() -> None:
    connection = opened(Role.SERVER)
    connection.receive_text('{"type":"create","targetSessionId":"x"}', now=0.0)
    refusal, told, close = connection.actions()
    assert isinstance(refusal, SendText)
    data = json.loads(refusal.text)
    assert data == {
        "type": "conversation.connected.fail",
        "message": REASON,
        "data": {"message": REASON},
    }
    assert isinstance(told, Emit)
    assert isinstance(told.event, ProtocolViolation)
    assert told.event.reason == REASON
    assert close == CloseTransport(code=1002, reason="protocol version 1")


def test_what_both_versions_say_is_not_obsolete() -> None:
    assert is_obsolete("iceCandidate", sender=Role.SERVER)
    assert is_obsolete("iceCandidate", sender=Role.CLIENT)
    for type in ("response.done", "error", "unknow", "realtime.session.created"):
        assert not is_obsolete(type, sender=Role.SERVER)
    for type in ("response.create", "session.update", "input_audio_buffer.append"):
        assert not is_obsolete(type, sender=Role.CLIENT)
