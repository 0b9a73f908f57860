"""Where the weights are: in the zoo, else in the folder that `tstitch train` wrote."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from tstitch_cli.denoisers import Family, load
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo, is_here

FAMILY = "tiny-sd"


@dataclass(frozen=True)
class Weights:
    """The denoisers and ControlNets of the text family."""

    trained: Path
    """The folder that `tstitch train` wrote; it need not be there."""
    zoo: Zoo = field(default_factory=Zoo.load)

    def entry(self, name: str) -> Entry:
        """The denoiser called `name`; raises UsageError where it is neither in the zoo nor trained."""
        known = self.zoo.entries.get(name)
        if known is not None and is_here(known):
            return self.zoo.resolve(name)
        return replace(self.zoo.resolve(str(self.trained / name)), name=name)

    def load(self, names: tuple[str, ...], setting: Setting) -> Family:
        """The family of named denoisers in a setting; its ControlNet, if any, is a trained one."""
        entries = [self.entry(name) for name in names]
        control = None if setting.control is None else self.control(setting.control, entries[-1])
        return load(entries, setting, control=control)

    def control(self, name: str, host: Entry) -> Control:
        """The ControlNet trained as `name`, under that name wherever it lies."""
        return replace(self.zoo.control(str(self.trained / name), [host]), name=name)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that are not here."""
        return [name for name in names if not self._has(name)]

    def training(self, names: Sequence[str]) -> str:
        """The command that trains `names`."""
        return f"tstitch train {' '.join(names)} --out {shlex.quote(str(self.trained))}"

    def _has(self, name: str) -> bool:
        known = self.zoo.entries.get(name)
        if known is not None and is_here(known):
            return True
        return any((self.trained / name / config).is_file() for config in ("unet/config.json", "config.json"))


def not_installed(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that cannot be imported."""
    return [package for package in packages if find_spec(package) is None]
