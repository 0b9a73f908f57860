"""What stitching costs: a plain pipeline against the same one with a stitched denoiser.

    python -m tests.benchmarks.overhead --out tests/benchmarks/results/overhead.json

Protocol: ClassConditionalPipeline with fashion-xl, in the family's default setting (DDIM, 20 steps, guidance 1.25), 8
pictures from (seed 0, indices 0 .. 7), up to the latents, so that the share is of the steps alone. Plain (A) has the
denoiser itself and an untouched scheduler; stitched (B) runs the very same module for all evaluations, with the marks
that `trajectory.run` sets at every boundary. Each round is A B B A; the ratio of means has a bootstrap interval over
rounds. Both must draw the same latents, bit for bit.

A share that small drowns in noise unless there are many rounds, so the time itself is measured too: trajectories of a
denoiser and a scheduler that do nothing, bare against stitched, divided by their evaluations. That is the thread's own
processor time, which other programs do not lengthen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.benchmarks.common import (
    LARGE,
    SMALL,
    Estimate,
    Floats,
    Sample,
    arguments,
    estimate,
    load_family,
    machine,
    markdown,
    positive,
    ratio_of_means,
    save,
    start,
)
from tstitch_cli import schedulers
from tstitch_cli.clocks import Clock, clock_for
from tstitch_cli.denoisers import Family
from tstitch_cli.networks.class_conditional import ClassConditionalPipeline
from tstitch_cli.stitching import planned_evaluations, stitch
from tstitch_cli.trajectory import noise_generator

SEED = 0
BATCH = 8
ROUNDS, BARE_ROUNDS = 50, 200
TRAJECTORIES, STEPS = 20, 20
"""Of the denoiser that does nothing, in one timing."""


class Echo(nn.Module):
    """A denoiser that returns what it is given."""

    def forward(self, sample: Any) -> Any:
        return sample


class Idle:
    """A scheduler that does nothing."""

    def __init__(self) -> None:
        self.timesteps = range(0)

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = range(steps)

    def step(self, sample: Any) -> Any:
        return sample


def abba(plain: Callable[[], float], stitched: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of the plain and of the stitched one, the mean of two calls a round, in the order A B B A."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        a, b, c, d = plain(), stitched(), stitched(), plain()
        seconds[0].append((a + d) / 2)
        seconds[1].append((b + c) / 2)
    return seconds


def extra(stitched: Floats, plain: Floats) -> Floats:
    """The statistic `mean(stitched) - mean(plain)`."""
    difference: Floats = stitched.mean(-1) - plain.mean(-1)
    return difference


def seconds_an_evaluation(rounds: int) -> tuple[Sample, Estimate]:
    """Bare seconds of an evaluation where denoiser and scheduler do nothing, and what stitching adds to them."""
    bare = SimpleNamespace(scheduler=Idle(), denoiser=Echo())
    switched = SimpleNamespace(scheduler=Idle())
    stitched = stitch(switched, "denoiser", {"echo": Echo()}, "echo")
    stitched.follow("echo", lambda: planned_evaluations(switched))

    def timed(pipeline: Any) -> float:
        marks: list[float] = []
        stitched.clock.boundary = lambda: marks.append(time.perf_counter())
        sample = object()
        began = time.thread_time()
        for _ in range(TRAJECTORIES):
            pipeline.scheduler.set_timesteps(STEPS)
            for _ in pipeline.scheduler.timesteps:
                pipeline.scheduler.step(pipeline.denoiser(sample))
        return (time.thread_time() - began) / (TRAJECTORIES * STEPS)

    timed(bare), timed(switched)
    plain_s, stitched_s = abba(lambda: timed(bare), lambda: timed(switched), rounds)
    return Sample.of(plain_s), estimate(extra, stitched_s, plain_s)


def pipelines(family: Family, name: str) -> tuple[Any, Any]:
    """The plain pipeline of one denoiser and the stitched one, around the same modules."""
    config = family.pipeline.scheduler.config
    plain = ClassConditionalPipeline(
        transformer=family.denoisers[name],
        vae=family.pipeline.vae,
        scheduler=schedulers.build(family.setting.scheduler, config),
    )
    plain.set_progress_bar_config(disable=True)
    family.stitched.follow(name, lambda: planned_evaluations(family.pipeline))
    return plain, family.pipeline


def draw(family: Family, pipeline: Any, clock: Clock) -> tuple[torch.Tensor, float]:
    """The latents of one call, and its seconds a step."""
    given = family.call_arguments(family.example_prompts(BATCH), None, family.setting.steps)
    marks: list[Any] = []
    family.stitched.clock.boundary = lambda: marks.append(clock.mark())
    generators = [noise_generator(SEED, index) for index in range(BATCH)]
    with torch.inference_mode():
        began = clock.mark()
        latents = pipeline(**given, generator=generators, output_type="latent").images
        ended = clock.mark()
    return latents, clock.seconds([began, ended])[0] / family.setting.steps


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="rounds of four calls")
    parser.add_argument("--denoiser", choices=(SMALL, LARGE), default=LARGE, help="which one both pipelines run")
    parser.add_argument("--device", default="cpu", help="where to draw (default: cpu)")
    given = parser.parse_args()
    family = load_family((SMALL, LARGE), device=given.device)
    facts, clock = machine(family), clock_for(family.device)
    plain, stitched = pipelines(family, given.denoiser)
    if not torch.equal(draw(family, plain, clock)[0], draw(family, stitched, clock)[0]):
        raise SystemExit("the two pipelines draw different latents, so their times mean nothing")
    plain_s, stitched_s = abba(
        lambda: draw(family, plain, clock)[1], lambda: draw(family, stitched, clock)[1], given.rounds
    )
    ratio = estimate(ratio_of_means, stitched_s, plain_s)
    bare, added = seconds_an_evaluation(BARE_ROUNDS)
    samples = {"plain": Sample.of(plain_s), "stitched": Sample.of(stitched_s)}
    rows = [(f"{given.denoiser}, {name}", f"{s.mean * 1e3:.3f} ± {s.std * 1e3:.3f} ms") for name, s in samples.items()]
    rows.append(("an evaluation that does nothing, plain", f"{bare.mean * 1e6:.2f} ± {bare.std * 1e6:.2f} µs"))
    rows.append(("what stitching adds to it", f"{added.value * 1e6:.2f} ({_ends(added, 1e6, '.2f')}) µs"))
    print(markdown((f"{BATCH} pictures, {family.setting.steps} steps", "time a step"), rows), "", sep="\n")
    share = Estimate(*(100 * (value - 1) for value in (ratio.value, ratio.low, ratio.high)))
    print(f"overhead {share.value:+.2f} % a step (95 % interval {_ends(share, 1, '+.2f')}; goal at most 1 %)")
    print(f"added time is {added.value / samples['plain'].mean:.4%} of a step of {given.denoiser}")
    protocol = {
        "denoiser": given.denoiser,
        "rounds": given.rounds,
        "batch_size": BATCH,
        "seed": SEED,
        "setting": asdict(family.setting),
        "idle": {"rounds": BARE_ROUNDS, "trajectories": TRAJECTORIES, "steps": STEPS},
    }
    results = {
        "step_s": {name: asdict(s) for name, s in samples.items()},
        "ratio": asdict(ratio),
        "idle_evaluation_s": asdict(bare),
        "added_s": asdict(added),
    }
    save(given.out, "overhead", facts, protocol, results)


def _ends(interval: Estimate, factor: float, form: str) -> str:
    return f"{interval.low * factor:{form}} to {interval.high * factor:{form}}"


if __name__ == "__main__":
    start(main)
