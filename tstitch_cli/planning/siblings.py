"""Profiles of the same denoisers on the same machine in other settings, and which of them can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from tstitch_cli.documents import read_profile
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.quantities import parse_counts
from tstitch_cli.savings import accelerations
from tstitch_cli.schedulers import known
from tstitch_cli.schema import Profile, Setting

HEAD_BYTES = 4096
_RANGE = re.compile(r"([0-9]{1,6})\s*\.\.\s*([0-9]{1,6})")

Wanted = Callable[[Setting], bool]


@dataclass(frozen=True)
class Found:
    """A profile and where it is."""

    path: Path
    profile: Profile

    @property
    def reference(self) -> str | None:
        """The digest of the reference that its coarseness was measured against."""
        return self.profile.coarseness.reference.digest if self.profile.coarseness is not None else None

    @property
    def coarseness(self) -> float | None:
        """Its coarseness on average over the pictures."""
        return fmean(self.profile.coarseness.distance) if self.profile.coarseness is not None else None


def of(base: Found) -> list[Found]:
    """`base` and the other profiles in its folder that differ in steps, sampler and acceleration alone, by path.

    What cannot be read is no profile of these denoisers.
    """
    found = [base]
    if base.profile.fingerprint is not None:
        for path in sorted(base.path.parent.glob("*.yaml")):
            if path.resolve() != base.path.resolve() and _may_be(path, base.profile.family):
                try:
                    other = Found(path, read_profile(path))
                except BadFileError:
                    continue
                if _alike(base.profile, other.profile):
                    found.append(other)
    return sorted(found, key=lambda each: each.path.name)


def wanted(base: Setting, steps: str | None, scheduler: str | None, accelerate: str | None) -> Wanted:
    """Whether a setting is one of those that the options ask for; what is not asked for stays as in `base`.

    `steps` are `20..50`, `10,20` or `any`; `scheduler` names, or `any`; `accelerate` what profile takes, `none` or
    `any`. Raises UsageError for anything else.
    """
    count = _steps(steps) if steps is not None else base.steps.__eq__
    samplers = None if scheduler is None or scheduler == "any" else [known(s.strip()) for s in scheduler.split(",")]
    if accelerate is None:
        how: tuple[str, ...] | None = base.accelerate
    elif accelerate == "any":
        how = None
    else:
        how = accelerations.parse(accelerate) if accelerate != "none" else ()

    def fits(setting: Setting) -> bool:
        sampler = setting.scheduler == base.scheduler if scheduler is None else True
        return (
            bool(count(setting.steps))
            and sampler
            and (samplers is None or setting.scheduler in samplers)
            and (how is None or setting.accelerate == how)
        )

    return fits


def finest(found: Iterable[Found]) -> Found:
    """The one with most steps and nothing accelerated, of equals the slowest."""
    return max(
        found,
        key=lambda each: (
            each.profile.setting.steps,
            not each.profile.setting.accelerate,
            each.profile.denoisers[-1].steady_s.mean,
        ),
    )


def _steps(text: str) -> Callable[[int], bool]:
    if text.strip() == "any":
        return lambda steps: True
    if (ends := _RANGE.fullmatch(text.strip())) is not None:
        least, most = int(ends[1]), int(ends[2])
        if not 1 <= least <= most:
            raise UsageError(f"--steps: {text} is no range", hint="write it as 10..50")
        return lambda steps: least <= steps <= most
    return parse_counts(text, "--steps").__contains__


def _may_be(path: Path, family: str) -> bool:
    """From a glance at its first lines, which is cheaper than reading it all."""
    try:
        with path.open("rb") as file:
            return family.encode() in file.read(HEAD_BYTES)
    except OSError:
        return False


def _alike(one: Profile, other: Profile) -> bool:
    mine = one.setting
    theirs = replace(other.setting, steps=mine.steps, scheduler=mine.scheduler, accelerate=mine.accelerate)
    return (
        (one.family, one.fingerprint, mine) == (other.family, other.fingerprint, theirs)
        and sorted(d.name for d in one.denoisers) == sorted(d.name for d in other.denoisers)
    )  # fmt: skip
