"""The benchmarks' drawings. No benchmark; needs matplotlib, from ``navtalk[bench]``.

A receiver has the same colour in all of them, and the two of ours are of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from receivers import NAMES

COLOURS: Final = {
    "ours": "#0b6e99",
    "ours_trio": "#5fb4d6",
    "stock": "#c8553d",
    "libwebrtc": "#7a8b3c",
    "chromium": "#8f6bb1",
}

LABELS: Final = {"ours": "navtalk, asyncio", "ours_trio": "navtalk, trio", "stock": "stock aiortc"}

CUT: Final = 0.995
"""The share of the slowest receiver's values that a drawing of latencies reaches to."""


def label(peer: str) -> str:
    """How a receiver is called in a drawing."""
    return LABELS.get(peer, NAMES[peer])


def distributions(latencies: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw which share of frames came within how many milliseconds."""
    figure, axes = _figure(8.0, 4.5)
    ends = [float(np.quantile(values, CUT)) for values in latencies.values() if values]
    for peer, values in latencies.items():
        ordered = np.sort(np.asarray(values))
        if not ordered.size:
            continue
        share = 100 * np.arange(1, ordered.size + 1) / ordered.size
        middle, late = np.quantile(ordered, (0.5, 0.99))
        axes.step(
            ordered,
            share,
            where="post",
            color=COLOURS[peer],
            linewidth=2,
            linestyle="--" if peer == "ours_trio" else "-",
            label=f"{label(peer)}: median {middle:.1f}, 99 % within {late:.1f} ms",
        )
    axes.set_xlim(0, max(ends) * 1.05)
    axes.set_ylim(0, 101)
    axes.axhline(50, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("milliseconds after it was sent (further left is better)")
    axes.set_ylabel("% of all that was delivered")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def bars(values: Mapping[str, Mapping[str, float]], title: str, unit: str, path: Path) -> None:
    """Draw groups of horizontal bars: `values` by group, and in it by receiver."""
    rows = [(group, peer, value) for group, of in values.items() for peer, value in of.items()]
    figure, axes = _figure(8.0, 1.6 + 0.34 * len(rows) + 0.3 * len(values))
    at, ticks, names = 0.0, [], []
    longest = max(value for _, _, value in rows)
    for group, of in values.items():
        axes.text(0, at, group, fontsize=10, fontweight="bold", va="center")
        at += 0.9
        for peer, value in of.items():
            axes.barh(at, value, height=0.7, color=COLOURS[peer])
            axes.text(value + longest * 0.01, at, f"{value:.1f}", va="center", fontsize=9)
            ticks.append(at)
            names.append(label(peer))
            at += 0.9
        at += 0.4
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(at - 0.8, -0.7)
    axes.set_xlim(0, longest * 1.1)
    axes.set_xlabel(f"{unit} (shorter is better)")
    axes.set_title(title)
    _save(figure, path)


def timelines(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str, path: Path
) -> None:
    """Draw values over seconds, a line for each receiver."""
    figure, axes = _figure(8.0, 4.5)
    for peer, points in series.items():
        axes.plot(
            [at for at, _ in points],
            [value for _, value in points],
            color=COLOURS[peer],
            linewidth=2,
            linestyle="--" if peer == "ours_trio" else "-",
            label=f"{label(peer)}: {points[-1][1]:.0f} {unit} at last",
        )
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    from matplotlib import pyplot as plt

    plt.close(figure)
