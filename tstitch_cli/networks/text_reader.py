"""The tokenizer inside a processor for text, pictures and videos, for pipelines that give it text alone.

The processor itself needs torchvision for videos that nobody shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers


class TextReader:
    """Takes the place of Qwen2-VL's processor where a pipeline calls it with `images` and `videos` of None."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ValueError where `folder` has no tokenizer of Qwen2."""
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            # Of nothing, the library makes a tokenizer that knows no words.
            raise FileNotFoundError(f"{folder.name} has neither tokenizer.json nor vocab.json")
        self.tokenizer: Any = transformers.Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)

    def __call__(
        self, text: list[str], images: None = None, videos: None = None, **options: Any
    ) -> transformers.BatchEncoding:
        """Ids and attention mask, each (prompts, tokens), as the tokenizer's `options` ask for them."""
        encoded: transformers.BatchEncoding = self.tokenizer(text, **options)
        return encoded

    def decode(self, ids: Any, **options: Any) -> str:
        """The text that `ids` stand for."""
        decoded: str = self.tokenizer.decode(ids, **options)
        return decoded
