"""Pictures as PNG files with their provenance inside, and the labelled contact sheet."""

from __future__ import annotations

import importlib.util
import io
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from tstitch_cli import files, provenance
from tstitch_cli.errors import BadFileError
from tstitch_cli.provenance import Provenance

SMALLEST, LARGEST = 96, 256
"""Longer side in pixels of a picture in a contact sheet."""
_GAP, _MARGIN = 8, 20
_ROW_LABEL = 170
"""Width that the labels of rows may take."""
_ROW_LINES = 4
_INK, _GREY, _PAPER = (28, 28, 32), (110, 112, 120), (255, 255, 255)

_WIDER = ("mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
"""In matplotlib's folder: a font of Latin, Greek, Cyrillic, Hebrew and Arabic letters."""
_NO_CHARACTER = "\uffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def png(image: Image.Image, made: Provenance) -> bytes:
    """A PNG that tells how it was made: chunk `parameters` in the A1111 form, chunk `tstitch` in JSON.

    The same image and provenance give the same bytes.
    """
    return _png(image, {"parameters": provenance.parameters_text(made), provenance.CHUNK: provenance.to_json(made)})


def save_picture(path: Path, image: Image.Image, made: Provenance, *, overwrite: bool) -> None:
    """Writes what `png` makes.

    Raises:
        BadFileError: the file exists and `overwrite` is false, is a link, or cannot be written.
    """
    write_png(path, png(image, made), overwrite=overwrite)


def save_sheet(path: Path, sheet: Image.Image, *, overwrite: bool) -> None:
    """Writes a contact sheet as PNG; raises as `save_picture` does."""
    write_png(path, sheet_png(sheet), overwrite=overwrite)


def sheet_png(sheet: Image.Image) -> bytes:
    """A contact sheet as PNG; the same sheet gives the same bytes."""
    return _png(sheet, {})


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    cell_labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    scale: int = 1,
) -> Image.Image:
    """A grid of pictures, labels at its left and top and under each picture.

    `cell_labels` has a text for every picture, or one for every column. Pictures of a longer side under SMALLEST are
    enlarged by a whole factor without smoothing, those over LARGEST are shrunk. Rows may differ in length, and lists
    of labels may be empty. `scale` is for sheets that are shown smaller than they are: all is so many times as large.
    """
    gap, margin, row_label = (scale * each for each in (_GAP, _MARGIN, _ROW_LABEL))
    cells = [[fitted(image, scale) for image in row] for row in rows]
    under = [list(_under(cell_labels, r, len(row))) for r, row in enumerate(cells)]
    columns = max((len(row) for row in cells), default=0)
    widest = max((cell.width for row in cells for cell in row), default=scale * SMALLEST)
    tallest = max((cell.height for row in cells for cell in row), default=scale * SMALLEST)
    written = "".join([title or "", *column_labels, *row_labels, *(label for row in under for label in row)])
    text, small, large = (_font(scale * size, written) for size in (14, 12, 18))
    heads = [_wrapped(label, text, widest, 2) for label in column_labels]
    sides = [_wrapped(label, text, row_label, _ROW_LINES) for label in row_labels]

    side_width = max((_width(line, text) for lines in sides for line in lines), default=0)
    left = margin + (side_width + 2 * gap if side_width else 0)
    grid_width = columns * widest + max(columns - 1, 0) * gap
    over = _wrapped(title, large, max(left + grid_width - margin, 2 * scale * LARGEST), 3) if title else []
    width = max(left + grid_width, margin + max((_width(line, large) for line in over), default=0)) + margin
    head_height = max(map(len, heads), default=0) * _line(text)
    cell_height = tallest + (_line(small) if any(label for row in under for label in row) else 0) + gap
    top = margin + (len(over) * _line(large) + gap if over else 0)
    sheet = Image.new("RGB", (width, top + head_height + len(cells) * cell_height + margin - gap), _PAPER)
    draw = ImageDraw.Draw(sheet)

    for i, line in enumerate(over):
        draw.text((margin, margin + i * _line(large)), line, _INK, large)
    for c, lines in enumerate(heads[:columns]):
        centre = left + c * (widest + gap) + widest // 2
        for i, line in enumerate(lines):
            y = top + head_height - (len(lines) - i) * _line(text)
            draw.text((centre, y), line, _INK, text, anchor="ma")
    for r, row in enumerate(cells):
        y = top + head_height + r * cell_height
        lines = sides[r] if r < len(sides) else []
        for i, line in enumerate(lines):
            middle = y + tallest // 2 - len(lines) * _line(text) // 2
            draw.text((left - 2 * gap, middle + i * _line(text)), line, _INK, text, anchor="ra")
        for c, cell in enumerate(row):
            x = left + c * (widest + gap)
            sheet.paste(cell, (x + (widest - cell.width) // 2, y + (tallest - cell.height) // 2))
            label = _wrapped(under[r][c], small, widest, 1)
            draw.text((x + widest // 2, y + tallest + 2 * scale), "".join(label), _GREY, small, anchor="ma")
    return sheet


def write_png(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes a PNG; raises as `save_picture` does."""
    if path.is_symlink():
        raise BadFileError(f"{path}: is a link, and pictures are not written through links", hint="remove the link")
    files.write(path, content, overwrite=overwrite)


def _png(image: Image.Image, texts: dict[str, str]) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=chunks)
    return content.getvalue()


def fitted(image: Image.Image, scale: int = 1) -> Image.Image:
    """`image` in RGB at a size to look at, as `contact_sheet` shows it."""
    image = image.convert("RGB")
    longest, smallest, largest = max(image.size), scale * SMALLEST, scale * LARGEST
    if longest < smallest:
        factor = -(-smallest // longest)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longest > largest:
        size = (max(1, round(image.width * largest / longest)), max(1, round(image.height * largest / longest)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def _under(labels: Sequence[str] | Sequence[Sequence[str]] | None, row: int, columns: int) -> list[str]:
    """The texts under the pictures of one row, missing ones empty."""
    found: list[str] = []
    if labels:
        of_row = labels if isinstance(labels[0], str) else labels[row] if row < len(labels) else []
        found = [str(label) for label in of_row]
    return (found + [""] * columns)[:columns]


def _font(size: int, written: str) -> Font:
    """Pillow's own font; where that lacks letters of `written`, even an é, matplotlib's, if it has some of them."""
    font = ImageFont.load_default(size)
    lacking = [c for c in set(written) if not c.isascii() and c.isprintable() and not _has_glyph(font, c)]
    spec = importlib.util.find_spec("matplotlib") if lacking else None  # finds it without importing it
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent.joinpath(*_WIDER)).is_file():
        return font
    wider = ImageFont.truetype(str(path), size)
    return wider if any(_has_glyph(wider, c) for c in lacking) else font


def _has_glyph(font: Font, character: str) -> bool:
    """Whether it is not drawn as the box that stands for characters without a glyph."""
    return bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))


def _line(font: Font) -> int:
    """Height of a line of text."""
    return round(getattr(font, "size", 12) * 1.3)


def _width(text: str, font: Font) -> int:
    return round(font.getlength(text))


def _wrapped(text: str, font: Font, width: int, lines: int) -> list[str]:
    """`text` on at most `lines` lines of at most `width` pixels, the rest an ellipsis."""
    # Unprintable characters and halves of surrogate pairs have no glyph, not even the box that others get.
    words = "".join(c if c.isprintable() else " " for c in text).split()
    wrapped: list[str] = []
    while words and len(wrapped) < lines:
        taken = 1
        while taken < len(words) and _width(" ".join(words[: taken + 1]), font) <= width:
            taken += 1
        line, words = " ".join(words[:taken]), words[taken:]
        last = len(wrapped) == lines - 1
        wrapped.append(_cut(line + " ..." if last and words else line, font, width))
    return wrapped


def _cut(line: str, font: Font, width: int) -> str:
    """`line`, its end replaced by an ellipsis where it is too wide."""
    if _width(line, font) <= width:
        return line
    line = line.removesuffix(" ...")
    kept = bisect_right(range(len(line) + 1), width, key=lambda n: _width(line[:n] + "...", font)) - 1
    return line[: max(kept, 0)].rstrip() + "..."
