"""Write the message tables of docs/protocol.md from the golden messages of the tests.

With ``--check`` it only compares, and exits 1 when the page is out of date. The golden messages are
what the codec is tested with: each type string of the wire has one, with the class it becomes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "protocol.md"
GOLDEN = HERE.parent / "tests" / "proto" / "golden"

LONGEST = 220
"""Characters of an example before it is cut."""


def rows(side: str) -> Iterator[str]:
    """A table of what one side sends: type, class, and the shortest example."""
    found: dict[str, tuple[str, str]] = {}
    for line in (GOLDEN / f"{side}.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        kind = row["message"]["type"]
        text = json.dumps(row["message"], ensure_ascii=False)
        if kind not in found or len(text) < len(found[kind][1]):
            found[kind] = (row["class"], text)
    yield "| type | class | example |"
    yield "|---|---|---|"
    for kind, (name, text) in found.items():
        example = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        yield f"| `{kind}` | `{name}` | `{example.replace('|', chr(92) + '|')}` |"


def page(text: str) -> str:
    """The page with its tables as they should be."""
    for side in ("server", "client"):
        begin, end = f"<!-- {side} -->\n", f"<!-- end of {side} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}{chr(10).join(rows(side))}\n{end}{after}"
    return text


if __name__ == "__main__":
    now = PAGE.read_text("utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if now == page(now) else "docs/protocol.md is out of date")
    PAGE.write_text(page(now), "utf-8")
