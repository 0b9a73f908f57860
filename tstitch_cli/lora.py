"""LoRA (arXiv 2106.09685) for the largest denoiser, merged into its weights so that a step costs as before."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.inputs import require_same
from tstitch_cli.schema import GivenFile

if TYPE_CHECKING:
    from tstitch_cli.denoisers import Family

WEIGHTS = "pytorch_lora_weights.safetensors"
_HINT = f"give a .safetensors file, or a folder with {WEIGHTS}"
MOST = 10.0
"""No LoRA is meant to be applied more strongly than this, either way."""


def read(given: Sequence[str]) -> tuple[GivenFile, ...]:
    """What PATH[:SCALE] on the command line stands for, in the order given.

    Raises:
        BadFileError: there is no such file, or it is no safetensors file.
        UsageError: the scale is absurd, or the package that LoRA needs is not installed.
    """
    if given and importlib.util.find_spec("peft") is None:
        raise UsageError(
            "LoRA needs the package peft, which is not installed",
            hint='in the clone of tstitch: pip install -c constraints.txt ".[lora]"',
        )
    return tuple(_one(text) for text in given)


def again(files: Sequence[GivenFile], name: str) -> tuple[GivenFile, ...]:
    """The LoRAs among the files that the picture `name` was made from; raises as `read`, and where one has changed."""
    loras = tuple(file for file in files if file.kind == "lora")
    for lora in loras:
        require_same(lora, name)
    read([lora.path for lora in loras])
    return loras


def _one(text: str) -> GivenFile:
    name, colon, number = text.rpartition(":")
    scale = _number(number) if colon and name else None
    path = Path(text if scale is None else name)
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise BadFileError(f"{path}: there is no such file", hint=_HINT)
    if path.suffix != ".safetensors":
        raise BadFileError(f"{path}: is no safetensors file, and other formats may run code", hint=_HINT)
    if scale is not None and not -MOST <= scale <= MOST:
        raise UsageError(f"a LoRA scale of {scale:g} is absurd", hint=f"give one from -{MOST:g} to {MOST:g}")
    return GivenFile("lora", str(path), documents.digest(path), 1.0 if scale is None else scale)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def merge(family: Family, loras: Sequence[GivenFile]) -> Family:
    """Adds `loras` to the weights of the largest denoiser and the text encoders; the other denoisers stay as they are.

    Raises:
        UsageError: the pipeline takes no LoRA, or a file has nothing for this denoiser.
        BadFileError: a file cannot be read or does not fit the denoiser's shapes.
    """
    pipeline = family.pipeline
    parts = [name for name in getattr(pipeline, "_lora_loadable_modules", ()) if getattr(pipeline, name, None)]
    if loras and not parts:
        raise UsageError(f"{type(pipeline).__name__} takes no LoRA", hint="leave --lora out")
    for number, lora in enumerate(loras):
        _merge(pipeline, parts, lora, f"lora-{number}")
    return replace(family, loras=(*family.loras, *loras))


def _merge(pipeline: Any, parts: list[str], lora: GivenFile, adapter: str) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    path = Path(lora.path)
    try:
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=adapter, use_safetensors=True, local_files_only=True
        )
        found = any(isinstance(m, BaseTunerLayer) for part in parts for m in getattr(pipeline, part).modules())
        if found:
            pipeline.fuse_lora(components=parts, lora_scale=lora.scale)
    except Exception as error:  # a file that anybody may have made fails wherever diffusers first trips over it
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise BadFileError(f"{path}: does not fit the largest denoiser: {first}", hint=_HINT) from error
    if not found:
        raise UsageError(f"{path}: has nothing for the largest denoiser", hint="give a LoRA made for this family")
    pipeline.unload_lora_weights()
