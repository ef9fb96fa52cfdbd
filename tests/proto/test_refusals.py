"""Refusals by message, by close, and by a close alone (protocol.md 2.5, 5.3)."""

from __future__ import annotations

from typing import get_args

import pytest

from navtalk_proto.errors import RefusalKind
from navtalk_proto.refusals import REFUSAL_CLOSES, REFUSALS, refusal_in, refusal_of
from navtalk_proto.wire.messages import GpuFull, Refusal


def test_every_refusal_has_a_kind_of_its_own_and_a_close() -> None:
    assert set(REFUSALS) == set(get_args(Refusal))
    assert sorted(kind.value for kind in REFUSALS.values()) == sorted(
        kind.value for kind in REFUSAL_CLOSES
    )
    assert refusal_of(GpuFull(message="why")) == (RefusalKind.GPU_FULL, "why")


@pytest.mark.parametrize("kind", REFUSAL_CLOSES)
def test_our_own_closes_are_understood(kind: RefusalKind) -> None:
    code, reason = REFUSAL_CLOSES[kind]
    assert refusal_in(reason) is kind
    # RFC 6455 section 7.4.1: a policy (1008), an error (1011), to be tried again later (1013).
    assert code == {"gpu_full": 1013, "backend_error": 1011}.get(kind.value, 1008)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Insufficient points", RefusalKind.INSUFFICIENT_BALANCE),
        ("INSUFFICIENT_BALANCE", RefusalKind.INSUFFICIENT_BALANCE),
        ("Maximum concurrent connections (5) exceeded.", RefusalKind.CONNECTION_LIMIT_EXCEEDED),
        ("error: gpu_full", RefusalKind.GPU_FULL),
        ("Invalid license key", RefusalKind.FAIL),
        ("Avatar not found", RefusalKind.FAIL),
        ("", None),
        ("going away", None),
        ("Session timeout", None),
    ],
)
def test_a_reason(reason: str, kind: RefusalKind | None) -> None:
    assert refusal_in(reason) is kind
