"""The stylised model: whether a general one in the first steps improves its alignment, and whether the style stays."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.measures import distance
from tests.benchmarks.text.bench import INK, INKED, LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.fractions import ALIGNED, SHOWN
from tests.benchmarks.text.rules import above, below, gain, no_worse, part, percent, points, said, some
from tests.benchmarks.text.sheet import drawn, with_sheet
from tstitch_cli.training.captioned import SEEN

AT = 0.4
"""The share of the steps that the paper gives to the general model."""
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
ON_SHEET = (0.1, 0.2, 0.4, 0.6)
SHARE = "share of the first steps by a general model"


def figures(bench: Bench) -> list[Figure]:
    """Alignment and style of the stylised model behind a small and behind a large general one."""
    pictures, steps = bench.scale.fewer, bench.scale.steps
    small = by_share(SMALL, INK, SHARES[:-1], steps)
    large = by_share(LARGE, INK, SHARES[1:-1], steps)
    alone = {name: ((name, steps),) for name in (SMALL, LARGE)}
    found = bench.drawn("stylised, small first", (SMALL, INK), small, SEEN, pictures)
    behind = bench.drawn("stylised, large first", (LARGE, INK), large, SEEN, pictures)
    # The very rows of table 2, in the pipeline of the general model.
    general = bench.drawn("general alone", (SMALL, LARGE), alone, SEEN, pictures)
    lines = {SMALL: found | {1.0: general[SMALL]}, LARGE: {0.0: found[0.0]} | behind | {1.0: general[LARGE]}}
    columns = {f"{INK} alone": drawn(bench.studio.load((SMALL, INK), bench.setting), small[0.0])}
    for name, rows in ((SMALL, small), (LARGE, large)):
        family = bench.studio.load((name, INK), bench.setting)
        columns |= {f"{share:.0%} {name}": drawn(family, row) for share, row in rows.items() if share in ON_SHEET}
    shown = (
        f"{SMALL} or {LARGE}, then {INK}; {bench.setting.words}; {pictures:,} pictures of each row, of combinations of "
        "training."
    )
    return [
        with_sheet(bench, _alignment(bench, shown, lines), columns),
        _style(bench, shown, lines),
    ]


def _alignment(bench: Bench, shown: str, lines: Mapping[str, Mapping[float, Drawn]]) -> Figure:
    ink, best = lines[SMALL][0.0].hits("alignment"), lines[LARGE][1.0].hits("alignment")
    real = {style: part(bench.real(SEEN, inked=style == "ink drawings").hits("alignment")) for style in STYLES}
    loss = gain(ink, best)
    verdicts = [
        Verdict(
            below(loss, 0.0),
            f"{INK} alone aligns worse than {LARGE} alone: {percent(part(ink))} against {percent(part(best))}, "
            f"{points(loss)}.",
        )
    ]
    verdicts += [improves(name, rows) for name, rows in lines.items()]
    return Figure(
        "stylised",
        "The stylised model's alignment",
        f"{shown} Of real photographs the judge finds {percent(real['photographs'])} to show all that their captions "
        f"tell, of real ink drawings {percent(real['ink drawings'])}.",
        SHARE,
        ALIGNED,
        _lines(lines, "alignment"),
        paper_shown="The paper shows with stylised Stable Diffusion models (Inkpunk, Ghibli and others) that a general "
        "small model in the first steps, up to 40 %, draws what the prompt says where the stylised model alone does "
        "not, and that the style stays. It gives pictures, not numbers.",
        verdicts=tuple(verdicts),
        table=_table(bench, lines),
    )


STYLES = ("photographs", "ink drawings")


def _style(bench: Bench, shown: str, lines: Mapping[str, Mapping[float, Drawn]]) -> Figure:
    return Figure(
        "style",
        "Whether the style stays",
        f"{shown} The style is told by the family's classifier. It is of lines, which the last steps draw, and of "
        "grounds: paper in a pale tint of the colour that was asked for, which the first steps decide.",
        SHARE,
        "share of pictures in ink",
        _lines(lines, "style"),
        verdicts=tuple(stays(name, rows) for name, rows in lines.items()),
    )


def improves(name: str, rows: Mapping[float, Drawn]) -> Verdict:
    """Whether AT of the steps by the general model `name` improve the alignment of the stylised one."""
    alone = rows[0.0].hits("alignment")
    gains = {share: gain(each.hits("alignment"), alone) for share, each in rows.items() if 0 < share < 1}
    told = ", ".join(f"{share:.0%} {points(each)}" for share, each in gains.items() if share != AT)
    return Verdict(
        above(gains[AT]),
        f"{name} in the first {AT:.0%} of the steps improves the alignment of {INK}: by {points(gains[AT])}; {told}.",
    )


def stays(name: str, rows: Mapping[float, Drawn]) -> Verdict:
    """Whether the style stays behind AT of the steps by the general model `name`, and up to which share it does."""
    alone = rows[0.0].hits("style")
    gains = {share: gain(each.hits("style"), alone) for share, each in rows.items() if 0 < share < 1}
    kept = 0.0
    for share, found in gains.items():
        if no_worse(found) is not True:
            break
        kept = share
    return Verdict(
        no_worse(gains[AT]) if some(alone) else None,
        f"The style stays behind {AT:.0%} of the steps by {name}: {percent(part(rows[AT].hits('style')))} of the "
        f"pictures are in ink, of {INK} alone {percent(part(alone))} ({points(gains[AT])}). It surely stays "
        f"{f'up to {kept:.0%} of the steps' if kept else 'at no share that was drawn'}.",
    )


def _lines(lines: Mapping[str, Mapping[float, Drawn]], metric: str) -> tuple[Line, ...]:
    return tuple(
        Line(f"{name}, then {INK}", tuple(Point.of(share, part(each.hits(metric))) for share, each in rows.items()))
        for name, rows in lines.items()
    )


def _table(bench: Bench, lines: Mapping[str, Mapping[float, Drawn]]) -> tuple[tuple[str, ...], ...]:
    header = ("first", "share of the steps", *SHOWN[:-1], "all together", "in ink")
    return (
        (*header, "distance from real ink", "from real photographs"),
        *(
            (
                name,
                f"{share:.0%}",
                *(percent(part(each.hits(what))) for what in SHOWN),
                percent(part(each.hits("style"))),
                said(distance(each.distances(bench.references[INKED]))),
                said(distance(each.distances(bench.references[SEEN]))),
            )
            for name, rows in lines.items()
            for share, each in rows.items()
        ),
    )
