"""The plan's plot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from PIL import Image

from tests.builders import planned
from tstitch_cli.errors import BadFileError
from tstitch_cli.plotting.plots import GOLD, pareto_png


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_it_shows_the_chosen_row_and_is_reproducible(tmp_path: Path) -> None:
    plan = planned()
    pareto_png(plan, tmp_path / "a.png")
    pareto_png(plan, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    drawn = pixels(tmp_path / "a.png")
    assert drawn.shape == (1000, 1600, 3)
    gold = tuple(int(GOLD[i : i + 2], 16) for i in (1, 3, 5))
    # The star in the legend, and a larger one that moves with the chosen row.
    first = np.argwhere((drawn == gold).all(axis=2))
    pareto_png(planned("100%"), tmp_path / "c.png")
    second = np.argwhere((pixels(tmp_path / "c.png") == gold).all(axis=2))
    assert len(first) > 50
    assert second[:, 1].max() > first[:, 1].max() + 100


def test_refused_rows_are_not_called_over_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("100%")
    rows = tuple(
        replace(row, refused="u-vit knows no noise", feasible=False, pareto=False) if i % 3 == 0 else row
        for i, row in enumerate(plan.rows)
        if row.feasible
    )
    chosen = next(i for i, row in enumerate(rows) if row.refused is None)
    labels: dict[str, int] = {}
    scatter = Axes.scatter

    def noting(self: Axes, x: list[float], *args: Any, **kwargs: Any) -> Any:
        labels[kwargs["label"]] = len(x)
        return scatter(self, x, *args, **kwargs)

    monkeypatch.setattr(Axes, "scatter", noting)
    pareto_png(replace(plan, rows=rows, chosen=chosen, alternatives=(chosen,)), tmp_path / "a.png")
    refused = sum(row.refused is not None for row in rows)
    assert labels == {
        "noise not known": refused,
        "over the budget": 0,
        "within the budget": len(rows) - refused,
        "chosen": 1,
    }
    labels.clear()
    pareto_png(plan, tmp_path / "b.png")
    assert "noise not known" not in labels


def test_what_fits_ends_where_the_margin_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, spans = planned(), list[tuple[float, str]]()
    axvspan = Axes.axvspan

    def noting(self: Axes, left: float, right: float, **kwargs: Any) -> Any:
        spans.append((right, kwargs.get("label", "")))
        return axvspan(self, left, right, **kwargs)

    monkeypatch.setattr(Axes, "axvspan", noting)
    pareto_png(plan, tmp_path / "a.png")
    budget = replace(plan.budget, margin=0.25)
    pareto_png(replace(plan, budget=budget), tmp_path / "b.png")
    seconds = plan.budget.seconds
    assert spans == [(seconds, ""), (seconds / 1.25, ""), (seconds, "margin of 25%")]


@pytest.mark.parametrize("budget", ["900%", "0.5s"])
def test_far_budgets_and_odd_names(tmp_path: Path, budget: str) -> None:
    plan = planned(budget)
    name = r"$\frac$ 日本" * 3
    rows = tuple(replace(row, allocation=((name, 20),)) for row in plan.rows[:1])
    pareto_png(replace(plan, rows=rows, chosen=0, family="$x", objective="made_up"), tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").std() > 5


def test_an_existing_picture_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(BadFileError):
        pareto_png(planned(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    pareto_png(planned(), tmp_path / "a.png", overwrite=True)
    assert pixels(tmp_path / "a.png").size
