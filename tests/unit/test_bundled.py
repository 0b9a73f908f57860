"""Every bundled family: complete, small, in half precision, recorded, and loaded by diffusers without our help."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.benchmarks import figures
from tstitch_cli import components, denoisers
from tstitch_cli.clocks import HostClock
from tstitch_cli.commands import demo
from tstitch_cli.networks.models import model_class
from tstitch_cli.quality import captions
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch, noise_generator, run
from tstitch_cli.zoo.entry import Entry, class_numbers
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import BUNDLED, Zoo, is_here, path_of
from tstitch_cli.zoo.weights import header, parameters_in
from tstitch_cli.zoo.words import unknown

FAMILIES = sorted(index.parent.name for index in BUNDLED.glob("*/model_index.json"))
MOST_OF_A_FAMILY, MOST_OF_ALL = 50e6, 95e6
"""Bytes: the weights of one family, and what the wheel may have."""
PROMPTS = {"class": ("sneaker", "bag"), "text": ("a red sneaker on a yellow background", "two green bags")}

each_family = pytest.mark.parametrize("family", FAMILIES)


def members(family: str) -> list[Entry]:
    """Its denoisers, smallest first."""
    found = [e for e in Zoo.shipped().entries.values() if e.source.startswith(f"bundled:{family}/")]
    return sorted(found, key=lambda entry: entry.parameters or 0)


def folder_of(entry: Entry) -> Path:
    return path_of(entry.source) / entry.subfolder


def test_there_is_one_at_least() -> None:
    assert "fashion" in FAMILIES


@each_family
def test_the_zoo_names_every_denoiser_that_is_there_and_no_other(family: str) -> None:
    there = {config.parent.parent.name for config in (BUNDLED / family).glob("*/*/config.json")}
    assert {entry.source.rpartition("/")[2] for entry in members(family)} == there
    for entry in members(family):
        assert is_here(entry), entry.name
        assert (entry.parts, path_of(entry.source).name) == (f"bundled:{family}", entry.name)


@each_family
def test_its_weights_are_safetensors_in_half_precision(family: str) -> None:
    files = [path for path in (BUNDLED / family).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".npz", ".safetensors", ".txt", ".yaml"}
    for path in files:
        if path.suffix == ".safetensors":
            tensors = {name: told for name, told in header(path).items() if name != "__metadata__"}
            assert {told["dtype"] for told in tensors.values()} == {"F16"}, path


@each_family
def test_it_tells_how_it_was_trained(family: str) -> None:
    trained = {path_of(entry.source): parameters_in(folder_of(entry)) for entry in members(family)}
    trained |= {BUNDLED / family / part: 0 for part in ("vae", "classifier")}
    for folder, parameters in trained.items():
        record = yaml.safe_load((folder / "training.yaml").read_text(encoding="utf-8"))
        assert {"name", "schedule", "seconds", "final_loss", "data", "precision", "machine"} <= {*record}, folder
        assert record["parameters"] >= parameters, folder


@each_family
def test_its_weights_are_small(family: str) -> None:
    assert sum(path.stat().st_size for path in (BUNDLED / family).rglob("*.safetensors")) <= MOST_OF_A_FAMILY


def test_the_package_is_small() -> None:
    """Its files as they are; in the wheel they are compressed."""
    package = BUNDLED.parents[1]
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < MOST_OF_ALL


@each_family
def test_its_denoisers_have_as_many_parameters_as_the_zoo_says(family: str) -> None:
    for entry in members(family):
        config = json.loads((folder_of(entry) / "config.json").read_text())
        with torch.device("meta"):
            model = model_class(config["_class_name"]).from_config(config)
        assert sum(p.numel() for p in model.parameters()) == entry.parameters == parameters_in(folder_of(entry))


@each_family
def test_its_pipeline_draws_without_tstitch_what_it_draws_with_it(family: str) -> None:
    """The paper's r = 0 and r = 1: the pipeline that its index names, loaded by diffusers, is the reference."""
    small, *_, large = members(family)
    usual = large.defaults
    setting = Setting(usual.steps, usual.scheduler, usual.guidance, 2, usual.size, "float32", "cpu")
    stitched = denoisers.load([small, large], setting)
    prompts = PROMPTS[large.conditioning.kind]
    index = json.loads((BUNDLED / family / "model_index.json").read_text())
    kind = components.pipeline_class(index["_class_name"])
    for entry in (large, small):
        ours = run(stitched, Batch(prompts, (0, 1)), entry.name, HostClock()).images
        made = model_class(json.loads((folder_of(entry) / "config.json").read_text())["_class_name"])
        denoiser = made.from_pretrained(folder_of(entry), torch_dtype=torch.float32)
        plain = kind.from_pretrained(BUNDLED / family, torch_dtype=torch.float32, **{entry.component: denoiser})
        plain.set_progress_bar_config(disable=True)
        theirs = plain(
            **_what(large, prompts),
            num_inference_steps=usual.steps,
            guidance_scale=usual.guidance,
            generator=[noise_generator(0, i) for i in range(2)],
        ).images
        for our, their in zip(ours, theirs, strict=True):
            assert our.size == (usual.size, usual.size)
            assert np.array_equal(np.asarray(our), np.asarray(their)), entry.name


def _what(entry: Entry, prompts: tuple[str, ...]) -> dict[str, Any]:
    if entry.conditioning.kind == "class":
        return {"class_labels": class_numbers(entry, prompts)}
    return {"prompt": list(prompts)}


def test_the_text_family_is_stable_diffusion_in_small() -> None:
    entries = {entry.name: entry for entry in members("tiny-sd")}
    assert set(entries) == {"tiny-sd-small", "tiny-sd-base", "tiny-sd", "tiny-sd-ink"}
    sd = Zoo.shipped().entries["sd14"]
    for entry in entries.values():
        assert (entry.pipeline, entry.component, entry.noise) == (sd.pipeline, sd.component, sd.noise)
        defaults = entry.defaults
        assert (defaults.scheduler, defaults.steps, defaults.guidance, defaults.size) == ("pndm", 50, 3.0, 64)
    assert entries["tiny-sd-ink"].parameters == entries["tiny-sd"].parameters
    for pair in (("tiny-sd-small", "tiny-sd"), ("tiny-sd-small", "tiny-sd-base", "tiny-sd-ink")):
        check([Zoo.shipped().resolve(name) for name in pair])


def test_the_text_family_knows_the_words_of_its_captions() -> None:
    told = members("tiny-sd")[0].conditioning
    assert {*told.words} == {*captions.vocabulary()}
    seen = {text for scene in scenes() for text in captions.wordings(scene) if not scene.held_out}
    assert {*told.examples, *PROMPTS["text"], *demo.PROMPTS} <= seen
    assert {*figures.OPENING.prompts} <= {text for scene in scenes() for text in captions.wordings(scene)}
    assert unknown(members("tiny-sd")[0], ["a dinosaur on red"]) == ("dinosaur",)


def scenes() -> list[captions.Scene]:
    """All that there are."""
    kinds, colours = range(len(captions.NOUNS)), captions.NAMES
    return [captions.Scene(*each) for each in itertools.product(kinds, colours, colours, (1, 2))]


def test_the_readme_opens_with_the_text_family() -> None:
    sheet = figures.OPENING
    unseen = {text for scene in scenes() for text in captions.wordings(scene) if scene.held_out}
    assert {*sheet.prompts} & unseen == {"an orange pullover on a purple background"}
    plan = figures.sweep_plan(sheet)
    assert [d.name for d in plan.denoisers] == ["tiny-sd-small", "tiny-sd"]
    assert {name for name, _ in plan.rows[plan.chosen].allocation} == {"tiny-sd-small", "tiny-sd"}
    assert (plan.setting.scheduler, plan.evaluations) == ("pndm", ((2, 1), (1, 49)))
