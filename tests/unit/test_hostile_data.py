"""Data and checkpoints that are not what they say: refused in words, and nothing is unpacked beyond a bound."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from tests.garments import fashion_mnist_of_noise
from tstitch_cli.errors import BadFileError
from tstitch_cli.networks import checkpoints
from tstitch_cli.training import datasets, fashion_mnist

PICTURES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def idx(*shape: int, content: bytes = b"") -> bytes:
    return bytes((0, 0, 8, len(shape))) + b"".join(length.to_bytes(4, "big") for length in shape) + content


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (PICTURES, b"no gzip", "cannot be read"),
        (PICTURES, gzip.compress(idx(40, 28, 28))[:-12], "cannot be read"),
        (PICTURES, gzip.compress(b"\0\0"), "is no IDX file of 3"),
        (PICTURES, gzip.compress(idx(40, 28, 28, content=bytes(9))), "ends too early"),
        (PICTURES, gzip.compress(idx(2**32 - 1, 28, 28)), "is of 4294967295 x 28 x 28"),
        (PICTURES, gzip.compress(idx(40, 28, 2**32 - 1)), "x 4294967295 bytes"),
        (PICTURES, gzip.compress(idx(39, 28, 28, content=bytes(39 * 784))), "40 labels of 39"),
        (LABELS, gzip.compress(idx(0)), "is of 0 bytes"),
        (LABELS, gzip.compress(idx(40, content=b"\n" * 40)), "the label 10 of 10"),
    ],
    # The time is in a gzip file, and processes that share the tests out must name them alike.
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_garments_that_are_none(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    folder = fashion_mnist_of_noise(tmp_path / "data")
    assert len(fashion_mnist.load(folder, "train")) == 40
    (folder / name).write_bytes(content)
    with pytest.raises(BadFileError, match=what) as caught:
        fashion_mnist.load(folder, "train")
    assert ".gz: " in caught.value.message


def test_a_picture_of_zeros_without_end_is_not_unpacked(tmp_path: Path) -> None:
    """A sparse file in a .tar takes one block, however many zeros it stands for."""
    sparse = tarfile.TarInfo("0.png")
    sparse.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    written = io.BytesIO(bytes(header))
    written.seek(0, io.SEEK_END)
    with tarfile.open(fileobj=written, mode="w") as tar:
        member = tarfile.TarInfo("0.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"fox"))
    path = tmp_path / "a.tar"
    path.write_bytes(written.getvalue())
    assert path.stat().st_size < 20_000
    found = datasets.find(path, ())
    assert found.captions == ("fox",)
    with pytest.raises(BadFileError, match=r"0\.png: is larger than 64 MiB"):
        list(found.read())


@pytest.mark.parametrize("name", ["../0.png", "a\0b.png", "x" * 5000, "\ud800.png", "none.png"])
def test_names_that_no_picture_has(name: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "fox"}))
    with pytest.raises(BadFileError, match=r"metadata\.jsonl:1: there is no"):
        datasets.find(tmp_path, ())


def test_a_checkpoint_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    """What a text's length is said to be is no reason to make room for it."""
    asked: list[int] = []

    class Watched(checkpoints._Bounded):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            asked.append(len(found))
            return found

    (tmp_path / "a.pt").write_bytes(bytes(50_000))
    with Watched(tmp_path / "a.pt") as file:
        assert len(file.read(40_000)) == 40_000
        assert len(file.read(1 << 60)) == 10_000
        assert file.read(1 << 60) == b""
    (tmp_path / "b.pt").write_bytes(b"\x80\2X\xff\xff\xff\xffabc")
    with pytest.raises(BadFileError, match=r"b\.pt: is no checkpoint"):
        checkpoints.read(tmp_path / "b.pt")


def test_a_checkpoint_that_would_be_unpacked_is_refused(tmp_path: Path) -> None:
    sound, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.zeros(4)}, sound)
    assert checkpoints.read(sound).keys() == {"w"}
    with zipfile.ZipFile(sound) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
    with pytest.raises(BadFileError, match="is compressed"):
        checkpoints.read(packed)
