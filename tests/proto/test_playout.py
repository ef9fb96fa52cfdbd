"""A playout buffer that neither fills nor empties, and a gate: in virtual time."""

from __future__ import annotations

import pytest

from navtalk_proto.playout import MAX_STRETCH, DriftControl, HalfDuplexGate

BLOCK = 0.02
TARGET = 0.1


def play(skew: float, *, seconds: float, jitter: float = 0.0) -> tuple[list[float], DriftControl]:
    """Levels of a buffer that is filled in real time and read by a clock that is off by `skew`."""
    control, level, levels = DriftControl(TARGET), TARGET, []
    for block in range(round(seconds / BLOCK)):
        # What the network holds back comes together with the next, every second.
        held = jitter if block % 50 < 3 else 0.0
        ratio = control.ratio(level - held, BLOCK)
        assert abs(ratio - 1.0) <= MAX_STRETCH
        level += BLOCK - BLOCK * (1.0 + skew) * ratio
        levels.append(level - held)
    return levels, control


@pytest.mark.parametrize("skew", [-1e-3, -2e-4, 0.0, 2e-4, 1e-3])
def test_an_hour_with_another_clock_stays_within_bounds(skew: float) -> None:
    levels, control = play(skew, seconds=3600.0, jitter=0.04)
    assert min(levels) > 0.02
    assert max(levels) < 2 * TARGET
    # After a minute it holds the target, and knows what the clock is off by.
    settled = levels[round(60 / BLOCK) :]
    assert all(abs(level - TARGET) < 0.06 for level in settled)
    assert control.skew == pytest.approx(-skew / (1.0 + skew), abs=1e-4)


def test_a_full_buffer_is_read_faster_and_an_empty_one_slower() -> None:
    assert DriftControl(TARGET).ratio(0.5, BLOCK) == 1.0 + MAX_STRETCH
    assert DriftControl(TARGET).ratio(0.0, BLOCK) == pytest.approx(1.0 - MAX_STRETCH)
    assert DriftControl(TARGET).ratio(TARGET, BLOCK) == 1.0


def test_what_was_learnt_of_the_clock_outlives_a_cut() -> None:
    _, control = play(5e-4, seconds=300.0)
    skew = control.skew
    assert control.level == pytest.approx(TARGET, abs=0.01)
    control.restart()
    assert control.level is None
    assert control.ratio(TARGET, BLOCK) == pytest.approx(1.0 + skew, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"target": 0.0}, {"settle": 0.0}, {"smooth": -1.0}])
def test_what_it_is_made_of_is_positive(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        DriftControl(**{"target": 0.1, **wrong})


def test_a_gate_is_shut_while_the_speaker_is_heard_and_a_little_longer() -> None:
    gate = HalfDuplexGate(hang=0.3)
    assert gate.is_open(now=0.0)
    gate.heard(until=10.0)
    gate.heard(until=9.0)
    assert not gate.is_open(now=9.5)
    assert not gate.is_open(now=10.2)
    assert gate.is_open(now=10.3)
    with pytest.raises(ValueError, match="negative"):
        HalfDuplexGate(hang=-0.1)
