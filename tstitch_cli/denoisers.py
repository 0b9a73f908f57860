"""Loads zoo entries through diffusers into one pipeline whose denoiser is stitched."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
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
        """Prompts to measure with: the classes in turn, by number since names may be ambiguous, or a sentence."""
        labels = self.entries[0].conditioning.labels
        return tuple(
            str(i % len(labels)) if labels else "a photograph of a lighthouse by the sea" for i in range(count)
        )

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
        loaded = {entry.name: components.denoiser(entry, dtype) for entry in entries}
        pipeline = components.pipeline(host, loaded[host.name], dtype)
        pipeline.scheduler = schedulers.build(setting.scheduler, pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        stitched = stitch(pipeline, host.component, loaded, host.name)
        pipeline.to(device)
    found = tuple(replace(entry, revision=components.revision_of(entry, loaded[entry.name])) for entry in entries)
    return Family(found, {e.name: components.digest_of(e) for e in found}, loaded, pipeline, stitched, setting, device)


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
