"""Write docs/state-tables.md from the tables that the core runs.

With ``--check`` it only compares, and exits 1 when the page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from navtalk_proto.machines import conversation, lifecycle, media_flow, negotiation

PAGE = Path(__file__).with_name("state-tables.md")

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


def diagram(transitions: Mapping[tuple[Any, Any], Any], start: Enum) -> Iterator[str]:
    """A Mermaid state diagram."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {start.name}"
    for (state, target), kinds in arrows(transitions).items():
        label = ", ".join(dict.fromkeys(kinds))
        yield f"    {state} --> {target}: {label}"
    yield "```"


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
    lines += diagram(lifecycle.TRANSITIONS, lifecycle.State.IDLE)
    lines += ["", *lifecycle_rows(), "", "Ignored on purpose:", ""]
    lines += ignored(lifecycle.IGNORED)
    lines += ["", "Every other pair is a mistake of the sender.", "", "## Negotiation", ""]
    lines += diagram(negotiation.TRANSITIONS, negotiation.State.NO_PEER)
    lines += ["", *negotiation_rows(), "", "Ignored on purpose:", ""]
    lines += ignored(negotiation.IGNORED)
    lines += ["", "Every other pair cannot happen, or is a wish without media.", ""]
    lines += ["## Conversation: an answer", ""]
    lines += diagram(conversation.TRANSITIONS, conversation.State.REQUESTED)
    lines += ["", *response_rows(), "", "Ignored on purpose, most of it late:", ""]
    lines += ignored(conversation.IGNORED)
    lines += ["", "There is no other pair.", "", "## Conversation: a function call", ""]
    lines += call_rows()
    lines += ["", "Every other pair is a mistake of the sender.", "", "## Received media", ""]
    lines += diagram(media_flow.TRANSITIONS, media_flow.Phase.HELD)
    lines += ["", *flow_rows(), "", "Every other pair changes nothing.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text("utf-8") == page() else "docs/state-tables.md is out of date")
    PAGE.write_text(page(), "utf-8")
