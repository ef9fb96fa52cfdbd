"""Every module of the core is covered to the last branch, and by its own tests.

Demands, of one run of tests/proto and tests/model:

- 100 % branch coverage of navtalk_proto;
- for every module a test file of its name (``x/y.py`` has ``tests/proto/test_y.py``), which runs
  some of its functions and, with what importing runs, at least 90 % of its lines. A module that has
  no function bodies is run by importing it: its test file has to import from it.

Prints a table; exits with 1 on a miss. Usage: ``python .ci/check_core_coverage.py``
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "navtalk_proto"
TESTS = ROOT / "tests" / "proto"
REACH = 90.0

RENAMED = {"testing/engine.py": "testing/test_strict_engine.py"}
"""Modules whose test file is not named after the module."""


class ContextPerFile:
    """Tells coverage which test file runs; what collecting imports has the context ''."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Called by pytest before each test."""
        self._measured.switch_context(item.path.relative_to(ROOT).as_posix())


def test_file(module: Path) -> Path:
    """The test file that a module has by convention."""
    name = module.relative_to(PACKAGE).as_posix()
    if name in RENAMED:
        return TESTS / RENAMED[name]
    folder = TESTS / "testing" if name.startswith("testing/") else TESTS
    return folder / f"test_{module.name}"


def body_lines(module: Path) -> set[int]:
    """The lines inside function bodies: those that importing does not run."""
    return {
        line
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for body in (node.body if isinstance(node.body, list) else [node.body])
        for line in range(body.lineno, (body.end_lineno or body.lineno) + 1)
    }


def imports(test: Path, module: Path) -> bool:
    """Whether a test file imports from a module."""
    dotted = ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts)
    package, _, name = dotted.rpartition(".")
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.module == dotted:
                return True
            if node.module == package and any(alias.name == name for alias in node.names):
                return True
    return False


def reach(module: Path, test: Path, measured: coverage.Coverage) -> tuple[float, str]:
    """How much of a module its own test file runs, in percent, and what is wrong with it."""
    if not test.exists():
        return 0.0, f"{test.relative_to(ROOT)} is missing"
    _, statements, _, _, _ = measured.analysis2(str(module))
    data = measured.get_data()
    data.set_query_contexts([test.relative_to(ROOT).as_posix()])
    own = set(data.lines(str(module)) or ())
    data.set_query_contexts(["^$"])
    imported = set(data.lines(str(module)) or ())
    data.set_query_contexts(None)
    percent = 100.0 * len((own | imported) & set(statements)) / max(1, len(statements))
    bodies = body_lines(module) & set(statements)
    if bodies and not own & bodies:
        return percent, "its own tests run none of its functions"
    if not bodies and not imports(test, module):
        return percent, "its own tests do not import it"
    if percent < REACH:
        return percent, f"its own tests reach less than {REACH:g} %"
    return percent, ""


def main() -> int:
    """Run the tests, print the table, and say whether all is well."""
    os.chdir(ROOT)
    # The same examples in every run.
    os.environ.setdefault("NAVTALK_PROFILE", "ci")
    measured = coverage.Coverage(
        data_file=None, config_file=str(ROOT / ".ci" / "core_coverage.ini")
    )
    measured.start()
    tests = [str(TESTS), str(ROOT / "tests" / "model")]
    failed = pytest.main(["-q", "--no-header", *tests], plugins=[ContextPerFile(measured)])
    measured.stop()
    if failed:
        return int(failed)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]

    misses = []
    print(f"\n{'module':28} {'total':>7} {'own tests':>10}")
    for module in sorted(PACKAGE.rglob("*.py")):
        name = module.relative_to(PACKAGE).as_posix()
        found = files[module.relative_to(ROOT).as_posix()]
        total = found["summary"]["percent_covered"]
        own = ""
        if module.name != "__init__.py":
            percent, wrong = reach(module, test_file(module), measured)
            own = f"{percent:8.1f} %"
            if wrong:
                misses.append(f"{name}: {wrong}")
        print(f"{name:28} {total:5.1f} % {own:>10}")
        if found["missing_lines"]:
            misses.append(f"{name}: lines never run: {found['missing_lines']}")
        if found["missing_branches"]:
            misses.append(f"{name}: branches never taken: {found['missing_branches']}")
    for miss in misses:
        print(f"! {miss}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
