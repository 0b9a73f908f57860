"""What a part is trained on: what was trained before it, else the package's, and never a mixture that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.garments import fashion_mnist_of_noise
from tstitch_cli.app import app
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.training import family, tiny_sd
from tstitch_cli.training.foundation import lay
from tstitch_cli.zoo.registry import BUNDLED

RESTS_ON = {"judge": (), "coder": ("judge",), "sharper": ("judge", "coder"), "net": ("sharper",), "small": ("net",)}


def place(out: Path, part: str) -> Path:
    return out / ("vae" if part in ("coder", "sharper") else part)


def made(folder: Path, *parts: str, by: str = "them") -> Path:
    """As training leaves it, with a file that belongs to no part."""
    for part in parts:
        place(folder, part).mkdir(parents=True, exist_ok=True)
        (place(folder, part) / "weights").write_text(f"{part} by {by}")
        (place(folder, part) / "training.yaml").write_text(f"name: {part}\nby: {by}\n")
    (folder / "index.json").write_text(by)
    return folder


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    return made(tmp_path / "bundled", "judge", "sharper", "net")


def laid(out: Path, bundled: Path, *parts: str) -> list[str]:
    return lay(parts, RESTS_ON, lambda part: place(out, part), out, bundled, {"net": ("encoder",)})


def test_an_empty_folder_gets_what_is_rested_on_and_no_more(tmp_path: Path, bundled: Path) -> None:
    out = tmp_path / "new" / "out"
    assert laid(out, bundled, "small") == ["net"]
    assert sorted(each.name for each in out.iterdir()) == ["index.json", "net"]
    assert (out / "net" / "weights").read_text() == "net by them"
    assert laid(out, bundled, "small") == []
    assert laid(out, bundled, "net") == ["sharper"]


def test_what_needs_nothing_or_is_trained_before_gets_nothing(tmp_path: Path, bundled: Path) -> None:
    assert laid(tmp_path / "out", bundled, "judge", "coder", "sharper", "net", "small") == []
    assert laid(tmp_path / "out", bundled, "judge", "coder", "net", "small") == []
    assert not (tmp_path / "out").exists()


def test_what_was_trained_stays(tmp_path: Path, bundled: Path) -> None:
    out = made(tmp_path / "out", "judge", "coder", "net", by="me")
    assert laid(out, bundled, "small") == []
    assert (out / "net" / "weights").read_text() == "net by me"


def test_the_packages_part_goes_with_its_own_foundation_alone(tmp_path: Path, bundled: Path) -> None:
    out = made(tmp_path / "out", "judge", "coder", by="me")
    with pytest.raises(UsageError, match=r"small rests on net.* the package's goes with its own vae and judge alone"):
        laid(out, bundled, "small")
    with pytest.raises(UsageError, match="net rests on sharper"):
        laid(tmp_path / "other", bundled, "judge", "net")
    assert not (out / "net").exists()
    # What is there because it was copied is the package's.
    copied = made(tmp_path / "copied", "judge", "sharper")
    assert laid(copied, bundled, "small") == ["net"]
    assert (copied / "index.json").read_text() == "them"


def test_what_a_part_is_made_with_comes_and_goes_with_it(tmp_path: Path, bundled: Path) -> None:
    (bundled / "encoder").mkdir()
    (bundled / "encoder" / "weights").write_text("them")
    out = made(tmp_path / "out", "judge", "sharper")
    (out / "encoder").mkdir()
    (out / "encoder" / "weights").write_text("me")
    assert laid(out, bundled, "net") == []
    (out / "work").mkdir()
    assert laid(out, bundled, "small") == ["net"]
    assert (out / "encoder" / "weights").read_text() == "them"


def test_the_packages_part_does_not_come_under_what_was_trained_on_another(tmp_path: Path, bundled: Path) -> None:
    out = made(tmp_path / "out", "small", by="me")
    with pytest.raises(UsageError, match="goes with its own small alone"):
        lay(["other"], RESTS_ON | {"other": ("net",)}, lambda part: place(out, part), out, bundled, {})


def test_what_does_not_come_with_the_package_has_to_be_trained(tmp_path: Path, bundled: Path) -> None:
    with pytest.raises(UsageError, match=r"sharper rests on coder, which is not in .*out$") as caught:
        laid(tmp_path / "out", bundled, "sharper")
    assert "train coder first" in str(caught.value.hint)


def test_another_familys_parts_are_no_foundation(tmp_path: Path, bundled: Path) -> None:
    made(tmp_path / "out", "judge")
    (tmp_path / "out" / "vae").mkdir()
    (tmp_path / "out" / "vae" / "training.yaml").write_text("name: somebody's\n")
    with pytest.raises(UsageError, match="vae is somebody's, of another family"):
        laid(tmp_path / "out", bundled, "net")


def test_two_families_do_not_go_into_one_folder(tmp_path: Path) -> None:
    data = str(fashion_mnist_of_noise(tmp_path / "data"))
    result = CliRunner().invoke(app, ["train", "fashion-s", "tiny-sd", "--out", str(tmp_path / "x"), "--data", data])
    assert result.exit_code == 2
    assert "these parts are of two families" in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_training_that_was_killed_is_no_foundation(tmp_path: Path, bundled: Path) -> None:
    half = tmp_path / "out" / "net"
    half.mkdir(parents=True)
    (half / "half").write_text("")
    # Not ours: nothing was begun here.
    with pytest.raises(BadFileError, match="net: is in the way"):
        laid(tmp_path / "out", bundled, "small")
    (tmp_path / "out" / "work").mkdir()
    assert laid(tmp_path / "out", bundled, "small") == ["net"]
    assert sorted(each.name for each in half.iterdir()) == ["training.yaml", "weights"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, bundled: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFileError, match="cannot be written"):
        laid(tmp_path / "file", bundled, "small")


@pytest.mark.parametrize(("kind", "folder"), [(family, "fashion"), (tiny_sd, "tiny-sd")])
def test_every_part_says_what_it_rests_on(kind: object, folder: str, tmp_path: Path) -> None:
    rests_on: dict[str, tuple[str, ...]] = kind.RESTS_ON  # type: ignore[attr-defined]
    assert rests_on.keys() == kind.SCHEDULES.keys()  # type: ignore[attr-defined]
    assert all(set(below) <= rests_on.keys() for below in rests_on.values())
    assert (BUNDLED / folder).is_dir()


def test_one_denoiser_is_trained_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(fashion_mnist_of_noise(tmp_path / "data"))
    result = CliRunner().invoke(app, ["train", "fashion-s", "--shorten", "0.0001", "--no-fast", "--data", data])
    assert result.exit_code == 0, result.output
    assert "took from the package what this rests on: autoencoder" in result.stderr
    assert (tmp_path / "fashion" / "fashion-s" / "training.yaml").is_file()
    assert (tmp_path / "fashion" / "model_index.json").is_file()
    assert not (tmp_path / "fashion" / "fashion-xl").exists()
