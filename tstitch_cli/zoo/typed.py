"""How a denoiser of a profile or plan is given to a command: by its name where the zoo has it, else by its source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tstitch_cli.schema import DenoiserProfile, PlannedDenoiser
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo

_FOLDER, _HUB = "folder:", "hub:"
Recorded = DenoiserProfile | PlannedDenoiser
"""As a profile or a plan has it."""


def as_typed(denoisers: Sequence[Recorded]) -> list[str]:
    """One word for each of `denoisers`, as `tstitch profile` takes it in the folder where this runs."""
    pairs = zip(denoisers, in_the_zoo(denoisers), strict=True)
    return [each.name if entry is not None else _place(each) for each, entry in pairs]


def in_the_zoo(denoisers: Sequence[Recorded]) -> list[Entry | None]:
    """The zoo's entry under the name of each of `denoisers`; None where it has none of that source."""
    found: list[Entry | None] = []
    # Most plans are of denoisers that come with tstitch, so the whole zoo, which takes long to read, is read last.
    for read in (partial(Zoo.shipped, [each.name for each in denoisers]), Zoo.load):
        known = read().entries
        entries = [known.get(each.name) for each in denoisers]
        found = [
            entry if entry is not None and entry.source == each.source else None
            for entry, each in zip(entries, denoisers, strict=True)
        ]
        if None not in found:
            break
    return found


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
