"""Reads the tensors of a checkpoint file; what a pickle would run is never run."""

from __future__ import annotations

import argparse
import io
import warnings
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from tstitch_cli.errors import BadFileError

_INSIDE = ("ema", "state_dict", "model", "module")
"""Where training loops keep the weights in what they save, the averaged ones first."""


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file or of a file that torch.save wrote, by name, on the CPU.

    Of a training checkpoint these are the averaged weights where it has them, else the weights.

    Raises:
        BadFileError: the file is missing or broken, has no tensors, or holds objects other than plain data.
    """
    if path.is_dir():
        raise BadFileError(f"{path}: is a directory", hint="give the path of the checkpoint file in it")
    if not path.is_file():
        raise BadFileError(f"{path}: there is no such file", hint="give the path of the downloaded checkpoint")
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for _ in range(2):  # a trainer's checkpoint in a launcher's
        inner = next((found[key] for key in _INSIDE if isinstance(found.get(key), dict) and found[key]), None)
        found = found if inner is None else inner
    tensors = {
        str(name).removeprefix("module."): value.detach()
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise BadFileError(f"{path}: holds no weights", hint="give a checkpoint of the denoiser itself")
    return tensors


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _broken(path, error) from error


def _pickled(path: Path) -> dict[str, Any]:
    # A namespace holds the options that a training script was given; to make one runs nothing.
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _refuse_compressed(path)
        with (
            nullcontext(path) if zipped else _Bounded(path) as given,
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            found = torch.load(given, map_location="cpu", weights_only=True, mmap=zipped)
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed file makes torch's reader fail in every way there is
        if "Unsupported" in str(error) or "was not an allowed global" in str(error):
            raise BadFileError(
                f"{path}: holds Python objects besides tensors, and reading those could run code, so it is not read",
                hint="where you trust it, load it with torch and save its `state_dict` alone, or as safetensors",
            ) from error
        raise _broken(path, error) from error
    return found if isinstance(found, dict) else {}


class _Bounded(io.BufferedReader):
    """A file that gives what is left of it where more is asked for, and takes no memory for the rest."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, all that are left where it is negative or None."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def _refuse_compressed(path: Path) -> None:
    """Raises BadFileError where a member would be unpacked, to whatever size: torch.save compresses none."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise BadFileError(
                f"{path}: is compressed, which no checkpoint that torch saves is", hint="unpack it, or save it again"
            )


def _broken(path: Path, error: Exception) -> BadFileError:
    first = next(iter(str(error).strip().splitlines()), "")
    if " " not in first:  # no sentence, such as the key of a KeyError
        first = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return BadFileError(f"{path}: is no checkpoint that can be read: {first[:200]}", hint="download it again")
