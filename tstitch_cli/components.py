"""Loads an entry's components through diffusers: its denoiser, and the rest of its pipeline."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from torch import nn

from tstitch_cli import schedulers
from tstitch_cli.errors import BadFileError
from tstitch_cli.models import model_class
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import parts_of, path_of


def denoiser(entry: Entry, dtype: torch.dtype) -> nn.Module:
    """The component of `entry` in eval mode, of the class its config names, from safetensors alone.

    Raises UsageError for a class that tstitch does not run, BadFileError where weights are missing or broken.
    """
    where, revision = _location(entry.source, entry.revision)
    given: dict[str, Any] = {"subfolder": entry.subfolder or None, "revision": revision}
    with _loading(entry):
        config = diffusers.AutoModel.load_config(where, **given)
        model = model_class(str(config.get("_class_name"))).from_pretrained(
            where, torch_dtype=dtype, use_safetensors=True, **given
        )
    if not isinstance(model, nn.Module):
        raise BadFileError(f"{entry.name}: {type(model).__name__} is no denoiser of diffusers")
    return model.eval().requires_grad_(False)


def pipeline(entry: Entry, loaded: nn.Module, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` around a loaded denoiser."""
    where, revision = _location(*parts_of(entry))
    with _loading(entry):
        made = pipeline_class(entry.pipeline).from_pretrained(
            where, revision=revision, torch_dtype=dtype, use_safetensors=True, **{entry.component: loaded}
        )
        if entry.parts != entry.source:
            # Another model's scheduler has the noise schedule of that model's training.
            made.scheduler = type(made.scheduler).from_config(schedulers.with_noise(made.scheduler.config, entry.noise))
        return made


def text_pipeline(entry: Entry, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` with its text encoders and nothing else that has weights."""
    where, revision = _location(*parts_of(entry))
    absent: dict[str, Any] = {entry.component: None, "vae": None}
    made = pipeline_class(entry.pipeline)
    if "safety_checker" in inspect.signature(made.__init__).parameters:
        absent |= {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    with _loading(entry):
        return made.from_pretrained(where, revision=revision, torch_dtype=dtype, use_safetensors=True, **absent)


def pipeline_class(name: str) -> Any:
    """The pipeline's class: one of diffusers', or tstitch's own for class-conditional denoisers."""
    if name == "ClassConditionalPipeline":
        from tstitch_cli.class_conditional import ClassConditionalPipeline

        return ClassConditionalPipeline
    return getattr(diffusers, name)


def _location(source: str, revision: str | None) -> tuple[str, str | None]:
    """What `from_pretrained` is given: a folder, or a hub repository with its revision."""
    if source.startswith("hub:"):
        return source.removeprefix("hub:"), revision
    folder = path_of(source)
    if source.startswith("converted:") and not folder.is_dir():
        name = source.removeprefix("converted:")
        raise BadFileError(
            f"{name} is made from its original checkpoint, which has not been converted yet",
            hint=f"download the checkpoint and run `tstitch convert {name} CHECKPOINT`",
        )
    return str(folder), None


def revision_of(entry: Entry, loaded: nn.Module) -> str | None:
    """The pinned revision of a hub entry, else the commit it was resolved to."""
    if not entry.source.startswith("hub:"):
        return None
    resolved = getattr(getattr(loaded, "config", None), "_commit_hash", None)
    return entry.revision or resolved


@contextmanager
def _loading(entry: Entry) -> Iterator[None]:
    """Tells of missing, broken or unreachable weights in one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            "check the network and the repository's name, and set HF_TOKEN where it is gated"
            if entry.source.startswith("hub:")
            else "reinstall tstitch"
            if entry.source.startswith("bundled:")
            else "the folder needs a diffusers config and safetensors weights"
        )
        raise BadFileError(f"{entry.name} cannot be loaded from {entry.source}: {first}", hint=hint) from error


def digest_of(entry: Entry) -> str:
    """What the fingerprint knows a denoiser's weights by: a hub entry's revision, else a digest of its files."""
    if entry.source.startswith("hub:"):
        return entry.revision or "unpinned"
    sha = hashlib.sha256()
    for file in sorted((path_of(entry.source) / entry.subfolder).glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16]
