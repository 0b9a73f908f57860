"""Agreement: measured exactly where the answer is known, and the loss that is predicted from it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from tests import pipelines, toys
from tests.builders import measured
from tests.toys import FakeClock, family
from tstitch_cli import documents, schedulers
from tstitch_cli.allocation import runs
from tstitch_cli.bridges import noise_levels
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.measuring import agreement
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.objectives import least_loss, loss_of, most_compute, named, not_worth_their_time
from tstitch_cli.profile import Effort, measure
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Agreement, Closeness, Profile
from tstitch_cli.stitching import stitch
from tstitch_cli.trajectory import Batch, run

BATCH = Batch(("bag", "dress"), (0, 1))
STEPS = 10


class Scaled(nn.Module):
    """A denoiser that answers `factor` times what another does."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor, self.config = inner, factor, inner.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(*args, **kwargs)
        if isinstance(output, tuple):
            return (output[0] * self.factor,)
        return type(output)(sample=output.sample * self.factor)


def scaled_family(factor: float, scheduler: str = "ddim", guidance: float = 1.5) -> Family:
    toy = family(FakeClock(), {"small": 0.01, "large": 0.1}, scheduler=scheduler, steps=STEPS)
    large = toy.denoisers["large"]
    denoisers = {"small": Scaled(deepcopy(large), factor), "large": large}
    pipeline = toys.class_pipeline(large)
    pipeline.scheduler = schedulers.build(scheduler, pipeline.scheduler.config)
    stitched = stitch(pipeline, "transformer", denoisers, "large")
    setting = replace(toy.setting, guidance=guidance)
    return replace(toy, denoisers=denoisers, pipeline=pipeline, stitched=stitched, setting=setting)


def measured_of(toy: Family, counts: tuple[int, ...] = (1,) * STEPS) -> Agreement:
    found = agreement.measure(toy, [BATCH], counts)
    assert found is not None
    return found


class Sprint(Family):
    """Sana-Sprint, called with embeddings in place of prompts."""

    def call_arguments(self, prompts: Any, negative: Any, steps: int, pictures: Any = None) -> dict[str, Any]:
        return pipelines.KINDS["sana-sprint"].given() | {"num_inference_steps": steps}


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_what_is_made_of_a_flow_and_the_latents_is_compared_as_trigflow(factor: float) -> None:
    """By the formula of arXiv 2503.09641, section 3.1: v = ((1 - 2s) x + (1 - 2s + 2s^2) F) / sqrt(s^2 + (1 - s)^2)."""
    like, kind, steps = scaled_family(factor), pipelines.KINDS["sana-sprint"], 4
    large = kind.denoiser(2)
    denoisers = {"small": Scaled(deepcopy(large), factor), "large": large}
    pipeline = kind.make(large)
    stitched = stitch(pipeline, kind.component, denoisers, "large")
    setting = replace(like.setting, scheduler="scm", steps=steps)
    toy = Sprint(like.entries, like.weights, denoisers, pipeline, stitched, setting, like.device)
    flows: list[torch.Tensor] = []
    large.register_forward_hook(lambda module, args, output: flows.append(output[0]))
    found = measured_of(toy, (1,) * steps)
    angles = pipeline.scheduler.timesteps[:-1].double()
    s = angles.sin() / (angles.sin() + angles.cos())
    of_flow = (1 - 2 * s + 2 * s**2) / (s**2 + (1 - s) ** 2).sqrt() * pipeline.scheduler.config.sigma_data
    expected = [
        [
            float(abs(factor - 1) * c * flow.double()[i].square().mean().sqrt())
            for c, flow in zip(of_flow, flows, strict=True)
        ]
        for i in range(2)
    ]
    assert np.asarray(found.denoisers["small"].rms) == pytest.approx(np.asarray(expected), rel=1e-3, abs=1e-5)
    # x = cos(t) x0 + sin(t) noise, at half the deviation, is what v turns towards x0.
    turned = torch.sin(pipeline.scheduler.timesteps[:-1] - pipeline.scheduler.timesteps[1:])
    assert found.weights == pytest.approx((2 * turned).tolist(), rel=1e-3)


@pytest.mark.parametrize("guidance", [1.0, 1.5, 7.5])
def test_a_copy_agrees_wholly(guidance: float) -> None:
    close = measured_of(scaled_family(1.0, guidance=guidance)).denoisers["small"]
    assert close.cosine == pytest.approx((1.0,) * STEPS)
    assert np.asarray(close.rms) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("guidance", [1.0, 1.5, 7.5])
@pytest.mark.parametrize("scheduler", ["ddim", "heun", "pndm", "dpm++"])
def test_the_difference_is_that_of_the_guided_predictions(scheduler: str, guidance: float) -> None:
    toy = scaled_family(3.0, scheduler, guidance)
    given: list[torch.Tensor] = []
    plain = toy.pipeline.scheduler.step

    def step(output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(output.clone())
        return plain(output, *args, **kwargs)

    toy.pipeline.scheduler.step = step
    try:
        run(toy, BATCH, "large", FakeClock())
    finally:
        del toy.pipeline.scheduler.step
    counts = {"heun": (2,) * (STEPS - 1) + (1,), "pndm": (2,) + (1,) * (STEPS - 1)}.get(scheduler, (1,) * STEPS)
    close = measured_of(toy, counts).denoisers["small"]
    norms = torch.stack([each.flatten(1).square().mean(dim=1).sqrt() for each in given]).numpy()
    ends = np.cumsum(counts)
    expected = [2.0 * norms[b - n : b].mean(axis=0) for n, b in zip(counts, ends, strict=True)]
    assert pytest.approx(np.stack(expected), rel=1e-3) == np.asarray(close.rms).T
    assert close.cosine == pytest.approx((1.0,) * STEPS, abs=1e-4)


def test_measuring_leaves_the_family_as_it_was() -> None:
    toy = scaled_family(3.0)
    before = run(toy, BATCH, "large", FakeClock()).images
    measured_of(toy)
    assert "step" not in vars(toy.pipeline.scheduler)
    after = run(toy, BATCH, "large", FakeClock())
    assert [np.asarray(image).tolist() for image in after.images] == [np.asarray(image).tolist() for image in before]


def test_guidance_that_is_not_linear_gives_no_agreement() -> None:
    toy = scaled_family(3.0)
    toy.stitched.register_forward_hook(lambda module, args, output: type(output)(sample=output.sample.square()))
    assert agreement.measure(toy, [BATCH], (1,) * STEPS) is None


@pytest.mark.parametrize("at", [0, 20, 50, 90, 98])
def test_a_weight_is_how_far_an_error_moves_the_final_latent(at: int) -> None:
    """On unit-variance Gaussian data the ideal denoiser is known: eps = sigma x."""
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    scheduler.set_timesteps(100)
    levels = noise_levels.of_trajectory(scheduler)
    weights = agreement.step_weights(levels, np.arange(100), "epsilon")

    def final(error: float) -> float:
        x = torch.tensor([1.3], dtype=torch.float64)
        for i, t in enumerate(scheduler.timesteps):
            eps = levels[i, 1] * x + (error if i == at else 0.0)
            x = scheduler.step(eps, int(t), x).prev_sample
        return float(x)

    assert abs(final(0.01) - final(0.0)) / 0.01 == pytest.approx(weights[at], rel=0.06)


@pytest.mark.parametrize(("name", "kind"), [("v_prediction", "v"), ("sample", "x0")])
def test_weights_of_other_predictions_are_the_same_error_in_other_units(name: str, kind: str) -> None:
    levels = _levels()
    eps = agreement.step_weights(levels, np.arange(len(levels) - 1), "epsilon")
    other = agreement.step_weights(levels, np.arange(len(levels) - 1), name)
    alpha, sigma = levels[:-1].T
    assert other == pytest.approx(eps * (alpha if kind == "v" else alpha / sigma))


def _levels() -> noise_levels.Levels:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(20)
    return noise_levels.of_trajectory(scheduler)


def test_image_to_image_has_the_weights_of_its_own_steps() -> None:
    """diffusers keeps all timesteps and runs the last ones."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    whole = agreement.step_weights(agreement.levels_run(scheduler, (1,) * 10), np.arange(10), "epsilon")
    half = agreement.step_weights(agreement.levels_run(scheduler, (1,) * 5), np.arange(5), "epsilon")
    assert half == pytest.approx(whole[5:])


def test_flow_weights_are_finite_from_pure_noise_on() -> None:
    scheduler = schedulers.build("flow-euler", {"shift": 3.0})
    scheduler.set_timesteps(8)
    levels = noise_levels.of_trajectory(scheduler)
    assert levels[0] == pytest.approx((0.0, 1.0))
    weights = agreement.step_weights(levels, np.arange(8), "flow")
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


@pytest.mark.parametrize("name", [n for n in schedulers.SCHEDULERS if n != "lcm"])
def test_every_scheduler_tells_falling_noise(name: str) -> None:
    flow = {"shift": 3.0, "num_train_timesteps": 1000}
    angles = name in schedulers.TRIGFLOW_SCHEDULERS
    scheduler = schedulers.build(name, {} if angles else flow if name.startswith("flow") else toys.noise().config)
    scheduler.set_timesteps(12, **({"intermediate_timesteps": None} if angles else {}))
    levels = noise_levels.of_trajectory(scheduler)
    assert levels.shape == (12 + 1 if angles else len(scheduler.timesteps) + 1, 2)
    parts = levels if name.startswith("flow") else np.square(levels)
    assert parts.sum(axis=1) == pytest.approx(1.0)
    assert (np.diff(levels[:, 1]) <= 1e-9).all()
    assert levels[0, 1] > 0.99


def test_a_profile_measures_it_for_the_time_of_three_large_trajectories() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 0.01, "middle": 0.03, "large": 0.1})
    without = measure(toy, BATCH, clock, Effort(max_time_s=1e9, agreement=False), now=lambda: clock.now)
    assert without.agreement is None
    began = clock.now
    measure(toy, BATCH, clock, Effort(max_time_s=1e9, agreement=False), now=lambda: clock.now)
    plain_s, began = clock.now - began, clock.now
    made = measure(toy, BATCH, clock, Effort(max_time_s=1e9), now=lambda: clock.now)
    assert 0 < clock.now - began - plain_s <= 3 * 10 * 0.1 + 1e-6
    assert made.agreement is not None
    assert (made.agreement.largest, set(made.agreement.denoisers)) == ("large", {"small", "middle"})
    assert len(made.agreement.weights) == 10
    # Two trajectories of all three fit into three of the largest, of two pictures each.
    assert len(made.agreement.denoisers["small"].rms) == 4


def agreeing(small: float, base: float) -> Profile:
    """A profile of three whose smaller two differ from the largest by so much at every step."""
    profile = measured()
    steps = profile.setting.steps
    names = [d.name for d in profile.denoisers]

    def close(rms: float) -> Closeness:
        return Closeness((0.9,) * steps, (0.01,) * steps, ((rms,) * steps, (rms * 1.1,) * steps))

    weights = tuple(0.1 + 0.01 * t for t in range(steps))
    return replace(
        profile, agreement=Agreement(names[-1], weights, dict(zip(names, map(close, (small, base)), strict=False)))
    )


def test_the_loss_of_rows_is_that_of_their_allocations() -> None:
    profile = agreeing(0.5, 0.2)
    assert profile.agreement is not None
    names = [d.name for d in profile.denoisers]
    total = profile.setting.steps
    rows = np.array([[a, b, total - a - b] for a in range(total + 1) for b in range(total + 1 - a)])
    fast = least_loss(profile, rows)
    for row, value in zip(rows, fast, strict=True):
        assert -value == pytest.approx(loss_of(profile.agreement, runs(names, row)).mean(), abs=1e-9)
    assert fast[np.all(rows == [0, 0, total], axis=1)] == 0.0


def test_a_plan_goes_by_loss_where_it_is_known_and_avoids_what_is_not_worth_its_time() -> None:
    profile = agreeing(0.2, 0.5)
    names = [d.name for d in profile.denoisers]
    assert not_worth_their_time(profile) == {names[1]: names[0]}
    plan = make_plan(profile, budget=parse_budget("60%"))
    assert plan.objective == "least_loss"
    assert plan.rows[plan.chosen].steps[names[1]] == 0
    by_compute = make_plan(profile, budget=parse_budget("60%"), objective=most_compute)
    assert by_compute.objective == "most_compute"
    assert by_compute.rows[by_compute.chosen].loss is not None
    losses = [row.loss for row in plan.rows if row.feasible and row.loss is not None]
    assert plan.rows[plan.chosen].loss == min(losses)
    assert make_plan(measured(), budget=parse_budget("60%")).objective == "most_compute"
    with pytest.raises(UsageError, match="no agreement"):
        make_plan(measured(), budget=parse_budget("60%"), objective=named("agreement"))
    with pytest.raises(UsageError, match="nothing to maximise"):
        named("beauty")


def test_it_is_written_and_read_again_and_its_faults_are_told(tmp_path: Path) -> None:
    profile, path = agreeing(0.5, 0.2), tmp_path / "p.yaml"
    documents.write_profile(profile, path, overwrite=False)
    assert documents.read_profile(path).agreement == profile.agreement
    assert profile.agreement is not None
    broken = replace(profile.agreement, largest="nobody", weights=profile.agreement.weights[1:])
    with pytest.raises(BadFileError, match=r"no denoiser of the profile(.|\n)*each of the"):
        documents.write_profile(replace(profile, agreement=broken), path, overwrite=True)
