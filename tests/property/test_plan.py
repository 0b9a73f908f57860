"""What holds of every profile, budget and plan."""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tstitch_cli.allocation import collapse, expand, per_evaluation, whole_steps
from tstitch_cli.documents import parse, render
from tstitch_cli.errors import BadFileError, InfeasibleError, UsageError
from tstitch_cli.formats.consistency import faults_of_plan, faults_of_profile
from tstitch_cli.measuring.steadiness import margin
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.quantities import Quantity, parse_budget, parse_duration, shown_s
from tstitch_cli.savings.accelerations import parse as parse_acceleration
from tstitch_cli.schema import (
    PLAN_SCHEMA,
    PROFILE_SCHEMA,
    QUANTILES,
    DenoiserProfile,
    Fingerprint,
    FixedParts,
    Measure,
    Plan,
    Profile,
    Row,
    Setting,
)

# A busy machine is no reason to fail.
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

seconds = st.floats(1e-5, 10, allow_nan=False)
# Lone surrogates are no Unicode text and cannot be stored; everything else can.
texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = texts.filter(lambda text: bool(text.strip()))
ACCELERATED = [(), *map(parse_acceleration, ("deepcache", "taylorseer:warm=2", "fbcache"))]
quantiles = st.none() | st.floats(0.5, 0.99)


def measures(mean: st.SearchStrategy[float]) -> st.SearchStrategy[Measure]:
    return st.builds(Measure, mean, st.floats(0, 1), st.integers(0, 1000))


@st.composite
def profiles(draw: st.DrawFn, max_steps: int = 12, max_denoisers: int = 4) -> Profile:
    total = draw(st.integers(1, max_steps))
    count = draw(st.integers(2, max_denoisers))
    called = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    steady = sorted(draw(st.lists(seconds, min_size=count, max_size=count)))
    known = draw(st.booleans())
    pairs = draw(st.integers(0, total))
    evaluations = tuple(run for run in ((2, pairs), (1, total - pairs)) if run[1])
    ratios = sorted(draw(st.lists(st.floats(0.8, 3), min_size=5, max_size=5)))
    return Profile(
        origin=draw(st.sampled_from(["measured", "imported", "reference"])),
        family=draw(texts),
        created="2025-01-31T12:00:00+00:00",
        setting=Setting(
            total,
            *(draw(texts), draw(st.floats(0, 20)), draw(st.integers(1, 64)), 28, draw(texts), "cpu"),
            accelerate=draw(st.sampled_from(ACCELERATED)),
            offload=draw(st.booleans()),
        ),
        evaluations=evaluations,
        denoisers=tuple(
            DenoiserProfile(
                name=name,
                source=draw(texts),
                revision=draw(st.none() | texts),
                first_s=draw(measures(seconds)),
                steady_s=draw(measures(st.just(step))),
                last_s=draw(measures(seconds)),
                switch_s=draw(measures(st.just(0.0) | seconds)),
                cached_s=draw(st.none() | measures(st.just(step / 3))),
                parameters=draw(st.none() | st.integers(1, 10**12)),
                flops=float(1 + k) * 1e9 if known else None,
                peak_memory_bytes=draw(st.none() | st.integers(1, 10**12)),
            )
            for k, (name, step) in enumerate(zip(called, steady, strict=True))
        ),
        fixed=FixedParts(*(draw(measures(st.just(0.0) | seconds)) for _ in range(3))),
        spread={f"p{q * 100:g}": ratio for q, ratio in zip(QUANTILES, ratios, strict=True)},
        rounds=draw(st.integers(0, 99)),
        steady=draw(st.booleans()),
        stopped="tight",
        confidence=draw(st.floats(0, 1)),
        fingerprint=draw(
            st.none()
            | st.builds(
                Fingerprint,
                texts,
                texts,
                texts,
                texts,
                st.integers(1, 64),
                st.dictionaries(st.sampled_from(called), texts),
            )
        ),
        notes=draw(texts),
        drift=draw(st.floats(0, 0.9)),
    )


increments = st.sampled_from([0.5, 0.25, 0.2, 0.1])


@st.composite
def budgets(draw: st.DrawFn) -> Quantity:
    share = draw(st.floats(0.05, 1.5))
    return Quantity(f"{share:%}", share, "share")


def planned(profile: Profile, budget: Quantity, quantile: float | None, increment: float, top: int = 1) -> Plan | None:
    try:
        return make_plan(profile, budget=budget, quantile=quantile, increment=increment, top=top)
    except InfeasibleError:
        return None


def chosen(plan: Plan) -> Row:
    return plan.rows[plan.chosen]


@quick
@given(profiles(), budgets(), quantiles, increments)
def test_the_chosen_row_is_within_the_budget_and_no_brute_force_finds_a_better(
    profile: Profile, budget: Quantity, quantile: float | None, increment: float
) -> None:
    model, total, parts = CostModel(profile), profile.setting.steps, round(1 / increment)
    share = 1 + margin(profile)
    limit = budget.seconds(model.largest_alone_s(quantile) * share) / share * (1 + 1e-12)
    evaluations = profile.evaluations_per_step()
    flops = {denoiser.name: denoiser.flops for denoiser in profile.denoisers}

    best: tuple[float, tuple[int, ...]] | None = None
    for units in product(range(parts + 1), repeat=len(model.names)):
        if sum(units) != parts:
            continue
        steps = whole_steps(units, total)
        allocation = [run for run in zip(model.names, steps, strict=True) if run[1]]
        mean = model.mean_s(allocation)
        if model.at_quantile(mean, quantile) > limit:
            continue
        taken = per_evaluation(allocation, evaluations)
        switches = sum(d.switch_s.mean for d in profile.denoisers if d.name in [name for name, _ in allocation[1:]])
        compute = sum(flops[name] or 0 for name in taken) or round(mean - model.fixed_s - switches, 7)
        if best is None or (compute, steps[::-1]) > (best[0], best[1][::-1]):
            best = (compute, steps)

    plan = planned(profile, budget, quantile, increment)
    assert (plan is None) == (best is None)
    if plan is None or best is None:
        return
    row = chosen(plan)
    assert row.feasible
    assert row.time_s.within <= limit
    if flops[model.names[0]] is not None:
        assert (row.compute, tuple(row.steps.values())) == best
    else:
        assert math.isclose(row.compute, best[0], rel_tol=1e-9, abs_tol=2e-7)


@quick
@given(profiles(), budgets(), budgets(), quantiles, increments)
def test_a_larger_budget_never_chooses_less(
    profile: Profile, one: Quantity, other: Quantity, quantile: float | None, increment: float
) -> None:
    small, large = sorted((one, other), key=lambda budget: budget.value)
    less, more = planned(profile, small, quantile, increment), planned(profile, large, quantile, increment)
    if less is not None:
        assert more is not None
        assert chosen(more).compute >= chosen(less).compute


@quick
@given(profiles(), budgets(), quantiles, increments, st.integers(1, 5))
def test_every_plan_is_whole_and_comes_back_from_yaml(
    profile: Profile, budget: Quantity, quantile: float | None, increment: float, top: int
) -> None:
    plan = planned(profile, budget, quantile, increment, top)
    assume(plan is not None)
    assert plan is not None
    for row in plan.rows:
        assert sum(row.steps.values()) == profile.setting.steps
        assert collapse(expand(row.allocation)) == row.allocation
        assert math.isclose(sum(row.fractions.values()), 1)
        assert len(per_evaluation(row.allocation, profile.evaluations_per_step())) == sum(plan.evaluations_per_step())
        assert all(abs(row.fractions[n] * profile.setting.steps - row.steps[n]) < 1 for n in row.steps)
    assert len({tuple(row.steps.values()) for row in plan.rows}) == len(plan.rows)
    assert parse(render(plan, PLAN_SCHEMA), "p", Plan, PLAN_SCHEMA, faults_of_plan) == plan


@quick
@given(profiles(max_steps=50, max_denoisers=6))
def test_every_profile_comes_back_from_yaml(profile: Profile) -> None:
    text = render(profile, PROFILE_SCHEMA)
    again = parse(text, "p", Profile, PROFILE_SCHEMA, faults_of_profile)
    assert again == profile
    assert render(again, PROFILE_SCHEMA) == text


@quick
@given(profiles(), quantiles, increments)
def test_the_smallest_budget_that_is_named_is_enough(
    profile: Profile, quantile: float | None, increment: float
) -> None:
    try:
        make_plan(profile, budget=Quantity("1us", 1e-6, "seconds"), quantile=quantile, increment=increment)
    except InfeasibleError as error:
        named = error.message.split("for this profile is ")[1].split(" (")[0]
        budget = Quantity(named, parse_duration(named), "seconds")
        plan = make_plan(profile, budget=budget, quantile=quantile, increment=increment)
        assert min(row.time_s.within for row in plan.rows) <= plan.budget.plannable_s * (1 + 1e-12)


@quick
@given(st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any), st.integers(0, 1000))
def test_rounding_is_less_than_a_step_off_and_sums_up(units: list[int], total: int) -> None:
    steps = whole_steps(units, total)
    assert sum(steps) == total
    assert all(abs(Fraction(unit * total, sum(units)) - step) < 1 for unit, step in zip(units, steps, strict=True))
    floats = whole_steps([unit / sum(units) for unit in units], total)
    assert sum(floats) == total


@quick
@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
def test_arbitrary_text_is_a_bad_file_at_worst(text: str) -> None:
    for cls, schema in ((Plan, PLAN_SCHEMA), (Profile, PROFILE_SCHEMA)):
        for content in (text, f"schema: {schema}\n{text}"):
            with pytest.raises(BadFileError, match=r"\Af:"):
                parse(content, "f", cls, schema)


@quick
@given(st.data())
def test_a_damaged_document_is_a_bad_file_or_a_whole_one(data: st.DataObject) -> None:
    profile = data.draw(profiles(max_steps=3, max_denoisers=2))
    plan = planned(profile, Quantity("200%", 2.0, "share"), 0.95, 0.5)
    assert plan is not None
    value, schema, check = data.draw(
        st.sampled_from([(profile, PROFILE_SCHEMA, faults_of_profile), (plan, PLAN_SCHEMA, faults_of_plan)])
    )
    text = render(value, schema)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 9))
    patch = data.draw(
        st.sampled_from(["", "-", "[", "{", '"', "\n", " ", "&a ", "*a", "!!int ", "nan", "9" * 30, "\x00"])
    )
    with suppress(BadFileError):
        parse(text[:at] + patch + text[at + cut :], "f", type(value), schema, check)  # type: ignore[arg-type]


@quick
@given(st.text(max_size=12) | st.from_regex(r"\A-?[0-9]{0,4}\.?[0-9]{0,3}(e-?[0-9]{1,3})?(ms|s|min|m|h|%|x)?\Z"))
def test_any_budget_text_is_sensible_or_refused(text: str) -> None:
    try:
        value = parse_budget(text).seconds(10.0)
    except UsageError:
        return
    assert 0 < value <= 1e6


@quick
@given(st.floats(1e-6, 1e5))
def test_times_are_shown_to_four_digits(value: float) -> None:
    assert math.isclose(parse_duration(shown_s(value)), value, rel_tol=6e-4)
    assert value * (1 - 1e-11) <= parse_duration(shown_s(value, up=True)) <= value * 1.0011
