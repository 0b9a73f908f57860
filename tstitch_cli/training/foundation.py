"""What a part of a family rests on: parts trained before it, or those that come with the package."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from tstitch_cli import files
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.training.workshop import RECORD, WORK

RestsOn = Mapping[str, Sequence[str]]
"""Part -> the parts that it is trained with."""


def lay(
    parts: Sequence[str],
    rests_on: RestsOn,
    folder_of: Callable[[str], Path],
    out: Path,
    bundled: Path,
    made_with: RestsOn,
) -> list[str]:
    """Sees to it that what `parts`, trained in this order, rest on is in `out`; the parts copied there from `bundled`.

    `folder_of` tells where in `out` a part's weights go, `made_with` the folders besides. A bundled part is taken only
    where all that it rests on is the bundled one as well, and all that rests on it, for it goes with no other.

    Raises:
        UsageError: something is missing that has to be trained before, or `out` has parts of another family.
        BadFileError: `out` cannot be written to, or something that is no part is in the way there.
    """
    for place in dict.fromkeys(map(folder_of, rests_on)):
        if (place / RECORD).is_file() and (whose := _name(place / RECORD)) not in rests_on:
            raise UsageError(f"{place} is {whose}, of another family", hint="give --out another folder")
    laid: list[str] = []
    for number, part in enumerate(parts):
        trained = {folder_of(each) for each in parts[:number]}
        for each in rests_on[part]:
            place = folder_of(each)
            if each in laid or place in trained or (place / RECORD).is_file():
                continue
            below = dict.fromkeys(map(folder_of, _below(each, rests_on)))
            others = [where.name for where in below if where in trained or _differs(where, out, bundled)]
            above = [folder_of(one) for one, needed in rests_on.items() if each in needed and one not in parts]
            others += [where.name for where in above if _differs(where, out, bundled)]
            if others or not _comes(each, place, out, bundled):
                why = f"; the package's goes with its own {' and '.join(others)} alone" if others else ""
                raise UsageError(
                    f"{part} rests on {each}, which is not in {out}{why}",
                    hint=f"train {each} first, or give --out another folder",
                )
            laid.append(each)
    if laid:
        places, wanted = (
            {name for part in some for name in (folder_of(part).name, *made_with.get(part, ()))}
            for some in (rests_on, laid)
        )
        for found in sorted(bundled.iterdir()):
            if found.name in wanted or (found.name not in places and not (out / found.name).exists()):
                _copy(found, out / found.name, begun=(out / WORK).is_dir())
    return laid


def _below(part: str, rests_on: RestsOn) -> Iterator[str]:
    """All that `part` rests on, directly or not."""
    for each in rests_on[part]:
        yield each
        yield from _below(each, rests_on)


def _differs(place: Path, out: Path, bundled: Path) -> bool:
    """Whether what is at `place` in `out` was trained there, and is not what is bundled."""
    here, there = place / RECORD, bundled / place.relative_to(out) / RECORD
    return here.is_file() and not (there.is_file() and here.read_bytes() == there.read_bytes())


def _comes(part: str, place: Path, out: Path, bundled: Path) -> bool:
    """Whether `part` comes with the package: not where what does is what was made of it."""
    record = bundled / place.relative_to(out) / RECORD
    return record.is_file() and _name(record) == part


def _name(record: Path) -> str:
    """Of the part that a training's record is of."""
    try:
        return str(yaml.safe_load(record.read_text())["name"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return "nothing that was trained here"


def _copy(source: Path, target: Path, *, begun: bool) -> None:
    """Copies a file or folder, whole or not at all; what a killed training left there goes, if any was `begun`."""
    if target.is_dir() and any(target.iterdir()) and not begun:
        raise BadFileError(f"{target}: is in the way of what is to be copied there", hint="give --out another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
            made = Path(temporary) / source.name
            if source.is_dir():
                shutil.copytree(source, made)
            else:
                shutil.copyfile(source, made)
            if target.is_dir():
                shutil.rmtree(target)
            made.replace(target)
    except OSError as error:
        raise files.unwritable(target, error) from error
