"""Whether budgets are kept: at least 100 plans, each drawn by several times.

    python -m tests.benchmarks.budget --work budget-work --out tests/benchmarks/results/budget.json

Protocol: 28 settings (pairs and the triple of the bundled family, 5 to 50 steps, batches of 1 to 8, six samplers). Each
is profiled for 20 seconds as `tstitch profile` does, then planned for five budgets, 20 % to 95 % of the largest
denoiser's time, by everything's default; budgets that no row fits are left out. The rows that were chosen run six times
each, in rounds of random order, on the path of `tstitch verify`.

A call is within its budget or not; the goal is 95 % of all calls, the default quantile. A budget's use is the mean time
of its calls over the budget; the goal is 90 %, on average over the plans for which the table has a row that could use
it: one predicted to take, at the quantile, 90 % of the budget or more.

A setting that is done is kept in the folder of --work and not done again, so a run that was cut off goes on where it
was. It takes some 15 minutes; the machine should have nothing else to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tests.benchmarks.common import BASE, LARGE, SMALL, arguments, machine, markdown, positive, save, start, words
from tstitch_cli import files, verify
from tstitch_cli.allocation import Allocation
from tstitch_cli.clocks import clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device
from tstitch_cli.errors import InfeasibleError
from tstitch_cli.measuring.verdicts import Verdict, verdict
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.planning.refined_row import with_refined
from tstitch_cli.profile import Effort, measure
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Plan, Profile, Setting
from tstitch_cli.trajectory import Batch
from tstitch_cli.zoo.registry import Zoo

FAMILIES = ((SMALL, LARGE), (SMALL, BASE, LARGE), (BASE, LARGE), (SMALL, BASE))
STEPS, BATCHES = (5, 10, 20, 35, 50), (1, 2, 4, 8)
SAMPLERS = ("ddim", "euler", "dpm++", "unipc", "pndm", "heun")
BUDGETS = ("20%", "35%", "50%", "65%", "80%", "95%")
SETTINGS, CALLS, PROFILE_S = 28, 6, 20.0
KEPT_GOAL, USE_GOAL = 0.95, 0.90


@dataclass(frozen=True)
class Case:
    """One setting with the budgets that it is planned for."""

    names: tuple[str, ...]
    steps: int
    batch_size: int
    scheduler: str
    budgets: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """A plan and the calls that were made by it."""

    case: int
    names: tuple[str, ...]
    steps: int
    batch_size: int
    scheduler: str
    asked: str
    budget_s: float
    margin: float
    allocation: Allocation
    predicted_s: float
    within_s: float
    """Predicted, at the quantile that the budget bounds."""
    could_use: bool
    """Whether the table has a row that was predicted to use USE_GOAL of the budget or more, and fits."""
    holds: bool
    """By `tstitch verify`."""
    seconds: tuple[float, ...]

    @property
    def kept(self) -> int:
        """Calls within the budget."""
        return sum(seconds <= self.budget_s for seconds in self.seconds)

    @property
    def use(self) -> float:
        """Mean time of the calls over the budget."""
        return fmean(self.seconds) / self.budget_s

    @property
    def error(self) -> float:
        """Mean measured over mean predicted time, less 1."""
        return fmean(self.seconds) / self.predicted_s - 1.0


def cases(count: int) -> list[Case]:
    """`count` settings, any few of which differ in everything; the budgets take turns too."""
    # Strides without a common factor with the numbers of choices: neighbours differ, and no two are the same.
    everything = list(product(FAMILIES, STEPS, BATCHES, SAMPLERS))
    chosen = [everything[(i * 187) % len(everything)] for i in range(count)]
    return [Case(*each, _budgets(i)) for i, each in enumerate(chosen)]


def _budgets(turn: int) -> tuple[str, ...]:
    """All but one of them; the one that is left out changes."""
    return tuple(each for i, each in enumerate(BUDGETS) if i != turn % len(BUDGETS))


def of_plan(case: int, plan: Plan, found: Verdict) -> Kept:
    """What a plan's calls came to."""
    least = USE_GOAL * plan.budget.seconds
    return Kept(
        case=case,
        names=tuple(denoiser.name for denoiser in plan.denoisers),
        steps=plan.setting.steps,
        batch_size=plan.setting.batch_size,
        scheduler=plan.setting.scheduler,
        asked=plan.budget.asked,
        budget_s=plan.budget.seconds,
        margin=plan.budget.margin,
        allocation=found.allocation,
        predicted_s=found.predicted.mean,
        within_s=found.predicted.within,
        could_use=any(row.feasible and row.time_s.within >= least for row in plan.rows),
        holds=found.holds,
        seconds=found.seconds,
    )


def summary(plans: Sequence[Kept]) -> dict[str, float]:
    """The numbers that are held against the goals, and what explains them."""
    calls = sum(len(each.seconds) for each in plans)
    could = [each for each in plans if each.could_use]
    return {
        "plans": len(plans),
        "calls": calls,
        "calls_within": sum(each.kept for each in plans) / calls,
        "plans_all_within": fmean(each.kept == len(each.seconds) for each in plans),
        "plans_that_hold": fmean(each.holds for each in plans),
        "plans_with_a_row_that_could": len(could),
        "use_where_a_row_could": fmean(each.use for each in could) if could else 0.0,
        "use": fmean(each.use for each in plans),
        "predicted_use_at_the_quantile": fmean(each.within_s / each.budget_s for each in plans),
        "mean_error": fmean(each.error for each in plans),
        "median_absolute_error": median(abs(each.error) for each in plans),
        "with_a_margin": sum(each.margin > 0 for each in plans),
    }


def verdicts(found: dict[str, float]) -> list[str]:
    """The goals, and by how much they are met or missed."""
    return [
        f"{found['calls_within']:.1%} of {found['calls']:.0f} calls by {found['plans']:.0f} plans were within their "
        f"budget (goal {KEPT_GOAL:.0%}); {found['plans_all_within']:.1%} of the plans kept it with every call, "
        f"{found['plans_that_hold']:.1%} hold by `tstitch verify`",
        f"{found['use_where_a_row_could']:.1%} of the budget was used on average (goal {USE_GOAL:.0%}) by the "
        f"{found['plans_with_a_row_that_could']:.0f} plans with a row that could, {found['use']:.1%} by all",
        f"calls took {found['mean_error']:+.1%} against the prediction, {found['median_absolute_error']:.1%} "
        f"off at the median; {found['with_a_margin']:.0f} plans kept a margin, as the machine was unsteady",
    ]


def table(plans: Iterable[Kept]) -> str:
    """The plans in Markdown, by denoisers."""
    groups: dict[tuple[str, ...], list[Kept]] = {}
    for each in plans:
        groups.setdefault(each.names, []).append(each)
    rows = [(names, summary(found)) for names, found in groups.items()]
    return markdown(
        ("denoisers", "plans", "calls within", "use", "use where a row could", "error"),
        [
            (
                ", ".join(names),
                f"{found['plans']:.0f}",
                f"{found['calls_within']:.1%}",
                f"{found['use']:.1%}",
                f"{found['use_where_a_row_could']:.1%}",
                f"{found['mean_error']:+.1%}",
            )
            for names, found in rows
        ],
    )


def _load(case: Case, device: str) -> Family:
    zoo = Zoo.load()
    entries = [zoo.resolve(name) for name in case.names]
    defaults = entries[-1].defaults
    setting = Setting(
        case.steps, case.scheduler, defaults.guidance, case.batch_size, defaults.size, "float32", resolve_device(device)
    )
    return load(entries, setting)


def _run(number: int, case: Case, family: Family, profile_s: float, calls: int) -> tuple[list[Kept], Profile]:
    size, clock = case.batch_size, clock_for(family.device)
    batch = Batch(family.example_prompts(size), tuple(range(size)), number)
    profile = measure(family, batch, clock, Effort(max_time_s=profile_s))
    plans = []
    for asked in case.budgets:
        try:
            budget = parse_budget(asked)
            made = make_plan(profile, budget=budget)
        except InfeasibleError:
            continue
        plans.append(with_refined(made, profile, budget=budget, objective=None, order=SMALL_TO_LARGE))
    if not plans:
        return [], profile
    # Plans of one profile differ in their rows alone, so the chosen ones run interleaved, each once a round.
    chosen = {plan.rows[plan.chosen].allocation: plan.rows[plan.chosen] for plan in plans}
    together = replace(plans[0], rows=tuple(chosen.values()), chosen=0, alternatives=(0,))
    found = verify.measure(family, together, range(len(chosen)), clock, calls=calls, max_time_s=600.0)
    seconds = dict(zip(chosen, found.values(), strict=True))
    kept = [
        of_plan(number, plan, verdict(plan, plan.chosen, seconds[plan.rows[plan.chosen].allocation])) for plan in plans
    ]
    return kept, profile


def _report(number: int, case: Case, device: str, profile_s: float, calls: int) -> dict[str, Any]:
    family = _load(case, device)
    plans, profile = _run(number, case, family, profile_s, calls)
    return {
        "machine": machine(family),
        "case": asdict(case),
        "profile": {
            "rounds": profile.rounds,
            "stopped": profile.stopped,
            "steady": profile.steady,
            "unsteady": profile.unsteady,
            "drift": profile.drift,
            "spread": profile.spread,
            "confidence": profile.confidence,
        },
        "plans": [asdict(plan) for plan in plans],
    }


def _kept(plans: Iterable[dict[str, Any]]) -> list[Kept]:
    def runs(found: Iterable[Sequence[Any]]) -> Allocation:
        return tuple((str(name), int(steps)) for name, steps in found)

    return [
        Kept(
            **each
            | {
                "names": tuple(each["names"]),
                "allocation": runs(each["allocation"]),
                "seconds": tuple(each["seconds"]),
            }
        )
        for each in plans
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, default=Path("budget-work"), help="where settings that are done are kept")
    parser.add_argument("--settings", type=positive, default=SETTINGS, help="how many, the first of the list")
    parser.add_argument("--calls", type=positive, default=CALLS, help="calls by each plan, 3 at least")
    parser.add_argument("--profile-time", type=float, default=PROFILE_S, help="seconds to profile each setting for")
    parser.add_argument("--device", default="cpu", help="cpu, cuda ...")
    given = parser.parse_args()
    reports = []
    for number, case in enumerate(cases(given.settings)):
        path = given.work / f"{number:02d}.json"
        if not path.exists():
            talk.print(
                f"{number + 1} of {given.settings}: {', '.join(case.names)}, {case.steps} steps of {case.scheduler}"
            )
            report = _report(number, case, given.device, given.profile_time, given.calls)
            files.write(path, json.dumps(report, indent=1).encode(), overwrite=False)
        reports.append(json.loads(path.read_text()))
    plans = _kept(plan for report in reports for plan in report["plans"])
    for each in plans:
        if each.kept < len(each.seconds):
            over = max(each.seconds) / each.budget_s - 1.0
            talk.print(
                f"{each.kept} of {len(each.seconds)} within {each.asked}, worst {over:+.1%}: {words(each.allocation)}"
            )
    found = summary(plans)
    print(table(plans), "", *verdicts(found), sep="\n")
    protocol = {
        "settings": given.settings,
        "calls": given.calls,
        "profile_s": given.profile_time,
        "quantile": 0.95,
        "goals": {"calls_within": KEPT_GOAL, "use": USE_GOAL},
    }
    results = {
        "summary": found,
        "plans": [asdict(each) for each in plans],
        "profiles": [report["profile"] | {"load_average": report["machine"]["load_average"]} for report in reports],
    }
    save(given.out, "budget", reports[0]["machine"], protocol, results)


if __name__ == "__main__":
    start(main)
