"""Profiling on a fake clock, where every cost is known exactly."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from tests.toys import FakeClock, family
from tstitch_cli.denoisers import Family
from tstitch_cli.formats.consistency import faults_of_profile
from tstitch_cli.measuring.steadiness import Reading
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.profile import Effort, _half_width, _Profiler, measure
from tstitch_cli.schema import Profile
from tstitch_cli.trajectory import Batch

COSTS = {"small": 0.01, "middle": 0.03, "large": 0.1}
LONG = Effort(max_time_s=1e9)
BATCH = Batch(("bag", "dress"), (0, 1))
QUIET = Reading(0.0, 0.0, 0.0, 0.0, 1)


def profile_of(toy: Family, clock: FakeClock, effort: Effort = LONG) -> Profile:
    return measure(toy, BATCH, clock, effort, now=lambda: clock.now, read=lambda: QUIET)


def test_costs_are_found_exactly() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    toy.pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: clock.advance(0.5))
    made = profile_of(toy, clock)
    assert [d.name for d in made.denoisers] == list(COSTS)
    for denoiser in made.denoisers:
        for measured in (denoiser.first_s, denoiser.steady_s, denoiser.last_s):
            assert measured.mean == pytest.approx(COSTS[denoiser.name])
        assert denoiser.switch_s.mean == pytest.approx(0.0, abs=1e-9)
        assert denoiser.switch_s.count > 0
        assert denoiser.flops is not None
        assert denoiser.flops > 0
    assert made.fixed.decode_s.mean == pytest.approx(0.5)
    assert (made.rounds, made.stopped, made.steady) == (5, "tight", True)
    assert not list(faults_of_profile(made))


def test_held_out_calls_are_predicted_exactly_when_nothing_varies() -> None:
    clock = FakeClock()
    made = profile_of(family(clock, COSTS), clock)
    assert len(made.validation) == 3
    for check in made.validation:
        assert check.measured_s.mean == pytest.approx(check.predicted_s)
        assert len(check.allocation) == 2


def test_no_call_of_the_rounds_is_one_that_checks_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    profiler = _Profiler(
        family(clock, {"small": 0.01, "large": 0.1}), BATCH, clock, LONG, print, lambda: clock.now, lambda: QUIET
    )
    held_out = {profiler._held_out(pair, i) for pair in profiler._pairs() for i in range(3)}
    drawn = {allocation for turn in range(200) for allocation in profiler._through_all(turn)}
    assert drawn
    assert not drawn & held_out


@pytest.mark.parametrize(("values", "expected"), [([1.0, 1.2], 12.706), ([1.0, 1.2, 1.1], 4.303)])
def test_the_interval_is_students(values: list[float], expected: float) -> None:
    spread = stdev(values) / len(values) ** 0.5 / fmean(values)
    assert _half_width(values) == pytest.approx(expected * spread)


def test_denoisers_are_ordered_by_what_they_cost_not_by_how_they_were_given() -> None:
    clock = FakeClock()
    made = profile_of(family(clock, {"slow": 0.2, "quick": 0.1}), clock)
    assert [d.name for d in made.denoisers] == ["quick", "slow"]


@pytest.mark.parametrize(
    ("scheduler", "evaluations", "count"),
    [("ddim", ((1, 10),), 10), ("pndm", ((2, 1), (1, 9)), 11), ("heun", ((2, 9), (1, 1)), 19)],
)
def test_evaluations_of_the_scheduler(scheduler: str, evaluations: tuple[tuple[int, int], ...], count: int) -> None:
    clock = FakeClock()
    made = profile_of(family(clock, COSTS, scheduler=scheduler), clock)
    assert made.evaluations == evaluations
    assert CostModel(made).mean_s((("large", 10),)) == pytest.approx(0.1 * count)


def test_a_denoiser_that_starts_cold_shows_in_the_switch() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 0.01, "large": 0.1})
    last = {"name": ""}

    def cold(name: str) -> None:
        if last["name"] != name and toy.stitched.clock.evaluation > 0:
            clock.advance(0.02)
        last["name"] = name

    for name, denoiser in toy.denoisers.items():
        denoiser.register_forward_pre_hook(lambda module, args, name=name: cold(name))
    made = profile_of(toy, clock)
    assert [d.switch_s.mean for d in made.denoisers] == pytest.approx([0.02, 0.02])


def test_the_time_cap_ends_it_and_is_told() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    jitter = iter(range(10**9))
    toy.denoisers["large"].register_forward_pre_hook(lambda m, a: clock.advance(0.05 * (next(jitter) // 10 % 7)))
    made = profile_of(toy, clock, Effort(tolerance=1e-6, max_time_s=60.0, agreement=False))
    assert made.stopped == "time cap"
    assert made.confidence > 1e-6
    assert clock.now < 120


def test_no_call_is_begun_after_the_time_cap_once_there_are_enough() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 1.0, "large": 10.0})
    made = profile_of(toy, clock, Effort(tolerance=1e-6, max_time_s=60.0, agreement=False))
    # Calls take 10 s, 100 s and, stitched, up to 100 s: one of each to warm up, two rounds of all, one check.
    assert (made.rounds, made.stopped) == (2, "time cap")
    assert sum(check.measured_s.count for check in made.validation) == 1
    assert clock.now <= 110 + 2 * (110 + 100) + 100
    assert not list(faults_of_profile(made))


def test_the_checks_are_part_of_the_time() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 0.01, "large": 0.1})
    jitter = iter(range(10**9))
    toy.denoisers["large"].register_forward_pre_hook(lambda m, a: clock.advance(0.05 * (next(jitter) // 10 % 7)))
    made = profile_of(toy, clock, Effort(tolerance=1e-6, max_time_s=60.0, agreement=False))
    assert sum(check.measured_s.count for check in made.validation) >= 6
    assert 45 < clock.now < 62


def test_a_machine_that_slows_down_is_unsteady() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    for denoiser in toy.denoisers.values():
        denoiser.register_forward_pre_hook(lambda m, a: clock.advance(0.02 if clock.now > 6 else 0.0))
    made = profile_of(toy, clock, Effort(max_time_s=30.0))
    assert not made.steady
    assert made.spread["p95"] > 1.02


def test_a_single_step_can_be_profiled() -> None:
    clock = FakeClock()
    made = profile_of(family(clock, {"small": 0.01, "large": 0.1}, steps=1), clock)
    assert CostModel(made).mean_s((("large", 1),)) == pytest.approx(0.1)
    assert not list(faults_of_profile(made))


@pytest.mark.parametrize(("small_s", "pictures"), [(0.01, 5), (0.06, 3)])
def test_as_many_pictures_are_compared_as_three_large_trajectories_have_time_for(small_s: float, pictures: int) -> None:
    clock = FakeClock()
    made = profile_of(family(clock, {"small": small_s, "large": 0.1}), clock)
    assert made.agreement is not None
    assert len(made.agreement.denoisers["small"].rms) == pictures
    # Of two pictures a batch, of which each of the denoisers takes its time.
    assert pictures / 2 * (small_s + 0.1) <= 3 * 0.1
