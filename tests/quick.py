"""Bundled models under other names, as families whose calls are over at once or take long enough to be stopped."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.builders import measured
from tstitch_cli.documents import write_profile
from tstitch_cli.profile_files import FOLDER, file_name
from tstitch_cli.schema import Profile, Setting
from tstitch_cli.zoo import registry

STEPS = {"quick": 4, "slow": 1000}
PICTURES = 2
QUICK, SLOW = (f"{family}: {family}-s, {family}-xl" for family in STEPS)
"""What the page calls them."""


def zoo_file(path: Path) -> Path:
    """Writes a user's zoo of the families `quick` and `slow`, both of fashion-s and fashion-xl."""
    shipped = yaml.safe_load((registry.BUNDLED.parent / "fashion.yaml").read_text(encoding="utf-8"))
    content: dict[str, Any] = {"schema": shipped["schema"], "families": {}, "denoisers": {}}
    for family, steps in STEPS.items():
        facts = copy.deepcopy(shipped["families"]["fashion"])
        facts["latent_space"]["name"] = family
        facts["defaults"] |= {"steps": steps, "batch_size": PICTURES}
        content["families"][family] = facts
        for size in ("s", "xl"):
            denoiser = copy.deepcopy(shipped["denoisers"][f"fashion-{size}"])
            content["denoisers"][f"{family}-{size}"] = denoiser | {"family": family}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def profile_of(family: str) -> Profile:
    """A profile of made-up times, of a machine that nobody has."""
    steps = STEPS[family]
    made = measured(steps, (0.001, 0.005))
    names = (f"{family}-s", f"{family}-xl")
    denoisers = tuple(
        replace(each, name=name, source=f"bundled:fashion/fashion-{name.rpartition('-')[2]}")
        for each, name in zip(made.denoisers, names, strict=True)
    )
    assert made.fingerprint is not None
    return replace(
        made,
        family=family,
        setting=Setting(steps, "ddim", 1.25, PICTURES, 32, "float32", "cpu"),
        denoisers=denoisers,
        fingerprint=replace(made.fingerprint, weights=dict.fromkeys(names, "abc")),
        validation=(),
    )


def slow_profile(folder: Path) -> Path:
    """Writes the profile of the slow family where the page looks for it, seen from `folder`."""
    made = profile_of("slow")
    path = folder / FOLDER / file_name(made.family, [denoiser.name for denoiser in made.denoisers], made.setting)
    write_profile(made, path, overwrite=False)
    return path
