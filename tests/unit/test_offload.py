"""Parts in turn: who is on the device when, and that the profile charges what bringing them in takes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from torch import nn

from tests import toys
from tests.unit.test_stitching import draw_class
from tstitch_cli.denoisers import Family
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.profile import Effort, measure
from tstitch_cli.savings import offload
from tstitch_cli.stitching import planned_evaluations, stitch
from tstitch_cli.trajectory import Batch, run

COSTS = {"small": 0.01, "large": 0.1}
TRANSFER_S = {"small": 0.002, "large": 0.03, "vae": 0.5}
BATCH = Batch(("bag", "dress"), (0, 1))


class Recorder:
    """A second device that is none: it notes who comes and goes, and lets the transfer take its time."""

    def __init__(self, clock: toys.FakeClock, names: dict[int, str]) -> None:
        self.device = torch.device("cpu")
        self.clock, self.names = clock, names
        self.here: list[str] = []
        self.moves: list[str] = []
        self.most: set[frozenset[str]] = set()

    def bring(self, part: nn.Module) -> None:
        name = self.names[id(part)]
        assert name not in self.here
        self.here.append(name)
        self.moves.append(f"+{name}")
        self.most.add(frozenset(self.here))
        self.clock.advance(TRANSFER_S.get(name, 0.0))

    def release(self, part: nn.Module) -> None:
        name = self.names[id(part)]
        self.here.remove(name)
        self.moves.append(f"-{name}")


def offloaded(clock: toys.FakeClock, *, steps: int = 10) -> tuple[Family, Recorder]:
    made = toys.family(clock, COSTS, steps=steps)
    names = {id(part): name for name, part in made.denoisers.items()} | {id(made.pipeline.vae): "vae"}
    recorder = Recorder(clock, names)
    offload.install(made.pipeline, made.stitched, made.denoisers, recorder)
    return replace(made, setting=replace(made.setting, offload=True)), recorder


def test_one_part_is_on_the_device_at_a_time_and_who_runs_is_there() -> None:
    clock = toys.FakeClock()
    made, recorder = offloaded(clock)
    absent: list[str] = []
    for name, part in {**made.denoisers, "vae": made.pipeline.vae.decoder}.items():
        part.register_forward_pre_hook(lambda m, a, name=name: None if name in recorder.here else absent.append(name))
    for _ in range(2):
        run(made, BATCH, ("small",) * 4 + ("large",) * 5 + ("small",), clock)
    assert recorder.most == {frozenset({name}) for name in TRANSFER_S}
    assert absent == []


def test_the_transfer_lies_in_the_evaluation_that_takes_over() -> None:
    clock = toys.FakeClock()
    made, _ = offloaded(clock)
    run(made, BATCH, "small", clock)
    done = run(made, BATCH, ("small",) * 4 + ("large",) * 6, clock)
    expected = [0.012, 0.01, 0.01, 0.01, 0.13, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert done.evaluations_s == pytest.approx(expected)
    assert done.decode_s == pytest.approx(0.5)
    assert done.encode_s == pytest.approx(0.0)


def test_the_plan_charges_every_transfer() -> None:
    clock = toys.FakeClock()
    made, _ = offloaded(clock)
    profile = measure(made, BATCH, clock, Effort(max_time_s=1e9), now=lambda: clock.now)
    small, large = profile.denoisers
    assert (small.first_s.mean, large.first_s.mean) == pytest.approx((0.012, 0.13))
    assert (small.switch_s.mean, large.switch_s.mean) == pytest.approx((0.002, 0.03))
    assert profile.fixed.decode_s.mean == pytest.approx(0.5)
    for check in profile.validation:
        assert check.measured_s.mean == pytest.approx(check.predicted_s)
    model = CostModel(profile)
    for cut in range(1, 10):
        expected = 0.5 + 0.012 + 0.01 * (cut - 1) + 0.13 + 0.1 * (9 - cut)
        assert model.mean_s((("small", cut), ("large", 10 - cut))) == pytest.approx(expected)


def test_the_picture_is_that_of_a_resident_family() -> None:
    resident = toys.family(toys.FakeClock(), COSTS)
    made, _ = offloaded(toys.FakeClock())
    turns = ("small",) * 4 + ("large",) * 6
    pictures = []
    for each in (resident, made):
        each.stitched.follow(turns, partial(planned_evaluations, each.pipeline))
        pictures.append(draw_class(each.pipeline, 10))
        assert each.stitched.realised == turns
    assert np.array_equal(*pictures)


def test_transfers_keep_the_copy_that_waits() -> None:
    part = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    waiting = [tensor.data_ptr() for tensor in part.state_dict().values()]
    transfers = offload.Transfers(torch.device("cpu"))
    for _ in range(2):
        with torch.inference_mode():
            transfers.bring(part)
        assert not {tensor.data_ptr() for tensor in part.state_dict().values()} & set(waiting)
        with torch.inference_mode():
            transfers.release(part)
        assert [tensor.data_ptr() for tensor in part.state_dict().values()] == waiting
    assert all(torch.equal(tensor, before[name]) for name, tensor in part.state_dict().items())
    part(torch.zeros(1, 3)).sum().backward()  # still weights like any others


def test_what_runs_between_evaluations_stays_beside_the_denoiser() -> None:
    unet = toys.tiny_unet(2)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8)).eval()
    pipeline: Any = StableDiffusionControlNetPipeline(
        vae=toys.tiny_vae(3),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        controlnet=controlnet,
        scheduler=toys.noise(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    both = {"small": toys.tiny_unet(1), "large": unet}
    stitched = stitch(pipeline, "unet", both, "large")
    names = {id(part): name for name, part in both.items()} | {id(controlnet): "control", id(pipeline.vae): "vae"}
    recorder = Recorder(toys.FakeClock(), names)
    offload.install(pipeline, stitched, both, recorder)
    stitched.follow(("small", "small", "large", "large"), lambda: 4)
    embeddings = torch.zeros(1, 3, 8)
    pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=embeddings,
        image=torch.zeros(1, 3, 16, 16),
        num_inference_steps=4,
        height=16,
        width=16,
        output_type="np",
    )
    assert recorder.moves == ["+control", "+small", "-small", "+large", "-control", "-large", "+vae"]


def test_a_text_encoder_of_another_pipeline_takes_its_turn_too() -> None:
    clock = toys.FakeClock()
    made = toys.family(clock, COSTS)
    encoder = nn.Linear(2, 2)
    names = {id(part): name for name, part in made.denoisers.items()}
    recorder = Recorder(clock, names | {id(made.pipeline.vae): "vae", id(encoder): "text"})
    turns = offload.install(made.pipeline, made.stitched, made.denoisers, recorder)
    offload.join(turns, SimpleNamespace(components={"text_encoder": encoder, "tokenizer": object(), "vae": None}))
    for _ in range(2):
        encoder(torch.zeros(1, 2))
        run(made, BATCH, ("small",) * 4 + ("large",) * 6, clock)
    once = ["+text", "-text", "+small", "-small", "+large", "-large", "+vae"]
    assert recorder.moves == [*once, "-vae", *once]
