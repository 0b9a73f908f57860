"""LoRA (arXiv 2106.09685) for the largest denoiser, merged into its weights so that a step costs as before."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.formats import strict_json
from tstitch_cli.inputs import require_same
from tstitch_cli.schema import GivenFile
from tstitch_cli.zoo import weights

if TYPE_CHECKING:
    from tstitch_cli.denoisers import Family

WEIGHTS = "pytorch_lora_weights.safetensors"
_HINT = f"give a .safetensors file, or a folder with {WEIGHTS}"
_NAME = re.compile(r"[\w./:-]{1,500}", re.ASCII)
_NAMING = frozenset({"target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"})
"""peft's options that are lists of layers, or values by layer."""
_OPTIONS = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "lora_bias",
        "bias",
        "fan_in_fan_out",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
        "inference_mode",
        "peft_type",
        "peft_version",
        "task_type",
        "base_model_name_or_path",
        "revision",
        "megatron_core",  # stands in every file, and is nothing without megatron_config
        "qalora_group_size",
    }
)
"""peft's options that say what a LoRA is; any other must be nothing."""
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
    _refuse_orders(path)
    return GivenFile("lora", str(path), documents.digest(path), 1.0 if scale is None else scale)


def _refuse_orders(path: Path) -> None:
    """Raises BadFileError where the file's header asks for more than what a LoRA is.

    diffusers hands the options there to peft as they are, some of which import a module by its name; and peft reads
    the names of layers as regular expressions, which can be written to run for ever.
    """
    header = weights.header(path)
    metadata = header.pop("__metadata__", {})
    told = metadata.get("lora_adapter_metadata") if isinstance(metadata, dict) else None
    options = strict_json.parse(told, f"{path}, its LoRA metadata") if isinstance(told, str) else {}
    names = list(header)
    for key, value in options.items():
        option = key.rpartition(".")[2]
        if option in _NAMING and isinstance(value, list | dict):
            names += map(str, value)
        elif value and option not in _OPTIONS:
            raise BadFileError(f"{path}: its metadata asks for {key[:60]!r}, which tstitch does not run", hint=_HINT)
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadFileError(f"{path}: {name[:60]!r} is no name of a layer", hint=_HINT)


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
