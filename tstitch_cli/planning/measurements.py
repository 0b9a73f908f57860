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
    if _weights(plan) != _weights(profile):
        raise StaleError(f"{path} is measured with other weights", hint="evaluate a plan of this profile")
    return plan


def left_at(path: Path, profile: Profile, digest: str) -> Plan | None:
    """The plan at `path` where it is of the very profile and has something measured; None of anything else there."""
    try:
        plan = read_plan(path)
    except BadFileError:
        return None
    same = plan.profile_digest == digest and _weights(plan) == _weights(profile)
    return plan if same and any(row.measured for row in plan.rows) else None


def lost(measured: Plan, plan: Plan) -> int:
    """How many measured rows of an earlier plan are not in the new one."""
    kept = {row.allocation for row in plan.rows if row.measured}
    return sum(bool(row.measured) and row.allocation not in kept for row in measured.rows)


def _weights(of: Plan | Profile) -> dict[str, str]:
    return of.fingerprint.weights if of.fingerprint is not None else {}


def _drawn(setting: Setting) -> Setting:
    """What the pictures depend on: not where and how many at a time they are drawn."""
    return replace(setting, device="", batch_size=1, offload=False, compiled=False)
