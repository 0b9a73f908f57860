"""Measuring a plan's rows again on a fake clock, and what follows from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.builders import measured, planned
from tests.toys import FakeClock, family
from tstitch_cli import verify
from tstitch_cli.denoisers import Family
from tstitch_cli.measuring import drift
from tstitch_cli.measuring.steadiness import Reading
from tstitch_cli.measuring.verdicts import Verdict, verdict
from tstitch_cli.plan import make_plan
from tstitch_cli.profile import Effort
from tstitch_cli.profile import measure as profile
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Plan, Times
from tstitch_cli.trajectory import Batch

COSTS = {"small": 0.01, "large": 0.1}
QUIET = Reading(0.0, 0.0, 0.0, 0.0, 1)
TIMES = Times(1.0, 1.0 + 0.1 * 1.645, 1.1645)


def judged(seconds: list[float], *, limit: float = 1.2, quantile: float | None = 0.95) -> Verdict:
    return Verdict(0, (("small", 1),), TIMES, limit, quantile, tuple(seconds))


@pytest.mark.parametrize(
    ("calls", "missed", "holds"),
    [(20, 0, True), (20, 3, True), (20, 4, False), (3, 1, True), (3, 2, False), (100, 9, True), (100, 10, False)],
)
def test_as_many_misses_as_chance_explains(calls: int, missed: int, holds: bool) -> None:
    found = judged([2.0] * missed + [1.0] * (calls - missed))
    assert (found.missed, found.holds) == (missed, holds)


def test_a_median_may_be_missed_by_half() -> None:
    assert judged([2.0] * 10 + [1.0] * 10, quantile=0.5).holds
    assert not judged([2.0] * 16 + [1.0] * 4, quantile=0.5).holds


def test_a_mean_is_held_against_the_limit_with_its_error() -> None:
    assert judged([1.0, 1.1, 1.2], limit=1.09, quantile=None).holds
    assert not judged([1.0, 1.1, 1.2], limit=0.9, quantile=None).holds
    assert not judged([1.0], limit=0.9, quantile=None).holds


def test_what_a_verdict_tells() -> None:
    found = judged([1.0, 1.2])
    assert found.mean_s == pytest.approx(1.1)
    assert found.error == pytest.approx(0.1)
    assert found.drifted
    assert found.within_s == pytest.approx(1.19)
    assert judged([1.0, 1.2], quantile=None).within_s == pytest.approx(1.1)


def test_a_row_beyond_the_budget_is_held_against_its_own_prediction() -> None:
    plan = planned()
    assert not plan.rows[-1].feasible
    assert verdict(plan, plan.chosen, [1.0]).limit_s == plan.budget.seconds
    assert verdict(plan, len(plan.rows) - 1, [1.0]).limit_s == plan.rows[-1].time_s.within > plan.budget.seconds


@pytest.mark.parametrize(
    ("seconds", "off"),
    [
        ([], None),
        ([1.05], None),
        ([1.19], None),  # one call may take as long as that
        ([1.21], 0.21),
        ([0.75], -0.25),
        ([1.07] * 20, 0.07),  # ten may not, on average
        ([1.0] * 10 + [2.0] * 10, None),
    ],
)
def test_drift_is_what_chance_does_not_explain(seconds: list[float], off: float | None) -> None:
    assert drift.drift_of(TIMES, seconds) == (None if off is None else pytest.approx(off))


def test_up_to_five_percent_are_tolerated_however_exact_the_prediction() -> None:
    exact = Times(1.0, 1.0, 1.0)
    assert drift.drift_of(exact, [1.0499] * 10) is None
    assert drift.drift_of(exact, [1.051] * 10) == pytest.approx(0.051)


def test_the_warning_names_what_to_do() -> None:
    assert drift.warning(TIMES, [1.0]) is None
    slow, fast = drift.warning(TIMES, [1.5] * 12), drift.warning(TIMES, [0.5])
    assert slow is not None
    assert "the first 10 calls took 50% longer than predicted, so the machine is slower" in slow
    assert "`tstitch verify`" in slow
    assert fast is not None
    assert "the first call took 50% less than predicted" in fast


def toy_plan(clock: FakeClock) -> tuple[Plan, Family]:
    toy = family(clock, COSTS)
    effort = Effort(max_time_s=1e9, agreement=False)
    made = profile(toy, Batch(("bag", "dress"), (0, 1)), clock, effort, now=lambda: clock.now, read=lambda: QUIET)
    return make_plan(made, budget=parse_budget("60%")), toy


def test_rows_are_measured_as_they_were_predicted() -> None:
    clock = FakeClock()
    plan, toy = toy_plan(clock)
    rows = [plan.chosen, 0, len(plan.rows) - 1]
    turns: list[str] = []
    found = verify.measure(
        toy,
        plan,
        rows,
        clock,
        calls=5,
        max_time_s=1e9,
        progress=lambda doing, share: turns.append(doing.rsplit(" ", 1)[1]),
        now=lambda: clock.now,
    )
    for index in rows:
        assert found[index] == pytest.approx([plan.rows[index].time_s.mean] * 5)
        assert not verdict(plan, index, found[index]).drifted
    assert verdict(plan, plan.chosen, found[plan.chosen]).holds
    assert Counter(turns[1:]) == Counter({str(index): 5 for index in rows})
    assert len({tuple(turns[i : i + 3]) for i in range(1, 16, 3)}) > 1


def test_no_round_is_begun_that_would_end_after_the_time() -> None:
    clock = FakeClock()
    plan, toy = toy_plan(clock)
    last = len(plan.rows) - 1
    for limit, calls in ((5.5, 5), (0.1, verify.FEWEST_CALLS)):
        found = verify.measure(
            toy,
            plan,
            [last],
            clock,
            calls=50,
            max_time_s=limit,
            now=lambda: clock.now,
        )
        assert len(found[last]) == calls


def test_a_slower_machine_does_not_keep_the_budget() -> None:
    clock = FakeClock()
    plan, toy = toy_plan(clock)
    for denoiser in toy.denoisers.values():
        denoiser.register_forward_pre_hook(lambda m, a: clock.advance(0.05))
    found = verify.measure(
        toy,
        plan,
        [plan.chosen],
        clock,
        calls=20,
        max_time_s=1e9,
        now=lambda: clock.now,
    )
    judged = verdict(plan, plan.chosen, found[plan.chosen])
    assert (judged.holds, judged.missed, judged.drifted) == (False, 20, True)


def test_plans_of_old_profiles_have_no_margin() -> None:
    assert replace(measured(), steady=False).drift == 0.0
