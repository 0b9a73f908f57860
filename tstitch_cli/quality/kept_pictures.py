"""Keeps the pictures that an evaluation draws: each row's are a job in a folder of its own, with a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs.manifest import Manifest, OccupiedError, Progress, claimed, refuse_other
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.jobs.shards import Shard
from tstitch_cli.measuring import fingerprint
from tstitch_cli.sample import Identity, Work, encoded, job
from tstitch_cli.trajectory import Batch, Trajectory


class KeptPictures:
    """The manifests of the rows that are drawn, by the name of the allocation."""

    def __init__(self, family: Family, works: Mapping[str, Work], manifests: Mapping[str, Manifest]) -> None:
        """`works` and `manifests` by the name of the allocation, a row's number."""
        self.family, self.works, self.manifests = family, works, manifests

    def has(self, name: str, batch: Batch) -> bool:
        """Whether all of `batch` is there."""
        return self.manifests[name].has(batch.indices)

    def keep(self, name: str, batch: Batch, trajectory: Trajectory) -> None:
        """Writes the pictures and their lines; raises what `Manifest.record` raises."""
        with _as_evaluate_has_it():
            self.manifests[name].record(encoded(self.family, self.works[name], batch, trajectory))


Kept = dict[str, tuple[Work, Request]]
"""What is drawn and to be kept of each row, by the name of its allocation."""


def jobs_of(
    works: Mapping[str, Work], folder: Path, prompts: Sequence[str], *, seed: int, batch_size: int, shard: Shard
) -> Kept:
    """The jobs of drawing `prompts`, one a picture, into `folder`/row-003 and so on by the row of that number.

    They are as `tstitch sample` has them, in batches of the `batch_size` that the evaluation draws at once.
    """
    size, given = min(batch_size, len(prompts)), tuple(map(Prompt, prompts))
    return {
        name: (
            replace(work, setting=replace(work.setting, batch_size=size)),
            Request(given, folder / f"row-{int(name):03d}", seed=seed, shard=shard),
        )
        for name, work in works.items()
    }


def refuse_others(kept: Kept) -> None:
    """Raises BadFileError where `keeping` would for what is in the folders, as far as it is known before loading."""
    with _as_evaluate_has_it():
        for work, request in kept.values():
            refuse_other(job(work, request), request)


@contextmanager
def keeping(family: Family, kept: Kept, progress: Progress) -> Iterator[KeptPictures]:
    """Takes the folders of `kept` for what `family` draws.

    Raises:
        BadFileError: a folder holds other pictures, or cannot be written; see `manifest.claimed`.
    """
    identity = Identity(family.weights, fingerprint.versions())
    with ExitStack() as claims:
        manifests = {}
        for name, (work, request) in kept.items():
            with _as_evaluate_has_it():
                manifests[name] = claims.enter_context(claimed(job(work, request, identity), request, progress))
        yield KeptPictures(family, {name: work for name, (work, _) in kept.items()}, manifests)


@contextmanager
def _as_evaluate_has_it() -> Iterator[None]:
    """Advises what `tstitch evaluate` can do, which has no --overwrite, where other pictures are in the way."""
    try:
        yield
    except OccupiedError as error:
        raise BadFileError(error.message, hint="--keep them in another folder, or move away what is there") from error
