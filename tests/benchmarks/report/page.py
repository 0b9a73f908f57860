"""The report's page in Markdown, from its figures and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.common import markdown
from tests.benchmarks.report.figure import FREE, FREE_START, Figure, Line, Verdict, tally

SIGNS = {True: "yes", False: "no", None: "undecided"}
INTRODUCTION = """# The paper in miniature

Every figure of T-Stitch (arXiv 2402.14167) that can be drawn with the bundled family, and whether tstitch chooses
rightly with it. The family are three class-conditional diffusion transformers of Fashion-MNIST, so numbers cannot be
the paper's; what can be compared is their course. This page is made by the command at its end: the numbers, the
pictures, and what is said to hold and what not, by rules that stand in `tests/benchmarks/report`.

The Fréchet distance is that of `tstitch evaluate`: from the test pictures of Fashion-MNIST, in the features of the
family's classifier; lower is better. Intervals are 95 % (jackknife over ten subsets). Rows of one figure draw the same
pictures from the same noise, so ratios of rows are surer than each of them. "Costs nothing" is a distance of at most
{free:.2f} times the large model's; the paper calls 9.03 free where the large model has 9.20, and 10.06 not."""


def page(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    """The whole page; `facts` are the machine's and the run's, see `__main__`."""
    verdicts = [verdict for figure in figures for verdict in figure.verdicts]
    overview = markdown(
        ("", "holds", "does not", "undecided"),
        [(f"[{figure.heading}](#{anchor(figure.heading)})", *map(str, _counts(figure.verdicts))) for figure in figures],
    )
    claim = [verdict for verdict in verdicts if verdict.about == FREE_START]
    looked_for = f"The paper's claim to look for, that {FREE_START}: in {len(claim)} lines, {tally(claim)}."
    sections = [_section(figure) for figure in figures]
    parts = [
        INTRODUCTION.format(free=FREE),
        f"Of {len(verdicts)} statements, {tally(verdicts)}. {looked_for}",
        overview,
    ]
    return "\n\n".join([*parts, *sections, _made(facts)]) + "\n"


def anchor(heading: str) -> str:
    """Where GitHub puts a heading."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _section(figure: Figure) -> str:
    parts = [f"## {figure.heading}", figure.shown]
    parts += [f"![{figure.heading}]({name})" for name in pictures(figure)]
    if figure.paper_shown:
        parts.append(figure.paper_shown)
    if figure.verdicts:
        said = [(SIGNS[verdict.agrees], verdict.words) for verdict in figure.verdicts]
        parts.append(markdown(("holds", ""), said).replace("---:", ":---"))
    numbers = markdown(figure.table[0], figure.table[1:]) if figure.table else _points(figure.lines)
    if numbers:
        parts.append(f"<details><summary>numbers</summary>\n\n{numbers}\n\n</details>")
    return "\n\n".join(parts)


def pictures(figure: Figure) -> tuple[str, ...]:
    """The files of a figure's pictures."""
    return figure.pictures or ((f"{figure.name}.png",) if figure.lines else ())


def _points(lines: Sequence[Line]) -> str:
    rows = [
        (line.label, point.label or f"{point.x:.4g}", f"{point.value:.3f}", f"{point.low:.3f} to {point.high:.3f}")
        for line in lines
        for point in line.points
    ]
    return markdown(("line", "at", "value", "95 % interval"), rows) if rows else ""


def _counts(verdicts: Sequence[Verdict]) -> list[int]:
    return [sum(verdict.agrees is each for verdict in verdicts) for each in (True, False, None)]


def _made(facts: dict[str, Any]) -> str:
    machine, spent = facts["machine"]["fingerprint"], facts["seconds"]
    times = markdown(
        ("part", "seconds of processor time"), [(name, f"{seconds:.0f}") for name, seconds in spent.items() if name]
    )
    minutes, count = sum(spent.values()) / 60, machine["threads"]
    threads = f"{count} thread{'s' * (count > 1)}"
    return f"""## How it was made

    {facts["command"]}

builds all of it again; here that took {minutes:.0f} minutes of processor time, in {threads}. Cut off, the same command
goes on where it was; `--quick` takes fewer pictures and steps. Fashion-MNIST is needed: Debian's package
`dataset-fashion-mnist`, or `--data FOLDER`. `report.json` holds all numbers.

Made on {machine["device"]}, torch {machine["torch"]}, diffusers {machine["diffusers"]}; {facts["setting"]}. Pictures
are of seed {facts["seed"]}; profiles and predictions of seed 0.

<details><summary>time spent</summary>

{times}

</details>"""
