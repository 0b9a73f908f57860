"""The one way to run a trajectory: profile, sample and every benchmark call a family here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family
from tstitch_cli.devices import compiling, out_of_memory
from tstitch_cli.errors import UsageError
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.stitching import planned_evaluations


@dataclass(frozen=True)
class Batch:
    """What one call draws: a prompt and an index for every picture; noise comes from (seed, index) alone."""

    prompts: tuple[str, ...]
    indices: tuple[int, ...]
    seed: int | tuple[int, ...] = 0
    """Of all pictures, or of each."""
    negative_prompt: str | tuple[str, ...] | None = None
    """Of all pictures, or of each."""
    given: Given = NOTHING
    """The pictures that all of them start from."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        return (self.seed,) * len(self.indices) if isinstance(self.seed, int) else self.seed

    @property
    def negative_prompts(self) -> tuple[str, ...] | None:
        """The negative prompt of each picture; None where none has one."""
        given = self.negative_prompt
        return (given,) * len(self.prompts) if isinstance(given, str) else given


@dataclass(frozen=True)
class Trajectory:
    """One call: its pictures, who took each evaluation, and where its seconds went."""

    frames: tuple[tuple[Image.Image, ...], ...] = field(repr=False)
    """The frames of every picture: one of a still, several of a video."""
    realised: tuple[str, ...]
    encode_s: float
    evaluations_s: tuple[float, ...]
    decode_s: float

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """Every picture, a video by its first frame."""
        return tuple(frames[0] for frames in self.frames)

    @property
    def total_s(self) -> float:
        """Seconds of the call, from the prompts to the pictures."""
        return self.encode_s + sum(self.evaluations_s) + self.decode_s


def run(
    family: Family,
    batch: Batch,
    allocation: Sequence[str] | str,
    clock: Clock,
    steps: int | None = None,
    *,
    strict: bool = True,
) -> Trajectory:
    """Draws `batch`, the denoiser of every evaluation as `allocation` says (a single name stands for all of them).

    `steps` are the setting's unless given, as they are for a short call that only warms up. Where nobody looks at the
    pictures, `strict` may be off: a denoiser then takes noise that it does not know for the nearest that it does.

    Raises DeviceError when memory runs out, UsageError when a prompt means nothing to the family or a denoiser is
    given a step whose noise level it does not know.
    """
    for bridge in family.bridges.values():
        bridge.strict = strict
    arguments = family.call_arguments(batch.prompts, batch.negative_prompts, steps or family.setting.steps, batch.given)
    generators = [noise_generator(seed, index) for seed, index in zip(batch.seeds, batch.indices, strict=True)]
    family.stitched.follow(allocation, lambda: planned_evaluations(family.pipeline))
    marks: list[Any] = []
    family.stitched.clock.boundary = lambda: marks.append(clock.mark())
    with torch.inference_mode(), out_of_memory(family.setting), compiling(family.setting):
        began = clock.mark()
        output = family.pipeline(**arguments, generator=generators, output_type="pil")
        ended = clock.mark()
        seconds = clock.seconds([began, *marks, ended])
    realised = family.stitched.realised
    if not isinstance(allocation, str) and realised != tuple(allocation):
        raise UsageError(
            f"the pipeline made {len(realised)} of the {len(allocation)} evaluations that were planned",
            hint="profile and plan again for the scheduler and the number of steps that it runs",
        )
    return Trajectory(
        frames=_frames(output),
        realised=realised,
        encode_s=seconds[0],
        evaluations_s=tuple(seconds[1:-1]),
        decode_s=seconds[-1],
    )


def _frames(output: Any) -> tuple[tuple[Image.Image, ...], ...]:
    if "frames" in output:
        return tuple(tuple(frames) for frames in output.frames)
    return tuple((image,) for image in output.images)


def noise_generator(seed: int, index: int) -> torch.Generator:
    """The source of all noise of picture `index`: the same for every batch size, rank, device and time."""
    state = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator("cpu").manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
