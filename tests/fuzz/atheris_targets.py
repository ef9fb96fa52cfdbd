"""Receiving never raises, whatever libFuzzer finds out about the code: one target of TARGETS.

By hand or nightly, on CPython 3.12 or 3.13, which atheris has wheels for; docs/fuzzing.md has the
commands. The first argument is the target; the others are libFuzzer's.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["navtalk_proto"]):
    from targets import TARGETS


NAME = "NAVTALK_FUZZ_TARGET"
"""Where a child that libFuzzer starts, to merge corpora, finds the target's name."""


def main() -> None:
    name = os.environ.get(NAME) or (sys.argv.pop(1) if len(sys.argv) > 1 else "")
    if name not in TARGETS:
        raise SystemExit(f"usage: atheris_targets.py {{{','.join(TARGETS)}}} [corpus] [-options]")
    os.environ[NAME] = name
    # libFuzzer starts its children with this as a command of the shell.
    atheris.Setup([f"{sys.executable} {__file__}", *sys.argv[1:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
