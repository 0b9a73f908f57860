"""A job on a real Ray cluster of two workers, which are killed while they draw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.jobs import command, contents, quick_plan
from tstitch_cli.app import app
from tstitch_cli.documents import write_plan
from tstitch_cli.errors import ExitStatus

ROOT = Path(__file__).parents[2]
JOB = ("--prompt", "bag", "--prompt", "coat", "--count", "30")
KILLS = 3


def workers(mark: str) -> list[int]:
    """The processes of Ray's workers of the run that has `mark` in its environment, but for idle ones."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::Worker") and mark.encode() in environment:
            found.append(int(process.name))
    return found


@pytest.fixture(autouse=True)
def _plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(quick_plan(), Path("plan.yaml"), overwrite=False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Ray's workers by /proc")
def test_workers_that_are_killed_are_replaced_and_the_folder_is_that_of_one_process() -> None:
    pytest.importorskip("ray")
    mark, out = f"TSTITCH_TEST_{uuid.uuid4().hex}", Path("out")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", mark: "1"}
    tstitch = [sys.executable, "-m", "tstitch_cli.app"]
    on_ray = [*tstitch, *command(Path("plan.yaml"), out, *JOB, "--engine", "ray", "--workers", "2")]
    with Path("said.txt").open("w") as said:
        run = subprocess.Popen(on_ray, env=environment, stdout=said, stderr=said, text=True)
        try:
            killed: list[int] = []
            drawn = 0
            while run.poll() is None:
                now = len(list(out.glob("*.png")))
                alive = [process for process in workers(mark) if process not in killed]
                if len(killed) < KILLS and now >= drawn + 4 and alive:
                    os.kill(alive[len(killed) % len(alive)], signal.SIGKILL)
                    killed.append(alive[len(killed) % len(alive)])
                    drawn = now
                time.sleep(0.02)
        finally:
            run.kill()
    text = Path("said.txt").read_text()
    assert run.returncode == 0, text
    assert len(killed) == KILLS
    assert text.count("a worker was lost and is replaced") == KILLS
    assert "Traceback" not in text
    assert workers(mark) == []
    alone = [*tstitch, *command(Path("plan.yaml"), Path("alone"), *JOB)]
    subprocess.run(alone, env=environment, capture_output=True, check=True)
    assert contents(out) == contents(Path("alone"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Ray's workers by /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_what_workers_have_and_one_process_goes_on(by: signal.Signals) -> None:
    pytest.importorskip("ray")
    mark, out = f"TSTITCH_TEST_{uuid.uuid4().hex}", Path("out")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", mark: "1"}
    tstitch = [sys.executable, "-m", "tstitch_cli.app"]
    on_ray = [*tstitch, *command(Path("plan.yaml"), out, *JOB, "--engine", "ray", "--workers", "2")]
    with Path("said.txt").open("w") as said:
        run = subprocess.Popen(on_ray, env=environment, stdout=said, stderr=said, text=True, start_new_session=True)
        try:
            while run.poll() is None and len(list(out.glob("*.png"))) < 2:
                time.sleep(0.02)
            # A terminal sends Ctrl-C to all of its processes, a scheduler SIGTERM to the one that it started.
            if by == signal.SIGINT:
                os.killpg(run.pid, by)
            else:
                run.send_signal(by)
            run.wait(timeout=120)
        finally:
            run.kill()
    text = Path("said.txt").read_text()
    assert run.returncode == ExitStatus.INTERRUPTED, text
    finished = len(list(out.glob("*.png")))
    assert f"interrupted: {finished} of 60 pictures are finished; go on with" in text
    assert "--engine ray" in text
    assert "Traceback" not in text
    assert workers(mark) == []
    assert 2 <= finished < 60
    for folder in (out, Path("alone")):
        alone = [*tstitch, *command(Path("plan.yaml"), folder, *JOB)]
        subprocess.run(alone, env=environment, capture_output=True, check=True)
    assert contents(out) == contents(Path("alone"))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--engine", "slurm"),
        ("--address", "auto"),
        ("--workers", "2"),
        ("--engine", "ray", "--sweep"),
        ("--engine", "ray", "--from", "x.png"),
    ],
)
def test_what_does_not_go_together(wrong: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, command(Path("plan.yaml"), Path("out"), "--prompt", "bag", *wrong))
    assert result.exit_code == ExitStatus.USAGE
    assert not Path("out").exists()


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(app, command(Path("plan.yaml"), Path("out"), "--prompt", "bag", "--engine", "ray"))
    assert result.exit_code == ExitStatus.USAGE
    assert ".[ray]" in result.output
