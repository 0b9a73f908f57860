"""The one way to run a trajectory: profile, sample and every benchmark call a family here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from tstitch_cli import evaluations, finite
from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family
from tstitch_cli.devices import compiling, out_of_memory
from tstitch_cli.errors import TstitchError, UsageError
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
    pictures, `strict` may be off: a denoiser then takes noise that it does not know for the nearest that it does, and
    the pictures may hold anything.

    Raises DeviceError when memory runs out, the device fails or the pictures are not finite, UsageError when a prompt
    means nothing to the family or a denoiser is given a step whose noise level it does not know. Any other exception
    has a note of the step it came in.
    """
    for bridge in family.bridges.values():
        bridge.strict = strict
    arguments = family.call_arguments(batch.prompts, batch.negative_prompts, steps or family.setting.steps, batch.given)
    generators = [noise_generator(seed, index) for seed, index in zip(batch.seeds, batch.indices, strict=True)]
    family.stitched.follow(allocation, lambda: planned_evaluations(family.pipeline))
    asked, marks = steps or family.setting.steps, list[Any]()
    family.stitched.clock.boundary = lambda: marks.append(clock.mark())

    def draw() -> npt.NDArray[np.float32]:
        for generator in generators:  # they have moved on where this is drawn again
            generator.manual_seed(generator.initial_seed())
        # Numbers and not pictures, for in those a NaN is a black pixel like any other.
        return _pixels(family.pipeline(**arguments, generator=generators, output_type="np"))

    with torch.inference_mode(), out_of_memory(family.setting), compiling(family.setting), _noting(family, asked):
        began = clock.mark()
        pixels = draw()
        with np.errstate(invalid="ignore"):  # what is not finite is told below, or nobody looks at it
            frames = tuple(tuple(VaeImageProcessor.numpy_to_pil(each)) for each in pixels)
        ended = clock.mark()
        seconds = clock.seconds([began, *marks, ended])
        if strict and not finite.everywhere(family.stitched.last, pixels):
            raise finite.searched(family, batch.indices, asked, draw, pixels)
    realised = family.stitched.realised
    if not isinstance(allocation, str) and realised != tuple(allocation):
        raise UsageError(
            f"the pipeline made {len(realised)} of the {len(allocation)} evaluations that were planned",
            hint="profile and plan again for the scheduler and the number of steps that it runs",
        )
    return Trajectory(
        frames=frames,
        realised=realised,
        encode_s=seconds[0],
        evaluations_s=tuple(seconds[1:-1]),
        decode_s=seconds[-1],
    )


def _pixels(output: Any) -> npt.NDArray[np.float32]:
    """(B, F, H, W, C) in [0, 1]: the frames of every picture, one of a still."""
    return np.asarray(output.frames) if "frames" in output else np.asarray(output.images)[:, None]


@contextmanager
def _noting(family: Family, steps: int) -> Iterator[None]:
    """Notes on every failure that is not told otherwise where in the trajectory it came."""
    try:
        yield
    except TstitchError:
        raise
    except Exception as error:
        error.add_note(_whereabouts(family, steps))
        raise


def _whereabouts(family: Family, steps: int) -> str:
    stitched, scheduler = family.stitched, family.pipeline.scheduler
    if not stitched.planned:
        return "before the first step"
    made, turn = stitched.clock.evaluation, stitched.turn
    if turn is not None:
        return f"in {evaluations.words(scheduler, steps, stitched.planned, made)}, which {turn} takes"
    return "after the last step" if made >= stitched.planned else f"after {made} evaluations"


def noise_generator(seed: int, index: int) -> torch.Generator:
    """The source of all noise of picture `index`: the same for every batch size, rank, device and time."""
    state = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator("cpu").manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
