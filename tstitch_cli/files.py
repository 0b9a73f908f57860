"""Files appear whole or not at all, and an existing one is replaced only when that was asked for."""

from __future__ import annotations

import os
from pathlib import Path

from tstitch_cli.errors import BadFileError


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
        raise _unwritable(path, error) from error


def write(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes `content` to a temporary file beside `path` and moves it there; parent folders are made.

    Raises:
        BadFileError: the file exists and `overwrite` is false, or it cannot be written.
    """
    refuse_existing(path, overwrite=overwrite)
    temporary = path.parent / f".tstitch-{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> BadFileError:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return BadFileError(f"{path}: cannot be written: {why}", hint="choose a folder that you may write to")
