from __future__ import annotations

from typing import get_args

import attrs
import pytest

from navtalk_proto import actions
from navtalk_proto.actions import (
    Action,
    CloseTransport,
    MediaCommand,
    OpenPeer,
    SendText,
    SetLocal,
    SetRemote,
)
from navtalk_proto.media import IcePolicy, OpId
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer, Offer

NAMES = [
    "SendText",
    "Emit",
    "CloseTransport",
    "AbortTransport",
    "OpenPeer",
    "ResetPeer",
    "ClosePeer",
    "CreateOffer",
    "SetLocal",
    "SetRemote",
    "AddCandidate",
]


def test_the_actions_are_these_eleven_and_the_last_seven_are_commands() -> None:
    assert [cls.__name__ for cls in get_args(Action)] == NAMES
    assert [cls.__name__ for cls in get_args(MediaCommand)] == NAMES[4:]


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_frozen_slotted_and_keyword_only(name: str) -> None:
    cls = getattr(actions, name)
    assert attrs.has(cls)
    assert "__dict__" not in dir(cls)
    assert all(field.kw_only for field in attrs.fields(cls))
    with pytest.raises(TypeError):
        cls(*[1])
    assert [field.name for field in attrs.fields(cls)][:1] == ["op"] or name in NAMES[:4]


def test_frozen() -> None:
    action = CloseTransport(code=1000, reason="")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        action.code = 1001  # type: ignore[misc]


def test_texts_descriptions_and_credentials_do_not_show() -> None:
    text = SendText(text='{"type":"x","data":"s3cret"}', kind="x")
    assert repr(text) == "SendText(text=<28 characters>, kind='x')"
    command = SetRemote(op=OpId(1), description=Offer(sdp="v=0 s3cret"))
    assert "s3cret" not in repr(command)
    server = IceServer(urls=("turn:t:1",), username="s3cret-user", credential=Secret("s3cret"))
    opened = OpenPeer(op=OpId(1), ice_servers=(server,), policy=IcePolicy.ALL, media=())
    assert "s3cret" not in repr(opened)


def test_a_set_local_without_description_makes_one() -> None:
    assert SetLocal(op=OpId(3)) == SetLocal(op=OpId(3), description=None, media=())
