"""What pictures are compared with: the bundled statistics, ADM's files, folders of pictures; and what is refused."""

from __future__ import annotations

import io
import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.quality import references
from tstitch_cli.quality.features import ClassifierFeatures, Features, grey
from tstitch_cli.quality.judging import Judge
from tstitch_cli.quality.statistics import frechet


class Means:
    """Twelve features: the means of the quarters of each colour."""

    name, digest, classes, judge, side = "means", "m0", 0, Judge(), 8

    def __init__(self) -> None:
        self.described = 0

    def __call__(self, pictures: torch.Tensor) -> Features:
        self.described += len(pictures)
        return Features(torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1), None)


def pictures(count: int, seed: int = 0, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_the_bundled_statistics_are_of_the_bundled_classifier(tmp_path: Path) -> None:
    file = references.bundled("fashion")
    assert file is not None
    reference = references.read(file, ClassifierFeatures("fashion"), tmp_path)
    assert reference.points is not None
    assert reference.points.shape == (5000, 64)
    # The points are half of the pictures that the statistics are of, in half precision.
    of_points = references.of_features(reference.points).gaussian
    assert frechet(reference.gaussian, of_points) < 0.25
    assert reference.manifold is not None
    assert len(reference.digest) == 16


def test_pictures_of_the_family_are_near_its_reference(tmp_path: Path) -> None:
    from tstitch_cli.training import fashion_mnist

    try:
        data = fashion_mnist.load(fashion_mnist.find(), "test").pixels
    except UsageError:
        pytest.skip("Fashion-MNIST is not here")
    extractor = ClassifierFeatures("fashion")
    features = extractor(data[:500].expand(-1, 3, -1, -1)).features.float()
    file = references.bundled("fashion")
    assert file is not None
    reference = references.read(file, extractor, tmp_path)
    assert reference.points is not None
    torch.testing.assert_close(reference.points[:500], features, rtol=1e-3, atol=1e-3)


def test_a_folder_is_described_once(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    (folder / "more").mkdir(parents=True)
    shown = pictures(60)
    for index, each in enumerate(shown):
        Image.fromarray(each).save(folder / ("more" if index > 40 else "") / f"{index:03d}.png")
    (folder / "notes.txt").write_text("not a picture")
    extractor = Means()
    found = references.read(folder, extractor, tmp_path / "work")
    assert extractor.described == 60
    expected = Means()(torch.from_numpy(shown).permute(0, 3, 1, 2)).features.double().numpy()
    np.testing.assert_allclose(found.gaussian.mean.numpy(), expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.gaussian.covariance.numpy(), np.cov(expected.T), rtol=1e-6, atol=1e-6)
    again = references.read(folder, extractor, tmp_path / "work")
    assert (extractor.described, again.digest) == (60, found.digest)


def test_pictures_of_different_sizes_are_described(tmp_path: Path) -> None:
    for index, side in enumerate((8, 8, 16, 8)):
        Image.fromarray(pictures(1, index, side)[0]).save(tmp_path / f"{index}.png")
    found = references.read(tmp_path, Means(), tmp_path / "work")
    assert found.points is not None
    assert len(found.points) == 4


def test_adm_statistics_with_and_without_pictures(tmp_path: Path) -> None:
    features = np.random.default_rng(1).normal(size=(80, 12))
    statistics = {"mu": features.mean(0), "sigma": np.cov(features.T), "mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    np.savez(tmp_path / "plain.npz", **statistics)
    extractor = Means()
    plain = references.read(tmp_path / "plain.npz", extractor, tmp_path / "work")
    np.testing.assert_array_equal(plain.gaussian.mean.numpy(), statistics["mu"])
    assert plain.manifold is None
    shown = pictures(70)
    np.savez_compressed(tmp_path / "pictures.npz", arr_0=shown, **statistics)
    read = references.read(tmp_path / "pictures.npz", extractor, tmp_path / "work")
    assert read.points is not None
    expected = Means()(torch.from_numpy(shown).permute(0, 3, 1, 2)).features
    torch.testing.assert_close(read.points, expected)
    before = extractor.described
    references.read(tmp_path / "pictures.npz", extractor, tmp_path / "work")
    assert extractor.described == before + 1  # one, to see how many features there are


def test_what_is_written_is_read(tmp_path: Path) -> None:
    extractor = Means()
    made = references.of_features(torch.randn(30, 12, generator=torch.Generator().manual_seed(2)))
    references.write(tmp_path / "r.npz", made, extractor, points=20, overwrite=False)
    read = references.read(tmp_path / "r.npz", extractor, tmp_path / "work")
    torch.testing.assert_close(read.gaussian.covariance, made.gaussian.covariance)
    assert read.points is not None
    assert len(read.points) == 20
    extractor.digest = "m1"
    with pytest.raises(UsageError, match="another network"):
        references.read(tmp_path / "r.npz", extractor, tmp_path / "work")


def _npz(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _member(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """A header with what it says of the numbers, of which there are none."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _with(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Statistics of twelve features, of which some members are other ones."""
    own = {name: io.BytesIO() for name in ("mu", "sigma")}
    np.save(own["mu"], np.zeros(12))
    np.save(own["sigma"], np.eye(12))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in ({name: made.getvalue() for name, made in own.items()} | members).items():
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def _altered(content: bytes, at: tuple[int, int], to: bytes) -> bytes:
    """Another value at these places of the first local and the first central header of a zip."""
    for signature, offset in zip((b"PK\3\4", b"PK\1\2"), at, strict=True):
        place = content.index(signature) + offset
        content = content[:place] + to + content[place + len(to) :]
    return content


@contextmanager
def _little_memory(more: int = 256 << 20) -> Iterator[None]:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "cannot be read"),
        (b"hello", "cannot be read"),
        (_npz(mu=np.zeros(12), sigma=np.eye(12))[:200], "cannot be read"),
        (_npz(a=np.zeros(3)), "no arrays mu and sigma"),
        (_npz(mu=np.zeros(12), sigma=np.eye(11)), "are not"),
        (_npz(mu=np.zeros((2, 2)), sigma=np.eye(2)), "are not"),
        (_npz(mu=np.full(12, np.nan), sigma=np.eye(12)), "finite"),
        (_npz(mu=np.zeros(12), sigma=np.eye(12), rows=np.zeros((3, 5))), "are not"),
        (_npz(mu=np.array([{}] * 12), sigma=np.eye(12)), "cannot be read"),
        (_npz(mu=np.zeros(12), sigma=np.eye(12), arr_0=np.zeros((4, 8, 8))), "arr_0"),
        (_npz(mu=np.zeros(12), sigma=-np.eye(12)), "no covariance"),
        (_npz(mu=np.zeros(12), sigma=np.triu(np.ones((12, 12)))), "no covariance"),
        (_npz(mu=np.full(12, 1e300), sigma=np.eye(12)), "mu is not"),
        (_npz(mu=np.zeros(12), sigma=np.eye(12), rows=np.full((3, 12), 1e300)), "rows is not"),
        (_with(arr_0=_member((0, 8, 8, 3), "|u1")), "arr_0 has no pictures"),
        (_with(arr_0=_member((-3, 8, 8, 3), "|u1")), "cannot be read"),
        (_with(arr_0=_member((10**12, 8, 8, 3), "|u1")), "ends too early"),
        (_with(arr_0=_member((2, 10**6, 10**6, 3), "|u1")), "too large"),
        (_with(mu=_member((10**12,))), "are not"),
        (_with(rows=_member((10**12, 12))), "ends too early"),
        (_with(rows=_member((1, 10**12))), "are not"),
        (_with(mu=b"\x93NUMPY\1\0\xff\x1f" + b"-" * 8191), "cannot be read"),
        (_with(mu=b"\x93NUMPY\2\0\xff\xff\xff\xff"), "version 2"),
        (_with(zipfile.ZIP_LZMA), "compressed as numpy does not"),
        (_altered(_with(), (8, 10), b"\x63\0"), "compressed as numpy does not"),
        (_altered(_with(), (6, 8), b"\1\0"), "encrypted"),
    ],
)
def test_broken_statistics_are_told(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "x.npz"
    file.write_bytes(content)
    with _little_memory(), pytest.raises(BadFileError, match=what):
        references.read(file, Means(), tmp_path / "work")


def test_zeros_that_were_deflated_are_not_unpacked(tmp_path: Path) -> None:
    """Arrays that are refused, or of which a part suffices, take no more memory than what is read of them."""
    file = tmp_path / "x.npz"
    file.write_bytes(_with(zipfile.ZIP_DEFLATED, mu=_member((1 << 23,)) + bytes(1 << 26)))
    with _little_memory(32 << 20), pytest.raises(BadFileError, match="are not"):
        references.read(file, Means(), tmp_path / "work")
    many = 1 << 19
    file.write_bytes(_with(zipfile.ZIP_DEFLATED, rows=_member((many, 12)) + bytes(many * 12 * 8)))
    with _little_memory(32 << 20):
        found = references.read(file, Means(), tmp_path / "work")
    assert found.points is not None
    assert len(found.points) == 10_000


def test_a_picture_that_is_another_program_s_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to ghostscript, whatever the file's name."""
    started = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {started}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "pictures"
    folder.mkdir()
    eps = io.BytesIO()
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(eps.getvalue())
    with pytest.raises(BadFileError, match=r"0\.png: is no picture"):
        references.read(folder, Means(), tmp_path / "work")
    assert not started.exists()


def test_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        Image.fromarray(pictures(1, index)[0]).save(tmp_path / f"{index}.png")
    at_once: list[int] = []

    class Watched(Means):
        def __call__(self, pictures: torch.Tensor) -> Features:
            at_once.append(len(pictures))
            return super().__call__(pictures)

    monkeypatch.setattr(references, "MAX_PIXELS", 2 * 8 * 8)
    references.read(tmp_path, Watched(), tmp_path / "work")
    assert at_once == [2, 2, 1]
    monkeypatch.setattr(references, "MAX_PIXELS", 8 * 8 - 1)
    with pytest.raises(BadFileError, match="8 x 8 px are more"):
        references.read(tmp_path, Means(), tmp_path / "elsewhere")
    monkeypatch.setattr(references, "MAX_BYTES", 10)
    with pytest.raises(BadFileError, match="larger than"):
        references.read(tmp_path, Means(), tmp_path / "elsewhere")


def test_a_bomb_of_pictures_is_not_unpacked(tmp_path: Path) -> None:
    """Only as many pictures are read as are needed, whatever the array's header says."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 8, 8, 3)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, array in (("mu", np.zeros(12)), ("sigma", np.eye(12))):
            one = io.BytesIO()
            np.save(one, array)
            archive.writestr(f"{name}.npy", one.getvalue())
        archive.writestr("arr_0.npy", header.getvalue() + bytes(1000))
    with pytest.raises(BadFileError, match=r"x\.npz"):
        references.read(tmp_path / "x.npz", Means(), tmp_path / "work")


def test_what_is_no_reference_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="no such file"):
        references.read(tmp_path / "none.npz", Means(), tmp_path / "work")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFileError, match="no pictures"):
        references.read(tmp_path / "empty", Means(), tmp_path / "work")
    for name in ("a.png", "b.png"):
        (tmp_path / "empty" / name).write_bytes(b"no picture")
    with pytest.raises(BadFileError, match=r"a\.png"):
        references.read(tmp_path / "empty", Means(), tmp_path / "work")


def test_grey_is_as_pillow_makes_it() -> None:
    shown = pictures(3, 5)
    ours = grey(torch.from_numpy(shown).permute(0, 3, 1, 2))
    theirs = np.stack([np.array(Image.fromarray(each).convert("L")) for each in shown])
    assert np.array_equal(ours[:, 0].numpy(), theirs)


def test_the_classifier_says_which_size_it_takes() -> None:
    with pytest.raises(UsageError, match="32 x 32 px, not 64 x 48"):
        ClassifierFeatures("fashion")(torch.zeros(1, 3, 48, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match="no classifier"):
        ClassifierFeatures("dit-256")
