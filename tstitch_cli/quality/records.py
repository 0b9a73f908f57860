"""What was found out about batches of pictures, kept on disk by a digest of all that decides it.

A record is written whole or not at all, so work that was cut at any moment goes on with what was finished, and what
comes out is the same. The features are kept picture by picture: up to some thousand pictures a row that is less than
the sums of their products, and precision and recall need them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tstitch_cli import files
from tstitch_cli.errors import BadFileError
from tstitch_cli.quality import npz
from tstitch_cli.quality.statistics import Described

FORMAT = 1
"""Goes up when what a record holds changes its meaning."""
_PARTS = ("features", "probabilities", "clip", "hits")
LIMIT_BYTES = 1 << 28
"""Of one part of a record; a thousand pictures have some MiB."""


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
        """The record, None where there is none or what is there is not one that `put` wrote."""
        try:
            with npz.opened(self.path(key)) as found:
                if not _is_record(found.headers):
                    return None
                parts = [torch.from_numpy(found.read(part).astype(np.float32)) for part in _PARTS]
        except BadFileError:
            return None
        return Described(*parts) if all(part.isfinite().all() for part in parts) else None

    def put(self, key: str, described: Described) -> None:
        """Keeps a record; raises BadFileError where it cannot be written."""
        content = io.BytesIO()
        np.savez(content, **{part: getattr(described, part).cpu().numpy() for part in _PARTS})
        try:
            files.write(self.path(key), content.getvalue(), overwrite=True)
        except BadFileError:  # once more, as another that began just now may have taken it for what a killed one left
            files.write(self.path(key), content.getvalue(), overwrite=True)

    def clear(self, keys: Iterable[str]) -> None:
        """Takes away what killed processes had begun to write of the records called `keys`."""
        files.clear_halfway(self.folder, (self.path(key).name for key in keys))

    def kept(self, key: str, make: Callable[[], Described]) -> Described:
        """The record, made and kept where there is none."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found


def _is_record(headers: Mapping[str, npz.Header]) -> bool:
    """Whether the parts are there, (B, columns) of the same B."""
    if not headers.keys() >= set(_PARTS):
        return False
    parts = [headers[part] for part in _PARTS]
    if any(len(part.shape) != 2 or part.dtype.kind != "f" for part in parts):
        return False
    count = parts[0].shape[0]
    return count > 0 and all(part.shape[0] == count and count * part.row_bytes <= LIMIT_BYTES for part in parts)
