"""Every Python snippet of README.md and docs/ runs as it stands; the drawn pages are current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets() -> list[object]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 2
            name = f"{page.relative_to(ROOT)}:{line}"
            # Line numbers of a traceback are those of the page.
            found.append(pytest.param("\n" * (line - 1) + match[1], id=name))
    return found


def run(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    script = directory / "snippet.py"
    script.write_text(code, "utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("code", snippets())
def test_a_snippet_runs(code: str, tmp_path: Path) -> None:
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_readme_has_snippets() -> None:
    assert len(FENCE.findall((ROOT / "README.md").read_text("utf-8"))) >= 3


def test_the_state_tables_are_current() -> None:
    drawn = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "draw_state_tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert drawn.returncode == 0, drawn.stderr
