"""How much guidance each sampler stands: Stable Diffusion's own is far for pictures whose every colour is told."""

from __future__ import annotations

from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.measures import distance
from tests.benchmarks.text.bench import LARGE, SMALL, Bench, Drawn
from tests.benchmarks.text.fractions import ALIGNED, SHOWN
from tests.benchmarks.text.rules import gain, no_worse, part, percent, points, said
from tests.benchmarks.text.sheet import drawn, with_sheet
from tstitch_cli.training.captioned import SEEN

STABLE_DIFFUSION = 7.5
SAMPLERS = ("pndm", "ddim", "dpm++")
BETWEEN = (2.0, 5.0)


def figures(bench: Bench) -> list[Figure]:
    """Alignment and distance of the large denoiser alone, by the guidance."""
    pictures, row = bench.scale.fewer, ((LARGE, bench.scale.steps),)
    ends = (bench.setting.guidance, STABLE_DIFFUSION)
    settings = {
        (sampler, guidance): bench.at(scheduler=sampler, guidance=guidance)
        for sampler in SAMPLERS
        # The family's sampler at every guidance, the others at the ends that are compared.
        for guidance in (sorted({*ends, *BETWEEN}) if sampler == bench.setting.scheduler else ends)
    }
    found = {
        key: bench.drawn(f"guidance, {key[0]} {key[1]:g}", (SMALL, LARGE), {LARGE: row}, SEEN, pictures, setting)[LARGE]
        for key, setting in settings.items()
    }
    columns = {
        f"{sampler} {guidance:g}": drawn(bench.studio.load((SMALL, LARGE), setting), row)
        for (sampler, guidance), setting in settings.items()
    }
    table = [
        (
            sampler,
            f"{guidance:g}",
            said(distance(each.distances(bench.references[SEEN]))),
            *(percent(part(each.hits(what))) for what in SHOWN),
        )
        for (sampler, guidance), each in found.items()
    ]
    lines = [
        Line(
            sampler,
            tuple(
                Point.of(guidance, part(each.hits("alignment")))
                for (other, guidance), each in found.items()
                if other == sampler
            ),
        )
        for sampler in SAMPLERS
    ]
    figure = Figure(
        "guidance",
        "Why the family's guidance is not Stable Diffusion's",
        f"{LARGE} alone; {bench.setting.words} but for the sampler and the guidance; {pictures:,} pictures of each "
        "row, of combinations of training.",
        "guidance",
        ALIGNED,
        tuple(lines),
        verdicts=tuple(
            stands(sampler, found[sampler, bench.setting.guidance], found[sampler, STABLE_DIFFUSION])
            for sampler in SAMPLERS
        ),
        table=(("sampler", "guidance", "distance", *SHOWN[:-1], "all together"), *table),
    )
    return [with_sheet(bench, figure, columns)]


def stands(sampler: str, usual: Drawn, far: Drawn) -> Verdict:
    """Whether pictures of Stable Diffusion's guidance align as well as those of the family's."""
    found = gain(far.hits("alignment"), usual.hits("alignment"))
    return Verdict(
        no_worse(found),
        f"{sampler} stands a guidance of {STABLE_DIFFUSION:g}: {percent(part(far.hits('alignment')))} align, "
        f"{points(found)} against the family's own guidance.",
    )
