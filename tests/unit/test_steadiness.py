"""What tells an unsteady machine, and the margin that plans keep for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.builders import measured
from tests.toys import FakeClock, family
from tests.unit.test_exact import agreeing
from tstitch_cli.documents import parse, render
from tstitch_cli.errors import InfeasibleError
from tstitch_cli.formats.consistency import faults_of_profile
from tstitch_cli.measuring import machine_load, steadiness
from tstitch_cli.measuring.steadiness import GpuReading, Reading
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.exact_row import with_optimum
from tstitch_cli.profile import Effort, measure
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import PROFILE_SCHEMA, Profile
from tstitch_cli.trajectory import Batch

START = Reading(at_s=100.0, busy_s=50.0, own_s=5.0, stolen_s=1.0, cores=4, slowed=2, held_back_s=0.5)


def after(seconds: float, **more: Any) -> Reading:
    """START `seconds` later, this process having used one core."""
    used = replace(START, at_s=START.at_s + seconds, busy_s=START.busy_s + seconds, own_s=START.own_s + seconds)
    return replace(used, **{name: getattr(used, name) + value for name, value in more.items()})


def why(last: Reading, device: str = "cpu") -> tuple[str, ...]:
    return steadiness.reasons([START, last], device)


def test_a_quiet_machine_has_no_reasons() -> None:
    assert why(after(10.0)) == ()
    assert why(after(10.0, busy_s=3.0)) == ()  # less than a tenth of the cores


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"busy_s": 13.0}, "other processes used 1.3 of 4 cores"),
        ({"stolen_s": 4.0}, "the host of this virtual machine withheld 0.4 of 4 cores"),
        ({"held_back_s": 1.0}, "the container's processor limit held it back for 10% of the time"),
        ({"waited_s": 3.0}, "it waited for a core for 30% of the time"),
        ({"slowed": 3}, "the processor lowered its clock for heat 3 times"),
    ],
)
def test_each_disturbance_is_named(more: dict[str, float], said: str) -> None:
    assert why(after(10.0, **more)) == (said,)


def test_too_short_a_time_tells_nothing() -> None:
    assert why(after(0.1, busy_s=1.0)) == ()
    assert steadiness.reasons([START], "cpu") == ()


def test_beside_an_accelerator_only_a_full_host_disturbs() -> None:
    assert why(after(10.0, busy_s=20.0), "cuda") == ()
    assert why(after(10.0, busy_s=29.0), "cuda:1") == ("other processes used 2.9 of 4 cores",)


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([GpuReading(0, 0.0, None)] * 10, ()),
        ([GpuReading(1, 0.01, None)] * 10, ()),
        ([GpuReading(2, 0.4, None), GpuReading(2, 0.2, None)], ("others used 30% of the GPU",)),
        ([GpuReading(1, None, None)] * 2, ("another process had work on the GPU",)),
        ([GpuReading(0, 0.0, None)] * 9 + [GpuReading(0, 0.0, "heat")], ()),
        (
            [GpuReading(0, 0.0, None)] * 2 + [GpuReading(0, 0.0, "heat")],
            ("the GPU lowered its clocks for heat in 1 of 3 looks",),
        ),
    ],
)
def test_the_gpu(looks: list[GpuReading], said: tuple[str, ...]) -> None:
    readings = [START, *(replace(after(10.0), gpu=look) for look in looks)]
    assert steadiness.reasons(readings, "cuda") == said


class Library:
    """NVIDIA's management library, as it answers for a GPU with three processes."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotFound(NVMLError):  # noqa: N801, N818
        pass

    def __init__(self, samples: list[Any] | Exception, mask: int = 0) -> None:
        self.samples, self.mask, self.asked = samples, mask, [0]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in (os.getpid(), 10, 11)]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:  # noqa: N802
        return self.mask

    def nvmlDeviceGetProcessUtilization(self, handle: object, since: int) -> list[Any]:  # noqa: N802
        self.asked.append(since)
        if isinstance(self.samples, Exception):
            raise self.samples
        return self.samples


def sample(pid: int, use: int, at: int = 7) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, smUtil=use, timeStamp=at)


def test_the_library_is_asked_for_others_and_clocks() -> None:
    library = Library([sample(os.getpid(), 40), sample(10, 30), sample(11, 5, 9)], mask=0x4 | 0x20)
    gpu = machine_load.Nvml(library, None)
    assert gpu.read() == GpuReading(2, 0.3 + 0.05, "heat")
    gpu.read()
    assert library.asked[-1] == 9


def test_in_a_container_the_busiest_process_is_taken_for_this_one() -> None:
    found = machine_load.Nvml(Library([sample(1000, 90), sample(1001, 20)]), None).read()
    assert found == GpuReading(2, 0.2, None)


def test_what_the_library_does_not_answer_is_not_known() -> None:
    assert machine_load.Nvml(Library(Library.NVMLError()), None).read() == GpuReading(2, None, None)
    assert machine_load.Nvml(Library(Library.NVMLError_NotFound()), None).read() == GpuReading(2, 0.0, None)


def test_without_a_gpu_there_is_no_library() -> None:
    assert machine_load.Nvml.of("cuda:99") is None


def test_a_real_busy_process_is_seen() -> None:
    read = machine_load.reader_for("cpu")
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        first = read()
        time.sleep(1.0)
        last = read()
    finally:
        busy.kill()
        busy.wait()
    foreign = (last.busy_s - first.busy_s) - (last.own_s - first.own_s)
    assert foreign > 0.3  # a whole core, unless others want it too
    # On a machine of many cores one busy process is no disturbance, so the rule is asked about one.
    (said,) = [w for w in steadiness.reasons([first, replace(last, cores=1)], "cpu") if "processes" in w]
    assert said.endswith("of 1 cores")


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the scheduler does not tell")
def test_waiting_for_a_core_is_seen() -> None:
    """Beside a busy process that may use no other core than this one."""
    cores = os.sched_getaffinity(0)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(0, {min(cores)})
        os.sched_setaffinity(busy.pid, {min(cores)})
        first, until = machine_load.read(), time.monotonic() + 1.5
        while time.monotonic() < until:
            pass
        readings = [first, machine_load.read()]
    finally:
        os.sched_setaffinity(0, cores)
        busy.kill()
        busy.wait()
    assert steadiness.waited(readings) > 0.2
    assert any("waited for a core" in reason for reason in steadiness.reasons(readings, "cpu"))


def test_drift_is_between_the_slowest_and_the_fastest_quarter() -> None:
    assert steadiness.drift([1.0, 1.0, 1.2, 1.2, 0.9, 0.9, 1.0, 1.0]) == pytest.approx(0.25)
    assert steadiness.drift([1.0, 1.0, 2.0]) == 0.0


def test_a_load_that_comes_and_goes_is_a_drift_too() -> None:
    level = [1.0] * 10 + [1.3] * 10 + [1.0] * 20
    assert steadiness.drifted([each + 0.01 * (i % 3) for i, each in enumerate(level)])


def test_noise_is_no_drift() -> None:
    noise = [1.0, 1.3, 0.8, 1.1, 0.7, 1.2, 0.9, 1.25, 0.8, 1.3, 1.2, 0.75]
    assert steadiness.drift(noise) > steadiness.LEAST_DRIFT
    assert not steadiness.drifted(noise)
    assert not steadiness.drifted([1.0, 1.02] * 20)


def unsteady(drift: float = 0.2) -> Profile:
    return replace(measured(), steady=False, unsteady=("other processes used 1.3 of 2 cores",), drift=drift)


@pytest.mark.parametrize(
    ("profile", "margin"),
    [(measured(), 0.0), (replace(measured(), drift=0.3), 0.0), (unsteady(), 0.2), (unsteady(0.01), 0.05)],
)
def test_the_margin(profile: Profile, margin: float) -> None:
    assert steadiness.margin(profile) == margin


def test_a_plan_keeps_the_margin_and_shows_it() -> None:
    budget = parse_budget("1.2s")
    quiet, plan = make_plan(measured(), budget=budget), make_plan(unsteady(), budget=budget)
    assert (quiet.budget.margin, plan.budget.margin) == (0.0, 0.2)
    assert plan.budget.plannable_s == pytest.approx(1.0)
    assert plan.rows[plan.chosen].time_s.within <= 1.0 < quiet.rows[quiet.chosen].time_s.within <= 1.2
    # Nothing is said to be slower than it was measured.
    assert [row.time_s for row in plan.rows] == [row.time_s for row in quiet.rows]
    assert all(row.feasible == (row.time_s.within <= 1.0) for row in plan.rows)


@pytest.mark.parametrize("asked", ["100%", "40%", "2x"])
def test_a_share_of_the_largest_alone_chooses_the_same_row_and_allows_it_the_margin(asked: str) -> None:
    budget = parse_budget(asked)
    quiet, plan = make_plan(measured(), budget=budget), make_plan(unsteady(), budget=budget)
    assert plan.chosen == quiet.chosen
    assert plan.budget.seconds == pytest.approx(1.2 * quiet.budget.seconds)


def test_the_least_budget_counts_the_margin() -> None:
    with pytest.raises(InfeasibleError, match=r"with a margin of 20% as the machine was unsteady") as caught:
        make_plan(unsteady(), budget=parse_budget("100ms"))
    least = caught.value.message.split("for this profile is ")[1].split(" (")[0].replace(" ", "")
    assert make_plan(unsteady(), budget=parse_budget(least)).rows
    assert "quiet machine" in (caught.value.hint or "")


def test_the_exact_row_keeps_it_too() -> None:
    profile = replace(agreeing(), steady=False, drift=0.2)
    plan = with_optimum(make_plan(profile, budget=parse_budget("60%")), profile)
    assert plan.rows[plan.chosen].time_s.within <= plan.budget.plannable_s * (1 + 1e-9)


def test_the_profile_is_read_as_written_and_reasons_of_a_steady_one_are_refused() -> None:
    text = render(unsteady(), PROFILE_SCHEMA)
    assert "unsteady: [other processes used 1.3 of 2 cores]" in text
    assert parse(text, "x.yaml", Profile, PROFILE_SCHEMA) == unsteady()
    assert list(faults_of_profile(unsteady())) == []
    wrong = replace(unsteady(1.0), steady=True)
    assert [place for place, _ in faults_of_profile(wrong)] == [("drift",), ("unsteady",)]


def profiled(readings: Iterator[Reading], *, slower: float = 0.0) -> Profile:
    clock = FakeClock()
    toy = family(clock, {"small": 0.01, "large": 0.1})
    for name, denoiser in toy.denoisers.items():
        more = slower * {"small": 0.01, "large": 0.1}[name]
        denoiser.register_forward_pre_hook(lambda m, a, more=more: clock.advance(more if clock.now > 6 else 0.0))
    effort = Effort(tolerance=1e-9, max_time_s=40.0, agreement=False)
    batch = Batch(("bag", "dress"), (0, 1))
    return measure(toy, batch, clock, effort, now=lambda: clock.now, read=lambda: next(readings))


def test_a_profile_records_why_it_is_unsteady() -> None:
    quiet = profiled(after(float(t)) for t in range(1000))
    assert (quiet.steady, quiet.unsteady) == (True, ())
    loaded = profiled(after(float(t), busy_s=2.0 * t) for t in range(1000))
    assert (loaded.steady, loaded.unsteady) == (False, ("other processes used 2.0 of 4 cores",))
    assert steadiness.margin(loaded) == steadiness.LEAST_DRIFT
    waiting = profiled(after(float(t), waited_s=0.3 * t) for t in range(1000))
    assert waiting.unsteady == ("it waited for a core for 30% of the time",)
    assert steadiness.margin(waiting) == waiting.drift == pytest.approx(0.3)
    drifting = profiled((after(float(t)) for t in range(1000)), slower=0.2)
    assert not drifting.steady
    (said,) = drifting.unsteady
    assert said == f"its speed drifted by {drifting.drift:.0%} between the rounds"
    assert steadiness.margin(drifting) == drifting.drift > steadiness.LEAST_DRIFT
