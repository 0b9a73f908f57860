"""The CLIP score: how well pictures fit their prompts (Radford et al., 2021; Hessel et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from tstitch_cli.errors import BadFileError
from tstitch_cli.fetching import hub

REPOSITORY = "openai/clip-vit-large-patch14"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the red, green and blue of the pictures that CLIP was trained on, which it sees normalised by them."""


class ClipScore:
    """100 max(0, cos) of the embeddings of a picture and its prompt, as torchmetrics has it."""

    def __init__(self, device: torch.device | str = "cpu", repository: str = REPOSITORY) -> None:
        """Raises BadFileError, with the command that fetches it, where CLIP is not in the hub's cache or broken."""
        from safetensors import SafetensorError
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = _folder(repository)
        self.digest = folder.name
        self.device = torch.device(device)
        try:
            self.model = CLIPModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
            self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            why = str(error).strip().splitlines()[0]
            raise BadFileError(f"{repository} cannot be loaded from {folder}: {why}", hint=_hint(repository)) from error
        self.model.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, pictures: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(B,) scores in [0, 100] of `pictures` (B, 3, H, W) uint8; of a prompt CLIP reads the first 75 words or so."""
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


def prepared(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, H, W) uint8 to (B, 3, side, side) as CLIP sees it: the middle, resized bicubically, normalised."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    smooth = F.interpolate(pictures.float(), size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    middle = smooth[..., top : top + side, left : left + side].clamp(0.0, 255.0).round() / 255.0
    mean, std = (torch.tensor(values, device=pictures.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (middle - mean) / std


def fetch_command(repository: str = REPOSITORY) -> str:
    """The one command that fetches CLIP into the hub's cache."""
    return f"hf download {repository} {' '.join(FILES)}"


def _folder(repository: str) -> Path:
    """The newest commit of `repository` in the hub's cache that has the weights."""
    found = [folder for folder in hub.snapshots(f"hub:{repository}", None) if (folder / "model.safetensors").is_file()]
    if not found:
        raise BadFileError(f"{repository}, which the CLIP score is measured by, is not here", hint=_hint(repository))
    return max(found, key=lambda folder: folder.stat().st_mtime)


def _hint(repository: str) -> str:
    return f"fetch it (1.7 GB): {fetch_command(repository)}"
