"""Whether pictures drawn in bfloat16, in which the report is drawn, are as good as those drawn in float32."""

from __future__ import annotations

from tests.benchmarks.common import LARGE, SMALL
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Study
from tests.benchmarks.report.figure import Figure, Verdict
from tests.benchmarks.report.fractions import DISTANCE
from tests.benchmarks.report.measures import distance


def figures(bench: Bench) -> list[Figure]:
    """One row in both; their noise differs, for a generator draws other numbers in another precision."""
    rows = (((LARGE, bench.setting.steps),),)
    found = {}
    for dtype in ("float32", "bfloat16"):
        study = Study(f"in {dtype}", bench.at(dtype=dtype), (SMALL, LARGE), rows, bench.scale.pictures)
        found[dtype] = distance(bench.distances(study)[rows[0]])
    full, half = found.values()
    apart = abs(full.value - half.value)
    # Half widths of independent intervals add like standard deviations.
    unsure = ((full.high - full.low) ** 2 + (half.high - half.low) ** 2) ** 0.5 / 2
    return [
        Figure(
            "dtype",
            "bfloat16 and float32",
            f"{LARGE} alone, {bench.setting.steps} steps of {bench.setting.scheduler}, {bench.scale.pictures:,} "
            "pictures. Everything else in this report is drawn in bfloat16.",
            paper_shown="",
            verdicts=(
                Verdict(
                    apart <= unsure,
                    f"The distances differ by {apart:.3f}; differences up to {unsure:.3f} are within the interval.",
                ),
            ),
            table=(
                ("precision", DISTANCE),
                *((name, f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})") for name, each in found.items()),
            ),
        )
    ]
