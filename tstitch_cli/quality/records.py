"""What was found out about batches of pictures, kept on disk by a digest of all that decides it.

A record is written whole or not at all, so work that was cut at any moment goes on with what was finished, and what
comes out is the same. The features are kept picture by picture: up to some thousand pictures a row that is less than
the sums of their products, and precision and recall need them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tstitch_cli import files
from tstitch_cli.quality.statistics import Described

FORMAT = 1
"""Goes up when what a record holds changes its meaning."""
_PARTS = ("features", "probabilities", "clip", "hits")


def key(decides: Any) -> str:
    """The digest of plain data: the same for equal data, whatever the order of its keys."""
    text = json.dumps({"format": FORMAT, "decides": decides}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Records:
    """Descriptions of batches in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the record called `key` is or will be."""
        return self.folder / f"{key}.npz"

    def has(self, key: str) -> bool:
        """Whether there is such a record that can be read."""
        return self.get(key) is not None

    def get(self, key: str) -> Described | None:
        """The record, None where there is none or what is there is broken."""
        try:
            with np.load(self.path(key), allow_pickle=False) as found:
                return Described(*(torch.from_numpy(found[part]) for part in _PARTS))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: str, described: Described) -> None:
        """Keeps a record; raises BadFileError where it cannot be written."""
        content = io.BytesIO()
        np.savez(content, **{part: getattr(described, part).cpu().numpy() for part in _PARTS})
        files.write(self.path(key), content.getvalue(), overwrite=True)

    def kept(self, key: str, make: Callable[[], Described]) -> Described:
        """The record, made and kept where there is none."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found
