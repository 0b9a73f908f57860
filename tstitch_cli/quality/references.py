"""What pictures are compared with: a folder of pictures, a file of statistics, or those that a family ships with.

A file of statistics is an .npz in ADM's format: `mu` (D,) and `sigma` (D, D) of the features of all pictures of the
reference. Precision and recall need single points as well: `rows` (M, D), which tstitch's own files have, else the
pictures `arr_0` (M, H, W, 3), which ADM's have. `mu_s` and `sigma_s` (of spatial features) are not used.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tstitch_cli import files
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.inputs import FORMATS, MAX_BYTES, MAX_PIXELS
from tstitch_cli.quality import npz
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.manifolds import MOST_POINTS, NEAREST, Manifold
from tstitch_cli.quality.records import Records, key
from tstitch_cli.quality.statistics import Described, Gaussian, Sums
from tstitch_cli.zoo.registry import BUNDLED

Progress = Callable[[str, float], None]
AT_ONCE = 50
"""Pictures described, and kept, at once."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST = 1e15
"""Of a feature: its square, and sums of some thousand of these, are numbers in single precision."""
ROUNDING = 1e-6
"""How far a covariance that was kept in single precision is from what it was, as a part of its trace; generously."""
_AGAIN = "make the file again"


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


def bundled(family: str, name: str | None = None) -> Path | None:
    """The file of statistics that a bundled family ships with, the one called `name` if given; None for none."""
    path = BUNDLED / family / ("reference.npz" if name is None else f"reference-{name}.npz")
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
        name = key({"extractor": extractor.digest, "files": [_sha(path) for path in some]})

        def describe(some: Sequence[Path] = some) -> Described:
            return _described(_features(extractor, some))

        described = records.kept(name, describe)
        sums.append(Sums.of(described))
        if start < MOST_POINTS:
            points.append(described.features)
    return _reference(reduce(add, sums).gaussian, torch.cat(points))


def from_file(file: Path, extractor: Extractor, records: Records, progress: Progress) -> Reference:
    """The statistics in an .npz `file`; raises what `read` raises."""
    with npz.opened(file) as found:
        headers = found.headers
        if not {"mu", "sigma"} <= headers.keys():
            raise BadFileError(f"{file}: has no arrays mu and sigma", hint="statistics are .npz in ADM's format")
        wide = _wide(headers, file)
        made_with = _text(found, "extractor") if "extractor" in headers else extractor.digest
    if made_with != extractor.digest or wide != _width(extractor):
        raise UsageError(
            f"{file}: its statistics are of {wide} features of another network than '{extractor.name}'",
            hint="choose the network they were made with by --features, or give a folder of pictures",
        )
    with npz.opened(file) as found:
        mean, covariance = found.read("mu").astype(np.float64), found.read("sigma").astype(np.float64)
        rows = found.read("rows", MOST_POINTS).astype(np.float64) if "rows" in headers else None
    _check(mean, covariance, rows, file)
    if rows is None and "arr_0" in headers:
        rows = _rows_of_pictures(file, extractor, records, progress)
    gaussian = Gaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    return _reference(gaussian, None if rows is None else torch.from_numpy(rows))


def _wide(headers: Mapping[str, npz.Header], file: Path) -> int:
    """D, by which the arrays fit each other; raises BadFileError where they do not, before any of them is read."""
    kept = [name for name in ("mu", "sigma", "rows") if name in headers]
    if odd := [name for name in kept if headers[name].dtype.kind != "f"]:
        raise BadFileError(f"{file}: {odd[0]} is not all finite numbers", hint=_AGAIN)
    shapes = [headers[name].shape for name in kept]
    wide = shapes[0][0] if len(shapes[0]) == 1 else 0
    if not wide or shapes[1] != (wide, wide) or any(shape[1:] != (wide,) for shape in shapes[2:]):
        raise BadFileError(f"{file}: mu, sigma and rows are not (D,), (D, D) and (M, D)", hint=_AGAIN)
    return wide


def _text(found: npz.Arrays, name: str) -> str | None:
    header = found.headers[name]
    short = header.shape == () and header.dtype.kind == "U" and header.row_bytes <= 1 << 10
    return str(found.read(name)) if short else None


def _check(
    mean: npt.NDArray[np.float64],
    covariance: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64] | None,
    file: Path,
) -> None:
    """Raises BadFileError where no features have that mean and covariance."""
    for name, array, largest in (("mu", mean, LARGEST), ("sigma", covariance, LARGEST**2), ("rows", rows, LARGEST)):
        if array is not None and not (np.abs(array) <= largest).all():
            raise BadFileError(f"{file}: {name} is not all finite numbers below {largest:g}", hint=_AGAIN)
    rounding = max(ROUNDING * float(covariance.trace()), float(np.finfo(np.float64).tiny))
    raised = torch.from_numpy(covariance + rounding * np.eye(len(covariance)))
    if (np.abs(covariance - covariance.T) > rounding).any() or int(torch.linalg.cholesky_ex(raised).info):
        raise BadFileError(f"{file}: sigma is no covariance: not symmetric, or negative in a direction", hint=_AGAIN)


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


def _features(extractor: Extractor, paths: Sequence[Path]) -> torch.Tensor:
    """(B, D) of the pictures at `paths`; those of one size at once, and no more pixels than one may have."""
    found: list[torch.Tensor] = []
    alike: list[torch.Tensor] = []

    def flush() -> None:
        if alike:
            found.append(extractor(torch.stack(alike)).features.float().cpu())
            alike.clear()

    for path in paths:
        picture = _picture(path)
        if alike and (picture.shape != alike[0].shape or (len(alike) + 1) * picture[0].numel() > MAX_PIXELS):
            flush()
        alike.append(picture)
    flush()
    return torch.cat(found)


def _width(extractor: Extractor) -> int:
    return int(extractor(torch.zeros(1, 3, extractor.side, extractor.side, dtype=torch.uint8)).features.shape[1])


def _rows_of_pictures(
    file: Path, extractor: Extractor, records: Records, progress: Progress
) -> npt.NDArray[np.float64]:
    """The features of the first MOST_POINTS pictures `arr_0` of `file`."""
    sha = hashlib.sha256(str(file.absolute()).encode()).hexdigest()
    about = file.stat()
    found: list[torch.Tensor] = []
    for start, total, block in _blocks(file, "arr_0"):
        progress(f"describing {file}", start / total)
        name = key({"extractor": extractor.digest, "file": [sha, about.st_size, about.st_mtime_ns], "start": start})
        pictures = torch.from_numpy(block).permute(0, 3, 1, 2)

        def describe(pictures: torch.Tensor = pictures) -> Described:
            return _described(extractor(pictures).features)

        found.append(records.kept(name, describe).features)
    return torch.cat(found).double().numpy()


def _blocks(file: Path, member: str) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """(first, of how many, pictures) of an array (M, H, W, 3) uint8 in an .npz, not all of which fits into memory."""
    with npz.opened(file) as found:
        header = found.headers[member]
        shape = header.shape
        if len(shape) != 4 or shape[3] != 3 or header.by_column or header.dtype != np.uint8:
            raise BadFileError(f"{file}: {member} is no array (M, H, W, 3) of bytes", hint=_AGAIN)
        if not shape[0] or not 0 < header.row_bytes <= MAX_BYTES:
            raise BadFileError(f"{file}: {member} has no pictures, or too large ones", hint=_AGAIN)
        at_once = max(1, min(AT_ONCE, MAX_PIXELS * 3 // header.row_bytes))
        count = min(shape[0], MOST_POINTS)
        for number, block in enumerate(found.blocks(member, at_once, count)):
            yield number * at_once, count, block.astype(np.uint8)


def _sha(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadFileError(f"{path}: is larger than {MAX_BYTES >> 20} MiB", hint="take it out")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}", hint="check the folder") from error


def _picture(path: Path) -> torch.Tensor:
    """(3, H, W) uint8."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFileError(
                    f"{path}: {image.width} x {image.height} px are more than {MAX_PIXELS >> 20} million",
                    hint="take it out",
                )
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed file makes Pillow's readers fail in every way there is
        raise BadFileError(f"{path}: is no picture that can be read: {str(error)[:200]}", hint="take it out") from error
