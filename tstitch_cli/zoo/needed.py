"""Chooses, among the files of a repository or folder, the few that are loaded: configs and safetensors weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tstitch_cli.errors import BadFileError
from tstitch_cli.zoo import allowed

INDEX = "model_index.json"
CONFIG = "config.json"
_VARIANT = r"(?:\.(?P<{}>fp16|bf16))?"
_WEIGHTS = re.compile(
    rf"(?P<stem>diffusion_pytorch_model|model){_VARIANT.format('early')}"
    rf"(?:-\d{{5}}-of-(?P<shards>\d{{5}}))?{_VARIANT.format('late')}\.safetensors",
    re.ASCII,
)
_SHARDS_INDEX = re.compile(
    rf"(?:diffusion_pytorch_model|model)\.safetensors\.index{_VARIANT.format('variant')}\.json", re.ASCII
)
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5", ".onnx")
_SMALL = (".json", ".txt", ".model", ".jinja")
"""What tokenizers, schedulers and image processors are made of."""
_VARIANTS: dict[str, tuple[str | None, ...]] = {
    "float16": ("fp16", None, "bf16"),
    "bfloat16": ("bf16", None, "fp16"),
    "float32": (None, "fp16", "bf16"),
}
"""The variants of weights by dtype, the one to take first; None is the plain one, of full precision."""


@dataclass(frozen=True)
class Weights:
    """The safetensors files of one model, all of one variant."""

    variant: str | None
    """As diffusers and transformers spell it in file names: fp16, bf16; None is the plain one."""
    files: tuple[str, ...]
    """Names in the model's folder; the index of the shards first where there are shards."""


def weights(names: Collection[str], dtype: str) -> Weights | None:
    """The weights to load in `dtype` among the file `names` of one model's folder; None where there are none."""
    for variant in _VARIANTS[dtype]:
        matches = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
        ours = [match for match in matches if (match["early"] or match["late"]) == variant]
        whole: list[tuple[str, ...]] = [(match[0],) for match in ours if match["shards"] is None]
        parts = sorted(match[0] for match in ours if match["shards"])
        promised = {int(match["shards"]) for match in ours if match["shards"]}
        index = [name for name in names if (match := _SHARDS_INDEX.fullmatch(name)) and match["variant"] == variant]
        sharded = [(index[0], *parts)] if index and promised == {len(parts)} else []
        # diffusers looks for shards first, transformers for the whole.
        of_diffusers = any(match["stem"] != "model" for match in ours)
        for files in sharded + whole if of_diffusers else whole + sharded:
            return Weights(variant, files)
    return None


def weights_in(folder: Path, dtype: str, where: str) -> Weights:
    """The weights of the model in `folder`; raises BadFileError, calling the folder `where`, if there are none."""
    return _weights([path.name for path in _files(folder)], dtype, where)


def denoiser_files(paths: Collection[str], subfolder: str, dtype: str, where: str) -> list[str]:
    """The config and weights of the model in `subfolder`, of a repository or folder `where` that holds `paths`.

    Raises:
        BadFileError: there is no config, or there are no safetensors weights.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    names = [name for name in names if "/" not in name]
    place = f"{where}, {subfolder}" if subfolder else where
    if CONFIG not in names:
        raise BadFileError(f"{where}: has no {prefix}{CONFIG}", hint="every model's folder has its config and weights")
    return [prefix + name for name in (CONFIG, *_weights(names, dtype, place).files)]


def part_files(paths: Collection[str], parts: Mapping[str, allowed.Part], dtype: str, where: str) -> list[str]:
    """The pipeline's index, and of every one of its `parts` what it is loaded from.

    Raises what `denoiser_files` raises.
    """
    found = [INDEX]
    for name, part in parts.items():
        if part.has_weights:
            found += denoiser_files(paths, name, dtype, where)
        else:
            inside = [path for path in paths if path.startswith(f"{name}/") and path.count("/") == 1]
            found += [path for path in inside if path.endswith(_SMALL)]
    return found


def paths_in(folder: Path) -> list[str]:
    """The files of a folder on this disk, as paths inside it with slashes."""
    return [path.relative_to(folder).as_posix() for path in _files(folder, "**/*")]


def _files(folder: Path, pattern: str = "*") -> Iterator[Path]:
    return (path for path in folder.glob(pattern) if path.is_file())


def _weights(names: Collection[str], dtype: str, where: str) -> Weights:
    found = weights(names, dtype)
    if found is None:
        raise _without_weights(where, names)
    return found


def _without_weights(where: str, names: Iterable[str]) -> BadFileError:
    others = sorted(name for name in names if name.endswith(_OTHER_FORMATS))
    if not others:
        return BadFileError(f"{where}: has no safetensors weights", hint="the copy may be incomplete: fetch it again")
    return BadFileError(
        f"{where}: has its weights only as {others[0]}, and tstitch loads nothing but safetensors",
        hint="such files can run code when they are opened; look for a revision with safetensors (often refs/pr/1), "
        "or convert the model with diffusers' save_pretrained and give the folder",
    )
