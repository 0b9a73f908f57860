"""The contact sheet of a job, beside its pictures and drawn from their files."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.jobs.request import SHEET, Request, names_of

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 500
"""Pictures of one sheet, some 40 million pixels."""
ACROSS = 16
"""Pictures beside each other."""


def refuse_many(request: Request) -> None:
    """Raises UsageError where `request` has more pictures than a sheet can be looked at with."""
    if (pictures := len(request.pictures)) > MOST:
        raise UsageError(
            f"a contact sheet of {pictures:,} pictures is more than anybody looks at: {MOST} is the most",
            hint="leave --grid out, or draw a sheet of fewer pictures into another folder",
        )


def save(request: Request, frames: int | None) -> Path | None:
    """Writes the sheet of a finished job; where it is, None if it was there as it should be.

    Raises BadFileError where something else is in its place, unless `request` overwrites, or it cannot be written.
    """
    from tstitch_cli.images import sheet_png, write_png

    path, content = request.folder / SHEET, sheet_png(_drawn(request, frames))
    if path.is_file() and not path.is_symlink() and path.stat().st_size:
        if path.read_bytes() == content:
            return None
        if not request.overwrite:
            raise BadFileError(
                f"{path}: exists already, and is not the contact sheet of these pictures",
                hint="--overwrite replaces it; or move it away",
            )
    write_png(path, content, overwrite=True)
    return path


def _drawn(request: Request, frames: int | None) -> Image:
    """A row for each prompt, or several where it has many pictures; of a video its first frame."""
    from PIL import Image

    from tstitch_cli.images import contact_sheet, fitted

    rows: list[list[Image.Image]] = []
    labels: list[str] = []
    pictures = iter(request.pictures)
    for prompt in request.prompts:
        cells = []
        for picture in islice(pictures, request.count if prompt.count is None else prompt.count):
            with Image.open(request.folder / names_of(picture.index, frames)[0], formats=("PNG",)) as image:
                cells.append(fitted(image))
        for start in range(0, len(cells), ACROSS):
            rows.append(cells[start : start + ACROSS])
            labels.append("" if start else prompt.text)
    return contact_sheet(rows, labels, ())
