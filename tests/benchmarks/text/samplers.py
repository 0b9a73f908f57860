"""How few steps each sampler takes, and what a start by the small denoiser costs there."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.measures import distance
from tests.benchmarks.text.bench import LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.fractions import ALIGNED, DISTANCE
from tests.benchmarks.text.rules import gain, kept_up, no_worse, part, percent, points, said
from tests.benchmarks.text.sheet import drawn, with_sheet
from tstitch_cli.training.captioned import SEEN

SAMPLERS = ("pndm", "ddim", "dpm++")
PARTS = (0.2, 0.4, 1.0)
"""Of the family's steps."""
SHARES = (0.0, 0.3)


def figures(bench: Bench) -> list[Figure]:
    """Alignment and distance by the number of steps, of the large denoiser alone and after a start by the small."""
    counts = [round(each * bench.scale.steps) for each in PARTS]
    settings = {(sampler, n): bench.at(scheduler=sampler, steps=n) for sampler in SAMPLERS for n in counts}
    rows = {n: by_share(SMALL, LARGE, SHARES, n) for n in counts}
    found = {
        (sampler, n): bench.drawn(
            f"{sampler}, {n} steps", (SMALL, LARGE), rows[n], SEEN, bench.scale.fewer, settings[sampler, n]
        )
        for sampler, n in settings
    }
    columns = {
        f"{sampler}, {n} steps": drawn(bench.studio.load((SMALL, LARGE), setting), rows[n][0.0])
        for (sampler, n), setting in settings.items()
    }
    lines = [
        Line(sampler, tuple(Point.of(n, part(found[sampler, n][0.0].hits("alignment"))) for n in counts))
        for sampler in SAMPLERS
    ]
    usual = found[bench.setting.scheduler, counts[-1]][0.0]
    figure = Figure(
        "samplers",
        "How few steps each sampler takes",
        f"{LARGE} alone, and after {SMALL} for {SHARES[-1]:.0%} of the steps; {bench.setting.words} but for the "
        f"sampler and the number of its steps; {bench.scale.fewer:,} pictures of each row, of combinations of "
        "training. Where the steps are not enough for the large one, what a start by the small one costs stands in "
        "the table alone.",
        "steps",
        ALIGNED,
        tuple(lines),
        verdicts=tuple(
            verdict
            for (sampler, n), each in found.items()
            for verdict in judged(f"{n} steps of {sampler}", each, usual)
        ),
        table=(
            ("sampler", "steps", "steps by the small", DISTANCE, "alignment"),
            *(
                (
                    sampler,
                    str(n),
                    f"{share:.0%}",
                    said(distance(one.distances(bench.references[SEEN]))),
                    percent(part(one.hits("alignment"))),
                )
                for (sampler, n), each in found.items()
                for share, one in each.items()
            ),
        ),
    )
    return [with_sheet(bench, figure, columns)]


def judged(name: str, rows: Mapping[float, Drawn], usual: Drawn) -> list[Verdict]:
    """Whether the steps are enough; of those that surely are not, nothing is said of a start by the small one."""
    found = [] if rows[0.0] is usual else [enough(name, rows[0.0], usual)]
    if all(verdict.agrees is not False for verdict in found):
        found.append(kept_up(f"{name}, alignment", {share: each.hits("alignment") for share, each in rows.items()}))
    return found


def enough(name: str, fewer: Drawn, usual: Drawn) -> Verdict:
    """Whether pictures align as well as those of the family's own sampler and steps."""
    found = gain(fewer.hits("alignment"), usual.hits("alignment"))
    return Verdict(
        no_worse(found),
        f"{name} are enough: {percent(part(fewer.hits('alignment')))} align, {points(found)} against the family's own "
        "setting.",
    )
