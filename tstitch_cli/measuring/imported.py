"""A profile from costs that one already knows: names and seconds, so that plans can be made without the machine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from tstitch_cli.errors import UsageError
from tstitch_cli.formats.consistency import MAX_STEPS
from tstitch_cli.planning.costs import per_evaluation_s
from tstitch_cli.schema import QUANTILES, DenoiserProfile, FixedParts, Measure, Profile, Setting

NOTHING = Measure(0.0, 0.0, 0)


def from_times(
    times: Mapping[str, float],
    steps: int,
    *,
    scheduler: str = "unknown",
    guidance: float = 1.0,
    batch_size: int = 1,
    size: int = 0,
    dtype: str = "unknown",
    evaluations: tuple[tuple[int, int], ...] | None = None,
    family: str = "imported",
    created: str | None = None,
) -> Profile:
    """The profile of denoisers whose calls take `times`, in seconds, for a whole trajectory of `steps` steps.

    Whatever a call costs besides its evaluations is taken to be within these times, and every call to take exactly as
    long as the next: known costs come without a spread. A `size` of 0 says that it is not known. There is one
    evaluation a step unless `evaluations` (run-length coded) says otherwise.

    Raises:
        UsageError: fewer than two denoisers, no steps, or a time that is not above 0.
    """
    if len(times) < 2:
        raise UsageError(
            f"a profile needs two denoisers or more, got {', '.join(times) or 'none'}",
            hint="give each one its time: dit-s=1.6s dit-xl=16.5s",
        )
    if not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"{steps} steps make no trajectory", hint=f"give 1 to {MAX_STEPS} --steps")
    for name, seconds in times.items():
        if not 0 < seconds < float("inf"):
            raise UsageError(f"{name} cannot take {seconds:g} s", hint="give the seconds of a whole trajectory")
    evaluations = evaluations or ((1, steps),)
    count = sum(each * run for each, run in evaluations)
    cheapest_first = sorted(times, key=lambda name: times[name])
    return Profile(
        origin="imported",
        family=family,
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        setting=Setting(steps, scheduler, guidance, batch_size, size, dtype, "imported"),
        evaluations=evaluations,
        denoisers=tuple(_denoiser(name, per_evaluation_s(times[name], count)) for name in cheapest_first),
        fixed=FixedParts(NOTHING, NOTHING, NOTHING),
        spread={f"p{quantile * 100:g}": 1.0 for quantile in QUANTILES},
        rounds=0,
        steady=True,
        stopped="imported",
        confidence=0.0,
        fingerprint=None,
    )


def _denoiser(name: str, seconds: float) -> DenoiserProfile:
    each = Measure(seconds, 0.0, 1)
    return DenoiserProfile(name, source="", revision=None, first_s=each, steady_s=each, last_s=each, switch_s=NOTHING)
