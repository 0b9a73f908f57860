"""Pictures carry their provenance, the same one always in the same bytes; sheets hold what they are given."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.test_provenance import MADE
from tstitch_cli import provenance
from tstitch_cli.errors import BadFileError
from tstitch_cli.images import contact_sheet, save_picture, save_sheet

RED = Image.new("RGB", (32, 32), (255, 0, 0))


def pixels(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(count for count, value in image.getcolors(1 << 24) or [] if value == colour)


@pytest.mark.parametrize(
    "prompt", ["ankle boot", "café", "犬とキツネ", "🦊 im Schnee", "two\nlines, and: a colon", "\x1b[31mred", ""]
)
def test_a_picture_reads_back_with_its_pixels(tmp_path: Path, prompt: str) -> None:
    made = replace(MADE, prompt=prompt, negative_prompt=prompt)
    save_picture(tmp_path / "a.png", RED, made, overwrite=False)
    assert provenance.read(tmp_path / "a.png") == made
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == provenance.parameters_text(made)
        assert image.info["parameters"].startswith(prompt)
        assert image.tobytes() == RED.tobytes()


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", RED, MADE, overwrite=False)
    save_picture(tmp_path / "b.png", RED.copy(), replace(MADE), overwrite=False)
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"tIME" not in first
    save_picture(tmp_path / "c.png", RED, replace(MADE, index=4), overwrite=False)
    assert first != (tmp_path / "c.png").read_bytes()


def test_existing_files_are_kept_unless_told_otherwise_and_links_always(tmp_path: Path) -> None:
    path, elsewhere, link = tmp_path / "a.png", tmp_path / "precious", tmp_path / "link.png"
    path.write_bytes(b"mine")
    elsewhere.write_bytes(b"precious")
    link.symlink_to(elsewhere)
    with pytest.raises(BadFileError, match="exists"):
        save_picture(path, RED, MADE, overwrite=False)
    assert path.read_bytes() == b"mine"
    save_picture(path, RED, MADE, overwrite=True)
    assert provenance.read(path) == MADE
    for overwrite in (False, True):
        with pytest.raises(BadFileError, match="link"):
            save_picture(link, RED, MADE, overwrite=overwrite)
    assert elsewhere.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["a.png", "link.png", "precious"]


def test_what_cannot_be_written_is_a_bad_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadFileError):
        save_picture(tmp_path / "file" / "a.png", RED, MADE, overwrite=False)
    assert os.listdir(tmp_path) == ["file"]


def test_small_pictures_are_enlarged_without_smoothing() -> None:
    checks = Image.new("RGB", (32, 32), (255, 0, 0))
    checks.paste((0, 0, 255), (16, 0, 32, 32))
    sheet = contact_sheet([[checks] * 3] * 2, [], [])
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert pixels(sheet, colour) == 6 * 96 * 48


def test_a_sheet_that_is_shown_smaller_has_all_larger() -> None:
    plain, twice = (contact_sheet([[RED] * 2], ["a fox"], ["0%", "50%"], ["1 s", "2 s"], "x", s) for s in (1, 2))
    assert pixels(twice, (255, 0, 0)) == 2 * 192 * 192
    assert twice.size == pytest.approx([2 * side for side in plain.size], abs=12)
    assert contact_sheet([[Image.new("RGB", (512, 512), (255, 0, 0))]], [], [], scale=2).width == 512 + 2 * 2 * 20


def test_large_pictures_are_shrunk_and_keep_their_shape() -> None:
    sheet = contact_sheet([[Image.new("RGB", (1024, 512), (255, 0, 0))]], [], [])
    assert pixels(sheet, (255, 0, 0)) == 256 * 128


def test_labels_need_room_and_ink() -> None:
    rows = [[RED] * 3] * 2
    bare = contact_sheet(rows, [], [])
    labelled = contact_sheet(rows, ["ankle boot", "bag"], ["0 %", "50 %", "100 %"], ["1 s", "2 s", "3 s"], "A title")
    assert labelled.width > bare.width
    assert labelled.height > bare.height + 60
    assert pixels(labelled, (255, 0, 0)) == pixels(bare, (255, 0, 0))
    per_cell = contact_sheet(
        rows, ["ankle boot", "bag"], ["0 %", "50 %", "100 %"], [["1 s", "2 s", "3 s"]] * 2, "A title"
    )
    assert per_cell.tobytes() == labelled.tobytes()


@pytest.mark.parametrize(
    "label", ["a very long prompt " * 50, "x" * 5000, "犬とキツネ", "🦊", "\udc80\0\x1b[31m", "", " "]
)
def test_any_label_fits(label: str) -> None:
    sheet = contact_sheet([[RED, RED], [RED]], [label, label], [label, label], [[label, label], [label]], label)
    assert sheet.width < 900
    assert sheet.height < 500
    assert pixels(sheet, (255, 0, 0)) == 3 * 96 * 96


@pytest.mark.parametrize("word", ["é", "ß", "ł", "к", "α", "א"])
def test_letters_of_other_scripts_are_no_boxes(word: str) -> None:
    drawn, missing = (contact_sheet([[RED]], [each], []) for each in (word, "犬"))
    assert drawn.tobytes() != missing.tobytes()
    drawn, missing = (contact_sheet([[RED]], [], [], [[each]]) for each in (word, "犬"))
    assert drawn.tobytes() != missing.tobytes()


def test_odd_grids() -> None:
    assert contact_sheet([], [], []).size
    assert contact_sheet([[]], ["a"], [], None, "title").size
    modes = contact_sheet([[Image.new(mode, (8, 300)) for mode in ("L", "RGBA", "P", "1")]], ["a", "b"], ["c"])
    assert modes.mode == "RGB"


def test_a_sheet_is_written_like_a_picture(tmp_path: Path) -> None:
    sheet = contact_sheet([[RED]], ["a"], ["b"])
    save_sheet(tmp_path / "grid.png", sheet, overwrite=False)
    with pytest.raises(BadFileError):
        save_sheet(tmp_path / "grid.png", sheet, overwrite=False)
