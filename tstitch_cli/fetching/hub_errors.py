"""What goes wrong between here and the hub, each fault told in one message with its cure."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tstitch_cli.errors import BadFileError, TstitchError, UsageError

Wanted = TypeVar("Wanted")
Found = TypeVar("Found")


class NotHereError(BadFileError):
    """Something that is not on this disk may not be fetched; `name` is what it is called."""

    def __init__(self, message: str, *, hint: str | None = None, name: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


_AGAIN = "run the same command again: what has come whole is kept"
_WITHOUT_INDEX = "a zoo entry can point at a denoiser alone: source, subfolder, and `parts` for the rest"


@contextmanager
def telling(repository: str, revision: str | None, path: str | None) -> Iterator[None]:
    """Turns every failure while `path` of a repository, or the list of its files, is asked for into a TstitchError."""
    try:
        yield
    except TstitchError:
        raise
    except Exception as error:  # the HTTP client's own failures differ from version to version
        raise _told(error, repository, revision, path) from error


@contextmanager
def advising(command: Callable[[], str]) -> Iterator[None]:
    """Has a refusal for what is not on this disk advise the command that fetches all that is needed."""
    try:
        yield
    except NotHereError as error:
        raise NotHereError(error.message, hint=_advice(command()), name=error.name) from error


def all_of(wanted: Iterable[Wanted], ask: Callable[[Wanted], Found]) -> list[Found]:
    """What `ask` answers for each; raises one NotHereError for all that are not on this disk and may not be fetched."""
    found, refused = [], []
    for each in wanted:
        try:
            found.append(ask(each))
        except NotHereError as error:
            refused.append(error)
    if refused:
        raise together(refused)
    return found


def together(refused: Sequence[NotHereError]) -> NotHereError:
    """One refusal for all, which names each."""
    names = list(dict.fromkeys(error.name for error in refused))
    if len(names) < 2:
        return refused[0]
    return NotHereError(
        f"{', '.join(names[:-1])} and {names[-1]}: not on this disk, and nothing may be fetched",
        hint=_advice(f"tstitch fetch {' '.join(names)}"),
    )


def not_here(name: str, paths: Sequence[str], dtype: str | None) -> NotHereError:
    """The refusal to go on without files that may not be fetched."""
    some = ", ".join(paths[:2]) + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")
    return NotHereError(
        f"{name}: not on this disk{f' ({some})' if some else ''}, and nothing may be fetched",
        hint=_advice(f"tstitch fetch {name}{f' --dtype {dtype}' if dtype else ''}"),
        name=name,
    )


def disk_full(name: str, folder: Path, size: int, room: int) -> BadFileError:
    """The refusal to begin what the disk has no room for."""
    from rich.filesize import decimal

    return BadFileError(
        f"{name}: {decimal(size)} to fetch, but {folder} has room for {decimal(room)}",
        hint="free some space, or set HF_HOME to a folder on another disk",
    )


def damaged(repository: str, path: str) -> BadFileError:
    """A file whose bytes are not those that the hub has."""
    return BadFileError(f"{repository}: {path} came damaged and was deleted", hint=_AGAIN)


def _advice(command: str) -> str:
    return f"`{command}` fetches it; leave --offline out, and unset HF_HUB_OFFLINE"


def _told(error: Exception, repository: str, revision: str | None, path: str | None) -> TstitchError:
    from huggingface_hub import constants, errors

    what = path or "the list of its files"
    # huggingface_hub says "not in the cache" of whatever kept it from asking; the reason is what it came from.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{repository}"
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    refused = response is not None and "credentials" in response.headers.get("X-Error-Message", "")
    if isinstance(error, errors.GatedRepoError):
        return UsageError(
            f"{repository}: is gated, and its terms are not accepted by the account of HF_TOKEN, or no token is set",
            hint=f"accept its terms at {page} and set HF_TOKEN to your access token ({constants.ENDPOINT}/settings/"
            "tokens)",
        )
    if status == 401 and refused:
        return UsageError(
            f"{repository}: the hub does not accept the access token",
            hint=f"set HF_TOKEN to a valid one ({constants.ENDPOINT}/settings/tokens), or unset it for public models",
        )
    # The hub does not tell those who may not see a repository from those who mistyped its name.
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)) or status == 401:
        return UsageError(
            f"{repository}: there is no such model on the hub, or it is private",
            hint="check the spelling; for a private model set HF_TOKEN to your access token",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(
            f"{repository}: has no revision {revision}", hint="give a commit, branch or tag of the repository"
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return not_here(repository, [what], None)
    if isinstance(error, errors.EntryNotFoundError):
        return BadFileError(
            f"{repository}: has no {what}", hint=f"it is no diffusers pipeline repository; {_WITHOUT_INDEX}"
        )
    if status == 403:
        return UsageError(
            f"{repository}: the hub refuses {what} to the access token",
            hint=f"accept the terms at {page}, and give the token the right to read gated repositories",
        )
    if status == 429:
        return BadFileError(
            f"{repository}: the hub had too many requests from here", hint="wait some minutes, or set HF_TOKEN"
        )
    if status is not None:
        return BadFileError(
            f"{repository}: {what} cannot be fetched: the hub answers with status {status}",
            hint=f"the fault is the hub's: {_AGAIN}; --offline uses what is here",
        )
    return _of_the_line(error, repository, what)


def _of_the_line(error: Exception, repository: str, what: str) -> TstitchError:
    """Failures of the network, the disk or the file itself."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return BadFileError(
            f"{repository}: the disk is full, {what} could not be written",
            hint=f"free some space, or set HF_HOME to a folder on another disk; {_AGAIN}",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadFileError(
            f"{repository}: {what} could not be written: {getattr(error, 'filename', None) or 'the cache'} may not be "
            "changed",
            hint="set HF_HOME to a folder that you may write to",
        )
    kind = type(error).__name__
    if kind == "SafetensorsParsingError":
        return BadFileError(f"{repository}: the weights in {what} are no safetensors files")
    if kind in ("ConnectError", "ConnectTimeout", "ProxyError", "HfHubHTTPError"):
        return BadFileError(
            f"{repository}: {what} cannot be fetched: the hub cannot be reached",
            hint="check the connection (and HF_ENDPOINT, where it is set); --offline uses what is here",
        )
    if kind in ("RemoteProtocolError", "ReadError", "ReadTimeout", "WriteError") or "Consistency check" in str(error):
        return BadFileError(f"{repository}: the connection broke off while {what} was fetched", hint=_AGAIN)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return BadFileError(
        f"{repository}: {what} cannot be fetched: {kind}: {first}",
        hint="check the connection; --offline uses what is here, a downloaded folder can be given instead",
    )
