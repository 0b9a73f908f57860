"""`tstitch plan` beyond one table: orders, measured metrics, several settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.builders import agreeing, coarse, measured
from tstitch_cli.app import app
from tstitch_cli.commands import plan_words
from tstitch_cli.documents import read_plan, read_profile, write_plan, write_profile
from tstitch_cli.errors import ExitStatus
from tstitch_cli.schema import Evaluation, Measured
from tstitch_cli.zoo.registry import Zoo


@pytest.fixture(autouse=True)
def folder(here: Path) -> Path:
    write_profile(coarse(agreeing(measured(20)), 0.01), Path("profiles/a20.yaml"), overwrite=False)
    older = measured(8, created="2024-01-31T12:00:00+00:00")
    write_profile(coarse(agreeing(older), 0.02), Path("profiles/a8.yaml"), overwrite=False)
    return here


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", "--budget", "50%", *arguments])


def headings(result: Result) -> str:
    return next(line for line in result.stdout.splitlines() if line.split()[:1] == ["row"])


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
    assert result.stderr.rstrip().count(": this is the optimum") == 1
    assert "order" in headings(result)
    assert "small to large" in result.stdout
    assert "order" not in plan("--overwrite").stdout


def test_what_the_budget_comes_to_is_spelled_out() -> None:
    result = plan()
    # 20 steps of 0.1 s, the first half as dear again, the last a quarter cheaper, and 0.03 s besides; p95 is 1.1 x.
    assert "the budget is 50% of large alone (2.261 s p95) = 1.13 s\n" in result.stderr
    assert "fits: p95 up to 1.13 s" in result.stdout
    shaky = replace(coarse(agreeing(measured(20)), 0.01), steady=False, drift=0.5)
    write_profile(shaky, Path("profiles/a20.yaml"), overwrite=True)
    result = plan("--overwrite")
    words = " ".join(result.stderr.split())
    assert "the budget is 50% of large alone (2.261 s p95) = 1.13 s, x 1.5 for the margin = 1.695 s" in words
    assert "what is predicted may come to 1.13 s, a call to" in words
    assert "fits: p95 up to 1.13 s" in result.stdout
    assert "the budget is large alone (2.261 s p95) / 2 = 1.13 s" in plan("--budget", "2x", "--overwrite").stderr
    assert "the budget is 1.5 s\n" in plan("--budget", "1.5s", "--overwrite").stderr


def test_one_is_one_and_a_draw_is_told() -> None:
    result = plan("--order", "decreasing", "--increment", "0.05", "--overwrite", "--budget", "20%")
    assert " 1 steps" not in result.stderr
    assert "one draw of the steps at random" in " ".join(result.stdout.split())
    assert "one draw" not in plan("--overwrite").stdout


def test_simple_alternatives_are_listed_and_told_where_they_win() -> None:
    result = plan()
    assert "instead one could run:" in result.stderr
    assert "20 steps of small:" in result.stderr
    assert "8 steps of large:" in result.stderr
    (alone,) = (rival for rival in read_plan(Path("plan.yaml")).rivals if rival.kind == "largest alone")
    assert alone.wins == ("which is better: tstitch plan --profile profiles/a8.yaml" in result.stderr)


def test_what_nobody_profiled_is_named_with_the_command_that_does() -> None:
    Path("profiles/a8.yaml").unlink()
    words = " ".join(plan().stderr.split())
    assert "9 steps of large (not profiled): 1.05 s, loss not measured" in words
    assert "profile them together (`tstitch profile small base large --steps 9,20 --scheduler ddim" in words
    profile = read_profile(Path("profiles/a20.yaml"))
    names = dict(zip(("small", "base", "large"), ("fashion-s", "fashion-b", "fashion-xl"), strict=True))
    sources = {name: entry.source for name, entry in Zoo.shipped().entries.items()}
    denoisers = tuple(replace(d, name=names[d.name], source=sources[names[d.name]]) for d in profile.denoisers)
    assert profile.fingerprint is not None
    fingerprint = replace(profile.fingerprint, weights=dict.fromkeys(names.values(), "abc"))
    known = replace(profile, denoisers=denoisers, agreement=None, coarseness=None, fingerprint=fingerprint)
    known = replace(known, validation=())
    write_profile(known, Path("profiles/known.yaml"), overwrite=False)
    words = " ".join(plan("--profile", "known", "--overwrite").stderr.split())
    said = "20 steps of fashion-xl with fbcache, taylorseer or pab: not profiled (`tstitch profile fashion-s fashion-b"
    assert said in words
    assert "--accelerate none --accelerate fbcache --accelerate taylorseer --accelerate pab --overwrite`)" in words
    # Without agreement nothing can be held against anything by its loss.
    assert "profile them together" not in words


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
    assert "fid ↓" in headings(result)
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


def test_measurements_that_do_not_decide_are_told() -> None:
    plan()
    evaluate(only=3)
    words = " ".join(plan("--overwrite").stderr.split())
    fit = [index for index, row in enumerate(read_plan(Path("plan.yaml")).rows) if row.feasible]
    known = [index for index in fit if index % 3 == 0]
    assert f"fid is known of {len(known)} of {len(fit)} rows within the budget, so the least loss decides" in words
    assert "fill it in with `tstitch evaluate --plan plan.yaml --rows 1-2,4-5," in words
    assert "or choose among what is measured with `--maximize fid`" in words
    words = " ".join(plan("--exact", "--overwrite").stderr.split())
    assert "but --exact seeks the least loss; leave that out to plan on fid" in words
    words = " ".join(plan("--steps", "20", "--overwrite").stderr.split())
    assert "but settings are held against each other by the least loss" in words
    assert "fid is known" not in plan("--maximize", "agreement", "--overwrite").stderr


def test_nothing_measured_is_lost_without_a_word() -> None:
    plan()
    evaluate(only=3)
    measured_rows = sum(bool(row.measured) for row in read_plan(Path("plan.yaml")).rows)
    for options in (("--increment", "0.5"), ("--order", "any"), ("--exact",), ("--maximize", "fid")):
        assert "not in this one" not in plan(*options, "--overwrite").stderr
        assert sum(bool(row.measured) for row in read_plan(Path("plan.yaml")).rows) == measured_rows
    other = " ".join(plan("--profile", "a8", "--overwrite").stderr.split())
    assert f"{measured_rows} measured rows of the plan that stood at plan.yaml are not in this one" in other


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


def test_how_near_the_optimum_is_said_where_it_is_not_proven() -> None:
    assert plan_words._from_optimum(0.5, 0.5) == ": this is the optimum"
    assert plan_words._from_optimum(0.50013, 0.5) == ": this is within 0.026 % of the optimum"
    assert plan_words._from_optimum(0.6, 0.5) == ": this is within 20 % of the optimum"
    assert plan_words._from_optimum(0.1, 0.0) == ""
