"""What a zoo file may say, and the entries that it stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError
from tstitch_cli.formats.yaml_nodes import Place
from tstitch_cli.schedulers import SCHEDULERS
from tstitch_cli.zoo import architectures, folders
from tstitch_cli.zoo.architectures import ArchitectureFacts
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Component, Conditioning, Defaults, Entry, LatentSpace, Noise

Facts = TypeVar("Facts", "FamilyFacts", "DenoiserFacts")

SCHEMA = "tstitch/zoo/1"
MAX_LABEL_BYTES = 4 << 20
"""Far above the class names of any data set."""
SOURCE = re.compile(r"bundled:(?!.*\.\.)[\w-][\w./-]*|hub:[\w.-]+/[\w.-]+|folder:.+|converted:\w[\w.-]*", re.ASCII)
_PARTS = re.compile(rf"(?:{SOURCE.pattern})|hub:[\w.-]+/[\w.-]+@[\w./-]+", re.ASCII)
"""Parts may name a commit, branch or tag; a denoiser's own stands in `revision`."""
_WANTED_SOURCE = "expected bundled:..., hub:owner/name, folder:/path or converted:name"


@dataclass(frozen=True)
class FamilyFacts:
    """What a zoo file says once for all denoisers of a family; see Entry for the keys."""

    component: Literal["unet", "transformer"]
    pipeline: str
    licence: str
    latent_space: LatentSpace
    noise: Noise
    conditioning: Conditioning
    defaults: Defaults
    parts: str | None = None
    """None: every denoiser's own source has them."""
    components: dict[str, Component] = field(default_factory=dict)


@dataclass(frozen=True)
class DenoiserFacts:
    """What a zoo file says of one denoiser; a section given here takes the place of its family's, whole."""

    family: str
    source: str
    title: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    """None: the folder named after the component."""
    parts: str | None = None
    parameters: int | None = None
    licence: str | None = None
    latent_space: LatentSpace | None = None
    noise: Noise | None = None
    conditioning: Conditioning | None = None
    defaults: Defaults | None = None
    architecture: ArchitectureFacts | None = None
    components: dict[str, Component] = field(default_factory=dict)
    """Those parts of the pipeline alone that are other than its family's."""


@dataclass(frozen=True)
class ZooFile:
    """A zoo file, schema tstitch/zoo/1; a user's may build on the families that tstitch ships."""

    families: dict[str, FamilyFacts] = field(default_factory=dict)
    denoisers: dict[str, DenoiserFacts] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()


def read(path: Path, known: dict[str, FamilyFacts], shipped: dict[str, Entry]) -> ZooFile:
    """A zoo file whose denoisers may belong to its own families or to the `known` ones, and be like `shipped` ones."""

    def faults(file: ZooFile) -> Iterator[tuple[Place, str]]:
        families = known | file.families
        for name, family in file.families.items():
            if family.pipeline not in folders.PIPELINES:
                yield ("families", name, "pipeline"), f"cannot be stitched, these can: {', '.join(folders.PIPELINES)}"
            yield from _faults(("families", name), family)
        for index, control in enumerate(file.controls):
            if not SOURCE.fullmatch(control.source):
                yield ("controls", index, "source"), _WANTED_SOURCE
            if control.encoder is not None and not control.encoder.sound:
                yield ("controls", index, "encoder"), "expected the channels and the layers of as many stages"
        for name, denoiser in file.denoisers.items():
            place = ("denoisers", name)
            if denoiser.family not in families:
                yield (*place, "family"), f"there is no family {denoiser.family}, there are {', '.join(families)}"
            if not SOURCE.fullmatch(denoiser.source):
                yield (*place, "source"), _WANTED_SOURCE
            if denoiser.parameters is not None and denoiser.parameters < 1:
                yield (*place, "parameters"), "expected a whole number above 0"
            yield from _faults(place, denoiser)
        for name, architecture in _architectures(file, shipped).items():
            if isinstance(architecture, str):
                yield ("denoisers", name, "architecture"), architecture

    file = documents.read(path, ZooFile, SCHEMA, faults)
    families = {name: _labelled(facts, path) for name, facts in file.families.items()}
    denoisers = {name: _labelled(facts, path) for name, facts in file.denoisers.items()}
    named = tuple(replace(control, source=_absolute(control.source, path)) for control in file.controls)
    return replace(file, families=families, denoisers=denoisers, controls=named)


def _faults(place: Place, facts: FamilyFacts | DenoiserFacts) -> Iterator[tuple[Place, str]]:
    """What is wrong in the parts that families and denoisers have in common, beyond their types."""
    if facts.parts is not None and not _PARTS.fullmatch(facts.parts):
        yield (*place, "parts"), _WANTED_SOURCE
    if (space := facts.latent_space) is not None:
        yield from _not_positive((*place, "latent_space"), space, ("channels", "downscale", "scaling_factor"))
    if (noise := facts.noise) is not None:
        betas = (noise.beta_schedule, noise.beta_start, noise.beta_end)
        if any((beta is None) != (noise.prediction == "flow") for beta in betas):
            yield (*place, "noise"), "beta_schedule, beta_start and beta_end belong together, and are left out for flow"
        yield from _not_positive((*place, "noise"), noise, ("train_steps",))
    if (conditioning := facts.conditioning) is not None:
        given = bool(conditioning.labels) + (conditioning.labels_from is not None)
        for key in ("words", "examples"):
            if getattr(conditioning, key) and conditioning.kind != "text":
                yield (*place, "conditioning", key), "are for text conditioning"
        if conditioning.kind == "class" and given != 1:
            yield (*place, "conditioning"), "class conditioning needs labels or labels_from, not both"
    if (defaults := facts.defaults) is not None:
        yield from _not_positive((*place, "defaults"), defaults, ("steps", "size", "batch_size", "measure_s"))
        if defaults.scheduler not in SCHEDULERS:
            yield (*place, "defaults", "scheduler"), f"is not known, there are {', '.join(SCHEDULERS)}"


def _not_positive(place: Place, section: object, keys: Iterable[str]) -> Iterator[tuple[Place, str]]:
    for key in keys:
        value = getattr(section, key)
        if value is not None and value <= 0:
            yield (*place, key), f"expected a number above 0, found {value}"


def _architectures(file: ZooFile, shipped: dict[str, Entry]) -> dict[str, Component | str | None]:
    given = {name: facts.architecture for name, facts in file.denoisers.items()}
    known = {name: entry.architecture for name, entry in shipped.items()}
    return {name: architectures.resolve(name, given, known) for name in given}


def entries(file: ZooFile, families: dict[str, FamilyFacts], shipped: dict[str, Entry], path: Path) -> dict[str, Entry]:
    """The denoisers of the file at `path`; their families are in `families`, and some may be like `shipped` ones."""
    built = _architectures(file, shipped)
    return {
        name: _entry(name, facts, families[facts.family], built[name], path) for name, facts in file.denoisers.items()
    }


def _entry(
    name: str, facts: DenoiserFacts, family: FamilyFacts, architecture: Component | str | None, path: Path
) -> Entry:
    source, parts = _absolute(facts.source, path), facts.parts or family.parts
    return Entry(
        name=name,
        title=facts.title or name,
        source=source,
        revision=facts.revision,
        component=family.component,
        subfolder=family.component if facts.subfolder is None else facts.subfolder,
        pipeline=family.pipeline,
        parts=source if parts is None else _absolute(parts, path),
        latent_space=facts.latent_space or family.latent_space,
        noise=facts.noise or family.noise,
        conditioning=facts.conditioning or family.conditioning,
        defaults=facts.defaults or family.defaults,
        parameters=facts.parameters,
        licence=facts.licence or family.licence,
        architecture=architecture if isinstance(architecture, Component) else None,
        components=family.components | facts.components,
        family=facts.family,
    )


def _labelled(facts: Facts, path: Path) -> Facts:
    """`facts` of the zoo file at `path`, with the labels that stand in a file of their own beside it."""
    conditioning = facts.conditioning
    if conditioning is None or conditioning.labels_from is None:
        return facts
    file = path.parent / os.path.expanduser(conditioning.labels_from)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_LABEL_BYTES + 1)
        labels = tuple(line.strip() for line in content.decode("utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadFileError(f"{file}: the class names cannot be read: {why}", hint=f"{path} names the file") from error
    if len(content) > MAX_LABEL_BYTES:
        raise BadFileError(
            f"{file}: is larger than {MAX_LABEL_BYTES >> 20} MiB", hint=f"{path} names it for class names"
        )
    if not labels:
        raise BadFileError(f"{file}: has no class names", hint="it holds the names of one class a line")
    return replace(facts, conditioning=replace(conditioning, labels=labels, labels_from=None))


def _absolute(source: str, path: Path) -> str:
    """A folder in a zoo file is meant from where that file is."""
    if not source.startswith("folder:"):
        return source
    return f"folder:{(path.parent / os.path.expanduser(source.removeprefix('folder:'))).resolve()}"
