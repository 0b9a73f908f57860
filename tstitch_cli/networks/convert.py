"""Makes a diffusers folder of an original checkpoint, once, so that afterwards the zoo's name just works."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tstitch_cli import schedulers
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.networks import checkpoints, conversions
from tstitch_cli.networks.conversions import Conversion, Tensors
from tstitch_cli.networks.models import model_class
from tstitch_cli.zoo.allowed import OWN_DENOISERS
from tstitch_cli.zoo.entry import Component, Entry
from tstitch_cli.zoo.registry import path_of

CONVERSIONS: dict[str, Conversion] = {
    "FluxTransformer2DModel": conversions.flux,
    "LabelledUNet": conversions.labelled_unet,
    "OriginalDiT": conversions.dit,
    "UViTModel": conversions.u_vit,
    "VQModel": conversions.vq_autoencoder,
}
"""Class of a model -> what makes its parameters of an original checkpoint's."""
_NAMES_SHOWN = 6


def convert(entry: Entry, checkpoint: Path, *, autoencoder: Path | None = None, overwrite: bool = False) -> Path:
    """Converts the denoiser of `entry` from `checkpoint` and returns the folder, which is whole or not there at all.

    An entry whose other parts are its own (class-conditional latent diffusion) gets its autoencoder too, from
    `checkpoint` where that holds one, else from `autoencoder`.

    Raises:
        UsageError: the entry is not one that is made from a checkpoint, or no autoencoder is given that is needed.
        BadFileError: a checkpoint cannot be read or is not the entry's, or the folder is there or cannot be written.
    """
    architecture = entry.architecture
    if not entry.source.startswith("converted:") or architecture is None or architecture.model not in CONVERSIONS:
        raise UsageError(
            f"{entry.name} is not made from an original checkpoint: its source is {entry.source}",
            hint="`tstitch zoo` shows which ones are: their sources begin with converted:",
        )
    folder = path_of(entry.source)
    if folder.exists() and not overwrite:
        raise BadFileError(f"{folder}: exists already", hint="--overwrite replaces it")
    state = checkpoints.read(checkpoint)
    parts: dict[str, Any] = {entry.subfolder or entry.component: _component(architecture, state, checkpoint)}
    if entry.parts == entry.source:
        parts["vae"] = _autoencoder(entry, state, checkpoint, autoencoder)
        parts["scheduler"] = _scheduler(entry)
    elif autoencoder is not None:
        raise UsageError(f"{entry.name} takes its autoencoder from {entry.parts}", hint="leave --autoencoder out")
    try:
        _write(folder, entry, parts)
    except OSError as error:
        raise BadFileError(
            f"{folder}: cannot be written: {error.strerror or error}", hint="see that there is room, and the permission"
        ) from error
    return folder


def _autoencoder(entry: Entry, state: Tensors, checkpoint: Path, given: Path | None) -> nn.Module:
    if "vae" not in entry.components or entry.components["vae"].model not in CONVERSIONS:
        raise UsageError(f"{entry.name} has no autoencoder that can be converted", hint="its entry needs `parts`")
    if given is not None:
        state, checkpoint = checkpoints.read(given), given
    elif not conversions.has_autoencoder(state):
        raise UsageError(
            f"{checkpoint} holds no autoencoder, which {entry.name} needs",
            hint="give its checkpoint as well: --autoencoder FILE",
        )
    return _component(entry.components["vae"], state, checkpoint)


def _scheduler(entry: Entry) -> Any:
    part = entry.components.get("scheduler", Component("DDIMScheduler", {"clip_sample": False}))
    return model_class(part.model).from_config(schedulers.with_noise(part.config, entry.noise))


def _component(component: Component, state: Tensors, checkpoint: Path) -> nn.Module:
    """The model on the meta device, with the checkpoint's tensors in the place of its parameters."""
    try:
        with torch.device("meta"):
            model: nn.Module = model_class(component.model)(**component.config)
    except (TypeError, ValueError, NotImplementedError, ZeroDivisionError) as error:
        raise BadFileError(f"the zoo's config of {component.model} does not make one: {error}") from error
    config: Mapping[str, Any] = model.config  # type: ignore[assignment]
    try:
        converted = CONVERSIONS[component.model](state, config)
    except BadFileError as error:
        raise BadFileError(f"{checkpoint}: {error.message}", hint=error.hint) from error
    wanted = model.state_dict()
    _check(component.model, converted, wanted, checkpoint)
    model.load_state_dict({name: value.contiguous() for name, value in converted.items()}, assign=True)
    return model


def _check(model: str, found: Tensors, wanted: Tensors, checkpoint: Path) -> None:
    """Raises BadFileError with what is missing, not known, or of another shape or kind."""
    other = [
        f"{name} {tuple(value.shape)} where {tuple(wanted[name].shape)} was expected"
        for name, value in found.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    odd = [name for name, value in found.items() if not value.is_floating_point() or value.layout != torch.strided]
    faults = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", [name for name in wanted if name not in found]),
            ("not known", [name for name in found if name not in wanted]),
            ("of another shape", other),
            ("no floating-point numbers", odd),
        )
        if names
    ]
    if faults:
        raise BadFileError(
            f"{checkpoint}: is no checkpoint of this {model}; {'; '.join(faults)}",
            hint="check that the checkpoint is of this denoiser and of this size",
        )


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMES_SHOWN} more" if len(every) > _NAMES_SHOWN else ""
    return ", ".join(every[:_NAMES_SHOWN]) + more


def _write(folder: Path, entry: Entry, parts: Mapping[str, Any]) -> None:
    """Writes beside `folder` first and moves it there whole, an earlier one out of the way."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tstitch-", ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / "made"
        for name, model in parts.items():
            model.save_pretrained(made / name)
        if entry.parts == entry.source:
            _describe(made, entry, parts)
        if folder.exists():
            os.replace(folder, Path(temporary) / "earlier")
        os.replace(made, folder)


def _describe(made: Path, entry: Entry, parts: Mapping[str, Any]) -> None:
    """Writes the list of components, which makes a pipeline of the folder."""
    import json

    index: dict[str, Any] = {"_class_name": entry.pipeline}
    for name, model in parts.items():
        kind = type(model).__name__
        index[name] = [OWN_DENOISERS.get(kind, "diffusers"), kind]
    index["id2label"] = {str(number): label for number, label in enumerate(entry.conditioning.labels)}
    (made / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
