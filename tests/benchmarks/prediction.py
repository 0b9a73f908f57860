"""How well a plan predicts the time of calls that nothing was fitted to.

    tstitch profile fashion-s fashion-b fashion-xl && tstitch plan --budget 50%
    python -m tests.benchmarks.prediction --plan plan.yaml --out tests/benchmarks/results/prediction.json

Protocol: 12 rows of the plan's table, spread evenly over their predicted times, half of them with two denoisers and
half with more where there are as many. Left out are rows with one denoiser, to which the profile was fitted, and the
allocations with which the profile has checked itself. (The profile also makes calls through all its denoisers, cut at
random and not on record, for the switches and the spread; one of them may have been a row with all denoisers, but
never one with fewer.) Each row runs 5 times, rounds in random order, after the warm-up of `tstitch sample` and
on its very path: one batch of the plan's size, drawn and written as PNGs into a temporary folder.

A row's error is its mean measured time over its predicted one, less 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.common import Sample, arguments, interleaved, machine, markdown, positive, save, start, words
from tstitch_cli import documents
from tstitch_cli.allocation import Allocation
from tstitch_cli.clocks import Clock, clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.sample import check_fingerprint, draw, entries_of, recorded_control, warm_up, work_of
from tstitch_cli.schema import Plan, Profile, Row
from tstitch_cli.trajectory import Batch

ROWS, FEWEST_ROWS, CALLS = 12, 10, 5
MEDIAN_GOAL, LARGEST_GOAL = 0.03, 0.08


@dataclass(frozen=True)
class Checked:
    """A row of the table, predicted and measured."""

    row: int
    allocation: Allocation
    predicted_s: float
    p95_s: float
    measured_s: Sample

    @property
    def error(self) -> float:
        """Mean measured over predicted time, less 1."""
        return self.measured_s.mean / self.predicted_s - 1.0


def held_out(plan: Plan, profile: Profile, count: int) -> list[int]:
    """Indices of `count` rows, fastest first, of those that stitch and with which the profile has nothing to do.

    Raises UsageError where there are fewer.
    """
    known = {check.allocation for check in profile.validation}
    candidates = [i for i, row in enumerate(plan.rows) if len(row.allocation) > 1 and row.allocation not in known]
    if len(candidates) < count:
        raise UsageError(
            f"the plan has {len(candidates)} rows that its profile was not fitted to, {count} are wanted",
            hint="plan with a smaller --increment, or profile three denoisers",
        )
    candidates.sort(key=lambda i: plan.rows[i].time_s.mean)
    two = [i for i in candidates if len(plan.rows[i].allocation) == 2]
    more = [i for i in candidates if len(plan.rows[i].allocation) > 2]
    of_more = min(len(more), max(count // 2, count - len(two)))
    chosen = _evenly(two, count - of_more) + _evenly(more, of_more)
    return sorted(chosen, key=candidates.index)


def within_p95(checked: Sequence[Checked]) -> float:
    """The share of all calls that took no longer than their row's p95."""
    inside = [seconds <= each.p95_s for each in checked for seconds in each.measured_s.values]
    return sum(inside) / len(inside)


def table(checked: Sequence[Checked]) -> str:
    """The rows in Markdown."""
    return markdown(
        ("steps", "predicted", "measured", "error"),
        [
            (
                words(each.allocation),
                f"{each.predicted_s:.4f} s",
                f"{each.measured_s.mean:.4f} ± {each.measured_s.std:.4f} s",
                f"{each.error:+.1%}",
            )
            for each in checked
        ],
    )


def verdicts(checked: Sequence[Checked]) -> list[str]:
    """The errors against their goals, and how many calls stayed within the predicted p95."""
    errors = [abs(each.error) for each in checked]
    calls = sum(len(each.measured_s.values) for each in checked)
    return [
        f"median error {median(errors) * 100:.1f} % (goal {MEDIAN_GOAL * 100:.0f} %)",
        f"largest error {max(errors) * 100:.1f} % (goal {LARGEST_GOAL * 100:.0f} %)",
        f"{within_p95(checked):.0%} of {calls} calls took no longer than their p95",
    ]


def measure(
    family: Family, plan: Plan, indices: Sequence[int], calls: int, seed: int, clock: Clock
) -> dict[int, list[float]]:
    """Seconds of `calls` calls of every row, writing included, by index of the row."""
    prompts = family.example_prompts(plan.setting.batch_size)
    first = Batch(prompts, tuple(range(len(prompts))), seed)
    everyone = tuple((denoiser.name, 1) for denoiser in plan.denoisers)
    warm_up(family, replace(work_of(plan, plan.rows[0]), allocation=everyone), first, clock)
    seconds: dict[int, list[float]] = {index: [] for index in indices}
    for done, index in enumerate(interleaved(indices, calls, seed), 1):
        seconds[index].append(_call(family, plan, plan.rows[index], prompts, seed, clock))
        if done % len(indices) == 0:
            talk.print(f"{done} of {calls * len(indices)} calls")
    return seconds


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--plan", type=Path, default=Path("plan.yaml"), help="the lookup table (default: plan.yaml)")
    parser.add_argument("--rows", type=positive, default=ROWS, help=f"rows to run, at least {FEWEST_ROWS}")
    parser.add_argument("--calls", type=positive, default=CALLS, help="calls of each row")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the order of the calls")
    parser.add_argument("--allow-stale", action="store_true", help="run a plan that was measured elsewhere")
    given = parser.parse_args()
    if given.rows < FEWEST_ROWS:
        raise UsageError(f"{given.rows} rows say too little", hint=f"take at least {FEWEST_ROWS}")
    plan = documents.read_plan(given.plan)
    profile = _profile_of(plan, given.plan)
    indices = held_out(plan, profile, given.rows)
    entries = entries_of(plan.denoisers)
    resolve_device(plan.setting.device)
    net = recorded_control(plan.setting, plan.fingerprint.weights if plan.fingerprint else {}, entries)
    if not given.allow_stale:
        check_fingerprint(plan, entries, net, plan.setting.device)
    family = load(entries, plan.setting, control=net)
    facts = machine(family)
    seconds = measure(family, plan, indices, given.calls, given.seed, clock_for(family.device))
    checked = [_checked(plan, index, seconds[index]) for index in indices]
    print(table(checked), "", *verdicts(checked), sep="\n")
    protocol: dict[str, Any] = {
        "calls": given.calls,
        "seed": given.seed,
        "setting": asdict(plan.setting),
        "profile": {
            "created": profile.created,
            "rounds": profile.rounds,
            "stopped": profile.stopped,
            "confidence": profile.confidence,
            "steady": profile.steady,
        },
    }
    results = {
        "rows": [asdict(each) | {"error": each.error} for each in checked],
        "median_error": median(abs(each.error) for each in checked),
        "largest_error": max(abs(each.error) for each in checked),
        "within_p95": within_p95(checked),
    }
    save(given.out, "prediction", facts, protocol, results)


def _profile_of(plan: Plan, plan_file: Path) -> Profile:
    """The profile that `plan` was made from; raises StaleError where it is another one by now."""
    path = plan_file.parent / plan.profile
    profile = documents.read_profile(path)
    if documents.digest(path) != plan.profile_digest:
        raise StaleError(f"{path} has changed since {plan_file} was made from it", hint="run `tstitch plan` again")
    return profile


def _evenly(indices: list[int], count: int) -> list[int]:
    """`count` of `indices`, evenly spread, the first and the last among them."""
    return [indices[round(place)] for place in np.linspace(0, len(indices) - 1, count)] if count else []


def _checked(plan: Plan, index: int, seconds: list[float]) -> Checked:
    row = plan.rows[index]
    return Checked(index, row.allocation, row.time_s.mean, row.time_s.p95, Sample.of(seconds))


def _call(family: Family, plan: Plan, row: Row, prompts: Sequence[str], seed: int, clock: Clock) -> float:
    with tempfile.TemporaryDirectory() as folder:
        request = Request(tuple(map(Prompt, prompts)), Path(folder), seed=seed)
        (drawn,) = draw(family, work_of(plan, row), request, clock)
    return drawn.actual_s


if __name__ == "__main__":
    start(main)
