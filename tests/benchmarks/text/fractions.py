"""Table 2: a small model for a share of the first steps, then the large one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.benchmarks.report.figure import FREE, Figure, Line, Point, Verdict, free_start, surely
from tests.benchmarks.report.measures import Floats, compared, distance
from tests.benchmarks.text.bench import LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.rules import FREE_START, UP_TO, all_of, kept_up, part, percent, ratio, said
from tests.benchmarks.text.scale import TENTHS
from tests.benchmarks.text.sheet import drawn, with_sheet
from tests.benchmarks.text.timing import Seconds, calls, timed
from tests.benchmarks.text.timing import ratio as time_ratio
from tstitch_cli.quality.statistics import mean
from tstitch_cli.training.captioned import SEEN, UNSEEN

SHARE, DISTANCE = f"share of the first steps by {SMALL}", "Fréchet distance"
ALIGNED = "share of pictures that show what was asked for"
SCORE_MARGIN = 0.02
"""Of a CLIP score, which is no share: what is lost by less is as good as nothing."""
SHOWN = ("garment", "colour", "background", "count", "alignment")
"""What the judge looks for; the last is all of them together."""
KINDS = {SEEN: "combinations of training", UNSEEN: "held-out combinations"}


def figures(bench: Bench) -> list[Figure]:
    """The distance and the alignment, by the share of the steps."""
    rows = by_share(SMALL, LARGE, TENTHS, bench.scale.steps)
    found = {
        kind: bench.drawn(f"fractions, {kind}", (SMALL, LARGE), rows, kind, bench.scale.pictures) for kind in KINDS
    }
    distances = {
        kind: {share: each.distances(bench.references[kind]) for share, each in found[kind].items()} for kind in KINDS
    }
    family = bench.studio.load((SMALL, LARGE), bench.timing)
    seconds = timed(calls(family, rows, tuple(bench.captions[SEEN])), bench.scale.rounds)
    pictured = {f"{share:.0%} small": row for share, row in rows.items() if share in (0.0, 0.2, 0.3, 0.5, 0.7, 1.0)}
    family = bench.studio.load((SMALL, LARGE), bench.setting)
    columns = {label: drawn(family, row) for label, row in pictured.items()}
    shown = (
        f"{SMALL}, then {LARGE}; {bench.setting.words}; {bench.scale.pictures:,} pictures of each row, of "
        f"{KINDS[SEEN]} (seen) and of {KINDS[UNSEEN]} (unseen) each, held against real pictures of the like."
    )
    return [_distances(bench, shown, found, distances, seconds), with_sheet(bench, _alignment(shown, found), columns)]


def _distances(
    bench: Bench,
    shown: str,
    found: Mapping[str, Mapping[float, Drawn]],
    distances: Mapping[str, Mapping[float, Floats]],
    seconds: Mapping[float, Seconds],
) -> Figure:
    scored = found[SEEN][0.0].described.clip.shape[1] > 0
    header = ["steps by the small", "seconds a call", "of the large's"]
    header += [f"{what}, {kind}" for kind in KINDS for what in ("distance", *["CLIP score"] * scored)]
    table = []
    for share in TENTHS:
        cells = [f"{share:.0%}", f"{np.mean(seconds[share]):.3f}", said(time_ratio(seconds[share], seconds[0.0]))]
        for kind in KINDS:
            cells.append(said(distance(distances[kind][share])))
            if scored:
                cells.append(said(mean(found[kind][share].described.clip[:, 0])))
        table.append(tuple(cells))
    lines = tuple(
        Line(KINDS[kind], tuple(Point.of(share, distance(each)) for share, each in distances[kind].items()))
        for kind in KINDS
    )
    return Figure(
        "fractions",
        "Table 2: fractions of the steps",
        f"{shown} Calls are timed in the family's own setting ({bench.timing.words}), all rows interleaved.",
        SHARE,
        DISTANCE,
        lines,
        paper_shown="The paper's table (Stable Diffusion 1.4 and BK-SDM Tiny, PNDM, 50 steps, guidance 7.5) was not "
        "to be had as numbers; the paper says of it that the first 30 % of the steps cost nothing: a better FID, "
        "Inception and CLIP score about equal.",
        verdicts=(
            *(free_start(f"Distance, {KINDS[kind]}", distances[kind], UP_TO, FREE_START) for kind in KINDS),
            *(sizes(f"Distance, {KINDS[kind]}", distances[kind]) for kind in KINDS),
            *(best_share(f"Distance, {KINDS[kind]}", distances[kind]) for kind in KINDS),
        ),
        table=(tuple(header), *table),
    )


def _alignment(shown: str, found: Mapping[str, Mapping[float, Drawn]]) -> Figure:
    lines, verdicts, table = [], [], []
    for kind, rows in found.items():
        hits = {share: each.hits("alignment") for share, each in rows.items()}
        lines.append(Line(KINDS[kind], tuple(Point.of(share, part(each)) for share, each in hits.items())))
        verdicts.append(kept_up(f"Alignment, {KINDS[kind]}", hits))
        if rows[0.0].described.clip.shape[1]:
            verdicts.append(scores(f"CLIP score, {KINDS[kind]}", rows))
        for share, each in rows.items():
            table.append((f"{share:.0%}", kind, *(percent(part(each.hits(what))) for what in SHOWN)))
    return Figure(
        "alignment",
        "Table 2: alignment with the prompts",
        f"{shown} What a picture shows is told by the family's classifier.",
        SHARE,
        ALIGNED,
        tuple(lines),
        verdicts=tuple(verdicts),
        table=(("steps by the small", "combinations", *SHOWN[:-1], "all together"), *table),
    )


def sizes(name: str, distances: Mapping[float, Floats]) -> Verdict:
    """Whether there is something to lose: the small model alone draws worse than the large one alone."""
    found = ratio(distances[1.0], distances[0.0])
    return Verdict(
        surely(found.low > FREE, found.high <= FREE),
        f"{name}: there is something to lose, {SMALL} alone is {said(found)} times as far as {LARGE} alone.",
    )


def scores(name: str, rows: Mapping[float, Drawn]) -> Verdict:
    """Whether the CLIP score is kept up, as the paper finds it about equal: picture by picture, as a share of it."""
    alone = rows[0.0].described.clip[:, 0].double()
    changes = {
        share: mean((each.described.clip[:, 0].double() - alone) / alone.mean())
        for share, each in rows.items()
        if 0 < share <= UP_TO + 1e-9
    }
    worst = min(changes, key=lambda share: changes[share].value)
    return Verdict(
        all_of([surely(each.low > -SCORE_MARGIN, each.high <= -SCORE_MARGIN) for each in changes.values()]),
        f"{name}: up to {UP_TO:.0%} of the steps it changes by {percent(changes[worst])} of itself at the worst "
        f"({worst:.0%} of the steps), from {said(mean(alone))}.",
        FREE_START,
    )


def best_share(name: str, distances: Mapping[float, Floats]) -> Verdict:
    """Whether stitching beats the large model alone somewhere in the first steps, as the paper finds."""
    early = [share for share in distances if 0 < share <= UP_TO + 1e-9]
    ratios = {share: compared(np.divide, distances[share], distances[0.0]) for share in early}
    best = min(ratios, key=lambda share: ratios[share].value)
    return Verdict(
        surely(ratios[best].high < 1.0, all(each.low >= 1.0 for each in ratios.values())),
        f"{name}: some row up to {UP_TO:.0%} of the steps is nearer than {LARGE} alone; the nearest, {best:.0%}, is "
        f"{said(ratios[best])} times as far (picked on the pictures that it is measured by, which flatters it).",
    )
