"""The class-conditional U-Net of latent diffusion (Rombach et al., 2022): a U-Net that embeds its label itself."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from torch import nn


class LabelledUNet(UNet2DConditionModel, ModelMixin):  # by its name here diffusers knows the class for a model
    """diffusers' U-Net whose cross-attention sees one token: the embedding of the class label.

    The table belongs to the denoiser, so that U-Nets of different widths are called in the same way and can be
    stitched. Class number `num_classes` is the null class of guidance.
    """

    def __init__(self, *, num_classes: int = 1000, **config: Any) -> None:
        """`config` holds UNet2DConditionModel's own keys, `cross_attention_dim` the width of the token."""
        super().__init__(**config)
        self.register_to_config(num_classes=num_classes)
        self.label_embedding = nn.Embedding(num_classes + 1, self.config.cross_attention_dim)

    # diffusers reads the names of config keys off the signature.
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *inspect.signature(UNet2DConditionModel.__init__).parameters.values(),
            inspect.signature(__init__).parameters["num_classes"],
        ]
    )

    def forward(self, sample: torch.Tensor, timestep: Any, class_labels: torch.Tensor, **more: Any) -> Any:
        """Predicts the noise in `sample` (B, C, h, w) at `timestep` (B,) for `class_labels` (B,)."""
        token = self.label_embedding(class_labels)[:, None]
        return super().forward(sample, timestep, encoder_hidden_states=token, **more)
