"""Constructors that set the slots of frozen classes."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest
from attrs import field, frozen, validators

from navtalk_proto.actions import AddCandidate, Emit, SendText
from navtalk_proto.construct import positional
from navtalk_proto.events import MessageReceived
from navtalk_proto.wire.messages import AudioAppend, AudioDelta, IceCandidate


@pytest.mark.parametrize(
    "cls", [AddCandidate, Emit, SendText, MessageReceived, AudioAppend, AudioDelta, IceCandidate]
)
def test_what_is_made_is_what_the_class_makes(cls: type) -> None:
    names = [each.name for each in attrs.fields(cls)]
    values = [f"value of {name}" for name in names]
    made = positional(cls)(*values)
    usual = cls(**dict(zip(names, values, strict=True)))
    assert type(made) is cls
    assert made == usual
    assert hash(made) == hash(usual)
    assert repr(made) == repr(usual)
    assert copy.copy(made) == pickle.loads(pickle.dumps(made)) == usual
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, names[0], "")


def test_every_field_has_to_be_given() -> None:
    make = positional(AudioAppend)
    with pytest.raises(TypeError, match="sequence_number"):
        make(b"")


@frozen
class _Validated:
    value: int = field(validator=validators.ge(0))


@frozen
class _Converted:
    value: int = field(converter=int)


@frozen
class _Derived:
    value: int = field(init=False, default=0)


@frozen
class _Finished:
    value: int

    def __attrs_post_init__(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("cls", [_Validated, _Converted, _Derived, _Finished])
def test_a_class_that_does_more_than_set_its_fields_is_refused(cls: type) -> None:
    with pytest.raises(TypeError, match=cls.__name__):
        positional(cls)
