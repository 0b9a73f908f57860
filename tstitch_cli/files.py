"""Files appear whole or not at all, and an existing one is replaced only when that was asked for."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tstitch_cli.errors import BadFileError

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links answer."""
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""What file systems answer that cannot sync a file or a folder."""
_NAMED = 50
"""Characters of a file's name that its temporary one has."""
_AT_ONCE = 16
"""Files that are synced at the same time."""


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


def write(path: Path, content: bytes, *, overwrite: bool, synced: bool = False) -> None:
    """Writes `content` to a temporary file beside `path` and moves it there; parent folders are made.

    With `synced` it is on the disk before it is at `path`, so that after a power loss there is no empty file there;
    that it is there at all then takes `sync` of the folder.

    Of several processes that write one file at the same moment without `overwrite`, one succeeds.

    Raises:
        BadFileError: the file exists and `overwrite` is false, or it cannot be written.
    """
    refuse_existing(path, overwrite=overwrite)
    temporary = path.parent / f".{path.name[:_NAMED]}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:  # which goes through no link that somebody laid there
                file.write(content)
                if synced:
                    file.flush()
                    os.fsync(file.fileno())
            if overwrite:
                os.replace(temporary, path)
            else:
                _move_to_free(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        refuse_existing(path, overwrite=overwrite)
        raise unwritable(path, error) from error
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def sync(paths: Sequence[Path], folder: Path) -> None:
    """Has on the disk what is in the files `paths`, and which files are in `folder`; raises OSError.

    All at once, for a file system that has to sync several needs hardly longer than for one.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_sync, paths))
    _sync(folder)


def _sync(path: Path) -> None:
    """Syncs a file or folder where the system can."""
    # Windows opens no folders, what may be written may not always be read, and some file systems sync no folders.
    with suppress(PermissionError):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(opened)


def written_halfway(name: str) -> str | None:
    """The file that a temporary one called `name`, left by a killed process, was to become; None if it is none."""
    parts = name.split(".")
    if len(parts) < 4 or parts[0] or parts[-1] != "tmp" or len(parts[-2]) != 8:
        return None
    return ".".join(parts[1:-2])


def clear_halfway(folder: Path, names: Iterable[str]) -> None:
    """Takes away what killed processes had begun to write of the files `names`; raises BadFileError where it cannot.

    A process that writes one of them at this moment finds its file gone.
    """
    begun = {name[:_NAMED] for name in names}
    try:
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if written_halfway(entry.name) in begun:
                (folder / entry.name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: Exception) -> BadFileError:
    """What is said where the system refuses to write at `path`."""
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space, or choose a folder on another disk" if full else "choose a folder that you may write to"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "`ulimit -n 8192` before the command lets it have more files open"
    return BadFileError(f"{path}: cannot be written: {why}", hint=hint)


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
