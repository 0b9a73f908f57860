"""Arrays of an .npz that somebody else may have written: its headers first, then no more than was asked for.

numpy's own reader believes a header: it takes as much memory as that names before a byte is read, and a deflated
member of some kilobytes may hold gigabytes. Here whoever reads looks at the shape before, and says how many rows it
wants. Only plain numbers and texts in the format's version 1.0 are read, stored or deflated, as numpy.savez and
numpy.savez_compressed write them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from tstitch_cli.errors import BadFileError, TstitchError

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
"""The bit of a member's flags."""
_HINT = "make the file again, with numpy.savez"


@dataclass(frozen=True)
class Header:
    """What the file says of an array; nothing of it is checked against what follows."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    """Whether the first index runs fastest in the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, all of the array where it has no rows."""
        size = self.dtype.itemsize
        for length in self.shape[1:]:
            size *= length
        return size


class Arrays:
    """The arrays of an open .npz."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path
        self.headers: dict[str, Header] = {}
        """Of every array, by its name."""
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                if member.compress_type not in _PLAIN or member.flag_bits & _ENCRYPTED:
                    told = f"{member.filename[:60]!r} is encrypted, or compressed as numpy does not"
                    raise BadFileError(f"{path}: cannot be read: {told}", hint=_HINT)
                with archive.open(member) as stream:
                    self.headers[member.filename.removesuffix(".npy")] = self._header(stream)

    def read(self, name: str, rows: int | None = None) -> npt.NDArray[np.generic]:
        """The array called `name`, of which the caller has seen the header; its first `rows` rows where that is given.

        Raises BadFileError where it has less bytes than its header says, or is by columns and has more rows than that.
        """
        shape = self.headers[name].shape
        if rows is None or not shape or shape[0] <= rows:
            return self._whole(name)
        return next(self.blocks(name, rows, rows))

    def blocks(self, name: str, at_once: int, rows: int | None = None) -> Iterator[npt.NDArray[np.generic]]:
        """The first `rows` rows of the array called `name`, `at_once` at once; raises what `read` raises."""
        header = self.headers[name]
        count = header.shape[0] if rows is None else min(rows, header.shape[0])
        if header.by_column and len(header.shape) > 1:
            if header.shape[0] > count:
                raise BadFileError(f"{self._path}: {name} is stored by columns", hint=_HINT)
            whole = self._whole(name)
            yield from (whole[start : start + at_once] for start in range(0, count, at_once))
            return
        with self._opened(name) as stream:
            for start in range(0, count, at_once):
                some = min(at_once, count - start)
                content = self._exactly(stream, some * header.row_bytes, name)
                yield np.frombuffer(content, header.dtype).reshape(some, *header.shape[1:])

    def _whole(self, name: str) -> npt.NDArray[np.generic]:
        header = self.headers[name]
        size = header.row_bytes * (header.shape[0] if header.shape else 1)
        with self._opened(name) as stream:
            flat = np.frombuffer(self._exactly(stream, size, name), header.dtype)
        return flat.reshape(header.shape, order="F" if header.by_column else "C")

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """The member, after its header."""
        with self._archive.open(f"{name}.npy") as stream:
            self._header(stream)
            yield stream

    def _exactly(self, stream: IO[bytes], size: int, name: str) -> bytes:
        content = stream.read(size)
        if len(content) != size:
            raise BadFileError(f"{self._path}: cannot be read: {name} ends too early", hint=_HINT)
        return content

    def _header(self, stream: IO[bytes]) -> Header:
        try:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"its arrays are in version {version[0]}.{version[1]} of numpy's format, not 1.0")
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        except MemoryError as error:  # of the parser, whose text is nested too deep: it has 64 KiB at most
            raise ValueError("a header is nested too deep") from error
        if dtype.kind not in "biufU" or dtype.itemsize == 0 or any(length < 0 for length in shape):
            raise BadFileError(f"{self._path}: cannot be read: it has more than plain numbers and texts", hint=_HINT)
        return Header(shape, dtype, by_column)


@contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """The arrays in the file at `path`.

    Raises:
        BadFileError: there is no such file, or it is no .npz that can be read; also while it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Arrays(archive, path)
    except FileNotFoundError:
        raise BadFileError(f"{path}: there is no such file or folder", hint="check the name") from None
    except (TstitchError, MemoryError):
        raise
    except Exception as error:  # a malformed archive makes zipfile's and numpy's readers fail in every way there is
        why = str(error).split(".")[0][:200] or type(error).__name__
        raise BadFileError(f"{path}: cannot be read: {why}", hint="statistics are .npz in ADM's format") from error
