"""Jobs of many pictures as they are typed: interrupted, gone on with, shared out, and never mixed up."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.jobs import NAMES, command, contents, quick_plan
from tests.toys import FakeClock, family
from tstitch_cli import provenance, sample
from tstitch_cli.app import app
from tstitch_cli.documents import write_plan
from tstitch_cli.errors import BadFileError, DeviceError, ExitStatus
from tstitch_cli.jobs.job import differences
from tstitch_cli.jobs.manifest import claimed
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request

ROOT = Path(__file__).parents[2]
JOB = ("--prompt", "bag", "--prompt", "coat", "--count", "4")
"""Four batches of two."""


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan in the current folder, and quick denoisers in the place of those it names."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    plan = quick_plan(size=16)
    write_plan(plan, Path("plan.yaml"), overwrite=False)
    toys = family(FakeClock(), dict.fromkeys(NAMES, 1.0), steps=plan.setting.steps)
    monkeypatch.setattr("tstitch_cli.sample.load", lambda *given, **named: toys)
    monkeypatch.setattr("sys.argv", ["tstitch", "sample", "--as", "it was typed"])


def tstitch(*arguments: str, out: str = "out") -> Result:
    return CliRunner().invoke(app, command(Path("plan.yaml"), Path(out), *arguments))


def said(result: Result) -> str:
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


def whole(*arguments: str) -> dict[str, bytes]:
    """What a folder holds when all was drawn in one go."""
    result = tstitch(*(arguments or JOB), out="whole")
    assert result.exit_code == 0, result.output
    return contents(Path("whole"))


def at_batch(number: int, what: Callable[[], None]) -> Callable[..., Iterator[Any]]:
    """`draw_each`, with `what` done when batch `number` is to be drawn."""
    drawing = sample.draw_each

    def each(family: Any, work: Any, batches: Any, **given: Any) -> Iterator[Any]:
        for count, batch in enumerate(batches, 1):
            if count == number:
                what()
            yield from drawing(family, work, [batch], **given)

    return each


@pytest.mark.parametrize("killed", ["sample", "evaluate"])
def test_killed_at_twenty_random_moments_it_ends_as_if_never(tmp_path: Path, killed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    kills = tmp_path / "kills"
    kills.mkdir()
    given = [sys.executable, "-m", "tests.killing", killed, str(kills), "20"]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "killed 20 times" in done.stdout
    assert "half written" in done.stdout
    assert contents(kills / "killed") == contents(kills / "whole")


def test_a_finished_folder_is_complete_and_is_left_alone() -> None:
    whole()
    before = {path: path.stat().st_mtime_ns for path in Path("whole").iterdir()}
    result = tstitch(*JOB, out="whole")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "complete: 8 pictures" in said(result)
    assert {path: path.stat().st_mtime_ns for path in Path("whole").iterdir()} == before


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("--prompt", "bag", "--count", "8"), r"prompts was [0-9a-f]{8}\.\.\., is [0-9a-f]{8}\.\.\."),
        ((*JOB, "--seed", "7"), "seed was 0, is 7"),
        ((*JOB, "--row", "0"), "allocation was"),
        (("--prompt", "bag"), "pictures was 8, is 1"),
        ((*JOB, "--shard", "1/2"), "shards was 1, is 2"),
    ],
)
def test_another_job_in_the_folder_is_refused_by_what_differs(other: tuple[str, ...], named: str) -> None:
    before = whole()
    for more in ((), ("--dry-run",)):
        refused = tstitch(*other, *more, out="whole")
        assert refused.exit_code == ExitStatus.BAD_FILE
        assert re.search(named, said(refused))
    assert contents(Path("whole")) == before
    assert tstitch(*other, "--overwrite", out="whole").exit_code == 0
    assert tstitch(*other, out="new").exit_code == 0
    assert contents(Path("whole")) == contents(Path("new"))


def test_a_job_that_is_given_up_takes_its_pictures_along_and_nothing_else() -> None:
    assert tstitch(*JOB, "--shard", "1/2").exit_code == 0
    assert tstitch(*JOB, "--shard", "2/2").exit_code == 0
    mine = {"mine.txt": b"mine", "000100.png": b"mine"}
    for name, content in mine.items():
        Path("out", name).write_bytes(content)
    Path("outside.png").write_bytes(b"precious")
    with Path("out/manifest-1-of-2.jsonl").open("a") as file:
        for listed in ("../outside.png", str(Path("outside.png").absolute()), "mine.txt", 7):
            file.write(json.dumps({"file": listed, "index": 0, "sha256": "0" * 64}) + "\n")
        file.write("no JSON\n[]\n")
    Path("out/000007.png").unlink()
    Path("out/000007.png").symlink_to("../outside.png")
    result = tstitch("--prompt", "coat", "--count", "2", "--overwrite")
    assert result.exit_code == 0, result.output
    assert tstitch("--prompt", "coat", "--count", "2", out="new").exit_code == 0
    assert contents(Path("out")) == mine | contents(Path("new"))
    assert Path("outside.png").read_bytes() == b"precious"


def test_the_contact_sheet_of_a_job_that_is_given_up_goes_too() -> None:
    assert tstitch(*JOB, "--grid").exit_code == 0
    assert tstitch("--prompt", "coat", "--overwrite").exit_code == 0
    assert sorted(contents(Path("out"))) == ["000000.png", "manifest.jsonl"]


@pytest.mark.parametrize("damage", ["cut short", "another picture", "a link"])
def test_a_picture_that_was_changed_is_found_and_drawn_again_where_that_is_allowed(damage: str) -> None:
    before = whole()
    path = Path("whole/000003.png")
    content = {"cut short": before[path.name][:100], "another picture": before["000004.png"]}.get(damage)
    path.unlink()
    if content is None:
        path.symlink_to("000002.png")
    else:
        path.write_bytes(content)
    refused = tstitch(*JOB, out="whole")
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert "changed since they were drawn: 000003.png" in said(refused)
    if content is None:
        assert "not written through links" in said(tstitch(*JOB, "--overwrite", out="whole"))
        path.unlink()
    assert tstitch(*JOB, "--overwrite", out="whole").exit_code == 0
    assert contents(Path("whole")) == before


def test_of_a_batch_with_a_missing_picture_the_others_are_left() -> None:
    before = whole()
    Path("whole/000003.png").unlink()
    stamp = Path("whole/000002.png").stat().st_mtime_ns
    result = tstitch(*JOB, out="whole")
    assert result.exit_code == 0
    assert "7 were there" in said(result)
    assert contents(Path("whole")) == before
    assert Path("whole/000002.png").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("hostile", [{"a" * 10**6: 1}, {"a": "b" * 10**6}, {"a": {"b" * 10**5: {"c" * 10**5: 1}}}])
def test_what_a_hostile_manifest_says_is_told_in_short(hostile: dict[str, Any]) -> None:
    Path("out").mkdir()
    Path("out/manifest.jsonl").write_text(json.dumps({"schema": "tstitch/manifest/1", "job": hostile}) + "\n")
    refused = tstitch(*JOB)
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert "holds the pictures of another job" in said(refused)
    assert len(said(refused)) < 2000


def test_a_job_that_is_nested_without_end_is_no_job() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(BadFileError, match="nested too deeply"):
        differences(deep, {"a": 1})


@pytest.mark.parametrize("manifest", [b"not JSON\n", b'{"schema":"tstitch/manifest/1","job":[]}\n', b"\xff\n"])
def test_what_is_no_manifest_is_refused(manifest: bytes) -> None:
    Path("out").mkdir()
    Path("out/manifest.jsonl").write_bytes(manifest)
    refused = tstitch(*JOB)
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert "manifest.jsonl:1" in said(refused)
    assert tstitch(*JOB, "--overwrite").exit_code == 0
    assert contents(Path("out")) == whole()


@pytest.mark.parametrize("more", [b'{"file":"../x.png","index":0,"sha256":"' + b"0" * 64 + b'"}\n', b"{}\n", b"\0\0\n"])
def test_a_line_that_is_not_about_a_picture_of_the_job_is_refused(more: bytes) -> None:
    before = whole()
    Path("whole/manifest.jsonl").write_bytes(before["manifest.jsonl"] + more)
    refused = tstitch(*JOB, out="whole")
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert "manifest.jsonl:10" in said(refused)
    assert tstitch(*JOB, "--overwrite", out="whole").exit_code == 0
    assert contents(Path("whole")) == before


def test_what_a_killed_process_left_is_mended() -> None:
    before = whole()
    lines = before["manifest.jsonl"].splitlines(keepends=True)
    Path("whole/manifest.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:30])
    Path("whole/000007.png").unlink()
    halves = (".000007.png.01234567.tmp", ".manifest.jsonl.89abcdef.tmp", ".grid.png.01234567.tmp")
    for left in (*halves, ".manifest.jsonl.lock", ".manifest.lock"):
        Path("whole", left).write_bytes(before["000007.png"][:50] if left.endswith("tmp") else b"")
    assert tstitch(*JOB, out="whole").exit_code == 0
    assert contents(Path("whole")) == before


def test_files_that_a_power_loss_left_empty_are_as_good_as_missing() -> None:
    before = whole()
    for names in (["000003.png"], ["000003.png", "manifest.jsonl"]):
        for name in [*before] if "manifest.jsonl" in names else names:
            Path("whole", name).write_bytes(b"")
        for more in (("--dry-run",), ()):
            result = tstitch(*JOB, *more, out="whole")
            assert result.exit_code == 0, result.output
        assert contents(Path("whole")) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds out by /proc what is synced")
def test_pictures_are_on_the_disk_before_their_lines_and_those_before_the_next_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the disk was told to keep, in its order: a power loss keeps some beginning of it."""
    kept, syncing, replacing = list[str](), os.fsync, os.replace

    def synced(number: int) -> None:
        syncing(number)
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        kept.append("new manifest" if path.suffix == ".tmp" else path.name)

    def moved(source: Path, target: Path) -> None:
        replacing(source, target)
        kept.append(f"at {Path(target).name}")

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", moved)
    assert tstitch("--prompt", "bag", "--count", "3").exit_code == 0
    begun = kept.index("at 000000.png")
    assert kept[:begun] == ["new manifest", "at manifest.jsonl", "out", Path.cwd().name]
    assert kept[begun : begun + 2] == ["at 000000.png", "at 000001.png"]
    assert sorted(kept[begun + 2 : begun + 4]) == ["000000.png", "000001.png"]
    assert kept[begun + 4 :] == ["out", "manifest.jsonl", "at 000002.png", "000002.png", "out", "manifest.jsonl"]


def test_pictures_that_nobody_knows_are_not_replaced() -> None:
    Path("out").mkdir()
    Path("out/000005.png").write_bytes(b"mine")
    assert "000005.png: exists already" in said(tstitch(*JOB))
    assert contents(Path("out")) == {"000005.png": b"mine"}
    assert tstitch(*JOB, "--overwrite").exit_code == 0
    assert contents(Path("out")) == whole()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_finishes_the_batch(monkeypatch: pytest.MonkeyPatch, by: signal.Signals) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr("tstitch_cli.sample.draw_each", at_batch(2, lambda: os.kill(os.getpid(), by)))
    result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert "4 of 8 pictures are finished; go on with tstitch sample --as 'it was typed'" in said(result)
    assert sorted(contents(Path("out"))) == [*(f"{i:06d}.png" for i in range(4)), "manifest.jsonl"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    expected = whole()
    with monkeypatch.context() as patch:
        patch.setattr("tstitch_cli.sample.draw_each", at_batch(2, twice))
        result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert "2 of 8 pictures are finished" in said(result)
    assert sorted(contents(Path("out"))) == ["000000.png", "000001.png", "manifest.jsonl"]
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == expected


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("where", "so_far"),
    [
        ("tstitch_cli.sample.entries_of", "interrupted"),
        ("tstitch_cli.sample.load", "interrupted: 0 of 8 pictures are finished"),
    ],
)
def test_ctrl_c_before_anything_is_drawn_stops_at_once_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, by: signal.Signals, where: str, so_far: str
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def asked(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), by)
        raise AssertionError("it went on")

    expected = whole()
    with monkeypatch.context() as patch:
        patch.setattr(where, asked)
        result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert f"{so_far}; go on with tstitch sample --as 'it was typed'" in said(result)
    assert not Path("out").exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == expected


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("given", "where"),
    [
        (command(Path("plan.yaml"), Path("out"), "--prompt", "bag", "--sweep"), "tstitch_cli.sample.sweep"),
        (["profile", "fashion-s", "fashion-xl", "--out", "out"], "tstitch_cli.denoisers.load"),
    ],
    ids=["sweep", "profile"],
)
def test_what_has_no_batches_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, by: signal.Signals, given: list[str], where: str
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(where, lambda *given, **named: os.kill(os.getpid(), by))
    result = CliRunner().invoke(app, given)
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert said(result).endswith("interrupted")
    assert not Path("out").exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_what_the_machine_cannot_after_pictures_were_finished(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("tstitch_cli.sample.draw_each", at_batch(2, fail))
    result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.PARTIAL
    assert "2 of 8 pictures are finished" in said(result)
    assert "then go on with: tstitch sample --as 'it was typed'" in said(result)


@pytest.mark.parametrize(("batch", "status"), [(1, ExitStatus.DEVICE), (3, ExitStatus.PARTIAL)])
def test_out_of_memory_at_a_batch(monkeypatch: pytest.MonkeyPatch, batch: int, status: ExitStatus) -> None:
    def fail() -> None:
        raise DeviceError("cpu ran out of memory", hint="close something")

    expected = whole()
    with monkeypatch.context() as patch:
        patch.setattr("tstitch_cli.sample.draw_each", at_batch(batch, fail))
        result = tstitch(*JOB)
    assert result.exit_code == status
    assert "cpu ran out of memory" in said(result)
    if status == ExitStatus.PARTIAL:
        assert "4 of 8 pictures are finished" in said(result)
        assert "close something; then go on with: tstitch sample" in said(result)
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == expected


def test_a_full_disk_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, replacing, count = whole(), os.replace, 0

    def full(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count > 6:  # the manifest and five pictures
            raise OSError(28, "No space left on device")
        replacing(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.PARTIAL
    assert "No space left on device; 4 of 8 pictures are finished" in said(result)
    assert not [name for name in contents(Path("out")) if name.endswith(".tmp")]
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == expected


@pytest.mark.parametrize(("batches", "calls"), [(12, 10), (4, 4)])
def test_that_a_machine_is_faster_or_slower_is_told_once_and_by_the_tenth_call(batches: int, calls: int) -> None:
    told = said(tstitch("--prompt", "bag", "--count", str(2 * batches)))
    warning = f"the first {calls} calls took"
    assert told.count("calls took") == 1
    paths = [told.index(f"out/{index:06d}.png") for index in range(2 * batches)]
    earlier = 2 * (calls - 1)
    assert paths[earlier - 1] < told.index(warning)
    assert not paths[2 * calls :] or told.index(warning) < paths[2 * calls]


def test_a_folder_that_is_taken_away_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tstitch_cli.sample.draw_each", at_batch(3, lambda: os.rename("out", "away")))
    result = tstitch(*JOB)
    assert result.exit_code == ExitStatus.PARTIAL
    assert "manifest.jsonl: was removed while its pictures were drawn" in said(result)
    assert not Path("out").exists()
    assert len(list(Path("away").glob("*.png"))) == 4


def test_two_at_once_in_one_folder() -> None:
    plan = quick_plan(size=16)
    work = sample.work_of(plan, plan.rows[plan.chosen])
    order = sample.Order(work, tuple(sample.entries_of(plan.denoisers)))
    identity = sample.identify(plan, order, allow_stale=True)
    request = Request((Prompt("bag"), Prompt("coat")), Path("out"), count=4)
    with claimed(sample.job(work, request, identity), request):
        for more in ((), ("--overwrite",)):
            refused = tstitch(*JOB, *more)
            assert refused.exit_code == ExitStatus.BAD_FILE
            assert "another tstitch is drawing" in said(refused)
        assert tstitch("--prompt", "bag", "--overwrite").exit_code == ExitStatus.BAD_FILE
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == whole()


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_shards_draw_what_one_process_draws(shards: int) -> None:
    pictures = {name: content for name, content in whole().items() if name.endswith(".png")}
    for number in range(1, shards + 1):
        given = () if number == 2 else ("--shard", f"{number}/{shards}")
        ranked = {"RANK": "1", "WORLD_SIZE": str(shards)} if number == 2 else {"RANK": "0", "WORLD_SIZE": "9"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ranked.items():
                patch.setenv(name, value)  # which an explicit --shard overrules
            result = tstitch(*JOB, *given)
        assert result.exit_code == 0, result.output
        assert f"drawing share {number}/{shards}" in said(result)
    found = contents(Path("out"))
    manifests = [f"manifest-{number}-of-{shards}.jsonl" for number in range(1, shards + 1)]
    lines = sorted(line for name in manifests for line in found.pop(name).splitlines()[1:])
    assert found == pictures
    assert lines == Path("whole/manifest.jsonl").read_bytes().splitlines()[1:]
    # The whole job takes over what its shares have drawn, draws nothing, and lays the sheet that a share has not.
    result = tstitch(*JOB, "--grid")
    assert result.exit_code == 0, result.output
    assert "complete: 8 pictures" in said(result)
    assert contents(Path("out")) == whole(*JOB, "--grid")


def test_a_whole_job_draws_what_its_shares_have_not() -> None:
    expected = whole()
    assert tstitch(*JOB, "--shard", "2/3").exit_code == 0
    drawn = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert len(drawn) == 2
    assert tstitch(*JOB).exit_code == 0
    assert contents(Path("out")) == expected
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    refused = tstitch(*JOB, "--shard", "1/3")
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert "shards was 1, is 3" in said(refused)


@pytest.mark.parametrize("damage", ["a picture", "a line"])
def test_what_shares_left_damaged_is_told_and_drawn_again_where_that_is_allowed(damage: str) -> None:
    expected = whole()
    for number in (1, 2):
        assert tstitch(*JOB, "--shard", f"{number}/2").exit_code == 0
    if damage == "a picture":
        Path("out/000003.png").write_bytes(b"another")
    else:
        with Path("out/manifest-1-of-2.jsonl").open("a") as file:
            file.write('{"file": "../outside.png"}\n')
    before = contents(Path("out"))
    refused = tstitch(*JOB)
    assert refused.exit_code == ExitStatus.BAD_FILE
    assert ("000003.png" if damage == "a picture" else "manifest-1-of-2.jsonl:6") in said(refused)
    assert {name: content for name, content in contents(Path("out")).items() if name.endswith(".png")} == {
        name: content for name, content in before.items() if name.endswith(".png")
    }
    assert tstitch(*JOB, "--overwrite").exit_code == 0
    assert contents(Path("out")) == expected


def test_a_whole_job_goes_on_with_what_a_killed_share_left() -> None:
    """A batch that is drawn and not yet listed, and what was half written."""
    expected = whole()
    assert tstitch(*JOB, "--shard", "1/2").exit_code == 0
    share = Path("out/manifest-1-of-2.jsonl")
    share.write_bytes(b"".join(share.read_bytes().splitlines(keepends=True)[:3]))
    for left in (".000004.png.01234567.tmp", f".{share.name}.89abcdef.tmp", f".{share.name}.lock", ".manifest.lock"):
        Path("out", left).write_bytes(b"half" if left.endswith("tmp") else b"")
    assert tstitch(*JOB, "--dry-run").exit_code == 0
    result = tstitch(*JOB)
    assert result.exit_code == 0, result.output
    assert contents(Path("out")) == expected


def test_another_picture_among_those_of_shares_is_not_replaced() -> None:
    expected = whole()
    assert tstitch(*JOB, "--shard", "1/2").exit_code == 0
    Path("out/000002.png").write_bytes(b"mine")
    refused = tstitch(*JOB)
    assert refused.exit_code == ExitStatus.PARTIAL
    assert "000002.png: exists already, and is not the picture that this job draws" in said(refused)
    assert Path("out/000002.png").read_bytes() == b"mine"
    assert tstitch(*JOB, "--overwrite").exit_code == 0
    assert contents(Path("out")) == expected


def test_more_shares_than_files_may_be_open_are_taken_over() -> None:
    for number in range(1, 13):
        assert tstitch("--prompt", "bag", "--count", "24", "--shard", f"{number}/12").exit_code == 0
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, before[1]))
    try:
        result = tstitch("--prompt", "bag", "--count", "24")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert result.exit_code == 0, result.output
    assert contents(Path("out")) == whole("--prompt", "bag", "--count", "24")


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest-1-of-2.jsonl"])
def test_a_manifest_that_leads_elsewhere_is_neither_read_nor_written(kind: str, name: str) -> None:
    assert tstitch(*JOB, *(("--shard", "1/2") if "-of-" in name else ())).exit_code == 0
    path = Path("out", name)
    torn = path.read_bytes() + b"torn"
    path.rename("outside")
    Path("outside").write_bytes(torn)
    path.symlink_to("../outside") if kind == "a link" else os.mkfifo(path)
    for more in ((), ("--overwrite",)):
        refused = tstitch(*JOB, *more)
        assert refused.exit_code == ExitStatus.BAD_FILE
        assert f"{name}: is" in said(refused)
    assert Path("outside").read_bytes() == torn
    path.unlink()
    Path("outside").rename(path)
    assert tstitch(*JOB).exit_code == 0


def test_a_share_that_is_drawn_at_this_moment_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    others = list[Result]()
    with monkeypatch.context() as patch:
        patch.setattr("tstitch_cli.sample.draw_each", at_batch(2, lambda: others.append(tstitch(*JOB))))
        assert tstitch(*JOB, "--shard", "1/2").exit_code == 0
    assert others[0].exit_code == ExitStatus.BAD_FILE
    assert "another tstitch is drawing" in said(others[0])
    assert sorted(name for name in contents(Path("out")) if "manifest" in name) == ["manifest-1-of-2.jsonl"]
    assert tstitch(*JOB).exit_code == 0


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_share(shard: str) -> None:
    assert tstitch(*JOB, f"--shard={shard}").exit_code == ExitStatus.USAGE


@pytest.mark.parametrize("more", [("--grid",), ("--sweep",)])
def test_a_shard_has_no_sheet(more: tuple[str, ...]) -> None:
    assert tstitch("--prompt", "bag", "--shard", "1/2", *more).exit_code == ExitStatus.USAGE


@pytest.mark.parametrize("sheet", ["--grid", "--sweep"])
def test_a_sheet_under_a_launcher_is_refused_by_the_variables_that_it_set(
    monkeypatch: pytest.MonkeyPatch, sheet: str
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = tstitch("--prompt", "bag", sheet)
    assert refused.exit_code == ExitStatus.USAGE
    assert "RANK and WORLD_SIZE make this process number 2 of 2" in said(refused)
    assert "--shard" not in said(refused)


def test_a_share_without_pictures_says_so() -> None:
    result = tstitch("--prompt", "bag", "--shard", "9/9")
    assert result.exit_code == 0
    assert "share 9/9 has no pictures" in said(result)
    assert "complete" not in said(result)


def test_a_launcher_that_says_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "RANK=2 and WORLD_SIZE=2" in said(tstitch(*JOB))


def test_a_sheet_of_pictures_that_were_there() -> None:
    assert tstitch(*JOB, "--grid", out="whole").exit_code == 0
    assert tstitch(*JOB).exit_code == 0
    assert tstitch(*JOB, "--grid").exit_code == 0
    assert contents(Path("out")) == contents(Path("whole"))


def test_a_sheet_of_other_pictures_is_not_taken_for_the_jobs() -> None:
    assert tstitch("--prompt", "coat", "--count", "8", "--grid", out="other").exit_code == 0
    assert tstitch(*JOB).exit_code == 0
    stale, right = Path("other/grid.png").read_bytes(), Path("out/grid.png")
    right.write_bytes(stale)
    refused = tstitch(*JOB, "--grid")
    assert refused.exit_code == ExitStatus.PARTIAL
    assert "out/grid.png: exists already, and is not the contact sheet of these pictures; 8 of 8" in said(refused)
    assert right.read_bytes() == stale
    assert tstitch(*JOB, "--grid", "--overwrite").exit_code == 0
    assert tstitch(*JOB, "--grid", out="whole").exit_code == 0
    assert contents(Path("out")) == contents(Path("whole"))


def test_a_sheet_opens_its_pictures_one_by_one_and_wraps_its_rows() -> None:
    given = ("--prompt", "bag", "--prompt", "coat", "--count", "40")
    assert tstitch(*given).exit_code == 0
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, before[1]))
    try:
        result = tstitch(*given, "--grid")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert result.exit_code == 0, result.output
    with Image.open("out/grid.png") as sheet:
        assert 16 * 96 < sheet.width < 18 * 96 + 200
        assert 6 * 96 < sheet.height < 7 * 110


def test_a_sheet_of_too_many_pictures_is_refused_before_they_are_drawn() -> None:
    refused = tstitch("--prompt", "bag", "--count", "501", "--grid")
    assert refused.exit_code == ExitStatus.USAGE
    assert "contact sheet of 501 pictures" in said(refused)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"prompt": "bag", "seed": 5}\n\n{"prompt": "coat", "count": 1, "negative_prompt": null}\n'),
        ("p.csv", '\ufeffseed,prompt,count\r\n5,"bag",\r\n,coat,1\r\n'),
    ],
)
def test_prompts_with_their_own_seeds_and_counts(name: str, text: str) -> None:
    Path(name).write_text(text)
    assert tstitch("--prompts-file", name, "--count", "2", "--seed", "3").exit_code == 0
    made = [provenance.read(path) for path in sorted(Path("out").glob("*.png"))]
    assert [(each.prompt, each.seed) for each in made] == [("bag", 5), ("bag", 5), ("coat", 3)]
    alone = tstitch("--prompt", "bag", "--count", "2", "--seed", "5", out="alone")
    assert alone.exit_code == 0
    pairs = [[Image.open(Path(folder, f"00000{i}.png")).tobytes() for i in (0, 1)] for folder in ("out", "alone")]
    assert pairs[0] == pairs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc-per-node", "2", "-m"),
        ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--module"),
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_a_launcher_shares_a_job_out(launcher: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    write_plan(quick_plan(), Path("plan.yaml"), overwrite=True)
    given = command(Path("plan.yaml"), Path("shared"), *JOB)
    launched = [sys.executable, "-m", *launcher, "tstitch_cli.app", *given]
    done = subprocess.run(launched, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "drawing share 1/2" in done.stderr
    assert "drawing share 2/2" in done.stderr
    alone = [sys.executable, "-m", "tstitch_cli.app", *command(Path("plan.yaml"), Path("alone"), *JOB)]
    subprocess.run(alone, env=environment, capture_output=True, check=True, timeout=280)
    pictures = [
        {name: content for name, content in contents(Path(folder)).items() if name.endswith(".png")}
        for folder in ("shared", "alone")
    ]
    assert len(pictures[0]) == 8
    assert pictures[0] == pictures[1]
