"""The zoo: its entries, and how a name, a folder or a hub id on the command line becomes one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.fetching import hub
from tstitch_cli.fetching.hub_errors import all_of
from tstitch_cli.formats import strict_json
from tstitch_cli.schema import PlannedDenoiser, Setting
from tstitch_cli.zoo import allowed, controls, converted, finetuned, folders, needed, zoo_file
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Entry, LatentSpace, largest

BUNDLED = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@([\w./-]+))?", re.ASCII)


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
            made = zoo_file.read(path, families, entries)
            entries |= zoo_file.entries(made, made.families, entries, path)
        own = user_file()
        if own is None:
            return cls(entries, controls=named)
        file = zoo_file.read(own, families, entries)
        added = zoo_file.entries(file, families | file.families, entries, own)
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
    if zoo_file.SOURCE.fullmatch(source) and kind != "hub":
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
) -> tuple[dict[str, zoo_file.FamilyFacts], dict[str, Entry], tuple[Control, ...]]:
    families: dict[str, zoo_file.FamilyFacts] = {}
    entries: dict[str, Entry] = {}
    named: tuple[Control, ...] = ()
    for path in sorted(BUNDLED.parent.glob("*.yaml")):
        # Every shipped file stands by itself: what is like another denoiser is beside it.
        if mentioning is not None and not any(name in path.read_text("utf-8") for name in mentioning):
            continue
        file = zoo_file.read(path, families, entries)
        families |= file.families
        entries |= zoo_file.entries(file, families, entries, path)
        named += file.controls
    return families, entries, named


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
