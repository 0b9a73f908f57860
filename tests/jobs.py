"""A quick job of the bundled family, and the command that draws it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tstitch_cli.measuring.imported import from_times
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Plan, PlannedDenoiser, Setting
from tstitch_cli.zoo.registry import Zoo

NAMES = ("fashion-s", "fashion-b")


def quick_plan(steps: int = 2, batch_size: int = 2, size: int = 32, names: tuple[str, ...] = NAMES) -> Plan:
    """A plan for a few steps of bundled denoisers, half each; its times mean nothing."""
    zoo = Zoo.load()
    entries = [zoo.resolve(name) for name in names]
    times = {name: float(i) for i, name in enumerate(names, 1)}
    plan = make_plan(from_times(times, steps), budget=parse_budget("75%"), quantile=None)
    defaults = entries[-1].defaults
    setting = Setting(steps, "ddim", defaults.guidance, batch_size, size, "float32", "cpu")
    planned = tuple(PlannedDenoiser(entry.name, entry.source, entry.revision) for entry in entries)
    return replace(plan, setting=setting, denoisers=planned, family=entries[0].latent_space.name)


def command(plan: Path, out: Path, *more: str) -> list[str]:
    """The arguments of `tstitch` that draw by such a plan."""
    return ["sample", "--plan", str(plan), "--out", str(out), "--allow-stale", *more]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and those in it, the hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
