"""The report's page in Markdown, from its figures and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.common import markdown
from tests.benchmarks.report.figure import Figure, Line, Verdict, tally

SIGNS = {True: "yes", False: "no", None: "undecided"}


@dataclass(frozen=True)
class About:
    """What a report says of itself."""

    introduction: str
    """The heading of the page, and what all of it shows."""
    seeds: str
    """What was drawn from which seed; `{seed}` is that of the pictures."""


def page(figures: Sequence[Figure], facts: dict[str, Any], about: About) -> str:
    """The whole page; `facts` are the machine's and the run's, see `building`."""
    verdicts = [verdict for figure in figures for verdict in figure.verdicts]
    overview = markdown(
        ("", "holds", "does not", "undecided"),
        [
            (f"[{figure.heading}](#{anchor(figure.heading)})", *map(str, _counts(figure.verdicts)))
            for figure in figures
            if figure.verdicts
        ],
    )
    counted = [f"Of {len(verdicts)} statements, {tally(verdicts)}."]
    for claim in dict.fromkeys(verdict.about for verdict in verdicts if verdict.about):
        held = [verdict for verdict in verdicts if verdict.about == claim]
        counted.append(f"The paper's claim to look for, that {claim}: in {len(held)} lines, {tally(held)}.")
    sections = [_section(figure) for figure in figures]
    parts = [about.introduction, " ".join(counted), overview]
    return "\n\n".join([*parts, *sections, _made(facts, about)]) + "\n"


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


def _made(facts: dict[str, Any], about: About) -> str:
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

Made on {machine["device"]}, torch {machine["torch"]}, diffusers {machine["diffusers"]}; {facts["setting"]}.
{about.seeds.format(seed=facts["seed"])}

<details><summary>time spent</summary>

{times}

</details>"""
