"""Trains a small CLIP on captioned pictures: how near a picture and a caption are tells how well they fit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from tstitch_cli.quality.clip_score import normalised
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.training.garments import SIDE
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import CaptionTable
from tstitch_cli.training.vocabulary import LENGTH

WIDTH = 64
"""Of the embeddings that are compared."""
MOST_SHARPNESS = 100.0
"""Of the logits, which are so many times the cosines at most, as in CLIP."""


def clip(tokens: int, end: int) -> Any:
    """An untrained CLIPModel for pictures of SIDE pixels and `tokens` tokens; `end` ends and pads a caption."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": tokens,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class ContrastiveRecipe:
    """CLIP's loss: of a batch, each picture has to find its caption, and each caption its picture.

    (Radford et al., 2021, figure 3: the mean of both cross-entropies, with a learned temperature.) Every other picture
    is an inked one. Like the classifier, it must not know which combinations a generator is trained on: `photos` and
    `inked` are to show all of them.
    """

    name = "tiny-sd-clip"

    def __init__(self, photos: Captioned, inked: Captioned, table: CaptionTable, schedule: Schedule) -> None:
        self.photos, self.inked, self.table = photos, inked, table
        self.schedule, self.examples = schedule, len(photos)
        end = int(table.tokens.max())
        torch.manual_seed(0)
        self.model = clip(end + 1, end)

    def compile(self) -> None:
        """Does nothing: drawing the pictures takes as long as the model."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        some, others = indices[::2], indices[1::2]
        shown = torch.cat([self.photos.batch(some), self.inked.batch(others)])
        numbers = [self.table.number_of(self.photos.scene(i)) for i in some.tolist()]
        numbers += [self.table.number_of(self.inked.scene(i)) for i in others.tolist()]
        tokens = self.table.draw(torch.tensor(numbers), draw, dropout=0.0)
        found = self.model(input_ids=tokens, pixel_values=normalised((shown + 1.0) / 2.0))
        with torch.autocast(shown.device.type, enabled=False):
            sharpness = self.model.logit_scale.clamp(max=math.log(MOST_SHARPNESS)).exp()
            logits = sharpness * found.image_embeds.float() @ found.text_embeds.float().T
            own = torch.arange(len(logits))
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2.0


@torch.no_grad()
def retrieval(model: Any, pictures: Captioned, table: CaptionTable) -> float:
    """The share of `pictures` that are nearest to the caption of their own scene, among one of every scene there is."""
    captions = torch.stack([table.tokens[first] for first in table.first.tolist()])
    right = 0
    for indices in torch.arange(len(pictures)).split(200):
        found = model(input_ids=captions, pixel_values=normalised((pictures.batch(indices) + 1.0) / 2.0))
        own = torch.tensor([table.number_of(pictures.scene(i)) for i in indices.tolist()])
        right += int((found.logits_per_image.argmax(1) == own).sum())
    return right / len(pictures)
