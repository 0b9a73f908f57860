"""`tstitch profile` for several settings at one go: a profile of each, and how coarse each is against one reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tstitch_cli.commands.edge import steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.profile import default_path, loaded, mentioning_random_weights, save
from tstitch_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tstitch_cli.denoisers import Family
    from tstitch_cli.measuring.coarseness import Course
    from tstitch_cli.schema import Setting
    from tstitch_cli.trajectory import Batch
    from tstitch_cli.zoo.controls import Control
    from tstitch_cli.zoo.entry import Entry


def measure_several(
    entries: list[Entry],
    settings: Sequence[Setting],
    seed: int,
    tolerance: float,
    max_time_s: float,
    folder: Path | None,
    *,
    agreement: bool,
    overwrite: bool,
    vram_bytes: int | None,
    random_weights: bool,
) -> list[Path]:
    """Loads, measures, writes and shows the profile of each setting; returns where they are.

    Weights are loaded once for all settings that differ in steps and sampler alone. `max_time_s` is that of each.
    Existing files are refused before any work is done.
    """
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.zoo.registry import control_of

    paths = [_path(entries, setting, folder, random_weights=random_weights) for setting in settings]
    for path in paths:
        refuse_existing(path, overwrite=overwrite)
    net = control_of(settings[0], entries)
    with steps_bar() as bar:
        if not random_weights:
            with mentioning_random_weights(entries):
                entries, net = fetch_missing(entries, settings[0].dtype, bar, net, settings[0].embeddings)
        bar("loading " + ", ".join(entry.name for entry in entries), 0.0)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.measuring import coarseness
        from tstitch_cli.profile import Effort, measure

        loader = _Loader(entries, net, vram_bytes, random_weights=random_weights)
        course = _course(loader, settings, seed) if agreement else None
        for number, (setting, path) in enumerate(zip(settings, paths, strict=True), 1):
            talk.print(f"[bold]setting {number} of {len(settings)}[/]")
            family = loader.family(setting)
            effort = Effort(tolerance, max_time_s, agreement)
            made = measure(family, _batch(family, seed), clock_for(family.device), effort, progress=bar)
            if course is not None and made.agreement is not None:
                made = replace(made, coarseness=coarseness.measure(family, course))
            save(made, path, overwrite=overwrite)
            # So that it can be gone before the next is loaded.
            del family
    if course is not None:
        talk.print("choose among them with [bold]tstitch plan --steps any --scheduler any --accelerate any[/]")
    return paths


class _Loader:
    """Gives the family of one setting after the other, its weights loaded anew only where they have to be."""

    def __init__(
        self, entries: list[Entry], net: Control | None, vram_bytes: int | None, *, random_weights: bool
    ) -> None:
        self.entries, self.net, self.vram_bytes, self.random_weights = entries, net, vram_bytes, random_weights
        self._last: Family | None = None

    def family(self, setting: Setting) -> Family:
        """The family for `setting`; the one before it is not to be run any more."""
        from tstitch_cli.denoisers import reset, resettable

        before, self._last = self._last, None
        if before is not None and resettable(before, setting):
            made = reset(before, setting)
        else:
            # Gone before the next is there: two would not fit into everybody's memory.
            del before
            made = loaded(self.entries, setting, self.net, self.vram_bytes, random_weights=self.random_weights)
        self._last = made
        return made


def _course(loader: _Loader, settings: Sequence[Setting], seed: int) -> Course | None:
    """The reference that all settings are held against; None, and why, where there can be none."""
    from tstitch_cli.measuring import coarseness

    setting = coarseness.reference_setting(settings, loader.entries[-1].noise.train_steps)
    if setting is None:
        talk.print("every sampler asked for adds noise of its own, so settings cannot be held against each other")
        return None
    family = loader.family(setting)
    return coarseness.follow(family, _batch(family, seed))


def _batch(family: Family, seed: int) -> Batch:
    from tstitch_cli.inputs import blank
    from tstitch_cli.trajectory import Batch

    size = family.setting.batch_size
    return Batch(family.example_prompts(size), tuple(range(size)), seed, given=blank(family.setting))


def _path(entries: list[Entry], setting: Setting, folder: Path | None, *, random_weights: bool) -> Path:
    path = default_path(
        entries[-1].latent_space.name, [entry.name for entry in entries], setting, random_weights=random_weights
    )
    if folder is None:
        return path
    if folder.suffix in (".yaml", ".yml"):
        raise UsageError(
            f"--out {folder} is one file, and several settings are profiled", hint="name a folder, or leave --out out"
        )
    return folder / path.name
