"""The lookup table and what is chosen from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tests.builders import measured, planned
from tstitch_cli.commands.plan import embeddings_in_words
from tstitch_cli.errors import InfeasibleError, UsageError
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.ranking import MAX_PARETO_ROWS
from tstitch_cli.planning.table import MAX_ROWS
from tstitch_cli.quantities import parse_budget, parse_duration
from tstitch_cli.schema import Plan, Profile, Row

DIT = {"dit-s": 1.6, "dit-b": 4.0, "dit-xl": 16.5}


def steps(row: Row) -> tuple[int, ...]:
    return tuple(row.steps.values())


def chosen(plan: Plan) -> Row:
    return plan.rows[plan.chosen]


def test_three_denoisers_at_a_tenth_are_66_rows() -> None:
    plan = planned()
    assert plan.combinations == len(plan.rows) == 66
    assert {tuple(row.fractions.values()) for row in plan.rows} >= {(1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.2, 0.3, 0.5)}
    times = [row.time_s.mean for row in plan.rows]
    assert times == sorted(times)


def test_two_denoisers_at_four_steps_are_five_rows() -> None:
    plan = make_plan(from_times({"a": 1.0, "b": 4.0}, 4), budget=parse_budget("100%"))
    assert plan.combinations == 11
    assert [steps(row) for row in plan.rows] == [(4, 0), (3, 1), (2, 2), (1, 3), (0, 4)]
    assert [row.fractions["a"] for row in plan.rows] == [1.0, 0.7, 0.5, 0.2, 0.0]


def test_the_papers_budget() -> None:
    # A.1's example: about 10 s on S, B and XL of DiT.
    plan = make_plan(from_times(DIT, 100), budget=parse_budget("10s"))
    assert chosen(plan).time_s.mean <= 10
    assert chosen(plan).allocation[-1][0] == "dit-xl"
    assert all(row.feasible == (row.time_s.within <= 10) for row in plan.rows)


def test_rows_say_what_the_costs_say() -> None:
    model, plan = CostModel(measured()), planned()
    for row in plan.rows:
        assert row.time_s.mean == model.mean_s(row.allocation)
        assert row.time_s.p95 == pytest.approx(1.1 * row.time_s.mean)
        assert sum(row.steps.values()) == 20


def test_everything_fits_when_the_largest_alone_does() -> None:
    for budget in ("100%", "1x"):
        plan = planned(budget)
        assert chosen(plan).allocation == (("large", 20),)
        assert all(row.feasible for row in plan.rows)


@pytest.mark.parametrize(("quantile", "ratio"), [(None, 1.0), (0.5, 1.0), (0.95, 1.1), (0.99, 1.2)])
def test_the_quantile_bounds_the_budget(quantile: float | None, ratio: float) -> None:
    plan = make_plan(measured(), budget=parse_budget("1s"), quantile=quantile)
    assert all(row.time_s.within == pytest.approx(ratio * row.time_s.mean) for row in plan.rows)
    assert chosen(plan).time_s.mean * ratio <= 1
    assert plan.budget.quantile == quantile


def test_ties_go_to_the_larger_denoiser() -> None:
    # Seconds as objective: 9 of small and 1 of large cost what 10 of base do, and more of the largest wins.
    profile = from_times({"small": 1.0, "base": 2.0, "large": 11.0}, 10)
    plan = make_plan(profile, budget=parse_budget("2.0"))
    assert chosen(plan).steps == {"small": 9, "base": 0, "large": 1}
    assert chosen(plan).pareto


def test_alternatives_are_the_best_rows_in_order() -> None:
    plan = planned(top=5)
    assert plan.alternatives[0] == plan.chosen
    computes = [plan.rows[index].compute for index in plan.alternatives]
    assert computes == sorted((row.compute for row in plan.rows if row.feasible), reverse=True)[:5]
    assert len(planned(top=1000).alternatives) == sum(row.feasible for row in plan.rows)


def test_the_objective_is_replaceable() -> None:
    def most_switches(profile: Profile, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        switches: npt.NDArray[np.float64] = np.count_nonzero(steps, axis=1).astype(np.float64)
        return switches

    plan = make_plan(measured(), budget=parse_budget("60%"), objective=most_switches)
    assert len(chosen(plan).allocation) == 3
    assert plan.objective == "most_switches"
    assert chosen(plan).quality == {"most_switches": 3.0}


def test_pareto_rows_are_those_that_no_row_beats() -> None:
    for profile in (measured(), from_times(DIT, 10), from_times({"a": 1.0, "b": 2.0, "c": 3.0}, 10)):
        plan = make_plan(profile, budget=parse_budget("100%"))
        for row in plan.rows:
            beaten = any(
                other.time_s.mean <= row.time_s.mean
                and other.compute >= row.compute
                and (other.time_s.mean, other.compute) != (row.time_s.mean, row.compute)
                for other in plan.rows
            )
            assert row.pareto == (not beaten)


def test_an_impossible_budget_names_the_smallest_possible_one() -> None:
    profile = measured()
    with pytest.raises(InfeasibleError) as caught:
        make_plan(profile, budget=parse_budget("0.2s"))
    assert "smallest possible one" in caught.value.message
    named = caught.value.message.split("for this profile is ")[1].split(" (")[0]
    assert chosen(make_plan(profile, budget=parse_budget(named))).allocation == (("small", 20),)
    fewer = parse_duration(named) * 0.999
    with pytest.raises(InfeasibleError):
        make_plan(profile, budget=parse_budget(f"{fewer}s"))
    # 0.2 s at p95 leave 0.1518 s for evaluations: the first takes 0.015 and each of 13 more 0.01.
    assert "--steps 14: small alone would fit" in str(caught.value.hint)
    assert "smaller model" in str(caught.value.hint)
    assert "--batch-size below 8" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("budget", "what"), [("0.01s", "writing alone take 33 ms"), ("0.04s", "one of small does not")]
)
def test_where_no_step_fits(budget: str, what: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        make_plan(measured(), budget=parse_budget(budget))
    assert what in str(caught.value.hint)


@pytest.mark.parametrize("changes", [{"quantile": 0.3}, {"quantile": 95.0}, {"increment": 0.3}, {"top": 0}])
def test_nonsense_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        make_plan(measured(), budget=parse_budget("50%"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("total", [3, 7, 15, 33, 100])
def test_merged_rows_keep_fractions_near_their_steps(total: int) -> None:
    plan = make_plan(from_times(DIT, total), budget=parse_budget("100%"))
    assert len({steps(row) for row in plan.rows}) == len(plan.rows)
    for row in plan.rows:
        assert all(abs(row.fractions[name] * total - row.steps[name]) < 1 for name in DIT)


def test_many_denoisers_and_odd_steps_are_merged_too() -> None:
    # Too many digits for one integer per row.
    profile = from_times({f"d{k}": 1.0 + k for k in range(7)}, 999)
    plan = make_plan(profile, budget=parse_budget("50%"), increment=0.2)
    assert len(plan.rows) == len({steps(row) for row in plan.rows}) == 462


def test_a_huge_table_keeps_its_pareto_rows() -> None:
    profile = from_times({"a": 1.0, "b": 2.2, "c": 3.9, "d": 9.0}, 50)
    plan = make_plan(profile, budget=parse_budget("50%"), increment=0.02, top=3)
    assert plan.combinations == 23_426 > MAX_ROWS
    assert len(plan.rows) <= MAX_PARETO_ROWS + 3
    assert chosen(plan).time_s.mean <= 4.5
    assert chosen(plan).compute >= max(row.compute for row in plan.rows if row.feasible)
    assert {row.pareto for row in plan.rows if row.allocation[0][1] == 50} == {True}


@pytest.mark.slow
def test_five_denoisers_at_a_hundredth() -> None:
    profile = from_times({"a": 1.0, "b": 2.3, "c": 4.1, "d": 7.7, "e": 16.5}, 100)
    plan = make_plan(profile, budget=parse_budget("50%"), increment=0.01)
    assert plan.combinations == 4_598_126
    assert chosen(plan).time_s.within == pytest.approx(8.25)


def test_the_plan_says_whose_text_embedding_each_denoiser_gets() -> None:
    def told(*whose: str | None) -> str:
        given = zip(measured().denoisers, whose, strict=True)
        profile = replace(measured(), denoisers=tuple(replace(d, embedding=of) for d, of in given))
        return embeddings_in_words(make_plan(profile, budget=parse_budget("100%")))

    assert told(None, None, None) == ""
    assert told("large", "large", "large").endswith("all denoisers get the text embeddings of large")
    assert told("small", "large", "large").endswith("small its own, base those of large, large its own")
