"""Fetches files of the hub's repositories into huggingface's cache, and checks what came."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tstitch_cli.fetching.hub_errors import damaged, disk_full, telling
from tstitch_cli.formats import strict_json
from tstitch_cli.zoo import allowed, needed

Progress = Callable[[str, float], None]
"""Told what is fetched now, and the share of all that is done."""


@dataclass(frozen=True)
class File:
    """A file of a repository: its bytes, and their SHA-256 where the hub tells it (as it does of weights)."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Missing:
    """Files that one denoiser or ControlNet needs of one repository at one commit, and that are not on this disk."""

    name: str
    """The denoiser's or ControlNet's."""
    repository: str
    commit: str
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())


def silent(doing: str, share: float) -> None:
    """The progress of whoever does not look."""


def fetch(found: Sequence[Missing], cache: Path, progress: Progress = silent) -> None:
    """Fetches everything that is missing into `cache`, configs first, each checked before any weights are fetched.

    Raises:
        UsageError: a repository may not be read, or a config names code to be run.
        BadFileError: there is no room on the disk, the connection broke off, or a file came damaged; what came whole
            is kept, and a later run fetches the rest.
    """
    total = sum(each.size for each in found)
    room = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if total > room:
        raise disk_full(", ".join(dict.fromkeys(each.name for each in found)), cache, total, room)
    done = 0
    files = [(each, path, about) for each in found for path, about in each.files.items()]
    for each, path, about in sorted(files, key=lambda item: item[1].endswith(".safetensors")):
        words = f"fetching {path} of {each.name}"
        progress(words, done / max(total, 1))
        _fetch(each, path, about, cache, _within(progress, words, done, max(total, 1)))
        done += about.size


def quiet() -> None:
    """What goes wrong is told once, by us."""
    import warnings

    from huggingface_hub.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module=r"huggingface_hub\b")


def _fetch(each: Missing, path: str, about: File, cache: Path, advance: Callable[[int], None]) -> None:
    """Fetches one file into the cache and checks what came."""
    with telling(each.repository, each.commit, path):
        import huggingface_hub

        quiet()
        arrived = Path(
            huggingface_hub.hf_hub_download(
                each.repository, path, revision=each.commit, cache_dir=cache, tqdm_class=_counter(advance)
            )
        )
    if about.sha256 is not None and _sha256(arrived) != about.sha256:
        # Both the name in the snapshot and the bytes it links to, so that a later run fetches the file again.
        arrived.resolve().unlink(missing_ok=True)
        arrived.unlink(missing_ok=True)
        raise damaged(each.repository, path)
    if arrived.name == needed.CONFIG:
        where = f"{each.repository}, {path}"
        allowed.refuse_code(strict_json.read(arrived, where), where)


def _within(progress: Progress, words: str, before: int, total: int) -> Callable[[int], None]:
    """From the bytes of one file that have come to the share of all, `before` having come with earlier files."""
    return lambda come: progress(words, (before + come) / total)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _counter(advance: Callable[[int], None]) -> Any:
    """A tqdm class that shows nothing and tells `advance` how many bytes of a file have come."""
    from tqdm import tqdm

    class Counter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(disable=True)
            self.bytes = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.bytes += int(n or 0)
            advance(self.bytes)

        def update_transfer(self, n: float | None = 1) -> None:
            """What huggingface_hub calls for bytes on the line, which `update` counts once they are on the disk."""

    return Counter
