"""Distance by the share of the steps that the small model takes first: other steps, samplers, guidance, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.common import LARGE, SMALL
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Study
from tests.benchmarks.report.figure import PAPER_PAIR, Figure, Line, Point, Verdict, free_start, paper_pair
from tests.benchmarks.report.measures import Floats, distance
from tests.benchmarks.report.studies import FIFTHS, fraction, pair
from tstitch_cli.schema import Measured

SAMPLERS = ("ddpm", "ddim", "dpm++")
SHARE, DISTANCE = f"share of the first steps by {SMALL}", "Fréchet distance"
SCORES = ("fid", "precision", "recall", "is", "accuracy")


def figures(bench: Bench) -> list[Figure]:
    """Figures 8, 9, 12 and 18, and table 9."""
    return [steps(bench), samplers(bench), guidance(bench), scores(bench), early(bench)]


def steps(bench: Bench) -> Figure:
    """Figure 8."""
    studies = {f"{n} steps": _pair(bench, f"steps {n}", steps=n) for n in bench.scale.steps}
    shown = f"{SMALL}, then {LARGE}; {bench.setting.scheduler}, guidance {bench.setting.guidance:g}; "
    return _figure(bench, "steps", "Figure 8: numbers of steps", shown, studies, "100 steps")


def samplers(bench: Bench) -> Figure:
    """Figure 9."""
    count = bench.scale.sampler_steps
    studies = {name: _pair(bench, f"sampler {name}", scheduler=name, steps=count) for name in SAMPLERS}
    shown = f"{SMALL}, then {LARGE}; {count} steps, guidance {bench.setting.guidance:g}; "
    return _figure(bench, "samplers", "Figure 9: samplers", shown, studies, "ddim")


def guidance(bench: Bench) -> Figure:
    """Figure 12."""
    scales = (bench.setting.guidance, *bench.scale.guidances)
    studies = {f"guidance {g:g}": _pair(bench, f"guidance {g:g}", guidance=g) for g in scales}
    shown = f"{SMALL}, then {LARGE}; {bench.setting.steps} steps of {bench.setting.scheduler}; "
    return _figure(bench, "guidance", "Figure 12: guidance", shown, studies, "guidance 1.5")


def early(bench: Bench) -> Figure:
    """Figure 18."""
    young = bench.early()
    studies = {
        f"{SMALL} as shipped": _pair(bench, "early: as shipped"),
        f"{SMALL} trained {bench.scale.early:.0%} as long": pair(
            "early", bench.setting, bench.scale.pictures, small=young
        ),
    }
    shown = (
        f"A small model, then {LARGE}. The paper takes checkpoints of one training. Of the training of {SMALL} none is "
        f"kept, so here the second line is a training of its own: {bench.scale.early:.0%} of the batches on "
        f"{bench.scale.early_pictures:,} pictures, its rate falling to nothing within them. It is better than a "
        f"checkpoint at {bench.scale.early:.0%} would be. {bench.setting.words}; "
    )
    return _figure(bench, "early", "Figure 18: a small model that was trained for less", shown, studies, None)


def scores(bench: Bench) -> Figure:
    """Table 9: precision and recall, and what else the engine measures."""
    study = _pair(bench, "precision and recall")
    measured = list(bench.studio.evaluated(study, SCORES).measured.values())
    shares = [tenths / 10 for tenths in FIFTHS]
    header = (f"steps by {SMALL}", "Fréchet distance", "precision", "recall", "Inception score", "class accuracy")
    rows = [
        (f"{share:.0%}", *(_told(row[name]) for name in SCORES)) for share, row in zip(shares, measured, strict=True)
    ]

    def line(name: str) -> Line:
        points = zip(shares, measured, strict=True)
        return Line(name, tuple(Point(x, row[name].value, row[name].low, row[name].high) for x, row in points))

    early_rows = [row for share, row in zip(shares, measured, strict=True) if 0 < share <= 0.4]
    verdicts = tuple(
        Verdict(
            _no_worse(measured[0][name], [row[name] for row in early_rows]),
            f"Up to 40 % of the steps the {name} is at least {min(row[name].value for row in early_rows):.3f}, "
            f"{LARGE} alone has {_told(measured[0][name])}.",
        )
        for name in ("precision", "recall")
    )
    return Figure(
        "scores",
        "Table 9: precision and recall",
        f"{SMALL}, then {LARGE}; {bench.setting.words}; {study.pictures:,} pictures of each row.",
        SHARE,
        "precision, recall",
        (line("precision"), line("recall")),
        paper_shown="The paper's own table was not to be had as numbers.",
        verdicts=verdicts,
        table=(header, *rows),
    )


def _no_worse(large: Measured, others: Sequence[Measured]) -> bool | None:
    """True where all are at least the large model's, False where one's interval lies below its; else None."""
    if all(each.value >= large.value for each in others):
        return True
    return False if any(each.high < large.low for each in others) else None


def _pair(bench: Bench, name: str, **changes: int | float | str) -> Study:
    return pair(name, bench.at(**changes), bench.scale.pictures)


def _figure(
    bench: Bench, name: str, heading: str, shown: str, studies: dict[str, Study], like_paper: str | None
) -> Figure:
    lines, verdicts = [], []
    for label, study in studies.items():
        found = by_share(study, bench.distances(study))
        lines.append(Line(label, tuple(Point.of(share, distance(each)) for share, each in found.items())))
        verdicts.append(free_start(label, found))
    alike = f" The line to compare it with is that of {like_paper}." if like_paper in studies else ""
    return Figure(
        name,
        heading,
        f"{shown}{bench.scale.pictures:,} pictures of each row.",
        SHARE,
        DISTANCE,
        tuple(lines),
        (paper_pair(),),
        PAPER_PAIR + alike,
        tuple(verdicts),
    )


def by_share(study: Study, found: dict[tuple[tuple[str, int], ...], Floats]) -> dict[float, Floats]:
    """The distances of a pair's rows by the share of the steps that the smaller takes."""
    small, large = study.denoisers
    return {tenths / 10: found[fraction(small, large, tenths, study.setting.steps)] for tenths in FIFTHS}


def _told(found: Measured) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
