"""Which models catch which mutation of the machine, and after how many examples.

Each mutation is applied to a copy of the source; the models run on the copy, the same examples each
time. Prints a Markdown table; exits with 1 when no model catches one, or when one fails on the
source as it is. Usage: ``NAVTALK_PROFILE=nightly python tests/model/run_mutations.py [FROM [TO]]``

Without the profile the models run shorter, and the first that catches a mutation ends its row.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"
NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"
EXAMPLES = 1000 if NIGHTLY else 150
"""Of each model against each mutation. Runs that Hypothesis gives up half-way come on top."""
MODELS = {
    "two cores": ("test_two_cores", "TwoCores"),
    "two cores, established": ("test_two_cores", "EstablishedTwoCores"),
    "foreign client": ("test_foreign_peer", "ServerAndForeignClient"),
    "foreign client, established": ("test_foreign_peer", "EstablishedServerAndForeignClient"),
    "foreign server": ("test_foreign_peer", "ClientAndForeignServer"),
    "foreign server, established": ("test_foreign_peer", "EstablishedClientAndForeignServer"),
}


def run_models(*, all_of_them: bool) -> dict[str, int | None]:
    """The number of the example in which each model failed, None where none did.

    Ends at the first that fails unless all are wanted.
    """
    import negotiation_model
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import run_state_machine_as_test

    found: dict[str, int | None] = {}
    for name, (module, model) in MODELS.items():
        machine = getattr(importlib.import_module(module), model)
        examples = None
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=negotiation_model.STEPS,
                    phases=(Phase.generate,),
                    deadline=None,
                    database=None,
                    derandomize=True,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                ),
            )
        except Exception:  # noqa: BLE001 - however a model fails, it caught the mutation
            # Hypothesis runs the failing example once more before it reports it.
            examples = machine.examples - 1
        found[name] = examples
        if examples is not None and not all_of_them:
            break
    return found


def try_on_copy(replacement: tuple[str, str, str] | None) -> dict[str, int | None]:
    """Run the models on a copy of the source, with one replacement in one file."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "src")
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if replacement is not None:
            file, old, new = replacement
            text = (copy / file).read_text("utf-8")
            assert text.count(old) == 1, f"{old!r} is in {file} {text.count(old)} times"
            (copy / file).write_text(text.replace(old, new), "utf-8")
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--models"],
            env={**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{HERE}"},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    last = json.loads(done.stdout.splitlines()[-1])
    assert Path(last["source"]).is_relative_to(directory), "another source was imported"
    found: dict[str, int | None] = last["found"]
    return found


def row(breaks: str, found: dict[str, int | None]) -> str:
    cells = [str(found[name] or "-") if name in found else "" for name in MODELS]
    return f"| {breaks} | {' | '.join(cells)} |"


def main(first: int = 1, last: int | None = None) -> int:
    from mutations import MUTATIONS

    print(f"At most {EXAMPLES} examples a model: in which run it failed, - where it did not.")
    print(f"\n| mutation | {' | '.join(MODELS)} |\n|---|{'---|' * len(MODELS)}")
    found = try_on_copy(None)
    print(row("(none)", found), flush=True)
    wrong = [] if set(found.values()) == {None} else ["a model fails on the source as it is"]
    for mutation in MUTATIONS[first - 1 : last]:
        found = try_on_copy((mutation.file, mutation.old, mutation.new))
        print(row(mutation.breaks, found), flush=True)
        if set(found.values()) == {None}:
            wrong.append(f"survived: {mutation.breaks}")
    print("\n" + ("\n".join(wrong) or "Every mutation was caught."))
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--models"]:
        import navtalk_proto

        print(
            json.dumps({"found": run_models(all_of_them=NIGHTLY), "source": navtalk_proto.__file__})
        )
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
