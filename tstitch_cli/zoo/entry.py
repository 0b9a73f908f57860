"""What is known of a denoiser before it is loaded: where it comes from and what it can be stitched with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tstitch_cli.errors import UsageError

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class LatentSpace:
    """The space that x lives in; denoisers can be stitched only within one."""

    name: str
    channels: int
    downscale: int
    """Picture pixels per latent pixel, along a side."""
    autoencoder: str
    """What people call the autoencoder."""
    scaling_factor: float | None = None
    """Latents are multiplied by it after encoding; None while the autoencoder's config has not been read."""
    shift_factor: float = 0.0
    """Subtracted from the latents before they are scaled."""


@dataclass(frozen=True)
class Noise:
    """What the denoiser predicts, and the schedule it was trained on (Ho et al., 2020, section 2)."""

    prediction: Prediction
    beta_schedule: str | None = None
    """As diffusers spells it; None, like the betas, for flow matching, which has none."""
    beta_start: float | None = None
    beta_end: float | None = None
    train_steps: int = 1000
    learned_variance: bool = False
    """The output carries a variance as well: twice the channels."""
    zero_terminal_snr: bool = False
    """The betas are rescaled so that the last training step is pure noise (Lin et al., 2023)."""
    snr_shift: float | None = None
    """Before that, the signal-to-noise ratio of every step is divided by it (Esser et al., 2024, section 5.3.2; as
    CogVideoX does, arXiv 2408.06072); None where the schedule knows no such shift."""


@dataclass(frozen=True)
class Conditioning:
    """What tells the denoiser what to draw."""

    kind: Literal["text", "class"]
    width: int | None = None
    """Features of a text token, as the denoiser's cross-attention takes them."""
    words: tuple[str, ...] = ()
    """All words of the captions that the denoisers were trained on, where those are few; empty where any will do."""
    examples: tuple[str, ...] = ()
    """Prompts to measure with, in place of plain sentences that the denoisers would not understand."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers; a comma separates two names of one class."""
    labels_from: str | None = None
    """In a zoo file only, in place of `labels`: a text file beside it, with the names of one class a line."""
    guidance_embedding: bool = False
    """The guidance scale is an input of the denoiser (distilled models: LCM, Flux dev)."""


@dataclass(frozen=True)
class Defaults:
    """The setting that holds where none is given."""

    steps: int
    scheduler: str
    guidance: float
    size: int
    batch_size: int
    dtype: Literal["float32", "bfloat16", "float16"]
    measure_s: float = 120.0
    """Seconds after which `tstitch profile` begins no further round; fewer for a family of short calls."""


@dataclass(frozen=True)
class Component:
    """A part of a pipeline: its class and config, all that is needed to build it without its weights."""

    model: str
    """Name of the class, of diffusers, transformers or tstitch."""
    config: dict[str, Any]
    """What the class is built from; what is left out is the class's own default."""


@dataclass(frozen=True)
class Entry:
    """A denoiser of the zoo, or one described by a diffusers folder or a hub repository."""

    name: str
    title: str
    source: str
    """`bundled:fashion/fashion-s`, `hub:CompVis/stable-diffusion-v1-4`, `folder:/path`, or `converted:dit-s-256`, the
    folder that `tstitch convert` makes of an original checkpoint."""
    revision: str | None
    """The commit of a hub source; None is the main branch, recorded when it is resolved."""
    component: Literal["unet", "transformer"]
    subfolder: str
    """Where in the source the denoiser's config and weights are; empty for the source's own folder."""
    pipeline: str
    """Name of the pipeline's class."""
    parts: str
    """The source of the pipeline's other parts; `revision` holds for it where it is the denoiser's own source, else
    a hub source may end in `@` and its own revision."""
    latent_space: LatentSpace
    noise: Noise
    conditioning: Conditioning
    defaults: Defaults
    parameters: int | None
    licence: str
    architecture: Component | None = None
    """The denoiser itself; None where only its source's config tells."""
    components: dict[str, Component] = field(default_factory=dict)
    """The pipeline's other parts by their names in it (vae, text_encoder ...), as far as the zoo knows them."""
    family: str | None = None
    """The family that the zoo keeps it in; None for what no zoo file names."""


def largest(entries: Sequence[Entry], named: str | None = None) -> Entry:
    """The entry called `named`; else the one with most parameters, the last of equal ones; else the last.

    By parameters and not by time, so that a plan, whose order is that of time, runs in the pipeline profiled.

    Raises UsageError where none is called `named`.
    """
    if named is not None:
        for entry in entries:
            if entry.name == named:
                return entry
        raise UsageError(
            f"{named[:60]!r} is none of the denoisers", hint=f"they are {', '.join(entry.name for entry in entries)}"
        )
    if not decided(entries):
        return entries[-1]
    return max(reversed(entries), key=lambda entry: entry.parameters or 0)


def decided(entries: Sequence[Entry]) -> bool:
    """Whether the numbers of parameters tell which of `entries` is the largest, in whatever order they stand."""
    known = [entry.parameters for entry in entries if entry.parameters is not None]
    return len(known) == len(entries) and known.count(max(known)) == 1


def class_numbers(entry: Entry, prompts: Sequence[str]) -> list[int]:
    """The numbers of the classes that `prompts` name, letter case and outer blanks aside.

    A class is meant by its whole label, else by one of the names in it, else by its number.

    Raises:
        UsageError: a prompt is no class of `entry`, and the hint has the near ones; or it is the name of several.
    """
    labels = entry.conditioning.labels
    whole, names = _by_name((label,) for label in labels), _by_name(label.split(",") for label in labels)
    return [_number(entry, prompt, whole, names) for prompt in prompts]


def _by_name(names_of_classes: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, names in enumerate(names_of_classes):
        for name in {_plain(name) for name in names}:
            found.setdefault(name, []).append(number)
    return found


def _number(entry: Entry, prompt: str, whole: dict[str, list[int]], names: dict[str, list[int]]) -> int:
    asked, labels = _plain(prompt), entry.conditioning.labels
    shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
    meant = whole.get(asked) or names.get(asked) or ()
    if len(meant) == 1:
        return meant[0]
    if meant:
        several = ", ".join(f"{number} ({labels[number]})" for number in meant)
        raise UsageError(f"{shown!r} is the name of {len(meant)} classes: {several}", hint="give the class's number")
    if asked.isdecimal() and asked.isascii() and len(asked) < 7 and int(asked) < len(labels):
        return int(asked)
    near = difflib.get_close_matches(asked[:200], names, n=3)
    some = ", ".join(label.split(",")[0] for label in labels[:12]) + (" ..." if len(labels) > 12 else "")
    raise UsageError(
        f"{entry.latent_space.name} has no class {shown!r}",
        hint=(f"did you mean {' or '.join(near)}?" if near else f"its classes are {some}")
        + ("; sentences are for text families, such as tiny-sd" if asked.count(" ") > 1 else ""),
    )


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
