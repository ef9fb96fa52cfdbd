from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from navtalk_asyncio.media import private_names
from navtalk_asyncio.media.private_names import GROUPS, SWITCH, works

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
"""Seconds until a run is given up; only a failing test gets near it."""


@pytest.fixture(autouse=True)
def untested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_names, "_verdicts", {})
    monkeypatch.delenv(SWITCH, raising=False)


@pytest.mark.parametrize("group", sorted(GROUPS))
async def test_the_installed_versions_are_those_that_this_was_written_against(
    group: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert works(group), caplog.text


async def test_a_group_that_does_not_pass_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def renamed() -> None:
        raise AttributeError("renamed")

    monkeypatch.setitem(private_names._TESTS, "jitter", renamed)
    with caplog.at_level(logging.WARNING):
        assert not works("jitter")
        assert not works("jitter")
    [record] = caplog.records
    assert "(jitter): renamed" in record.getMessage()


@pytest.mark.parametrize(
    ("value", "off"),
    [("", set()), ("jitter, consent", {"jitter", "consent"}), ("all", GROUPS)],
)
async def test_the_switch(
    value: str, off: set[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SWITCH, value)
    with caplog.at_level(logging.WARNING):
        assert {group for group in GROUPS if not works(group)} == off
    assert not caplog.records


async def test_an_unknown_group_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "jitters")
    with pytest.raises(ValueError, match="NAVTALK_STOCK names jitters; there are checks, "):
        works("jitter")


def test_tests_name_groups_that_exist(request: pytest.FixtureRequest) -> None:
    """Of all the tests that this run collected, also those of other folders."""
    for item in request.session.items:
        for mark in item.iter_markers("replaces"):
            assert mark.args, item.nodeid
            assert set(mark.args) <= GROUPS, item.nodeid


def test_what_is_switched_off_has_its_tests_skipped_by_name() -> None:
    file = Path(__file__).with_name("test_datagram_path.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(file)],
        env={**os.environ, SWITCH: "consent,datagrams"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), run.stdout + run.stderr
    assert "shows what datagrams does, and NAVTALK_STOCK leaves it" in run.stdout
