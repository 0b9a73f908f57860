"""Which files of a repository are loaded, and which classes it may name."""

from __future__ import annotations

from typing import Any

import pytest

from tstitch_cli.errors import BadFileError, TstitchError, UsageError
from tstitch_cli.zoo import allowed, needed

PLAIN, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
SHARDS = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
INDEX = "diffusion_pytorch_model.safetensors.index.json"
HALF_SHARDS = [f"model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
OLD_HALF_SHARDS = [f"diffusion_pytorch_model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)]


@pytest.mark.parametrize(
    ("names", "dtype", "variant", "files"),
    [
        ([PLAIN, HALF], "float32", None, [PLAIN]),
        ([PLAIN, HALF], "bfloat16", None, [PLAIN]),
        ([PLAIN, HALF], "float16", "fp16", [HALF]),
        ([PLAIN], "float16", None, [PLAIN]),
        ([HALF], "float32", "fp16", [HALF]),
        ([PLAIN, "diffusion_pytorch_model.fp16.bin"], "float16", None, [PLAIN]),
        ([PLAIN, "diffusion_pytorch_model.non_ema.safetensors"], "float32", None, [PLAIN]),
        ([*SHARDS, INDEX, HALF], "float32", None, [INDEX, *SHARDS]),
        ([*SHARDS, INDEX, PLAIN], "float32", None, [INDEX, *SHARDS]),
        ([SHARDS[0], INDEX, PLAIN], "float32", None, [PLAIN]),
        ([*SHARDS, HALF], "float32", "fp16", [HALF]),
        (
            [*HALF_SHARDS, "model.safetensors.index.fp16.json", "model.safetensors"],
            "float16",
            "fp16",
            ["model.safetensors.index.fp16.json", *HALF_SHARDS],
        ),
        (
            [*OLD_HALF_SHARDS, "diffusion_pytorch_model.safetensors.index.fp16.json"],
            "float16",
            "fp16",
            ["diffusion_pytorch_model.safetensors.index.fp16.json", *OLD_HALF_SHARDS],
        ),
        (["model.safetensors", "pytorch_model.bin"], "float16", None, ["model.safetensors"]),
    ],
)
def test_the_weights_for_a_dtype(names: list[str], dtype: str, variant: str | None, files: list[str]) -> None:
    assert needed.weights(names, dtype) == needed.Weights(variant, tuple(files))
    assert needed.weights(list(reversed(names)), dtype) == needed.Weights(variant, tuple(files))


@pytest.mark.parametrize("names", [[], ["config.json"], ["diffusion_pytorch_model.bin"], SHARDS, [INDEX, SHARDS[1]]])
def test_no_weights(names: list[str]) -> None:
    assert needed.weights(names, "float32") is None


def test_only_what_a_denoiser_needs() -> None:
    paths = [f"unet/{name}" for name in (PLAIN, HALF, "config.json", "model.py", "old/config.json")]
    paths += ["config.json", PLAIN, "unet2/config.json"]
    assert needed.denoiser_files(paths, "unet", "float32", "me/it") == ["unet/config.json", f"unet/{PLAIN}"]
    assert needed.denoiser_files(paths, "", "float32", "me/it") == ["config.json", PLAIN]
    with pytest.raises(BadFileError, match=r"me/it: has no vae/config\.json"):
        needed.denoiser_files(paths, "vae", "float32", "me/it")
    with pytest.raises(BadFileError, match=r"me/it, unet: has its weights only as model\.ckpt") as caught:
        needed.denoiser_files(["unet/config.json", "unet/model.ckpt"], "unet", "float32", "me/it")
    assert "save_pretrained" in str(caught.value.hint)


def test_only_what_the_parts_need() -> None:
    parts = {
        "vae": allowed.Part("diffusers", "AutoencoderKL", has_weights=True),
        "tokenizer": allowed.Part("transformers", "CLIPTokenizer", has_weights=False),
    }
    tokenizer = [f"tokenizer/{name}" for name in ("merges.txt", "vocab.json", "spiece.model")]
    paths = [*tokenizer, "tokenizer/tokenizer.py", "tokenizer/old/vocab.json", "tokenizer/../../vocab.json"]
    paths += ["vae/config.json", f"vae/{PLAIN}", "vae/README.md", "safety_checker/config.json", "model_index.json"]
    found = needed.part_files(paths, parts, "float32", "me/it")
    assert set(found) == {"model_index.json", "vae/config.json", f"vae/{PLAIN}", *tokenizer}


INDEXES: list[tuple[dict[str, Any], set[str]]] = [
    (
        {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "image_encoder": [None, None],
            "requires_safety_checker": True,
        },
        {"vae", "text_encoder", "safety_checker"},
    ),
    (
        {
            "_class_name": "StableDiffusion3Pipeline",
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"],
        },
        {"text_encoder", "text_encoder_3"},
    ),
    (
        {"text_encoder": ["transformers", "Gemma2Model"], "tokenizer": ["transformers", "GemmaTokenizerFast"]},
        {"text_encoder"},
    ),
    ({"text_encoder": ["transformers", "UMT5EncoderModel"], "id2label": {"0": "tench"}}, {"text_encoder"}),
]


@pytest.mark.parametrize(("index", "with_weights"), INDEXES)
def test_the_usual_classes_are_allowed(index: dict[str, Any], with_weights: set[str]) -> None:
    found = allowed.parts(index, "it", besides="unet")
    assert {name for name, part in found.items() if part.has_weights} == with_weights
    assert "unet" not in found


@pytest.mark.parametrize(
    "index",
    [
        {"vae": ["diffusers", "DiffusionPipeline"]},
        {"vae": ["os", "system"]},
        {"vae": ["my_vae", "AutoencoderKL"]},
        {"scheduler": ["transformers", "PNDMScheduler"]},
        {"scheduler": ["diffusers", "schedulers.PNDMScheduler"]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"safety_checker": ["stable_diffusion", "os"]},
        {"vae": ["diffusers", "AutoencoderKL", "more"]},
        {"vae": ["diffusers", None]},
        {"../vae": ["diffusers", "AutoencoderKL"]},
        {"auto_map": {}},
        {"custom_pipeline": "mine"},
        {"_class_name": ["mine", "Pipeline"]},
    ],
    ids=str,
)
def test_anything_else_is_refused(index: dict[str, Any]) -> None:
    with pytest.raises(TstitchError) as caught:
        allowed.parts(index, "me/it", besides="unet")
    assert isinstance(caught.value, (UsageError, BadFileError))
    assert "me/it" in caught.value.message
