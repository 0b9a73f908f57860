"""The exact allocation against brute force, and at its largest size."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.builders import measured
from tstitch_cli.allocation import expand
from tstitch_cli.documents import read_plan, write_plan
from tstitch_cli.errors import UsageError
from tstitch_cli.plan import make_plan
from tstitch_cli.planning import known_steps
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.exact import optimum
from tstitch_cli.planning.exact_row import with_optimum
from tstitch_cli.planning.objectives import loss_of, most_compute
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Agreement, Closeness, Profile


def drawn(count: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, seconds and switches of random denoisers, the dearer mostly the better."""
    random = np.random.default_rng(seed)
    loss = random.random((count, steps)) * np.linspace(1.0, 0.1, count)[:, None]
    step_s = random.random((count, steps)) * 0.1 + np.linspace(0.1, 1.0, count)[:, None]
    return loss, step_s, random.random(count) * 0.3


def price(taken: tuple[int, ...], loss: np.ndarray, step_s: np.ndarray, switch_s: np.ndarray) -> tuple[float, float]:
    seconds = sum(step_s[k, t] + (switch_s[k] if t and taken[t - 1] != k else 0.0) for t, k in enumerate(taken))
    return float(sum(loss[k, t] for t, k in enumerate(taken))), float(seconds)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "steps"), [(2, 1), (2, 8), (3, 7), (4, 5)])
@pytest.mark.parametrize("share", [0.15, 0.4, 0.7, 1.2])
def test_it_is_the_best_of_all_assignments(count: int, steps: int, seed: int, share: float) -> None:
    loss, step_s, switch_s = drawn(count, steps, seed)
    names = tuple("abcd"[:count])
    limit = share * float(step_s[-1].sum())
    every = [price(taken, loss, step_s, switch_s) for taken in product(range(count), repeat=steps)]
    within = [pair for pair in every if pair[1] <= limit]
    found = optimum(names, loss, step_s, switch_s, limit)
    if not within:
        assert found is None
        return
    assert found is not None
    assert found.proven
    taken = tuple(names.index(name) for name in expand(found.allocation))
    assert price(taken, loss, step_s, switch_s) == pytest.approx((found.loss, found.seconds))
    assert found.seconds <= limit * (1 + 1e-9)
    assert found.loss == pytest.approx(min(pair[0] for pair in within))


@pytest.mark.parametrize("switching", [0.0, 0.01, 0.3])
def test_a_thousand_steps_of_five_come_near_the_bound(switching: float) -> None:
    loss, step_s, switch_s = drawn(5, 1000, 0)
    switch_s *= switching
    limit = 0.4 * float(step_s[-1].sum())
    began = time.process_time()
    found = optimum(("a", "b", "c", "d", "e"), loss, step_s, switch_s, limit)
    assert time.process_time() - began < 2
    assert found is not None
    taken = tuple("abcde".index(name) for name in expand(found.allocation))
    assert price(taken, loss, step_s, switch_s) == pytest.approx((found.loss, found.seconds))
    assert found.seconds <= limit * (1 + 1e-8)
    # Its own bound, here once more without switches: Lagrange's relaxation bounds every assignment from below.
    free = max(float((loss + m * step_s).min(axis=0).sum() - m * limit) for m in np.linspace(0.0, 3.0, 301))
    assert free - 1e-6 <= found.bound <= found.loss <= 1.0005 * found.bound


def test_thinned_fronts_are_told_and_still_lead_to_an_assignment_that_fits() -> None:
    loss, step_s, switch_s = drawn(4, 60, 1)
    limit = 0.5 * float(step_s[-1].sum())
    whole = optimum(("a", "b", "c", "d"), loss, step_s, switch_s, limit)
    thin = optimum(("a", "b", "c", "d"), loss, step_s, switch_s, limit, work=1)
    assert whole is not None
    assert thin is not None
    assert whole.proven
    assert thin.bound <= whole.loss <= thin.loss
    assert thin.seconds <= limit * (1 + 1e-8)


def test_switches_are_priced() -> None:
    loss = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.9, 0.0, 0.9]])
    step_s = np.array([[1.0] * 4, [2.0] * 4])
    free = optimum(("a", "b"), loss, step_s, np.zeros(2), 6.0)
    assert free is not None
    assert free.allocation == (("b", 1), ("a", 1), ("b", 1), ("a", 1))
    dear = optimum(("a", "b"), loss, step_s, np.array([5.0, 5.0]), 8.0)
    assert dear is not None
    assert dear.allocation == (("b", 4),)


def agreeing(steps: int = 12) -> Profile:
    """The smaller ones differ from the largest the more, the later the step; the middle one by half as much."""
    profile = measured(steps)
    names = [denoiser.name for denoiser in profile.denoisers]

    def close(scale: float) -> Closeness:
        rms = tuple(scale * 0.01 * (t + 1) ** 2 for t in range(steps))
        return Closeness((0.9,) * steps, (0.0,) * steps, (rms, rms))

    weights = tuple(1.0 + (t % 3) for t in range(steps))
    agreement = Agreement(names[-1], weights, {names[0]: close(1.0), names[1]: close(0.5)})
    return replace(profile, agreement=agreement)


@pytest.mark.parametrize("share", ["40%", "60%", "80%"])
def test_the_plan_chooses_the_best_of_all_assignments(share: str, tmp_path: Path) -> None:
    profile = agreeing()
    plan = make_plan(profile, budget=parse_budget(share))
    exact = with_optimum(plan, profile)
    row, before = exact.rows[exact.chosen], plan.rows[plan.chosen]
    assert profile.agreement is not None
    assert row.loss is not None
    assert before.loss is not None
    assert row.loss < before.loss
    assert row.loss == pytest.approx(float(loss_of(profile.agreement, row.allocation).mean()))
    assert row.loss == pytest.approx(exact.least_loss)
    assert row.time_s.mean == pytest.approx(CostModel(profile).mean_s(row.allocation))
    assert row.time_s.within <= plan.budget.seconds * (1 + 1e-8)
    assert row.compute == pytest.approx(
        sum(d.flops * steps for d in profile.denoisers for name, steps in row.allocation if name == d.name and d.flops)
    )
    assert exact.alternatives[0] == exact.chosen
    times = [each.time_s.mean for each in exact.rows]
    assert times == sorted(times)
    assert not any(r.pareto and r.loss is not None and r.loss > row.loss and r.time_s.mean > row.time_s.mean
                   for r in exact.rows)  # fmt: skip
    write_plan(exact, tmp_path / "plan.yaml", overwrite=False)
    assert read_plan(tmp_path / "plan.yaml") == exact


def test_only_known_noise_is_given_and_what_is_missing_is_told() -> None:
    profile = agreeing()
    small, *others = profile.denoisers
    limited = replace(profile, denoisers=(replace(small, knows=(5, 12)), *others))
    exact = with_optimum(make_plan(limited, budget=parse_budget("60%")), limited)
    assert known_steps.broken(exact.rows[exact.chosen].allocation, known_steps.of(limited.denoisers)) is None
    with pytest.raises(UsageError, match="without agreement"):
        with_optimum(make_plan(measured(), budget=parse_budget("60%")), measured())
    with pytest.raises(UsageError, match="nothing else"):
        with_optimum(make_plan(profile, budget=parse_budget("60%"), objective=most_compute), profile)
    cached = replace(profile, denoisers=(replace(small, cached_s=small.steady_s), *others))
    with pytest.raises(UsageError, match="cache"):
        with_optimum(make_plan(cached, budget=parse_budget("60%")), cached)
