"""Denoisers that differ, loaded from folders into one pipeline: whose schedule runs, who knows what, who reads what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from tests import toys
from tests.tiny import tiny
from tests.toys import text_parts
from tstitch_cli.bridges.bridge import Bridge
from tstitch_cli.bridges.embeddings import _arguments
from tstitch_cli.bridges.matching import Frame, Match
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family, load
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.profile import Effort, measure
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.entry import Entry, Noise
from tstitch_cli.zoo.folders import from_folder

SETTING = Setting(5, "ddim", 3.0, batch_size=1, size=16, dtype="float32", device="cpu")
BATCH = Batch(("a fox",), (0,), negative_prompt="snow")
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sd": (SD, {}),
    "large": (SD, {"block_out_channels": (32, 64)}),
    "linear": (LINEAR, {"block_out_channels": (32, 64)}),
    "v": ({**SD, "prediction_type": "v_prediction"}, {}),
    "lcm": (SD, {"time_cond_proj_dim": 6}),
    "large-lcm": (SD, {"time_cond_proj_dim": 6, "block_out_channels": (32, 64)}),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """Tiny Stable Diffusions, all with one autoencoder, each with a text encoder of its own."""
    root = tmp_path_factory.mktemp("models")
    found = {}
    for i, (name, (noise, unet)) in enumerate(KINDS.items()):
        pipeline = toys.sd_pipeline(toys.tiny_unet(i, **unet))
        pipeline.scheduler = DDIMScheduler(**noise, clip_sample=False, timestep_spacing="trailing")
        pipeline.register_modules(**text_parts(root))
        with torch.no_grad():
            pipeline.text_encoder.get_input_embeddings().weight.mul_(1 + i)
        pipeline.save_pretrained(root / name)
        found[name] = from_folder(root / name)
    return found


def loaded(zoo: dict[str, Entry], small: str, large: str, setting: Setting = SETTING) -> Family:
    return load([zoo[small], zoo[large]], setting)


def draw(family: Family, turns: Sequence[str] | str, *, strict: bool = True) -> Any:
    return run(family, BATCH, turns, HostClock(), strict=strict)


def seen_by(family: Family, name: str) -> list[dict[str, Any]]:
    """The arguments of every call that the real denoiser `name` will get."""
    calls: list[dict[str, Any]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(dict(zip(("sample", "timestep"), args, strict=False)) | kwargs)

    family.denoisers[name].register_forward_pre_hook(note, with_kwargs=True)
    return calls


def test_what_agrees_gets_no_bridge(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "sd", "large")
    assert family.bridges == {}
    assert family.setting == SETTING
    assert [type(stage) for stage in family.stitched._stages] == [UNet2DConditionModel] * 2


def test_another_parametrisation_is_bridged_and_drawn(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "v", "large")
    assert list(family.bridges) == ["v"]
    calls = seen_by(family, "v")
    draw(family, ["v", "v", "large", "v", "large"])
    assert [int(call["timestep"]) for call in calls] == [999, 799, 399]
    assert family.knows((1,) * 5) == {"v": None}


def test_the_narrower_schedule_runs_whoever_is_larger(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "sd", "linear")
    assert family.setting.schedule == "sd"
    assert family.pipeline.scheduler.config.beta_schedule == "scaled_linear"
    assert list(family.bridges) == ["linear"]
    assert isinstance(family.stitched, UNet2DConditionModel)
    assert family.stitched.config is family.denoisers["linear"].config
    calls = seen_by(family, "linear")
    draw(family, ["linear"] * 3 + ["sd"] * 2)
    assert [round(float(call["timestep"])) for call in calls] == [727, 568, 422]
    assert family.knows((1,) * 5) == {"linear": None}


def test_the_plans_schedule_is_kept_and_steps_beyond_it_are_refused(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "sd", "linear", replace(SETTING, schedule="linear"))
    assert family.pipeline.scheduler.config.beta_schedule == "linear"
    draw(family, ["linear"] * 2 + ["sd"] * 3)
    assert family.knows((1,) * 5) == {"sd": (3, 5)}
    with pytest.raises(UsageError, match="sd does not know the noise at timestep 999"):
        draw(family, ["sd"] + ["linear"] * 4)
    assert draw(family, "sd", strict=False).images
    made = measure(family, BATCH, HostClock(), Effort(max_time_s=0.1))
    assert {d.name: (d.knows, d.embedding) for d in made.denoisers} == {
        "sd": ((3, 5), "linear"),
        "linear": (None, "linear"),
    }
    with pytest.raises(UsageError, match="noise schedule of gone"):
        loaded(zoo, "sd", "linear", replace(SETTING, schedule="gone"))


def test_a_zoo_that_says_what_the_scheduler_does_not_is_told(zoo: dict[str, Entry]) -> None:
    wrong = replace(zoo["large"], noise=replace(zoo["large"].noise, prediction="v_prediction"))
    with pytest.raises(BadFileError, match="prediction_type is epsilon, the entry says v_prediction"):
        load([zoo["sd"], wrong], SETTING)


def test_a_distilled_guest_in_a_guided_trajectory(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "lcm", "large")
    calls, plain = seen_by(family, "lcm"), seen_by(family, "large")
    draw(family, ["lcm"] * 2 + ["large"] * 3)
    assert [len(call["sample"]) for call in calls] == [1, 1]
    assert [len(call["sample"]) for call in plain] == [2, 2, 2]
    assert torch.equal(calls[0]["encoder_hidden_states"], plain[0]["encoder_hidden_states"][1:])
    expected = family.pipeline.get_guidance_scale_embedding(torch.tensor([2.0]), embedding_dim=6)
    assert torch.equal(calls[0]["timestep_cond"], expected)


def test_a_plain_guest_in_a_distilled_trajectory(zoo: dict[str, Entry]) -> None:
    family = loaded(zoo, "sd", "large-lcm")
    calls, distilled = seen_by(family, "sd"), seen_by(family, "large-lcm")
    draw(family, ["sd"] * 2 + ["large-lcm"] * 3)
    assert [len(call["sample"]) for call in calls] == [1, 1]
    assert calls[0].get("timestep_cond") is None
    assert distilled[0]["timestep_cond"].shape == (1, 6)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_denoiser_can_have_its_own_text_encoder(zoo: dict[str, Entry], guidance: float) -> None:
    setting, expected = replace(SETTING, guidance=guidance), {}
    for name in ("sd", "large"):
        plain = StableDiffusionPipeline.from_pretrained(zoo[name].source.removeprefix("folder:"))
        positive, negative = plain.encode_prompt(["a fox"], "cpu", 1, guidance > 1, ["snow"])
        expected[name] = positive if guidance == 1 else torch.cat([negative, positive])
    assert not torch.allclose(expected["sd"], expected["large"])
    for embeddings, whose in (("own", "sd"), (None, "large")):
        family = loaded(zoo, "sd", "large", replace(setting, embeddings=embeddings))
        assert [family.embedding_of(name) for name in ("sd", "large")] == [whose, "large"]
        small, large = seen_by(family, "sd"), seen_by(family, "large")
        draw(family, ["sd"] * 2 + ["large"] * 3)
        assert torch.equal(small[0]["encoder_hidden_states"], expected[whose])
        assert torch.equal(large[0]["encoder_hidden_states"], expected["large"])


class Told(nn.Module):
    """A denoiser that notes what it is told beside x and t."""

    def forward(self, sample: torch.Tensor, timestep: Any, **told: Any) -> tuple[torch.Tensor]:
        self.told = told
        return (sample,)


def test_pooled_embeddings_go_where_the_pipeline_puts_them() -> None:
    pos, neg, pooled, neg_pooled = (torch.full((1, 2), float(i)) for i in range(4))
    frame = Frame(Noise("epsilon", "linear", 1e-4, 0.02))
    for pipeline, place in (("StableDiffusionXLPipeline", "added_cond_kwargs"), ("StableDiffusion3Pipeline", None)):
        told = Told()
        bridge = Bridge(told, "guest", Match(frame, frame), arguments=("sample", "timestep"))
        bridge.embeddings = _arguments(type(pipeline, (), {})(), (pos, neg, pooled, neg_pooled))
        bridge(torch.ones(2, 1), torch.tensor(5), added_cond_kwargs={"text_embeds": pos, "time_ids": neg})
        assert torch.equal(told.told["encoder_hidden_states"], torch.cat([neg, pos]))
        found = told.told["added_cond_kwargs"]["text_embeds"] if place else told.told["pooled_projections"]
        assert torch.equal(found, torch.cat([neg_pooled, pooled]))
        assert told.told["added_cond_kwargs"]["time_ids"] is neg


def test_a_guest_that_knows_its_tokens_places_itself_is_not_told_them() -> None:
    """CogVideoX 2B in the trajectory of 5B: another noise schedule, another latent scale, positions of its own."""
    small, large = (tiny(name) for name in ("cogvideox-2b", "cogvideox-5b"))
    setting = Setting(3, "cogvideox-ddim", 6.0, 1, 64, "float32", "cpu", frames=9)
    family = load([small, large], setting, random_weights=True)
    assert set(family.bridges) == {small.name}
    calls = {name: seen_by(family, name) for name in family.denoisers}
    turns = (small.name, large.name, small.name)
    drawn = draw(family, turns)
    assert drawn.realised == turns
    assert len(drawn.frames[0]) == 9
    assert [call.get("image_rotary_emb") is None for call in calls[small.name]] == [True, True]
    assert [call.get("image_rotary_emb") is None for call in calls[large.name]] == [False]
    assert family.knows((1, 1, 1)) == {small.name: None}
    first, last = (float(call["timestep"][0]) for call in calls[small.name])
    assert first == 999  # pure noise
    assert last < float(family.pipeline.scheduler.timesteps[-1])  # its schedule is noisier, its latents are larger
    with pytest.raises(UsageError, match="has to be told where its tokens are"):
        load([replace(large, parameters=1), replace(small, noise=large.noise)], setting, random_weights=True)
    with pytest.raises(UsageError, match="does not fit cogvideox-2b"):
        load([replace(large, parameters=1, noise=small.noise), small], replace(setting, scheduler="ddim"))
