"""U-ViT, the transformer with long skip connections (Bao et al., 2023, arXiv 2209.12152), in diffusers' form."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn


class _Block(nn.Module):
    """A pre-norm transformer block; one with `skip` first joins its input with the output of an earlier one."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, *, skip: bool) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads, dim_head=width // heads, bias=False, out_bias=True)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, mult=mlp_ratio, activation_fn="gelu")

    def forward(self, x: torch.Tensor, *skipped: torch.Tensor) -> torch.Tensor:
        """`x`, and for a block with `skip` the earlier output, are (B, tokens, width)."""
        if self.join is not None:
            x = self.join(torch.cat([x, *skipped], dim=-1))
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class UViTModel(ModelMixin, ConfigMixin):
    """Treats the timestep, the class label and the latent's patches alike, as tokens.

    The output of each block of the first half is concatenated to the input of its mirror image in the second half
    and projected back (section 3.1 of the paper).
    """

    _no_split_modules = ("_Block",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        num_layers: int = 28,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        mlp_ratio: int = 4,
        num_classes: int = 1000,
        final_convolution: bool = False,
        first_timestep: int = 1,
    ) -> None:
        """`num_layers` counts the blocks of the two halves, the one between them not.

        Class number `num_classes` is the null class of guidance. `first_timestep` is what the network was told in
        training for the least noisy step, which diffusers calls 0.
        """
        super().__init__()
        width = num_attention_heads * attention_head_dim
        patches = (sample_size // patch_size) ** 2
        self.patch_embedding = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.label_embedding = nn.Embedding(num_classes + 1, width)
        self.position_embedding = nn.Parameter(torch.zeros(1, 2 + patches, width))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        half = range(num_layers // 2)
        self.down_blocks = nn.ModuleList(_Block(width, num_attention_heads, mlp_ratio, skip=False) for _ in half)
        self.mid_block = _Block(width, num_attention_heads, mlp_ratio, skip=False)
        self.up_blocks = nn.ModuleList(_Block(width, num_attention_heads, mlp_ratio, skip=True) for _ in half)
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, patch_size**2 * in_channels)
        self.conv_out = nn.Conv2d(in_channels, in_channels, 3, padding=1) if final_convolution else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predicts the noise in `hidden_states` (B, C, S, S).

        `timestep` (B,) is counted as diffusers does, from 0, and may be fractional; `class_labels` is (B,).
        """
        patch, channels = self.config.patch_size, self.config.in_channels
        x = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2)
        shown = timestep.to(torch.float32) + self.config.first_timestep
        time = get_timestep_embedding(shown, x.shape[-1], flip_sin_to_cos=True, downscale_freq_shift=0).to(x.dtype)
        x = torch.cat([self.label_embedding(class_labels)[:, None], time[:, None], x], dim=1)
        x = x + self.position_embedding
        skipped = []
        for block in self.down_blocks:
            x = block(x)
            skipped.append(x)
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, skipped.pop())
        x = self.proj_out(self.norm_out(x))[:, 2:]
        side = self.config.sample_size // patch
        x = x.reshape(-1, side, side, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        x = x.reshape(-1, channels, side * patch, side * patch)
        if self.conv_out is not None:
            x = self.conv_out(x)
        return Transformer2DModelOutput(sample=x) if return_dict else (x,)
