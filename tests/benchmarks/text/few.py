"""Tables 10 and 11: latent consistency models, which draw in 2 and 4 steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.benchmarks.report.figure import Figure, Line, Point, Verdict, free_start
from tests.benchmarks.report.measures import distance
from tests.benchmarks.text.bench import LARGE, SMALL, Bench, by_share
from tests.benchmarks.text.fractions import DISTANCE
from tests.benchmarks.text.rules import below, kept_up, part, percent, said
from tests.benchmarks.text.sheet import Pictures, drawn, with_sheet
from tests.benchmarks.text.timing import Seconds, calls, timed
from tests.benchmarks.text.timing import ratio as time_ratio
from tstitch_cli.schema import Setting
from tstitch_cli.training.captioned import SEEN

QUICK_SMALL, QUICK_LARGE = f"{SMALL}-lcm", f"{LARGE}-lcm"
PAIR = (QUICK_SMALL, QUICK_LARGE)
STEPS = (4, 2)
HALF = 0.5


def figures(bench: Bench) -> list[Figure]:
    """Both tables, each step a fraction."""
    lines, verdicts, table = [], [], []
    columns: dict[str, Pictures] = {}
    settings = {steps: bench.at(steps=steps, scheduler="lcm") for steps in STEPS}
    rows = {steps: by_share(*PAIR, tuple(n / steps for n in range(steps + 1)), steps) for steps in STEPS}
    seconds = _seconds(bench, settings, rows)
    for steps, setting in settings.items():
        found = bench.drawn(f"{steps} steps", PAIR, rows[steps], SEEN, bench.scale.few, setting)
        distances = {share: each.distances(bench.references[SEEN]) for share, each in found.items()}
        hits = {share: each.hits("alignment") for share, each in found.items()}
        name, took = f"{steps} steps", {share: seconds[steps, share] for share in found}
        lines.append(Line(name, tuple(Point.of(share, distance(each)) for share, each in distances.items())))
        verdicts += [
            free_start(f"{name}, distance", distances, HALF, ""),
            kept_up(f"{name}, alignment", hits, HALF, ""),
            faster(name, took),
        ]
        family = bench.studio.load(PAIR, setting)
        columns |= {f"{steps} steps, {share:.0%} small": drawn(family, row) for share, row in rows[steps].items()}
        table += [
            (
                str(steps),
                f"{share:.0%}",
                said(distance(distances[share])),
                percent(part(hits[share])),
                f"{np.mean(took[share]):.3f}",
                said(time_ratio(took[share], took[0.0])),
            )
            for share in found
        ]
    figure = Figure(
        "few",
        "Tables 10 and 11: 2 and 4 steps",
        f"{QUICK_SMALL}, then {QUICK_LARGE}; scheduler lcm, guidance {bench.setting.guidance:g}; "
        f"{bench.scale.few:,} pictures of each row, of combinations of training. Calls are timed in "
        f"{bench.timing.dtype}, batch of {bench.timing.batch_size}, all rows interleaved.",
        f"share of the first steps by {QUICK_SMALL}",
        DISTANCE,
        tuple(lines),
        paper_shown="The paper's tables are of LCM-SDXL and LCM-SSD-1B; of 4 steps the times were to be had: 1029, "
        "968, 921, 870 and 823 ms at 0, 25, 50, 75 and 100 % by the small. That half of the steps cost nothing is our "
        "question, not the paper's claim.",
        verdicts=tuple(verdicts),
        table=(("steps", "by the small", DISTANCE, "alignment", "seconds a call", "of the large's"), *table),
    )
    return [with_sheet(bench, figure, columns)]


def _seconds(
    bench: Bench, settings: dict[int, Setting], rows: dict[int, dict[float, tuple[tuple[str, int], ...]]]
) -> dict[tuple[int, float], Seconds]:
    made: dict[tuple[int, float], Callable[[], float]] = {}
    for steps, setting in settings.items():
        timing = bench.timed_as(steps=steps, scheduler=setting.scheduler)
        of_share = calls(bench.studio.load(PAIR, timing), rows[steps], tuple(bench.captions[SEEN]))
        made |= {(steps, share): call for share, call in of_share.items()}
    return timed(made, bench.scale.rounds)


def faster(name: str, seconds: dict[float, Seconds]) -> Verdict:
    """Whether half of the steps by the small model make a call shorter."""
    found, least = time_ratio(seconds[HALF], seconds[0.0]), time_ratio(seconds[1.0], seconds[0.0])
    return Verdict(
        below(found),
        f"{name}: half of them by {QUICK_SMALL} make a call shorter, to {said(found)} of the time; all of them, to "
        f"{said(least)}.",
    )
