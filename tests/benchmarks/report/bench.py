"""What every group of figures works with: the studio, the scale, the base setting, profiles and the test pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tests.benchmarks.report.engine import Studio, Study
from tests.benchmarks.report.measures import Floats, replicas, sums
from tests.benchmarks.report.studies import Scale
from tstitch_cli import documents
from tstitch_cli.allocation import Allocation
from tstitch_cli.clocks import clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.measuring import fingerprint
from tstitch_cli.profile import Effort, measure
from tstitch_cli.quality.statistics import Described
from tstitch_cli.schema import Profile, Setting
from tstitch_cli.trajectory import Batch


@dataclass(frozen=True)
class Bench:
    """The family under test and how much of it is looked at."""

    studio: Studio
    scale: Scale
    setting: Setting
    """In the base steps."""
    out: Path
    """Where pictures of figures go."""
    test: Callable[[], tuple[Described, torch.Tensor]]
    """The test pictures of the data, described, and their classes (N,)."""
    early: Callable[[], str]
    """Trains the small model of figure 18 where it is not there yet, and tells its name."""

    def at(self, **changes: int | float | str) -> Setting:
        """The base setting with other steps, scheduler or guidance."""
        return replace(self.setting, **changes)  # type: ignore[arg-type]

    def profile(self, names: tuple[str, ...], setting: Setting) -> Profile:
        """Measured now, or read where an earlier run measured it in this setting, of these weights, on this machine."""
        path = self.studio.work / "profiles" / f"{'-'.join(names)}-{setting.scheduler}{setting.steps}.yaml"
        family = self.studio.load(names, setting)
        if path.exists():
            known = documents.read_profile(path)
            if known.setting == family.setting and known.fingerprint == fingerprint.take(family.device, family.weights):
                return known
        talk.print(f"profiling {', '.join(names)}: {setting.words}", markup=False)
        size = setting.batch_size
        batch = Batch(family.example_prompts(size), tuple(range(size)))
        effort = Effort(tolerance=0.02, max_time_s=self.scale.profile_s)
        documents.write_profile(measure(family, batch, clock_for(family.device), effort), path, overwrite=True)
        return documents.read_profile(path)

    def distances(self, study: Study) -> dict[Allocation, Floats]:
        """The distance of every row, (1 + G,); see `measures.replicas`."""
        return self.replicas(self.studio.described(study))

    def replicas(self, described: Mapping[Allocation, Described]) -> dict[Allocation, Floats]:
        """The same of pictures that are described already."""
        gaussian = self.studio.reference.gaussian
        return {allocation: replicas(gaussian, sums(each)) for allocation, each in described.items()}
