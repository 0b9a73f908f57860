"""`tstitch profile` of several settings at one go, and the plan that chooses among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tstitch_cli import denoisers
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, read_profile
from tstitch_cli.errors import ExitStatus

GIVEN = ("--batch-size", "1", "--max-time", "1s", "--device", "cpu")


def tstitch(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_every_setting_gets_a_profile_on_one_scale(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[tuple[str, ...]] = []
    load = denoisers.load

    def noting(entries: list[object], setting: object, **given: object) -> object:
        loads.append(getattr(setting, "accelerate", ()))
        return load(entries, setting, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(denoisers, "load", noting)
    given = ("--steps", "2,4", "--accelerate", "none", "--accelerate", "tome", *GIVEN)
    result = tstitch("profile", "fashion-s", "fashion-b", *given)
    assert result.exit_code == 0, result.output
    # Once for all that is plain, the reference too, and anew where an acceleration is in the denoisers.
    assert loads == [(), ("tome:ratio=0.5",), ("tome:ratio=0.5",)]
    profiles = [read_profile(path) for path in sorted(here.glob("profiles/*.yaml"))]
    settings = {(each.setting.steps, bool(each.setting.accelerate)) for each in profiles}
    assert settings == {(2, False), (4, False), (2, True), (4, True)}
    references = {each.coarseness.reference for each in profiles if each.coarseness is not None}
    (reference,) = references
    assert (reference.denoiser, reference.scheduler, reference.steps) == ("fashion-b", "ddim", 16)
    assert all(each.coarseness is not None and len(each.coarseness.distance) == 4 for each in profiles)
    assert "coarseness: fashion-b alone ends" in result.output
    for options in (("--steps", "any"), ("--steps", "2..4", "--accelerate", "any")):
        planned = tstitch("plan", "--budget", "100%", *options, "--overwrite")
        assert planned.exit_code == 0, planned.output
        plan = read_plan(Path("plan.yaml"))
        assert plan.total is not None
        others = [rival for rival in plan.rivals if rival.kind == "other setting"]
        assert all(rival.loss is not None and rival.loss >= plan.total for rival in others)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--steps", "10,many"), ExitStatus.USAGE, "--steps"),
        (("--steps", "10,0"), ExitStatus.USAGE, "--steps"),
        (("--scheduler", "ddim,dmp++"), ExitStatus.USAGE, "dpm++"),
        (("--steps", "2,3", "--out", "p.yaml"), ExitStatus.USAGE, "folder"),
        (("--steps", "2,3", "--out", "kept"), ExitStatus.BAD_FILE, "exists already"),
        (("--accelerate", "none", "--accelerate", "magic"), ExitStatus.USAGE, "magic"),
        (("--steps", "10,20", "--accelerate", "deepcache"), ExitStatus.USAGE, "deepcache"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    here: Path, arguments: tuple[str, ...], status: ExitStatus, said: str
) -> None:
    kept = here / "kept" / "cpu-fashion-s-b-ddim3-b1-f32.yaml"
    kept.parent.mkdir()
    kept.write_text("mine\n")
    result = tstitch("profile", "fashion-s", "fashion-b", *GIVEN, *arguments)
    assert (result.exit_code, said in result.output) == (status, True), result.output
    assert [path for path in here.rglob("*") if path.is_file()] == [kept]


def test_given_times_are_of_one_number_of_steps(here: Path) -> None:
    result = tstitch("profile", "--from-times", "a=1s", "b=3s", "--steps", "10,20")
    assert result.exit_code == ExitStatus.USAGE
    assert "one number of steps" in result.output
