"""Real `tstitch sample` processes that meet each other, a full disk, or a reader that reads no further."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.jobs import command, contents, quick_plan
from tstitch_cli.documents import write_plan
from tstitch_cli.errors import ExitStatus

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
JOB = ("--prompt", "bag", "--count", "24")
"""Twelve batches of two."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plan.yaml, and in `whole` the job as one process draws it that nothing happens to."""
    folder = tmp_path_factory.mktemp("sampling")
    write_plan(quick_plan(), folder / "plan.yaml", overwrite=False)
    with started(folder, "whole") as process:
        said = process.communicate()
    assert process.returncode == 0, said
    return folder


@contextmanager
def started(folder: Path, out: str, stdout: int | IO[str] = subprocess.PIPE, **more: Any) -> Iterator[Any]:
    """A process that draws JOB into folder/out, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tstitch_cli.app", *command(Path("plan.yaml"), Path(out), *JOB)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def goes_on(folder: Path, out: str) -> None:
    """The same command again completes the job as if nothing had happened."""
    with started(folder, out) as process:
        said = process.communicate()
    assert process.returncode == 0, said
    assert contents(folder / out) == contents(folder / "whole")


def test_two_processes_with_one_folder(folder: Path) -> None:
    with started(folder, "both") as one, started(folder, "both") as other:
        said = [one.communicate(), other.communicate()]
    # Which of them comes first, and whether the other one comes while it draws or afterwards, is chance.
    ended = sorted(process.returncode for process in (one, other))
    assert ended in ([ExitStatus.OK, ExitStatus.BAD_FILE], [ExitStatus.OK, ExitStatus.OK]), said
    refused = "another tstitch is drawing" if ended[1] else "complete: 24 pictures"
    assert sum(refused in stderr for _, stderr in said) == 1
    assert sum(len(stdout.split()) for stdout, _ in said) == 24
    assert contents(folder / "both") == contents(folder / "whole")


def test_a_disk_that_fills_up(folder: Path) -> None:
    room = len(contents(folder / "whole")["manifest.jsonl"]) * 3 // 4
    assert room > max(len(content) for name, content in contents(folder / "whole").items() if name.endswith(".png"))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # noqa: E731
    with started(folder, "full", preexec_fn=limit) as process:
        _, stderr = process.communicate()
    assert process.returncode == ExitStatus.PARTIAL, stderr
    assert "manifest.jsonl: cannot be written: File too large" in stderr
    assert "free some space" in stderr
    assert "go on with: tstitch sample" in stderr
    assert 2 <= len(list((folder / "full").glob("*.png"))) < 24
    goes_on(folder, "full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_listing_that_finds_no_room(folder: Path) -> None:
    with Path("/dev/full").open("w") as nowhere, started(folder, "unlisted", nowhere) as process:
        _, stderr = process.communicate()
    assert process.returncode == ExitStatus.PARTIAL, stderr
    assert "No space left on device; 2 of 24 pictures are finished" in stderr
    assert "go on with: tstitch sample" in stderr
    assert "Exception" not in stderr
    goes_on(folder, "unlisted")


def test_a_listing_that_nobody_reads_on(folder: Path) -> None:
    with started(folder, "head") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "head/000000.png\n"
        process.stdout.close()
        stderr = process.stderr.read()
        process.wait()
    assert process.returncode == 0, stderr
    assert "drew 24" in stderr
    assert contents(folder / "head") == contents(folder / "whole")
