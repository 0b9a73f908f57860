"""Planning over several settings, and what could be run instead of a plan's choice."""

from __future__ import annotations

from dataclasses import replace
from math import hypot
from pathlib import Path

import pytest

from tests.builders import agreeing, coarse, measured
from tstitch_cli.documents import read_plan, write_plan, write_profile
from tstitch_cli.errors import InfeasibleError, UsageError
from tstitch_cli.formats.consistency import faults_of_plan
from tstitch_cli.plan import make_plan
from tstitch_cli.planning import siblings
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.joint import Joint, choose
from tstitch_cli.planning.objectives import named
from tstitch_cli.planning.rivals import with_rivals
from tstitch_cli.planning.siblings import Found
from tstitch_cli.quantities import Quantity, parse_budget
from tstitch_cli.schema import Evaluation, Measured, Plan, Profile

CACHE = ("deepcache:interval=3:branch=0",)
HALF = parse_budget("50%")


def setting(steps: int, distance: float | None, scheduler: str = "ddim", accelerate: tuple[str, ...] = ()) -> Found:
    """A profile of `steps` steps whose largest denoiser alone ends `distance` from the reference."""
    made = agreeing(measured(steps))
    made = replace(made, setting=replace(made.setting, scheduler=scheduler, accelerate=accelerate))
    made = made if distance is None else coarse(made, distance)
    return Found(Path(f"profiles/{scheduler}{steps}{'-cache' * bool(accelerate)}.yaml"), made)


def planned(found: Found, budget: Quantity) -> Plan:
    return make_plan(found.profile, budget=budget, profile_path=str(found.path))


def joint(*found: Found, budget: str = "50%") -> Joint:
    return choose(found, parse_budget(budget), 0.95, planned)


def test_the_setting_that_ends_nearest_to_the_reference_wins() -> None:
    fine, middle = setting(50, 0.01), setting(20, 0.03)
    found = joint(fine, middle)
    assert found.standard is fine
    budget_s = 0.5 * CostModel(fine.profile).largest_alone_s(0.95)
    totals = {}
    for each, distance in ((fine, 0.01), (middle, 0.03)):
        alone = planned(each, Quantity("", budget_s, "seconds"))
        loss = alone.rows[alone.chosen].loss
        assert loss is not None
        totals[each.path] = hypot(distance, loss)
    assert found.plan.budget.seconds == pytest.approx(budget_s)
    assert found.plan.total == pytest.approx(min(totals.values()))
    assert totals[found.winner.path] == min(totals.values())
    (rival,) = found.plan.rivals
    assert (rival.kind, rival.wins) == ("other setting", False)
    assert rival.loss == pytest.approx(max(totals.values()))
    assert rival.profile != found.plan.profile
    # Where fewer steps are coarse, the finer setting is stitched instead.
    assert joint(setting(50, 0.01), setting(20, 5.0)).winner.profile.setting.steps == 50
    assert joint(setting(50, 0.01), setting(20, 0.0001)).winner.profile.setting.steps == 20


def test_only_what_shares_a_reference_is_compared() -> None:
    stranger = setting(10, 0.0)
    stranger = replace(stranger, profile=coarse(stranger.profile, 0.0, digest="another"))
    alone = setting(5, None)
    found = joint(setting(50, 0.01), setting(20, 0.03), stranger, alone)
    assert found.winner.profile.setting.steps in (20, 50)
    assert {each.path for each, _ in found.left_out} == {stranger.path, alone.path}
    with pytest.raises(UsageError, match="profiled by itself"):
        joint(alone)
    with pytest.raises(UsageError, match="no profile beside this one"):
        joint()


def test_settings_that_do_not_fit_are_left_out_and_told() -> None:
    found = joint(setting(200, 0.01), setting(20, 0.03), budget="700ms")
    assert found.winner.profile.setting.steps == 20
    ((left, why),) = found.left_out
    assert left.profile.setting.steps == 200
    assert "smallest possible" in why
    with pytest.raises(InfeasibleError):
        joint(setting(200, 0.01), setting(20, 0.03), budget="1ms")


def names(found: Found) -> str:
    return str(found.path)


def test_simple_alternatives_stand_beside_the_choice(tmp_path: Path) -> None:
    base, fewer, cached = setting(20, 0.01), setting(8, 0.02), setting(20, 0.015, accelerate=CACHE)
    faster = tuple(replace(d, cached_s=replace(d.steady_s, mean=d.steady_s.mean / 9)) for d in cached.profile.denoisers)
    cached = replace(cached, profile=replace(cached.profile, denoisers=faster))
    plan = with_rivals(planned(base, HALF), base, [base, fewer, cached], names)
    mine = plan.rows[plan.chosen].loss
    assert mine is not None
    assert plan.total == pytest.approx(hypot(0.01, mine))
    by_kind = {rival.kind: rival for rival in plan.rivals}
    assert set(by_kind) == {"largest alone", "smallest alone", "cache"}
    alone = by_kind["largest alone"]
    assert (alone.allocation, alone.profile) == ((("large", 8),), str(fewer.path))
    assert alone.loss == pytest.approx(0.02)
    assert alone.time_s.mean == pytest.approx(CostModel(fewer.profile).mean_s((("large", 8),)))
    assert by_kind["cache"].loss == pytest.approx(0.015)
    assert by_kind["cache"].profile == str(cached.path)
    row = next(row for row in plan.rows if row.steps["small"] == 20)
    assert row.loss is not None
    assert by_kind["smallest alone"].loss == pytest.approx(hypot(0.01, row.loss))
    assert plan.total is not None
    for rival in plan.rivals:
        assert rival.wins == (rival.loss is not None and rival.loss < plan.total)
    assert alone.wins
    assert not list(faults_of_plan(plan))
    write_plan(plan, tmp_path / "p.yaml", overwrite=False)
    assert read_plan(tmp_path / "p.yaml") == plan


def test_a_setting_whose_best_is_the_largest_alone_is_listed_once() -> None:
    base, cached = setting(20, 0.01), setting(20, 5.0, accelerate=CACHE)
    faster = tuple(replace(d, cached_s=replace(d.steady_s, mean=d.steady_s.mean / 9)) for d in cached.profile.denoisers)
    cached = replace(cached, profile=replace(cached.profile, denoisers=faster))
    plan = with_rivals(joint(base, cached).plan, base, [base, cached], names)
    alone = [rival for rival in plan.rivals if rival.allocation == (("large", 20),)]
    assert [(rival.kind, rival.setting.accelerate) for rival in alone] == [("other setting", CACHE)]
    assert {rival.kind for rival in plan.rivals} == {"largest alone", "smallest alone", "other setting"}


def test_how_many_steps_of_the_largest_fit_is_predicted_where_no_profile_tells() -> None:
    base = setting(20, None)
    plan = with_rivals(planned(base, HALF), base, [base], names)
    assert plan.total is None
    (alone,) = (rival for rival in plan.rivals if rival.kind == "largest alone")
    assert (alone.loss, alone.profile, alone.wins) == (None, None, False)
    ((name, steps),) = alone.allocation
    assert name == "large"
    assert alone.time_s.within <= plan.budget.seconds
    # 0.03 s besides, the first step half as dear again, the last a quarter cheaper.
    assert alone.time_s.mean == pytest.approx(0.03 + 0.1 * (steps + 0.25))
    assert 1.1 * (0.03 + 0.1 * (steps + 1.25)) > plan.budget.seconds


def test_nothing_is_listed_beside_the_largest_alone_but_the_smallest() -> None:
    base = setting(20, None)
    plan = with_rivals(planned(base, parse_budget("100%")), base, [base], names)
    assert [rival.kind for rival in plan.rivals if not rival.wins] == ["largest alone", "smallest alone"]


def test_rivals_are_judged_by_what_the_plan_seeks() -> None:
    base, fewer = setting(20, 0.01), setting(8, 0.0001)
    table = planned(base, HALF)
    # What the loss thinks least of has the best pictures: the fid falls with the steps of the smallest.
    fid = {row.allocation: Measured(90.0 - row.steps["small"], 60.0, 100.0) for row in table.rows}
    rows = tuple(replace(row, measured={"fid": fid[row.allocation]}) for row in table.rows)
    earlier = replace(table, rows=rows, evaluation=Evaluation("toys", "r", "p", 100, 1))

    def beside(objective: str, *, lacking: int = 0) -> Plan:
        some = tuple(row if row.steps["small"] < 20 - lacking else replace(row, measured={}) for row in rows)
        made = make_plan(base.profile, budget=HALF, objective=named(objective), measured=replace(earlier, rows=some))
        return with_rivals(made, base, [base, fewer], names)

    by_loss = {rival.kind: rival for rival in beside("agreement").rivals}
    assert by_loss["largest alone"].wins
    assert by_loss["smallest alone"].measured == {}
    by_compute = beside("compute", lacking=-1)
    assert not any(rival.wins for rival in by_compute.rivals)
    assert by_compute.rivals[1].measured == {"fid": fid[by_compute.rivals[1].allocation]}
    by_fid = beside("fid")
    # Of the choice the loss is larger than that of the largest in fewer steps, whose fid nobody knows.
    alone = by_fid.rivals[0]
    assert (alone.kind, alone.measured, alone.wins) == ("largest alone", {}, False)
    assert alone.loss is not None
    assert by_fid.total is not None
    assert alone.loss < by_fid.total
    better = replace(by_fid, rows=tuple(replace(r, measured={"fid": Measured(80.0, 60.0, 100.0)}) for r in by_fid.rows))
    smallest = next(r for r in by_fid.rows if r.steps["small"] == 20)
    changed = tuple(replace(r, measured={"fid": fid[r.allocation]}) if r is smallest else s
                    for r, s in zip(by_fid.rows, better.rows, strict=True))  # fmt: skip
    beaten = with_rivals(replace(better, rows=changed, rivals=()), base, [base, fewer], names)
    assert [(r.kind, r.wins) for r in beaten.rivals] == [("largest alone", False), ("smallest alone", True)]
    assert not list(faults_of_plan(beaten))


def profile_at(path: Path, profile: Profile) -> Found:
    write_profile(profile, path, overwrite=True)
    return Found(path, profile)


def test_siblings_are_of_the_same_denoisers_machine_and_setting(tmp_path: Path) -> None:
    base = profile_at(tmp_path / "a.yaml", setting(20, 0.1).profile)
    other = profile_at(tmp_path / "b.yaml", setting(10, 0.1, "dpm++").profile)
    fingerprint = base.profile.fingerprint
    assert fingerprint is not None
    profile_at(tmp_path / "c.yaml", replace(base.profile, fingerprint=replace(fingerprint, torch="1.0")))
    profile_at(tmp_path / "d.yaml", replace(base.profile, setting=replace(base.profile.setting, guidance=9.0)))
    profile_at(tmp_path / "e.yaml", replace(base.profile, family="others"))
    (tmp_path / "f.yaml").write_text("family: toys\n")
    assert siblings.of(base) == [base, other]


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (("10..20", None, None), {"ddim10", "ddim20"}),
        (("10,50", None, None), {"ddim10", "ddim50"}),
        (("any", "any", None), {"ddim10", "ddim20", "ddim50", "dpm++20"}),
        ((None, "dpm++", None), {"dpm++20"}),
        ((None, None, "any"), {"ddim20", "ddim20-cache"}),
        ((None, None, "deepcache"), {"ddim20-cache"}),
        (("any", "any", "none"), {"ddim10", "ddim20", "ddim50", "dpm++20"}),
    ],
)
def test_the_options_pick_settings(options: tuple[str | None, str | None, str | None], fits: set[str]) -> None:
    every = [setting(10, 0.1), setting(20, 0.1), setting(50, 0.1), setting(20, 0.1, "dpm++")]
    every.append(setting(20, 0.1, accelerate=CACHE))
    wanted = siblings.wanted(every[1].profile.setting, *options)
    assert {each.path.stem for each in every if wanted(each.profile.setting)} == fits


@pytest.mark.parametrize("steps", ["0..5", "9..3", "many", "10;20", "-3", ""])
def test_steps_that_mean_nothing_are_refused(steps: str) -> None:
    with pytest.raises(UsageError, match="--steps"):
        siblings.wanted(setting(10, 0.1).profile.setting, steps, None, None)
