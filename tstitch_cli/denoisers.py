"""Loads zoo entries through diffusers into one pipeline whose denoiser is stitched."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from torch import nn

from tstitch_cli import schedulers
from tstitch_cli.errors import BadFileError, DeviceError, UsageError
from tstitch_cli.schema import DTYPES, Setting
from tstitch_cli.stitching import StitchedDenoiser, stitch
from tstitch_cli.zoo.entry import Entry, class_numbers
from tstitch_cli.zoo.preflight import check, check_setting
from tstitch_cli.zoo.registry import path_of


@dataclass(frozen=True)
class Family:
    """Denoisers of one latent space, loaded: one pipeline, its denoiser stitched, on one device in one dtype."""

    entries: tuple[Entry, ...]
    """Smallest first; each with the revision it was really loaded from."""
    weights: dict[str, str]
    """Denoiser name -> what the fingerprint knows its weights by."""
    denoisers: dict[str, nn.Module]
    pipeline: Any
    stitched: StitchedDenoiser
    setting: Setting
    device: torch.device

    @property
    def latent_space(self) -> str:
        """The name of the latent space that the denoisers share."""
        return self.entries[0].latent_space.name

    def entry(self, name: str) -> Entry:
        """The entry called `name`."""
        return next(entry for entry in self.entries if entry.name == name)

    def example_prompts(self, count: int) -> tuple[str, ...]:
        """Prompts to measure with: the classes in turn, or a plain sentence."""
        labels = self.entries[0].conditioning.labels or ("a photograph of a lighthouse by the sea",)
        return tuple(labels[i % len(labels)].split(",")[0] for i in range(count))

    def call_arguments(self, prompts: Sequence[str], negative_prompt: str | None, steps: int) -> dict[str, Any]:
        """The pipeline's arguments that say what to draw, for a batch of prompts in `steps` steps.

        Raises UsageError for a prompt that is no class of a class-conditional family, with the near ones.
        """
        given: dict[str, Any] = {
            "num_inference_steps": steps,
            "guidance_scale": self.setting.guidance,
            "height": self.setting.size,
            "width": self.setting.size,
        }
        accepted = inspect.signature(self.pipeline.__call__).parameters
        if self.entries[0].conditioning.kind == "class":
            given["class_labels"] = class_numbers(self.entries[0], prompts)
        else:
            given["prompt"] = list(prompts)
            if negative_prompt is not None:
                given["negative_prompt"] = [negative_prompt] * len(prompts)
        return {name: value for name, value in given.items() if name in accepted}


def load(entries: Sequence[Entry], setting: Setting) -> Family:
    """Loads `entries`, smallest first; the pipeline is that of the one with most parameters, else of the last.

    Raises UsageError where they cannot be stitched (before anything is loaded), BadFileError where weights are
    missing or broken, DeviceError where the device is not there or too small.
    """
    check(entries)
    check_setting(entries, setting)
    _quiet()
    device = torch.device(setting.device)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    host = _largest(entries)
    with out_of_memory(setting):
        loaded = {entry.name: _denoiser(entry, dtype) for entry in entries}
        pipeline = _pipeline(host, loaded[host.name], dtype)
        pipeline.scheduler = schedulers.build(setting.scheduler, pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        stitched = stitch(pipeline, host.component, loaded, host.name)
        pipeline.to(device)
    found = tuple(replace(entry, revision=_revision(entry, loaded[entry.name])) for entry in entries)
    return Family(found, {e.name: digest_of(e) for e in found}, loaded, pipeline, stitched, setting, device)


def resolve_device(asked: str) -> str:
    """`auto` becomes the best device torch has here: CUDA (or ROCm), XPU, MPS, else the CPU.

    Raises DeviceError where a device was asked for that is not there.
    """
    if asked == "auto":
        return _accelerator() or "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise DeviceError(f"'{asked}' is no device", hint="give cpu, cuda, cuda:1, mps or xpu") from error
    if device.type != "cpu":
        kind = _accelerator()
        count = torch.accelerator.device_count() if kind else 0
        if device.type != kind or (device.index or 0) >= count:
            raise DeviceError(
                f"there is no {asked} here", hint=f"this machine has {kind or 'cpu'}; leave --device out to use it"
            )
    return asked


def resolve_dtype(asked: str | None, default: str, device: str) -> str:
    """The dtype asked for; else the entry's own, but float32 on a CPU, where half precision is no faster to trust."""
    if asked is None:
        return "float32" if device == "cpu" else default
    if asked not in DTYPES:
        raise UsageError(f"unknown dtype '{asked}'", hint=f"there are {', '.join(DTYPES)}")
    return asked


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


@contextmanager
def out_of_memory(setting: Setting) -> Iterator[None]:
    """Turns every form in which memory runs out into DeviceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_small(setting) from error
    except RuntimeError as error:
        signs = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
        if any(sign in str(error) for sign in signs):
            raise _too_small(setting) from error
        raise


def _too_small(setting: Setting) -> DeviceError:
    return DeviceError(
        f"{setting.device} ran out of memory at batch size {setting.batch_size}, {setting.size} px, {setting.dtype}",
        hint="profile and plan for a smaller --batch-size, a smaller --size or --dtype float16",
    )


def _largest(entries: Sequence[Entry]) -> Entry:
    """By parameters and not by time, so that a plan, whose order is that of time, runs in the pipeline profiled."""
    if any(entry.parameters is None for entry in entries):
        return entries[-1]
    return max(entries, key=lambda entry: entry.parameters or 0)


def _quiet() -> None:
    """Keeps diffusers and transformers from talking into the command's own output."""
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|huggingface_hub)\b")
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


def _accelerator() -> str | None:
    device = torch.accelerator.current_accelerator(check_available=True)
    return device.type if device is not None else None


def _denoiser(entry: Entry, dtype: torch.dtype) -> nn.Module:
    """The component of `entry` in eval mode, of the diffusers class its config names, from safetensors alone."""
    where, revision = _location(entry.source, entry.revision)
    with _loading(entry):
        model = diffusers.AutoModel.from_pretrained(
            where, subfolder=entry.subfolder or None, revision=revision, torch_dtype=dtype, use_safetensors=True
        )
    if not isinstance(model, nn.Module):
        raise BadFileError(f"{entry.name}: {type(model).__name__} is no denoiser of diffusers")
    return model.eval().requires_grad_(False)


def _pipeline(entry: Entry, denoiser: nn.Module, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` around a loaded denoiser."""
    where, revision = _location(entry.parts, entry.revision if entry.parts == entry.source else None)
    with _loading(entry):
        return _pipeline_class(entry.pipeline).from_pretrained(
            where, revision=revision, torch_dtype=dtype, use_safetensors=True, **{entry.component: denoiser}
        )


def _pipeline_class(name: str) -> Any:
    if name == "ClassConditionalPipeline":
        from tstitch_cli.class_conditional import ClassConditionalPipeline

        return ClassConditionalPipeline
    return getattr(diffusers, name)


def _location(source: str, revision: str | None) -> tuple[str, str | None]:
    """What `from_pretrained` is given: a folder, or a hub repository with its revision."""
    if source.startswith("hub:"):
        return source.removeprefix("hub:"), revision
    return str(path_of(source)), None


def _revision(entry: Entry, denoiser: nn.Module) -> str | None:
    """The pinned revision of a hub entry, else the commit it was resolved to."""
    if not entry.source.startswith("hub:"):
        return None
    resolved = getattr(getattr(denoiser, "config", None), "_commit_hash", None)
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
