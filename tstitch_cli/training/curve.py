"""The course of a training's loss, as numbers (CSV) and as a picture (PNG)."""

from __future__ import annotations

import io
from collections.abc import Sequence

Point = tuple[int, float]
"""(batches done, running mean of the loss)."""


def points(losses: Sequence[float], batches: int) -> list[Point]:
    """The points of what the training loop recorded: one every hundredth of the batches."""
    every = max(1, batches // 100)
    return [((i + 1) * every, loss) for i, loss in enumerate(losses)]


def csv(curve: Sequence[Point]) -> bytes:
    """The points, one a line under a head."""
    return "".join(["batches,loss\n", *(f"{done},{loss:g}\n" for done, loss in curve)]).encode()


def png(curve: Sequence[Point], title: str) -> bytes:
    """A plot of 1200 x 750 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.75), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*curve, strict=True), color="#2b6cb0", linewidth=1.4)
    axes.set_xlabel("batches")
    axes.set_ylabel("loss, running mean")
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
