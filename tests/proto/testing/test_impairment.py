"""Fates of packets: the same for the same seed, in the shares that were asked for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.testing.impairment import (
    QUEUE_SECONDS,
    REORDER_SECONDS,
    Bottleneck,
    Impairer,
    Impairment,
    PacketKind,
    packet_kind,
)

RTP, STUN = PacketKind.RTP, PacketKind.STUN


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x00\x01", PacketKind.STUN),
        (b"\x03\xff", PacketKind.STUN),
        (b"\x04\x00", PacketKind.OTHER),
        (b"\x13", PacketKind.OTHER),
        (b"\x14\xfe", PacketKind.DTLS),
        (b"\x3f", PacketKind.DTLS),
        (b"\x40\x00", PacketKind.OTHER),
        (b"\x80\x60", PacketKind.RTP),
        (b"\x80\xe0", PacketKind.RTP),  # the marker bit, and payload type 96
        (b"\x80\xc7", PacketKind.RTCP),
        (b"\x81\xc8", PacketKind.RTCP),
        (b"\x81\xdf", PacketKind.RTCP),
        (b"\xbf\x00", PacketKind.RTP),
        (b"\x80", PacketKind.OTHER),
        (b"\xc0\x60", PacketKind.OTHER),
        (b"", PacketKind.OTHER),
    ],
)
def test_the_kind_of_a_datagram_is_in_its_first_two_bytes(head: bytes, kind: PacketKind) -> None:
    assert packet_kind(head) is kind


def fates(impairer: Impairer, count: int, kind: PacketKind = RTP) -> list[tuple[float, ...]]:
    """The departures of as many packets, one every 10 ms, as delays."""
    return [
        tuple(at - number / 100 for at in impairer.departures(kind, 1000, number / 100))
        for number in range(count)
    ]


def test_nothing_is_impaired_by_default() -> None:
    impairer = Impairer(1)
    assert fates(impairer, 50) == [(0.0,)] * 50
    assert impairer.counters[RTP].passed == 50


shares = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@given(
    seed=st.integers(0, 2**64),
    loss=shares,
    duplicate=shares,
    reorder=shares,
    jitter=st.sampled_from([0.0, 0.06]),
    others=st.integers(0, 3),
)
def test_the_same_seed_gives_the_same_fates_whatever_else_passes(
    seed: int, loss: float, duplicate: float, reorder: float, jitter: float, others: int
) -> None:
    one, other = Impairer(seed, "to near"), Impairer(seed, "to near")
    for impairer in (one, other):
        impairer.set(loss=loss, duplicate=duplicate, reorder=reorder, jitter=jitter, delay=0.1)
    fates(other, others, STUN)
    assert fates(one, 40) == fates(other, 40)
    assert one.counters[RTP] == other.counters[RTP]


def test_another_seed_direction_or_kind_has_fates_of_its_own() -> None:
    drawn = []
    for seed, label, kind in ((1, "a", RTP), (2, "a", RTP), (1, "b", RTP), (1, "a", STUN)):
        impairer = Impairer(seed, label)
        impairer.set(loss=0.5)
        drawn.append(fates(impairer, 64, kind))
    assert all(one != other for at, one in enumerate(drawn) for other in drawn[at + 1 :])


@given(seed=st.integers(0, 2**64), share=st.sampled_from([0.01, 0.05, 0.3, 0.9]))
def test_shares_are_met_within_the_bounds_of_chance(seed: int, share: float) -> None:
    count = 400
    # Six standard deviations of the binomial, and a packet: once in 10^9 for each of the three.
    bound = 6 * math.sqrt(count * share * (1 - share)) + 1
    impairer = Impairer(seed)
    impairer.set(loss=share)
    lost = fates(impairer, count).count(())
    impairer.set(loss=0.0, duplicate=share, reorder=share)
    passed = fates(impairer, count)
    twice = sum(len(one) == 2 for one in passed)
    late = sum(one[0] > 0.0 for one in passed)
    assert abs(lost - count * share) <= bound
    assert abs(twice - count * share) <= bound
    assert abs(late - count * share) <= bound
    counters = impairer.counters[RTP]
    assert (counters.lost, counters.duplicated, counters.reordered) == (lost, twice, late)
    assert counters.passed == 2 * count - lost


def test_jitter_spreads_around_the_delay_and_lets_packets_overtake() -> None:
    impairer = Impairer(3)
    impairer.set(delay=0.1, jitter=0.06)
    delays = [one for (one,) in fates(impairer, 1000)]
    assert 0.04 <= min(delays) < 0.045
    assert 0.155 < max(delays) <= 0.16
    assert sum(delays) / 1000 == pytest.approx(0.1, abs=0.01)
    arrivals = [number / 100 + delay for number, delay in enumerate(delays)]
    assert arrivals != sorted(arrivals)


def test_jitter_above_the_delay_takes_no_packet_back_in_time() -> None:
    impairer = Impairer(3)
    impairer.set(delay=0.01, jitter=0.06)
    assert min(at for (at,) in fates(impairer, 200)) == 0.0


def test_a_reordered_packet_leaves_behind_those_after_it() -> None:
    impairer = Impairer(3)
    impairer.set(reorder=1.0)
    assert impairer.departures(RTP, 10, 5.0) == (5.0 + REORDER_SECONDS,)


def test_copies_are_delayed_each_on_its_own() -> None:
    impairer = Impairer(3)
    impairer.set(duplicate=1.0, delay=0.1, jitter=0.06)
    one, two = impairer.departures(RTP, 10, 0.0)
    assert one != two


def test_a_rate_makes_packets_wait_for_each_other_and_then_drops() -> None:
    impairer = Impairer(1)
    impairer.set(rate=80_000)  # 1000 bytes take 0.1 s.
    leaving = [impairer.departures(RTP, 1000, 0.0) for _ in range(8)]
    assert [at for one in leaving for at in one] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert leaving[6:] == [(), ()]
    assert impairer.counters[RTP].overflowed == 2
    assert impairer.departures(RTP, 1000, 2.0) == (2.1,)


def test_a_rate_is_shared_by_the_kinds_that_were_given_it_together() -> None:
    impairer = Impairer(1)
    impairer.set([RTP, STUN], rate=80_000)
    assert impairer.departures(RTP, 1000, 0.0) == (0.1,)
    assert impairer.departures(STUN, 1000, 0.0) == (0.2,)
    assert impairer.departures(PacketKind.DTLS, 1000, 0.0) == (0.0,)
    impairer.set([RTP], rate=None)
    assert impairer.departures(RTP, 1000, 0.0) == (0.0,)


def test_a_bottleneck_takes_a_packet_while_less_than_its_queue_waits() -> None:
    link = Bottleneck(8.0)
    assert link.leave_at(1, 10.0) == 11.0
    assert link.leave_at(1, 11.0 - QUEUE_SECONDS) == 12.0
    assert link.leave_at(1, 11.0) is None


def test_a_blackhole_swallows_and_keeps_what_else_was_set() -> None:
    impairer = Impairer(1)
    impairer.set(loss=1.0)
    impairer.set([RTP], blackhole=True)
    assert fates(impairer, 3) == [()] * 3
    impairer.set([RTP], blackhole=False, loss=0.0)
    assert fates(impairer, 3) == [(0.0,)] * 3
    assert (impairer.counters[RTP].swallowed, impairer.counters[RTP].lost) == (3, 0)
    assert impairer.impairment(STUN).loss == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("loss", "duplicate", "reorder") for value in (-0.1, 1.1)),
        *({name: value} for name in ("delay", "jitter") for value in (-0.1, 61.0)),
        {"rate": 0.0},
    ],
)
def test_what_is_out_of_range_changes_nothing(wrong: dict[str, Any]) -> None:
    impairer = Impairer(1)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        impairer.set(blackhole=True, **wrong)
    assert impairer.impairment(RTP) == Impairment()
    with pytest.raises(TypeError):
        impairer.set(lost=0.5)
