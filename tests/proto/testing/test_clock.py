from __future__ import annotations

import pytest

from navtalk_proto.testing import VirtualClock


def test_it_moves_only_when_told() -> None:
    clock = VirtualClock(5.0)
    assert clock.now == 5.0
    clock.advance(0.0)
    clock.advance(1.5)
    assert clock.now == 6.5
    clock.advance_to(10.0)
    assert clock.now == 10.0


def test_it_does_not_start_at_zero() -> None:
    assert VirtualClock().now == 1000.0


def test_it_does_not_go_back() -> None:
    clock = VirtualClock(5.0)
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-0.1)
    with pytest.raises(ValueError, match="go back"):
        clock.advance_to(4.9)
    assert clock.now == 5.0
