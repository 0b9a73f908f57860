"""Plans by measured metrics: which way is better, what lacks them, and where they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import agreeing, measured
from tstitch_cli.documents import write_plan
from tstitch_cli.errors import BadFileError, StaleError, UsageError
from tstitch_cli.formats.consistency import faults_of_plan
from tstitch_cli.plan import make_plan
from tstitch_cli.planning import measurements
from tstitch_cli.planning.exact_row import with_optimum
from tstitch_cli.planning.objectives import named
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.planning.refined_row import with_refined
from tstitch_cli.plotting.plots import pareto_png
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Evaluation, Fingerprint, Measured, Plan, Profile

HALF = parse_budget("50%")
EVALUATION = Evaluation("toys", "r", "p", 1000, 1)


def given() -> Profile:
    return agreeing(measured())


def evaluated(plan: Plan, metric: str = "fid", *, only: int | None = None, width: float = 0.1) -> Plan:
    """`plan` with a metric that is the larger, the more the steps of base: of all rows or every `only`-th."""

    def value(steps: int) -> dict[str, Measured]:
        return {metric: Measured(10.0 + steps, 10.0 + steps - width, 10.0 + steps + width)}

    rows = tuple(
        replace(row, measured=value(row.steps["base"]) if only is None or index % only == 0 else {})
        for index, row in enumerate(plan.rows)
    )
    return replace(plan, rows=rows, evaluation=EVALUATION)


def test_the_metric_is_sought_the_way_that_is_better() -> None:
    for metric, best in (("fid", min), ("is", max)):
        earlier = evaluated(make_plan(given(), budget=HALF), metric)
        plan = make_plan(given(), budget=HALF, objective=named(metric), measured=earlier)
        assert plan.objective == metric
        assert plan.evaluation == EVALUATION
        value = plan.rows[plan.chosen].measured[metric].value
        assert value == best(row.measured[metric].value for row in plan.rows if row.feasible)


def test_a_metric_that_all_rows_within_the_budget_have_goes_before_the_predicted_loss() -> None:
    earlier = evaluated(make_plan(given(), budget=HALF))
    assert make_plan(given(), budget=HALF, measured=earlier).objective == "fid"
    some = evaluated(make_plan(given(), budget=HALF), only=2)
    plan = make_plan(given(), budget=HALF, measured=some)
    assert plan.objective == "least_loss"
    assert sum(bool(row.measured) for row in plan.rows) == 33
    # What does not fit need not have it.
    missing = replace(earlier, rows=tuple(r if r.feasible else replace(r, measured={}) for r in earlier.rows))
    assert make_plan(given(), budget=HALF, measured=missing).objective == "fid"


def test_a_row_without_the_metric_is_not_chosen_by_it() -> None:
    earlier = evaluated(make_plan(given(), budget=HALF), only=5)
    plan = make_plan(given(), budget=HALF, objective=named("fid"), measured=earlier, top=3)
    assert all("fid" in plan.rows[index].measured for index in plan.alternatives)
    assert all("fid" in row.measured for row in plan.rows if row.pareto)
    with pytest.raises(UsageError, match="has is measured"):
        make_plan(given(), budget=HALF, objective=named("is"), measured=earlier)
    with pytest.raises(UsageError, match="has fid measured"):
        make_plan(given(), budget=HALF, objective=named("fid"))


@pytest.mark.parametrize(("width", "within"), [(0.01, False), (3.0, True)])
def test_overlapping_intervals_are_within_the_noise(width: float, within: bool) -> None:
    earlier = evaluated(make_plan(given(), budget=HALF), "accuracy", width=width)
    plan = make_plan(given(), budget=HALF, objective=named("accuracy"), measured=earlier)
    best = plan.rows[plan.chosen].measured["accuracy"].value
    assert plan.runner_up is not None
    assert best - plan.rows[plan.runner_up.row].measured["accuracy"].value in (0.0, 2.0)
    assert plan.runner_up.within_noise == (within or best == plan.rows[plan.runner_up.row].measured["accuracy"].value)


def test_rows_in_another_order_keep_what_was_measured_of_them() -> None:
    earlier = evaluated(make_plan(given(), budget=HALF, order="any"))
    again = make_plan(given(), budget=parse_budget("70%"), order="any", measured=earlier)
    assert measurements.lost(earlier, again) == 0
    assert {r.allocation: r.measured for r in again.rows} == {r.allocation: r.measured for r in earlier.rows}
    usual = make_plan(given(), budget=HALF, measured=earlier)
    assert measurements.lost(earlier, usual) == 0
    assert {r.allocation: (r.order, r.time_s) for r in usual.rows} == {
        r.allocation: (r.order, r.time_s) for r in earlier.rows
    }
    assert measurements.lost(earlier, make_plan(given(), budget=HALF)) == len(earlier.rows)


def alone_measured(plan: Plan, value: float) -> Plan:
    """`plan` with its chosen row measured and no other."""
    rows = tuple(
        replace(row, measured={"fid": Measured(value, value - 1, value + 1)} if index == plan.chosen else {})
        for index, row in enumerate(plan.rows)
    )
    return replace(plan, rows=rows, evaluation=EVALUATION)


@pytest.mark.parametrize("increment", [0.1, 0.25, 0.002])
def test_what_is_measured_of_exact_and_refined_rows_is_planned_on(increment: float) -> None:
    profile = agreeing(measured(50))
    table = make_plan(profile, budget=HALF)
    refined = with_refined(table, profile, budget=HALF, objective=None, order=SMALL_TO_LARGE)
    for plan in (refined, with_optimum(table, profile)):
        row = plan.rows[plan.chosen]
        assert row.allocation not in {each.allocation for each in table.rows}
        earlier = alone_measured(plan, 7.0)
        # Whatever the order, the increment and the size of the table are.
        again = make_plan(profile, budget=HALF, objective=named("fid"), measured=earlier, increment=increment)
        assert measurements.lost(earlier, again) == 0
        chosen = again.rows[again.chosen]
        assert chosen.allocation == row.allocation
        assert (chosen.order, chosen.steps, chosen.time_s) == (row.order, row.steps, row.time_s)
        assert chosen.fractions == pytest.approx(row.fractions)
        assert chosen.compute == pytest.approx(row.compute)
        assert chosen.loss == pytest.approx(row.loss)
        assert chosen.loss_within == pytest.approx(row.loss_within)
        assert [each.time_s.mean for each in again.rows] == sorted(each.time_s.mean for each in again.rows)
        assert len({each.allocation for each in again.rows}) == len(again.rows)
        assert not list(faults_of_plan(again))
        # Where it does not fit it is kept, and cannot be chosen.
        tight = make_plan(profile, budget=parse_budget("20%"), measured=earlier, increment=increment)
        assert measurements.lost(earlier, tight) == 0
        assert not next(each for each in tight.rows if each.measured).feasible


def test_only_what_still_holds_is_taken(tmp_path: Path) -> None:
    profile, path = given(), tmp_path / "plan.yaml"
    plain = make_plan(profile, budget=HALF, digest="d")
    write_plan(plain, path, overwrite=False)
    assert measurements.left_at(path) is None
    with pytest.raises(BadFileError, match="nothing in it is measured"):
        measurements.named(path, profile)
    write_plan(evaluated(plain), path, overwrite=True)
    assert measurements.left_at(path) == evaluated(plain) == measurements.named(path, profile)
    assert measurements.holds(evaluated(plain), profile, "d")
    assert not measurements.holds(evaluated(plain), profile, "another")
    assert measurements.left_at(tmp_path / "none.yaml") is None
    (tmp_path / "notes.yaml").write_text("no plan\n")
    assert measurements.left_at(tmp_path / "notes.yaml") is None
    elsewhere = replace(profile, setting=replace(profile.setting, device="cuda", batch_size=1))
    assert measurements.named(path, elsewhere) == evaluated(plain)
    with pytest.raises(StaleError, match="is measured for 20 steps"):
        measurements.named(path, replace(profile, setting=replace(profile.setting, guidance=3.0)))
    assert isinstance(profile.fingerprint, Fingerprint)
    weights = dict.fromkeys(profile.fingerprint.weights, "other")
    with pytest.raises(StaleError, match="other denoisers or weights"):
        measurements.named(path, replace(profile, fingerprint=replace(profile.fingerprint, weights=weights)))


def test_a_plot_shows_the_rows_that_have_the_metric(tmp_path: Path) -> None:
    earlier = evaluated(make_plan(given(), budget=HALF), only=4)
    plan = make_plan(given(), budget=HALF, objective=named("fid"), measured=earlier)
    pareto_png(plan, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
