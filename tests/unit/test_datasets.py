"""Pictures to learn from, in every form they come in, and their latents."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.garments import fashion_mnist_of_noise
from tests.toys import tiny_vae
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.training import fashion_mnist, latents
from tstitch_cli.training.datasets import Dataset, find
from tstitch_cli.training.latents import encoded


def png(shade: int, size: tuple[int, int] = (20, 16)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(content, "PNG")
    return content.getvalue()


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def shades(data: Dataset) -> list[int]:
    return [int(np.asarray(each.convert("L"))[0, 0]) for each in data.read()]


def test_fashion_mnist_is_found_by_its_folder_and_by_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fashion_mnist_of_noise(tmp_path / "data")
    data = find(folder, ())
    assert data.captions[:2] == ("t-shirt", "trouser")
    assert [each.size for each in data.read()] == [(32, 32)] * 40
    monkeypatch.setenv("TSTITCH_DATA", str(folder))
    assert find(None, fashion_mnist.CLASSES).digest == data.digest


def test_classes_by_subfolder(tmp_path: Path) -> None:
    data = find(written(tmp_path, {"fox/a.png": png(10), "hen/b.png": png(20), "hen/c.png": png(30)}), ())
    assert data.captions == ("fox", "hen", "hen")
    assert shades(data) == [10, 20, 30]


def test_captions_beside_the_pictures(tmp_path: Path) -> None:
    files = {"a.png": png(10), "a.txt": b"a red\nfox\n", "b.png": png(20), "b.txt": b"a hen"}
    assert find(written(tmp_path, files), ()).captions == ("a red fox", "a hen")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(BadFileError, match=r"b\.txt"):
        find(tmp_path, ())


def test_captions_in_metadata(tmp_path: Path) -> None:
    lines = [{"file_name": "b.png", "text": "a hen"}, {"file_name": "in/a.png", "label": 3}]
    listing = "\n".join(map(json.dumps, lines)).encode()
    data = find(written(tmp_path, {"metadata.jsonl": listing, "in/a.png": png(10), "b.png": png(20)}), ())
    assert data.captions == ("a hen", "3")
    assert shades(data) == [20, 10]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "../a.png", "text": "x"}', "there is no"),
        ('{"text": "x"}', "expected file_name"),
        ("nonsense", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_bad_metadata_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    written(tmp_path, {"a.png": png(1), "in/b.png": png(2)})
    written(tmp_path / "in", {"metadata.jsonl": f"\n{line}".encode()})
    with pytest.raises(BadFileError, match=rf"metadata.jsonl:2: .*{said}"):
        find(tmp_path / "in", ())


def test_a_webdataset_is_streamed(tmp_path: Path) -> None:
    first = {"x/1.png": png(10), "x/1.txt": b"a fox", "x/2.json": b'{"caption": "a hen"}', "x/2.png": png(20)}
    second = {"3.cls": b"7", "3.png": png(30), "4.png": png(40), "5.txt": b"no picture"}
    tarred(tmp_path / "0.tar", first)
    tarred(tmp_path / "1.tar", second)
    before = sorted(tmp_path.rglob("*"))
    data = find(tmp_path, ())
    assert data.captions == ("a fox", "a hen", "7")
    assert shades(data) == [10, 20, 30]
    assert find(tmp_path / "0.tar", ()).captions == ("a fox", "a hen")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar").write_bytes(b"nonsense")
    (tmp_path / "a.zip").write_bytes(b"")
    for asked in (None, tmp_path / "missing", tmp_path / "empty", tmp_path / "a.zip"):
        with pytest.raises(UsageError):
            find(asked, ("fox",))
    with pytest.raises(BadFileError, match=r"no \.tar"):
        find(tmp_path / "a.tar", ())
    broken = find(written(tmp_path / "broken", {"fox/a.png": b"nonsense"}), ())
    with pytest.raises(BadFileError, match="no readable picture"):
        list(broken.read())


def test_latents_are_those_of_the_autoencoder_and_an_encoding_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = find(written(tmp_path / "d", {f"fox/{i}.png": png(20 * i) for i in range(6)}), ())
    vae = tiny_vae()
    monkeypatch.setattr(latents, "AT_ONCE_PIXELS", 2 * 16 * 16)
    monkeypatch.setattr(latents, "KEEP_SECONDS", -1.0)
    whole = encoded(data, vae, 16, (0.5, 2.0), tmp_path / "whole.npy", lambda done, of: None)
    assert whole.moments.shape == (6, 2, 4, 8, 8)
    # Cut to the middle and made grey, as a picture of one channel: picture 3 is of shade 60 everywhere.
    with torch.no_grad():
        found = vae.encode(torch.full((1, 1, 16, 16), 60 / 127.5 - 1.0)).latent_dist
    assert torch.allclose(torch.tensor(whole.moments[3, 0]).float(), (found.mean[0] - 0.5) * 2.0, atol=1e-3)
    assert torch.allclose(torch.tensor(whole.moments[3, 1]).float(), found.std[0] * 2.0, rtol=1e-2)

    def interrupt(done: int, of: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded(data, vae, 16, (0.5, 2.0), tmp_path / "cut.npy", interrupt)
    assert not (tmp_path / "cut.npy").exists()
    told: list[int] = []
    again = encoded(data, vae, 16, (0.5, 2.0), tmp_path / "cut.npy", lambda done, of: told.append(done))
    assert told == [4, 6]
    assert np.array_equal(again.moments, whole.moments)
    drawn = again.draw(torch.tensor([3, 3]), torch.Generator().manual_seed(0))
    assert not torch.equal(drawn[0], drawn[1])


def test_only_pictures_that_are_drawn_are_encoded(tmp_path: Path) -> None:
    data = find(written(tmp_path / "d", {f"fox/{i}.png": png(20 * i) for i in range(6)}), ())
    vae, path, told = tiny_vae(), tmp_path / "latents.npy", list[tuple[int, int]]()

    def encode(*some: int) -> latents.Latents:
        told.clear()
        return encoded(data, vae, 16, (0.5, 2.0), path, lambda done, of: told.append((done, of)), torch.tensor(some))

    part = encode(1, 4)
    assert told == [(0, 2), (2, 2)]
    assert (len(part), len(part.moments)) == (6, 2)
    assert encode(1, 4).moments.shape == part.moments.shape
    assert told == []
    assert len(encode(1, 3).moments) == 2
    assert len(told) == 2
    whole = encode(*range(6))
    assert len(whole.moments) == 6
    wanted = torch.tensor([4, 1, 4])
    one, other = (each.draw(wanted, torch.Generator().manual_seed(0)) for each in (whole, part))
    assert torch.allclose(one, other, atol=1e-2)
    with pytest.raises(IndexError):
        part.draw(torch.tensor([0]), torch.Generator())
    # Where all are there, nothing is encoded for a part.
    assert len(encode(0, 2).moments) == 6
    assert told == []
