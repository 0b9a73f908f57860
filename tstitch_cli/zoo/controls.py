"""ControlNets: which one a name, folder or hub id stands for, and whether it fits denoisers, before any is loaded."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.formats import strict_json
from tstitch_cli.zoo.entry import Entry

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""Those whose denoisers take ControlNets."""
MOST_BLOCKS, MOST_LAYERS, MOST_CHANNELS = 16, 100, 100_000
"""Of a U-Net; a config that has more was not written for one."""
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@([\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class Control:
    """A ControlNet, and what it needs of the denoisers that it steers."""

    name: str
    source: str
    """`hub:owner/name` or `folder:/path`."""
    pipeline: str | None = None
    """Name of the plain pipeline's class; None, like the numbers, where nothing is known before it is fetched."""
    width: int | None = None
    """Features of a text token."""
    residuals: tuple[int, ...] | None = None
    """Channels of the feature maps that it adds to a denoiser's way down, outermost first."""
    revision: str | None = None
    """The commit, branch or tag of a hub source; None is the main branch."""
    subfolder: str = ""


def weights_name(control: str) -> str:
    """What the weights of the ControlNet of a setting stand under in a fingerprint, beside the denoisers'."""
    return f"control {control}"


def resolve(known: Iterable[Control], name: str, host: Entry) -> Control:
    """The ControlNet that `name` stands for beside `host`: a known one, a local folder, or a hub id.

    A hub id may name its commit, branch or tag: `owner/name@revision`.

    Raises:
        UsageError: there is none; the hint has those that are known for the host.
        BadFileError: the folder's config cannot be read or is no ControlNet's.
    """
    fitting = {c.name: c for c in known if (c.pipeline, c.width) == (host.pipeline, host.conditioning.width)}
    if name in fitting:
        return fitting[name]
    path = Path(os.path.expanduser(name.removeprefix("folder:")))
    if path.is_dir():
        return _from_folder(name, path)
    if hub_id := _HUB_ID.fullmatch(name.removeprefix("hub:")):
        return Control(name, f"hub:{hub_id[1]}", revision=hub_id[2])
    near = difflib.get_close_matches(name, fitting, n=1)
    raise UsageError(
        f"there is no ControlNet {name!r} for {host.name}, and no folder or hub id either",
        hint=(f"did you mean {near[0]}? " if near else "")
        + (f"known for it are {', '.join(fitting)}" if fitting else "give a folder or a hub id"),
    )


def check(control: Control, entries: Sequence[Entry]) -> None:
    """Returns where `control` fits all of `entries`, as far as is known before they are loaded.

    Raises:
        UsageError: the denoisers take no ControlNet, another text width, or another number of feature maps.
    """
    for entry in entries:
        if entry.pipeline not in PIPELINES:
            raise UsageError(
                f"{entry.name} takes no ControlNet: {entry.pipeline} has none",
                hint=f"ControlNets are for the denoisers of {' and '.join(PIPELINES)}",
            )
        width = entry.conditioning.width
        if None not in (control.width, width) and control.width != width:
            raise UsageError(
                f"the ControlNet {control.name} reads text tokens {control.width} wide, {entry.name} has {width}",
                hint="give a ControlNet made for this family",
            )
        if (config := _config_of(entry)) is not None:
            check_residuals(control, entry.name, config)


def check_residuals(control: Control, name: str, config: Mapping[str, Any]) -> None:
    """Raises UsageError where the denoiser `name`, built from `config`, takes other feature maps than `control` has.

    BadFileError where the config does not tell them.
    """
    try:
        taken = residuals(config)
    except ValueError as error:
        raise BadFileError(
            f"{name}: the config of its denoiser does not tell its blocks: {error}", hint="fetch or convert it again"
        ) from error
    if control.residuals is not None and control.residuals != taken:
        raise UsageError(
            f"the ControlNet {control.name} adds {_say(control.residuals)} channels, {name} takes {_say(taken)}",
            hint="a denoiser with fewer blocks than the one a ControlNet was trained on cannot follow it; "
            "denoisers with the same blocks can, such as sdxl with ssd-1b",
        )


def residuals(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of the feature maps that a U-Net (UNet2DConditionModel) passes across, and takes from a ControlNet.

    One map after the first convolution, one for each layer of a stage, one for each halving between stages.

    Raises ValueError where the config does not tell them.
    """
    channels, layers = config.get("block_out_channels", (320, 640, 1280, 1280)), config.get("layers_per_block", 2)
    if isinstance(layers, int) and isinstance(channels, list | tuple):
        layers = (layers,) * len(channels)
    if not (_counts(channels, MOST_CHANNELS) and _counts(layers, MOST_LAYERS) and len(channels) == len(layers)):
        raise ValueError("expected the channels and layers of every block")
    channels, each = tuple(channels), tuple(layers)
    last = len(channels) - 1
    maps = [
        (width,) * (count + (stage < last)) for stage, (width, count) in enumerate(zip(channels, each, strict=True))
    ]
    return channels[:1] + tuple(width for stage in maps for width in stage)


def _counts(found: Any, most: int) -> bool:
    """Whether `found` is a list of some whole numbers from 1 to `most`."""
    return (
        isinstance(found, list | tuple)
        and 0 < len(found) <= MOST_BLOCKS
        and all(type(n) is int and 0 < n <= most for n in found)
    )


def _say(maps: tuple[int, ...]) -> str:
    """(320, 320, 640) -> "3 feature maps of 320, 320, 640"."""
    return f"{len(maps)} feature maps of {', '.join(map(str, maps))}"


def _from_folder(name: str, folder: Path) -> Control:
    file = folder / "config.json"
    try:
        with file.open("rb") as stream:
            config = strict_json.parse(stream.read(strict_json.LIMIT_BYTES + 1), str(file))
    except OSError as error:
        raise BadFileError(f"{file}: cannot be read: {error.strerror or error}", hint=_FOLDER) from error
    if config.get("_class_name") != "ControlNetModel":
        raise BadFileError(f"{file}: {str(config.get('_class_name'))[:60]!r} is no ControlNetModel", hint=_FOLDER)
    width = config.get("cross_attention_dim", 1280)
    try:
        maps = residuals(config)
    except ValueError as error:
        raise BadFileError(f"{file}: its blocks are not told as they should be: {error}", hint=_FOLDER) from error
    return Control(name, f"folder:{folder.resolve()}", width=width if isinstance(width, int) else None, residuals=maps)


_FOLDER = "a ControlNet's folder has the config.json and the safetensors weights of a ControlNetModel"


def _config_of(entry: Entry) -> Mapping[str, Any] | None:
    """The denoiser's config, where it is known or on this disk."""
    if entry.architecture is not None:
        return entry.architecture.config
    kind, _, path = entry.source.partition(":")
    file = Path(path) / entry.subfolder / "config.json"
    if kind != "folder" or not file.is_file():
        return None
    with file.open("rb") as stream:
        return strict_json.parse(stream.read(strict_json.LIMIT_BYTES + 1), str(file))
