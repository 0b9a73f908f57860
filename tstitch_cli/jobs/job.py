"""What decides every byte of a set of pictures, as the first line of their manifest, and how another job differs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError
from tstitch_cli.formats import strict_json
from tstitch_cli.jobs.request import Request, digest_of
from tstitch_cli.schema import GivenFile, PlannedDenoiser, Setting

SCHEMA = "tstitch/manifest/1"
_DIGEST = re.compile(r"[0-9a-f]{40,}")
_WIDEST = 80
"""Characters of a name or value that are told."""


@dataclass(frozen=True)
class Job:
    """What decides every byte of a job's pictures, and which of them are this process's."""

    denoisers: tuple[PlannedDenoiser, ...]
    setting: Setting
    evaluations: tuple[tuple[int, int], ...]
    allocation: tuple[tuple[str, int], ...]
    files: tuple[GivenFile, ...]
    pictures: int
    prompts: str
    """The digest of all prompts, in their order."""
    seed: int | str
    """Of all pictures, or the digest of theirs."""
    negative_prompt: str | None
    """Of all pictures, or the digest of theirs."""
    shard: int
    shards: int
    weights: dict[str, str] | None = None
    """Denoiser -> what its weights are known by; None where that is not known yet."""
    versions: dict[str, str] | None = None


def job_of(
    request: Request,
    setting: Setting,
    denoisers: tuple[PlannedDenoiser, ...],
    evaluations: tuple[tuple[int, int], ...],
    allocation: tuple[tuple[str, int], ...],
    weights: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Job:
    """The job that `request` is for an allocation."""
    pictures = request.pictures
    seeds = [picture.seed for picture in pictures]
    negative = [picture.negative_prompt for picture in pictures]
    return Job(
        denoisers=denoisers,
        setting=setting,
        evaluations=evaluations,
        allocation=allocation,
        files=(*request.given.files, *request.loras),
        pictures=len(pictures),
        prompts=digest_of(picture.prompt for picture in pictures),
        seed=seeds[0] if len(set(seeds)) == 1 else f"sha256 {digest_of(seeds)}",
        negative_prompt=negative[0] if len(set(negative)) == 1 else f"sha256 {digest_of(negative)}",
        shard=request.shard.number,
        shards=request.shard.of,
        weights=None if weights is None else dict(weights),
        versions=None if versions is None else dict(versions),
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two jobs, but for the number of the shard and what is not known now.

    Raises BadFileError where `then`, which a stranger may have written, is nested too deeply.
    """
    try:
        before = dict(_flat(then))
    except RecursionError:
        raise BadFileError("what it says of its job is nested too deeply") from None
    after = dict(_flat(now))
    known = {name.partition(".")[0] for name in after}
    unknown = {"shard"} | ({"weights", "versions"} - known)
    names = [name for name in (*after, *(before.keys() - after.keys())) if name.partition(".")[0] not in unknown]
    return [
        f"{_cut(name)} was {_short(before.get(name))}, is {_short(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _short(value: Any) -> str:
    digest = isinstance(value, str) and _DIGEST.fullmatch(value)
    return f"{value[:8]}..." if digest else _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def header(job: Job) -> str:
    """The first line of the manifest of `job`."""
    return canonical({"schema": SCHEMA, "job": documents.plain(job)})


def canonical(value: Any) -> str:
    """A line of JSON, the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def read_job(path: Path) -> dict[str, Any]:
    """The job that a manifest says it is of; raises BadFileError where it is none."""
    try:
        with path.open("rb") as file:
            line = file.readline(strict_json.LIMIT_BYTES + 1)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = strict_json.parse(line, f"{path}:1")
    job = found.get("job")
    if found.keys() != {"schema", "job"} or found["schema"] != SCHEMA or not isinstance(job, dict):
        raise BadFileError(f"{path}:1: is no {SCHEMA}")
    return job
