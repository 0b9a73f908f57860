"""What finetuning did to the pictures of a plan's row: its metrics with the old and with the new weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tstitch_cli.allocation import Allocation
from tstitch_cli.denoisers import load
from tstitch_cli.devices import resolve_device
from tstitch_cli.evaluate import evaluate
from tstitch_cli.quality import features, references
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.references import Reference
from tstitch_cli.sample import entries_of
from tstitch_cli.schema import Plan
from tstitch_cli.training.datasets import find
from tstitch_cli.zoo.entry import largest
from tstitch_cli.zoo.finetuned import Comparison
from tstitch_cli.zoo.registry import Zoo

SEED = 7
"""Of the pictures; the batches of training are drawn from other generators."""
BEFORE, AFTER = "before", "after"


def compare(
    plan: Plan,
    allocation: Allocation,
    old: str,
    new: str,
    data: Path | None,
    device: str,
    pictures: int,
    work: Path,
    progress: Callable[[str, float], None],
) -> Comparison:
    """The metrics of `allocation` with the denoiser `old`, and with `new` of the zoo in its place.

    Both draw the same pictures, and what comes before the denoiser's first step is drawn once. Prompts are the classes
    in turn, or the captions in `data`. They are compared with the pictures that the bundled family is compared with,
    else with those in `data`, where it is a folder.

    Raises what `evaluate` raises, and UsageError or BadFileError where there are no features to compare in.
    """
    entries = entries_of(plan.denoisers)
    host = largest(entries, plan.setting.host).name
    added = Zoo.load().resolve(new)
    setting = replace(plan.setting, device=resolve_device(device), host=host)
    family = load([*entries[:-1], added, entries[-1]], setting)
    extractor = _extractor(family.latent_space, setting.device)
    text = family.host.conditioning.kind == "text"
    swapped = tuple((new if name == old else name, steps) for name, steps in allocation)
    found = evaluate(
        family,
        {BEFORE: allocation, AFTER: swapped},
        find(data, ()).captions if text else family.example_prompts(pictures),
        seed=SEED,
        count=pictures,
        extractor=extractor,
        reference=_reference(family.latent_space, data, extractor, work, progress),
        work=work / "evaluation",
        counts=plan.evaluations_per_step(),
        progress=progress,
    )
    return Comparison(found.measured[BEFORE], found.measured[AFTER], found.evaluation)


def _extractor(latent_space: str, device: str) -> Extractor:
    return features.named(latent_space if latent_space in features.classifiers() else "inception", device)


def _reference(
    latent_space: str, data: Path | None, extractor: Extractor, work: Path, progress: Callable[[str, float], None]
) -> Reference | None:
    shipped = references.bundled(latent_space)
    if shipped is not None:
        return references.read(shipped, extractor, work / "evaluation", progress)
    if data is not None and any(path.suffix.lower() in references.SUFFIXES for path in data.rglob("*")):
        return references.read(data, extractor, work / "evaluation", progress)
    return None
