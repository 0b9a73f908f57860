"""Loads an entry's components through diffusers: its denoiser, and the rest of its pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from tstitch_cli import devices, schedulers
from tstitch_cli.errors import BadFileError
from tstitch_cli.fetching import hub
from tstitch_cli.formats import strict_json
from tstitch_cli.networks.models import model_class
from tstitch_cli.networks.text_reader import TextReader
from tstitch_cli.zoo import allowed, folders, needed
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import path_of

_SPARSE = "nabla"
"""Kandinsky's sparse attention, which approximates the full one (arXiv 2507.13546) and needs kernels that torch has to
compile. Its authors run the same weights with the full one at 512 px."""


def denoiser(entry: Entry, dtype: torch.dtype) -> nn.Module:
    """The component of `entry` in eval mode, of the class its config names, from safetensors alone.

    Raises:
        UsageError: its config names code, or a class that cannot be stitched.
        BadFileError: its config or weights are missing, broken or no safetensors, or cannot be fetched.
    """
    folder = _denoiser_folder(entry, dtype)
    if not (folder / needed.CONFIG).is_file():
        raise BadFileError(
            f"{entry.name} cannot be loaded from {folder}: it has no {needed.CONFIG}",
            hint="the folder needs a diffusers config and safetensors weights",
        )
    folders.refuse_foreign_denoiser(folder / needed.CONFIG)
    made = model_class(strict_json.read(folder / needed.CONFIG)["_class_name"])
    weights = needed.weights_in(folder, _name(dtype), f"{entry.name}, {folder}")
    with _loading(entry, folder):
        model = _whole(made, folder, variant=weights.variant, torch_dtype=dtype)
    if model.config.get("attention_type") == _SPARSE:
        model.register_to_config(attention_type="regular")
    return model.eval().requires_grad_(False)


def pipeline(entry: Entry, loaded: nn.Module, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` around a loaded denoiser.

    Raises:
        UsageError: a part of it is of a class that is not allowed.
        BadFileError: a part is missing, broken or no safetensors, or cannot be fetched.
    """
    folder, parts = _parts(entry, dtype)
    models = {name: _part(entry, folder / name, part, dtype) for name, part in parts.items() if part.has_weights}
    made = _around(entry, folder, parts, models | {entry.component: loaded}, torch_dtype=dtype, use_safetensors=True)
    if entry.parts != entry.source:
        # Another model's scheduler has the noise schedule of that model's training.
        made.scheduler = type(made.scheduler).from_config(schedulers.with_noise(made.scheduler.config, entry.noise))
    return made


def _parts(entry: Entry, dtype: torch.dtype, *, only_text: bool = False) -> tuple[Path, dict[str, allowed.Part]]:
    """The folder of the entry's pipeline on this disk, and the parts that its index names besides the denoiser.

    `only_text` has no other weights fetched than those of the text encoders.
    """
    from_hub = hub.place(entry.parts) is not None
    folder = hub.parts_folder(entry, _name(dtype), only_text=only_text) if from_hub else path_of(entry.parts)
    index = folder / needed.INDEX
    return folder, allowed.parts(strict_json.read(index), str(index), besides=entry.component)


def _around(
    entry: Entry, folder: Path, parts: Mapping[str, allowed.Part], given: Mapping[str, Any], **options: Any
) -> Any:
    """The pipeline of `entry` in `folder` with the parts that are `given`; what has no weights is read from there."""
    readers = {name: None for name, part in parts.items() if part.reads_pictures}
    with _loading(entry, folder):
        made = pipeline_class(entry.pipeline).from_pretrained(
            str(folder), local_files_only=True, **options, **given, **readers
        )
        made.register_modules(**{name: TextReader(folder / name) for name in readers})
    return made


def _part(entry: Entry, folder: Path, part: allowed.Part, dtype: torch.dtype) -> Any:
    """A model of the pipeline, of the class that its index names.

    Each is loaded by itself because each has its own variants: diffusers takes one for all of a pipeline, and a file
    of that variant in another format than safetensors for what was meant.
    """
    config = folder / needed.CONFIG
    allowed.refuse_code(strict_json.read(config), str(config))
    weights = needed.weights_in(folder, _name(dtype), f"{entry.name}, {folder}")
    of_library = part.library in ("diffusers", "transformers")
    module = import_module(part.library if of_library else f"diffusers.pipelines.{part.library}")
    kind = getattr(module, part.model, None)
    if kind is None:
        raise BadFileError(
            f"{entry.name}: the {part.library} that is installed has no {part.model}", hint="upgrade the package"
        )
    with _loading(entry, folder):
        spelled = "torch_dtype" if part.library == "diffusers" else "dtype"
        return _whole(kind, folder, variant=weights.variant, **{spelled: dtype})


def _whole(kind: Any, folder: Path, **given: Any) -> Any:
    """The model of class `kind` in `folder`, of which nothing is left random; raises ValueError where it would be.

    Both libraries begin with random numbers and only warn of those that no weights took the place of.
    """
    model, told = kind.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **given
    )
    if missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(f"its weights lack {missing[0]}{more}")
    return model


def text_pipeline(entry: Entry, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` with its text encoders and nothing else that has weights."""
    folder, parts = _parts(entry, dtype, only_text=True)
    models = {
        name: _part(entry, folder / name, part, dtype) if part.encodes_text(name) else None
        for name, part in parts.items()
        if part.has_weights
    }
    return _around(entry, folder, parts, models | {entry.component: None})


def controlnet(control: Control, dtype: torch.dtype) -> Any:
    """The ControlNet in eval mode, from safetensors alone; raises BadFileError where it cannot be loaded."""
    folder = _denoiser_folder(control, dtype)
    allowed.refuse_code(strict_json.read(folder / needed.CONFIG), str(folder / needed.CONFIG))
    weights = needed.weights_in(folder, _name(dtype), f"{control.name}, {folder}")
    with _loading(control, folder):
        net = _whole(diffusers.ControlNetModel, folder, variant=weights.variant, torch_dtype=dtype)
    return net.eval().requires_grad_(False)


def pipeline_class(name: str) -> Any:
    """The pipeline's class: one of diffusers', or tstitch's own for class-conditional denoisers."""
    if name == "ClassConditionalPipeline":
        from tstitch_cli.networks.class_conditional import ClassConditionalPipeline

        return ClassConditionalPipeline
    return getattr(diffusers, name)


def _denoiser_folder(entry: Entry | Control, dtype: torch.dtype) -> Path:
    if hub.place(entry.source):
        return hub.denoiser_folder(entry, _name(dtype))
    return path_of(entry.source) / entry.subfolder


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _loading(entry: Entry | Control, folder: Path) -> Iterator[None]:
    """Tells of missing or broken files in one sentence."""
    try:
        yield
    except Exception as error:  # files that anybody may have made fail wherever a library first trips over them
        if devices.failed(error):
            raise  # which is told elsewhere
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        hint = (
            f"its files may be damaged: delete {cached} and run again to fetch them anew"
            if (cached := hub.cached_at(folder))
            else "reinstall tstitch"
            if entry.source.startswith("bundled:")
            else "the folder needs a diffusers config and safetensors weights"
        )
        raise BadFileError(f"{entry.name} cannot be loaded from {folder}: {first}", hint=hint) from error


def digest_of(entry: Entry | Control) -> str:
    """What the fingerprint knows the weights of a denoiser or ControlNet by: the hub's commit, else a digest of files.

    Where the parts of a denoiser's pipeline are another hub repository's, the commit of that one stands beside it.
    """
    of_parts = hub.place(entry.parts) if isinstance(entry, Entry) and entry.parts != entry.source else None
    beside = f"+{of_parts[1]}" if of_parts else ""
    if hub.place(entry.source):
        return f"{entry.revision or 'unpinned'}{beside}"
    sha = hashlib.sha256()
    for file in sorted((path_of(entry.source) / entry.subfolder).glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16] + beside
