"""Trains a text-conditional U-Net with its text encoder, or distils a smaller U-Net from a trained one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from tstitch_cli.quality.captions import Scene, scenes, wordings
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.vocabulary import LENGTH

CAPTION_DROPOUT = 0.1
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TEXT_WIDTH = 128


@dataclass(frozen=True)
class UNetShape:
    """A U-Net over 4 x 8 x 8 latents: `widths` of its stages at 8, 4 and 2 pixels a side, `layers` in each.

    Blocks are removed as in BK-SDM (Kim et al., 2023, section 3): layers of every stage, then the middle and the
    innermost stage, which are given up by leaving their width out. tiny-sd-small gives up the attention of the
    outermost stage as well, which BK-SDM keeps.
    """

    layers: int
    widths: tuple[int, ...] = (64, 96, 96)
    outer_attention: bool = True
    """Whether the stage at 8 pixels a side attends to itself and to the text, as the one at 4 always does."""

    def build(self) -> UNet2DConditionModel:
        """The U-Net, untrained."""
        down = ["CrossAttnDownBlock2D"] * min(2, len(self.widths)) + ["DownBlock2D"] * (len(self.widths) - 2)
        if not self.outer_attention:
            down[0] = "DownBlock2D"
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=tuple(down),
            up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
            mid_block_type="UNetMidBlock2DCrossAttn" if len(self.widths) > 2 else None,
            block_out_channels=self.widths,
            layers_per_block=self.layers,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=2,  # the number of heads, whatever its name says
            norm_num_groups=16,
        )


def text_encoder(tokens: int, end: int) -> Any:
    """A CLIPTextModel for a vocabulary of `tokens`, whose token `end` ends and pads a caption."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModel(config)


class CaptionTable:
    """Token numbers of every wording of every scene, and of the empty caption."""

    def __init__(self, tokenizer: Any) -> None:
        self._scenes = {scene: number for number, scene in enumerate(scenes())}
        captions = [wordings(scene) for scene in self._scenes]
        self.tokens = self._numbers(tokenizer, [text for own in captions for text in own])
        self.count = torch.tensor([len(own) for own in captions])
        self.first = self.count.cumsum(0) - self.count
        self.empty = self._numbers(tokenizer, [""])[0]

    def number_of(self, scene: Scene) -> int:
        """By which `draw` knows `scene`."""
        return self._scenes[scene]

    def draw(self, scenes: torch.Tensor, draw: torch.Generator, dropout: float = CAPTION_DROPOUT) -> torch.Tensor:
        """One wording each of `scenes` (B,), as token numbers (B, LENGTH); some are dropped for guidance."""
        which = (torch.rand(len(scenes), generator=draw) * self.count[scenes]).long()
        chosen = self.tokens[self.first[scenes] + which]
        dropped = torch.rand(len(scenes), 1, generator=draw) < dropout
        return torch.where(dropped, self.empty, chosen)

    @staticmethod
    def _numbers(tokenizer: Any, texts: list[str]) -> torch.Tensor:
        found = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return found.input_ids


@dataclass(frozen=True)
class Examples:
    """What a U-Net is trained on."""

    latents: dict[str, torch.Tensor]
    """`mean` and `std`, each (N, 4, 8, 8), already scaled to unit variance."""
    scenes: torch.Tensor
    """(N,): numbers of the table's scenes."""
    table: CaptionTable


class Noised:
    """Draws noised latents with their captions (Ho et al., 2020; captions dropped as in Ho & Salimans, 2022)."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.alphas_cumprod = DDPMScheduler(**NOISE).alphas_cumprod

    def draw(
        self, indices: torch.Tensor, draw: torch.Generator, dropout: float = CAPTION_DROPOUT
    ) -> tuple[torch.Tensor, ...]:
        """x_t (B, 4, 8, 8), t (B,), token numbers (B, LENGTH) and the noise in x_t."""
        x0 = self.latents(indices, draw)
        noise = torch.randn(x0.shape, generator=draw)
        t = torch.randint(len(self.alphas_cumprod), (len(x0),), generator=draw)
        tokens = self.examples.table.draw(self.examples.scenes[indices], draw, dropout)
        alpha_bar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * noise, t, tokens, noise

    def latents(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Latents (B, 4, 8, 8) of the pictures at `indices`, drawn as the autoencoder encodes them."""
        mean, std = self.examples.latents["mean"][indices], self.examples.latents["std"][indices]
        return mean + std * torch.randn(mean.shape, generator=draw)


class TextToImage(nn.Module):
    """A U-Net and the text encoder that is trained with it."""

    def __init__(self, unet: UNet2DConditionModel, encoder: Any) -> None:
        super().__init__()
        self.unet, self.encoder = unet, encoder

    def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Predicted noise (B, 4, 8, 8)."""
        return self.unet(x, t, self.encoder(tokens).last_hidden_state, return_dict=False)[0]


def compile_blocks(unet: nn.Module) -> None:
    """Compiles a network block by block, in place: blocks of one shape share their code, so minutes are saved."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D | BasicTransformerBlock):
            module.compile()


class TextToImageRecipe:
    """Squared error of the predicted noise; the text encoder learns from nothing else."""

    def __init__(self, name: str, shape: UNetShape, schedule: Schedule, examples: Examples) -> None:
        self.name, self.schedule, self.examples = name, schedule, len(examples.scenes)
        self.noised = Noised(examples)
        torch.manual_seed(0)
        encoder = text_encoder(int(examples.table.tokens.max()) + 1, int(examples.table.tokens.max()))
        unet = shape.build().to(memory_format=torch.channels_last)
        nn.init.zeros_(unet.conv_out.weight)
        self.model = TextToImage(unet, encoder)

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.model.unet)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x_t, t, tokens, noise = self.noised.draw(indices, draw)
        predicted = self.model(x_t.contiguous(memory_format=torch.channels_last), t, tokens)
        return (predicted.float() - noise).square().mean()


class FinetuneRecipe:
    """The same error on other pictures, from a trained U-Net on; its text encoder stays as it is."""

    def __init__(self, name: str, schedule: Schedule, examples: Examples, start: TextToImage) -> None:
        self.name, self.schedule, self.examples = name, schedule, len(examples.scenes)
        self.noised = Noised(examples)
        self.encoder = start.encoder.eval().requires_grad_(False)
        self.model = start.unet

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.model)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x_t, t, tokens, noise = self.noised.draw(indices, draw)
        with torch.no_grad():
            text = self.encoder(tokens).last_hidden_state
        predicted = self.model(x_t.contiguous(memory_format=torch.channels_last), t, text, return_dict=False)[0]
        return (predicted.float() - noise).square().mean()
