"""What cannot be written is refused before the work begins."""

from __future__ import annotations

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
