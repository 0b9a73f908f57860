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
from tstitch_cli.zoo.encoders import Encoder, Kept, encoder_of, kept
from tstitch_cli.zoo.entry import Entry

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""Those whose denoisers take ControlNets."""
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
    encoder: Encoder | None = None
    """The way down of the denoiser that it was trained on, whose feature maps it adds to."""
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
        UsageError: the host takes none, or there is none; the hint has those that are known for the host.
        BadFileError: the folder's config cannot be read or is no ControlNet's.
    """
    _require_taking(host)
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
        UsageError: the denoisers take no ControlNet, another text width, or feature maps that it does not add to.
    """
    for entry in entries:
        _require_taking(entry)
        width = entry.conditioning.width
        if None not in (control.width, width) and control.width != width:
            raise UsageError(
                f"the ControlNet {control.name} reads text tokens {control.width} wide, {entry.name} has {width}",
                hint="give a ControlNet made for this family",
            )
        if control.encoder is not None and (config := _config_of(entry)) is not None:
            fit(control.name, control.encoder, entry.name, config)


def _require_taking(entry: Entry) -> None:
    if entry.pipeline not in PIPELINES:
        raise UsageError(
            f"{entry.name} takes no ControlNet: {entry.pipeline} is stitched without",
            hint=f"ControlNets are for the denoisers of {' and '.join(PIPELINES)}",
        )


def fit(control: str, encoder: Encoder, name: str, config: Mapping[str, Any]) -> Kept:
    """What the denoiser `name`, built from `config`, has of the way down that the ControlNet `control` adds to.

    Raises UsageError where it has other feature maps, BadFileError where the config does not tell them.
    """
    try:
        own = encoder_of(config)
    except ValueError as error:
        raise BadFileError(
            f"{name}: the config of its denoiser does not tell its blocks: {error}", hint="fetch or convert it again"
        ) from error
    if (found := kept(encoder, own)) is None:
        raise UsageError(
            f"the ControlNet {control} adds to {encoder.words}, {name} has {own.words}",
            hint="a ControlNet steers denoisers with the stages and layers of the one it was trained on, or with fewer "
            "of them, such as bk-sdm-tiny beside sd14",
        )
    return found


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
        encoder = encoder_of(config)
    except ValueError as error:
        raise BadFileError(f"{file}: its blocks are not told as they should be: {error}", hint=_FOLDER) from error
    return Control(name, f"folder:{folder.resolve()}", width=width if isinstance(width, int) else None, encoder=encoder)


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
