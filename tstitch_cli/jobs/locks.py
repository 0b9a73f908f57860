"""One process at a time, on one machine or on several that share a file system; a killed one holds no lock."""

from __future__ import annotations

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
        BadFileError: another process has it and keeps it for `wait_s` seconds (`taken` is what is said then), or the
            file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise BadFileError(taken, hint="wait until it has ended, or choose another folder with --out") from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()
