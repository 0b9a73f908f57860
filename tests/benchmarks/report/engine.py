"""Draws the pictures of a study by `tstitch_cli.evaluate`, which keeps what it finds: a run that was cut goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.common import words
from tests.benchmarks.report.stopwatch import Stopwatch
from tstitch_cli import evaluations
from tstitch_cli.allocation import Allocation
from tstitch_cli.clocks import HostClock
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family
from tstitch_cli.evaluate import Evaluated, evaluate
from tstitch_cli.measuring import agreement
from tstitch_cli.quality import references
from tstitch_cli.quality.drawing import Progress, Scorer
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.references import Reference
from tstitch_cli.quality.statistics import Described
from tstitch_cli.schema import Agreement, Setting
from tstitch_cli.trajectory import Batch, run

SEED = 1
"""Of all pictures; profiles and what predicts are measured with seed 0."""

Load = Callable[[tuple[str, ...], Setting], Family]
"""The family of named denoisers, smallest first, in a setting."""


@dataclass(frozen=True)
class Study:
    """Rows that are drawn from the same noise in one setting."""

    name: str
    setting: Setting
    denoisers: tuple[str, ...]
    """Smallest first."""
    allocations: tuple[Allocation, ...]
    pictures: int
    """Of every row."""
    prompts: tuple[str, ...] = ()
    """Drawn in turn; of a family that is drawn by class, its ten classes unless given."""


class Studio:
    """Draws and measures studies; what was drawn is kept under `work`."""

    def __init__(
        self,
        load: Load,
        extractor: Extractor,
        reference: Reference,
        work: Path,
        at_once: int,
        scorer: Scorer | None = None,
    ) -> None:
        self.load, self.extractor, self.reference = load, extractor, reference
        self.work, self.at_once, self.scorer = work, at_once, scorer
        self.stopwatch = Stopwatch(work / "seconds.json")

    def evaluated(self, study: Study, metrics: Sequence[str] = ("fid",)) -> Evaluated:
        """`study` measured, its rows named by their words; the CLIP score too where there is a scorer."""
        began = time.perf_counter()
        family = self.load(study.denoisers, study.setting)
        found = evaluate(
            family,
            {words(allocation): allocation for allocation in study.allocations},
            study.prompts or family.example_prompts(CLASSES),
            seed=SEED,
            count=study.pictures,
            extractor=self.extractor,
            reference=self.reference,
            work=self.work / "records",
            batch_size=self.at_once,
            counts=evaluations_of(family),
            scorer=self.scorer,
            metrics=(*metrics, "clip") if self.scorer is not None else metrics,
            progress=self.telling(study.name),
        )
        spent = time.perf_counter() - began
        talk.print(f"{study.name}: done in {spent:.0f} s, {found.drawn} pictures drawn", markup=False)
        return found

    def telling(self, name: str) -> Progress:
        """Prints now and then how far the drawing of `name` is."""
        began = time.perf_counter()
        told = 0.0

        def progress(doing: str, share: float) -> None:
            nonlocal told
            now = time.perf_counter()
            if now - told > TELL_S:
                told = now
                self.stopwatch.lap()
                talk.print(f"{name}: {share:.0%}, {now - began:.0f} s, {doing}", markup=False)

        return progress

    def described(self, study: Study) -> dict[Allocation, Described]:
        """What every row's pictures are like."""
        found = self.evaluated(study).described
        return {allocation: found[words(allocation)] for allocation in study.allocations}


CLASSES = 10
TELL_S = 15.0
"""Seconds between two lines of progress."""


def evaluations_of(family: Family) -> tuple[int, ...]:
    """Evaluations of each step of the family's setting."""
    scheduler = family.pipeline.scheduler
    scheduler.set_timesteps(family.setting.steps)
    return evaluations.per_step(scheduler, family.setting.taken, len(scheduler.timesteps))


def agreement_of_classes(family: Family, classes: Sequence[int], pictures: int) -> Agreement | None:
    """Agreement along trajectories that draw `pictures` pictures of `classes` alone, with seed 0."""
    size = family.setting.batch_size
    prompts = [str(classes[i % len(classes)]) for i in range(pictures)]
    batches = [
        Batch(tuple(prompts[first : first + size]), tuple(range(first, min(first + size, pictures))))
        for first in range(0, pictures, size)
    ]
    made = run(family, batches[0], family.stitched.host, HostClock(), strict=False)
    counts = evaluations.per_step(family.pipeline.scheduler, family.setting.taken, len(made.realised))
    return agreement.measure(family, batches, counts)


def reference_of(described: Described) -> Reference:
    """The reference whose pictures are `described`."""
    return references.of_features(described.features)
