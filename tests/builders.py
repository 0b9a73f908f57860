"""Profiles and plans for tests of the planning side, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import (
    Agreement,
    Closeness,
    Coarseness,
    DenoiserProfile,
    Fingerprint,
    FixedParts,
    Measure,
    Plan,
    Profile,
    Reference,
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


def agreeing(
    profile: Profile, small: float = 0.2, base: float = 0.1, *, pictures: int = 6, noise: float = 0.1
) -> Profile:
    """`profile` with agreement: the smaller ones differ the more the later the step, pictures by `noise` of it."""
    steps, names = profile.setting.taken, [denoiser.name for denoiser in profile.denoisers]

    def close(scale: float, turn: int) -> Closeness:
        rms = tuple(
            tuple(scale * (t + 1) / steps * (1 + noise * ((i * (turn + 2) + t) % pictures - 2)) for t in range(steps))
            for i in range(pictures)
        )
        return Closeness((0.9,) * steps, (0.0,) * steps, rms)

    scales = (small, base)[: len(names) - 1]
    weights = tuple(0.1 + 0.01 * (t % 3) for t in range(steps))
    denoisers = {name: close(scale, turn) for turn, (name, scale) in enumerate(zip(names, scales, strict=False))}
    return replace(profile, agreement=Agreement(names[-1], weights, denoisers))


def coarse(profile: Profile, distance: float, digest: str = "ref") -> Profile:
    """`profile` with a coarseness against the reference of that digest."""
    reference = Reference(profile.denoisers[-1].name, "ddim", 200, 0, digest)
    return replace(profile, coarseness=Coarseness(reference, (distance * 0.9, distance * 1.1)))
