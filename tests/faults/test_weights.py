"""Weights that came damaged: told by name and place, whatever the damage is."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests import toys
from tstitch_cli import components
from tstitch_cli.errors import BadFileError, TstitchError
from tstitch_cli.zoo import folders
from tstitch_cli.zoo.entry import Entry

WEIGHTS = "diffusion_pytorch_model.safetensors"


def loaded(folder: Path) -> None:
    entry: Entry = folders.from_folder(folder)
    denoiser = components.denoiser(entry, torch.float32)
    components.pipeline(entry, denoiser, torch.float32)


def test_what_is_whole_loads(folder: Path) -> None:
    loaded(folder)


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder: Path, part: str, share: float) -> None:
    path = folder / part / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadFileError, match=part) as caught:
        loaded(folder)
    assert "\n" not in caught.value.message


def _header(content: bytes) -> tuple[dict[str, object], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _with_header(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


CORRUPT: dict[str, Callable[[bytes], bytes]] = {
    "a length beyond the file": lambda c: struct.pack("<Q", 1 << 62) + c[8:],
    "a length of nothing": lambda c: struct.pack("<Q", 0) + c[8:],
    "no JSON": lambda c: c[:8] + b"\xff" * 100 + c[108:],
    "no object": lambda c: _with_header(b"[1, 2]", _header(c)[1]),
    "nested without end": lambda c: _with_header(b"[" * 100_000, _header(c)[1]),
    "a tensor twice": lambda c: _with_header(b'{"a": {"dtype": "F32"}, "a": {}}', _header(c)[1]),
    "a shape of text": lambda c: c.replace(b'"shape":[', b'"shape":"', 1),
    "an immense shape": lambda c: _with_header(
        json.dumps({"a": {"dtype": "F32", "shape": [10**18] * 60, "data_offsets": [0, 4]}}).encode(), b"\0" * 4
    ),
    "a number of a million digits": lambda c: _with_header(
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 1_000_000 + b'], "data_offsets": [0, 4]}}', b"\0" * 4
    ),
    "none of the tensors": lambda c: safetensors.torch.save({"other": torch.zeros(3)}),
    "other shapes": lambda c: safetensors.torch.save(
        {name: torch.zeros(1, 2, 3) for name in safetensors.torch.load(c)}
    ),
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_a_corrupt_header(folder: Path, damage: str) -> None:
    path = folder / "transformer" / WEIGHTS
    path.write_bytes(CORRUPT[damage](path.read_bytes()))
    with pytest.raises(BadFileError) as caught:
        loaded(folder)
    assert str(folder) in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json", "vae/config.json"])
def test_configs_cut_off(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for end in range(0, len(content) - 2, 40):
        (folder / name).write_bytes(content[:end])
        with pytest.raises(TstitchError):
            folders.from_folder(folder)


@pytest.mark.parametrize(("key", "value"), [("act_fn", {}), ("down_block_types", [7]), ("norm_num_groups", [[]])])
def test_a_config_that_the_library_trips_over_is_no_bug(folder: Path, key: str, value: object) -> None:
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(BadFileError, match="vae"):
        loaded(folder)


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("CUDA error: x")])
def test_a_machine_that_fails_while_loading_is_not_blamed_on_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*args: object, **given: object) -> None:
        raise error

    monkeypatch.setattr(components, "_whole", failing)
    with pytest.raises(type(error)) as caught:
        loaded(folder)
    assert caught.value is error


def test_weights_that_vanish_between_looking_and_loading(folder: Path) -> None:
    entry = folders.from_folder(folder)
    shutil.rmtree(folder / "transformer")
    with pytest.raises(BadFileError, match=str(folder)):
        components.denoiser(replace(entry, name="gone"), torch.float32)
    shutil.rmtree(folder)
    with pytest.raises(BadFileError, match=str(folder)):
        components.pipeline(entry, toys.tiny_dit(1), torch.float32)
