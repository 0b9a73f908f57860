"""Profiles from known times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tstitch_cli.documents import read_profile, write_profile
from tstitch_cli.errors import UsageError
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.planning.costs import CostModel

TIMES = {"dit-xl": 16.5, "dit-s": 1.6, "dit-b": 4.0}


def test_whole_trajectories_come_out_as_they_went_in() -> None:
    profile = from_times(TIMES, 100, scheduler="ddim")
    model = CostModel(profile)
    assert model.names == ("dit-s", "dit-b", "dit-xl")
    assert {name: model.mean_s(model.alone(name)) for name in model.names} == pytest.approx(TIMES)
    assert model.at_quantile(1.0, 0.99) == 1.0
    assert (profile.origin, profile.fingerprint, profile.setting.device) == ("imported", None, "imported")


def test_evaluations_share_the_time() -> None:
    profile = from_times({"a": 1.0, "b": 9.9}, 50, evaluations=((2, 49), (1, 1)))
    assert profile.denoisers[1].steady_s.mean == pytest.approx(0.1)
    assert CostModel(profile).largest_alone_s(None) == pytest.approx(9.9)


def test_it_is_a_valid_document(tmp_path: Path) -> None:
    profile = from_times(TIMES | {"no": 2.0, "12:30": 3.0}, 100)
    write_profile(profile, tmp_path / "p.yaml", overwrite=False)
    assert read_profile(tmp_path / "p.yaml") == profile


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        ({}, 10),
        ({"a": 1.0}, 10),
        (TIMES, 0),
        (TIMES, -1),
        ({"a": 1.0, "b": 0.0}, 5),
        ({"a": 1.0, "b": float("nan")}, 5),
    ],
)
def test_refused(times: dict[str, float], steps: int) -> None:
    with pytest.raises(UsageError):
        from_times(times, steps)
