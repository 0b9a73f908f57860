"""Clocks that jump while a profile is measured: nothing absurd is written, and the work comes to its end."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toys import FakeClock, family
from tstitch_cli import profile
from tstitch_cli.denoisers import Family
from tstitch_cli.documents import read_profile, write_profile
from tstitch_cli.errors import DeviceError
from tstitch_cli.measuring.steadiness import Reading
from tstitch_cli.profile import Effort, measure
from tstitch_cli.schema import Profile
from tstitch_cli.trajectory import Batch

COSTS = {"small": 0.01, "large": 0.04}
BATCH = Batch(("bag", "dress"), (0, 1))
EFFORT = Effort(max_time_s=30.0, agreement=False)
QUIET = Reading(0.0, 0.0, 0.0, 0.0, 1)


class JumpingClock(FakeClock):
    """The device's clock, which jumps by `seconds` at every mark whose number is among `at`."""

    def __init__(self, seconds: float, at: range) -> None:
        super().__init__()
        self.seconds_, self.at, self.marks = seconds, at, itertools.count()

    def mark(self) -> float:
        if next(self.marks) in self.at:
            self.now += self.seconds_
        return super().mark()


def toy(clock: FakeClock) -> Family:
    return family(clock, COSTS, steps=4)


def steps_ms(made: Profile) -> list[float]:
    return [round(denoiser.steady_s.mean * 1e3, 6) for denoiser in made.denoisers]


def test_a_clock_set_back_while_profiling() -> None:
    clock = JumpingClock(-3600.0, at=range(40, 10_000, 41))
    made = measure(toy(clock), BATCH, clock, EFFORT, now=lambda: clock.now)
    assert steps_ms(made) == [10.0, 40.0]


def test_a_clock_that_runs_backwards_for_good() -> None:
    clock = JumpingClock(-1.0, at=range(30, 10_000))
    with pytest.raises(DeviceError, match="the clock of cpu ran backwards in 3 calls") as caught:
        measure(toy(clock), BATCH, clock, EFFORT, now=lambda: clock.now)
    assert "clock source" in str(caught.value.hint)


@pytest.mark.parametrize("mark", [51, 86])
def test_a_clock_that_leaps_ahead_makes_the_profile_unsteady(mark: int, tmp_path: Path) -> None:
    """As one does that goes on while the machine sleeps."""
    clock = JumpingClock(3600.0, at=range(mark, mark + 1))
    made = measure(toy(clock), BATCH, clock, EFFORT, now=lambda: clock.now)
    assert not made.steady
    write_profile(made, tmp_path / "profile.yaml", overwrite=False)
    assert read_profile(tmp_path / "profile.yaml") == made


def test_a_host_clock_set_back_does_not_keep_the_work_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap of the time holds although the clock that it is told by is an hour back at every tenth look."""
    monkeypatch.setattr(profile, "FEWEST_ROUNDS", 1_000_000)  # only the cap can end it
    clock = FakeClock()
    looks = itertools.count(1)
    back = 0.0

    def now() -> float:
        nonlocal back
        back += 3600.0 * (next(looks) % 10 == 0)
        return clock.now - back

    made = measure(toy(clock), BATCH, clock, replace(EFFORT, max_time_s=3.0), now=now)
    assert made.stopped == "time cap"
    assert steps_ms(made) == [10.0, 40.0]
    assert clock.now < 60.0


def test_the_time_of_day_is_not_what_is_measured_by(monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.cycle([0.0, 2e9, -1e6, 1e9])
    monkeypatch.setattr(time, "time", lambda: next(days))
    clock = FakeClock()
    made = measure(toy(clock), BATCH, clock, EFFORT, now=lambda: clock.now, read=lambda: QUIET)
    assert made.steady
    assert steps_ms(made) == [10.0, 40.0]
