"""Pipelines of the true structure with random weights, at toy size: built, run, timed, and never drawn with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny import PAIRS, tiny
from tests.toys import FakeClock
from tstitch_cli.denoisers import Family, load
from tstitch_cli.errors import BadFileError, StaleError, UsageError
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.networks import random_weights
from tstitch_cli.profile import Effort, measure
from tstitch_cli.sample import draw, redraw, sweep
from tstitch_cli.schema import RANDOM_WEIGHTS, Setting
from tstitch_cli.stitching import planned_evaluations
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.entry import Component, Entry

OWN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "sana": {"use_resolution_binning": False},
    "pixart-sigma": {"use_resolution_binning": False},
    "sana-sprint": {"use_resolution_binning": False},
    "kandinsky5": {"num_frames": 5},
    "cogvideox": {"num_frames": 9},
    "wan": {"num_frames": 5},
}
"""What lets a pipeline draw at toy size."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket is opened and nothing is read from the hub's cache."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("random weights need no hub")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def built(entry: Entry, dtype: torch.dtype = torch.float32) -> Any:
    return random_weights.pipeline(entry, random_weights.denoiser(entry, dtype), dtype)


def loaded(family: str, dtype: str = "float32", steps: int = 3) -> Family:
    entries = [tiny(name) for name in PAIRS[family]]
    defaults = entries[-1].defaults
    own = "own" if entries[0].conditioning.width != entries[1].conditioning.width else None
    setting = Setting(steps, defaults.scheduler, defaults.guidance, 1, 64, dtype, "cpu", embeddings=own)
    return load(entries, setting, random_weights=True)


@pytest.mark.parametrize("family", PAIRS)
def test_every_pipeline_runs_stitched_on_what_the_zoo_knows(family: str) -> None:
    toy = loaded(family)
    small, large = PAIRS[family]
    count = {"pndm": 4}.get(toy.setting.scheduler, 3)
    planned = (small, *(large,) * (count - 1))
    toy.stitched.follow(planned, lambda: planned_evaluations(toy.pipeline))
    arguments = toy.call_arguments(["a lighthouse by the sea"], None, 3)
    arguments |= OWN_ARGUMENTS.get(family, {})
    with torch.inference_mode():
        drawn = toy.pipeline(**arguments, output_type="pt", generator=torch.Generator().manual_seed(0))[0]
    assert toy.stitched.realised == planned
    assert drawn.shape[-2:] == (64, 64)
    assert torch.isfinite(drawn).all()
    assert toy.weights == dict.fromkeys(PAIRS[family], RANDOM_WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PAIRS)
def test_parameters_are_all_filled_finite_and_not_denormal(family: str, dtype: torch.dtype) -> None:
    entry = tiny(PAIRS[family][1])
    pipeline = built(entry, dtype)
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    assert len(modules) >= 3
    for module in modules:
        assert not module.training
        for name, parameter in module.named_parameters():
            assert parameter.device.type == "cpu", name
            assert not parameter.requires_grad
            kept = {"wo", *(getattr(module, "_keep_in_fp32_modules", None) or ())} & {*name.split(".")}
            assert parameter.dtype == dtype or (parameter.dtype == torch.float32 and kept), name
            size = parameter.abs().float()
            assert torch.isfinite(size).all()
            assert ((size == 0) | (size >= torch.finfo(parameter.dtype).tiny)).all(), name
        assert not any(buffer.is_meta for buffer in module.buffers())


def test_buffers_are_those_of_the_library() -> None:
    """What is computed and not loaded (position ids, rotary frequencies) must not be lost with the weights."""
    entry = tiny("sana-1.6b")
    pipeline = built(entry)
    encoder = pipeline.text_encoder
    plain = type(encoder)(encoder.config)
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(encoder.named_buffers())[name]), name


def test_a_shared_weight_stays_one() -> None:
    entry = tiny("flux-dev")
    encoder = built(entry).text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


@pytest.mark.parametrize(("name", "tokens"), [("sd14", 77), ("flux-dev", 512), ("wan-14b", 512)])
def test_prompts_have_the_true_length(name: str, tokens: int) -> None:
    entry = tiny(name)
    pipeline = built(entry)
    tokenizer = pipeline.tokenizer_2 if name == "flux-dev" else pipeline.tokenizer
    assert tokenizer.model_max_length == tokens
    ids = tokenizer(["a fox", "a"], padding="max_length", truncation=True, return_tensors="pt")
    assert ids.input_ids.shape == (2, tokens)
    assert ids.attention_mask.sum(-1).tolist() == [3, 2]
    assert tokenizer("word " * 2000, truncation=True).input_ids.shape == (1, tokens)


def test_each_denoiser_has_a_text_encoder_of_its_own() -> None:
    entries = [tiny("bk-sdm-tiny"), tiny("sd21-base")]
    setting = Setting(3, "ddim", 7.5, 1, 64, "float32", "cpu", embeddings="own")
    toy = load(entries, setting, random_weights=True)
    widths: dict[str, int] = {}
    for name, denoiser in toy.denoisers.items():

        def note(module: Any, args: Any, kwargs: dict[str, Any], name: str = name) -> None:
            widths[name] = kwargs["encoder_hidden_states"].shape[-1]

        denoiser.register_forward_pre_hook(note, with_kwargs=True)
    run(toy, Batch(("a fox",), (0,)), ("bk-sdm-tiny", "sd21-base", "sd21-base"), FakeClock())
    assert widths == {"bk-sdm-tiny": 16, "sd21-base": 24}
    alone = random_weights.text_pipeline(entries[0], torch.float32)
    assert [name for name, part in alone.components.items() if isinstance(part, nn.Module)] == ["text_encoder"]


def test_prompt_and_guidance_that_are_encoded_apart_each_have_a_counterpart() -> None:
    """FLUX.2 calls for the two one after the other, with embeddings that are as wide as their text encoder."""
    toy = loaded("flux2-klein")
    small, large = PAIRS["flux2-klein"]
    given: dict[str, list[torch.Tensor]] = {small: [], large: []}
    for name, denoiser in toy.denoisers.items():

        def note(module: Any, args: Any, kwargs: dict[str, Any], name: str = name) -> None:
            given[name].append(kwargs["encoder_hidden_states"])

        denoiser.register_forward_pre_hook(note, with_kwargs=True)
    run(toy, Batch(("a fox",), (0,)), (small, large, large), FakeClock())
    alone = random_weights.text_pipeline(tiny(small), torch.float32)
    with torch.inference_mode():
        told, untold = (alone.encode_prompt([text])[0] for text in ("a fox", ""))
    assert [call.shape for call in given[small]] == [(1, 512, 24)] * 2
    assert torch.equal(given[small][0], told)
    assert torch.equal(given[small][1], untold)
    assert not torch.equal(told, untold)
    assert [call.shape for call in given[large]] == [(1, 512, 48)] * 4
    assert [d.guidance for d in toy.bridges.values()] == [None]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_sana_sprint_takes_its_own_second_timestep_with_two_steps_alone(steps: int) -> None:
    toy = loaded("sana-sprint", steps=steps)
    toy.stitched.follow(PAIRS["sana-sprint"][1], lambda: planned_evaluations(toy.pipeline))
    arguments = toy.call_arguments(["a fox"], None, steps) | OWN_ARGUMENTS["sana-sprint"]
    with torch.inference_mode():
        toy.pipeline(**arguments, output_type="latent", generator=torch.Generator().manual_seed(0))
    assert len(toy.stitched.realised) == steps
    timesteps = toy.pipeline.scheduler.timesteps
    assert len(timesteps) == steps + 1
    assert (float(timesteps[1]) == pytest.approx(1.3)) == (steps == 2)


def test_profiling_says_that_weights_were_random(tmp_path: Path) -> None:
    from tstitch_cli.clocks import clock_for
    from tstitch_cli.documents import read_profile, write_profile

    toy = loaded("stable-diffusion")
    batch = Batch(toy.example_prompts(1), (0,))
    made = measure(toy, batch, clock_for(toy.device), Effort(tolerance=0.5, max_time_s=0.5))
    assert made.origin == "measured"
    assert made.fingerprint is not None
    assert made.fingerprint.random
    assert made.fingerprint.weights == dict.fromkeys(PAIRS["stable-diffusion"], "random")
    assert {d.name: d.revision for d in made.denoisers} == {d.name: d.revision for d in toy.entries}
    write_profile(made, tmp_path / "random.yaml", overwrite=False)
    assert read_profile(tmp_path / "random.yaml") == made


def test_nothing_is_drawn_with_random_weights(tmp_path: Path) -> None:
    from tests.unit.test_sample import work_for

    toy, clock = loaded("stable-diffusion"), FakeClock()
    request = Request((Prompt("a fox"),), tmp_path)
    with pytest.raises(StaleError, match="random weights"):
        list(draw(toy, work_for(toy), request, clock))
    with pytest.raises(StaleError, match="random weights"):
        list(sweep(toy, work_for(toy), request.batches(1), clock))
    with pytest.raises(StaleError, match="random weights"):
        redraw(toy, None, clock)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert run(toy, Batch(("a fox",), (0,)), "sd14", clock).images  # the call itself is the one that is timed


def test_a_model_that_no_entry_describes_is_refused() -> None:
    nameless = replace(tiny("sd14"), architecture=None)
    with pytest.raises(UsageError, match="sd14: the zoo does not know its architecture"):
        random_weights.denoiser(nameless, torch.float32)


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        ("os", {}, "no class that tstitch runs"),
        ("AutoModel", {}, "no class that tstitch runs"),
        ("UNet3000", {}, "no class that tstitch runs"),
        ("PNDMScheduler", {}, "no denoiser"),
        ("UNet2DConditionModel", {"layers": 3}, "cannot be built"),
        ("UNet2DConditionModel", {"down_block_types": ["EvilBlock"]}, "cannot be built"),
        ("UNet2DConditionModel", {"block_out_channels": "wide"}, "cannot be built"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_told(model: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(BadFileError, match=said) as caught:
        random_weights.denoiser(replace(tiny("sd14"), architecture=Component(model, config)), torch.float32)
    assert "sd14" in caught.value.message


def test_a_pipeline_of_which_a_part_is_not_known_is_told() -> None:
    entry = tiny("sd14")
    entry = replace(entry, components={name: part for name, part in entry.components.items() if name != "vae"})
    with pytest.raises(BadFileError, match="does not know the vae of its pipeline"):
        random_weights.pipeline(entry, nn.Identity(), torch.float32)
