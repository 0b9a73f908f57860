"""Makes the pipeline of a task from the plain one, by diffusers' own mappings: image-to-image, inpainting, control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
from torch import nn

from tstitch_cli.networks import residuals
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.controls import Control


def for_setting(
    pipeline: Any, denoisers: Mapping[str, nn.Module], setting: Setting, control: Control | None, net: Any
) -> Any:
    """The pipeline that does what `setting` asks for, of the parts of `pipeline` and of `net` where there is a control.

    Raises UsageError where the ControlNet does not fit a denoiser.
    """
    given: dict[str, Any] = {}
    if control is not None:
        given["controlnet"] = net
        residuals.kept_by_each(net, denoisers, control.name)  # of a hub id nothing was known until now
    if setting.inpaint:
        return diffusers.AutoPipelineForInpainting.from_pipe(pipeline, **given)
    if setting.strength is not None:
        return diffusers.AutoPipelineForImage2Image.from_pipe(pipeline, **given)
    return diffusers.AutoPipelineForText2Image.from_pipe(pipeline, **given) if given else pipeline


def strength_for(pipeline: Any, setting: Setting, steps: int) -> float:
    """The strength at which `pipeline` takes as many of `steps` steps as the setting means.

    All of them where `steps` are not the setting's, as in a short call that warms up. Half a step is added or taken
    off, since diffusers rounds steps * strength down, but up in the pipelines of flow matching.
    """
    if steps != setting.steps or setting.taken == setting.steps:
        return 1.0
    up = type(pipeline).__name__.startswith(("StableDiffusion3", "Flux"))
    return (setting.taken + (-0.5 if up else 0.5)) / steps


def compile_each(denoisers: Sequence[nn.Module]) -> None:
    """Has each denoiser compiled in place at its first call; see `StitchedDenoiser.compile` for why not the switch."""
    for denoiser in denoisers:
        denoiser.compile()
