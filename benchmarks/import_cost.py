"""What does ``import navtalk_proto`` cost beyond attrs and cattrs?

Run: ``python benchmarks/import_cost.py [RUNS]``. Needs navtalk only.

How to read it: each run is a pair of fresh interpreters, one that imports attrs, cattrs, json and
base64, and one that imports navtalk_proto as well; the time is taken inside, around the imports.
The pairs alternate, so a machine that is busy for a while burdens both. The cost is the median of
the differences, in milliseconds. Exit code 1: it is above the bar.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

BAR_MS = 120.0
RUNS = 15

BASE = "import attrs, cattrs, json, base64"
TIMED = """
import time
begin = time.perf_counter()
{imports}
print((time.perf_counter() - begin) * 1000.0)
"""


def milliseconds(imports: str) -> float:
    """The time that imports take in a fresh interpreter."""
    # -I: neither the environment nor the current folder decides what is imported.
    done = subprocess.run(
        [sys.executable, "-I", "-c", TIMED.format(imports=imports)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main(runs: int = RUNS) -> int:
    ours = f"{BASE}\nimport navtalk_proto"
    milliseconds(ours)  # The first run writes the byte code, or reads it from the disk.
    pairs = [(milliseconds(BASE), milliseconds(ours)) for _ in range(runs)]
    base = statistics.median(before for before, _ in pairs)
    costs = sorted(after - before for before, after in pairs)
    cost = statistics.median(costs)
    met = cost <= BAR_MS
    print(f"attrs, cattrs, json, base64   {base:7.1f} ms (median of {runs} runs)")
    print(f"navtalk_proto beyond these    {cost:7.1f} ms ({costs[0]:.1f} to {costs[-1]:.1f})")
    print(f"bar                           {BAR_MS:7.1f} ms: {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
