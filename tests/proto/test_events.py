from __future__ import annotations

from typing import get_args

import attrs
import pytest

from navtalk_proto import events
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Connected,
    Event,
    NegotiationFailed,
    OfferIgnored,
    ProtocolViolation,
    UnknownMessage,
)
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer, Offer

OWN = set(events.__all__) - {"Event", "ConversationEvent", "MediaFlowEvent", "CloseCause"}
FROM_MEDIA = {"MediaStateChanged", "TrackAdded", "MediaStarted", "IceServerFailed"}


def test_the_union_has_every_event_and_the_four_of_the_media() -> None:
    assert {cls.__name__ for cls in get_args(Event)} == OWN | FROM_MEDIA
    assert len(get_args(Event)) == len(OWN) + 4


@pytest.mark.parametrize("cls", get_args(Event), ids=lambda cls: cls.__name__)
def test_every_event_is_frozen_slotted_keyword_only_and_explained(cls: type) -> None:
    assert attrs.has(cls)
    assert "__dict__" not in dir(cls)
    assert all(field.kw_only for field in attrs.fields(cls))
    assert cls.__doc__
    assert cls.__hash__ is not None


def test_defaults_are_the_harmless_ones() -> None:
    assert ProtocolViolation(reason="x").fatal is False
    assert Closed(cause=CloseCause.LOCAL, code=1000, reason="").forced is False
    assert NegotiationFailed(reason="x").media == ()


def test_secrets_and_long_texts_do_not_show() -> None:
    server = IceServer(urls=("turn:t:1",), username="s3cret-user", credential=Secret("s3cret"))
    for event in (
        Connected(session_id="s", ice_servers=(server,)),
        OfferIgnored(offer=Offer(sdp="v=0 s3cret"), reason="glare"),
        UnknownMessage(type="x", raw='{"type":"x","licence":"s3cret"}'),
    ):
        assert "s3cret" not in repr(event)
