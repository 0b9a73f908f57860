"""Whether prompts compose: combinations held out of training against those of it, for each denoiser alone."""

from __future__ import annotations

from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.text.bench import BASE, INK, LARGE, SMALL, Bench, Drawn
from tests.benchmarks.text.fractions import ALIGNED, KINDS, SHOWN
from tests.benchmarks.text.rules import gain_apart, no_worse, part, percent, points, some
from tests.benchmarks.text.sheet import HELD_OUT, drawn, with_sheet
from tstitch_cli.training.captioned import SEEN, UNSEEN

GENERAL = (SMALL, BASE, LARGE)


def figures(bench: Bench) -> list[Figure]:
    """Alignment on both, with that of real pictures beside it."""
    steps, pictures = bench.scale.steps, bench.scale.pictures
    alone = {name: ((name, steps),) for name in (*GENERAL, INK)}
    general = {name: alone[name] for name in GENERAL}
    found: dict[str, dict[str, Drawn]] = {}
    for kind in KINDS:
        found[kind] = bench.drawn(f"alone, {kind}", GENERAL, general, kind, pictures)
        found[kind] |= bench.drawn(f"stylised alone, {kind}", (SMALL, INK), {INK: alone[INK]}, kind, bench.scale.fewer)
    real = {
        kind: {"real pictures": bench.real(kind), "real pictures, by another's caption": bench.real(kind, another=True)}
        for kind in KINDS
    }
    family = bench.studio.load(GENERAL, bench.setting)
    columns = {name: drawn(family, row, HELD_OUT) for name, row in general.items()}
    columns[INK] = drawn(bench.studio.load((SMALL, INK), bench.setting), alone[INK], HELD_OUT)
    table = [
        (name, kind, *(percent(part(each.hits(what))) for what in SHOWN))
        for kind in KINDS
        for name, each in (found[kind] | real[kind]).items()
    ]
    places = {name: float(i) for i, name in enumerate(alone)}
    lines = [
        Line(
            KINDS[kind],
            tuple(
                # Points of both kinds are one above the other: one name is enough.
                Point.of(places[name], part(each.hits("alignment")), name if kind == SEEN else "")
                for name, each in found[kind].items()
            ),
            joined=False,
        )
        for kind in KINDS
    ]
    figure = Figure(
        "compose",
        "Combinations that training never shows",
        f"Each denoiser alone; {bench.setting.words}; {pictures:,} pictures of each row, of {INK} "
        f"{bench.scale.fewer:,}. One garment and colour in nine is held out of training. What a picture shows is told "
        "by the family's classifier, which knows all combinations; the table's last rows are what it says of real "
        "pictures.",
        "",
        ALIGNED,
        tuple(lines),
        verdicts=tuple(composes(name, found[SEEN][name], found[UNSEEN][name]) for name in alone),
        table=(("denoiser", "combinations", *SHOWN[:-1], "all together"), *table),
    )
    return [with_sheet(bench, figure, columns, HELD_OUT)]


def composes(name: str, seen: Drawn, unseen: Drawn) -> Verdict:
    """Whether held-out combinations are drawn as well as those of training."""
    found = gain_apart(unseen.hits("alignment"), seen.hits("alignment"))
    colour = gain_apart(unseen.hits("colour"), seen.hits("colour"))
    return Verdict(
        no_worse(found) if some(seen.hits("alignment")) else None,
        f"{name}: held-out combinations align as well as those of training: {percent(part(unseen.hits('alignment')))} "
        f"against {percent(part(seen.hits('alignment')))}, {points(found)}; the colour alone {points(colour)}.",
    )
