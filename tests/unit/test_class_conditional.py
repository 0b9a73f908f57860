"""The one class-conditional pipeline: the ImageNet denoisers stitched, and as diffusers' own pipeline draws them."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline

from tests import toys
from tstitch_cli import components, evaluations, schedulers
from tstitch_cli.allocation import per_evaluation, whole_steps
from tstitch_cli.clocks import clock_for
from tstitch_cli.denoisers import load
from tstitch_cli.errors import UsageError
from tstitch_cli.networks.class_conditional import ClassConditionalPipeline
from tstitch_cli.networks.models import model_class
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import planned_evaluations, stitch
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.entry import Component, Entry, class_numbers
from tstitch_cli.zoo.folders import from_folder
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo

# Small before large; the U-Nets differ in width and in the width of their labels, as LDM-S and LDM do.
PAIRS: dict[str, tuple[Entry, Entry]] = {
    "dit": (toys.tiny("dit-s-256", num_layers=1), toys.tiny("dit-xl-256")),
    "ldm": (
        toys.tiny(
            "ldm-s-256",
            block_out_channels=[4, 8, 8],
            attention_head_dim=[1, 2, 2],
            cross_attention_dim=4,
            layers_per_block=1,
        ),
        toys.tiny("ldm-256", layers_per_block=1),
    ),
    "u-vit": (toys.tiny("u-vit-h-256", num_layers=2), toys.tiny("u-vit-h-256")),
}


def denoisers(pair: str) -> dict[str, Any]:
    small, large = (toys.built(entry.architecture, seed) for seed, entry in enumerate(PAIRS[pair], 1))  # type: ignore[arg-type]
    return {"small": small, "large": large}


def draw(pipeline: Any, steps: int, guidance: float = 1.5) -> Any:
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return pipeline([1, 2], guidance, steps, generators, output_type="np").images


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 5), ("pndm", 5), ("heun", 3)])
def test_realised_equals_planned(pair: str, sampler: str, steps: int) -> None:
    both, calls = denoisers(pair), []
    for name, denoiser in both.items():
        denoiser.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    large = PAIRS[pair][1]
    pipeline = toys.imagenet_pipeline(large, both["large"])
    pipeline.scheduler = schedulers.build(sampler, pipeline.scheduler.config)
    stitched = stitch(pipeline, large.component, both, "large")
    pipeline.scheduler.set_timesteps(steps)
    counts = evaluations.per_step(pipeline.scheduler, steps, len(pipeline.scheduler.timesteps))
    for third in (1, 2):
        k = whole_steps((third, 3 - third), steps)
        planned = per_evaluation(tuple(zip(("small", "large"), k, strict=True)), counts)
        stitched.follow(planned, lambda: planned_evaluations(pipeline))
        calls.clear()
        pictures = draw(pipeline, steps)
        assert stitched.realised == planned
        assert tuple(calls) == planned
    assert pictures.shape == (2, 64, 64, 3)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("sampler", "guidance"), [("ddim", 3.0), ("dpm++", 1.0)])
def test_one_alone_is_bit_identical_to_its_plain_pipeline(pair: str, sampler: str, guidance: float) -> None:
    both = denoisers(pair)
    entries = dict(zip(both, PAIRS[pair], strict=True))
    pictures = {}
    for only, entry in entries.items():
        plain = toys.imagenet_pipeline(entry, both[only])
        plain.scheduler = schedulers.build(sampler, plain.scheduler.config)
        pictures[only] = draw(plain, 3, guidance)
        pipeline = toys.imagenet_pipeline(entries["large"], both["large"])
        pipeline.scheduler = schedulers.build(sampler, pipeline.scheduler.config)
        stitched = stitch(pipeline, entries["large"].component, both, "large")
        stitched.follow(only, functools.partial(planned_evaluations, pipeline))
        assert np.array_equal(draw(pipeline, 3, guidance), pictures[only])
        assert set(stitched.realised) == {only}
    assert not np.array_equal(pictures["small"], pictures["large"])


@pytest.mark.parametrize("name", ["dit-xl-256", "dit-s-256"])
@pytest.mark.parametrize("sampler", ["ddim", "pndm", "dpm++", "unipc"])  # those that begin with plain noise
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_dit_draws_what_diffusers_own_pipeline_draws(name: str, sampler: str, guidance: float) -> None:
    entry = toys.tiny(name, num_embeds_ada_norm=1000)  # DiTPipeline knows no other null class
    denoiser = toys.built(entry.architecture, 1)  # type: ignore[arg-type]
    assert denoiser.config.out_channels == 2 * denoiser.config.in_channels
    ours = toys.imagenet_pipeline(entry, denoiser)
    ours.scheduler = schedulers.build(sampler, ours.scheduler.config)
    scheduler = type(ours.scheduler).from_config(ours.scheduler.config)
    theirs = DiTPipeline(transformer=denoiser, vae=ours.vae, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        [1, 2],
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        num_inference_steps=5,
        output_type="np",
    ).images
    assert np.array_equal(draw(ours, 5, guidance), expected)


def test_a_folder_of_diffusers_own_dit_is_loaded_into_our_pipeline_with_its_class_names(tmp_path: Any) -> None:
    entry = toys.tiny("dit-xl-256", num_embeds_ada_norm=1000)
    plain = toys.imagenet_pipeline(entry, toys.built(entry.architecture, 1))  # type: ignore[arg-type]
    DiTPipeline(plain.transformer, plain.vae, plain.scheduler).save_pretrained(tmp_path / "DiT")
    index = json.loads((tmp_path / "DiT" / "model_index.json").read_text())
    labels = Zoo.load().entries["dit-xl-256"].conditioning.labels
    index["id2label"] = {str(number): label for number, label in enumerate(labels)}  # as in the published repository
    (tmp_path / "DiT" / "model_index.json").write_text(json.dumps(index))
    found = from_folder(tmp_path / "DiT")
    assert (found.pipeline, found.component) == ("ClassConditionalPipeline", "transformer")
    assert found.noise.learned_variance
    check([Zoo.load().entries["dit-s-256"], found])
    loaded = components.pipeline(found, components.denoiser(found, torch.float32), torch.float32)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(loaded, 3), draw(plain, 3))


@pytest.mark.parametrize("name", ["dit-s-256", "u-vit-h-256", "ldm-s-256"])
def test_a_saved_pipeline_is_read_back(name: str, tmp_path: Any) -> None:
    entry = toys.tiny(name)
    plain = toys.imagenet_pipeline(entry, toys.built(entry.architecture, 1))  # type: ignore[arg-type]
    plain.save_pretrained(tmp_path / "saved")
    found = from_folder(tmp_path / "saved")
    assert (found.component, found.latent_space.downscale) == (entry.component, 8)
    assert len(found.conditioning.labels) == toys.NULL_CLASS
    again = ClassConditionalPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert type(again.denoiser) is type(plain.denoiser)
    assert np.array_equal(draw(again, 2), draw(plain, 2))


def test_another_models_parts_get_the_noise_schedule_of_the_denoiser(tmp_path: Any) -> None:
    dit, u_vit = toys.tiny("dit-xl-256"), toys.tiny("u-vit-h-256")
    toys.imagenet_pipeline(dit, toys.built(dit.architecture, 1)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    denoiser = toys.built(u_vit.architecture, 1)  # type: ignore[arg-type]
    made = components.pipeline(replace(u_vit, parts=f"folder:{tmp_path}"), denoiser, torch.float32)
    config = made.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("scaled_linear", 0.00085, 0.012)
    assert made.transformer is denoiser


def built_on_meta(component: Component) -> Any:
    with torch.device("meta"):
        return model_class(component.model)(**component.config)


PUBLISHED = {"dit-s-256": 33, "dit-b-256": 130, "dit-xl-256": 675, "u-vit-h-256": 501, "ldm-256": 395, "ldm-s-256": 26}
"""Millions. The T-Stitch paper's 394 and 25 M of the U-Nets are without the table of labels: 0.5 and 0.3 M."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    entry = Zoo.load().entries[name]
    assert entry.architecture is not None
    model = built_on_meta(entry.architecture)
    count = sum(p.numel() for p in model.parameters())
    if entry.architecture.model.endswith(("DiT", "DiTTransformer2DModel")):
        # diffusers has the embedding of timestep and label in every block, the published figure has it once.
        blocks = model.transformer_blocks
        count -= (len(blocks) - 1) * sum(p.numel() for p in blocks[0].norm1.emb.parameters())
    assert count == entry.parameters
    assert round(count / 1e6) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "millions"), [("dit-xl-256", 83.7), ("u-vit-h-256", 83.7), ("ldm-256", 67.7)])
def test_autoencoders_fit_their_latent_space(name: str, millions: float) -> None:
    entry = Zoo.load().entries[name]
    vae = built_on_meta(entry.components["vae"])
    assert sum(p.numel() for p in vae.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    space = entry.latent_space
    assert (vae.config.latent_channels, vae.config.scaling_factor) == (space.channels, space.scaling_factor)
    assert 2 ** (len(vae.config.block_out_channels) - 1) == space.downscale
    assert entry.architecture is not None
    assert entry.architecture.config["sample_size"] * space.downscale == entry.defaults.size
    assert entry.architecture.config["in_channels"] == space.channels


def test_all_imagenet_denoisers_know_the_same_thousand_classes() -> None:
    entries = [Zoo.load().entries[name] for name in PUBLISHED]
    labels = entries[0].conditioning.labels
    assert {entry.conditioning.labels for entry in entries} == {labels}
    assert (len(labels), labels[0], labels[999].split(",")[0]) == (1000, "tench, Tinca tinca", "toilet tissue")


def test_a_class_is_meant_by_any_of_its_names_or_by_its_number() -> None:
    entry = Zoo.load().entries["dit-s-256"]
    asked = ["Tinca tinca", "tench, tinca tinca", "GOLDFISH", "maillot", "tank suit", "517", " 7 "]
    assert class_numbers(entry, asked) == [0, 0, 1, 638, 639, 517, 7]
    with pytest.raises(UsageError, match=r"crane.*134.*517") as caught:
        class_numbers(entry, ["crane"])
    assert "number" in str(caught.value.hint)
    for stranger in ("1000", "-1", "²", "", "9" * 5000):
        with pytest.raises(UsageError, match="no class"):
            class_numbers(entry, [stranger])


def test_what_is_no_known_class_is_not_made() -> None:
    strangers = ("Popen", "DiffusionPipeline", "", "os.system", "NoSuchScheduler")
    for name in (*strangers, "UNet3DConditionModel", "LlamaForCausalLM", "CLIPTokenizer"):
        with pytest.raises(UsageError, match="no class that tstitch runs"):
            model_class(name)
    assert model_class("DDIMScheduler").__name__ == "DDIMScheduler"


@pytest.mark.parametrize("names", [("dit-s-256", "dit-xl-256"), ("ldm-s-256", "ldm-256"), ("dit-s-256", "u-vit-h-256")])
def test_pairs_are_built_with_random_weights_and_run(names: tuple[str, str]) -> None:
    """The third pair is the paper's hard case: other noise schedules, so that one of them sits behind a bridge."""
    entries = [toys.tiny(name) for name in names]
    setting = Setting(4, "ddim", 1.5, batch_size=1, size=64, dtype="float32", device="cpu")
    loaded = load(entries, setting, random_weights=True)
    prompts = loaded.example_prompts(1)
    turns = (names[0], names[0], names[1], names[1])
    drawn = run(loaded, Batch(prompts, (0,)), turns, clock_for(torch.device("cpu")))
    assert drawn.realised == turns
    assert drawn.images[0].size == (64, 64)
