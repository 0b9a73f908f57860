"""The stitched denoiser in real diffusers pipelines: every evaluation by whom it was planned, nothing else changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, HeunDiscreteScheduler, PNDMScheduler
from torch import nn

from tests import toys
from tstitch_cli import evaluations, schedulers
from tstitch_cli.allocation import per_evaluation, whole_steps
from tstitch_cli.errors import UsageError
from tstitch_cli.stitching import StitchedDenoiser, planned_evaluations, stitch

Draw = Callable[[Any, int], Any]


def draw_class(pipeline: Any, steps: int) -> Any:
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return pipeline(
        [1, 2], num_inference_steps=steps, guidance_scale=1.5, generator=generators, output_type="np"
    ).images


def draw_dit(pipeline: Any, steps: int) -> Any:
    torch.manual_seed(0)  # DiTPipeline gives its generator to the first noise only
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return pipeline([1, 2], num_inference_steps=steps, generator=generators, output_type="np").images


def draw_sd(pipeline: Any, steps: int) -> Any:
    embeddings = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(5))
    return pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=torch.zeros_like(embeddings),
        num_inference_steps=steps,
        height=16,
        width=16,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        output_type="np",
    ).images


KINDS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[int], nn.Module], str, Draw]] = {
    "class": (toys.class_pipeline, toys.tiny_dit, "transformer", draw_class),
    "dit": (toys.dit_pipeline, lambda seed: toys.tiny_dit(seed, classes=1000), "transformer", draw_dit),
    "sd": (toys.sd_pipeline, toys.tiny_unet, "unet", draw_sd),
}
OTHERS = (*schedulers.FLOW_SCHEDULERS, *schedulers.TRIGFLOW_SCHEDULERS, *schedulers.SHIFTING_SCHEDULERS, "lcm")
SAMPLERS = [(name, 6) for name in schedulers.SCHEDULERS if name not in OTHERS]
SAMPLERS += [("pndm", 50), ("lcm", 2), ("lcm", 4)]


def spied(denoiser: nn.Module, name: str, calls: list[str]) -> nn.Module:
    """An eye-witness of its own: notes each real forward of a denoiser, whatever the stitched denoiser says."""
    denoiser.register_forward_hook(lambda module, args, output: calls.append(name))
    return denoiser


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
def test_realised_equals_planned(kind: str, sampler: str, steps: int) -> None:
    make, denoiser, component, draw = KINDS[kind]
    calls: list[str] = []
    small, large = spied(denoiser(1), "small", calls), spied(denoiser(2), "large", calls)
    pipeline = make(large)
    pipeline.scheduler = schedulers.build(sampler, pipeline.scheduler.config)
    stitched = stitch(pipeline, component, {"small": small, "large": large}, "large")
    stitched.follow("large", lambda: planned_evaluations(pipeline))
    draw(pipeline, steps)
    counts = evaluations.per_step(pipeline.scheduler, steps, len(stitched.realised))
    for tenth in range(0, 11, 2):
        k = whole_steps((tenth, 10 - tenth), steps)
        planned = per_evaluation(tuple(zip(("small", "large"), k, strict=True)), counts)
        stitched.follow(planned, lambda: planned_evaluations(pipeline))
        calls.clear()
        draw(pipeline, steps)
        assert stitched.realised == planned
        assert tuple(calls) == planned


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["pndm", "ddpm", "heun", "dpm++-karras", "unipc", "euler-a"])
@pytest.mark.parametrize("only", ["small", "large"])
def test_one_denoiser_alone_is_bit_identical_to_plain_diffusers(kind: str, sampler: str, only: str) -> None:
    make, denoiser, component, draw = KINDS[kind]
    both = {"small": denoiser(1), "large": denoiser(2)}
    plain = make(both[only])
    plain.scheduler = schedulers.build(sampler, plain.scheduler.config)
    expected = draw(plain, 5)
    pipeline = make(both["large"])
    pipeline.scheduler = schedulers.build(sampler, pipeline.scheduler.config)
    stitched = stitch(pipeline, component, both, "large")
    stitched.follow(only, lambda: planned_evaluations(pipeline))
    for _ in range(2):
        assert np.array_equal(draw(pipeline, 5), expected)
    assert set(stitched.realised) == {only}


def test_a_stitched_picture_is_neither_of_the_two_alone() -> None:
    pictures = []
    for turns in (("small",) * 4, ("small", "small", "large", "large"), ("large",) * 4):
        pipeline = toys.class_pipeline(large := toys.tiny_dit(2))
        stitched = stitch(pipeline, "transformer", {"small": toys.tiny_dit(1), "large": large}, "large")
        stitched.follow(turns, lambda: 4)
        pictures.append(draw_class(pipeline, 4))
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def test_a_denoiser_called_twice_a_step_is_one_evaluation() -> None:
    pipeline = toys.class_pipeline(large := toys.tiny_dit(2))
    stitched = stitch(pipeline, "transformer", {"small": toys.tiny_dit(1), "large": large}, "large")
    stitched.follow(("small", "large", "small"), lambda: 3)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(3)
    x = torch.zeros(1, 4, 8, 8)
    for t in scheduler.timesteps:
        for _ in range(2):
            out = stitched(x, timestep=t.expand(1), class_labels=torch.tensor([0])).sample
        scheduler.step(out, t, x)
        scheduler.step(out, t, x)  # a pipeline that steps twice an iteration is still in the same evaluation
    assert stitched.realised == ("small", "large", "small")


def test_too_many_evaluations_are_refused() -> None:
    pipeline = toys.class_pipeline(large := toys.tiny_dit(2))
    stitched = stitch(pipeline, "transformer", {"small": toys.tiny_dit(1), "large": large}, "large")
    stitched.follow(("small", "large"), lambda: planned_evaluations(pipeline))
    with pytest.raises(UsageError, match="3 evaluations where the allocation has 2"):
        draw_class(pipeline, 3)


def test_it_is_the_host_to_whoever_asks() -> None:
    large = toys.tiny_dit(2, depth=2)
    pipeline = toys.class_pipeline(large)
    stitched = stitch(pipeline, "transformer", {"small": toys.tiny_dit(1), "large": large}, "large")
    assert isinstance(stitched, DiTTransformer2DModel)
    assert isinstance(stitched, StitchedDenoiser)
    assert stitched.config is large.config
    assert (stitched.dtype, stitched.device) == (large.dtype, large.device)
    stitched.to(torch.float64)
    assert {p.dtype for p in stitched.parameters()} == {torch.float64}
    with pytest.raises(AttributeError):
        stitched._hf_hook  # noqa: B018
    with pytest.raises(AttributeError):
        stitched.no_such_thing  # noqa: B018


@pytest.mark.parametrize("plain", [DDIMScheduler, PNDMScheduler, HeunDiscreteScheduler])
def test_the_scheduler_looks_as_before(plain: Any) -> None:
    pipeline = toys.class_pipeline(large := toys.tiny_dit(2))
    pipeline.scheduler = plain.from_config(pipeline.scheduler.config)
    stitch(pipeline, "transformer", {"large": large}, "large")
    assert isinstance(pipeline.scheduler, plain)
    assert type(pipeline.scheduler).__name__ == plain.__name__
    for method in ("step", "set_timesteps"):
        here = inspect.signature(getattr(pipeline.scheduler, method))
        assert list(here.parameters) == list(inspect.signature(getattr(plain(), method)).parameters)


@pytest.mark.parametrize(
    ("sampler", "steps", "expected"),
    [
        ("ddim", 4, (1, 1, 1, 1)),
        ("pndm", 4, (2, 1, 1, 1)),
        ("heun", 4, (2, 2, 2, 1)),
        ("lcm", 2, (1, 1)),
        ("pndm", 50, (2, *(1,) * 49)),
    ],
)
def test_evaluations_per_step(sampler: str, steps: int, expected: tuple[int, ...]) -> None:
    scheduler = schedulers.build(sampler, toys.noise().config)
    scheduler.set_timesteps(steps)
    assert evaluations.per_step(scheduler, steps, len(scheduler.timesteps)) == expected


def test_runge_kutta_start_of_pndm() -> None:
    scheduler = PNDMScheduler(skip_prk_steps=False)
    scheduler.set_timesteps(10)
    assert evaluations.per_step(scheduler, 10, len(scheduler.timesteps)) == (4, 4, 4, *(1,) * 7)


def test_a_second_order_pair_is_never_split() -> None:
    turns = per_evaluation((("small", 2), ("large", 2)), (2, 2, 2, 1))
    assert turns == ("small",) * 4 + ("large",) * 3


def test_an_unknown_way_to_spend_evaluations_is_refused() -> None:
    with pytest.raises(UsageError, match="makes 9 evaluations in 4 steps"):
        evaluations.per_step(toys.noise(), 4, 9)
