"""Write docs/state-tables.md, and its diagrams, from the tables that the core runs.

The diagrams need Graphviz's ``dot``. With ``--check`` it only compares, without drawing, and exits
1 when the page or a diagram is out of date: an SVG ends with the digest of what it was drawn from.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from navtalk_proto.machines import conversation, lifecycle, media_flow, negotiation

PAGE = Path(__file__).with_name("state-tables.md")
DIAGRAMS = Path(__file__).with_name("diagrams")

LABEL = 34
"""Characters of a line of an arrow's label."""

STYLE = """\
  graph [rankdir=TB, bgcolor="white", nodesep=0.6, ranksep=0.7, fontname="Helvetica"];
  node [shape=box, style="rounded,filled", fillcolor="#eef3fb", color="#3b5b92",
        fontname="Helvetica", fontsize=13, margin="0.18,0.09"];
  edge [color="#64748b", fontcolor="#1e293b", fontname="Helvetica", fontsize=10, arrowsize=0.7];
"""

HEAD = """\
# State tables

Drawn by `docs/draw_state_tables.py` from the tables that the core runs; do not edit. What the words
mean stands in `src/navtalk_proto/machines/lifecycle.py`, `negotiation.py`, `conversation.py` and
`media_flow.py`.
"""


def arrows(transitions: Mapping[tuple[Any, Any], Any]) -> dict[tuple[str, str], list[str]]:
    """Inputs by (from, to), for a diagram; self-loops are left out, they only crowd it."""
    found: dict[tuple[str, str], list[str]] = {}
    for (state, kind), edge in transitions.items():
        match edge:
            case negotiation.Edge(to=targets):
                pass
            case lifecycle.Edge(state=target):
                targets = (target,)
            case _:
                targets = edge[:1]
        for target in targets:
            if target is not state:
                found.setdefault((state.name, target.name), []).append(kind.value)
    return found


def graph(
    transitions: Mapping[tuple[Any, Any], Any], start: Enum, without: tuple[str, ...] = ()
) -> str:
    """A state diagram in Graphviz's language, but for what leads from everywhere to one place."""
    lines = ["digraph {", STYLE, f'  "" [shape=point, width=0.12]; "" -> {start.name};']
    for (state, target), kinds in arrows(transitions).items():
        told = [kind for kind in dict.fromkeys(kinds) if kind not in without]
        if not told:
            continue
        label = "\\n".join(textwrap.wrap(", ".join(told), LABEL))
        lines.append(f'  {state} -> {target} [label="{label}"];')
    return "\n".join([*lines, "}", ""])


GRAPHS = {
    "lifecycle": graph(lifecycle.TRANSITIONS, lifecycle.State.IDLE),
    "negotiation": graph(
        negotiation.TRANSITIONS,
        negotiation.State.NO_PEER,
        without=("close", "peer closed", "transport failed"),
    ),
    "answer": graph(conversation.TRANSITIONS, conversation.State.REQUESTED),
    "received-media": graph(media_flow.TRANSITIONS, media_flow.Phase.HELD),
}


def mark(source: str) -> str:
    """What a diagram's file ends with."""
    return f"<!-- drawn from {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def draw(name: str, source: str) -> None:
    """Write one diagram."""
    done = subprocess.run(
        ["dot", "-Tsvg"], input=source, capture_output=True, text=True, check=True
    )
    DIAGRAMS.mkdir(exist_ok=True)
    (DIAGRAMS / f"{name}.svg").write_text(done.stdout + mark(source), "utf-8")


def outdated() -> Iterator[str]:
    """The files that are not what would be drawn now."""
    if PAGE.read_text("utf-8") != page():
        yield f"docs/{PAGE.name}"
    for name, source in GRAPHS.items():
        drawn = DIAGRAMS / f"{name}.svg"
        if not drawn.exists() or not drawn.read_text("utf-8").endswith(mark(source)):
            yield f"docs/diagrams/{drawn.name}"


def lifecycle_rows() -> Iterator[str]:
    """The lifecycle's edges as a Markdown table."""
    yield "| state | input | next | effect | timers | notes |"
    yield "|---|---|---|---|---|---|"
    for (state, kind), edge in lifecycle.TRANSITIONS.items():
        timers = [f"+{one.name}" for one in edge.start] + [f"-{one.name}" for one in edge.stop]
        notes = ["out of order"] if edge.out_of_order else []
        if edge.local is not lifecycle.Local.SEND:
            notes.append(f"ours: {edge.local.value}")
        cells = (
            state.name,
            kind.value,
            "same" if edge.state is state else edge.state.name,
            edge.effect.value,
            " ".join(timers),
            "; ".join(notes),
        )
        yield f"| {' | '.join(cells)} |"


def negotiation_rows() -> Iterator[str]:
    """The negotiation's edges as a Markdown table."""
    yield "| state | input | effect | may lead to |"
    yield "|---|---|---|---|"
    for (state, kind), edge in negotiation.TRANSITIONS.items():
        targets = ", ".join("same" if one is state else one.name for one in edge.to)
        yield f"| {state.name} | {kind.value} | {edge.effect.value} | {targets} |"


def response_rows() -> Iterator[str]:
    """An answer's edges as a Markdown table."""
    yield "| state | input | next | effect |"
    yield "|---|---|---|---|"
    for (state, kind), (to, effect) in conversation.TRANSITIONS.items():
        target = "same" if to is state else to.name
        yield f"| {state.name} | {kind.value} | {target} | {effect.value} |"


def call_rows() -> Iterator[str]:
    """A function call's edges as a Markdown table."""
    yield "| state | input | next |"
    yield "|---|---|---|"
    for (state, kind), to in conversation.CALL_TRANSITIONS.items():
        yield f"| {state.name} | {kind.value} | {'same' if to is state else to.name} |"


def flow_rows() -> Iterator[str]:
    """A received track's edges as a Markdown table."""
    yield "| phase | input | next | effect |"
    yield "|---|---|---|---|"
    for (phase, kind), (to, effect) in media_flow.TRANSITIONS.items():
        target = "same" if to is phase else to.name
        yield f"| {phase.name} | {kind.value} | {target} | {effect.value} |"


def ignored(pairs: frozenset[tuple[Any, Any]]) -> Iterator[str]:
    """The pairs that are ignored on purpose, one line a state."""
    states = {state for state, _ in pairs}
    for state in sorted(states, key=lambda one: str(one.name)):
        kinds = sorted(kind.value for one, kind in pairs if one is state)
        yield f"- {state.name}: {', '.join(kinds)}"


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## Lifecycle", ""]
    lines += ["![The lifecycle of a connection](diagrams/lifecycle.svg)"]
    lines += ["", *lifecycle_rows(), "", "Ignored on purpose:", ""]
    lines += ignored(lifecycle.IGNORED)
    lines += ["", "Every other pair is a mistake of the sender.", "", "## Negotiation", ""]
    lines += ["![The negotiation of media](diagrams/negotiation.svg)", ""]
    lines += ["Not drawn: `close` leads from every state to CLOSED, `peer closed` to NO_PEER, and"]
    lines += ["`transport failed`, from most, to FAILED."]
    lines += ["", *negotiation_rows(), "", "Ignored on purpose:", ""]
    lines += ignored(negotiation.IGNORED)
    lines += ["", "Every other pair cannot happen, or is a wish without media.", ""]
    lines += ["## Conversation: an answer", ""]
    lines += ["![An answer](diagrams/answer.svg)"]
    lines += ["", *response_rows(), "", "Ignored on purpose, most of it late:", ""]
    lines += ignored(conversation.IGNORED)
    lines += ["", "There is no other pair.", "", "## Conversation: a function call", ""]
    lines += call_rows()
    lines += ["", "Every other pair is a mistake of the sender.", "", "## Received media", ""]
    lines += ["![A received track](diagrams/received-media.svg)"]
    lines += ["", *flow_rows(), "", "Every other pair changes nothing.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(" ".join([*outdated(), "out of date"]) if any(outdated()) else 0)
    PAGE.write_text(page(), "utf-8")
    for each in GRAPHS.items():
        draw(*each)
