"""Entries derived from diffusers folders and hub repositories, hostile ones too."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.zoo.folders import from_folder
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo, is_here

FILES: dict[str, dict[str, Any]] = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.20.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
        "text_encoder": ["transformers", "CLIPTextModel"],
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 64,
        "cross_attention_dim": 768,
    },
    # Older than the key scaling_factor, as Stable Diffusion 1.4's own.
    "vae/config.json": {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [1, 2, 4, 4]},
    "scheduler/scheduler_config.json": {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "trained_betas": None,
    },
}


def put(folder: Path, path: str, content: Any) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TSTITCH_ZOO", raising=False)
    for path, content in FILES.items():
        put(tmp_path / "my-tiny", path, content)
    return tmp_path / "my-tiny"


def test_a_stable_diffusion_folder_is_stitched_with_the_zoos_stable_diffusion(folder: Path) -> None:
    zoo = Zoo.load()
    entry = zoo.resolve(str(folder))
    assert (entry.name, entry.source, entry.parts) == ("my-tiny", f"folder:{folder}", f"folder:{folder}")
    assert entry.latent_space == zoo.entries["sd14"].latent_space
    assert entry.defaults == zoo.entries["sd14"].defaults
    check([entry, zoo.entries["sd14"]])
    assert zoo.resolve(f"folder:{folder}") == entry
    assert not is_here(entry)


def test_what_lies_in_a_known_latent_space_is_told_in_the_words_known_for_it(folder: Path) -> None:
    zoo = Zoo.load()
    told = replace(zoo.entries["sd14"].conditioning, words=("a", "fox"), examples=("a fox",))
    zoo = Zoo({"few": replace(zoo.entries["sd14"], name="few", conditioning=told)})
    assert zoo.resolve(str(folder)).conditioning == told
    put(folder, "unet/config.json", {**FILES["unet/config.json"], "cross_attention_dim": 1024})
    assert zoo.resolve(str(folder)).conditioning.words == ()


def test_values_are_read_from_the_configs(folder: Path) -> None:
    put(folder, "vae/config.json", {**FILES["vae/config.json"], "block_out_channels": [1, 2, 4], "scaling_factor": 0.5})
    changes = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "beta_end": 0.02}
    put(folder, "scheduler/scheduler_config.json", {**FILES["scheduler/scheduler_config.json"], **changes})
    put(
        folder,
        "unet/config.json",
        {**FILES["unet/config.json"], "cross_attention_dim": 1024, "time_cond_proj_dim": 256},
    )
    entry = from_folder(folder)
    space = entry.latent_space
    assert (space.name, space.channels, space.downscale, space.scaling_factor) == ("f4-c4-0.5", 4, 4, 0.5)
    assert (entry.noise.prediction, entry.noise.beta_end, entry.defaults.scheduler) == ("v_prediction", 0.02, "euler")
    assert (entry.conditioning.width, entry.conditioning.guidance_embedding) == (1024, True)
    assert entry.defaults.size == 256


def test_flow_matching_has_no_betas_and_flux_packs_its_channels(tmp_path: Path) -> None:
    parts = {"transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    scheduler = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    put(tmp_path, "model_index.json", {"_class_name": "FluxPipeline", **parts, **scheduler})
    config = {"in_channels": 64, "joint_attention_dim": 4096, "guidance_embeds": True}
    put(tmp_path, "transformer/config.json", config)
    vae = {"_class_name": "AutoencoderKL", "latent_channels": 16, "block_out_channels": [1, 2, 4, 4]}
    put(tmp_path, "vae/config.json", {**vae, "scaling_factor": 0.3611, "shift_factor": 0.1159})
    put(tmp_path, "scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    entry = from_folder(tmp_path)
    assert (entry.noise.prediction, entry.noise.beta_schedule, entry.defaults.size) == ("flow", None, 1024)
    assert (entry.latent_space.channels, entry.latent_space.shift_factor) == (16, 0.1159)
    assert entry.conditioning.guidance_embedding


def test_a_folder_that_diffusers_saved_is_read_and_counted(tmp_path: Path) -> None:
    from tests.toys import class_pipeline, tiny_dit

    model = tiny_dit(1)
    class_pipeline(model).save_pretrained(tmp_path / "toy")
    entry = from_folder(tmp_path / "toy")
    assert (entry.pipeline, entry.component, entry.conditioning.kind) == (
        "ClassConditionalPipeline",
        "transformer",
        "class",
    )
    assert entry.conditioning.labels == tuple("0123456789")
    assert (entry.latent_space.downscale, entry.defaults.size, entry.defaults.scheduler) == (2, 16, "ddim")
    assert entry.noise.beta_schedule == "linear"
    assert entry.parameters == sum(value.numel() for value in model.state_dict().values())
    assert is_here(entry)


def test_a_denoiser_alone_takes_the_other_parts_from_the_folder_it_lies_in(folder: Path) -> None:
    """As `tstitch train` leaves what it trains; what is told the guidance scale draws in few steps."""
    put(folder, "many/unet/config.json", FILES["unet/config.json"])
    put(folder, "few/unet/config.json", {**FILES["unet/config.json"], "time_cond_proj_dim": 64})
    whole, many, few = (from_folder(path) for path in (folder, folder / "many", folder / "few"))
    assert (few.name, few.source, few.parts) == ("few", f"folder:{folder / 'few'}", f"folder:{folder}")
    assert (many.defaults, many.noise, many.latent_space) == (whole.defaults, whole.noise, whole.latent_space)
    defaults = few.defaults
    assert (defaults.scheduler, defaults.steps, defaults.guidance, defaults.size) == ("lcm", 4, 8.5, 512)
    check([many, few])


@pytest.mark.parametrize("part", ["vae", "unet", "nothing"])
def test_what_lies_in_a_pipelines_folder_and_is_no_denoiser_is_refused(folder: Path, part: str) -> None:
    (folder / "nothing").mkdir()
    with pytest.raises(BadFileError, match=rf"{part}: has no unet/config\.json"):
        from_folder(folder / part)


def test_a_lone_component_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    put(tmp_path, "config.json", FILES["unet/config.json"])
    with pytest.raises(BadFileError, match=r"model_index\.json") as caught:
        from_folder(tmp_path)
    assert "holds one component" in str(caught.value.hint)
    assert "parts" in str(caught.value.hint)


@pytest.mark.parametrize("path", list(FILES))
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"a": NaN}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b" " * (2 << 20),
    ],
    ids=["empty", "cut", "list", "null", "nothing", "nan", "utf-16", "deep", "twice", "huge"],
)
def test_malformed_configs_are_bad_files(folder: Path, path: str, content: bytes) -> None:
    put(folder, path, content)
    with pytest.raises((BadFileError, UsageError)) as caught:
        from_folder(folder)
    assert Path(path).name in caught.value.message


@pytest.mark.parametrize("path", list(FILES))
def test_missing_configs_are_named(folder: Path, path: str) -> None:
    (folder / path).unlink()
    with pytest.raises(BadFileError, match=path):
        from_folder(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "KandinskyPipeline"},
        {"_class_name": ["my_pipeline", "MyPipeline"]},
        {"_class_name": None},
        {"custom_pipeline": "hub/code"},
        {"auto_map": {}},
        {"unet": ["my_unet", "MyUNet"]},
        {"unet": ["diffusers", "UNet3DConditionModel"]},
        {"vae": ["diffusers", "AutoencoderTiny"]},
        {"scheduler": ["my_scheduler", "Mine"]},
    ],
    ids=str,
)
def test_foreign_code_and_classes_are_refused(folder: Path, change: dict[str, Any]) -> None:
    put(folder, "model_index.json", {**FILES["model_index.json"], **change})
    with pytest.raises(UsageError):
        from_folder(folder)


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("unet/config.json", {"in_channels": 9}, "9 channels"),
        ("unet/config.json", {"cross_attention_dim": "wide"}, "cross_attention_dim"),
        ("unet/config.json", {"cross_attention_dim": True}, "cross_attention_dim"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor"),
        ("vae/config.json", {"block_out_channels": [1] * 99}, "99 levels"),
        ("vae/config.json", {"latent_channels": -4}, "latent_channels"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "noise schedule"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "mine"}, "noise schedule"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "prediction_type"),
        ("scheduler/scheduler_config.json", {"beta_end": 1e999}, "finite"),
    ],
)
def test_values_that_cannot_be_are_named(folder: Path, path: str, change: dict[str, Any], told: str) -> None:
    content = json.dumps({**FILES[path], **change}).replace("Infinity", "1e999").encode()
    put(folder, path, content)
    with pytest.raises((BadFileError, UsageError), match=told):
        from_folder(folder)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(FILES)), data=st.data())
def test_no_config_whatever_gets_another_answer_than_an_entry_or_a_refusal(
    folder: Path, path: str, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(FILES[path])))
    put(folder, path, {**FILES[path], key: data.draw(anything)})
    try:
        with contextlib.suppress(UsageError, BadFileError):
            from_folder(folder)
    finally:
        put(folder, path, FILES[path])


def test_weights_that_are_no_safetensors_are_a_bad_file(folder: Path) -> None:
    for content in (
        b"",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (14).to_bytes(8, "little") + b'{"w": {"a":1}}',
    ):
        put(folder, "unet/diffusion_pytorch_model.safetensors", content)
        with pytest.raises(BadFileError, match="safetensors"):
            from_folder(folder)


TODAY: dict[str, Any] = {
    "Flux2KleinPipeline": (
        ("Flux2Transformer2DModel", {"in_channels": 128, "joint_attention_dim": 7680, "guidance_embeds": False}),
        ("AutoencoderKLFlux2", {"latent_channels": 32, "block_out_channels": [1, 2, 4, 4]}),
        ("FlowMatchEulerDiscreteScheduler", {}),
        {"text_encoder": ["transformers", "Qwen3ForCausalLM"], "tokenizer": ["transformers", "Qwen2TokenizerFast"]},
        "flux2-klein-base-4b",
    ),
    "SanaSprintPipeline": (
        (
            "SanaTransformer2DModel",
            {
                "in_channels": 32,
                "out_channels": 32,
                "caption_channels": 2304,
                "sample_size": 32,
                "guidance_embeds": True,
            },
        ),
        (
            "AutoencoderDC",
            {"latent_channels": 32, "encoder_block_out_channels": [1, 2, 4, 4, 8, 8], "scaling_factor": 0.41407},
        ),
        ("SCMScheduler", {"prediction_type": "trigflow"}),
        {"text_encoder": ["transformers", "Gemma2Model"]},
        "sana-sprint-0.6b",
    ),
    "Kandinsky5T2VPipeline": (
        ("Kandinsky5Transformer3DModel", {"in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": 3584}),
        (
            "AutoencoderKLHunyuanVideo",
            {"latent_channels": 16, "block_out_channels": [1, 2, 4, 4], "scaling_factor": 0.476986},
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 5.0}),
        {
            "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
            "tokenizer": ["transformers", "Qwen2VLProcessor"],
        },
        "kandinsky5-lite",
    ),
}


@pytest.mark.parametrize("pipeline", TODAY)
def test_a_folder_says_what_the_zoo_says_of_it(pipeline: str, tmp_path: Path) -> None:
    """What is derived from the published configs, and what the entry of the same model holds."""
    (transformer, config), (vae, of_vae), (scheduler, of_scheduler), others, known = TODAY[pipeline]
    parts = {
        "transformer": ["diffusers", transformer],
        "vae": ["diffusers", vae],
        "scheduler": ["diffusers", scheduler],
    }
    put(tmp_path, "model_index.json", {"_class_name": pipeline, **parts, **others})
    put(tmp_path, "transformer/config.json", {"_class_name": transformer, **config})
    put(tmp_path, "vae/config.json", {"_class_name": vae, **of_vae})
    put(tmp_path, "scheduler/scheduler_config.json", {"_class_name": scheduler, **of_scheduler})
    entry, other = Zoo.load().resolve(str(tmp_path)), Zoo.load().entries[known]
    for said in ("pipeline", "latent_space", "noise", "conditioning", "defaults"):
        assert getattr(entry, said) == getattr(other, said), said
    put(
        tmp_path, "model_index.json", {"_class_name": pipeline, **parts, "tokenizer": ["transformers", "AutoProcessor"]}
    )
    with pytest.raises(UsageError, match="does not run"):
        from_folder(tmp_path)
