"""LoRA (arXiv 2106.09685) while it is trained: put into a denoiser's attention, and merged into its weights after."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tstitch_cli.errors import UsageError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
"""The projections of diffusers' attention layers, as its own training scripts adapt them."""


def require_peft() -> None:
    """Raises UsageError where the package that LoRA needs is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise UsageError(
            "LoRA needs the package peft, which is not installed",
            hint='in the clone of tstitch: pip install -c constraints.txt ".[lora]"',
        )


class Adapter:
    """A LoRA of some rank in a denoiser, whose own weights stay as they are."""

    def __init__(self, denoiser: nn.Module, rank: int, seed: int) -> None:
        """Changes `denoiser` in place; raises UsageError where it has no attention layers that can be adapted."""
        from peft import LoraConfig, LoraModel

        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
        try:
            self._tuner: Any = LoraModel(denoiser, config, "default")
        except ValueError as error:
            raise UsageError(
                f"{type(denoiser).__name__} has no layers that LoRA adapts", hint="leave --lora out"
            ) from error
        self._denoiser = denoiser
        own = {name: each for name, each in denoiser.named_parameters() if each.requires_grad}
        for each in own.values():
            each.data = each.data.float()
        self.trained = nn.ParameterList(own.values())
        """What is trained: shared with the denoiser, and small."""

    def take(self, trained: nn.Module) -> None:
        """Puts the values of other ones of these parameters, such as their average, in their place."""
        with torch.no_grad():
            for mine, given in zip(self.trained.parameters(), trained.parameters(), strict=True):
                mine.copy_(given)

    def save(self, pipeline: Any, component: str, folder: Path) -> bool:
        """Writes a LoRA as diffusers and `sample --lora` read it; False where the pipeline takes none."""
        if component not in getattr(pipeline, "_lora_loadable_modules", ()):
            return False
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self._denoiser))
        pipeline.save_lora_weights(str(folder), **{f"{component}_lora_layers": layers})
        return True

    def merge(self) -> None:
        """Adds the LoRA to the denoiser's weights, which then has no other parameters than before."""
        self._tuner.merge_and_unload()
