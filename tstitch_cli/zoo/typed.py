"""How a denoiser of a profile or plan is given to a command: by its name where the zoo has it, else by its source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from tstitch_cli.zoo.registry import Zoo

_FOLDER, _HUB = "folder:", "hub:"


class Recorded(Protocol):
    """A denoiser in a profile or plan."""

    @property
    def name(self) -> str:
        """What it is called there."""

    @property
    def source(self) -> str:
        """As in the zoo, or what was given in place of a name."""

    @property
    def revision(self) -> str | None:
        """The commit, of a hub repository."""


def as_typed(denoisers: Sequence[Recorded]) -> list[str]:
    """One word for each of `denoisers`, as `tstitch profile` takes it in the folder where this runs."""
    names = [each.name for each in denoisers]
    # Most plans are of denoisers that come with tstitch, so the whole zoo, which takes long to read, is read last.
    for read in (partial(Zoo.shipped, names), Zoo.load):
        known = read().entries
        named = [each.name in known and known[each.name].source == each.source for each in denoisers]
        if all(named):
            return names
    return [each.name if has_name else _place(each) for each, has_name in zip(denoisers, named, strict=True)]


def _place(denoiser: Recorded) -> str:
    """Its folder or hub id and commit; its name where the source tells neither, as in profiles of known times."""
    source = denoiser.source
    if source.startswith(_HUB):
        return source.removeprefix(_HUB) + (f"@{denoiser.revision}" if denoiser.revision else "")
    if not source.startswith(_FOLDER):
        return denoiser.name
    folder = Path(source.removeprefix(_FOLDER))
    # With a dot before it, for a name of the zoo goes before a folder of that name.
    return f".{os.sep}{os.path.relpath(folder)}" if folder.is_relative_to(Path.cwd()) else str(folder)
