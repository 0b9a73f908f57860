"""Counts a denoiser's parameters from the headers of its safetensors files; nothing is loaded."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from tstitch_cli.errors import BadFileError
from tstitch_cli.formats import strict_json
from tstitch_cli.zoo import needed

MOST_DIMENSIONS, MOST_VALUES = 16, 1 << 40
"""Of a tensor; a header that promises more was not written for weights."""


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


def header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors, by their names, and under `__metadata__` of itself.

    Raises:
        BadFileError: it cannot be read, or is no safetensors file.
    """
    # A safetensors file begins with the length of its JSON header, 8 bytes, little-endian.
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            content = file.read(min(length, strict_json.LIMIT_BYTES + 1))
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    return strict_json.parse(content, f"{path} (its header)")


def _values(path: Path) -> int:
    tensors = header(path)
    tensors.pop("__metadata__", None)
    shapes: list[Any] = [tensor.get("shape") if isinstance(tensor, dict) else None for tensor in tensors.values()]
    if not all(map(_is_shape, shapes)):
        raise BadFileError(f"{path}: is no safetensors file", hint="download it again")
    return sum(math.prod(shape) for shape in shapes)


def _is_shape(found: Any) -> bool:
    """Whether this can be the shape of a tensor that there is."""
    return (
        isinstance(found, list)
        and len(found) <= MOST_DIMENSIONS
        and all(type(n) is int and 0 <= n <= MOST_VALUES for n in found)
        and math.prod(found) <= MOST_VALUES
    )
