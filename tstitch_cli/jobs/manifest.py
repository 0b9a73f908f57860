"""The manifest of a job: what decides every byte of its pictures, then a line for each finished file.

    {"job": {...}, "schema": "tstitch/manifest/1"}
    {"file": "000000.png", "index": 0, "sha256": "..."}

While a job runs, the lines of a batch are appended when all of its files are there, and on the disk: a process killed
or a machine without power at any moment leaves whole batches, and at worst a torn last line. The finished manifest is
in the order of the pictures and has no time in it: the same job gives the same bytes, however often it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from tstitch_cli import files
from tstitch_cli.errors import BadFileError
from tstitch_cli.formats import strict_json
from tstitch_cli.images import write_png
from tstitch_cli.jobs import locks
from tstitch_cli.jobs.job import Job, canonical, differences, header, read_job
from tstitch_cli.jobs.request import SHEET, Pictures, Request, is_name, names_of

CLAIM_S = 60.0
"""How long to wait for others that are looking through the folder at the same moment."""
_NAME = re.compile(r"manifest(-[0-9]+-of-[0-9]+)?\.jsonl")
_SHA = re.compile(r"[0-9a-f]{64}")
_TOLD = 5
_BROKEN = "--overwrite begins a new manifest, and leaves those pictures that are as they should be"
Progress = Callable[[str, float], None]


class OccupiedError(BadFileError):
    """Something else is in the place of what a job draws; the hint is for commands that have --out and --overwrite."""


class Manifest:
    """A job in its folder, locked for this process: what is finished, and what is left to draw."""

    def __init__(self, path: Path, job: Job, request: Request) -> None:
        """Knows what is to be drawn, and nothing yet of what is there: see `claimed`."""
        self.path = path
        self.folder = path.parent
        self._header = header(job)
        self._overwrite = request.overwrite
        self._batches = request.batches(job.setting.batch_size)
        self._names = {
            picture.index: names_of(picture.index, job.setting.frames)
            for pictures in self._batches
            for picture in pictures
        }
        self._files = {name: index for index, names in self._names.items() for name in names}
        self._done: dict[str, str] = {}

    @property
    def pictures(self) -> int:
        """How many pictures this process is to see to."""
        return len(self._names)

    @property
    def finished(self) -> int:
        """How many of them are finished."""
        return sum(self.has([index]) for index in self._names)

    @property
    def missing(self) -> tuple[Pictures, ...]:
        """The batches with a picture that is not finished; they are drawn whole, as kernels round by the batch."""
        return tuple(pictures for pictures in self._batches if not self.has([picture.index for picture in pictures]))

    def has(self, indices: Iterable[int]) -> bool:
        """Whether the pictures `indices` are finished."""
        return all(name in self._done for index in indices for name in self._names[index])

    def record(self, drawn: Sequence[tuple[str, bytes]]) -> tuple[Path, ...]:
        """Writes the files of a batch and then their lines; what is there already with the same bytes is left.

        Raises:
            BadFileError: another picture is in the place of one and may not be replaced, something cannot be written,
                or the manifest was taken away.
        """
        self._require_here()
        lines = []
        for name, content in drawn:
            self._put(self.folder / name, content)
            sha = hashlib.sha256(content).hexdigest()
            lines.append((name, sha))
        paths = tuple(self.folder / name for name, _ in drawn)
        with _telling(self.folder):
            files.sync(paths, self.folder)
        self._append("".join(self._line(name, sha) for name, sha in lines).encode("ascii"))
        self._done.update(lines)
        return paths

    def _put(self, path: Path, content: bytes) -> None:
        if not _empty(path) and path.is_file() and not path.is_symlink():
            if path.stat().st_size == len(content) and _content(path) == content:
                return
            if not self._overwrite:
                raise OccupiedError(
                    f"{path}: exists already, and is not the picture that this job draws",
                    hint="--overwrite replaces it; or move it away and give the same command again",
                )
        # Nobody else writes it, as the manifest is locked.
        write_png(path, content, overwrite=True)

    def _append(self, lines: bytes) -> None:
        with _telling(self.path), self.path.open("ab", buffering=0) as file:
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())

    def _require_here(self) -> None:
        """Where the folder was taken away, pictures alone would come back, in a folder without their manifest."""
        if not self.path.is_file():
            raise BadFileError(
                f"{self.path}: was removed while its pictures were drawn",
                hint="the same command draws into a folder of that name anew",
            )

    def _line(self, name: str, sha: str) -> str:
        return canonical({"file": name, "index": self._files[name], "sha256": sha})

    def refuse_pictures(self) -> None:
        """Raises OccupiedError where a file of the job is there already, whoever wrote it."""
        found = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        for name in sorted(found & self._files.keys()):
            if not _empty(self.folder / name):
                raise OccupiedError(
                    f"{self.folder / name}: exists already", hint="--overwrite replaces it, another --out keeps it"
                )

    def _begin(self, shares: Sequence[Path] = ()) -> None:
        """Writes the manifest of a job that is new here, with what those of its `shares` list as finished."""
        # A share that was killed has drawn pictures that it does not list; `record` looks at them as at any it finds.
        if not self._overwrite and not shares:
            self.refuse_pictures()
        self._write(self._header + "".join(self._line(*each) for each in self._listed(shares).items()))
        with _telling(self.folder):
            files.sync((), self.folder.parent)  # it may be new

    def _listed(self, manifests: Sequence[Path]) -> dict[str, str]:
        """The SHA-256 of each file that one of `manifests` lists."""
        return {name: sha for path in manifests for name, sha in self._said(path)[0].items()}

    def _write(self, content: str) -> None:
        files.write(self.path, content.encode("ascii"), overwrite=True, synced=True)
        with _telling(self.folder):
            files.sync((), self.folder)

    def _look(self, progress: Progress) -> None:
        """Finds out what is finished."""
        said, whole = self._said(self.path)
        altered = []
        for number, (name, sha) in enumerate(said.items(), 1):
            progress("looking at what is here", number / len(said))
            path = self.folder / name
            if not os.path.lexists(path) or _empty(path):
                continue
            if path.is_symlink() or not path.is_file() or _sha(path) != sha:
                altered.append(name)
            else:
                self._done[name] = sha
        if altered and not self._overwrite:
            more = f" and {len(altered) - _TOLD} more" if len(altered) > _TOLD else ""
            raise OccupiedError(
                f"{self.folder}: changed since they were drawn: {', '.join(altered[:_TOLD])}{more}: "
                f"their SHA-256 is not the one in {self.path.name}",
                hint="--overwrite draws them again; or move them away and give the same command again",
            )
        with _telling(self.path):
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)  # a line that was being written when the process was killed

    def _said(self, path: Path) -> tuple[dict[str, str], int]:
        """What the manifest at `path` lists, and the length of its whole lines; a broken one may be begun anew."""
        try:
            return _lines(path, self._files)
        except BadFileError:
            if not self._overwrite:
                raise
            if path == self.path:
                self._begin()
            return {}, len(self._header)

    def _clear(self, manifests: Iterable[Path]) -> None:
        """Takes away what killed processes had begun to write of this job's files and of `manifests`."""
        files.clear_halfway(self.folder, {*self._files, SHEET, self.path.name, *(path.name for path in manifests)})

    def _finish(self) -> None:
        """Puts the lines of a complete job in order."""
        content = self._header + "".join(self._line(name, self._done[name]) for name in sorted(self._done))
        if not self.missing and _content(self.path) != content.encode("ascii"):
            self._write(content)


@contextmanager
def claimed(job: Job, request: Request, progress: Progress = lambda doing, share: None) -> Iterator[Manifest]:
    """Takes `request`'s folder for `job`: begins its manifest, or reads it and looks at the pictures that are there.

    A whole job takes over what its shares have finished: their manifests become the one of all. Where a job fails
    before its first picture is finished, what this made is taken away again.

    Raises:
        BadFileError: another process draws this job there, the folder holds another job or pictures of unknown origin
            (which `overwrite` allows to be replaced), pictures were changed since, or it cannot be written.
    """
    folder, path = request.folder, path_of(request)
    files.refuse_existing(path, overwrite=True)
    _refuse_unusual(path)
    new = not folder.exists()
    with _telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
    book = Manifest(path, job, request)
    with ExitStack() as kept:
        if new:
            kept.callback(_leave_no_empty, folder)
        # Held by one at a time, so that no two begin different jobs; looking at the pictures takes longer and is not
        # done under it.
        busy = f"{folder}: other processes are busy looking through it"
        with locks.held(folder / ".manifest.lock", wait_s=CLAIM_S, taken=busy):
            kept.enter_context(_drawing(path))
            shares, others = _there(job, request)
            if others and not request.overwrite:
                raise _another(folder, others)
            # One after another, for thousands at once would be more open files than a process may have: whoever draws
            # had to come by here to begin, and nobody else does now.
            for other in {*shares, *others} - {path}:
                with _drawing(other):
                    pass
            book._clear((*shares, *others))
            for other in others:
                _give_up(other)
            if begun := not path.exists() or _empty(path):
                book._begin(shares)
            for share in shares:
                _remove(share)
        book._look(progress)
        try:
            yield book
        except BaseException:
            if begun and not book.finished:
                path.unlink(missing_ok=True)
            raise
        book._finish()


def _leave_no_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def refuse_other(job: Job, request: Request) -> None:
    """Raises BadFileError where `claimed` would for what is in the folder, without looking at the pictures' bytes."""
    if request.overwrite:
        return
    shares, others = _there(job, request)
    if others:
        raise _another(request.folder, others)
    path = path_of(request)
    if not shares and (not path.exists() or _empty(path)):
        files.refuse_existing(path, overwrite=True)
        Manifest(path, job, request).refuse_pictures()


def path_of(request: Request) -> Path:
    """The manifest of a request; a shard's has a name of its own, so that shards may have one folder."""
    shard = request.shard
    return request.folder / (f"manifest-{shard.number}-of-{shard.of}.jsonl" if shard.of > 1 else "manifest.jsonl")


def _drawing(path: Path) -> AbstractContextManager[None]:
    """The lock of the process that draws the manifest at `path`."""
    taken = f"{path.parent}: another tstitch is drawing this into it at this moment"
    return locks.held(path.with_name(f".{path.name}.lock"), wait_s=0.0, taken=taken)


def _there(job: Job, request: Request) -> tuple[list[Path], dict[Path, list[str]]]:
    """The other manifests in the folder: of shares of `job`, where it is whole, and of other jobs with what differs."""
    here = json.loads(header(job))["job"]
    shares, others = [], {}
    for path in sorted(request.folder.glob("manifest*.jsonl")):
        if _NAME.fullmatch(path.name) and not _empty(path):
            _refuse_unusual(path)
            share = request.shard.of == 1 and path != path_of(request)
            try:
                then = read_job(path)
                different = differences(then, here | {"shards": then.get("shards")} if share else here)
            except BadFileError as error:
                different = [error.message]
            if different:
                others[path] = different
            elif share:
                shares.append(path)
    return shares, others


def _refuse_unusual(path: Path) -> None:
    """Raises BadFileError for a manifest that is a link, which leads elsewhere, or a pipe, which would never end."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BadFileError(f"{path}: is a link or no regular file, which no manifest is", hint="move it away")


def _another(folder: Path, others: Mapping[Path, list[str]]) -> OccupiedError:
    path, different = next(iter(others.items()))
    more = [f"and {len(different) - _TOLD} more"] if len(different) > _TOLD else []
    return OccupiedError(
        f"{folder}: holds the pictures of another job ({path.name}): {'; '.join(different[:_TOLD] + more)}",
        hint="choose another folder with --out; --overwrite gives up the job that is there and replaces its pictures",
    )


def _lines(path: Path, known: Mapping[str, int]) -> tuple[dict[str, str], int]:
    """The SHA-256 of each finished file, the last word on it, and how many bytes the whole lines are."""
    said: dict[str, str] = {}
    with _telling(path), path.open("rb") as file:
        whole = len(file.readline(strict_json.LIMIT_BYTES + 1))
        for number, line in enumerate(iter(lambda: file.readline(strict_json.LIMIT_BYTES + 1), b""), 2):
            if not line.endswith(b"\n") and len(line) <= strict_json.LIMIT_BYTES:
                break
            try:
                found = strict_json.parse(line, f"{path}:{number}")
            except BadFileError as error:
                raise OccupiedError(error.message, hint=_BROKEN) from error
            name, sha = found.get("file"), found.get("sha256")
            right = isinstance(name, str) and isinstance(sha, str) and _SHA.fullmatch(sha) and name in known
            if not right or found != {"file": name, "index": known[str(name)], "sha256": sha}:
                raise OccupiedError(f"{path}:{number}: is no line about a picture of this job", hint=_BROKEN)
            said[str(name)] = str(sha)
            whole += len(line)
    return said, whole


def _give_up(path: Path) -> None:
    """Removes the pictures that another job's manifest lists and their contact sheet, and then the manifest."""
    with _telling(path), path.open("rb") as file:
        for line in iter(lambda: file.readline(strict_json.LIMIT_BYTES + 1), b""):
            with suppress(BadFileError):  # whatever else stands there, it is given up
                name = strict_json.parse(line, "").get("file")
                if isinstance(name, str) and is_name(name):
                    _remove(path.with_name(name))
    _remove(path.with_name(SHEET))
    _remove(path)


def _empty(path: Path) -> bool:
    """Whether there is a file of no bytes, such as file systems have after a power loss: as good as none."""
    with _telling(path):
        return not path.is_symlink() and path.is_file() and path.stat().st_size == 0


def _remove(path: Path) -> None:
    with _telling(path):
        path.unlink(missing_ok=True)


def _sha(path: Path) -> str:
    with _telling(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> bytes:
    with _telling(path):
        return path.read_bytes()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.unwritable(path, error) from error
