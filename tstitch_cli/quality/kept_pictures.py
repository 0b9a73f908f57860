"""Keeps the pictures that an evaluation draws: each row's are a job in a folder of its own, with a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs.manifest import Manifest, OccupiedError, claimed
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


@contextmanager
def keeping(
    family: Family,
    works: Mapping[str, Work],
    folder: Path,
    prompts: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    shard: Shard,
) -> Iterator[KeptPictures]:
    """Takes `folder`/row-003 and so on for the job of drawing `prompts`, one a picture, by the row of that number.

    They are jobs as `tstitch sample` has them, in batches of the `batch_size` that the evaluation draws at once.

    Raises:
        BadFileError: a folder holds other pictures, or cannot be written; see `manifest.claimed`.
    """
    identity = Identity(family.weights, fingerprint.versions())
    size = min(batch_size, len(prompts))
    drawn = {name: replace(work, setting=replace(work.setting, batch_size=size)) for name, work in works.items()}
    given = tuple(map(Prompt, prompts))
    with ExitStack() as claims:
        manifests = {}
        for name, work in drawn.items():
            place = folder / f"row-{int(name):03d}"
            request = Request(given, place, seed=seed, loras=family.loras, shard=shard)
            with _as_evaluate_has_it():
                manifests[name] = claims.enter_context(claimed(job(work, request, identity), request))
        yield KeptPictures(family, drawn, manifests)


@contextmanager
def _as_evaluate_has_it() -> Iterator[None]:
    """Advises what `tstitch evaluate` can do, which has no --overwrite, where other pictures are in the way."""
    try:
        yield
    except OccupiedError as error:
        raise BadFileError(error.message, hint="--keep them in another folder, or move away what is there") from error
