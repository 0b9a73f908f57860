"""Which denoisers the page offers to stitch: those that were named, and those of the zoo's families that are here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tstitch_cli.commands.profile import smallest_first
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import PlannedDenoiser, Setting
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo, is_here


@dataclass(frozen=True)
class Choice:
    """Denoisers that can be stitched, smallest first, and the profile of them that was given."""

    entries: tuple[Entry, ...]
    profile: Path | None = None
    """None where the page measures them, or reads what it measured before."""

    @property
    def label(self) -> str:
        """Such as `fashion: fashion-s, fashion-b, fashion-xl`."""
        entries = ", ".join(entry.name for entry in self.entries)
        return f"{self.entries[-1].latent_space.name}: {entries}"

    def setting(self, device: str) -> Setting:
        """What is measured: the largest denoiser's own defaults, on `device` as the command line takes it.

        Raises DeviceError where there is no such device.
        """
        from tstitch_cli.devices import resolve_device, resolve_dtype
        from tstitch_cli.zoo.tasks import frames

        defaults, here = self.entries[-1].defaults, resolve_device(device)
        return Setting(
            steps=defaults.steps,
            scheduler=defaults.scheduler,
            guidance=defaults.guidance,
            batch_size=defaults.batch_size,
            size=defaults.size,
            dtype=resolve_dtype(None, defaults.dtype, here),
            device=here,
            frames=frames(self.entries[-1], None),
        )


def offered(zoo: Zoo, names: Sequence[str] = (), profile: str | None = None) -> tuple[Choice, ...]:
    """What was named or profiled first, then the families of the zoo that are on this disk: see `families`.

    Raises what `Zoo.resolve`, `preflight.check` and `documents.read_profile` raise, and UsageError where both names
    and a profile are given, the profile is of drawings that start from a file, or there is nothing to offer.
    """
    if names and profile is not None:
        raise UsageError("a profile has its own denoisers", hint="give denoisers or --profile, not both")
    first: list[Choice] = []
    if profile is not None:
        first = [_profiled(profile)]
    elif names:
        entries = smallest_first(zoo.resolve_all(names))
        check(entries)
        first = [Choice(tuple(entries))]
    named = {choice.label for choice in first}
    found = (*first, *(choice for choice in families(zoo) if choice.label not in named))
    if not found:
        raise UsageError(
            "there are no two denoisers of one family on this disk", hint="`tstitch fetch` fetches those of the zoo"
        )
    return found


def families(zoo: Zoo) -> list[Choice]:
    """The families of `zoo` of which two denoisers or more are on this disk and can be stitched.

    Bundled ones come first, and of these the ones that draw from sentences.
    """
    members: dict[str, list[Entry]] = {}
    for entry in zoo.entries.values():
        if entry.family is not None and is_here(entry):
            members.setdefault(entry.family, []).append(entry)
    found = []
    for family in members.values():
        entries = [zoo.resolve(entry.name) for entry in usual(family)]
        try:
            check(entries)
        except UsageError:
            continue
        found.append(Choice(tuple(smallest_first(entries))))
    return sorted(found, key=lambda choice: _later(choice.entries[-1]))


def _later(entry: Entry) -> tuple[bool, bool]:
    bundled = entry.source.startswith("bundled:")
    return not bundled, bundled and entry.conditioning.kind != "text"


def usual(members: Sequence[Entry]) -> list[Entry]:
    """Of a family, the denoisers that draw in its commonest setting, one of each size: the first that the zoo names.

    So a style or a faster one that was made of one of them stands beside none that does the same.
    """
    settings = Counter((entry.defaults, entry.pipeline) for entry in members)
    commonest, _ = settings.most_common(1)[0]
    kept: dict[object, Entry] = {}
    for entry in members:
        if (entry.defaults, entry.pipeline) == commonest:
            kept.setdefault(entry.name if entry.parameters is None else entry.parameters, entry)
    return list(kept.values())


def _profiled(file_or_name: str) -> Choice:
    from tstitch_cli.documents import read_profile
    from tstitch_cli.profile_files import find
    from tstitch_cli.sample import entries_of

    path = find(file_or_name)
    profile = read_profile(path)
    setting = profile.setting
    if setting.strength is not None or setting.control is not None:
        raise UsageError(
            f"{path} is for drawings that start from a file, and the page draws from prompts alone",
            hint="profile without --strength, --inpaint and --control",
        )
    planned = [PlannedDenoiser(d.name, d.source, d.revision, d.knows, d.embedding) for d in profile.denoisers]
    return Choice(tuple(entries_of(planned)), path)
