"""`tstitch verify` as it is typed, on the bundled family and on random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.builders import measured
from tests.cli.test_random_weights import MEASURE, toy_zoo
from tstitch_cli import components
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, write_plan
from tstitch_cli.measuring import fingerprint
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import FixedParts, Measure
from tstitch_cli.zoo.registry import Zoo

NAMES = ("fashion-s", "fashion-xl")
NOTHING = Measure(0.0, 0.0, 1)

__all__ = ["toy_zoo"]  # an autouse fixture: a zoo file, the bundled family beside it


@pytest.fixture(autouse=True)
def _folder(here: Path, toy_zoo: None) -> None:
    pass


def tstitch(arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def plan_of(call_s: float, **changes: str) -> Path:
    """A plan for the bundled family made on this machine, whose largest denoiser takes `call_s` seconds a call."""
    entries = [Zoo.load().entries[name] for name in NAMES]
    profile = measured(5, step_s=(call_s / 20, call_s / 5))
    named = tuple(
        replace(denoiser, name=entry.name, source=entry.source)
        for denoiser, entry in zip(profile.denoisers, entries, strict=True)
    )
    weights = {entry.name: components.digest_of(entry) for entry in entries}
    here = replace(fingerprint.take(torch.device("cpu"), weights), **changes)  # type: ignore[arg-type]
    setting = replace(profile.setting, batch_size=1, size=32)
    profile = replace(
        profile,
        fixed=FixedParts(NOTHING, NOTHING, NOTHING),
        denoisers=named,
        setting=setting,
        validation=(),
        fingerprint=here,
    )
    path = Path("mine.yaml")
    write_plan(make_plan(profile, budget=parse_budget("50%")), path, overwrite=True)
    return path


def test_a_plan_that_holds() -> None:
    done = tstitch(f"verify {plan_of(60.0)} --calls 3 --row 0 --row 1 --json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["holds"], [row["row"] for row in told["rows"]]) == (True, [0, 1])
    for row in told["rows"]:
        assert len(row["seconds"]) == 3
        assert row["missed"] == 0
        assert row["drifted"]
    assert "the plan holds, but its times are off by more than 5 %" in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["mine.yaml", "zoo.yaml"]


def test_a_plan_that_no_longer_holds_ends_with_status_8() -> None:
    done = tstitch(f"verify {plan_of(0.01)} --calls 3")
    assert done.exit_code == 8, done.output
    assert "does not hold" in done.stdout
    assert "0 of 3" in done.stdout
    assert "the plan no longer holds" in done.stderr
    assert "tstitch profile" in done.stderr


def test_another_machine_is_refused_unless_allowed() -> None:
    path = plan_of(60.0, device="an abacus")
    done = tstitch(f"verify {path}")
    assert done.exit_code == 5
    assert "device was an abacus" in done.stderr
    assert done.stdout == ""
    assert tstitch(f"verify {path} --calls 3 --allow-stale").exit_code == 0


def test_times_need_no_weights() -> None:
    assert tstitch(f"{MEASURE} --random-weights").exit_code == 0
    assert tstitch("plan --budget 1000%").exit_code == 0
    done = tstitch("verify --calls 3")
    assert done.exit_code == 0, done.output
    assert "holds" in done.stdout
    text = Path("plan.yaml").read_text()
    assert read_plan(Path("plan.yaml")).fingerprint is not None
    Path("plan.yaml").write_text(text.replace('torch: "', 'torch: "0.'))
    done = tstitch("verify --calls 3")
    assert done.exit_code == 5
    assert "torch was 0." in done.stderr
