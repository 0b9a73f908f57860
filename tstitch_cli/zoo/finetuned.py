"""What `tstitch finetune` makes: denoisers of the user's zoo, each in a folder of its own with its entry and record.

Such a folder holds the denoiser in diffusers' form, `zoo.yaml` with its entry, `finetune.yaml` with how it was made,
and the course of the loss. It appears whole or not at all, and the user's own zoo file is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tstitch_cli.allocation import Allocation
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.schema import Evaluation, Measured
from tstitch_cli.zoo.entry import Entry

RECORD, SCHEMA = "finetune.yaml", "tstitch/finetune/1"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Comparison:
    """What finetuning did to the pictures of the plan's row: metrics by name, the same noise for both."""

    before: dict[str, Measured]
    after: dict[str, Measured]
    evaluation: Evaluation
    """What they hold for."""


@dataclass(frozen=True)
class Record:
    """How a denoiser was finetuned."""

    base: str
    """The denoiser that it was before."""
    source: str
    revision: str | None
    weights: str
    """What the fingerprint knows the base's weights by."""
    plan: str
    """The digest of the plan."""
    allocation: Allocation
    timesteps: tuple[tuple[float, float], ...]
    """(after, upto): what it was trained on, after < t <= upto of its own training timesteps."""
    batches: int
    batch_size: int
    rate: float
    constant: bool
    """Whether the rate stays; else it falls to nothing along a cosine."""
    seed: int
    lora: int | None
    """The rank of the LoRA that was trained and merged; None where all weights were trained."""
    data: str
    data_digest: str
    first_loss: float
    last_loss: float
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    compared: Comparison | None = None
    """None where the pictures were not measured."""


def folder() -> Path:
    """The folder of all finetuned denoisers, in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("tstitch")) / "finetuned"


def zoo_files() -> list[Path]:
    """The zoo file of every finetuned denoiser."""
    return sorted(path for path in folder().glob("*/zoo.yaml") if _NAME.fullmatch(path.parent.name))


def default_name(base: str, allocation: Allocation) -> str:
    """The base's name with where its steps are: -early, -late, -middle, or -finetuned where they are several or all."""
    at = [i for i, (name, _) in enumerate(allocation) if name == base]
    place = "finetuned"
    if len(at) == 1 and len(allocation) > 1:
        place = "early" if at[0] == 0 else "late" if at[0] == len(allocation) - 1 else "middle"
    return f"{base.rpartition('/')[2]}-{place}"


def refuse_taken(name: str, known: Mapping[str, Entry], *, overwrite: bool) -> None:
    """Raises UsageError where `name` is no name for a folder, or where it is another denoiser's.

    One that was finetuned before may be replaced, with `overwrite`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a denoiser", hint="--name takes letters, digits, '.', '_' and '-'")
    taken = (folder() / name).exists()
    if name in known and known[name].source != f"folder:{(folder() / name).resolve()}":
        raise UsageError(f"the zoo has a denoiser {name} already", hint="give another --name")
    if taken and not overwrite:
        raise UsageError(f"{folder() / name}: exists already", hint="--overwrite replaces it, another --name keeps it")


@contextmanager
def appearing(name: str) -> Iterator[Path]:
    """A folder to fill, which becomes the finetuned denoiser `name` when all is in it, in place of an older one.

    Raises BadFileError where it cannot be written.
    """
    final, filling = folder() / name, folder() / f".{name}-{os.getpid()}"
    older = folder() / f".{name}-{os.getpid()}-older"
    try:
        try:
            filling.mkdir(parents=True)
            yield filling
            if final.exists():
                os.replace(final, older)
            os.replace(filling, final)
        finally:
            shutil.rmtree(filling, ignore_errors=True)
            shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        raise BadFileError(
            f"{final}: cannot be written: {error.strerror or error}", hint="is there room on the disk?"
        ) from error
