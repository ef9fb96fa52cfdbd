"""A trace stays within its size: the beginning and the newest lines are kept."""

from __future__ import annotations

import json

import pytest

from navtalk_proto.tracing import rotation
from navtalk_proto.tracing.records import Gap, TraceError, decode_line
from navtalk_proto.tracing.rotation import LEAST_SIZE, SUFFIXES, Rotation, joined

LINE = "x" * 999 + "\n"


def written(traced: Rotation) -> dict[str, str]:
    """The files that come of it, after one write after the other."""
    files: dict[str, str] = {}
    for write in traced.take():
        files[write.suffix] = write.text if write.fresh else files[write.suffix] + write.text
    return files


def test_what_fits_is_in_one_file() -> None:
    traced = Rotation()
    traced.add("one\n")
    traced.add("two\n")
    (write,) = traced.take()
    assert (write.suffix, write.fresh, write.text) == ("", True, "one\ntwo\n")
    traced.add("three\n")
    (write,) = traced.take()
    assert (write.suffix, write.fresh, write.text) == ("", False, "three\n")
    assert traced.take() == []


@pytest.mark.parametrize("lines", [40, 50, 60, 75, 500])
def test_the_size_is_kept_and_so_are_both_ends(lines: int) -> None:
    traced = Rotation(LEAST_SIZE)
    for number in range(lines):
        traced.add(f"{number:04}{LINE[4:]}")
    files = written(traced)
    assert sum(map(len, files.values())) <= LEAST_SIZE
    parts = {suffix: files[suffix].splitlines(True) for suffix in SUFFIXES if suffix in files}
    told = list(joined(files[""].splitlines(True), parts))
    assert told[0].startswith("0000")
    assert told[-1].startswith(f"{lines - 1:04}")
    gaps = [at for at, line in enumerate(told) if line.startswith("{")]
    if lines < 60:
        assert not gaps
        assert len(told) == lines
    if lines == 500:
        (gap,) = gaps
        assert isinstance(decode_line(told[gap]), Gap)
        assert len(told) < 64


def test_a_line_larger_than_a_part_has_one_for_itself() -> None:
    traced = Rotation(LEAST_SIZE)
    for _ in range(3):
        traced.add("y" * (2 * LEAST_SIZE) + "\n")
    assert set(written(traced)) == {"", *SUFFIXES}


def test_a_slow_disk_leaves_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "PENDING_SIZE", 2500)
    traced = Rotation()
    for _ in range(5):
        traced.add(LINE)
    assert traced.dropped == 3
    assert written(traced)[""] == 2 * LINE
    traced.add(LINE)
    gap, line = written_more(traced)
    assert decode_line(gap) == Gap(reason="the disk was too slow", lines=3)
    assert line == LINE


def written_more(traced: Rotation) -> list[str]:
    return "".join(write.text for write in traced.take()).splitlines(True)


def test_a_size_that_holds_nothing_is_refused() -> None:
    with pytest.raises(TraceError, match="at least 65536 characters"):
        Rotation(LEAST_SIZE - 1)


@pytest.mark.parametrize(
    "part", [[], ["hello"], ["[]"], ["{}"], ['{"number": "1"}'], ["[" * 100_000]]
)
def test_a_file_that_is_no_part(part: list[str]) -> None:
    with pytest.raises(TraceError, match=r"the part \.1 is not a part of a trace"):
        list(joined([], {".1": part}))


def test_parts_come_in_the_order_of_their_numbers() -> None:
    parts = {
        ".1": [json.dumps({"number": 2}), "c"],
        ".2": [json.dumps({"number": 1}), "b"],
    }
    told = list(joined(["a"], parts))
    assert told[0] == "a"
    assert isinstance(decode_line(told[1]), Gap)
    assert told[2:] == ["b", "c"]
