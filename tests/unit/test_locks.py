"""Locks: one at a time though the file comes and goes, and nothing is written through a link."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs import locks


def test_one_at_a_time_though_the_file_comes_and_goes(tmp_path: Path) -> None:
    path, inside, most, faults = tmp_path / ".lock", 0, 0, []
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        try:
            for _ in range(25):
                with locks.held(path, wait_s=60, taken="taken"):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    threading.Event().wait(0.0002)
                    with counting:
                        inside -= 1
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert most == 1
    assert not path.exists()


def test_one_that_is_taken_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    told: list[str] = []

    def other() -> None:
        try:
            with locks.held(path, wait_s=0.0, taken="somebody draws here"):
                pass
        except BadFileError as error:
            told.append(error.message)

    with locks.held(path, wait_s=0.0, taken="never"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert told == ["somebody draws here"]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link(there: bool, tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / ".lock"
    if there:
        target.write_bytes(b"precious")
    path.symlink_to(target)
    with (
        pytest.raises(BadFileError, match=r"\.lock: is a link") as caught,
        locks.held(path, wait_s=0.0, taken="taken"),
    ):
        pytest.fail("it was taken")
    assert caught.value.hint == "remove it"
    assert path.is_symlink()
    assert target.read_bytes() == b"precious" if there else not target.exists()


def test_one_that_is_laid_after_the_look_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, path = tmp_path / "target", tmp_path / ".lock"
    target.write_bytes(b"precious")
    path.symlink_to(target)
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    with pytest.raises(BadFileError, match="is a link"), locks.held(path, wait_s=0.0, taken="taken"):
        pytest.fail("it was taken")
    assert target.read_bytes() == b"precious"
