"""The zoo: entries read from YAML, and how a name, a folder or a hub id on the command line becomes one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.fetching import hub
from tstitch_cli.fetching.hub_errors import all_of
from tstitch_cli.formats import strict_json
from tstitch_cli.formats.yaml_nodes import Place
from tstitch_cli.schedulers import SCHEDULERS
from tstitch_cli.schema import PlannedDenoiser, Setting
from tstitch_cli.zoo import allowed, architectures, controls, converted, finetuned, folders, needed
from tstitch_cli.zoo.architectures import ArchitectureFacts
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Component, Conditioning, Defaults, Entry, LatentSpace, Noise, largest

Facts = TypeVar("Facts", "FamilyFacts", "DenoiserFacts")

SCHEMA = "tstitch/zoo/1"
BUNDLED = Path(__file__).parent / "bundled"
MAX_LABEL_BYTES = 4 << 20
"""Far above the class names of any data set."""
_SOURCE = re.compile(r"bundled:(?!.*\.\.)[\w-][\w./-]*|hub:[\w.-]+/[\w.-]+|folder:.+|converted:\w[\w.-]*", re.ASCII)
_PARTS = re.compile(rf"(?:{_SOURCE.pattern})|hub:[\w.-]+/[\w.-]+@[\w./-]+", re.ASCII)
"""Parts may name a commit, branch or tag; a denoiser's own stands in `revision`."""
_WANTED_SOURCE = "expected bundled:..., hub:owner/name, folder:/path or converted:name"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@([\w./-]+))?", re.ASCII)


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


@dataclass(frozen=True)
class Zoo:
    """All named denoisers, and what is worth knowing of how they were found."""

    entries: dict[str, Entry]
    remarks: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    """The ControlNets that have names; where one has it twice, the last counts."""

    @classmethod
    def load(cls) -> Zoo:
        """The shipped entries, what was finetuned, and the user's, which take the place of others of the same name.

        Raises:
            BadFileError: the user's zoo file cannot be read, or is not what it should be.
        """
        families, entries, named = _shipped()
        for path in finetuned.zoo_files():
            made = _read(path, families, entries)
            entries |= _entries(made, made.families, entries, path)
        own = user_file()
        if own is None:
            return cls(entries, controls=named)
        file = _read(own, families, entries)
        added = _entries(file, families | file.families, entries, own)
        replaced = [name for name in added if name in entries]
        remarks = tuple(f"{name}: the entry in {own} takes the place of tstitch's" for name in replaced)
        return cls(entries | added, remarks, named + file.controls)

    @classmethod
    def shipped(cls, mentioning: Collection[str] | None = None) -> Zoo:
        """The entries that come with tstitch, and no others; quicker those of the files alone that mention a name."""
        _, entries, named = _shipped(mentioning)
        return cls(entries, controls=named)

    def resolve(self, name: str) -> Entry:
        """The entry for a zoo name, else for a local diffusers folder, else for a hub id (`owner/name[@revision]`).

        Sources as entries write them (`hub:owner/name`, `folder:/path`) are taken too, and after the zoo's name of a
        hub's denoiser an `@` and another revision of it.

        Raises:
            UsageError: there is none; the hint has the near names.
            BadFileError: the folder or repository is not what is needed.
        """
        if name in self.entries:
            return _with_scaling(self.entries[name])
        base, _, revision = name.partition("@")
        if revision and base in self.entries and hub.place(self.entries[base].source):
            return replace(_with_scaling(self.entries[base]), revision=revision)
        kind, _, rest = name.partition(":")
        given = rest if kind in ("hub", "folder") and rest else name
        path = os.path.expanduser(given)
        if kind != "hub" and os.path.isdir(path):
            return self._with_known_space(folders.from_folder(Path(path)))
        hub_id = _HUB_ID.fullmatch(given)
        if kind != "folder" and hub_id:
            return self._with_known_space(folders.from_hub(hub_id[1], hub_id[2]))
        near = difflib.get_close_matches(name, self.entries, n=3, cutoff=0.5)
        raise UsageError(
            f"there is no denoiser {name!r}, and no folder or hub id either",
            hint=(f"did you mean {' or '.join(near)}? " if near else "") + "`tstitch zoo` lists them",
        )

    def resolve_all(self, names: Sequence[str]) -> list[Entry]:
        """The entries for `names`; raises what `resolve` raises, and once for all that may not be fetched."""
        return all_of(names, self.resolve)

    def planned(self, denoiser: PlannedDenoiser) -> Entry:
        """The entry that a profile, plan or picture refers to: under its name there, at its source and revision.

        Raises what `resolve` raises.
        """
        known = self.entries.get(denoiser.name)
        if known is not None and known.source == denoiser.source:
            entry = self.resolve(denoiser.name)
        else:
            pinned = denoiser.source.startswith("hub:") and denoiser.revision is not None
            entry = self.resolve(f"{denoiser.source}@{denoiser.revision}" if pinned else denoiser.source)
        return replace(entry, name=denoiser.name, revision=denoiser.revision or entry.revision)

    def control(self, name: str, entries: Sequence[Entry]) -> Control:
        """The ControlNet that `name` stands for beside the largest of `entries`.

        Raises what `controls.resolve` raises, and UsageError where it does not fit one of `entries` as far as is known.
        """
        found = controls.resolve(self.controls, name, largest(entries))
        controls.check(found, entries)
        return found

    def _with_known_space(self, entry: Entry) -> Entry:
        """A latent space that the zoo knows is called by the zoo's name, which is another for another conditioning.

        What is told alike in such a one is also told in the same words.
        """
        told = entry.conditioning
        for known in map(_with_scaling, self.entries.values()):
            alike = known.conditioning.kind == told.kind
            if alike and _facts(known.latent_space) == _facts(entry.latent_space):
                if known.conditioning.width == told.width:
                    told = replace(told, words=known.conditioning.words, examples=known.conditioning.examples)
                return replace(entry, latent_space=known.latent_space, conditioning=told)
        return entry


def control_of(setting: Setting, entries: Sequence[Entry]) -> Control | None:
    """The ControlNet that `setting` names, None where there is none; raises what `Zoo.control` raises."""
    return None if setting.control is None else Zoo.load().control(setting.control, entries)


def user_file() -> Path | None:
    """$TSTITCH_ZOO, which must exist, else zoo.yaml in the user's configuration folder where there is one."""
    if given := os.environ.get("TSTITCH_ZOO"):
        return Path(given)
    import platformdirs

    path = Path(platformdirs.user_config_dir("tstitch")) / "zoo.yaml"
    return path if path.exists() else None


def path_of(source: str) -> Path:
    """The folder of a `bundled:`, `folder:` or `converted:` source.

    Raises:
        UsageError: the source is a hub repository or no source at all.
    """
    kind, _, rest = source.partition(":")
    if _SOURCE.fullmatch(source) and kind != "hub":
        above = {"bundled": BUNDLED, "converted": converted.folder()}
        return above[kind] / rest if kind in above else Path(rest)
    raise UsageError(f"{source!r} is no local folder", hint="sources begin with bundled:, hub:, folder: or converted:")


def is_here(entry: Entry) -> bool:
    """Whether nothing need be fetched to load `entry`: its weights and the pipeline's parts are on this disk."""
    weights = _folders(entry.source, entry.revision)
    parts = _folders(entry.parts, entry.revision if entry.parts == entry.source else None)
    return any(_has_denoiser(folder, entry.subfolder) for folder in weights) and any(
        _has_parts(folder, entry.component) for folder in parts
    )


def _shipped(
    mentioning: Collection[str] | None = None,
) -> tuple[dict[str, FamilyFacts], dict[str, Entry], tuple[Control, ...]]:
    families: dict[str, FamilyFacts] = {}
    entries: dict[str, Entry] = {}
    named: tuple[Control, ...] = ()
    for path in sorted(BUNDLED.parent.glob("*.yaml")):
        # Every shipped file stands by itself: what is like another denoiser is beside it.
        if mentioning is not None and not any(name in path.read_text("utf-8") for name in mentioning):
            continue
        file = _read(path, families, entries)
        families |= file.families
        entries |= _entries(file, families, entries, path)
        named += file.controls
    return families, entries, named


def _read(path: Path, known: dict[str, FamilyFacts], shipped: dict[str, Entry]) -> ZooFile:
    """A zoo file whose denoisers may belong to its own families or to the `known` ones, and be like `shipped` ones."""

    def faults(file: ZooFile) -> Iterator[tuple[Place, str]]:
        families = known | file.families
        for name, family in file.families.items():
            if family.pipeline not in folders.PIPELINES:
                yield ("families", name, "pipeline"), f"cannot be stitched, these can: {', '.join(folders.PIPELINES)}"
            yield from _faults(("families", name), family)
        for index, control in enumerate(file.controls):
            if not _SOURCE.fullmatch(control.source):
                yield ("controls", index, "source"), _WANTED_SOURCE
            if control.encoder is not None and not control.encoder.sound:
                yield ("controls", index, "encoder"), "expected the channels and the layers of as many stages"
        for name, denoiser in file.denoisers.items():
            place = ("denoisers", name)
            if denoiser.family not in families:
                yield (*place, "family"), f"there is no family {denoiser.family}, there are {', '.join(families)}"
            if not _SOURCE.fullmatch(denoiser.source):
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


def _entries(
    file: ZooFile, families: dict[str, FamilyFacts], shipped: dict[str, Entry], path: Path
) -> dict[str, Entry]:
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


def _with_scaling(entry: Entry) -> Entry:
    """Where the scaling factor is left to the autoencoder's config and that is on this disk, it is read."""
    space = entry.latent_space
    if space.scaling_factor is not None or entry.parts.startswith("hub:"):
        return entry
    config = path_of(entry.parts) / "vae" / "config.json"
    if not os.path.isfile(config):
        return entry
    return replace(entry, latent_space=replace(space, scaling_factor=folders.scaling_of(config)))


def _facts(space: LatentSpace) -> tuple[object, ...]:
    return space.channels, space.downscale, space.scaling_factor, space.shift_factor


def _folders(source: str, revision: str | None) -> list[Path]:
    """The folders on this disk in which a source may be found."""
    return hub.snapshots(source, revision) if source.startswith("hub:") else [path_of(source)]


def _has_denoiser(folder: Path, subfolder: str) -> bool:
    try:
        return bool(needed.denoiser_files(needed.paths_in(folder), subfolder, "float32", str(folder)))
    except BadFileError:
        return False


def _has_parts(folder: Path, component: str) -> bool:
    """Whether the pipeline's index and all that it names are in `folder`."""
    try:
        named = allowed.parts(strict_json.read(folder / needed.INDEX), str(folder), component)
        return bool(needed.part_files(needed.paths_in(folder), named, "float32", str(folder)))
    except (BadFileError, UsageError):
        return False
