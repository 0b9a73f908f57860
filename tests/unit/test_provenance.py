"""How a picture was made: as text and back, and what strangers may have put there."""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tstitch_cli import provenance
from tstitch_cli.errors import BadFileError
from tstitch_cli.provenance import Provenance, from_json, parameters_text, to_json
from tstitch_cli.schema import GivenFile, PlannedDenoiser, Setting

MADE = Provenance(
    prompt="ankle boot",
    negative_prompt=None,
    seed=7,
    index=3,
    setting=Setting(20, "ddim", 1.5, 8, 32, "float32", "cpu"),
    family="fashion",
    denoisers=(
        PlannedDenoiser("fashion-s", "bundled:fashion/fashion-s", None),
        PlannedDenoiser("fashion-xl", "bundled:fashion/fashion-xl", None),
    ),
    allocation=(("fashion-s", 8), ("fashion-xl", 12)),
    evaluations=((1, 20),),
    batch_size=8,
    position=3,
    weights={"fashion-s": "ab12", "fashion-xl": "cd34"},
    versions={"torch": "2.6.0", "diffusers": "0.38.0"},
)


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(to_json(MADE)), **changes})


def test_parameters_are_in_the_form_that_other_programs_read() -> None:
    text = parameters_text(replace(MADE, negative_prompt="blurry"))
    assert text.splitlines()[:2] == ["ankle boot", "Negative prompt: blurry"]
    assert text.splitlines()[2].startswith(
        "Steps: 20, Sampler: DDIM, CFG scale: 1.5, Seed: 7, Size: 32x32, Model: fashion-s>fashion-xl, Index: 3"
    )
    assert f'Setting: "{MADE.setting.words}"' in text
    assert "Negative prompt" not in parameters_text(MADE)
    assert "Files" not in parameters_text(MADE)
    inked = replace(MADE, files=(GivenFile("lora", "ink.safetensors", "34cd", 0.8),))
    assert "Files: lora ink.safetensors at 0.8 (digest 34cd)" in parameters_text(inked)


def test_values_that_would_break_the_line_of_parameters_are_quoted() -> None:
    odd = replace(
        MADE,
        denoisers=(PlannedDenoiser('a, b: "c"', "hub:a/b", None),),
        allocation=(('a, b: "c"', 20),),
    )
    assert 'Model: "a, b: \\"c\\""' in parameters_text(odd)


def test_what_no_png_can_hold_is_replaced_in_the_parameters_and_kept_in_the_json() -> None:
    odd = replace(MADE, prompt="a\0b\udc80")
    assert parameters_text(odd).startswith("a\ufffdb?\n")
    assert from_json(to_json(odd)) == odd
    assert to_json(odd).isascii()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": "tstitch/plan/1"}, "schema"),
        ({"prompt": None}, "prompt"),
        ({"seed": True}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 63}, "seed"),
        ({"index": "3"}, "index"),
        ({"position": 8}, "position"),
        ({"batch_size": 0}, "between 1"),
        ({"extra": 1}, "extra"),
        ({"setting": {}}, "steps: is missing"),
        ({"allocation": [["fashion-s", 20, 1]]}, "allocation"),
        ({"allocation": [["fashion-s", 19]]}, "20 steps"),
        ({"allocation": [["fashion-m", 20]]}, "not listed"),
        ({"allocation": [["fashion-s", -1], ["fashion-xl", 21]]}, "between 1"),
        ({"evaluations": [[2, 1]]}, "evaluations"),
        ({"denoisers": [["fashion-s", "x", None]]}, "denoisers"),
        ({"denoisers": [{"name": "a", "source": "x", "revision": None}] * 2}, "twice"),
        ({"weights": {"a": 1}}, "weights"),
        ({"versions": []}, "versions"),
    ],
    ids=str,
)
def test_contradictions_and_wrong_types_are_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadFileError, match=told):
        from_json(broken(**changes))


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadFileError) as caught:
        from_json(broken(seed=True, extra=1), "a.png")
    assert caught.value.message.splitlines() == [
        "a.png: extra: unknown key",
        "a.png: seed: expected a whole number, found true",
    ]
    assert "tstitch show" in str(caught.value.hint)


@pytest.mark.parametrize("guidance", ["NaN", "1e999", "Infinity", '"1.5"', "true", "1" * 400])
def test_numbers_must_be_finite_numbers(guidance: str) -> None:
    with pytest.raises(BadFileError):
        from_json(to_json(MADE).replace('"guidance":1.5', f'"guidance":{guidance}'))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", "[" * 100_000, '{"a":' * 50_000, " " * (2 << 20), "9" * 10_000]
)
def test_what_is_no_provenance_at_all_is_a_bad_file(text: str) -> None:
    with pytest.raises(BadFileError):
        from_json(text)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(BadFileError, match="twice"):
        from_json('{"seed":1,' + to_json(MADE)[1:])


def png(path: Path, **texts: str) -> Path:
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text, zip=key == "tstitch" and len(text) > 100_000)
    Image.new("L", (4, 4)).save(path, pnginfo=chunks)
    return path


def test_files_that_do_not_tell_how_they_were_made(tmp_path: Path) -> None:
    not_png = tmp_path / "a.png"
    not_png.write_bytes(b"GIF89a....")
    jpeg = tmp_path / "b.png"
    Image.new("L", (4, 4)).save(jpeg, "JPEG")
    for path, told in (
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "no such file"),
        (not_png, "no readable PNG"),
        (jpeg, "no readable PNG"),
        (png(tmp_path / "c.png"), "does not say"),
        (png(tmp_path / "d.png", tstitch="{}"), "schema"),
        (png(tmp_path / "e.png", tstitch=" " * 3_000_000), r"MiB|no readable PNG"),
    ):
        with pytest.raises(BadFileError, match=told) as caught:
            provenance.read(path)
        assert path.name in caught.value.message


def test_the_pixels_are_not_decoded(tmp_path: Path) -> None:
    # A picture that claims 60000 x 60000 pixels is refused or read, but its pixels are never allocated.
    whole = png(tmp_path / "a.png", tstitch=to_json(MADE)).read_bytes()
    at = whole.index(b"IHDR") + 4
    claimed = bytearray(whole)
    claimed[at : at + 8] = (60_000).to_bytes(4) * 2
    claimed[at + 13 : at + 17] = zlib.crc32(claimed[at - 4 : at + 13]).to_bytes(4)
    (tmp_path / "b.png").write_bytes(claimed)
    with pytest.raises(BadFileError):
        provenance.read(tmp_path / "b.png")


def test_every_cut_and_many_flips_of_a_png_are_read_or_refused(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", tstitch=to_json(MADE)).read_bytes()
    path = tmp_path / "b.png"
    for at in range(0, len(whole), 7):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]):
            path.write_bytes(content)
            with contextlib.suppress(BadFileError):
                assert provenance.read(path)
