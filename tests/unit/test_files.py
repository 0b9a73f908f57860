"""What cannot be written is refused before the work begins."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tstitch_cli import files
from tstitch_cli.errors import BadFileError


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFileError, match="file is not a folder"):
        files.refuse_existing(tmp_path / "file" / "deep" / "x.yaml", overwrite=True)


def test_a_folder_that_is_yet_to_be_made_is_fine(tmp_path: Path) -> None:
    files.refuse_existing(tmp_path / "new" / "deep" / "x.yaml", overwrite=False)


def test_a_folder_that_may_not_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may change any
    with pytest.raises(BadFileError, match="may not be changed"):
        files.refuse_existing(tmp_path / "x.yaml", overwrite=False)


def test_nothing_is_left_when_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(BadFileError, match="No space left"):
        files.write(tmp_path / "x.yaml", b"x", overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_write_one_file_at_once_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "x.yaml"
    moving = files._move_to_free

    def late(temporary: Path, target: Path) -> None:
        target.write_bytes(b"theirs")  # after it was seen that nothing is there
        moving(temporary, target)

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refused)
        files.write(tmp_path / "free.yaml", b"ours", overwrite=False)
        assert (tmp_path / "free.yaml").read_bytes() == b"ours"
    monkeypatch.setattr("tstitch_cli.files._move_to_free", late)
    with pytest.raises(BadFileError, match="exists already"):
        files.write(path, b"ours", overwrite=False)
    assert path.read_bytes() == b"theirs"
    assert not [found for found in tmp_path.iterdir() if found.suffix == ".tmp"]


def test_what_a_killed_process_left_is_told_from_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    monkeypatch.setattr("os.replace", lambda source, target: left.append(Path(source).name))
    files.write(tmp_path / "000003.png", b"x", overwrite=True)
    assert [files.written_halfway(name) for name in left] == ["000003.png"]
    for name in ("000003.png", ".hidden.tmp", "a.b.12345678.tmp", ".000003.png.1234.tmp", ".000003.png.12345678"):
        assert files.written_halfway(name) is None


def test_too_many_open_files_are_no_matter_of_the_folder(tmp_path: Path) -> None:
    told = files.unwritable(tmp_path / "x.lock", OSError(errno.EMFILE, "Too many open files"))
    assert "Too many open files" in told.message
    assert "ulimit -n" in str(told.hint)
