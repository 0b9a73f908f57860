"""Counts a denoiser's parameters from the headers of its safetensors files; nothing is loaded."""

from __future__ import annotations

import math
import os
from pathlib import Path

from tstitch_cli import strict_json
from tstitch_cli.errors import BadFileError
from tstitch_cli.zoo import needed


def parameters_in(folder: Path) -> int | None:
    """How many values the denoiser's weights in `folder` hold; None where there are no safetensors weights.

    Raises:
        BadFileError: a file is no safetensors file.
    """
    if not folder.is_dir():
        return None
    found = needed.weights(os.listdir(folder), "float32")
    if found is None:
        return None
    return sum(_values(folder / name) for name in found.files if name.endswith(".safetensors"))


def _values(path: Path) -> int:
    # A safetensors file begins with the length of its JSON header, 8 bytes, little-endian.
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, strict_json.LIMIT_BYTES + 1))
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    tensors = strict_json.parse(header, f"{path} (its header)")
    tensors.pop("__metadata__", None)
    shapes = [tensor.get("shape") if isinstance(tensor, dict) else None for tensor in tensors.values()]
    if not all(isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) for shape in shapes):
        raise BadFileError(f"{path}: is no safetensors file", hint="download it again")
    return sum(math.prod(shape) for shape in shapes if shape is not None)
