"""Bounds on a peer's input."""

from __future__ import annotations

import attrs
import pytest

from navtalk_proto.limits import KIB, MIB, Limits, ToolLimits

NAMES = [field.name for field in attrs.fields(Limits)]


def test_units() -> None:
    assert (KIB, MIB) == (1024, 1_048_576)


def test_the_defaults() -> None:
    assert attrs.asdict(Limits()) == {
        "client_message": 16_777_216,
        "server_message": 1_048_576,
        "values": 100_000,
        "sdp": 131_072,
        "m_lines": 64,
        "candidates": 64,
        "candidate": 2048,
        "violations": 32,
        "queued_intents": 256,
        "queued_bytes": 8_388_608,
        "unknown_raw": 65_536,
        "ice_servers": 16,
        "transcript": 65_536,
        "responses": 16,
        "calls": 256,
        "arguments": 65_536,
    }


def test_what_must_fit_fits() -> None:
    # protocol.md rule E12: incoming text frames of 8 to 16 MiB; a stock audio message is 4096
    # characters; a description and a candidate are part of a message.
    limits = Limits()
    assert 8 * MIB <= limits.client_message <= 16 * MIB
    assert limits.candidate < limits.sdp < limits.server_message < limits.client_message
    assert limits.unknown_raw <= limits.server_message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_bound_is_at_least_one(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [1.5, "1", None])
def test_a_bound_is_an_integer(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_each_bound_is_set_alone(name: str) -> None:
    assert attrs.asdict(Limits(**{name: 7})) == attrs.asdict(Limits()) | {name: 7}


def test_the_bounds_of_tools() -> None:
    assert attrs.asdict(ToolLimits()) == {"running": 4, "waiting": 16}
    assert ToolLimits(waiting=0).waiting == 0
    for wrong in ({"running": 0}, {"waiting": -1}):
        with pytest.raises(ValueError):
            ToolLimits(**wrong)
    for untyped in ({"running": 1.5}, {"waiting": None}):
        with pytest.raises(TypeError):
            ToolLimits(**untyped)  # type: ignore[arg-type]
