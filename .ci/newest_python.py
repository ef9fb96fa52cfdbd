"""Print the path of the newest CPython on this machine that can make virtual environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROBE = """
import ensurepip, sys, venv
assert sys.version_info.releaselevel == "final"  # wheels are made for releases
print(*sys.version_info[:3], sys.executable, sep="|")
"""


def candidates() -> list[Path]:
    """Interpreters on PATH by version, and those that pyenv keeps off PATH."""
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 30)]
    pythons = [Path(one) for one in found if one]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [*pythons, *pyenv.glob("versions/3.*/bin/python3"), Path(sys.executable)]


def main() -> None:
    """Ask each candidate; those that do not run, such as empty shims, do not count."""
    best = (sys.version_info[:3], sys.executable)
    for python in candidates():
        asked = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            major, minor, micro, path = asked.stdout.strip().split("|")
            best = max(best, ((int(major), int(minor), int(micro)), path))
    print(best[1])


main()
