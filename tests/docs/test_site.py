"""The documentation is built by one command, without a warning; what it draws is current."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sphinx() -> None:
    missing = [
        name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None
    ]
    if missing:
        assert os.environ.get("NAVTALK_REQUIRE_PEERS") != "1", missing
        pytest.skip(f"needs navtalk[docs]: {', '.join(missing)}")


@pytest.mark.usefixtures("sphinx")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    reference = (tmp_path / "api" / "asyncio.html").read_text("utf-8")
    # attrs' and ours: real signatures, not (*args, **kwargs).
    assert "reconnect" in reference
    vocabulary = (tmp_path / "api" / "vocabulary.html").read_text("utf-8")
    assert "ResponseInterrupted" in vocabulary
    assert "heard" in vocabulary


def test_the_message_tables_are_current() -> None:
    drawn = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "draw_message_tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert drawn.returncode == 0, drawn.stderr
