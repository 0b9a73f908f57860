"""The stage that measures: allocations and prompts -> metrics of what they draw, each with its interval.

What is drawn, how often, and what is kept of it stands in quality/drawing.py, how it is measured in
quality/statistics.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tstitch_cli.allocation import Allocation, per_evaluation
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.jobs.shards import WHOLE, Shard
from tstitch_cli.quality import statistics
from tstitch_cli.quality.drawing import Drawing, Keeper, Progress, Scorer
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.judging import UNASKED
from tstitch_cli.quality.manifolds import MOST_POINTS, precision_and_recall
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.quality.records import Records
from tstitch_cli.quality.references import Reference
from tstitch_cli.quality.statistics import Described, Sums, frechet, jackknifed
from tstitch_cli.schema import RANDOM_WEIGHTS, Evaluation, Measured, Setting
from tstitch_cli.trajectory import Batch
from tstitch_cli.zoo.entry import Entry

PIXELS_AT_ONCE = 2**21
MOST_AT_ONCE = 100
NOTHING = "none"
"""What an `Evaluation` says of features or a reference that were not needed."""


@dataclass(frozen=True)
class Evaluated:
    """What was measured of each allocation, by its name and the metric's, and what it cost."""

    measured: dict[str, dict[str, Measured]]
    evaluation: Evaluation
    made: int
    """Evaluations that a denoiser made."""
    saved: int
    """Evaluations that were shared with another allocation; those of earlier runs are in neither."""
    drawn: int
    """Pictures that were drawn; the others were found described."""
    described: Mapping[str, Described] = field(repr=False)
    """What all of that was measured from, by the allocation's name: picture by picture, read when it is asked for."""


def evaluate(
    family: Family,
    allocations: Mapping[str, Allocation],
    prompts: Sequence[str],
    *,
    seed: int,
    count: int,
    extractor: Extractor | None,
    reference: Reference | None,
    work: Path,
    first: int = 0,
    batch_size: int | None = None,
    counts: Sequence[int] | None = None,
    scorer: Scorer | None = None,
    metrics: Sequence[str] | None = None,
    keeper: Keeper | None = None,
    shard: Shard = WHOLE,
    progress: Progress = lambda doing, share: None,
) -> Evaluated:
    """Measures the pictures `first` ... `first + count - 1` of `seed` as each of `allocations` (by name) draws them.

    Picture i has prompt i modulo their number. `counts` (T,) are the evaluations of each step, one each unless given;
    `batch_size` is what is drawn at once, see `batch_size_for`. Without an `extractor` there are no features, without
    a `reference` nothing is compared; `scorer` gives the CLIP score. `metrics` are all that can be measured unless
    given. What was found out is kept in the folder `work`, for the same again and for more of the same.

    Of several shards each draws its share of the batches and measures nothing; the whole, given afterwards with the
    same `work`, finds all of it there.

    Raises:
        UsageError: a metric cannot be measured with what is given, there are too few pictures, or what
            `trajectory.run` raises.
        StaleError: the weights are random.
        BadFileError: `work` cannot be written to.
        DeviceError: memory runs out.
    """
    if count < statistics.FEWEST:
        raise UsageError(
            f"{count} pictures are too few to measure anything by",
            hint=f"an interval takes {statistics.FEWEST} at least, a meaning some hundreds",
        )
    if RANDOM_WEIGHTS in family.weights.values():
        raise StaleError(
            "these denoisers have random weights: they are there to be timed and draw nothing",
            hint="load them without random_weights",
        )
    if not prompts:
        raise UsageError("there is no prompt to draw", hint="give one at least")
    drawn_from = in_turn(prompts, count, first)
    wanted = asked_for(
        metrics, measurable(family.entries[0], drawn_from, extractor, reference, scored=scorer is not None)
    )
    counts = counts if counts is not None else (1,) * family.setting.taken
    drawing = Drawing(
        family=family,
        turns={name: per_evaluation(allocation, counts) for name, allocation in allocations.items()},
        batches=shard.take(_batches(prompts, seed, first, count, batch_size or batch_size_for(family.setting))),
        extractor=extractor,
        scorer=scorer if "clip" in wanted else None,
        records=Records(work),
        keeper=keeper,
        progress=progress,
    )
    made, saved, drawn = drawing.draw()
    evaluation = evaluation_of(extractor, reference, prompts, seed=seed, count=count, first=first)
    described = _AsAsked(drawing)
    measured: dict[str, dict[str, Measured]] = {}
    if shard.of > 1:
        return Evaluated(measured, evaluation, made, saved, drawn, described)
    for number, name in enumerate(allocations):
        progress(f"measuring {name}", number / len(allocations))
        measured[name] = _measure(described[name], extractor, reference, wanted)
    return Evaluated(measured, evaluation, made, saved, drawn, described)


def evaluation_of(
    extractor: Extractor | None,
    reference: Reference | None,
    prompts: Sequence[str],
    *,
    seed: int,
    count: int,
    first: int = 0,
) -> Evaluation:
    """What the measured values will hold for; see `evaluate` for the arguments."""
    return Evaluation(
        features=extractor.name if extractor is not None else NOTHING,
        reference=reference.digest if reference is not None else NOTHING,
        prompts=digest_of_prompts(in_turn(prompts, count, first)),
        pictures=count,
        seed=seed,
    )


def in_turn(prompts: Sequence[str], count: int, first: int = 0) -> list[str]:
    """The prompts of the pictures `first` ... `first + count - 1`."""
    return [prompts[i % len(prompts)] for i in range(first, first + count)]


def measurable(
    entry: Entry,
    prompts: Sequence[str],
    extractor: Extractor | None,
    reference: Reference | None,
    *,
    scored: bool,
) -> tuple[str, ...]:
    """The metrics that can be measured of the family of `entry`, in the order of `metrics.METRICS`.

    `prompts` are those of all pictures; `scored` is whether there is a CLIP to score by, or can be once it is asked
    for. Raises UsageError where a prompt is no class of a family that is drawn by class.
    """
    compared = extractor is not None and reference is not None
    among = compared and reference is not None and reference.manifold is not None
    possible = {
        "fid": compared,
        "is": extractor is not None and extractor.classes > 0,
        "precision": among,
        "recall": among,
        "clip": scored and entry.conditioning.kind == "text",
    }
    asking = {} if extractor is None else extractor.judge.asking(entry, prompts)
    fewest = max(1, min(statistics.FEWEST, len(prompts)))
    possible |= {name: pictures >= fewest for name, pictures in asking.items()}
    return tuple(name for name in METRICS if possible.get(name))


def asked_for(metrics: Sequence[str] | None, possible: Sequence[str]) -> tuple[str, ...]:
    """`metrics`, all that are `possible` where None; raises UsageError where one is not possible, or nothing is."""
    for name in metrics or ():
        if name not in possible:
            raise UsageError(
                f"{name} cannot be measured with what is given",
                hint=f"it takes {METRICS[name].takes}" + (f"; these can be: {', '.join(possible)}" if possible else ""),
            )
    if not possible:
        raise UsageError("nothing can be measured with what is given", hint="give a --reference")
    return tuple(possible if metrics is None else dict.fromkeys(metrics))


def batch_size_for(setting: Setting) -> int:
    """How many pictures are drawn at once: those of the setting, or more where they are small."""
    return max(setting.batch_size, min(MOST_AT_ONCE, PIXELS_AT_ONCE // setting.size**2))


def digest_of_prompts(prompts: Sequence[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _batches(prompts: Sequence[str], seed: int, first: int, count: int, size: int) -> list[Batch]:
    """Whole batches count from `first`, so that more pictures later begin with the same batches."""
    ends = [*range(first, first + count, size), first + count]
    return [
        Batch(tuple(prompts[i % len(prompts)] for i in range(a, b)), tuple(range(a, b)), seed)
        for a, b in itertools.pairwise(ends)
    ]


class _AsAsked(Mapping[str, Described]):
    """The pictures of every allocation, which all together may be more than fits into memory."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def __getitem__(self, name: str) -> Described:
        return self._drawing.described(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._drawing.turns)

    def __len__(self) -> int:
        return len(self._drawing.turns)


def _measure(
    described: Described, extractor: Extractor | None, reference: Reference | None, wanted: Sequence[str]
) -> dict[str, Measured]:
    """The metrics `wanted` of the pictures `described`."""
    parts = [Sums.of(described[part]) for part in statistics.subsets(len(described))]
    found: dict[str, Measured] = {}
    if "fid" in wanted and reference is not None:
        gaussian = reference.gaussian
        found["fid"] = jackknifed(parts, lambda sums: frechet(gaussian, sums.gaussian), 0.0)
    if "is" in wanted:
        found["is"] = jackknifed(parts, lambda sums: sums.inception_score, 1.0)
    if {"precision", "recall"} & set(wanted) and reference is not None and reference.manifold is not None:
        points = described.features[:MOST_POINTS]
        both = precision_and_recall(reference.manifold, points, statistics.subsets(len(points)))
        found |= dict(zip(("precision", "recall"), both, strict=True))
    if "clip" in wanted:
        found["clip"] = statistics.mean(described.clip[:, 0], 0.0)
    for column, name in enumerate(extractor.judge.metrics if extractor is not None else ()):
        if name in wanted:
            hits = described.hits[:, column]
            found[name] = statistics.mean(hits[hits != UNASKED], 0.0, 1.0)
    return {name: found[name] for name in wanted}
