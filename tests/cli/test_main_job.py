"""The main job as it is typed, on the bundled family: profile, plan, sample, show, and the demo."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tstitch_cli import provenance, sample
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, read_profile, write_plan, write_profile
from tstitch_cli.images import save_picture
from tstitch_cli.schema import Profile
from tstitch_cli.zoo.registry import Zoo

FAMILY = ("fashion-s", "fashion-b", "fashion-xl")


def tstitch(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `profile` and `plan` have been run."""
    folder = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ("--steps", "10", "--batch-size", "2", "--max-time", "6s", "--device", "cpu")
        made = tstitch("profile", "fashion-xl", "fashion-s", "fashion-b", *given)
        assert made.exit_code == 0, made.output
        planned = tstitch("plan", "--budget", "50%", "--plot", "pareto.png", "--top", "3")
        assert planned.exit_code == 0, planned.output
    return folder


@pytest.fixture(autouse=True)
def _there(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(job)


def test_the_profile_orders_the_family_by_cost(job: Path) -> None:
    made = read_profile(job / "profiles" / "cpu-fashion-s-b-xl-ddim10-b2-f32.yaml")
    assert tuple(d.name for d in made.denoisers) == FAMILY
    assert made.setting.steps == 10
    assert made.fingerprint is not None
    assert set(made.fingerprint.weights) == set(FAMILY)
    # Three checks of three calls each where the time suffices, and always one.
    assert 1 <= len(made.validation) <= 3
    assert all(1 <= check.measured_s.count <= 3 for check in made.validation)
    assert made.agreement is not None
    assert (made.agreement.largest, set(made.agreement.denoisers)) == (FAMILY[-1], set(FAMILY[:-1]))


def test_how_long_to_measure_is_the_familys_own_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = "{steps: 20, scheduler: ddim, guidance: 1.5, size: 32, batch_size: 2, dtype: float32, measure_s: 25}"
    lines = ["schema: tstitch/zoo/1", "denoisers:"]
    for size in ("s", "xl"):
        source = f"bundled:fashion/fashion-{size}"
        lines.append(f"  quick-{size}: {{family: fashion, source: '{source}', defaults: {defaults}}}")
    file = tmp_path / "zoo.yaml"
    file.write_text("\n".join(lines))
    monkeypatch.setenv("TSTITCH_ZOO", str(file))
    seconds: list[float] = []
    monkeypatch.setattr("tstitch_cli.commands.profile.measure_and_save", lambda *args, **more: seconds.append(args[4]))
    for names in (("quick-s", "quick-xl"), FAMILY, ("quick-s", "quick-xl", "--max-time", "7s")):
        done = tstitch("profile", *names)
        assert done.exit_code == 0, done.output
    assert seconds == [25.0, 120.0, 7.0]


def test_the_plan_keeps_the_budget(job: Path) -> None:
    plan = read_plan(job / "plan.yaml")
    assert (plan.combinations, len(plan.rows)) == (66, 66)
    row = plan.rows[plan.chosen]
    assert row.feasible
    assert row.time_s.within <= plan.budget.seconds
    assert row.loss is not None
    assert all(r.loss >= row.loss for r in plan.rows if r.feasible and r.loss is not None)
    assert len(plan.alternatives) == 3
    assert Image.open(job / "pareto.png").size[0] > 400


def test_sample_draws_what_was_asked_and_tells_its_time(job: Path) -> None:
    result = tstitch("sample", "--prompt", "ankle boot", "--prompt", "bag", "--count", "3", "--grid", "--out", "six")
    assert result.exit_code == 0, result.output
    assert "predicted" in result.output
    assert "warm-up" in result.output
    files = sorted(path.name for path in (job / "six").iterdir())
    assert files == [f"{i:06d}.png" for i in range(6)] + ["grid.png", "manifest.jsonl"]
    plan = read_plan(job / "plan.yaml")
    made = provenance.read(job / "six" / "000004.png")
    assert made.prompt == "bag"
    assert made.allocation == plan.rows[plan.chosen].allocation


def test_the_same_command_gives_the_same_bytes_and_so_does_drawing_again(job: Path) -> None:
    for folder in ("first", "second"):
        assert tstitch("sample", "--prompt", "dress", "--count", "2", "--seed", "4", "--out", folder).exit_code == 0
    first = job / "first" / "000001.png"
    assert first.read_bytes() == (job / "second" / "000001.png").read_bytes()
    assert tstitch("sample", "--from", str(first), "--out", "again").exit_code == 0
    assert first.read_bytes() == (job / "again" / "000001.png").read_bytes()


def test_drawing_again_with_other_versions_says_so_and_records_those_of_now(job: Path) -> None:
    assert tstitch("sample", "--prompt", "coat", "--out", "now").exit_code == 0
    now = job / "now" / "000000.png"
    made = provenance.read(now)
    with Image.open(now) as image:
        save_picture(job / "old.png", image, replace(made, versions=made.versions | {"torch": "1.0"}), overwrite=False)
    again = tstitch("sample", "--from", "old.png", "--out", "renewed")
    assert again.exit_code == 0, again.output
    assert f"may not come out bit for bit the same: torch was 1.0, is {made.versions['torch']}" in again.output
    assert (job / "renewed" / "000000.png").read_bytes() == now.read_bytes()
    assert "bit for bit" not in tstitch("sample", "--from", "now/000000.png", "--out", "same").output


def test_another_row_draws_another_picture(job: Path) -> None:
    for row in ("0", "65"):
        assert tstitch("sample", "--prompt", "coat", "--row", row, "--out", f"row{row}").exit_code == 0
    pictures = [Image.open(job / f"row{row}" / "000000.png").tobytes() for row in (0, 65)]
    assert pictures[0] != pictures[1]
    assert provenance.read(job / "row0" / "000000.png").allocation == (("fashion-s", 10),)
    assert provenance.read(job / "row65" / "000000.png").allocation == (("fashion-xl", 10),)


def test_the_sweep_is_one_sheet_and_its_ends_are_the_denoisers_alone(job: Path) -> None:
    result = tstitch("sample", "--prompt", "sneaker", "--prompt", "bag", "--sweep", "--out", "swept")
    assert result.exit_code == 0, result.output
    sheet = Image.open(job / "swept" / "sweep.png")
    assert sheet.size[0] > 11 * 64
    assert [path.name for path in (job / "swept").iterdir()] == ["sweep.png"]


def test_a_dry_run_draws_nothing(job: Path) -> None:
    result = tstitch("sample", "--prompt", "bag", "--count", "5", "--dry-run", "--out", "dry")
    assert "pictures: 5, calls: 3" in result.output
    assert not (job / "dry").exists()


def test_prompts_come_from_a_file_too(job: Path) -> None:
    (job / "prompts.txt").write_text("bag\n\n  dress  \n")
    assert tstitch("sample", "--prompts-file", "prompts.txt", "--out", "listed").exit_code == 0
    assert provenance.read(job / "listed" / "000001.png").prompt == "dress"


def test_a_prompt_given_twice_has_its_own_row_in_the_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def sheet(rows: list[list[Image.Image]], row_labels: list[str], *rest: object) -> Image.Image:
        seen.extend([[str(len(row)) for row in rows], row_labels])
        return Image.new("L", (8, 8))

    monkeypatch.setattr("tstitch_cli.images.contact_sheet", sheet)
    given = ("--prompt", "dress", "--prompt", "dress", "--prompt", "bag")
    assert tstitch("sample", *given, "--grid", "--out", "twice").exit_code == 0
    assert seen == [["1", "1", "1"], ["dress", "dress", "bag"]]


@pytest.mark.parametrize("more", [("--grid",), ("--sweep",), ("--dry-run",), ("--prompt", "bag")])
def test_drawing_again_takes_nothing_else(more: tuple[str, ...]) -> None:
    assert tstitch("sample", "--from", "first/000000.png", *more).exit_code == 2


def test_a_dry_run_refuses_what_drawing_would(job: Path) -> None:
    assert tstitch("sample", "--prompt", "drss", "--dry-run").exit_code == 2


def test_times_that_are_not_as_predicted_are_told(job: Path) -> None:
    plan = read_plan(job / "plan.yaml")
    row = plan.rows[plan.chosen]
    slow = replace(row, time_s=replace(row.time_s, mean=row.time_s.mean * 50, p95=row.time_s.p95 * 50))
    rows = tuple(slow if each == row else each for each in plan.rows)
    write_plan(replace(plan, rows=rows), job / "drifted.yaml", overwrite=True)
    drawn = tstitch("sample", "--plan", "drifted.yaml", "--prompt", "bag", "--count", "2", "--out", "drifted")
    assert drawn.exit_code == 0
    assert "than when it was profiled" in " ".join(drawn.output.split())
    assert "`tstitch verify`" in drawn.output


def test_show_tells_how_a_picture_was_made() -> None:
    assert tstitch("sample", "--prompt", "shirt", "--out", "shown").exit_code == 0
    told = json.loads(tstitch("show", "shown/000000.png", "--json").output)
    assert told["prompt"] == "shirt"
    assert told["setting"]["steps"] == 10


def test_a_plan_from_another_machine_is_refused_unless_allowed(job: Path) -> None:
    text = (job / "plan.yaml").read_text()
    foreign = text.replace('torch: "', 'torch: "0.')
    assert foreign != text
    (job / "foreign.yaml").write_text(foreign)
    refused = tstitch("sample", "--plan", "foreign.yaml", "--prompt", "bag", "--out", "foreign")
    assert refused.exit_code == 5
    assert "torch was 0." in refused.output
    assert not (job / "foreign").exists()
    allowed = tstitch("sample", "--plan", "foreign.yaml", "--prompt", "bag", "--out", "foreign", "--allow-stale")
    assert allowed.exit_code == 0


def test_the_demo_leaves_everything_it_says(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["schema: tstitch/zoo/1", "denoisers:"]
    for name in ("tiny-sd", "tiny-sd-small"):  # in fewer steps than usual
        shipped = Zoo.shipped().entries[name]
        defaults = "{steps: 8, scheduler: pndm, guidance: 3, size: 64, batch_size: 2, dtype: float32}"
        told = f"family: tiny-sd, source: '{shipped.source}', parameters: {shipped.parameters}, defaults: {defaults}"
        lines.append(f"  {name}: {{{told}}}")
    (tmp_path / "zoo.yaml").write_text("\n".join(lines))
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "zoo.yaml"))
    monkeypatch.setattr("tstitch_cli.commands.demo.PROFILE_SECONDS", 3.0)
    monkeypatch.setattr("tstitch_cli.commands.demo.PICTURES", 2)
    monkeypatch.setattr("tstitch_cli.commands.demo.TENTHS", (0, 10))
    result = tstitch("demo", "--prompt", "a red sneaker", "--out", "demo")
    assert result.exit_code == 0, result.output
    for name in ("profile.yaml", "plan.yaml", "pareto.png", "pictures/000001.png", "pictures/grid.png", "sweep.png"):
        assert (job / "demo" / name).stat().st_size > 0
    assert {d.name for d in read_plan(job / "demo" / "plan.yaml").denoisers} == {"tiny-sd-small", "tiny-sd"}
    assert provenance.read(job / "demo" / "pictures" / "000001.png").prompt == "a red sneaker"
    assert "does not know" not in result.output
    assert tstitch("demo", "--out", "demo").exit_code == 3


def test_an_interrupted_demo_names_a_command_that_works(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (job / "profiles").glob("*.yaml")
    profile, drawing = read_profile(path), sample.draw_each

    def profiled(*given: Any, overwrite: bool) -> Profile:
        write_profile(profile, given[5], overwrite=overwrite)
        return profile

    def cut(family: Any, work: Any, batches: Any, **given: Any) -> Iterator[Any]:
        yield from itertools.islice(drawing(family, work, batches, **given), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr("tstitch_cli.commands.profile.measure_and_save", profiled)
    monkeypatch.setattr("tstitch_cli.commands.sweeping.draw_sweep", lambda *given, **named: None)
    monkeypatch.setattr("sys.argv", ["tstitch", "demo", "--prompt", "coat", "--out", "cut demo"])
    with monkeypatch.context() as patch:
        patch.setattr("tstitch_cli.sample.draw_each", cut)
        result = tstitch("demo", "--prompt", "coat", "--out", "cut demo")
    assert result.exit_code == 130
    _, _, command = result.output.partition("2 of 8 pictures are finished; go on with\n")
    assert command.strip() == "tstitch demo --prompt coat --out 'cut demo' --overwrite"
    assert tstitch("demo", "--prompt", "coat", "--out", "cut demo").exit_code == 3
    assert tstitch(*shlex.split(command)[1:]).exit_code == 0
    assert (job / "cut demo" / "pictures" / "000007.png").exists()


def test_the_demo_tells_of_unknown_words_before_it_measures(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tstitch_cli.commands.profile.measure_and_save", measure)
    result = tstitch("demo", "--prompt", "a dinosaur", "--prompt", "a red sneeker", "--out", "odd")
    assert result.exit_code == 130
    told = " ".join(result.output.split())
    assert "tiny-sd was trained on few words and does not know 'dinosaur', 'sneeker' (did you mean 'sneaker'?)" in told


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_and_says_how_to_go_on(job: Path) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "tstitch_cli.app", "sample", "--prompt", "bag", "--count", "4000", "--out", "cut"]
    process = subprocess.Popen(
        command,
        cwd=job,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (job / "cut" / "000003.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "of 4000 pictures are finished; go on with\n  tstitch sample --prompt bag --count 4000 --out cut" in said
    assert {path.suffix for path in (job / "cut").iterdir()} == {".png", ".jsonl"}
    for path in (job / "cut").glob("*.png"):
        provenance.read(path)
        Image.open(path).load()
