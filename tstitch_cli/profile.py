"""The stage that measures: denoisers of one family -> what each costs per evaluation on this machine.

Every call is one that `sample` could make, run by `trajectory.run`. Calls of all denoisers are interleaved in
randomised rounds, so that a machine whose speed drifts slows all of them alike, and every evaluation is timed by
marks that do not make the device wait.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from statistics import fmean, stdev

from tstitch_cli import evaluations
from tstitch_cli.allocation import Allocation, per_evaluation
from tstitch_cli.clocks import Clock
from tstitch_cli.confidence import student_t
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import DeviceError
from tstitch_cli.measuring import agreement, fingerprint, flops, machine_load, steadiness
from tstitch_cli.measuring.memory import PeakMemory
from tstitch_cli.measuring.spread import spread
from tstitch_cli.measuring.steadiness import Reading
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.sample import Work, write
from tstitch_cli.savings.accelerations import is_full, watches
from tstitch_cli.schema import (
    QUANTILES,
    Agreement,
    DenoiserProfile,
    FixedParts,
    Measure,
    PlannedDenoiser,
    Profile,
    Validation,
)
from tstitch_cli.trajectory import Batch, Trajectory, run

FEWEST_ROUNDS, FEWEST_TIMED_ROUNDS = 5, 2
WARM = 0.05  # two calls this close to each other end a denoiser's warm-up
MOST_WARM_UPS = 6
MOST_JUMPS = 3
"""Calls in a row in which a clock may run backwards."""
VALIDATIONS, VALIDATION_CALLS = 3, 3
AGREEMENT_TRAJECTORIES = 3
FEW_PICTURES = 8
"""Compared pictures below which more are worth a batch that is not full."""


@dataclass(frozen=True)
class Effort:
    """How well to measure: until the 95 % confidence interval is `tolerance` wide or `max_time_s` is spent.

    Checking the prediction is part of that time. Where even the fewest calls take longer, those are made: one of
    each denoiser to warm up, FEWEST_TIMED_ROUNDS rounds and one check.
    """

    tolerance: float = 0.01
    max_time_s: float = 120.0
    agreement: bool = True
    """Whether to measure agreement as well, for at most the time of three trajectories of the largest denoiser."""


Progress = Callable[[str, float], None]
"""Told what runs now and which share of the work, in [0, 1], is done."""


@dataclass(frozen=True)
class _Call:
    """A finished call: who took each step, and its times."""

    allocation: Allocation
    trajectory: Trajectory
    write_s: float

    @property
    def total_s(self) -> float:
        return self.trajectory.total_s + self.write_s


def measure(
    family: Family,
    batch: Batch,
    clock: Clock,
    effort: Effort = Effort(),
    *,
    progress: Progress = lambda doing, share: None,
    now: Callable[[], float] = time.perf_counter,
    read: machine_load.Reader | None = None,
) -> Profile:
    """Profiles every denoiser of `family` on `batch`, whose size is the setting's batch size.

    `now` is the host's clock, by which writing and `max_time_s` are timed, and `read` tells how busy the machine is
    besides. Raises what `trajectory.run` raises.
    """
    read = read or machine_load.reader_for(family.setting.device)
    return _Profiler(family, batch, clock, effort, progress, now, read).profile()


class _Profiler:
    def __init__(
        self,
        family: Family,
        batch: Batch,
        clock: Clock,
        effort: Effort,
        progress: Progress,
        now: Callable[[], float],
        read: machine_load.Reader,
    ) -> None:
        self.family, self.batch, self.clock, self.effort = family, batch, clock, effort
        self.progress, self.now, self.read = progress, now, read
        self.readings: list[Reading] = []
        self.planned = tuple(PlannedDenoiser(e.name, e.source, e.revision) for e in family.entries)
        self.names = tuple(entry.name for entry in family.entries)
        self.steps = family.setting.taken
        self.random = random.Random(batch.seeds[0])
        self.elapsed, self.looked = 0.0, now()
        self.counts: tuple[int, ...] = ()
        self.compiling_s = 0.0
        self.knows: dict[str, tuple[int, int] | None] = {}

    def profile(self) -> Profile:
        facts = {name: self._warm_up(name) for name in self.names}
        self.knows = self.family.knows(self.counts)
        calls, rounds, stopped = self._rounds()
        draft = self._summary(facts, calls, rounds, stopped)
        draft = replace(draft, validation=self._validate(draft))
        # Parts that take turns in memory would be moved twice for every evaluation that is compared.
        if not self.effort.agreement or self.family.setting.offload:
            return draft
        return replace(draft, agreement=self._agreement(draft))

    def _agreement(self, profile: Profile) -> Agreement | None:
        """Of as many pictures as AGREEMENT_TRAJECTORIES of the largest one take, but of one trajectory at least."""
        model = CostModel(profile)
        whole = {name: model.trajectory_s(name) for name in self.names}
        share = AGREEMENT_TRAJECTORIES * whole[self.family.stitched.host] / sum(whole.values())
        size = len(self.batch.indices)
        compared = size * max(1, int(share))
        # What is left of the time is spent on a smaller batch, where the fewer pictures take the less time and pictures
        # are few; denoisers that are compiled would be compiled again for it.
        if compared < FEW_PICTURES and self.family.device.type == "cpu" and not self.family.setting.compiled:
            compared = max(compared, int(share * size))
        batches = [
            replace(
                self.batch,
                prompts=self.family.example_prompts(min(size, compared - first), first),
                indices=tuple(range(first, min(first + size, compared))),
            )
            for first in range(0, compared, size)
        ]
        self.progress("comparing predictions", 0.99)
        return agreement.measure(self.family, batches, self.counts)

    def _spent(self) -> float:
        """Seconds since the work began; where the host's clock was set back they stand still, so the cap is reached."""
        looked = self.now()
        self.elapsed += max(0.0, looked - self.looked)
        self.looked = looked
        return self.elapsed

    def _call(self, allocation: Allocation) -> _Call:
        """A call whose times can be; raises DeviceError where the clock runs backwards again and again."""
        for _ in range(MOST_JUMPS):
            call = self._made(allocation)
            trajectory = call.trajectory
            if min(trajectory.encode_s, *trajectory.evaluations_s, trajectory.decode_s, call.write_s) >= 0:
                return call
        raise DeviceError(
            f"the clock of {self.family.setting.device} ran backwards in {MOST_JUMPS} calls one after the other",
            hint="nothing can be timed by it; look at the machine's (or the virtual machine's) clock source",
        )

    def _made(self, allocation: Allocation) -> _Call:
        turns: Sequence[str] | str = per_evaluation(allocation, self.counts) if self.counts else allocation[0][0]
        trajectory = run(self.family, self.batch, turns, self.clock, strict=False)
        work = Work(self.planned, self.family.setting, evaluations.run_lengths(self.counts), allocation)
        with tempfile.TemporaryDirectory() as folder:
            began = self.now()
            write(self.family, work, self.batch, trajectory, Path(folder), overwrite=False)
            written = self.now() - began
        return _Call(allocation, trajectory, written)

    def _warm_up(self, name: str) -> tuple[float | None, int | None]:
        """Calls `name` alone until two calls take the same time; returns its FLOPs an evaluation and peak bytes."""
        alone = ((name, self.steps),)
        peak = PeakMemory(self.family.device)
        with flops.last_arguments(self.family.denoisers[name]) as arguments:
            last = self._warm_call(name, alone)
        counted = flops.count(self.family.denoisers[name], arguments)
        if self.family.setting.compiled:
            last = self._compile(name, alone)
        for _ in range(MOST_WARM_UPS - 1):
            if self._spent() + last > self.effort.max_time_s / 4:
                break
            previous, last = last, self._warm_call(name, alone)
            if abs(last - previous) <= WARM * last:
                break
        return counted, peak.bytes()

    def _compile(self, name: str, alone: Allocation) -> float:
        """Makes the call in which `name` is compiled, whose time belongs to loading; returns the time of the next."""
        self.progress(f"compiling {name}", 0.0)
        before = self._spent()
        self._call(alone)
        spent = self._spent() - before
        self.elapsed -= spent
        self.compiling_s += spent
        return self._warm_call(name, alone)

    def _warm_call(self, name: str, alone: Allocation) -> float:
        self.progress(f"warming up {name}", 0.0)
        call = self._call(alone)
        if not self.counts:
            made = len(call.trajectory.realised)
            self.counts = evaluations.per_step(self.family.pipeline.scheduler, self.steps, made)
        return call.total_s

    def _rounds(self) -> tuple[list[_Call], int, str]:
        """Interleaved rounds: every denoiser alone and one stitched call through all of them, in random order."""
        calls: list[_Call] = []
        rounds = 0
        started = self._spent()
        self.readings.append(self.read())
        while True:
            work = [((name, self.steps),) for name in self.names] + self._through_all(rounds)
            self.random.shuffle(work)
            for allocation in work:
                self.progress(f"round {rounds + 1}: {_words(allocation)}", self._share(calls, rounds))
                calls.append(self._call(allocation))
            rounds += 1
            self.readings.append(self.read())
            if rounds >= FEWEST_ROUNDS and self._confidence(calls) <= self.effort.tolerance:
                return calls, rounds, "tight"
            a_round = (self._spent() - started) / rounds
            checks = VALIDATIONS * VALIDATION_CALLS * fmean(call.total_s for call in calls)
            if rounds >= FEWEST_TIMED_ROUNDS and self._spent() + a_round + checks > self.effort.max_time_s:
                return calls, rounds, "time cap"

    def _share(self, calls: list[_Call], rounds: int) -> float:
        """The nearer of the two ends: time spent, or the interval's narrowing with the square root of the rounds."""
        by_time = self._spent() / self.effort.max_time_s
        if rounds < 2:
            return min(0.99, by_time)
        wanted = max(FEWEST_ROUNDS, rounds * (self._confidence(calls) / self.effort.tolerance) ** 2)
        return min(0.99, max(by_time, rounds / wanted))

    def _through_all(self, turn: int) -> list[Allocation]:
        """A random stitched allocation, small to large and large to small in turns, so every switch is seen.

        None where it would be one of those that the prediction is to be checked with.
        """
        order = self.names if turn % 2 == 0 else self.names[::-1]
        most = min(len(order), self.steps)
        start = self.random.randint(0, len(order) - most)
        cuts = sorted(self.random.sample(range(1, self.steps), most - 1))
        ends = [0, *cuts, self.steps]
        through = tuple((order[start + i], ends[i + 1] - ends[i]) for i in range(most))
        held_out = [self._held_out((small, large), i) for i in range(VALIDATIONS) for small, large in self._pairs()]
        return [] if through in held_out else [through]

    def _pairs(self) -> list[tuple[str, str]]:
        """Every two denoisers in either order: which is the cheaper is not known before it was measured."""
        return list(permutations(self.names, 2))

    def _alone(self, calls: list[_Call], name: str) -> list[Trajectory]:
        return [call.trajectory for call in calls if call.allocation == ((name, self.steps),)]

    def _confidence(self, calls: list[_Call]) -> float:
        """Half width of the widest 95 % interval of a denoiser's mean trajectory, as a share of it."""
        return max(_half_width([sum(t.evaluations_s) for t in self._alone(calls, name)]) for name in self.names)

    def _summary(
        self, facts: dict[str, tuple[float | None, int | None]], calls: list[_Call], rounds: int, stopped: str
    ) -> Profile:
        denoisers = [self._denoiser(name, facts[name], calls) for name in self.names]
        denoisers.sort(key=lambda d: d.steady_s.mean)
        trajectories = [call.trajectory for call in calls]
        profile = Profile(
            origin="measured",
            family=self.family.latent_space,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            setting=self.family.setting,
            evaluations=evaluations.run_lengths(self.counts),
            denoisers=tuple(denoisers),
            fixed=FixedParts(
                encode_s=_measure([t.encode_s for t in trajectories]),
                decode_s=_measure([t.decode_s for t in trajectories]),
                write_s=_measure([call.write_s for call in calls]),
            ),
            spread={f"p{round(q * 100)}": 1.0 for q in QUANTILES},
            rounds=rounds,
            steady=True,
            stopped=stopped,
            confidence=self._confidence(calls),
            fingerprint=fingerprint.take(
                self.family.device,
                self.family.weights,
            ),
            notes=f"the first calls, which compile, took {self.compiling_s:.1f} s" if self.compiling_s else "",
        )
        model = CostModel(profile)
        ratios = [call.total_s / model.mean_s(call.allocation) for call in calls]
        drift = steadiness.drift(ratios)
        why = [f"its speed drifted by {drift:.0%} between the rounds"] * steadiness.drifted(ratios)
        unsteady = (*why, *steadiness.leapt(ratios), *steadiness.reasons(self.readings, self.family.setting.device))
        off = round(max(drift, steadiness.waited(self.readings)), 4)
        return replace(profile, spread=spread(ratios, QUANTILES), steady=not unsteady, unsteady=unsteady, drift=off)

    def _denoiser(self, name: str, facts: tuple[float | None, int | None], calls: list[_Call]) -> DenoiserProfile:
        entry = self.family.entry(name)
        alone = [t.evaluations_s for t in self._alone(calls, name)]
        full = [s for times in alone for s in self._middles(times, full=True)]
        cached = [s for times in alone for s in self._middles(times, full=False)]
        flop, peak = facts
        return DenoiserProfile(
            name=name,
            source=entry.source,
            revision=entry.revision,
            first_s=_measure([times[0] for times in alone]),
            steady_s=_measure(full),
            last_s=_measure([times[-1] for times in alone]),
            switch_s=self._switch(name, fmean(full), calls),
            parameters=sum(p.numel() for p in self.family.denoisers[name].parameters()),
            flops=flop,
            peak_memory_bytes=peak,
            knows=self.knows.get(name),
            embedding=self.family.embedding_of(name),
            cached_s=_measure(cached) if cached else None,
            course_s=tuple(map(fmean, zip(*alone, strict=True))) if watches(self.family.setting) else (),
        )

    def _middles(self, times: Sequence[float], *, full: bool) -> list[float]:
        """The full or the cached evaluations of a trajectory, without its first and last where there are others."""
        kind = [i for i in range(len(times)) if is_full(self.family.setting, i) == full]
        return [times[i] for i in ([i for i in kind if 0 < i < len(times) - 1] or kind)]

    def _switch(self, name: str, steady: float, calls: list[_Call]) -> Measure:
        """What the evaluation that takes over costs beyond a steady one; nothing where that is within its error."""
        extra = []
        for call in calls:
            realised, times = call.trajectory.realised, call.trajectory.evaluations_s
            extra += [
                times[i] - steady
                for i in range(1, len(realised) - 1)
                if realised[i] == name and realised[i - 1] != name
            ]
        measured = _measure(extra)
        surely = measured.mean > measured.std / max(1, measured.count) ** 0.5
        return measured if surely else replace(measured, mean=0.0)

    def _validate(self, profile: Profile) -> tuple[Validation, ...]:
        """Runs stitched allocations that nothing was fitted to and sets their times beside the predictions.

        At least one call is made, the others as long as time is left.
        """
        model = CostModel(profile)
        ordered = tuple(d.name for d in profile.denoisers)
        held_out = [self._held_out(ordered, i) for i in range(VALIDATIONS)]
        calls: list[_Call] = []
        wanted = [each for _ in range(VALIDATION_CALLS) for each in self.random.sample(held_out, len(held_out))]
        for allocation in wanted:
            if calls and self._spent() + calls[-1].total_s > self.effort.max_time_s:
                break
            self.progress(f"checking the prediction, {len(calls) + 1} of {len(wanted)}", 0.99)
            calls.append(self._call(allocation))
        return tuple(
            Validation(a, model.mean_s(a), _measure([c.total_s for c in calls if c.allocation == a]))
            for a in dict.fromkeys(held_out)
            if any(c.allocation == a for c in calls)
        )

    def _held_out(self, ordered: tuple[str, ...], turn: int) -> Allocation:
        """Smallest to largest with the switch at a quarter, half, three quarters of the steps."""
        cut = max(1, min(self.steps - 1, round(self.steps * (turn + 1) / (VALIDATIONS + 1))))
        return tuple(part for part in ((ordered[0], cut), (ordered[-1], self.steps - cut)) if part[1])


def _words(allocation: Allocation) -> str:
    return ", ".join(f"{name} {steps}" for name, steps in allocation)


def _measure(values: Sequence[float]) -> Measure:
    if not values:
        return Measure(0.0, 0.0, 0)
    return Measure(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


def _half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean, relative; infinite below two values."""
    n = len(values)
    return float("inf") if n < 2 else float(student_t(n) * stdev(values) / n**0.5 / fmean(values))
