"""The place of finetuned denoisers in the user's zoo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.zoo import finetuned
from tstitch_cli.zoo.registry import Zoo
from tstitch_cli.zoo.standalone import zoo_file
from tstitch_cli.zoo.zoo_file import SCHEMA


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_names_tell_the_place_in_the_trajectory() -> None:
    whole = (("s", 10), ("b", 6), ("owner/xl", 4))
    assert finetuned.default_name("s", whole) == "s-early"
    assert finetuned.default_name("b", whole) == "b-middle"
    assert finetuned.default_name("owner/xl", whole) == "xl-late"
    assert finetuned.default_name("s", (("s", 20),)) == "s-finetuned"
    assert finetuned.default_name("s", (("s", 5), ("b", 5), ("s", 5))) == "s-finetuned"


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a b", "x" * 101])
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        finetuned.refuse_taken(name, {}, overwrite=True)


def test_what_is_not_finished_never_appears() -> None:
    def interrupted() -> None:
        with finetuned.appearing("x") as folder:
            (folder / "weights").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(finetuned.folder().iterdir()) == []
    with finetuned.appearing("x") as folder:
        (folder / "first").touch()
    with pytest.raises(BadFileError, match="cannot be written"), finetuned.appearing("x") as folder:
        raise OSError("no space left on device")
    assert [path.name for path in (finetuned.folder() / "x").iterdir()] == ["first"]
    with finetuned.appearing("x") as folder:
        (folder / "second").touch()
    assert [path.name for path in finetuned.folder().rglob("*")] == ["x", "second"]


@pytest.mark.parametrize("name", ["sd14", "dit-xl-256", "flux-dev", "fashion-b"])
def test_an_entry_of_its_own_is_as_its_base_in_all_else(name: str) -> None:
    base = Zoo.load().resolve(name)
    with finetuned.appearing("mine") as folder:
        documents.write(folder / "zoo.yaml", zoo_file(base, "mine", "Mine"), SCHEMA, overwrite=False)
    entry = Zoo.load().resolve("mine")
    assert entry.source == f"folder:{finetuned.folder() / 'mine'}"
    kept = ("component", "pipeline", "latent_space", "noise", "conditioning", "defaults", "parameters", "licence")
    for field in (*kept, "architecture", "components", "family"):
        assert getattr(entry, field) == getattr(base, field), field
    revision = f"@{base.revision}" if base.revision and base.parts == base.source else ""
    assert entry.parts == base.parts + revision


def test_the_users_own_entry_of_the_same_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Zoo.load().resolve("fashion-b")
    with finetuned.appearing("mine") as folder:
        documents.write(folder / "zoo.yaml", zoo_file(base, "mine", "Mine"), SCHEMA, overwrite=False)
    own = tmp_path / "own.yaml"
    own.write_text("schema: tstitch/zoo/1\ndenoisers:\n  mine: {family: fashion, source: 'folder:/elsewhere'}\n")
    monkeypatch.setenv("TSTITCH_ZOO", str(own))
    assert Zoo.load().entries["mine"].source == "folder:/elsewhere"
    with pytest.raises(UsageError, match="has a denoiser mine already"):
        finetuned.refuse_taken("mine", Zoo.load().entries, overwrite=True)
