"""The one list of component classes that are ever made, found by the names that configs and zoo entries have."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tstitch_cli.errors import UsageError

OWN_DENOISERS = {
    "LabelledUNet": "tstitch_cli.labelled_unet",
    "OriginalDiT": "tstitch_cli.original_dit",
    "UViTModel": "tstitch_cli.u_vit",
}
"""Architectures that diffusers has not: class -> module."""
_DIFFUSERS = (
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLWan",
    "AutoencoderTiny",
    "ControlNetModel",
    "DiTTransformer2DModel",
    "FluxTransformer2DModel",
    "MotionAdapter",
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "SanaTransformer2DModel",
    "Transformer2DModel",
    "UNet2DConditionModel",
    "UNetMotionModel",
    "VQModel",
    "WanTransformer3DModel",
)
_TRANSFORMERS = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "Gemma2Model",
    "T5EncoderModel",
    "UMT5EncoderModel",
)
_MODULES = OWN_DENOISERS | dict.fromkeys(_DIFFUSERS, "diffusers") | dict.fromkeys(_TRANSFORMERS, "transformers")


def model_class(name: str) -> Any:
    """The class of a pipeline's component by its bare name.

    Raises:
        UsageError: it is none of those that tstitch makes.
    """
    if name not in _MODULES:
        raise UsageError(
            f"{name!r} is no class that tstitch runs", hint=f"it runs {', '.join(sorted(_MODULES, key=str.lower))}"
        )
    return getattr(import_module(_MODULES[name]), name)
