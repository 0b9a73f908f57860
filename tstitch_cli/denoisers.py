"""Loads zoo entries through diffusers into one pipeline whose denoiser is stitched."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from tstitch_cli import components, schedulers
from tstitch_cli.devices import out_of_memory
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import StitchedDenoiser, stitch
from tstitch_cli.zoo.entry import Entry, class_numbers
from tstitch_cli.zoo.preflight import check, check_setting


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


def load(entries: Sequence[Entry], setting: Setting, *, random_weights: bool = False) -> Family:
    """Loads `entries`, smallest first; the pipeline is that of the one with most parameters, else of the last.

    `random_weights` builds all of it from the zoo's facts without its weights, to be timed; nothing is fetched.

    Raises UsageError where they cannot be stitched (before anything is loaded), BadFileError where weights are
    missing or broken, DeviceError where the device is not there or too small.
    """
    check(entries)
    check_setting(entries, setting)
    _quiet()
    device = torch.device(setting.device)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    host = _largest(entries)
    parts = _without_weights() if random_weights else components
    with out_of_memory(setting):
        loaded = {entry.name: parts.denoiser(entry, dtype) for entry in entries}
        pipeline = parts.pipeline(host, loaded[host.name], dtype)
        pipeline.scheduler = schedulers.build(setting.scheduler, pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        stitched = stitch(pipeline, host.component, loaded, host.name)
        pipeline.to(device)
    found = tuple(replace(entry, revision=components.revision_of(entry, loaded[entry.name])) for entry in entries)
    return Family(found, {e.name: parts.digest_of(e) for e in found}, loaded, pipeline, stitched, setting, device)


def _largest(entries: Sequence[Entry]) -> Entry:
    """By parameters and not by time, so that a plan, whose order is that of time, runs in the pipeline profiled."""
    if any(entry.parameters is None for entry in entries):
        return entries[-1]
    return max(entries, key=lambda entry: entry.parameters or 0)


def _without_weights() -> ModuleType:
    from tstitch_cli import random_weights  # which imports transformers' models, slowly

    return random_weights


def _quiet() -> None:
    """Keeps diffusers and transformers from talking into the command's own output."""
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|huggingface_hub)\b")
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
