"""The arithmetic of the benchmarks' table: medians, ratios of rounds, bars."""

from __future__ import annotations

import math

import answers
import pytest
from answers import Answer, Bar


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    # The machine was slow in the second round, for both.
    rounds = [
        {"ours": 5.0, "stock": 10.0},
        {"ours": 50.0, "stock": 101.0},
        {"ours": 6.0, "stock": 9.0},
    ]
    answer = Answer("latency, ms", rounds, [Bar(0.5, "stock")])
    assert answer.value("ours") == 6.0
    assert answer.ratio("ours", "stock") == 0.5
    (verdict,) = answer.verdicts()
    assert verdict.met is True


def test_a_bar_is_met_at_its_value_and_not_above() -> None:
    for value, met in ((2.0, True), (2.001, False)):
        (verdict,) = Answer("times", [{"ours": value}], [Bar(2.0)]).verdicts()
        assert verdict.met is met


def test_each_adapter_has_its_own_verdict() -> None:
    answer = Answer("ms", [{"ours": 1.0, "ours_trio": 3.0, "stock": 2.0}], [Bar(1.0, "stock")])
    assert [(v.adapter, v.met) for v in answer.verdicts()] == [("ours", True), ("ours_trio", False)]
    assert answers.missed([answer]) == ["ms, trio: 1.50, bar <= 1x stock"]


def test_without_the_other_receiver_there_is_no_verdict() -> None:
    answer = Answer("ms", [{"ours": 1.0}], [Bar(1.1, "libwebrtc")])
    (verdict,) = answer.verdicts()
    assert verdict.met is None
    assert answers.missed([answer]) == []
    assert math.isnan(answer.value("libwebrtc"))


def test_nothing_is_as_much_as_nothing() -> None:
    bar = [Bar(1.0, "stock")]
    (same,) = Answer("frames lost", [{"ours": 0.0, "stock": 0.0}], bar).verdicts()
    (more,) = Answer("frames lost", [{"ours": 1.0, "stock": 0.0}], bar).verdicts()
    assert (same.met, more.met) == (True, False)


def test_the_table_has_a_line_for_each_bar() -> None:
    rounds = [{"ours": 40.0, "ours_trio": 50.0, "stock": 80.0, "libwebrtc": 40.0}]
    lines = answers.table(
        [Answer("first picture, ms", rounds, [Bar(0.6, "stock"), Bar(1.1, "libwebrtc")])]
    ).splitlines()
    heading, first, second = lines
    assert heading.split() == [
        "asyncio",
        "trio",
        "stock",
        "wrtc",
        "Chromium",
        "ratio",
        "bar",
        "met",
    ]
    assert first.split()[3:] == [
        "40.0",
        "50.0",
        "80.0",
        "40.0",
        "-",
        "0.50",
        "0.62",
        "<=",
        "0.6x",
        "stock",
        "yes",
        "NO",
    ]
    assert second.split() == ["1.00", "1.25", "<=", "1.1x", "wrtc", "yes", "NO"]


def test_what_was_not_measured_has_no_number() -> None:
    rounds = [{"ours": math.nan, "ours_trio": math.nan}, {"ours": 20.0, "ours_trio": math.nan}]
    answer = Answer("sessions", rounds, digits=0, at_least={"ours"})
    texts = [answer.text(receiver) for receiver in ("ours", "ours_trio", "stock")]
    assert texts == [">= 20", "not measured", "-"]
    assert "  >= 20 not measured  " in answers.table([answer])


def test_what_is_rare_is_counted_over_all_rounds() -> None:
    """One picture of one round decides nothing, and a round without any is no ratio."""
    rounds = [{"ours": 1, "stock": 0}, {"ours": 0, "stock": 4}, {"ours": 1, "stock": 0}]
    answer = Answer(
        "late, %",
        rounds,
        [Bar(1.0, "stock"), Bar(1.0, "libwebrtc")],
        out_of=[{"ours": 500, "stock": 400}] * 3,
    )
    assert answer.value("ours") == 100 * 2 / 1500
    assert answer.ratio("ours", "stock") == pytest.approx(0.4)
    assert [verdict.met for verdict in answer.verdicts()] == [True, None]
    assert answers.table([answer]).splitlines()[-1].split() == [
        *("counted", "2/1500", "-", "4/1200", "-", "-"),
    ]
    worse = Answer("late, %", [{"ours": 1, "stock": 0}], [Bar(1.0, "stock")])
    worse.out_of = [{"ours": 500, "stock": 500}]
    assert [verdict.met for verdict in worse.verdicts()] == [False]
