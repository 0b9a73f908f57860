"""The diffusion transformer as its authors' code computes it, in diffusers' form."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiTTransformer2DModel, ModelMixin


class OriginalDiT(DiTTransformer2DModel, ModelMixin):  # by its name here diffusers knows the class for a model
    """DiT (Peebles & Xie, 2023) for checkpoints of its authors' code base.

    It is diffusers' DiTTransformer2DModel but for the frequencies of the timestep embedding: the authors spread
    10000^(-i/128) over i = 0 ... 127, diffusers spreads 10000^(-i/127), so a checkpoint that was trained with the
    former sees other embeddings in the latter.
    """

    def __init__(self, **config: Any) -> None:
        """`config` holds DiTTransformer2DModel's own keys."""
        super().__init__(**config)
        for block in self.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = 0

    # diffusers reads the names of config keys off the signature.
    __init__.__signature__ = inspect.signature(DiTTransformer2DModel.__init__)  # type: ignore[attr-defined]
