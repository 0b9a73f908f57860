"""What else one could do: the large model alone with fewer steps (figure 15), and other orders (table 7)."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.common import LARGE, SMALL
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Study
from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.fractions import DISTANCE, by_share
from tests.benchmarks.report.measures import Floats, compared, distance
from tests.benchmarks.report.studies import ALL, orders, pair
from tstitch_cli.planning.costs import CostModel

PAIR = (SMALL, LARGE)


def figures(bench: Bench) -> list[Figure]:
    """Figure 15 and table 7."""
    return [fewer_steps(bench), other_orders(bench)]


def fewer_steps(bench: Bench) -> Figure:
    """Figure 15: stitching against the large model with fewer steps, by time."""
    profile = bench.profile(ALL, bench.setting)
    model, size = CostModel(profile), bench.setting.batch_size
    step_ms = {name: model.trajectory_s(name) / bench.setting.steps / size * 1e3 for name in ALL}
    fixed_ms = model.fixed_s / size * 1e3
    alone: dict[int, Floats] = {}
    for count in sorted({*bench.scale.fewer, *bench.scale.steps}):
        study = Study(f"{count} steps alone", bench.at(steps=count), PAIR, (((LARGE, count),),), bench.scale.pictures)
        alone[count] = bench.distances(study)[study.allocations[0]]
    points = tuple(
        Point.of(fixed_ms + count * step_ms[LARGE], distance(each), str(count)) for count, each in alone.items()
    )
    lines, verdicts = [Line(f"{LARGE} alone, by steps", points)], []
    for count in bench.scale.steps:
        study = pair(f"stitched {count}", bench.at(steps=count), bench.scale.pictures)
        found = by_share(study, bench.distances(study))
        ms = {f: fixed_ms + count * (f * step_ms[SMALL] + (1 - f) * step_ms[LARGE]) for f in found}
        lines.append(
            Line(f"{SMALL}, then {LARGE}, {count} steps", tuple(Point.of(ms[f], distance(found[f])) for f in found))
        )
        verdicts.append(_against(count, found, {n: each for n, each in alone.items() if n < count}, step_ms))
    return Figure(
        "fewer-steps",
        "Figure 15: against fewer steps of the large model",
        f"{bench.scale.pictures:,} pictures of each row; {bench.setting.scheduler}, guidance "
        f"{bench.setting.guidance:g}. Times are predicted from the profile of {bench.setting.words}.",
        "ms a picture",
        DISTANCE,
        tuple(lines),
        paper_shown="The paper finds stitching the better way between 50 and 100 steps (A.6); its figures were not to "
        "be had as numbers.",
        verdicts=tuple(verdicts),
    )


def _against(steps: int, stitched: dict[float, Floats], alone: dict[int, Floats], step_ms: dict[str, float]) -> Verdict:
    """Whether some share is better than the large model with the fewer steps that take as long, interpolated."""
    told: list[tuple[float, Verdict]] = []
    for share, found in stitched.items():
        equal = share * steps * step_ms[SMALL] / step_ms[LARGE] + (1 - share) * steps
        if not 0 < share < 1 or not alone or not min(alone) <= equal <= max(alone):
            continue
        counts = sorted(alone)
        at = np.stack([alone[n] for n in counts])
        rival = np.array([np.interp(equal, counts, column) for column in at.T])
        ratio = compared(np.divide, found, rival)
        agrees = True if ratio.high < 1 else False if ratio.low > 1 else None
        words = f"{share:.0%} by {SMALL} has {ratio.value:.2f} times the distance of {LARGE} alone in {equal:.1f} steps"
        told.append((ratio.value, Verdict(agrees, f"{words} ({ratio.low:.2f} to {ratio.high:.2f})")))
    if not told:
        return Verdict(None, f"{steps} steps: no row takes as long as a smaller number of steps that was drawn.")
    best = min(told, key=lambda each: each[0])[1]
    return Verdict(best.agrees, f"{steps} steps, the best share in equal time: {best.words}.")


def other_orders(bench: Bench) -> Figure:
    """Table 7: half of the steps each, in four orders."""
    named = orders(bench.setting.steps)
    study = Study("orders", bench.setting, PAIR, tuple(named.values()), bench.scale.pictures)
    found = bench.distances(study)
    usual = found[named["small to large"]]
    rows, verdicts = [], []
    for name, row in named.items():
        each, ratio = distance(found[row]), compared(np.divide, found[row], usual)
        interval = f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
        rows.append((name, interval, f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"))
        if row != named["small to large"]:
            agrees = True if ratio.low > 1 else False if ratio.high < 1 else None
            verdicts.append(Verdict(agrees, f"Small to large beats {name}: {ratio.value:.2f} times as far."))
    points = tuple(Point.of(i, distance(found[row]), name) for i, (name, row) in enumerate(named.items()))
    return Figure(
        "orders",
        "Table 7: orders",
        f"Half of the steps by {SMALL}, half by {LARGE}; {bench.setting.words}; {bench.scale.pictures:,} pictures of "
        "each row. Decreasing probability is one order, drawn once with a fixed seed: another draw may do better or "
        "worse.",
        "",
        DISTANCE,
        (Line("half of the steps each", points, joined=False),),
        paper_shown="The paper finds that small to large beats interleaving, decreasing probability and large to "
        "small.",
        verdicts=tuple(verdicts),
        table=(("order", DISTANCE, "of small to large"), *rows),
    )
