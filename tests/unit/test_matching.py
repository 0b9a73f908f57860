"""Denoisers whose exact answer is known: wherever one takes over from another, the trajectory stays the same."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDPMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.unit.test_preflight import LARGE, SMALL
from tstitch_cli import schedulers
from tstitch_cli.bridges.bridge import Bridge, Form, Guidance
from tstitch_cli.bridges.matching import Frame, Match, known_steps, running
from tstitch_cli.errors import UsageError
from tstitch_cli.stitching import stitch
from tstitch_cli.zoo.entry import Noise

DIT = Noise("epsilon", "linear", 1e-4, 0.02)
SD = Noise("epsilon", "scaled_linear", 0.00085, 0.012)
COSINE = Noise("epsilon", "squaredcos_cap_v2", 1e-4, 0.02)
SIGMOID = Noise("epsilon", "sigmoid", 1e-4, 0.02)
FEW = Noise("epsilon", "linear", 1e-3, 0.2, train_steps=100)
FLOW = Noise("flow")
SD_V, SD_X0 = replace(SD, prediction="v_prediction"), replace(SD, prediction="sample")
SD_ZERO = replace(SD_V, zero_terminal_snr=True)
SHIFTED_1, SHIFTED_3 = (replace(SD_ZERO, snr_shift=shift) for shift in (1.0, 3.0))

MEAN, SPREAD = 0.7, 0.5
"""Of the data, every element of which is Gaussian; latents are these times the frame's scale."""
STEPS = 8


def config_of(noise: Noise) -> dict[str, Any]:
    return {"clip_sample": False, "timestep_spacing": "linspace", **schedulers.noise_config(noise)}


class Ideal(nn.Module):
    """The ideal denoiser of Gaussian data, on a schedule that diffusers computed."""

    def __init__(self, frame: Frame, *, variance: bool = False) -> None:
        super().__init__()
        self.noise, self.scale, self.variance = frame.noise, frame.scale, variance
        self.config: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        if frame.noise.prediction != "flow":
            of = DDPMScheduler if frame.noise.snr_shift is None else CogVideoXDDIMScheduler
            bar = of.from_config(config_of(frame.noise)).alphas_cumprod.double().clamp(min=2**-24)
            self.table = (0.5 * ((1 - bar).log() - bar.log())).tolist()

    def coefficients(self, t: float) -> tuple[float, float]:
        if self.noise.prediction == "flow":
            s = t / self.noise.train_steps
            return 1 - s, s
        low = min(max(int(t), 0), len(self.table) - 2)
        level = self.table[low] + (t - low) * (self.table[low + 1] - self.table[low])
        alpha = math.sqrt(1 / (1 + math.exp(2 * level)))
        return alpha, alpha * math.exp(level)

    def forward(
        self, sample: torch.Tensor, timestep: Any, timestep_cond: torch.Tensor | None = None, return_dict: bool = True
    ) -> Any:
        t = float(torch.as_tensor(timestep).reshape(-1)[0])
        self.calls.append({"timestep": t, "batch": len(sample), "timestep_cond": timestep_cond})
        alpha, sigma = self.coefficients(t)
        mean, variance = self.scale * MEAN, (self.scale * SPREAD) ** 2
        # The conditional mean of a Gaussian: the residual, shared out between data and noise by their variances.
        residual = (sample - alpha * mean) / (alpha**2 * variance + sigma**2)
        x0, noise = mean + alpha * variance * residual, sigma * residual
        out = {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, "flow": noise - x0}[
            self.noise.prediction
        ]
        out = torch.cat([out, torch.ones_like(out)], dim=1) if self.variance else out
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)


def draw(scheduler: Any, denoiser: Any) -> torch.Tensor:
    """As pipelines do it: set the timesteps, scale, call, step."""
    torch.manual_seed(0)
    scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(denoiser(scaled, t, return_dict=False)[0], t, x, return_dict=False)[0]
    return x


def worst(sampler: str, host: Frame, guest: Frame, *, bridged: bool = True) -> float:
    """The largest difference from the host alone, over all switches both ways within the steps the guest knows."""
    pipeline = SimpleNamespace(scheduler=schedulers.build(sampler, config_of(host.noise)))
    alone = draw(pipeline.scheduler, Ideal(host))
    timesteps = pipeline.scheduler.timesteps.tolist()
    match = Match(host, guest)
    known = known_steps(match, timesteps, (1,) * len(timesteps))
    assert known is not None
    first, last = known[0] - 1, known[1]
    assert last - first >= len(timesteps) / 3
    ideal: nn.Module = Ideal(guest)
    around = Bridge(ideal, "guest", match) if bridged else ideal
    stitched = stitch(pipeline, "unet", {"guest": around, "host": Ideal(host)}, "host")
    difference = 0.0
    for cut in range(first, last + 1):
        for start, end in ((first, cut), (cut, last)):
            turns = ["guest" if start <= i < end else "host" for i in range(len(timesteps))]
            stitched.follow(turns, lambda: len(timesteps))
            difference = max(difference, float((draw(pipeline.scheduler, stitched) - alone).abs().max()))
            assert stitched.realised == tuple(turns)
    return difference


PAIRS = {
    "v guest": (Frame(SD), Frame(SD_V)),
    "x0 guest": (Frame(SD), Frame(SD_X0)),
    "v host": (Frame(SD_V), Frame(SD)),
    "x0 host": (Frame(SD_X0), Frame(DIT)),
    "other betas": (Frame(SD), Frame(DIT)),
    "other scale": (Frame(SD, 0.18215), Frame(SD, 0.25)),
    "DiT in U-ViT's trajectory": (Frame(SD, 0.18215), Frame(DIT, 0.23)),
    "U-ViT in DiT's trajectory": (Frame(DIT, 0.18215), Frame(SD, 0.23)),
    "cosine": (Frame(DIT), Frame(COSINE)),
    "other timestep range": (Frame(SD), Frame(FEW)),
    "zero terminal SNR": (Frame(SD), Frame(SD_ZERO)),
    "flow guest": (Frame(SD, 0.5), Frame(FLOW, 0.4)),
}
SAMPLERS = ("ddim", "dpm++", "euler", "euler-karras", "heun", "pndm")
CASES = [(pair, sampler) for pair in PAIRS for sampler in SAMPLERS if (pair, sampler) != ("x0 host", "pndm")]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(("pair", "sampler"), CASES)
def test_the_trajectory_is_the_same_wherever_the_switch_is(pair: str, sampler: str) -> None:
    assert worst(sampler, *PAIRS[pair]) < 1e-4


@pytest.mark.parametrize("guest", [SHIFTED_1, SHIFTED_3], ids=["5B", "2B"])
@pytest.mark.parametrize("host", [SHIFTED_1, SHIFTED_3], ids=["in 5B's", "in 2B's"])
def test_shifted_ratios_that_end_in_pure_noise_and_another_scale(host: Noise, guest: Noise) -> None:
    """The case of CogVideoX: every step of a trailing schedule is known to both, the first included."""
    match = Match(Frame(host, 0.7), Frame(guest, 1.15258426))
    assert all(match.step(t).known for t in range(5, 1000))
    assert worst("cogvideox-ddim", match.host, match.guest) < 2e-4
    if host != guest:
        assert worst("cogvideox-ddim", match.host, match.guest, bridged=False) > 1e-2


def test_sigmoid_betas_too() -> None:
    assert worst("ddpm", Frame(SIGMOID), Frame(DIT)) < 1e-4


@pytest.mark.parametrize("guest", [SD, SD_V, DIT, SD_ZERO, COSINE])
def test_a_flow_host_too(guest: Noise) -> None:
    assert worst("flow-euler", Frame(FLOW, 0.9), Frame(guest, 0.5)) < 2e-3


@pytest.mark.parametrize("pair", PAIRS)
def test_without_the_bridge_it_is_another_trajectory(pair: str) -> None:
    assert worst("ddim", *PAIRS[pair], bridged=False) > 1e-2


NOISES = st.sampled_from([DIT, SD, COSINE, SIGMOID, FEW, FLOW, SD_V, SD_X0, SD_ZERO])
SCALES = st.sampled_from([0.13, 0.18215, 1.0])


@given(NOISES, st.floats(0, 1))
def test_a_level_and_its_timestep_are_inverse(noise: Noise, share: float) -> None:
    frame = Frame(noise)
    timestep = (0.001 + 0.998 * share) * (noise.train_steps - 1)
    assert frame.timestep(frame.level(timestep)) == pytest.approx(timestep, abs=1e-6)


@settings(deadline=None)
@given(NOISES, NOISES, SCALES, SCALES, st.floats(0.01, 0.99))
def test_there_and_back_is_where_one_began(a: Noise, b: Noise, one: float, other: float, share: float) -> None:
    host, guest = Frame(a, one), Frame(b, other)
    timestep = share * (a.train_steps - 1)
    there = Match(host, guest).step(timestep)
    if not there.known:
        return
    back = Match(guest, host).step(there.timestep)
    assert back.timestep == pytest.approx(timestep, abs=1e-4)
    assert there.x * back.x == pytest.approx(1, rel=1e-6)
    # The guest's bridge undone: p = from_x x + from_prediction (back.from_x x_guest + back.from_prediction p).
    assert there.from_prediction * back.from_prediction == pytest.approx(1, rel=1e-6)
    assert there.from_x + there.from_prediction * back.from_x * there.x == pytest.approx(0, abs=1e-4)


@given(NOISES, st.floats(0, 1))
def test_what_agrees_is_left_as_it_is(noise: Noise, share: float) -> None:
    match = Match(Frame(noise), Frame(noise))
    step = match.step(share * (noise.train_steps - 1))
    assert match.identical
    assert (step.timestep, step.known) == (share * (noise.train_steps - 1), True)


def test_dit_and_u_vit() -> None:
    # The paper's hard case: linear betas against Stable Diffusion's.
    to_dit = Match(Frame(SD), Frame(DIT))
    assert [round(to_dit.step(t).timestep) for t in (999, 801, 501, 201)] == [727, 570, 354, 164]
    to_u_vit = Match(Frame(DIT), Frame(SD))
    assert to_u_vit.step(727).known
    assert not any(to_u_vit.step(t).known for t in range(728, 1000))
    assert known_steps(to_u_vit, range(999, 0, -20), (1,) * 50) == (15, 50)
    assert known_steps(to_dit, range(999, 0, -20), (1,) * 50) == (1, 50)
    assert known_steps(Match(Frame(SD), Frame(DIT, 1e9)), [999, 1], (1, 1)) is None


def test_a_step_is_known_where_all_its_evaluations_are() -> None:
    assert known_steps(Match(Frame(DIT), Frame(SD)), [999, 728, 728, 727, 500], (2, 2, 1)) == (3, 3)


def test_the_schedule_that_loses_least_runs() -> None:
    dit, u_vit = replace(LARGE, noise=DIT), replace(SMALL, noise=SD)
    even = range(999, 0, -20)
    for candidates in ([dit, u_vit], [u_vit, dit]):
        assert running(candidates, candidates, 0.18215, lambda entry: even) is u_vit
    v = replace(SMALL, noise=SD_V)
    assert running([u_vit, v], [u_vit, v], 0.18215, lambda entry: even) is v


def test_unknown_noise_is_refused_unless_nobody_looks() -> None:
    bridge = Bridge(Ideal(Frame(SD)), "u-vit", Match(Frame(DIT), Frame(SD)))
    x = torch.ones(1, 2, 2, 2)
    with pytest.raises(UsageError, match="u-vit does not know the noise at timestep 900"):
        bridge(x, torch.tensor(900))
    bridge.strict = False
    assert torch.isfinite(bridge(x, torch.tensor(900)).sample).all()
    flow = Bridge(Ideal(Frame(SD)), "sd", Match(Frame(FLOW), Frame(SD)))
    flow.strict = False
    assert torch.isfinite(flow(x, torch.tensor(1000.0)).sample).all()


@pytest.mark.parametrize(("host", "guest"), [(True, False), (False, True), (True, True), (False, False)])
def test_learned_variance_is_cut_off_or_made_up(host: bool, guest: bool) -> None:
    x, t = torch.ones(2, 4, 2, 2), torch.tensor(500)
    ideal = Ideal(Frame(SD_V), variance=guest)
    forms = Form(learned_variance=host), Form(learned_variance=guest)
    out = Bridge(ideal, "guest", Match(Frame(SD), Frame(SD_V)), host=forms[0], guest=forms[1])(x, t).sample
    assert out.shape == (2, 8 if host else 4, 2, 2)
    torch.testing.assert_close(out[:, :4], Ideal(Frame(SD))(x, t).sample)
    if host:
        assert torch.equal(out[:, 4:], torch.full((2, 4, 2, 2), float(guest)))


def test_a_distilled_guest_gets_the_guidance_and_the_conditional_half() -> None:
    ideal = Ideal(Frame(SD))
    guidance = Guidance(lambda count: torch.full((count, 3), 7.5), halves=True)
    bridge = Bridge(ideal, "lcm", Match(Frame(SD), Frame(SD)), guest=Form(guidance="timestep_cond"), guidance=guidance)
    x = torch.arange(4.0).reshape(4, 1, 1, 1)
    out = bridge(x, torch.tensor(500).expand(4), timestep_cond=None).sample
    assert ideal.calls[0]["batch"] == 2
    assert torch.equal(ideal.calls[0]["timestep_cond"], torch.full((2, 3), 7.5))
    assert torch.equal(out[:2], out[2:])
    assert torch.equal(out[2:], Ideal(Frame(SD))(x[2:], torch.tensor(500)).sample)


def test_a_plain_guest_of_a_distilled_host_goes_without_the_guidance() -> None:
    ideal = Ideal(Frame(SD))
    bridge = Bridge(ideal, "plain", Match(Frame(SD), Frame(SD)), host=Form(guidance="timestep_cond"))
    bridge(torch.ones(1, 1, 1, 1), torch.tensor(500), timestep_cond=torch.ones(1, 3), return_dict=False)
    assert ideal.calls[0]["timestep_cond"] is None


@pytest.mark.parametrize(("host", "guest"), [(1.0, 1e-3), (1e-3, 1.0), (1e-3, 1e-3), (0.5, 1.0)])
def test_time_is_told_in_the_guests_unit(host: float, guest: float) -> None:
    ideal = Ideal(Frame(FLOW))
    bridge = Bridge(ideal, "guest", Match(Frame(FLOW), Frame(FLOW)), host=Form(host), guest=Form(guest))
    for shown in (torch.tensor([400.0 * host, 400.0 * host]), torch.tensor(400.0 * host), 400.0 * host):
        bridge(torch.ones(2, 1, 1, 1), shown)
    assert [call["timestep"] for call in ideal.calls] == pytest.approx([400 * guest] * 3)


def test_a_bridge_is_its_denoiser_to_whoever_asks() -> None:
    ideal = Ideal(Frame(SD))
    bridge = Bridge(ideal, "guest", Match(Frame(DIT), Frame(SD)))
    assert isinstance(bridge, Ideal)
    assert isinstance(bridge, Bridge)
    assert bridge.config is ideal.config
    for absent in ("_hf_hook", "no_such_thing"):
        with pytest.raises(AttributeError):
            getattr(bridge, absent)
    seen: list[Any] = []
    ideal.register_forward_pre_hook(lambda module, args: seen.append(module))
    bridge(torch.ones(1, 2, 2, 2), torch.tensor(10))
    assert seen == [ideal]
