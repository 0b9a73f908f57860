"""Loads zoo entries through diffusers into one pipeline whose denoiser is stitched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import methodcaller
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tstitch_cli import components, libraries, schedulers
from tstitch_cli.bridges import embeddings, running
from tstitch_cli.bridges.bridge import Bridge
from tstitch_cli.devices import out_of_memory, resolve_device
from tstitch_cli.fetching import hub, hub_errors
from tstitch_cli.fetching.fetch_command import fetch_command
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.networks import task_pipelines
from tstitch_cli.savings import caches, offload
from tstitch_cli.schema import GivenFile, Setting
from tstitch_cli.stitching import StitchedDenoiser, stitch
from tstitch_cli.zoo import converted
from tstitch_cli.zoo.controls import Control, weights_name
from tstitch_cli.zoo.entry import Entry, class_numbers, decided, largest
from tstitch_cli.zoo.preflight import check, check_setting
from tstitch_cli.zoo.registry import control_of

EXAMPLES = (
    "a photograph of a lighthouse by the sea",
    "an oil painting of two dancers in a red room",
    "a bowl of lemons on a wooden table",
    "a street in the rain at night",
)


@dataclass(frozen=True)
class Family:
    """Denoisers of one latent space, loaded: one pipeline, its denoiser stitched, on one device in one dtype."""

    entries: tuple[Entry, ...]
    """Smallest first; each with the revision it was really loaded from."""
    weights: dict[str, str]
    """Denoiser name, `control NAME` for a ControlNet -> what the fingerprint knows its weights by."""
    denoisers: dict[str, nn.Module]
    pipeline: Any
    stitched: StitchedDenoiser
    setting: Setting
    device: torch.device
    bridges: dict[str, Bridge] = field(default_factory=dict)
    """What stands around those denoisers that differ from what the pipeline and its scheduler expect."""
    loras: tuple[GivenFile, ...] = ()
    """Those merged into the largest denoiser."""
    noise: Mapping[str, Any] = field(default_factory=dict)
    """The config of the scheduler that the pipeline came with, of which every other one is made."""

    @property
    def latent_space(self) -> str:
        """The name of the latent space that the denoisers share."""
        return self.entries[0].latent_space.name

    def entry(self, name: str) -> Entry:
        """The entry called `name`."""
        return next(entry for entry in self.entries if entry.name == name)

    def example_prompts(self, count: int, first: int = 0) -> tuple[str, ...]:
        """Prompts to measure with, `count` of them from number `first`: the classes in turn, or sentences.

        Classes are told by number, since names may be ambiguous; sentences are plain ones unless the zoo has examples.
        """
        told = self.host.conditioning
        examples = [str(number) for number in range(len(told.labels))] or told.examples or EXAMPLES
        return tuple(examples[i % len(examples)] for i in range(first, first + count))

    @property
    def host(self) -> Entry:
        """The entry that the pipeline, its autoencoder and its text encoders are of."""
        return largest(self.entries, self.setting.host)

    def embedding_of(self, name: str) -> str | None:
        """The denoiser whose text encoder the prompts of denoiser `name` go through; None where there is no text."""
        if self.host.conditioning.kind != "text":
            return None
        return self.host.name if self.setting.embeddings is None else name

    def knows(self, evaluations: Sequence[int]) -> dict[str, tuple[int, int] | None]:
        """The first and last step of the trajectory just run that each denoiser knows, from 1; None for all of them.

        `evaluations` are those of each step. Raises UsageError where a denoiser knows none.
        """
        made = [float(t) for t in self.pipeline.scheduler.timesteps][-sum(evaluations) :]
        return {name: running.known(bridge, made, evaluations) for name, bridge in self.bridges.items()}

    def call_arguments(
        self, prompts: Sequence[str], negative: Sequence[str] | None, steps: int, pictures: Given = NOTHING
    ) -> dict[str, Any]:
        """The pipeline's arguments that say what to draw, for a batch of prompts in `steps` steps.

        `negative` has the negative prompt of each, or is None where there is none.

        Raises UsageError for a prompt that is no class of a class-conditional family, with the near ones.
        """
        given: dict[str, Any] = {
            "num_inference_steps": steps,
            "guidance_scale": self.setting.guidance,
            "height": self.setting.size,
            "width": self.setting.size,
            **pictures.arguments(len(prompts)),
        }
        if self.setting.strength is not None:
            given["strength"] = task_pipelines.strength_for(self.pipeline, self.setting, steps)
        if self.setting.frames is not None:
            given["num_frames"] = self.setting.frames
        if steps != 2:
            given["intermediate_timesteps"] = None  # which Sana-Sprint puts between two steps, and takes for no others
        accepted = inspect.signature(self.pipeline.__call__).parameters
        if self.entries[0].conditioning.kind == "class":
            given["class_labels"] = class_numbers(self.entries[0], prompts)
        else:
            given["prompt"] = list(prompts)
            if negative is not None:
                given["negative_prompt"] = list(negative)
        return {name: value for name, value in given.items() if name in accepted}


def load(
    entries: Sequence[Entry], setting: Setting, *, control: Control | None = None, random_weights: bool = False
) -> Family:
    """Loads `entries`, smallest first; the pipeline is that of the one with most parameters, else of the last.

    `control` is the setting's ControlNet at the commit to take; without it, at what its revision stands for now.
    `random_weights` builds all of it from the zoo's facts without its weights, to be timed; nothing is fetched.

    Raises UsageError where they cannot be stitched (before anything is loaded), BadFileError where weights are
    missing or broken, DeviceError where the device is not there or too small.
    """
    check(entries, setting.embeddings)
    check_setting(entries, setting)
    resolve_device(setting.device)
    libraries.hush()
    device = torch.device(setting.device)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    control = control or control_of(setting, entries)
    fetching = partial(fetch_command, entries, setting.dtype, control, setting.embeddings)
    if not random_weights:
        converted.require(entries)
        with hub_errors.advising(fetching):
            entries = tuple(hub_errors.all_of(entries, hub.pinned))
            control = control and hub.pinned_control(control)
    host = largest(entries, setting.host)
    if not decided(entries):
        setting = replace(setting, host=host.name)
    parts = _without_weights() if random_weights else components
    with out_of_memory(setting), hub_errors.advising(fetching):
        loaded = {entry.name: parts.denoiser(entry, dtype) for entry in entries}
        pipeline = parts.pipeline(host, loaded[host.name], dtype)
        schedule = running.choose(entries, host, setting, pipeline.scheduler.config)
        config = pipeline.scheduler.config
        config = dict(config) if schedule is host else schedulers.with_noise(config, schedule.noise)
        pipeline.scheduler = schedulers.build(setting.scheduler, config)
        net = None
        if control is not None and random_weights:
            net = parts.controlnet(control, loaded[host.name], dtype)
        elif control is not None:
            net = components.controlnet(control, dtype)
        pipeline = task_pipelines.for_setting(pipeline, loaded, setting, control, net)
        pipeline.set_progress_bar_config(disable=True)
        bridges = running.bridges(entries, loaded, pipeline, host, schedule, setting)
        stitched = stitch(pipeline, host.component, loaded | bridges, host.name)
        place: Callable[[Any], object] = methodcaller("to", device)
        if setting.offload:
            place = partial(offload.join, offload.install(pipeline, stitched, loaded, offload.Transfers(device)))
        else:
            place(pipeline)
        caches.accelerate(stitched, loaded, setting)
        if setting.embeddings is not None:
            embeddings.give_each_its_own(pipeline, entries, host, bridges, dtype, place, parts.text_pipeline)
        if setting.compiled:
            task_pipelines.compile_each(tuple(loaded.values()))
    setting = setting if schedule is host else replace(setting, schedule=schedule.name)
    weights = {entry.name: parts.digest_of(entry) for entry in entries}
    if control is not None:
        weights[weights_name(control.name)] = parts.digest_of(control)
    return Family(tuple(entries), weights, loaded, pipeline, stitched, setting, device, bridges, noise=config)


def resettable(family: Family, setting: Setting) -> bool:
    """Whether `reset` can make of `family` what `load` would make for `setting`."""
    now = family.setting
    plain = not (now.accelerate or now.offload or now.compiled or now.embeddings or family.bridges)
    return plain and replace(now, steps=setting.steps, scheduler=setting.scheduler) == setting


def reset(family: Family, setting: Setting) -> Family:
    """`family` with its weights as they are, for a setting of other steps or another scheduler: see `resettable`.

    Its pipeline is taken over, so that `family` itself is not to be run any more.
    """
    pipeline, host = family.pipeline, family.host
    pipeline.scheduler = schedulers.build(setting.scheduler, family.noise or pipeline.scheduler.config)
    stitched = stitch(pipeline, host.component, family.denoisers, host.name)
    return replace(family, stitched=stitched, setting=setting)


def _without_weights() -> ModuleType:
    from tstitch_cli.networks import random_weights  # which imports transformers' models, slowly

    return random_weights
