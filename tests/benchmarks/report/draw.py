"""Draws a figure of the report: ours with intervals to the left, the paper's own to the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.report.figure import Figure, Line
from tstitch_cli.plotting import canvas
from tstitch_cli.plotting.canvas import plain

COLOURS = ("#2b6cb0", "#c0392b", "#1a7f4b", "#b7791f", "#805ad5", "#4a5568", "#d53f8c")


def png(figure: Figure, path: Path) -> None:
    """Draws `figure` into a PNG in place of an older one."""
    picture = canvas.blank(11.0 if figure.paper else 8.0, 4.6)
    panels = picture.subplots(1, 2 if figure.paper else 1, squeeze=False)[0]
    _plot(panels[0], figure.lines)
    panels[0].set_xlabel(plain(figure.x))
    panels[0].set_ylabel(plain(figure.y))
    if not figure.x:
        panels[0].set_xticks([])
    if figure.paper:
        panels[0].set_title("ours", fontsize=10)
        _plot(panels[1], figure.paper)
        panels[1].set_title("the paper's", fontsize=10)
        panels[1].set_xlabel(plain(figure.x))
        panels[1].set_ylabel("FID")
    canvas.save(picture, path, overwrite=True)


def _plot(axes: Any, lines: Sequence[Line]) -> None:
    for i, line in enumerate(lines):
        x, y = [p.x for p in line.points], [p.value for p in line.points]
        # An interval that leaves its value out, which rounding can do, has no length on that side.
        spread = [[max(0.0, p.value - p.low) for p in line.points], [max(0.0, p.high - p.value) for p in line.points]]
        axes.errorbar(
            x,
            y,
            yerr=spread if any(map(any, spread)) else None,
            fmt="o-" if line.joined else "o",
            color=COLOURS[i % len(COLOURS)],
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
            alpha=0.9 if line.joined else 0.7,
            label=plain(line.label),
        )
        for point in line.points:
            if point.label:
                axes.annotate(
                    plain(point.label), (point.x, point.value), xytext=(5, 5), textcoords="offset points", fontsize=7
                )
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    canvas.tidy(axes)
    axes.legend(fontsize=8)
