from __future__ import annotations

import logging

import pytest

from navtalk_asyncio.media import private_names
from navtalk_asyncio.media.private_names import GROUPS, SWITCH, works

pytestmark = pytest.mark.anyio


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
