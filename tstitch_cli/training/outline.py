"""Trains a ControlNet that steers a trained U-Net by the outline of what is to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import ControlNetModel
from torch import nn
from torch.nn import functional as F

from tstitch_cli.quality.outlines import rims, things_in
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import Examples, Noised, TextToImage, compile_blocks

CAPTION_DROPOUT = 0.4
"""More than the U-Net's own, so that what the picture shows is read off its outline too."""
EMBEDDING = (8, 16, 32, 64)
"""Channels in which the outline is brought from its own size to that of the latents, an eighth of it."""
WEIGHTS = (0.25, 30.0)
"""Least and most weight of an error: between them it goes by noise over signal, as an error of the clean latents."""


class OutlineRecipe:
    """Squared error of the predicted noise, the outline being told beside the caption (Zhang et al., 2023, section 3).

    The ControlNet starts as a copy of the U-Net's way down, whose contributions are zero at first. The U-Net and the
    text encoder stay as they are.

    A thin line tells little of the 8 pixels square that a latent is of, and by this error alone it was not heeded after
    a whole schedule. So two things are different from the paper's training. Errors weigh more the more noise there is,
    for that is where shapes are decided. And the ControlNet learns beside it to tell, from what it has after its first
    stage, how much of each latent's square the things cover: that is learnt soon, and what it takes is then there for
    the U-Net. The layer that tells it is not kept.
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
        # As zero as the contributions, it would keep the outline from the layer that tells the coverage.
        net.controlnet_cond_embedding.conv_out.reset_parameters()
        telling = nn.Conv2d(net.config.block_out_channels[0], 1, 1)
        self.model = nn.ModuleDict({"net": net.to(memory_format=torch.channels_last), "telling": telling})

    @property
    def net(self) -> ControlNetModel:
        """The ControlNet."""
        found = self.model["net"]
        assert isinstance(found, ControlNetModel)
        return found

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.net)
        compile_blocks(self.start.unet)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x_t, t, tokens, noise = self.noised.draw(indices, draw, CAPTION_DROPOUT)
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            with torch.autocast("cpu", enabled=False):
                things = things_in(self.pictures.batch(indices))
                lines = rims(things).expand(-1, 3, -1, -1)
                covered = F.avg_pool2d(things, things.shape[-1] // x_t.shape[-1])
            text = self.start.encoder(tokens).last_hidden_state
        with _heard(self.net.down_blocks[0]) as first:
            maps, middle = self.net(x_t, t, text, lines, return_dict=False)
        predicted = self.start.unet(
            x_t,
            t,
            text,
            down_block_additional_residuals=maps,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        told = self.model["telling"](first[0])
        alpha_bar = self.noised.alphas_cumprod[t].view(-1, 1, 1, 1)
        weight = ((1.0 - alpha_bar) / alpha_bar).clamp(*WEIGHTS)
        error = (weight * (predicted.float() - noise).square()).mean()
        return error + (told.float() - covered).square().mean()


@contextmanager
def _heard(stage: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While inside, what `stage`, a U-Net's on its way down, makes in its last layer, (B, C, H, W), is appended."""
    made: list[torch.Tensor] = []
    layers = len(stage.resnets)  # type: ignore[arg-type]
    handle = stage.register_forward_hook(lambda _, given, result: made.append(result[1][layers - 1]))
    try:
        yield made
    finally:
        handle.remove()
