"""One process at a time, on one machine or on several that share a file system; a killed one holds no lock."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tstitch_cli.errors import BadFileError
from tstitch_cli.files import unwritable


@contextmanager
def held(path: Path, *, wait_s: float, taken: str) -> Iterator[None]:
    """Holds the lock file at `path`, which is gone afterwards.

    Raises:
        BadFileError: another process has it and keeps it for `wait_s` seconds (`taken` is what is said then), the
            file is a link, or it cannot be written.
    """
    if path.is_symlink():
        raise _is_a_link(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise BadFileError(taken, hint="wait until it has ended, or choose another folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:  # laid there since
            raise _is_a_link(path) from error
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        # Before it is released: who waits for this file then finds that it is gone, and looks again.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


def _is_a_link(path: Path) -> BadFileError:
    return BadFileError(f"{path}: is a link, and through a link nothing is written", hint="remove it")
