"""The CLIP score: how well pictures fit their prompts (Radford et al., 2021; Hessel et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from tstitch_cli.errors import BadFileError
from tstitch_cli.fetching import hub
from tstitch_cli.quality.features import digest_of_file
from tstitch_cli.zoo.registry import BUNDLED

REPOSITORY = "openai/clip-vit-large-patch14"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
HINT = f"fetch it (1.7 GB): hf download {REPOSITORY} {' '.join(FILES)}"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the red, green and blue of the pictures that CLIP was trained on; every CLIP sees pictures normalised by them."""


class ClipScore:
    """100 max(0, cos) of the embeddings of a picture and its prompt, as torchmetrics has it.

    By CLIP ViT-L/14, which the score is defined by, or by a family's own in the same format, whose scores compare
    among that family alone.
    """

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        """The weights and tokenizer are those in `folder`, else ViT-L/14's in the hub's cache.

        Raises BadFileError, with the command that fetches them, where they are not there or broken.
        """
        from safetensors import SafetensorError
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        place = folder or _fetched()
        self.device = torch.device(device)
        try:
            # The folder in the hub's cache is called by its commit.
            self.digest = place.name if folder is None else digest_of_file(place / "model.safetensors")
            self.model = CLIPModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32)
            self.tokenizer = CLIPTokenizer.from_pretrained(place)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            why = str(error).strip().splitlines()[0]
            raise BadFileError(
                f"CLIP cannot be loaded from {place}: {why}", hint="install tstitch again" if folder else HINT
            ) from error
        self.model.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, pictures: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(B,) scores in [0, 100] of `pictures` (B, 3, H, W) uint8.

        Of a prompt CLIP reads as many tokens as it has positions for, the marks of its beginning and end among them:
        ViT-L/14 reads 77, tiny-sd's own 16.
        """
        config = self.model.config
        words = self.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        pixels = prepared(pictures.to(self.device), config.vision_config.image_size)
        found = self.model(pixel_values=pixels, input_ids=words.input_ids, attention_mask=words.attention_mask)
        cosine = F.cosine_similarity(found.image_embeds, found.text_embeds, dim=-1)
        return 100.0 * cosine.clamp(min=0.0)


def bundled(family: str) -> Path | None:
    """The folder with the CLIP that a bundled family ships with, None where it has none."""
    found = (path.parent for path in BUNDLED.glob("*/clip/model.safetensors"))
    return next((folder for folder in found if folder.parent.name == family), None)


def prepared(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, H, W) uint8 to (B, 3, side, side) as CLIP sees it: the middle, resized bicubically, normalised."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    smooth = F.interpolate(pictures.float(), size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return normalised(smooth[..., top : top + side, left : left + side].clamp(0.0, 255.0).round() / 255.0)


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1] with the mean and spread of what CLIP was trained on taken out."""
    mean, std = (torch.tensor(values, device=pictures.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


def _fetched() -> Path:
    """The newest commit of CLIP in the hub's cache that has the weights."""
    found = [folder for folder in hub.snapshots(f"hub:{REPOSITORY}", None) if (folder / "model.safetensors").is_file()]
    if not found:
        raise BadFileError(f"{REPOSITORY}, which the CLIP score is measured by, is not here", hint=HINT)
    return max(found, key=lambda folder: folder.stat().st_mtime)
