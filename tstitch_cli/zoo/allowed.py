"""The classes that a model's files may name; anything else is refused before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tstitch_cli.errors import BadFileError, UsageError

OWN_DENOISERS = {
    "LabelledUNet": "tstitch_cli.networks.labelled_unet",
    "OriginalDiT": "tstitch_cli.networks.original_dit",
    "UViTModel": "tstitch_cli.networks.u_vit",
}
"""Architectures that diffusers has not: class -> module."""
_MODELS = {
    "diffusers": {
        "AutoencoderDC",
        "AutoencoderKL",
        "AutoencoderKLCogVideoX",
        "AutoencoderKLFlux2",
        "AutoencoderKLHunyuanVideo",
        "AutoencoderKLWan",
        "VQModel",
    },
    "transformers": {
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
        "CLIPVisionModelWithProjection",
        "Gemma2ForCausalLM",
        "Gemma2Model",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3ForCausalLM",
        "SiglipVisionModel",
        "T5EncoderModel",
        "UMT5EncoderModel",
    },
    "stable_diffusion": {"StableDiffusionSafetyChecker"},
}
_WITHOUT_WEIGHTS = {
    "diffusers": re.compile(r"[A-Z]\w*Scheduler", re.ASCII),
    "transformers": re.compile(
        r"(?:CLIP|Gemma|Qwen2|T5|PreTrained)Tokenizer(?:Fast)?|TokenizersBackend|Qwen2(?:VL|_5_VL)Processor"
        r"|(?:CLIP|Siglip)ImageProcessor(?:Fast|Pil)?|CLIPFeatureExtractor",
        re.ASCII,
    ),
}
_CODE = ("custom_pipeline", "auto_map")
"""Keys by which a config asks for code of its own to be run."""


@dataclass(frozen=True)
class Part:
    """A part of a pipeline besides its denoiser."""

    library: str
    """`diffusers`, `transformers`, or a package of diffusers' pipelines, as model_index.json says it."""
    model: str
    """The class's name."""
    has_weights: bool

    @property
    def reads_pictures(self) -> bool:
        """Whether it is a tokenizer that could read pictures and videos as well, for which nobody here asks it."""
        return self.model.endswith("VLProcessor")

    def encodes_text(self, name: str) -> bool:
        """Whether the part, called `name` in its pipeline, is a text encoder."""
        return self.has_weights and name.startswith("text_encoder")


def parts(index: Mapping[str, Any], where: str, besides: str) -> dict[str, Part]:
    """The parts that a model_index.json names, without the denoiser (`besides`) and those left out ([null, null]).

    Raises:
        UsageError: it asks for code of its own, or a part's class is none of those allowed.
        BadFileError: a part is named otherwise than by library and class.
    """
    refuse_code(index, where)
    found: dict[str, Part] = {}
    for name, value in index.items():
        if name.startswith("_") or name == besides or not isinstance(value, list) or value == [None, None]:
            continue
        if len(value) != 2 or not all(isinstance(word, str) for word in value) or not name.isidentifier():
            raise BadFileError(f"{where}: {name[:60]} is {str(value)[:60]!r}, a library and a class were expected")
        library, model = value
        if model in _MODELS.get(library, ()):
            found[name] = Part(library, model, has_weights=True)
        elif (pattern := _WITHOUT_WEIGHTS.get(library)) and pattern.fullmatch(model):
            found[name] = Part(library, model, has_weights=False)
        else:
            raise foreign(where, f"{name[:60]}: {library[:60]}.{model[:60]}")
    return found


def library_of(model: str) -> str | None:
    """The library whose part of a pipeline the class called `model` is; None where it is none of those allowed.

    Of what has no weights these are the schedulers alone.
    """
    if _WITHOUT_WEIGHTS["diffusers"].fullmatch(model):
        return "diffusers"
    return next((library for library in ("diffusers", "transformers") if model in _MODELS[library]), None)


def refuse_code(config: Mapping[str, Any], where: str) -> None:
    """Raises UsageError where a config names code of its own that should be run."""
    for key in _CODE:
        if key in config:
            raise foreign(where, key)
    if not isinstance(config.get("_class_name", ""), str):
        raise foreign(where, f"_class_name: {str(config['_class_name'])[:60]}")


def foreign(where: str, what: str) -> UsageError:
    """The refusal of code, or of a class that is not allowed."""
    return UsageError(
        f"{where}: {what!r} is code or a class that tstitch does not run",
        hint="only the usual classes of diffusers and transformers are loaded, and never code from a repository",
    )
