"""Kinds of file with many things in them: manifests, statistics, records, checkpoints and data to learn from."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from tests.garments import fashion_mnist_of_noise
from tests.property import mutations
from tests.property.kinds import Kind
from tests.unit.test_records import SOUND
from tests.unit.test_references import Means, pictures
from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs import job, manifest
from tstitch_cli.networks import checkpoints, conversions, convert
from tstitch_cli.quality import references
from tstitch_cli.quality.records import Records
from tstitch_cli.training import datasets, fashion_mnist

DRAWN = {f"{index:06d}.png": index for index in range(4)}
JOB = {"plan": {"rows": [["fashion-s", 4], ["fashion-xl", 16]]}, "seed": 0, "weights": {"fashion-s": "0" * 16}}


def _manifests(folder: Path) -> list[bytes]:
    lines: list[dict[str, Any]] = [{"job": JOB, "schema": job.SCHEMA}]
    lines += [{"file": name, "index": index, "sha256": "0" * 64} for name, index in DRAWN.items()]
    return ["".join(job.canonical(line) for line in lines).encode()]


def _read_manifest(path: Path) -> object:
    found = job.differences(job.read_job(path), JOB)
    return found, manifest._lines(path, DRAWN)


def _statistics(folder: Path) -> list[bytes]:
    features = np.random.default_rng(1).normal(size=(80, 12))
    given: dict[str, Any] = {"mu": features.mean(0), "sigma": np.cov(features.T)}
    found = []
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"rows": features[:20].astype(np.float16), "extractor": np.array("m0")},
        {"arr_0": pictures(6)},
    )
    for more in ways:
        for write in (np.savez, np.savez_compressed):
            content = io.BytesIO()
            write(content, **given, **more)
            found.append(content.getvalue())
    return found


def _read_statistics(path: Path) -> object:
    found = references.read(path, Means(), path.parent / "work")
    assert found.gaussian.root.isfinite().all()
    return found.digest


def _records(folder: Path) -> list[bytes]:
    content, parts = io.BytesIO(), dict[str, Any](SOUND)
    np.savez(content, **parts)
    return [content.getvalue()]


def _read_record(path: Path) -> object:
    found = Records(path.parent).get(path.stem)
    if found is None:
        raise BadFileError("it is made anew")
    return found[0:1]


LAYERS = {"num_layers": 1, "sample_size": 4, "patch_size": 2, "in_channels": 4}
CONFIG = LAYERS | {"num_attention_heads": 2, "attention_head_dim": 4}


def _state() -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (8, 4, 2, 2),
        "blocks.0.attn.qkv.weight": (24, 8),
        "blocks.0.attn.qkv.bias": (24,),
        "t_embedder.mlp.0.weight": (8, 8),
        "single_blocks.0.linear1.weight": (56, 8),
        "final_layer.adaLN_modulation.1.weight": (16, 8),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _saved(content: Any, *, zipped: bool) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=zipped)
    return written.getvalue()


def _checkpoints(folder: Path) -> list[bytes]:
    whole = {"ema": _state(), "args": argparse.Namespace(seed=0), "epoch": 3}
    return [_saved(content, zipped=zipped) for content in (_state(), whole) for zipped in (True, False)]


def _read_checkpoint(path: Path) -> object:
    state = checkpoints.read(path)
    wanted = {"pos_embed.proj.weight": torch.zeros(8, 4, 2, 2, device="meta")}
    for conversion in (conversions.dit, conversions.u_vit, conversions.flux):
        made = conversion(state, CONFIG)
        with suppress(BadFileError):
            convert._check("tiny", made, wanted, path)
    return state


def _labels(folder: Path) -> list[bytes]:
    return [(fashion_mnist_of_noise(folder / "garments") / "train-labels-idx1-ubyte.gz").read_bytes()]


def _garments(folder: Path) -> list[bytes]:
    return [(fashion_mnist_of_noise(folder / "garments") / "train-images-idx3-ubyte.gz").read_bytes()]


def _read_garments(path: Path) -> object:
    """With the sound file of the other kind beside it."""
    for beside, dimensions, item in (("images-idx3", (40, 28, 28), 784), ("labels-idx1", (40,), 1)):
        other = path.parent / f"train-{beside}-ubyte.gz"
        if not other.exists():
            head = bytes((0, 0, 8, len(dimensions))) + b"".join(length.to_bytes(4, "big") for length in dimensions)
            other.write_bytes(gzip.compress(head + bytes(40 * item)))
    found = fashion_mnist.load(path.parent, "train")
    return [fashion_mnist.CLASSES[label] for label in found.labels.tolist()]


def _picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(written, "PNG")
    return written.getvalue()


SAID = ({"file_name": "0.png", "text": "ein Fuchs"}, {"file_name": "more/1.png", "label": 3, "width": 8})


def _metadata(folder: Path) -> list[bytes]:
    return ["".join(json.dumps(line) + "\n" for line in SAID).encode()]


def _read_metadata(path: Path) -> object:
    for line in SAID:
        picture = path.parent / str(line["file_name"])
        if not picture.exists():
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(_picture())
    return _read_data(path.parent)


def _read_data(path: Path) -> object:
    found = datasets.find(path, ())
    return found.digest, [picture.size for picture in found.read()]


def _tars(folder: Path) -> list[bytes]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=form) as tar:
            for name, content in (
                ("a/0.png", _picture()),
                ("a/0.json", b'{"caption": "fox"}'),
                ("a/1.png", _picture()),
                ("a/1.txt", "лиса".encode()),
                ("a/" + "b" * 80 + "/2.png", _picture()),
                ("a/" + "b" * 80 + "/2.cls", b"7"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.pax_headers = {"comment": "x"} if form == tarfile.PAX_FORMAT else {}
                tar.addfile(member, io.BytesIO(content))
        found.append(written.getvalue())
    return found


ARCHIVES = {
    "manifest": Kind(_manifests, mutations.json_lines_file, "manifest.jsonl", _read_manifest),
    "statistics": Kind(_statistics, mutations.zip_file, "reference.npz", _read_statistics),
    "record": Kind(_records, mutations.zip_file, "0123.npz", _read_record),
    "checkpoint": Kind(_checkpoints, mutations.zip_file, "model.pt", _read_checkpoint),
    "checkpoint in safetensors": Kind(
        lambda _: [save(_state())], mutations.safetensors_file, "model.safetensors", _read_checkpoint
    ),
    "IDX of pictures": Kind(_garments, mutations.gzip_file, "train-images-idx3-ubyte.gz", _read_garments),
    "IDX of labels": Kind(_labels, mutations.gzip_file, "train-labels-idx1-ubyte.gz", _read_garments),
    "metadata": Kind(_metadata, mutations.json_lines_file, "metadata.jsonl", _read_metadata),
    "webdataset": Kind(_tars, mutations.tar_file, "data.tar", _read_data),
}
