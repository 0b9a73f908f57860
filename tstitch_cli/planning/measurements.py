"""Finds the measured metrics that `tstitch evaluate` left in an earlier plan and that still hold for a new one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tstitch_cli.documents import read_plan
from tstitch_cli.errors import BadFileError, StaleError
from tstitch_cli.schema import Plan, Profile, Setting


def named(path: Path, profile: Profile) -> Plan:
    """The plan at `path`, to take its measured metrics from.

    Raises:
        BadFileError: it cannot be read, or nothing in it is measured.
        StaleError: its pictures are drawn in another setting or with other weights than those of `profile`.
    """
    plan = read_plan(path)
    if not any(row.measured for row in plan.rows):
        raise BadFileError(f"{path}: nothing in it is measured", hint="fill it in with `tstitch evaluate`")
    if _drawn(plan.setting) != _drawn(profile.setting):
        raise StaleError(
            f"{path} is measured for {plan.setting.words}, the profile for {profile.setting.words}",
            hint="evaluate a plan of this profile",
        )
    if _weights(plan) != _weights(profile) or _names(plan) != _names(profile):
        raise StaleError(f"{path} is measured with other denoisers or weights", hint="evaluate a plan of this profile")
    return plan


def left_at(path: Path) -> Plan | None:
    """The plan at `path` where something in it is measured; None of anything else there."""
    try:
        plan = read_plan(path)
    except BadFileError:
        return None
    return plan if any(row.measured for row in plan.rows) else None


def holds(plan: Plan, profile: Profile, digest: str) -> bool:
    """Whether `plan` is of the very profile with this digest."""
    return plan.profile_digest == digest and _weights(plan) == _weights(profile)


def lost(measured: Plan, plan: Plan) -> int:
    """How many measured rows of an earlier plan are not in the new one, or not as they were measured."""
    kept = {row.allocation: row.measured for row in plan.rows}
    return sum(bool(row.measured) and kept.get(row.allocation) != row.measured for row in measured.rows)


def _weights(of: Plan | Profile) -> dict[str, str]:
    return of.fingerprint.weights if of.fingerprint is not None else {}


def _names(of: Plan | Profile) -> set[str]:
    return {denoiser.name for denoiser in of.denoisers}


def _drawn(setting: Setting) -> Setting:
    """What the pictures depend on: not where and how many at a time they are drawn."""
    return replace(setting, device="", batch_size=1, offload=False, compiled=False)
