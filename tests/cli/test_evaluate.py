"""`tstitch evaluate` as it is typed, on the bundled family: what it writes, keeps, refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests import builders
from tests.jobs import contents
from tstitch_cli import documents, provenance
from tstitch_cli.app import app
from tstitch_cli.components import digest_of
from tstitch_cli.errors import BadFileError, DeviceError, ExitStatus
from tstitch_cli.jobs.locks import held
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import RANDOM_WEIGHTS, Fingerprint, Plan, Setting
from tstitch_cli.zoo.registry import Zoo

NAMES = ("fashion-s", "fashion-b")
COUNT = ("--count", "20")


def plan_of(names: tuple[str, ...] = NAMES, **setting: object) -> Plan:
    """A plan for some of the bundled family, four steps, five rows."""
    profile = builders.measured(4, (0.01, 0.03))
    entries = [Zoo.shipped().entries[name] for name in names]
    denoisers = tuple(
        replace(denoiser, name=entry.name, source=entry.source)
        for denoiser, entry in zip(profile.denoisers, entries, strict=True)
    )
    given = replace(Setting(4, "ddim", 1.25, 2, 32, "float32", "cpu"), **setting)  # type: ignore[arg-type]
    marks = Fingerprint("cpu", "none", "2", "0", 1, {entry.name: digest_of(entry) for entry in entries})
    profile = replace(profile, family="fashion", denoisers=denoisers, setting=given, fingerprint=marks, validation=())
    return make_plan(profile, budget=parse_budget("60%"), increment=0.25, profile_path="profiles/x.yaml", digest="0")


@pytest.fixture
def plan(here: Path) -> Plan:
    """Written to plan.yaml in the current folder."""
    made = plan_of()
    documents.write_plan(made, here / "plan.yaml", overwrite=False)
    return made


def evaluate(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ("evaluate", "--work", "work", *arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_the_measured_columns_are_filled_and_nothing_else(plan: Plan, here: Path) -> None:
    result = evaluate(*COUNT, "--rows", "0,2-3")
    assert result.exit_code == 0, result.output
    filled = documents.read_plan(here / "plan.yaml")
    assert [sorted(row.measured) for row in filled.rows] == [
        ["accuracy", "fid", "is", "precision", "recall"] if number in (0, 2, 3) else [] for number in range(5)
    ]
    assert filled.evaluation is not None
    assert (filled.evaluation.features, filled.evaluation.pictures, filled.evaluation.seed) == ("fashion", 20, 1)
    stripped = tuple(replace(row, measured={}) for row in filled.rows)
    assert replace(filled, rows=stripped, evaluation=None) == plan
    assert "fid ↓" in result.stdout
    assert "±" in result.stdout
    said = " ".join(result.stderr.split())
    assert "60 pictures drawn; steps with which several rows begin were run once for all of them, which saved" in said
    assert "20 are measured by 64 features, for which about 640 are enough" in said
    # The rest in the same way, and one metric again: nothing is drawn twice, and what is there stays.
    more = evaluate(*COUNT, "--rows", "1,3", "--metrics", "fid", "--json")
    assert more.exit_code == 0, more.output
    assert "20 pictures drawn" in more.stderr
    printed = json.loads(more.stdout)
    assert sorted(printed["rows"][1]["measured"]) == ["fid"]
    again = documents.read_plan(here / "plan.yaml")
    assert [again.rows[n].measured for n in (0, 2, 3)] == [filled.rows[n].measured for n in (0, 2, 3)]


def test_rows_are_named_by_words_and_numbers_together(plan: Plan, here: Path) -> None:
    result = evaluate(*COUNT, "--rows", "3-3,Chosen, 0", "--metrics", "accuracy")
    assert result.exit_code == 0, result.output
    filled = documents.read_plan(here / "plan.yaml")
    assert plan.chosen not in (0, 3)
    assert {i for i, row in enumerate(filled.rows) if row.measured} == {0, 3, plan.chosen}


def test_rows_that_differ_in_order_alone_are_told_apart(plan: Plan, here: Path) -> None:
    turned = replace(plan.rows[2], allocation=plan.rows[2].allocation[::-1], order="large to small")
    documents.write_plan(
        replace(plan, rows=(*plan.rows[:3], turned, *plan.rows[3:]), combinations=6), here / "plan.yaml", overwrite=True
    )
    result = evaluate(*COUNT, "--rows", "2,3", "--metrics", "accuracy")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert next(line for line in lines if "mean" in line).rstrip().endswith("order")
    assert [line.split()[-3:] for line in lines if "%" in line] == [["small", "to", "large"], ["large", "to", "small"]]


def test_what_was_measured_in_another_way_is_not_mixed(plan: Plan, here: Path) -> None:
    assert evaluate(*COUNT, "--rows", "0,1", "--metrics", "accuracy").exit_code == 0
    before = (here / "plan.yaml").read_bytes()
    refused = evaluate("--count", "22", "--rows", "1", "--metrics", "accuracy")
    assert refused.exit_code == 2
    assert "rows 0 were measured in another way" in refused.stderr
    assert (here / "plan.yaml").read_bytes() == before
    assert evaluate("--count", "22", "--rows", "1", "--metrics", "accuracy", "--remeasure").exit_code == 0
    now = documents.read_plan(here / "plan.yaml")
    assert [bool(row.measured) for row in now.rows] == [False, True, False, False, False]
    assert evaluate(*COUNT, "--rows", "0,1", "--metrics", "accuracy").exit_code == 0


def test_pictures_are_kept_with_how_they_were_made(plan: Plan, here: Path) -> None:
    assert evaluate(*COUNT, "--rows", "chosen", "--metrics", "accuracy").exit_code == 0
    # Though it is known how good they are, they are drawn again to be kept.
    kept = evaluate(*COUNT, "--rows", "chosen", "--metrics", "accuracy", "--keep", "kept", "--batch-size", "20")
    assert kept.exit_code == 0, kept.output
    found = sorted((here / "kept" / f"row-{plan.chosen:03d}").glob("*.png"))
    assert len(found) == 20
    made = provenance.read(found[13])
    assert (made.prompt, made.index, made.seed, made.batch_size) == ("3", 13, 1, 20)
    assert made.allocation == plan.rows[plan.chosen].allocation
    assert CliRunner().invoke(app, ["show", str(found[0])]).exit_code == 0
    before = contents(here / "kept")
    assert f"row-{plan.chosen:03d}/manifest.jsonl" in before
    found[4].unlink()
    assert evaluate(*COUNT, "--rows", "chosen", "--metrics", "accuracy", "--keep", "kept").exit_code == 0
    assert contents(here / "kept") == before
    other = evaluate(
        *COUNT, "--rows", "chosen", "--metrics", "accuracy", "--keep", "kept", "--seed", "5", "--remeasure"
    )
    assert other.exit_code == 3
    assert "holds the pictures of another job (manifest.jsonl): seed was 1, is 5" in other.stderr
    assert "--keep them in another folder" in other.stderr
    assert contents(here / "kept") == before


def test_another_job_in_the_way_is_told_before_anything_is_loaded(
    plan: Plan, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (*COUNT, "--rows", "0", "--metrics", "accuracy", "--keep", "kept")
    assert evaluate(*given).exit_code == 0

    def loading(*given: Any, **named: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("tstitch_cli.denoisers.load", loading)
    refused = evaluate(*given, "--seed", "5", "--remeasure")
    assert refused.exit_code == 3
    assert "seed was 1, is 5" in refused.stderr
    assert "hint: --keep them in another folder" in refused.stderr


def test_what_is_kept_is_a_job_that_sample_goes_on_with(here: Path) -> None:
    documents.write_plan(plan_of(batch_size=10), here / "plan.yaml", overwrite=False)
    given = (*COUNT, "--rows", "2", "--metrics", "accuracy", "--batch-size", "10", "--keep", "kept")
    for number in (1, 2):
        shared = evaluate(*given, "--shard", f"{number}/2")
        assert shared.exit_code == 0, shared.output
    assert len(list((here / "kept/row-002").glob("manifest-*-of-2.jsonl"))) == 2
    result = evaluate(*given)
    assert result.exit_code == 0, result.output
    assert "no picture had to be drawn" in " ".join(result.stderr.split())
    kept = contents(here / "kept/row-002")
    assert sorted(kept) == [*(f"{index:06d}.png" for index in range(20)), "manifest.jsonl"]
    (here / "classes.txt").write_text("".join(f"{index % 10}\n" for index in range(20)))
    drawing = ("sample", "--row", "2", "--prompts-file", "classes.txt", "--seed", "1", "--allow-stale", "--out")
    for folder in ("kept/row-002", "alone"):
        drawn = CliRunner().invoke(app, [*drawing, folder])
        assert drawn.exit_code == 0, drawn.output
        assert contents(here / folder) == kept


@pytest.mark.parametrize("way", ["unlisted", "changed", "broken line", "no JSON", "unknown", "in use"])
def test_what_is_in_the_way_of_kept_pictures_is_told_without_options_of_other_commands(
    plan: Plan, here: Path, way: str
) -> None:
    given = (*COUNT, "--rows", "0", "--metrics", "accuracy", "--batch-size", "10", "--keep", "kept")
    folder = here / "kept/row-000"
    assert evaluate(*given).exit_code == 0
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    if way == "unlisted":
        manifest.write_bytes(b"".join(lines[:11]))
    if way in ("unlisted", "changed"):
        (folder / "000015.png").write_bytes(b"mine")
    if way in ("broken line", "no JSON"):
        manifest.write_bytes(b"".join(lines) + (b"{}\n" if way == "broken line" else b"\0\n"))
    if way == "unknown":
        manifest.unlink()
    before = contents(here / "kept")
    with held(folder / ".manifest.jsonl.lock", wait_s=0.0, taken="") if way == "in use" else nullcontext():
        refused = evaluate(*given)
    assert refused.exit_code == 3
    assert "--o" not in refused.stderr
    advice = "wait until it has ended" if way == "in use" else "--keep them in another folder"
    assert f"hint: {advice}" in refused.stderr
    assert contents(here / "kept") == before


def test_a_row_that_a_killed_share_left_is_gone_on_with(plan: Plan, here: Path) -> None:
    given = (*COUNT, "--rows", "0", "--metrics", "accuracy", "--batch-size", "5", "--keep")
    assert evaluate(*given, "whole").exit_code == 0
    assert evaluate(*given, "kept", "--shard", "1/2").exit_code == 0
    share = here / "kept/row-000/manifest-1-of-2.jsonl"
    share.write_bytes(b"".join(share.read_bytes().splitlines(keepends=True)[:6]))
    assert evaluate(*given, "kept").exit_code == 0
    assert contents(here / "kept") == contents(here / "whole")


def test_what_killed_processes_had_begun_to_write_is_taken_away(plan: Plan, here: Path) -> None:
    given = (*COUNT, "--rows", "0", "--metrics", "accuracy", "--keep", "kept")
    assert evaluate(*given).exit_code == 0
    whole = contents(here)
    (record,) = (here / "work").glob("*.npz")
    record.rename(here / "work" / f".{record.name}.01234567.tmp")
    (here / "work/.another.npz.01234567.tmp").write_bytes(b"of another, which may be at it")
    (here / "kept/row-000/.000003.png.01234567.tmp").write_bytes(b"half")
    (here / ".plan.yaml.01234567.tmp").write_bytes(b"half")
    assert evaluate(*given).exit_code == 0
    (here / "work/.another.npz.01234567.tmp").unlink()
    assert contents(here) == whole


def test_a_reference_of_ones_own_pictures(plan: Plan, here: Path) -> None:
    assert evaluate(*COUNT, "--rows", "4", "--metrics", "fid", "--keep", "kept").exit_code == 0
    other = evaluate(*COUNT, "--rows", "4", "--reference", "kept/row-004")
    assert other.exit_code == 0, other.output
    measured = documents.read_plan(here / "plan.yaml").rows[4].measured
    # Against themselves, pictures are no distance away, and all lie among each other.
    assert measured["fid"].value == pytest.approx(0.0, abs=1e-3)
    assert (measured["precision"].value, measured["recall"].value) == (1.0, 1.0)


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_numbers(plan: Plan, here: Path) -> None:
    given = ("--count", "40", "--batch-size", "20", "--rows", "0,1,3")
    assert evaluate(*given, "--work", "whole").exit_code == 0
    whole = documents.read_plan(here / "plan.yaml")
    documents.write_plan(plan, here / "plan.yaml", overwrite=True)
    untouched = (here / "plan.yaml").read_bytes()
    command = [sys.executable, "-m", "tstitch_cli.app", "evaluate", *given, "--work", "cut"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((here / "cut").glob("*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (here / "plan.yaml").read_bytes() == untouched
    finished = len(list((here / "cut").glob("*.npz")))
    again = evaluate(*given, "--work", "cut")
    assert again.exit_code == 0, again.output
    assert f"{(6 - finished) * 20} pictures drawn" in again.stderr
    assert documents.read_plan(here / "plan.yaml") == whole


def test_interrupted_it_says_how_to_go_on(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from tstitch_cli.quality.drawing import Drawing

    def interrupted(self: Drawing) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Drawing, "draw", interrupted)
    monkeypatch.setattr(sys, "argv", ["tstitch", "evaluate", "--plan", "my plan.yaml"])
    result = evaluate(*COUNT)
    assert result.exit_code == 130
    assert "kept in work" in result.stderr
    assert "tstitch evaluate --plan 'my plan.yaml'" in result.stderr


@pytest.mark.parametrize(
    ("finished", "error", "status"),
    [
        (0, DeviceError("cpu ran out of memory", hint="close something"), ExitStatus.DEVICE),
        (1, DeviceError("cpu ran out of memory", hint="close something"), ExitStatus.PARTIAL),
        (1, OSError(28, "No space left on device"), ExitStatus.PARTIAL),
        (2, BadFileError("plan.yaml: cannot be read"), ExitStatus.PARTIAL),
    ],
)
def test_a_failure_half_way_says_what_stays_and_how_to_go_on(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, finished: int, error: Exception, status: ExitStatus
) -> None:
    from tstitch_cli import evaluate as stage
    from tstitch_cli.quality.drawing import Drawing

    running, left = Drawing._run, finished
    given = (*COUNT, "--rows", "0,1", "--metrics", "accuracy")

    def fail(*_: object) -> Any:
        raise error

    def until_then(self: Drawing, batch: Any, name: str, prefixes: Any) -> Any:
        nonlocal left
        left -= 1
        return running(self, batch, name, prefixes) if left >= 0 else fail()

    monkeypatch.setattr(sys, "argv", ["tstitch", "evaluate", "--plan", "my plan.yaml"])
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "_run", until_then)
        patch.setattr(stage, "_measure", fail)
        result = evaluate(*given)
    assert result.exit_code == status, result.output
    said = " ".join(result.stderr.split())
    assert ("what was found out so far is kept in work" in said) == (status == ExitStatus.PARTIAL)
    assert ("go on with: tstitch evaluate --plan 'my plan.yaml'" in said) == (status == ExitStatus.PARTIAL)
    again = evaluate(*given)
    assert again.exit_code == 0, again.output
    fresh = 20 * (2 - finished)
    assert (f"{fresh} pictures drawn" if fresh else "no picture had to be drawn") in again.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_finishes_the_batch(
    plan: Plan, here: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    from tstitch_cli.quality.drawing import Drawing

    running, begun = Drawing._run, list[str]()
    given = ("--count", "40", "--batch-size", "20", "--rows", "0,1", "--metrics", "accuracy")

    def asked(self: Drawing, batch: Any, name: str, prefixes: Any) -> Any:
        begun.append(name)
        os.kill(os.getpid(), by)
        return running(self, batch, name, prefixes)

    monkeypatch.setattr(sys, "argv", ["tstitch", "evaluate", "--plan", "my plan.yaml"])
    untouched = (here / "plan.yaml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "_run", asked)
        result = evaluate(*given)
    assert result.exit_code == 130
    assert "stopping when this batch is finished" in result.stderr
    assert "tstitch evaluate --plan 'my plan.yaml'" in result.stderr
    assert len(begun) == 1
    assert len(list((here / "work").glob("*.npz"))) == 1
    assert (here / "plan.yaml").read_bytes() == untouched
    assert "60 pictures drawn" in evaluate(*given).stderr


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("seed", '{"prompt": "3", "seed": 5}'),
        ("negative_prompt", '{"prompt": "3", "negative_prompt": ""}'),
        ("count", '{"prompt": "3", "count": 2}'),
    ],
)
def test_prompts_with_values_of_their_own_are_refused(plan: Plan, here: Path, name: str, line: str) -> None:
    (here / "prompts.jsonl").write_text(f'{{"prompt": "1"}}\n{line}\n')
    refused = evaluate(*COUNT, "--prompts-file", "prompts.jsonl")
    assert refused.exit_code == 2
    assert f"gives prompts a {name} of their own" in refused.stderr


def test_shares_draw_what_the_whole_then_measures(plan: Plan, here: Path) -> None:
    given = ("--count", "30", "--batch-size", "10", "--rows", "0,1", "--metrics", "accuracy")
    assert evaluate(*given, "--work", "alone").exit_code == 0
    whole = documents.read_plan(here / "plan.yaml")
    documents.write_plan(plan, here / "plan.yaml", overwrite=True)
    for number, drawn in ((1, 40), (2, 20)):
        share = evaluate(*given, "--shard", f"{number}/2")
        assert share.exit_code == 0, share.output
        assert f"share {number}/2: {drawn} pictures drawn" in share.stderr
        assert share.stdout == ""
    assert documents.read_plan(here / "plan.yaml") == plan
    last = evaluate(*given)
    assert last.exit_code == 0
    assert "pictures drawn" not in last.stderr
    assert documents.read_plan(here / "plan.yaml") == whole
    assert evaluate(*given, "--shard", "3/2").exit_code == 2


def test_a_plan_that_changed_meanwhile_is_not_written_over(
    plan: Plan, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tstitch_cli.quality.drawing import Drawing

    draw, other = Drawing.draw, replace(plan, objective="other")

    def meanwhile(self: Drawing) -> tuple[int, int, int]:
        documents.write_plan(other, here / "plan.yaml", overwrite=True)
        return draw(self)

    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "draw", meanwhile)
        result = evaluate(*COUNT, "--rows", "0", "--metrics", "accuracy")
    assert result.exit_code == 5
    assert "changed" in result.stderr
    assert documents.read_plan(here / "plan.yaml") == other
    assert "pictures drawn" not in evaluate(*COUNT, "--rows", "0", "--metrics", "accuracy").stderr


@pytest.mark.parametrize(
    ("given", "status", "what"),
    [
        (("--rows", "9"), 2, "rows are 0 to 4"),
        (("--rows", "best"), 2, "are no rows"),
        (("--rows", "2-1"), 2, "no rows 2-1"),
        (("--rows", "chosen,best"), 2, "are no rows"),
        (("--rows", "1" * 5000), 2, "are no rows"),
        (("--metrics", "fid,beauty"), 2, "'beauty' is no metric"),
        (("--metrics", "clip"), 2, "it takes a family that is drawn from prompts"),
        (("--features", "resnet"), 2, "no features called"),
        (("--features", "inception"), 3, "curl -fL"),
        (("--count", "7"), 2, "too few"),
        (("--reference", "nowhere"), 3, "no such file or folder"),
        (("--plan", "nowhere.yaml"), 3, "no such file"),
        (("--prompts-file", "words.txt"), 2, "no class"),
    ],
)
def test_what_cannot_be_is_refused(
    plan: Plan, here: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], status: int, what: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here / "torch"))
    (here / "words.txt").write_text("a unicorn\n")
    before = (here / "plan.yaml").read_bytes()
    result = evaluate(*COUNT, *given)
    assert result.exit_code == status, result.output
    assert what in result.stderr
    assert (here / "plan.yaml").read_bytes() == before


def test_plans_that_cannot_be_drawn_are_refused(plan: Plan, here: Path) -> None:
    assert plan.fingerprint is not None
    marks = plan.fingerprint
    others = {
        "random weights": replace(plan, fingerprint=replace(marks, weights=dict.fromkeys(NAMES, RANDOM_WEIGHTS))),
        "weights of fashion-s were": replace(
            plan, fingerprint=replace(marks, weights=marks.weights | {"fashion-s": "0" * 16})
        ),
        "only a name with a time": replace(
            plan, denoisers=tuple(replace(each, source="") for each in plan.denoisers), fingerprint=None
        ),
        "from pictures": replace(plan, setting=replace(plan.setting, inpaint=True)),
    }
    for what, other in others.items():
        documents.write_plan(other, here / "plan.yaml", overwrite=True)
        result = evaluate(*COUNT)
        assert result.exit_code in (2, 5), result.output
        assert what in result.stderr


def test_a_machine_of_another_kind_may_measure(plan: Plan, here: Path) -> None:
    assert plan.fingerprint is not None
    documents.write_plan(
        replace(plan, fingerprint=replace(plan.fingerprint, device="a laptop", torch="1.0")),
        here / "plan.yaml",
        overwrite=True,
    )
    assert evaluate(*COUNT, "--rows", "0", "--metrics", "accuracy").exit_code == 0


def test_inconsistent_measurements_are_no_plan(plan: Plan, here: Path) -> None:
    assert evaluate(*COUNT, "--rows", "0", "--metrics", "fid").exit_code == 0
    text = (here / "plan.yaml").read_text()
    for old, new, what in (
        ("fid:", "beauty:", "is no metric"),
        ("low: ", "low: 1000", "must lie within its interval"),
    ):
        (here / "plan.yaml").write_text(text.replace(old, new, 1))
        result = evaluate(*COUNT)
        assert result.exit_code == 3
        assert what in result.stderr
