"""Every failure a user can cause: what is wrong, how to mend it, and the exit status it ends with."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process tells the shell; each value has a test."""

    OK = 0
    BUG = 1
    USAGE = 2
    BAD_FILE = 3
    INFEASIBLE = 4
    STALE = 5
    DEVICE = 6
    PARTIAL = 7
    VERIFICATION = 8
    INTERRUPTED = 130


class TstitchError(Exception):
    """A fault with a cure. `message` says what and where, `hint` how to go on."""

    status: ExitStatus = ExitStatus.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TstitchError):
    """The command cannot mean what was typed (unknown name, absurd number, no shared latent space)."""

    status = ExitStatus.USAGE


class BadFileError(TstitchError):
    """A file is missing, unreadable, malformed, or may not be written."""

    status = ExitStatus.BAD_FILE


class InfeasibleError(TstitchError):
    """No row of the lookup table fits the budget."""

    status = ExitStatus.INFEASIBLE


class StaleError(TstitchError):
    """A profile or plan was measured on another machine, with other versions or other weights."""

    status = ExitStatus.STALE


class DeviceError(TstitchError):
    """The device is missing, unsupported or out of memory."""

    status = ExitStatus.DEVICE


class PartialError(TstitchError):
    """Something went wrong after a part was finished, which stays."""

    status = ExitStatus.PARTIAL


def of_the_machine(error: Exception) -> TstitchError | None:
    """What to tell of a failure that is the machine's and not ours: its memory or its disks; None for any other."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return DeviceError("this machine ran out of memory", hint="ask for less at a time, or end other programs")
    if isinstance(error, OSError) and error.errno is not None:
        return BadFileError(
            f"{error.filename or 'the output'}: {error.strerror or error}",
            hint="free some space, or mend the folder's rights, and run the same command again",
        )
    return None
