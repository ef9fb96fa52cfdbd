from __future__ import annotations

import attrs
import pytest

from navtalk_proto.transport import DoorCounters, TransportClosedError, may_come_from


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1008, "Insufficient points", "closed with 1008: Insufficient points"),
        (1000, "", "closed with 1000"),
        (None, "", "connection lost"),
        (None, "no pong within 20 s", "connection lost: no pong within 20 s"),
    ],
)
def test_it_says_how_the_connection_ended(code: int | None, reason: str, text: str) -> None:
    error = TransportClosedError(code, reason)
    assert (error.code, error.reason, str(error)) == (code, reason, text)


def test_it_is_nobody_elses_error() -> None:
    # A driver tells it from an OSError of a bug, and from a session's own errors, by its class.
    assert TransportClosedError.__mro__[1] is Exception


def test_the_door_counts_from_zero() -> None:
    assert attrs.asdict(DoorCounters()) == dict.fromkeys(
        ("full", "origin", "opening", "unread", "fragments"), 0
    )


@pytest.mark.parametrize(
    ("origins", "allowed", "may"),
    [
        ([], None, True),
        (["https://a"], None, True),
        ([], ["https://a"], True),
        (["https://a"], ["https://a"], True),
        (["https://a.evil"], ["https://a"], False),
        (["HTTPS://A"], ["https://a"], False),
        (["null"], ["https://a"], False),
        (["null"], ["null"], True),
        (["https://a", "https://b"], ["https://a"], False),
        (["https://a"], [], False),
    ],
)
def test_which_pages_may_connect(origins: list[str], allowed: list[str] | None, may: bool) -> None:
    assert may_come_from(origins, allowed) is may
