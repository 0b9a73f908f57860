"""What every part of the text report works with: studio, captions and references, and the rows drawn of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from tests.benchmarks.report.engine import Studio, Study
from tests.benchmarks.report.measures import Floats, replicas, sums
from tests.benchmarks.text.scale import Scale
from tstitch_cli.allocation import Allocation, runs, whole_steps
from tstitch_cli.quality.captions import whole_wordings
from tstitch_cli.quality.references import Reference
from tstitch_cli.quality.statistics import Described
from tstitch_cli.schema import Setting
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.zoo.entry import Entry

SMALL, BASE, LARGE, INK = "tiny-sd-small", "tiny-sd-base", "tiny-sd", "tiny-sd-ink"
INKED = "ink"
"""The statistics of real ink drawings."""

K = TypeVar("K")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the pictures of one row are like, and whether they show what they were to show."""

    described: Described
    metrics: tuple[str, ...]
    """The columns of `described.hits`."""

    def hits(self, metric: str) -> torch.Tensor:
        """(N,): 1 where a picture shows what the metric looks at, else 0."""
        return self.described.hits[:, self.metrics.index(metric)]

    def distances(self, reference: Reference) -> Floats:
        """(1 + G,) Frechet distance from `reference`; see `measures.replicas`."""
        return replicas(reference.gaussian, sums(self.described))


@dataclass(frozen=True)
class Bench:
    """The family under test and how much of it is looked at."""

    studio: Studio
    scale: Scale
    setting: Setting
    """In which pictures are drawn to be measured."""
    timing: Setting
    """In which calls are timed: the family's own, as `tstitch sample` runs it."""
    host: Entry
    captions: Mapping[str, Sequence[str]]
    """By the combinations they are of, seen or unseen; the first ones are those of the first test pictures."""
    references: Mapping[str, Reference]
    """Of real pictures of seen and of unseen combinations, and of real ink drawings."""
    pictures: Callable[[str, bool, int], Captioned]
    """The first so many test pictures of some combinations, in ink or not."""
    out: Path
    """Where pictures of figures go."""

    def at(self, **changes: Any) -> Setting:
        """The setting that is drawn in, with changes."""
        return replace(self.setting, **changes)

    def timed_as(self, **changes: Any) -> Setting:
        """The setting that calls are timed in, with changes."""
        return replace(self.timing, **changes)

    def drawn(
        self,
        name: str,
        denoisers: tuple[str, ...],
        rows: Mapping[K, Allocation],
        captions: str,
        pictures: int,
        setting: Setting | None = None,
    ) -> dict[K, Drawn]:
        """`pictures` pictures of each of `rows`, from the same noise and captions; `denoisers` are smallest first."""
        setting, prompts = setting or self.setting, tuple(self.captions[captions])
        found = self.studio.described(Study(name, setting, denoisers, tuple(rows.values()), pictures, prompts))
        return {key: Drawn(found[row], self.metrics) for key, row in rows.items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the judge tells of a picture."""
        return tuple(self.studio.extractor.judge.metrics)

    def real(self, combinations: str, *, inked: bool = False, another: bool = False) -> Drawn:
        """Real test pictures, judged as drawn ones are: what the judge is good for, and the most one can hope for.

        With `another`, each is judged by the caption of the next one: the least there is.
        """
        pictures = self.pictures(combinations, inked, self.scale.real)
        parts = []
        for indices in torch.arange(len(pictures)).split(self.scale.at_once):
            told = [(i + another) % len(pictures) for i in indices.tolist()]
            asked = [whole_wordings(pictures.scene(i))[0] for i in told]
            made = self.studio.extractor(pictures.pixels(indices))
            hits = self.studio.extractor.judge.hits(self.host, asked, made.answers)
            parts.append((made.features.float().cpu(), hits))
        features, hits = (torch.cat(each) for each in zip(*parts, strict=True))
        none = torch.zeros(len(features), 0)
        return Drawn(Described(features, none, none, hits), self.metrics)


def by_share(first: str, last: str, shares: Sequence[float], steps: int) -> dict[float, Allocation]:
    """`first` for a share of the steps, then `last`, by the share."""
    return {share: runs((first, last), whole_steps((share, 1.0 - share), steps)) for share in shares}
