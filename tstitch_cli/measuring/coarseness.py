"""Measures coarseness: how far a setting's steps, sampler and cache alone take the largest denoiser off its course.

The reference is the largest denoiser's own trajectory from the same noise in more steps than any that were asked for,
with nothing cached. What a setting loses against it and what an allocation loses against the largest denoiser have
one unit, and are of different origin, so that as errors that know nothing of each other they are put together as

    total = sqrt(coarseness^2 + loss^2),

which `python -m tests.benchmarks.loss` holds against measured distances. A sampler that adds noise of its own in every
step ends elsewhere however fine its steps are: of those the distance tells nothing, and it is not measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from tstitch_cli.denoisers import Family
from tstitch_cli.measuring import latents
from tstitch_cli.schedulers import STOCHASTIC
from tstitch_cli.schema import Coarseness, Reference, Setting
from tstitch_cli.trajectory import Batch

FINER = 4
"""How many times the most steps asked for the reference takes, where the noise schedule has so many: what it is off
by itself favours the sampler that it was made with, and should be little."""
PICTURES = 4
"""Pictures that are compared at least."""


@dataclass(frozen=True)
class Course:
    """The reference and where it ended for every batch."""

    reference: Reference
    batches: tuple[Batch, ...]
    finals: tuple[torch.Tensor, ...]


def reference_setting(settings: Sequence[Setting], most_steps: int) -> Setting | None:
    """The setting of the common reference, of at most `most_steps`; None where every sampler adds noise."""
    candidates = [setting for setting in settings if setting.scheduler not in STOCHASTIC]
    if not candidates:
        return None
    steps = min(FINER * max(setting.steps for setting in settings), most_steps)
    return replace(candidates[0], steps=steps, accelerate=())


def follow(family: Family, batch: Batch) -> Course:
    """The reference's course in `family`, loaded for its setting, from the noise of `batch` and of more if it is small.

    Raises what `trajectory.run` raises.
    """
    size, host = len(batch.indices), family.stitched.host
    batches = tuple(
        replace(
            batch,
            prompts=family.example_prompts(size, first),
            indices=tuple(range(first, first + size)),
        )
        for first in range(0, max(PICTURES, size), size)
    )
    setting = replace(family.setting, device="", batch_size=1, offload=False, compiled=False)
    decides = {
        "setting": asdict(setting),
        "weights": family.weights[host],
        "pictures": [[each.prompts, each.indices, each.seeds] for each in batches],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    reference = Reference(host, setting.scheduler, setting.steps, batch.seeds[0], digest)
    return Course(reference, batches, tuple(latents.final(family, each, host) for each in batches))


def measure(family: Family, course: Course) -> Coarseness | None:
    """The coarseness of `family`'s setting against `course`; None where its sampler adds noise."""
    if family.setting.scheduler in STOCHASTIC:
        return None
    host = family.stitched.host
    apart = [
        latents.distance(latents.final(family, batch, host), final)
        for batch, final in zip(course.batches, course.finals, strict=True)
    ]
    return Coarseness(course.reference, tuple(float(f"{value:.5g}") for value in np.concatenate(apart)))
