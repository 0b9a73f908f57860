"""Keeps the pictures that an evaluation draws, each row's in a folder of its own, with how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tstitch_cli import provenance
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs.request import paths_of
from tstitch_cli.measuring import fingerprint
from tstitch_cli.sample import Work, write
from tstitch_cli.trajectory import Batch, Trajectory


class KeptPictures:
    """Pictures in `folder`/row-003/000000.png and so on."""

    def __init__(self, family: Family, works: Mapping[str, Work], folder: Path) -> None:
        """`works` by the name of the allocation, a row's number."""
        self.family, self.works, self.folder = family, works, folder

    def has(self, name: str, batch: Batch) -> bool:
        """Whether all of `batch` is there; raises BadFileError where another picture is in the place of one."""
        paths = [self._path(name, index) for index in batch.indices]
        there = [path.exists() for path in paths]
        for path, exists, index, prompt, seed in zip(
            paths, there, batch.indices, batch.prompts, batch.seeds, strict=True
        ):
            if exists and not self._is(path, self.works[name], index, prompt, seed):
                raise BadFileError(
                    f"{path}: is another picture than the one to be kept there", hint="keep them in another folder"
                )
        return all(there)

    def keep(self, name: str, batch: Batch, trajectory: Trajectory) -> None:
        """Writes the pictures; what is in their place was seen to be the same."""
        write(self.family, self.works[name], batch, trajectory, self._folder(name), overwrite=True)

    def _is(self, path: Path, work: Work, index: int, prompt: str, seed: int) -> bool:
        made = provenance.read(path)
        then = (made.prompt, made.index, made.seed, made.allocation, made.setting, made.weights, made.versions)
        now = (prompt, index, seed, work.allocation, work.setting, self.family.weights, fingerprint.versions())
        return then == now

    def _folder(self, name: str) -> Path:
        return self.folder / f"row-{int(name):03d}"

    def _path(self, name: str, index: int) -> Path:
        return paths_of(self._folder(name), index, None)[0]
