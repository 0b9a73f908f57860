"""Figures 19 and 20: DeepCache and ToMe together with stitching."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.benchmarks.report.figure import FREE, Figure, Line, Point, Verdict, free_start
from tests.benchmarks.report.measures import Floats, distance
from tests.benchmarks.text.bench import LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.fractions import DISTANCE, SHARE
from tests.benchmarks.text.rules import (
    FREE_START,
    UP_TO,
    as_near,
    below,
    gain,
    no_worse,
    part,
    percent,
    points,
    ratio,
    said,
    some,
)
from tests.benchmarks.text.scale import SOME
from tests.benchmarks.text.sheet import Pictures, drawn, with_sheet
from tests.benchmarks.text.timing import Seconds, calls, timed
from tests.benchmarks.text.timing import ratio as time_ratio
from tstitch_cli.savings.accelerations import parse
from tstitch_cli.training.captioned import SEEN

PLAIN = "plain"
SAVED = {
    PLAIN: (),
    "DeepCache": parse("deepcache"),
    "ToMe": parse("tome"),
    "DeepCache and ToMe": parse("deepcache,tome"),
}
PACKAGES = ("DeepCache", "tomesd")
HALF = 0.5
Key = tuple[str, float]
"""What saves, and the share of the first steps by the small model."""


def figures(bench: Bench) -> list[Figure]:
    """Distance by the share of the steps and by the time of a call, with and without each of them."""
    rows = by_share(SMALL, LARGE, SOME, bench.scale.steps)
    made: dict[Key, Callable[[], float]] = {}
    found: dict[str, dict[float, Drawn]] = {}
    columns: dict[str, Pictures] = {}
    for name, specs in SAVED.items():
        setting = bench.at(accelerate=specs)
        found[name] = bench.drawn(f"caches, {name}", (SMALL, LARGE), rows, SEEN, bench.scale.fewer, setting)
        family = bench.studio.load((SMALL, LARGE), setting)
        columns |= {f"{name}, {share:.0%} small": drawn(family, rows[share]) for share in (0.0, HALF)}
        timing = bench.studio.load((SMALL, LARGE), bench.timed_as(accelerate=specs))
        made |= {(name, share): call for share, call in calls(timing, rows, tuple(bench.captions[SEEN])).items()}
    seconds = timed(made, bench.scale.rounds)
    distances = {
        name: {share: each.distances(bench.references[SEEN]) for share, each in of_share.items()}
        for name, of_share in found.items()
    }
    shown = (
        f"{SMALL}, then {LARGE}; {bench.setting.words}; {bench.scale.fewer:,} pictures of each row, of combinations of "
        f"training. Calls are timed in the family's own setting ({bench.timing.words}), all rows interleaved."
    )
    first = Figure(
        "caches",
        "Figures 19 and 20: with DeepCache and ToMe",
        shown,
        SHARE,
        DISTANCE,
        tuple(
            Line(name, tuple(Point.of(share, distance(each)) for share, each in of_share.items()))
            for name, of_share in distances.items()
        ),
        paper_shown="The paper's figures, of Stable Diffusion on a GPU, show that both combine with stitching: a call "
        "is shorter than by either alone. They were not to be had as numbers.",
        verdicts=tuple(
            verdict
            for name in SAVED
            if name != PLAIN
            for verdict in (
                pays(name, seconds),
                combines(name, seconds),
                draws_alike(name, distances[name][0.0], distances[PLAIN][0.0]),
                shows_alike(name, found[name][0.0], found[PLAIN][0.0]),
                free_start(f"With {name}, distance", distances[name], UP_TO, FREE_START),
            )
        ),
        table=_table(found, distances, seconds),
    )
    second = Figure(
        "caches-time",
        "Figures 19 and 20: by the time of a call",
        shown,
        "seconds a call",
        DISTANCE,
        tuple(
            Line(
                name,
                tuple(
                    Point.of(float(np.mean(seconds[name, share])), distance(each), f"{share:.0%}")
                    for share, each in of_share.items()
                ),
            )
            for name, of_share in distances.items()
        ),
    )
    return [with_sheet(bench, first, columns), second]


def pays(name: str, seconds: Mapping[Key, Seconds]) -> Verdict:
    """Whether the large model alone is faster with what saves."""
    found = time_ratio(seconds[name, 0.0], seconds[PLAIN, 0.0])
    small = time_ratio(seconds[name, 1.0], seconds[PLAIN, 1.0])
    return Verdict(
        below(found),
        f"A call of {LARGE} alone is shorter with {name}: {said(found)} of the time; one of {SMALL} alone takes "
        f"{said(small)}.",
    )


def combines(name: str, seconds: Mapping[Key, Seconds]) -> Verdict:
    """Whether stitching makes a call shorter still where something else saves already."""
    found = time_ratio(seconds[name, HALF], seconds[name, 0.0])
    both = time_ratio(seconds[name, HALF], seconds[PLAIN, 0.0])
    return Verdict(
        below(found),
        f"With {name}, {HALF:.0%} of the steps by {SMALL} make it shorter still, to {said(found)} of that; together "
        f"that is {said(both)} of the time of {LARGE} alone without.",
    )


def draws_alike(name: str, saved: Floats, plain: Floats) -> Verdict:
    """Whether what saves costs no distance."""
    found = ratio(saved, plain)
    return Verdict(
        as_near(found),
        f"{LARGE} alone is as near with {name}: {said(found)} times as far (up to {FREE:.2f} is no loss).",
    )


def shows_alike(name: str, saved: Drawn, plain: Drawn) -> Verdict:
    """Whether what saves costs no alignment."""
    hits = plain.hits("alignment")
    found = gain(saved.hits("alignment"), hits)
    return Verdict(
        no_worse(found) if some(hits) else None,
        f"{LARGE} alone aligns as well with {name}: {points(found)}, from {percent(part(hits))}.",
    )


def _table(
    found: Mapping[str, Mapping[float, Drawn]],
    distances: Mapping[str, Mapping[float, Floats]],
    seconds: Mapping[Key, Seconds],
) -> tuple[tuple[str, ...], ...]:
    header = ("with", "steps by the small", DISTANCE, "alignment", "seconds a call", "of plain at that share")
    return (
        header,
        *(
            (
                name,
                f"{share:.0%}",
                said(distance(distances[name][share])),
                percent(part(each.hits("alignment"))),
                f"{np.mean(seconds[name, share]):.3f}",
                said(time_ratio(seconds[name, share], seconds[PLAIN, share])),
            )
            for name, of_share in found.items()
            for share, each in of_share.items()
        ),
    )
