"""`tstitch plan` beyond one table: orders, measured metrics, several settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.builders import agreeing, coarse, measured
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, write_plan, write_profile
from tstitch_cli.errors import ExitStatus
from tstitch_cli.schema import Evaluation, Measured


@pytest.fixture(autouse=True)
def folder(here: Path) -> Path:
    write_profile(coarse(agreeing(measured(20)), 0.01), Path("profiles/a20.yaml"), overwrite=False)
    older = measured(8, created="2024-01-31T12:00:00+00:00")
    write_profile(coarse(agreeing(older), 0.02), Path("profiles/a8.yaml"), overwrite=False)
    return here


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", "--budget", "50%", *arguments])


def evaluate(only: int = 1) -> None:
    """Fills the plan in, as `tstitch evaluate` does: fid falls with the steps of the largest."""
    made = read_plan(Path("plan.yaml"))
    rows = tuple(
        replace(row, measured={"fid": Measured(40.0 - row.steps["large"], 39.0 - row.steps["large"], 41.0)})
        if index % only == 0
        else row
        for index, row in enumerate(made.rows)
    )
    evaluation = Evaluation("toys", "r", "p", 5000, 1)
    write_plan(replace(made, rows=rows, evaluation=evaluation), Path("plan.yaml"), overwrite=True)


def test_any_order_and_the_exact_one_say_what_was_maximised() -> None:
    result = plan("--order", "any", "--exact")
    assert result.exit_code == 0, result.stderr
    assert "sought: least loss" in result.stderr
    assert "its predicted loss is" in result.stderr
    assert "next best is row" in result.stderr
    assert "none has a predicted loss below" in result.stderr
    assert "order" in result.stdout.splitlines()[1]
    assert "small to large" in result.stdout
    assert "order" not in plan("--overwrite").stdout


def test_simple_alternatives_are_listed_and_told_where_they_win() -> None:
    result = plan()
    assert "instead one could run:" in result.stderr
    assert "20 steps of small:" in result.stderr
    assert "8 steps of large:" in result.stderr
    (alone,) = (rival for rival in read_plan(Path("plan.yaml")).rivals if rival.kind == "largest alone")
    assert alone.wins == ("which is better: tstitch plan --profile profiles/a8.yaml" in result.stderr)


def test_settings_are_chosen_jointly() -> None:
    result = plan("--steps", "8..50")
    assert result.exit_code == 0, result.stderr
    made = read_plan(Path("plan.yaml"))
    assert "the best of 2 settings; 50% is of large alone in 20 steps of ddim" in result.stderr
    assert made.total is not None
    assert sum(rival.kind == "other setting" for rival in made.rivals) == 1
    # The choice of a single profile is unchanged by its neighbours.
    assert read_plan(Path("plan.yaml")).total == made.total
    alone = plan("--profile", "a20", "--overwrite")
    assert alone.exit_code == 0
    assert read_plan(Path("plan.yaml")).setting.steps == 20


def test_measured_metrics_are_carried_over_and_sought() -> None:
    assert plan().exit_code == 0
    evaluate()
    result = plan("--overwrite")
    made = read_plan(Path("plan.yaml"))
    assert made.objective == "fid"
    assert "sought: best fid, measured on 5,000 pictures" in result.stderr
    assert "its fid is" in result.stderr
    assert "fid ↓" in result.stdout.splitlines()[1]
    assert " ± " in result.stdout
    assert all(row.measured for row in made.rows)
    Path("plan.yaml").rename("measured.yaml")
    assert "sought: least loss" in plan().stderr
    assert "sought: best fid" in plan("--measured", "measured.yaml", "--overwrite").stderr
    assert "sought: most compute" in plan("--measured", "measured.yaml", "--maximize", "compute", "--overwrite").stderr


def test_rows_without_the_metric_are_counted() -> None:
    plan()
    evaluate(only=3)
    assert "sought: least loss" in plan("--overwrite").stderr
    result = plan("--maximize", "fid", "--overwrite")
    made = read_plan(Path("plan.yaml"))
    lacking = sum(row.feasible and not row.measured for row in made.rows)
    assert f"{lacking} of {sum(row.feasible for row in made.rows)} rows within the budget have no fid" in result.stderr
    fewer = plan("--increment", "0.5", "--overwrite")
    assert "measured rows of the earlier plan are not in this table" in fewer.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--order", "up"], ExitStatus.USAGE, "large-to-small"),
        (["--order", "any", "--maximize", "compute"], ExitStatus.USAGE, "cannot tell one order"),
        (["--maximize", "beauty"], ExitStatus.USAGE, "fid"),
        (["--maximize", "fid"], ExitStatus.USAGE, "tstitch evaluate"),
        (["--measured", "none.yaml"], ExitStatus.BAD_FILE, "no such file"),
        (["--steps", "soon"], ExitStatus.USAGE, "--steps"),
        (["--steps", "30..40"], ExitStatus.USAGE, "no profile beside"),
        (["--scheduler", "dim"], ExitStatus.USAGE, "ddim"),
        (["--accelerate", "magic"], ExitStatus.USAGE, "magic"),
        (["--steps", "any", "--maximize", "compute"], ExitStatus.USAGE, "predicted loss alone"),
    ],
)
def test_bad_input(arguments: list[str], status: ExitStatus, said: str) -> None:
    result = plan(*arguments)
    assert (result.exit_code, said in result.stderr) == (status, True), result.stderr
    assert not Path("plan.yaml").exists()
