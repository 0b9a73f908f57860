"""Files appear whole or not at all, and an existing one is replaced only when that was asked for."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from tstitch_cli.errors import BadFileError

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links answer."""


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raises BadFileError where `write` would refuse, so that long work can find out before it starts."""
    try:
        if path.is_dir():
            raise BadFileError(f"{path}: is a folder, a file is to be written there", hint="name a file in it")
        if os.path.lexists(path):
            if not overwrite:
                raise BadFileError(f"{path}: exists already", hint="--overwrite replaces it, another name keeps it")
            if path.exists() and not path.is_file():
                raise BadFileError(f"{path}: is not a regular file", hint="name a file that may be replaced")
        above = next(folder for folder in (path.absolute()).parents if os.path.lexists(folder))
        if not above.is_dir():
            raise BadFileError(f"{path}: cannot be written: {above} is not a folder", hint="choose another folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise BadFileError(f"{path}: cannot be written: {above} may not be changed", hint="choose another folder")
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def write(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes `content` to a temporary file beside `path` and moves it there; parent folders are made.

    Of several processes that write one file at the same moment without `overwrite`, one succeeds.

    Raises:
        BadFileError: the file exists and `overwrite` is false, or it cannot be written.
    """
    refuse_existing(path, overwrite=overwrite)
    temporary = path.parent / f".{path.name[:50]}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            if overwrite:
                os.replace(temporary, path)
            else:
                _move_to_free(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        refuse_existing(path, overwrite=overwrite)
        raise
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def written_halfway(name: str) -> str | None:
    """The file that a temporary one called `name`, left by a killed process, was to become; None if it is none."""
    parts = name.split(".")
    if len(parts) < 4 or parts[0] or parts[-1] != "tmp" or len(parts[-2]) != 8:
        return None
    return ".".join(parts[1:-2])


def unwritable(path: Path, error: Exception) -> BadFileError:
    """What is said where the system refuses to write at `path`."""
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return BadFileError(f"{path}: cannot be written: {why}", hint="choose a folder that you may write to")


def _move_to_free(temporary: Path, path: Path) -> None:
    """Moves a file; raises FileExistsError where there is one at `path` by now, which `os.replace` would not notice."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(temporary, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
