"""A plan as a picture: every row's time against its objective, the Pareto front, the budget and the chosen row."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from tstitch_cli import files
from tstitch_cli.plotting import canvas
from tstitch_cli.plotting.canvas import plain
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Plan, Row

GREY, BLUE, GREEN, RED, GOLD = "#9aa3ad", "#2b6cb0", "#1a7f4b", "#c0392b", "#f2b134"
TITLE_WIDTH = 90
"""Characters of the title that fit above the plot."""


def pareto_png(plan: Plan, path: Path, *, overwrite: bool = False) -> None:
    """Draws the plan into a PNG file, 1600 x 1000 pixels.

    Raises:
        BadFileError: the file exists and `overwrite` is false, or it cannot be written.
    """
    files.refuse_existing(path, overwrite=overwrite)
    canvas.save(_figure(plan), path, overwrite=overwrite)


def pareto_svg(plan: Plan) -> str:
    """The same picture as an SVG element, in which the chosen row's marker has the id `chosen`."""
    return canvas.svg(_figure(plan))


def _figure(plan: Plan) -> Any:
    figure = canvas.blank()
    axes = figure.add_subplot()
    scale, unit = _scale(plan)

    def points(rows: list[Row]) -> tuple[list[float], list[float]]:
        known = [(row.time_s.within, value / scale) for row in rows if (value := _quality(plan, row)) is not None]
        return [x for x, _ in known], [y for _, y in known]

    fit = [row for row in plan.rows if row.feasible]
    refused = [row for row in plan.rows if row.refused is not None]
    over = [row for row in plan.rows if not row.feasible and row.refused is None]
    front = sorted((row for row in plan.rows if row.pareto), key=lambda row: row.time_s.within)
    chosen = plan.rows[plan.chosen]
    left, right, bottom, top = _limits(plan, *points(list(plan.rows)))
    axes.axvspan(left, plan.budget.plannable_s, color=GREEN, alpha=0.07, linewidth=0)
    if plan.budget.margin:
        margin = f"margin of {plan.budget.margin:.0%}"
        axes.axvspan(plan.budget.plannable_s, plan.budget.seconds, color=RED, alpha=0.05, linewidth=0, label=margin)
    axes.axvline(plan.budget.seconds, color=RED, linewidth=1.4, linestyle="--", label=_budget(plan))
    axes.plot(*points(front), color=BLUE, linewidth=1.4, alpha=0.8, label="Pareto front", zorder=2)
    if refused:
        axes.scatter(*points(refused), s=16, color=GREY, marker="x", linewidth=1, label="noise not known", zorder=3)
    axes.scatter(*points(over), s=16, color=GREY, alpha=0.55, linewidth=0, label="over the budget", zorder=3)
    axes.scatter(*points(fit), s=20, color=GREEN, alpha=0.75, linewidth=0, label="within the budget", zorder=3)
    axes.scatter(
        *points([chosen]),
        s=170,
        marker="*",
        color=GOLD,
        edgecolor="black",
        linewidth=0.8,
        label="chosen",
        zorder=5,
        gid="chosen",
    )
    x, y = (values[0] for values in points([chosen]))
    # The front rises to the right, so there is room below it; a long name must not run off the right edge.
    far = x > left + 0.6 * (right - left)
    axes.annotate(
        "\n".join(f"{steps} × {plain(name)}" for name, steps in chosen.allocation),
        (x, y),
        xytext=(14, -26 if far else -14),
        textcoords="offset points",
        ha="right" if far else "left",
        va="top",
        fontsize=9,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": GREY, "alpha": 0.92},
        zorder=6,
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel(f"seconds of one call ({_bound(plan)})")
    sought = "predicted loss" if plan.objective == "least_loss" else plan.objective.replace("_", " ")
    axes.set_ylabel(f"{sought}{unit}")
    axes.set_title(plain(fill(f"{plan.family}: {plan.setting.words}", TITLE_WIDTH)), fontsize=10)
    canvas.tidy(axes)
    axes.legend(loc="upper left", fontsize=8, frameon=True, framealpha=0.9)
    return figure


def _lower_is_better(plan: Plan) -> bool:
    metric = METRICS.get(plan.objective)
    return plan.objective == "least_loss" or (metric is not None and not metric.higher_is_better)


def _quality(plan: Plan, row: Row) -> float | None:
    """What the row is judged by; None where it was not measured."""
    if plan.objective in METRICS:
        found = row.measured.get(plan.objective)
        return None if found is None else found.value
    if plan.objective == "least_loss" and row.loss is not None:
        return row.loss
    return row.quality.get(plan.objective, row.compute)


def _scale(plan: Plan) -> tuple[float, str]:
    """What to divide the objective by, and how to call it then: compute is shown as a share of the most."""
    most = max(row.compute for row in plan.rows)
    chosen = plan.rows[plan.chosen]
    if plan.objective == "least_loss" and chosen.loss is not None:
        return 1.0, ", standard deviations of the final latent"
    if plan.objective in METRICS or plan.objective in chosen.quality or most <= 0:
        return 1.0, ""
    return most / 100, ", % of the largest denoiser alone"


def _limits(plan: Plan, x: list[float], y: list[float]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top, with room for the label; a far budget does not squeeze the rows together.

    Better is up, whether more of it is better or less.
    """
    low, high = min(x), max(x)
    if plan.budget.seconds < 1.3 * high:
        high = max(high, plan.budget.seconds)
    width = (high - low) or high
    worst, best = (max(y), min(y)) if _lower_is_better(plan) else (min(y), max(y))
    height = (best - worst) or max(y) or 1.0
    return low - 0.05 * width, high + 0.15 * width, worst - 0.2 * height, best + 0.06 * height


def _bound(plan: Plan) -> str:
    return "mean" if plan.budget.quantile is None else f"p{plan.budget.quantile * 100:g}"


def _budget(plan: Plan) -> str:
    from tstitch_cli.quantities import shown_s

    shown = shown_s(plan.budget.seconds)
    asked = plan.budget.asked
    return f"budget {plain(asked)} = {shown}" if asked.endswith(("%", "x", "×")) else f"budget {shown}"
