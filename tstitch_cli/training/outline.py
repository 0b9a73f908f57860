"""Trains a ControlNet that steers a trained U-Net by the outline of what is to be drawn."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel

from tstitch_cli.quality.outlines import outlines
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import Examples, Noised, TextToImage, compile_blocks

CAPTION_DROPOUT = 0.4
"""More than the U-Net's own, so that what the picture shows is read off its outline too."""
EMBEDDING = (8, 16, 32, 64)
"""Channels in which the outline is brought from its own size to that of the latents, an eighth of it."""


class OutlineRecipe:
    """Squared error of the predicted noise, the outline being told beside the caption (Zhang et al., 2023, section 3).

    The ControlNet starts as a copy of the U-Net's way down, whose contributions are zero at first. The U-Net and the
    text encoder stay as they are.
    """

    def __init__(
        self, name: str, schedule: Schedule, examples: Examples, pictures: Captioned, start: TextToImage
    ) -> None:
        """`pictures` are those whose latents are in `examples`, in the same order."""
        self.name, self.schedule, self.examples = name, schedule, len(examples.scenes)
        self.noised, self.pictures = Noised(examples), pictures
        self.start = start.eval().requires_grad_(False)
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(start.unet, conditioning_embedding_out_channels=EMBEDDING)
        self.model = net.to(memory_format=torch.channels_last)

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.model)
        compile_blocks(self.start.unet)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x_t, t, tokens, noise = self.noised.draw(indices, draw, CAPTION_DROPOUT)
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            with torch.autocast("cpu", enabled=False):
                lines = outlines(self.pictures.batch(indices)).expand(-1, 3, -1, -1)
            text = self.start.encoder(tokens).last_hidden_state
        maps, middle = self.model(x_t, t, text, lines, return_dict=False)
        predicted = self.start.unet(
            x_t,
            t,
            text,
            down_block_additional_residuals=maps,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return (predicted.float() - noise).square().mean()
