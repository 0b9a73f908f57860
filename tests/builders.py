"""Profiles and plans for tests of the planning side, without torch."""

from __future__ import annotations

from collections.abc import Sequence

from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import (
    DenoiserProfile,
    Fingerprint,
    FixedParts,
    Measure,
    Plan,
    Profile,
    Setting,
    Validation,
)

NAMES = ("small", "base", "large")


def measure(mean: float) -> Measure:
    return Measure(mean, mean / 50, 30)


def denoiser(name: str, step_s: float, *, flops: float | None = None, switch_s: float = 0.0) -> DenoiserProfile:
    return DenoiserProfile(
        name=name,
        source=f"bundled:{name}",
        revision=None,
        first_s=measure(step_s * 1.5),
        steady_s=measure(step_s),
        last_s=measure(step_s * 0.75),
        switch_s=measure(switch_s),
        parameters=1000,
        flops=flops,
    )


def measured(
    steps: int = 20,
    step_s: Sequence[float] = (0.01, 0.03, 0.1),
    *,
    evaluations: tuple[tuple[int, int], ...] | None = None,
    created: str = "2025-01-31T12:00:00+00:00",
    flops: bool = True,
) -> Profile:
    """A profile as `tstitch profile` makes them; p95 is 1.1 times the mean."""
    names = NAMES[: len(step_s) - 1] + NAMES[-1:]
    return Profile(
        origin="measured",
        family="toys",
        created=created,
        setting=Setting(steps, "ddim", 1.5, 8, 28, "float32", "cpu"),
        evaluations=evaluations or ((1, steps),),
        denoisers=tuple(
            denoiser(name, s, flops=s * 1e12 if flops else None, switch_s=0.002)
            for name, s in zip(names, step_s, strict=True)
        ),
        fixed=FixedParts(measure(0.004), measure(0.02), measure(0.006)),
        spread={"p50": 1.0, "p75": 1.02, "p90": 1.05, "p95": 1.1, "p99": 1.2},
        rounds=30,
        steady=True,
        stopped="tight",
        confidence=0.008,
        fingerprint=Fingerprint("cpu", "none", "2.13", "0.42", 2, dict.fromkeys(names, "abc")),
        validation=(Validation(((names[0], steps - 1), (names[-1], 1)), 0.3, measure(0.31)),),
    )


def planned(budget: str = "50%", *, steps: int = 20, top: int = 1) -> Plan:
    return make_plan(measured(steps), budget=parse_budget(budget), profile_path="profiles/x.yaml", digest="0", top=top)
