"""What pictures are compared with: a folder of pictures, a file of statistics, or those that a family ships with.

A file of statistics is an .npz in ADM's format: `mu` (D,) and `sigma` (D, D) of the features of all pictures of the
reference. Precision and recall need single points as well: `rows` (M, D), which tstitch's own files have, else the
pictures `arr_0` (M, H, W, 3), which ADM's have. `mu_s` and `sigma_s` (of spatial features) are not used.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import groupby
from operator import add
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tstitch_cli import files
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.manifolds import MOST_POINTS, NEAREST, Manifold
from tstitch_cli.quality.records import Records, key
from tstitch_cli.quality.statistics import Described, Gaussian, Sums
from tstitch_cli.zoo.registry import BUNDLED

Progress = Callable[[str, float], None]
AT_ONCE = 50
"""Pictures described, and kept, at once."""
MAX_BYTES = 2**26
"""Of one picture in a file of statistics."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive may raise."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Pictures that others are compared with, by their features."""

    gaussian: Gaussian
    points: torch.Tensor | None = field(repr=False)
    """(M, D) float32, features of at most MOST_POINTS of them; None where only the statistics are known."""

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of all that it holds."""
        sha = hashlib.sha256()
        for tensor in (self.gaussian.mean, self.gaussian.covariance, self.points):
            if tensor is not None:
                sha.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return sha.hexdigest()[:16]

    @cached_property
    def manifold(self) -> Manifold | None:
        """Its points and their balls, None where there are too few."""
        enough = self.points is not None and len(self.points) > NEAREST
        return Manifold(self.points) if enough and self.points is not None else None


def of_features(features: torch.Tensor) -> Reference:
    """The reference whose pictures have `features` (N, D)."""
    return _reference(Sums.of(_described(features)).gaussian, features)


def of_pictures(pictures: torch.Tensor, extractor: Extractor) -> Reference:
    """The reference whose pictures are `pictures` (N, 3, H, W) uint8."""
    return of_features(torch.cat([extractor(some).features.cpu() for some in pictures.split(AT_ONCE)]))


def bundled(family: str) -> Path | None:
    """The file of statistics that a bundled family ships with, None where it has none."""
    path = BUNDLED / family / "reference.npz"
    return path if path.is_file() else None


def read(place: Path, extractor: Extractor, work: Path, progress: Progress = lambda doing, share: None) -> Reference:
    """The reference at `place`, a folder of pictures or an .npz file; what is described on the way is kept in `work`.

    Raises:
        BadFileError: there is nothing of the kind, or it cannot be read.
        UsageError: the statistics are of other features than `extractor`'s.
    """
    if place.is_dir():
        return from_folder(place, extractor, Records(work), progress)
    return from_file(place, extractor, Records(work), progress)


def from_folder(folder: Path, extractor: Extractor, records: Records, progress: Progress) -> Reference:
    """All pictures of `folder` and the folders in it; raises what `read` raises."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(paths) < 2:
        raise BadFileError(
            f"{folder}: has {len(paths) or 'no'} picture{'s' * (len(paths) != 1)}",
            hint=f"a reference is two pictures at least, {' '.join(SUFFIXES)}; some thousands tell something",
        )
    sums: list[Sums] = []
    points: list[torch.Tensor] = []
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        progress(f"describing {folder}", start / len(paths))
        contents = [_content(path) for path in some]
        name = key({"extractor": extractor.digest, "files": [hashlib.sha256(each).hexdigest() for each in contents]})

        def describe(some: Sequence[Path] = some, contents: Sequence[bytes] = contents) -> Described:
            return _described(_features(extractor, [_picture(*each) for each in zip(some, contents, strict=True)]))

        described = records.kept(name, describe)
        sums.append(Sums.of(described))
        if start < MOST_POINTS:
            points.append(described.features)
    return _reference(reduce(add, sums).gaussian, torch.cat(points))


def from_file(file: Path, extractor: Extractor, records: Records, progress: Progress) -> Reference:
    """The statistics in an .npz `file`; raises what `read` raises."""
    try:
        with np.load(file, allow_pickle=False) as found:
            if not isinstance(found, np.lib.npyio.NpzFile) or not {"mu", "sigma"} <= set(found.files):
                raise BadFileError(f"{file}: has no arrays mu and sigma", hint="statistics are .npz in ADM's format")
            mean, covariance = _array(found["mu"], file, "mu"), _array(found["sigma"], file, "sigma")
            rows = _array(found["rows"], file, "rows") if "rows" in found.files else None
            made_with = str(found["extractor"]) if "extractor" in found.files else extractor.digest
            pictures = "arr_0" in found.files
    except FileNotFoundError:
        raise BadFileError(f"{file}: there is no such file or folder", hint="check the name") from None
    except _BROKEN as error:
        raise _unreadable(file, error) from None
    wide = mean.shape[0] if mean.ndim == 1 else 0
    if not wide or covariance.shape != (wide, wide) or (rows is not None and rows.shape[1:] != (wide,)):
        raise BadFileError(f"{file}: mu, sigma and rows are not (D,), (D, D) and (M, D)", hint="make the file again")
    if made_with != extractor.digest or wide != _width(extractor):
        raise UsageError(
            f"{file}: its statistics are of {wide} features of another network than '{extractor.name}'",
            hint="choose the network they were made with by --features, or give a folder of pictures",
        )
    if rows is None and pictures:
        rows = _rows_of_pictures(file, extractor, records, progress)
    gaussian = Gaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    return _reference(gaussian, None if rows is None else torch.from_numpy(rows))


def write(path: Path, reference: Reference, extractor: Extractor, *, points: int, overwrite: bool) -> None:
    """Writes a file of statistics with the first `points` points in half precision; raises BadFileError."""
    arrays: dict[str, Any] = {
        "mu": reference.gaussian.mean.numpy(),
        "sigma": reference.gaussian.covariance.numpy(),
        "extractor": np.array(extractor.digest),
    }
    if reference.points is not None:
        arrays["rows"] = reference.points[:points].half().numpy()
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    files.write(path, content.getvalue(), overwrite=overwrite)


def _reference(gaussian: Gaussian, points: torch.Tensor | None) -> Reference:
    return Reference(gaussian, None if points is None else points[:MOST_POINTS].float().cpu())


def _described(features: torch.Tensor) -> Described:
    none = torch.zeros(len(features), 0)
    return Described(features.float().cpu(), none, none, none)


def _features(extractor: Extractor, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
    """(B, D) of (3, H, W) uint8 pictures, those of one size at once."""
    return torch.cat(
        [
            extractor(torch.stack(list(alike))).features.float().cpu()
            for _, alike in groupby(pictures, key=lambda picture: picture.shape)
        ]
    )


def _width(extractor: Extractor) -> int:
    return int(extractor(torch.zeros(1, 3, extractor.side, extractor.side, dtype=torch.uint8)).features.shape[1])


def _rows_of_pictures(
    file: Path, extractor: Extractor, records: Records, progress: Progress
) -> npt.NDArray[np.float64]:
    """The features of the first MOST_POINTS pictures `arr_0` of `file`."""
    sha = hashlib.sha256(str(file.absolute()).encode()).hexdigest()
    about = file.stat()
    found: list[torch.Tensor] = []
    for start, total, block in _blocks(file, "arr_0.npy"):
        progress(f"describing {file}", start / total)
        name = key({"extractor": extractor.digest, "file": [sha, about.st_size, about.st_mtime_ns], "start": start})
        pictures = torch.from_numpy(block).permute(0, 3, 1, 2)

        def describe(pictures: torch.Tensor = pictures) -> Described:
            return _described(extractor(pictures).features)

        found.append(records.kept(name, describe).features)
    return torch.cat(found).double().numpy()


def _blocks(file: Path, member: str) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """(first, of how many, pictures) of an array (M, H, W, 3) uint8 in an .npz, not all of which fits into memory."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            shape, order, dtype = _header(stream, file)
            each, count = int(np.prod(shape[1:])), min(shape[0], MOST_POINTS)
            if len(shape) != 4 or shape[3] != 3 or order or dtype != np.uint8 or not 0 < each <= MAX_BYTES:
                raise BadFileError(f"{file}: arr_0 is no array (M, H, W, 3) of bytes", hint="make the file again")
            for start in range(0, count, AT_ONCE):
                some = min(AT_ONCE, count - start)
                block = np.frombuffer(stream.read(some * each), np.uint8).reshape(some, *shape[1:])
                yield start, count, block.copy()
    except _BROKEN as error:
        raise _unreadable(file, error) from None


def _header(stream: IO[bytes], file: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise BadFileError(f"{file}: is in a numpy format that is not known", hint="save it again with numpy.savez")


def _unreadable(file: Path, error: Exception) -> BadFileError:
    why = str(error).split(".")[0] or type(error).__name__
    return BadFileError(f"{file}: cannot be read: {why}", hint="statistics are .npz in ADM's format")


def _array(array: npt.NDArray[np.generic], file: Path, name: str) -> npt.NDArray[np.float64]:
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise BadFileError(f"{file}: {name} is not all finite numbers", hint="make the file again")
    return array.astype(np.float64)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}", hint="check the folder") from error


def _picture(path: Path, content: bytes) -> torch.Tensor:
    """(3, H, W) uint8."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFileError(f"{path}: is no picture that can be read: {error}", hint="take it out") from error
