"""What `tstitch evaluate` measures with: prompts, networks and reference, and what is said of them beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tstitch_cli.commands.edge import talk
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.schema import Plan

if TYPE_CHECKING:
    from tstitch_cli.quality.clip_score import ClipScore
    from tstitch_cli.quality.features import Extractor
    from tstitch_cli.quality.references import Reference
    from tstitch_cli.zoo.entry import Entry

Progress = Callable[[str, float], None]
PICTURES_PER_FEATURE = 10
"""Below so many the covariance of the features is mostly chance, which a Frechet distance adds up."""
USUAL = "seen"
"""The captions of a bundled family that are drawn where nothing else is asked for."""


def warn_of_few(count: int, features: int) -> None:
    """Says where the pictures are too few for a Frechet distance by so many features."""
    enough = PICTURES_PER_FEATURE * features
    if count < enough:
        talk.print(
            f"[yellow]fid comes out too high where there are few pictures: {count:,} are measured by {features:,} "
            f"features, for which about {enough:,} are enough; compare it only between rows of as many[/]"
        )


def tell_left_out(asking: Mapping[str, int], wanted: Sequence[str] | None, asked: Sequence[str], count: int) -> None:
    """Says which metrics hold for some of the pictures only, by how many prompts ask for what they look at."""
    for pictures in sorted({number for number in asking.values() if number < count}, reverse=True):
        names = [name for name, number in asking.items() if number == pictures]
        measured = [name for name in names if name in asked]
        if measured:
            talk.print(
                f"{', '.join(measured)}: of {pictures:,} pictures, whose prompts tell it as the family's captions do; "
                f"{count - pictures:,} are left out"
            )
        elif wanted is None:
            talk.print(f"no {', '.join(names)}: too few of the prompts tell it as the captions of a bundled family do")


def instruments(
    plan: Plan,
    entry: Entry,
    features: str | None,
    wanted: Sequence[str] | None,
    place: Path | None,
    captions: str | None,
    work: Path,
    device: str,
    bar: Progress,
) -> tuple[Extractor | None, ClipScore | None, Reference | None]:
    """The networks and the reference that `wanted` needs; raises BadFileError where weights are to be fetched first."""
    from tstitch_cli.quality import features as networks
    from tstitch_cli.quality import references

    bar("loading what measures", 0.0)
    extractor, scorer, compared = None, None, None
    if entry.conditioning.kind == "text" and (wanted is None or "clip" in wanted):
        from tstitch_cli.quality import clip_score

        scorer = clip_score.ClipScore(device, clip_score.bundled(plan.family))
    if wanted is None or set(wanted) - {"clip"}:
        own = plan.family if plan.family in networks.classifiers() else networks.INCEPTION
        extractor = networks.named(features or own, device)
        if (file := statistics_of(extractor.name, place, captions)) is not None:
            compared = references.read(file, extractor, work, bar)
        elif wanted is None:
            talk.print("no --reference, so no fid, precision and recall")
    return extractor, scorer, compared


def statistics_of(family: str, place: Path | None, captions: str | None) -> Path | None:
    """What is compared with: what is at `place`, or what the family ships with by that name, by that of the captions
    drawn, or as its usual one."""
    from tstitch_cli.quality.references import bundled

    if place is not None:
        return place if place.exists() else bundled(family, str(place)) or place
    return (bundled(family, captions) if captions is not None else None) or bundled(family)


def captions_of(plan: Plan, file: Path | None) -> str | None:
    """The name of the captions that the plan's family ships with, where they are what is to be drawn."""
    from tstitch_cli.jobs.prompts import bundled

    name = USUAL if file is None else str(file)
    return name if name in bundled(plan.family) and (file is None or not file.exists()) else None


def _refuse_missing(family: str, file: Path) -> None:
    """Raises BadFileError where `file` is not there and the family ships with captions, which it tells the names of."""
    from tstitch_cli.jobs.prompts import bundled

    if not file.exists() and (names := ", ".join(bundled(family))):
        raise BadFileError(
            f"{file}: there is no such file, nor captions of this name that come with {family}",
            hint=f"the captions of {family} are: {names}; or give a file of prompts, one a line",
        )


def prompts_of(plan: Plan, entry: Entry, file: Path | None, captions: str | None) -> list[str]:
    """What is drawn in turn: the family's own `captions`, else the prompts of `file`, else all classes by number."""
    if captions is not None:
        from tstitch_cli.jobs.prompts import bundled

        file = bundled(plan.family)[captions]
    if file is not None:
        from tstitch_cli.jobs.prompts import read

        _refuse_missing(plan.family, file)
        asked = read(file)
        for name in ("seed", "negative_prompt", "count"):
            if any(getattr(prompt, name) is not None for prompt in asked):
                raise UsageError(
                    f"{file}: gives prompts a {name} of their own, and pictures are measured of all prompts alike: "
                    "in turn, from --seed",
                    hint=f"leave {name} out of the file",
                )
        prompts = [prompt.text for prompt in asked]
        if entry.conditioning.kind == "class":
            from tstitch_cli.zoo.entry import class_numbers

            class_numbers(entry, prompts)
        return prompts
    if entry.conditioning.kind == "class":
        return [str(number) for number in range(len(entry.conditioning.labels))]
    raise UsageError(
        f"{plan.family} is drawn from text, and there are no prompts to measure with",
        hint="give --prompts-file FILE, one prompt a line, such as the captions of the reference",
    )
