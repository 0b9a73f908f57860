"""A denoiser is only given steps whose noise level it knows: masks, reasons, plans and what `sample` refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.builders import measured
from tstitch_cli import documents
from tstitch_cli.allocation import expand, runs
from tstitch_cli.app import app
from tstitch_cli.errors import InfeasibleError, UsageError
from tstitch_cli.formats.consistency import faults_of_plan, faults_of_profile
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.combinations import combinations, whole_steps_of_units
from tstitch_cli.planning.known_steps import Known, broken, mask, refuse_broken
from tstitch_cli.quantities import parse_budget
from tstitch_cli.sample import refuse_unknown_noise
from tstitch_cli.schema import PROFILE_SCHEMA, Plan, PlannedDenoiser, Profile

NAMES = ("small", "base", "large")
KNOWN = st.none() | st.tuples(st.integers(1, 10), st.integers(1, 10)).map(lambda pair: (min(pair), max(pair)))


def profile(*knows: Known, steps: int = 10) -> Profile:
    made = measured(steps, [0.01 * 3**k for k in range(len(knows))])
    return replace(
        made, denoisers=tuple(replace(d, knows=known) for d, known in zip(made.denoisers, knows, strict=True))
    )


def planned(*knows: Known, budget: str = "100%") -> Plan:
    return make_plan(profile(*knows), budget=parse_budget(budget))


@given(st.tuples(KNOWN, KNOWN, KNOWN))
def test_a_row_is_masked_exactly_where_a_step_is_given_to_who_does_not_know_it(knows: tuple[Known, ...]) -> None:
    steps = whole_steps_of_units(combinations(3, 0.1), 10)
    by_name = dict(zip(NAMES, knows, strict=True))
    for row, good in zip(steps, mask(steps, knows), strict=True):
        allocation = runs(NAMES, row.tolist())
        wrong = [
            step
            for step, name in enumerate(expand(allocation), 1)
            if (known := by_name[name]) is not None and not known[0] <= step <= known[1]
        ]
        assert good == (not wrong)
        assert (broken(allocation, by_name) is None) == (not wrong)


def test_the_reason_is_a_sentence() -> None:
    knows: dict[str, Known] = {"u-vit": (4, 10), "dit": None, "late": (10, 10)}
    assert broken((("dit", 3), ("u-vit", 7)), knows) is None
    assert broken((("u-vit", 7), ("dit", 3)), knows) == "u-vit knows the noise of steps 4 to 10, not of steps 1 to 7"
    assert broken((("dit", 8), ("late", 1), ("dit", 1)), knows) == "late knows the noise of step 10, not of step 9"
    with pytest.raises(UsageError, match="cannot be drawn: u-vit knows"):
        refuse_broken((("u-vit", 10),), [PlannedDenoiser("u-vit", "", None, (4, 10))])


def test_rows_that_break_it_are_infeasible_with_a_reason() -> None:
    # The cheapest knows all steps, the dearest none of the first three, as U-ViT after DiT.
    plan = planned(None, (4, 10))
    refused = {row.steps["small"] for row in plan.rows if row.refused}
    assert refused == {0, 1, 2}
    for row in plan.rows:
        assert row.feasible == (row.refused is None)
        assert not (row.pareto and row.refused)
    chosen = plan.rows[plan.chosen]
    assert chosen.allocation == (("small", 3), ("large", 7))
    assert chosen.pareto
    assert [denoiser.knows for denoiser in plan.denoisers] == [None, (4, 10)]
    assert not list(faults_of_plan(plan))


def test_a_budget_is_held_against_the_rows_that_are_left() -> None:
    plan = planned((1, 5), None, budget="70%")
    assert plan.rows[plan.chosen].steps["small"] == 5
    with pytest.raises(InfeasibleError, match="no allocation fits the budget"):
        planned((1, 5), None, budget="30%")


def test_nothing_left_is_told() -> None:
    with pytest.raises(InfeasibleError, match=r"no allocation can be drawn: .* knows the noise of steps"):
        planned((6, 10), (1, 5))


def test_a_plan_of_thousands_of_rows_keeps_none_that_is_refused_on_its_front() -> None:
    plan = make_plan(profile((1, 500), None, (200, 1000), steps=1000), budget=parse_budget("90%"), increment=0.005)
    assert plan.rows[plan.chosen].refused is None
    assert all(row.refused is None for row in plan.rows if row.pareto)


def test_what_a_denoiser_knows_must_lie_within_the_trajectory() -> None:
    assert [place for place, _ in faults_of_profile(profile(None, (0, 10)))] == [("denoisers", 1, "knows")]
    plan = planned(None, (4, 10))
    wrong = replace(plan, denoisers=(replace(plan.denoisers[0], knows=(3, 11)), plan.denoisers[1]))
    assert [place for place, _ in faults_of_plan(wrong)] == [("denoisers", 0, "knows")]
    # Of 20 steps of which half are taken, there is no 11th.
    made = profile(None, (4, 11))
    half = replace(made, setting=replace(made.setting, steps=20, strength=0.5))
    assert [place for place, _ in faults_of_profile(half)] == [("denoisers", 1, "knows")]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"schedule": "small", "embeddings": "own"}, []),
        ({"schedule": "gone"}, [("setting", "schedule")]),
        ({"host": "gone"}, [("setting", "host")]),
        ({"embeddings": "large"}, [("setting", "embeddings")]),
    ],
)
def test_a_setting_names_a_schedule_and_embeddings_that_there_are(
    changes: dict[str, Any], wrong: list[tuple[str, str]]
) -> None:
    made, plan = profile(None, None), planned(None, None)
    assert [at for at, _ in faults_of_profile(replace(made, setting=replace(made.setting, **changes)))] == wrong
    assert [at for at, _ in faults_of_plan(replace(plan, setting=replace(plan.setting, **changes)))] == wrong
    feasible = replace(plan.rows[0], refused="no", feasible=True)
    assert ("rows", 0, "refused") in [p for p, _ in faults_of_plan(replace(plan, rows=(feasible, *plan.rows[1:])))]


def test_it_survives_the_file() -> None:
    made = profile(None, (4, 10))
    text = documents.render(made, PROFILE_SCHEMA)
    assert "knows: [4, 10]" in text
    assert documents.parse(text, "p.yaml", Profile, PROFILE_SCHEMA) == made


def test_an_edited_plan_is_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents.write_profile(profile(None, (4, 10)), Path("p.yaml"), overwrite=False)
    run = CliRunner()
    told = run.invoke(app, ["plan", "--profile", "p.yaml", "--budget", "100%"])
    assert told.exit_code == 0, told.output
    assert "3 rows are refused" in told.output.replace("\n", " ")
    text = Path("plan.yaml").read_text()
    Path("plan.yaml").write_text(text.replace("feasible: false", "feasible: true"))
    edited = run.invoke(app, ["sample", "--prompt", "bag", "--row", "0"])
    assert edited.exit_code == 3
    plan = documents.read_plan(_written(text))
    worst = next(i for i, row in enumerate(plan.rows) if row.refused)
    drawn = run.invoke(app, ["sample", "--plan", "again.yaml", "--prompt", "bag", "--row", str(worst), "--dry-run"])
    assert drawn.exit_code == 2
    assert "large knows the noise of steps 4 to 10" in drawn.output.replace("\n", " ")
    swept = run.invoke(app, ["sample", "--plan", "again.yaml", "--prompt", "bag", "--sweep", "--dry-run"])
    assert swept.exit_code == 2
    # A row whose own remark was taken out is refused all the same.
    with pytest.raises(UsageError):
        refuse_unknown_noise(plan, replace(plan.rows[worst], refused=None), sweep=False)
    refuse_unknown_noise(plan, plan.rows[plan.chosen], sweep=False)


def _written(text: str) -> Path:
    Path("again.yaml").write_text(text)
    return Path("again.yaml")


def test_no_rows_are_masked_where_all_is_known() -> None:
    steps = np.array([[3, 7], [10, 0]])
    assert mask(steps, [None, None]).all()
    assert all(row.refused is None for row in planned(None, None).rows)
