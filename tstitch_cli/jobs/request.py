"""What is to be drawn and where to: the one request that sample, demo and every engine share."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tstitch_cli.errors import UsageError
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.jobs.prompts import MAX_PICTURES, Prompt
from tstitch_cli.jobs.shards import WHOLE, Shard
from tstitch_cli.schema import GivenFile

SHEET = "grid.png"
"""The contact sheet of a job, beside its pictures."""
_NAME = re.compile(r"[0-9]{6}(-[0-9]{3,})?\.png", re.ASCII)


@dataclass(frozen=True)
class Picture:
    """One picture of a request; its noise comes from (seed, index) alone."""

    index: int
    prompt: str
    seed: int = 0
    negative_prompt: str | None = None


Pictures = tuple[Picture, ...]
"""Those of one batch."""


@dataclass(frozen=True)
class Request:
    """What to draw: prompts, how many of each, from which noise, with which files; and the folder for the pictures."""

    prompts: tuple[Prompt, ...]
    folder: Path
    count: int = 1
    """Of each prompt that does not say it."""
    seed: int = 0
    """Of each prompt that has none of its own."""
    negative_prompt: str | None = None
    """Of each prompt that has none of its own."""
    given: Given = NOTHING
    loras: tuple[GivenFile, ...] = ()
    shard: Shard = WHOLE
    """The share of the batches that this process draws."""
    grid: bool = False
    """Also a contact sheet."""
    overwrite: bool = False

    @cached_property
    def pictures(self) -> Pictures:
        """Every picture, by index: those of the first prompt, then of the next. Raises UsageError for too many."""
        counts = [self.count if prompt.count is None else prompt.count for prompt in self.prompts]
        if sum(counts) > MAX_PICTURES:
            raise UsageError(
                f"{sum(counts)} pictures are more than {MAX_PICTURES}, the most that one folder is numbered for",
                hint="draw fewer, or split the prompts over several folders",
            )
        each = [prompt for prompt, count in zip(self.prompts, counts, strict=True) for _ in range(count)]
        return tuple(
            Picture(
                index,
                prompt.text,
                self.seed if prompt.seed is None else prompt.seed,
                self.negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt,
            )
            for index, prompt in enumerate(each)
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """Every prompt and negative prompt, each once."""
        texts = (text for each in self.pictures for text in (each.prompt, each.negative_prompt))
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    def batches(self, size: int) -> tuple[Pictures, ...]:
        """The batches of `size` that this request's shard draws."""
        return self.shard.take(batches(self.pictures, size))


def batches(pictures: Sequence[Picture], size: int) -> list[Pictures]:
    """`pictures` in batches of `size`, in their order, those with a negative prompt after those without.

    The two are never in one batch, for some pipelines (SDXL) treat none otherwise than an empty one.
    """
    found = []
    for negative in (False, True):
        alike = [picture for picture in pictures if (picture.negative_prompt is not None) is negative]
        found += [tuple(alike[start : start + size]) for start in range(0, len(alike), size)]
    return found


def names_of(index: int, frames: int | None) -> tuple[str, ...]:
    """The files of picture `index`: 000007.png; the frames of a video 000007-000.png, 000007-001.png and so on."""
    if frames is None:
        return (f"{index:06d}.png",)
    return tuple(f"{index:06d}-{frame:03d}.png" for frame in range(frames))


def is_name(name: str) -> bool:
    """Whether `names_of` gives a picture or a frame this name."""
    return _NAME.fullmatch(name) is not None


def paths_of(folder: Path, index: int, frames: int | None) -> tuple[Path, ...]:
    """Where picture `index` goes: see `names_of`."""
    return tuple(folder / name for name in names_of(index, frames))


def digest_of(values: Iterable[object]) -> str:
    """SHA-256 of `values` in their order, each in JSON on a line of its own."""
    sha = hashlib.sha256()
    for value in values:
        sha.update(json.dumps(value).encode("ascii") + b"\n")
    return sha.hexdigest()
