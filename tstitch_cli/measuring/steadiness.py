"""Whether the machine was steady while it was measured, why not, and the margin that plans then keep. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance

from tstitch_cli.schema import Profile

LEAST_DRIFT = 0.05
"""Drift up to which a machine counts as steady, and the least margin for one that was not."""
LEAP = 20
"""Times as long as another that no call takes, beside what is predicted, on a machine that is merely busy."""
FOREIGN = 0.1
"""Share of the cores that others may use beside what is measured on them."""
FULL = 0.9
"""Share of the cores in use from which a host has none left to feed its accelerator with."""
STOLEN, HELD_BACK, WAITED, FOREIGN_GPU, SLOWED = 0.05, 0.05, 0.05, 0.05, 0.1
"""Shares of the cores, of the time, of the GPU, of the looks at it, that are too little to tell anything."""
SHORTEST_S = 0.5
"""Below, the system's own counting of processor time is too coarse."""
PERIODS = 4
STUDENTIZED_RANGE = 4.0
"""Tukey's range of PERIODS equal means, in standard errors, which chance exceeds once in twenty, for some 20 calls."""


@dataclass(frozen=True)
class GpuReading:
    """A GPU at one moment."""

    others: int
    """Processes on it besides this one."""
    others_use: float | None
    """Share of it that they used just now; None where the driver does not tell."""
    slowed: str | None
    """What its clocks are held down by, such as `heat`; None where they are not, or only by the usual power limit."""


@dataclass(frozen=True)
class Reading:
    """The machine at one moment; seconds of processor time are counted since some moment before."""

    at_s: float
    busy_s: float
    """Of all processes, on the cores that this one may use."""
    own_s: float
    """Of this process and its children."""
    stolen_s: float
    """That a virtual machine was ready to use and did not get."""
    cores: int
    """Cores that this process may use."""
    slowed: int = 0
    """How often a core lowered its clock for heat."""
    held_back_s: float = 0.0
    """During which the container's limit kept processes from running."""
    waited_s: float = 0.0
    """During which this process's main thread was ready to run and had no core."""
    gpu: GpuReading | None = None


def reasons(readings: Sequence[Reading], device: str) -> tuple[str, ...]:
    """What disturbed a measurement on `device` between the first and the last of `readings`, in words; best none."""
    if len(readings) < 2 or (spent := readings[-1].at_s - readings[0].at_s) < SHORTEST_S:
        return ()
    first, last = readings[0], readings[-1]
    cores, own = last.cores, (last.own_s - first.own_s) / spent
    foreign = max(0.0, (last.busy_s - first.busy_s) / spent - own)
    stolen, held_back = (last.stolen_s - first.stolen_s) / spent, (last.held_back_s - first.held_back_s) / spent
    found = []
    if foreign > FOREIGN * cores and (device == "cpu" or foreign + own > FULL * cores):
        found.append(f"other processes used {foreign:.1f} of {cores} cores")
    if (share := waited(readings)) > WAITED:
        found.append(f"it waited for a core for {share:.0%} of the time")
    if stolen > STOLEN * cores:
        found.append(f"the host of this virtual machine withheld {stolen:.1f} of {cores} cores")
    if held_back > HELD_BACK:
        found.append(f"the container's processor limit held it back for {held_back:.0%} of the time")
    if (times := last.slowed - first.slowed) > 0:
        found.append(f"the processor lowered its clock for heat {times} times")
    return tuple(found + _of_gpu([reading.gpu for reading in readings if reading.gpu is not None]))


def _of_gpu(looks: Sequence[GpuReading]) -> list[str]:
    if not looks:
        return []
    found = []
    others, known = max(look.others for look in looks), [u for look in looks if (u := look.others_use) is not None]
    who = "another process" if others == 1 else f"{others} other processes"
    if known and (used := fmean(known)) > FOREIGN_GPU:
        found.append(f"others used {used:.0%} of the GPU")
    elif not known and others:
        found.append(f"{who} had work on the GPU")
    slowed = [look.slowed for look in looks if look.slowed is not None]
    if len(slowed) > SLOWED * len(looks):
        found.append(f"the GPU lowered its clocks for {slowed[-1]} in {len(slowed)} of {len(looks)} looks")
    return found


def waited(readings: Sequence[Reading]) -> float:
    """The share of the time, in [0, 1), during which what was measured was waiting for a core."""
    if len(readings) < 2 or (spent := readings[-1].at_s - readings[0].at_s) < SHORTEST_S:
        return 0.0
    return min(0.99, (readings[-1].waited_s - readings[0].waited_s) / spent)


def drift(ratios: Sequence[float]) -> float:
    """By which share the fastest quarter of the calls was faster than the slowest, in [0, 1).

    `ratios` (N,) are the calls' times over what is predicted for them, in the order in which they were made.
    """
    levels = [fmean(period) for period in _periods(ratios)]
    return 1.0 - min(levels) / max(levels) if levels else 0.0


def leapt(ratios: Sequence[float]) -> tuple[str, ...]:
    """In words, where a call took longer than anything but a leap of the clock, or a machine asleep, makes it.

    `ratios` are measured over predicted times. A single call says nothing of drift, however long it took; but it drags
    the means that all are predicted from along.
    """
    return (f"its slowest call took over {LEAP} times as long as its fastest",) * (max(ratios) > LEAP * min(ratios))


def drifted(ratios: Sequence[float]) -> bool:
    """Whether that is above LEAST_DRIFT, and more than calls differ within a quarter."""
    periods = _periods(ratios)
    if len(periods) < PERIODS or (found := drift(ratios)) <= LEAST_DRIFT:
        return False
    slowest = max(fmean(period) for period in periods)
    inside = fmean(variance(period) for period in periods)
    error = (inside / fmean(len(period) for period in periods)) ** 0.5
    return found * slowest > STUDENTIZED_RANGE * error


def _periods(ratios: Sequence[float]) -> list[Sequence[float]]:
    """Quarters of two calls or more, else nothing."""
    ends = [round(len(ratios) * quarter / PERIODS) for quarter in range(PERIODS + 1)]
    periods = [ratios[begin:end] for begin, end in pairwise(ends)]
    return periods if all(len(period) > 1 for period in periods) else []


def margin(profile: Profile) -> float:
    """The share by which a plan takes longer times than were predicted, 0 where the machine was steady.

    The spread of a profile covers the slowest quarter of its calls. A machine that has drifted may drift as far again
    beyond it: from a level s that was the slowest by s - f, f being the fastest, so by 1 - f / s of it. One that waits
    for others a share w of its time has 1 - w of s as its f, even where nothing changed while it was measured.
    """
    return 0.0 if profile.steady else max(LEAST_DRIFT, profile.drift)
