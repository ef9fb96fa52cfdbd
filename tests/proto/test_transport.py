from __future__ import annotations

import pytest

from navtalk_proto.transport import TransportClosedError


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
