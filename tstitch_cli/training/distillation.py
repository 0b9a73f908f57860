"""Distils a U-Net with blocks removed from the whole one, on its output and its stages' features (BK-SDM)."""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional as F

from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import Examples, Noised, TextToImage, UNetShape, compile_blocks

OUTPUT_WEIGHT = 1.0
FEATURE_WEIGHT = 1.0


class DistillationRecipe:
    """L = task + output + features, all of them mean squared errors (Kim et al., 2023, equations 1 to 4).

    That of a stage's features is divided by the mean square of the teacher's, and their mean over the stages is taken:
    stages of large features outweigh neither the others nor the noise.

    The text encoder is the teacher's and stays as it is, as does the teacher.
    """

    def __init__(
        self, name: str, shape: UNetShape, schedule: Schedule, examples: Examples, teacher: TextToImage
    ) -> None:
        self.name, self.schedule, self.examples = name, schedule, len(examples.scenes)
        self.noised = Noised(examples)
        self.teacher = teacher.eval().requires_grad_(False)
        torch.manual_seed(0)
        self.model = shape.build()
        inherit(self.model, teacher.unet)
        self.model.to(memory_format=torch.channels_last)
        self._student = StageFeatures(self.model)
        self._guide = StageFeatures(teacher.unet)

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.model)
        compile_blocks(self.teacher.unet)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x_t, t, tokens, noise = self.noised.draw(indices, draw)
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            text = self.teacher.encoder(tokens).last_hidden_state
            wanted, guides = self._guide(x_t, t, text)
        predicted, features = self._student(x_t, t, text)
        predicted = predicted.float()
        outer = len(features) // 2
        # The innermost stages that the student lacks are the middle of the teacher's list.
        guides = [*guides[:outer], *guides[len(guides) - outer :]]
        pairs = zip(features, guides, strict=True)
        apart = torch.stack([F.mse_loss(a.float(), b.float()) / b.float().square().mean() for a, b in pairs])
        return (
            F.mse_loss(predicted, noise)
            + OUTPUT_WEIGHT * F.mse_loss(predicted, wanted.float())
            + FEATURE_WEIGHT * apart.mean()
        )


class StageFeatures(nn.Module):
    """Calls a U-Net and returns its output with what comes out of each stage, on the way down and on the way up.

    On the way down it is the last layer's, before the picture is made smaller, so that a U-Net that ends at a stage
    compares with one that goes on.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Noise (B, 4, 8, 8), and the stages' features, outermost first on the way down and last on the way up."""
        seen: list[torch.Tensor] = []

        def down(block: nn.Module, _: Any, out: tuple[torch.Tensor, tuple[torch.Tensor, ...]]) -> None:
            seen.append(out[1][-1 if block.downsamplers is None else -2])

        def up(block: nn.Module, _: Any, out: torch.Tensor) -> None:
            seen.append(out)

        hooks = [block.register_forward_hook(down) for block in self.unet.down_blocks]
        hooks += [block.register_forward_hook(up) for block in self.unet.up_blocks]
        try:
            predicted = self.unet(x, t, text, return_dict=False)[0]
        finally:
            for hook in hooks:
                hook.remove()
        return predicted, seen


def inherit(student: UNet2DConditionModel, teacher: UNet2DConditionModel) -> None:
    """Starts every layer of `student` from the layer of `teacher` that stands in the same place.

    Of a stage's layers the first ones stay on the way down; on the way up the first and the last, whose inputs come
    from other stages, as BK-SDM has it. Up-stages are counted from the outermost.
    """
    source = teacher.state_dict()
    mine = student.state_dict()
    lacking = len(teacher.up_blocks) - len(student.up_blocks)
    last = (len(student.up_blocks[0].resnets) - 1, len(teacher.up_blocks[0].resnets) - 1)
    for name, tensor in mine.items():
        origin = name
        if found := re.match(r"up_blocks\.(\d+)\.(.*)", name):
            rest = re.sub(rf"^(resnets|attentions)\.{last[0]}\.", rf"\g<1>.{last[1]}.", found[2])
            origin = f"up_blocks.{int(found[1]) + lacking}.{rest}"
        tensor.copy_(source[origin])
