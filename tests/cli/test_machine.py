"""Faults of the machine under a command: a full device behind the output, memory, a reader that went away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from tests.builders import measured, planned
from tstitch_cli import documents
from tstitch_cli.commands.edge import guarded
from tstitch_cli.errors import BadFileError, ExitStatus
from tstitch_cli.schema import PLAN_SCHEMA, PROFILE_SCHEMA

ROOT = Path(__file__).parents[2]


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and what was said where a command raises `error`."""

    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    return caught.value.exit_code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, ExitStatus.BAD_FILE),
        (errno.EROFS, ExitStatus.BAD_FILE),
        (errno.EACCES, ExitStatus.BAD_FILE),
        (errno.EIO, ExitStatus.BAD_FILE),
        (errno.EMFILE, ExitStatus.BAD_FILE),
        (errno.ENOMEM, ExitStatus.DEVICE),
    ],
)
def test_a_fault_of_the_machine_is_no_bug(number: int, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended(OSError(number, os.strerror(number), "/somewhere/x"), capsys)
    assert code == status
    assert "bug" not in said
    assert "hint: " in said
    assert "/somewhere/x" in said or status == ExitStatus.DEVICE


def test_memory_that_runs_out_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended(MemoryError(), capsys)
    assert (code, "ran out of memory" in said) == (ExitStatus.DEVICE, True)


def test_a_bug_says_where_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("heads do not divide")
    error.add_note("in step 4 of 6, which large takes")
    code, said = ended(error, capsys)
    assert code == ExitStatus.BUG
    assert "ValueError: heads do not divide, in step 4 of 6, which large takes" in said


def tstitch(arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        f"exec {sys.executable} -m tstitch_cli.app {arguments}",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["zoo --json", "zoo"])
def test_an_output_without_room(arguments: str) -> None:
    done = tstitch(f"{arguments} > /dev/full")
    assert done.returncode == ExitStatus.BAD_FILE
    assert "the output: No space left on device" in done.stderr


def test_a_reader_that_went_away() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "tstitch_cli.app", "zoo", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_a_terminal_that_has_not_every_character(tmp_path: Path) -> None:
    done = tstitch(f"show {tmp_path}/狐.png", PYTHONIOENCODING="ascii")
    assert done.returncode == ExitStatus.BAD_FILE
    assert "no such file" in done.stderr


DENOISERS = ", ".join(f"{{name: n{i}, source: '', revision: null}}" for i in range(5000))


@pytest.mark.parametrize(
    "text",
    [
        f"schema: {PLAN_SCHEMA}\n? {'a' * 1_000_000}\n: 1\n",
        f"schema: {PLAN_SCHEMA}\nrows: [{'a, ' * 100_000}]\n",
        f"schema: {PLAN_SCHEMA}\n" + "".join(f"k{i}: 1\n" for i in range(50_000)),
        f"schema: {PLAN_SCHEMA}\nobjective: {'b' * 1_000_000}\nchosen: {'9' * 1_000_000}\n",
        f"schema: {PLAN_SCHEMA}\ndenoisers: [{DENOISERS}]\n",
        f"schema: {PLAN_SCHEMA}\nfamily: &{'a' * 100_000} x\n",
        "{" * 1_000_000,
        "[" * 1_000_000,
        "- " * 500_000,
        "!" * 1_000_000,
    ],
    ids=["key", "list", "keys", "words", "denoisers", "anchor", "braces", "brackets", "dashes", "tags"],
)
def test_a_document_made_to_take_long_is_refused_soon_and_in_short(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    began = time.process_time()
    for read in (documents.read_plan, documents.read_profile):
        with pytest.raises(BadFileError) as caught:
            read(path)
        assert len(caught.value.message) < 10_000
    assert time.process_time() - began < 30.0


def test_names_in_an_otherwise_sound_document_are_bounded(tmp_path: Path) -> None:
    long, path = "s" * 501, tmp_path / "x.yaml"
    path.write_text(documents.render(measured(), PROFILE_SCHEMA).replace("small", long))
    with pytest.raises(BadFileError, match="longer than 500 characters"):
        documents.read_profile(path)
    path.write_text(documents.render(planned(), PLAN_SCHEMA).replace("name: small", f"name: {long}"))
    with pytest.raises(BadFileError, match="longer than 500 characters"):
        documents.read_plan(path)
