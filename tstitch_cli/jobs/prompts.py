"""Prompts files: plain text, CSV or JSON Lines, a prompt each, read strictly and told by line what is wrong."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tstitch_cli.errors import BadFileError
from tstitch_cli.formats import strict_json
from tstitch_cli.schema import MAX_SEED
from tstitch_cli.zoo.registry import BUNDLED

COLUMNS = ("prompt", "seed", "negative_prompt", "count")
MAX_BYTES = 1 << 27
MAX_PICTURES = 1_000_000
"""Of one job: an index has six digits."""
_TOLD = 10
"""Faults of one file that are told; a file of another kind would have one in every line."""
_HINT = "a .jsonl or .csv file has the columns prompt, seed, negative_prompt, count; any other one prompt a line"
_OTHER = {
    ".json": "write it as JSON Lines, an object a line, and call it .jsonl",
    ".tsv": "write it as CSV, with commas, and call it .csv",
}
"""Endings of files that are no prompts a line, and are read in no other way either."""


@dataclass(frozen=True)
class Prompt:
    """What to draw, and how where it differs from what is asked for all (None)."""

    text: str
    seed: int | None = None
    negative_prompt: str | None = None
    count: int | None = None


def bundled(family: str) -> dict[str, Path]:
    """The files of captions that a bundled family ships with, each by its name, such as seen and unseen."""
    found = sorted(path for path in BUNDLED.glob("*/captions-*.txt") if path.parent.name == family)
    return {path.stem.removeprefix("captions-"): path for path in found}


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order: JSON Lines (.jsonl, .ndjson), CSV with a header (.csv), else one a line.

    Raises:
        BadFileError: it cannot be read, is too large, has a column that is not known, or a value that means nothing;
            every line at fault is told, up to ten.
    """
    ending = path.suffix.lower()
    if ending in _OTHER:
        raise BadFileError(f"{path}: {ending} is no form that prompts are read in", hint=_OTHER[ending])
    text = _text(path)
    faults: list[str] = []
    prompts: list[Prompt] = []
    reader = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv}.get(ending, _plain)
    for line, found in reader(text, path):
        if isinstance(found, str):
            faults.append(f"{path}:{line}: {found}")
        else:
            prompt, wrong = _prompt(found)
            faults += [f"{path}:{line}: {what}" for what in wrong]
            prompts.append(prompt)
        if len(faults) >= _TOLD:
            break
    if faults:
        raise BadFileError("\n".join(faults[:_TOLD]), hint=_HINT)
    return tuple(prompts)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadFileError(f"{path}: cannot be read: {why}", hint=_HINT) from error
    if len(content) > MAX_BYTES:
        raise BadFileError(f"{path}: is larger than {MAX_BYTES >> 20} MiB", hint="split it, and draw into two folders")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: is not UTF-8 text", hint=_HINT) from error


Line = tuple[int, "Mapping[str, Any] | str"]
"""A line's number and its values by column, or what is wrong with it."""


def _plain(text: str, path: Path) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if _is_json(line):
            yield number, "is a JSON object; a file of these is called .jsonl"
        elif line.strip():
            yield number, {"prompt": line.strip()}


def _is_json(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return bool(strict_json.parse(line, ""))
    except BadFileError:
        return False


def _json_lines(text: str, path: Path) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found = strict_json.parse(line, "")
            except BadFileError as error:
                yield number, error.message.removeprefix(": ")
            else:
                yield number, {name: value for name, value in found.items() if value is not None}


def _csv(text: str, path: Path) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"is not readable as CSV: {error}"
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            wrong = _unknown(header)
            wrong += [f"the column {name!r} stands twice" for name in COLUMNS if header.count(name) > 1]
            wrong += ["there is no column 'prompt'"] * ("prompt" not in header)
            yield from ((reader.line_num, what) for what in wrong)
            if wrong:
                return
        elif len(cells) != len(header):
            yield reader.line_num, f"has {len(cells)} cells, the header {len(header)}"
        else:
            yield reader.line_num, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True) if cell}


def _cell(name: str, cell: str) -> str | int:
    whole = name in ("seed", "count") and re.fullmatch(r"[0-9]{1,19}", cell.strip())
    return int(cell) if whole else cell


def _unknown(names: list[str]) -> list[str]:
    known = ", ".join(COLUMNS)
    return [f"the column {name[:60]!r} is not known: there are {known}" for name in names if name not in COLUMNS]


def _prompt(found: Mapping[str, Any]) -> tuple[Prompt, list[str]]:
    """The prompt that `found` stands for, and what is wrong with it."""
    wrong = _unknown([name for name in found if name not in COLUMNS])
    text, negative = found.get("prompt", ""), found.get("negative_prompt")
    if not isinstance(text, str) or not text.strip():
        wrong.append("prompt: some text is wanted")
        text = ""
    if negative is not None and not isinstance(negative, str):
        wrong.append(f"negative_prompt: {str(negative)[:60]!r} is no text")
    for name, value in (("prompt", text), ("negative_prompt", negative)):
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            wrong.append(f"{name}: has half of a surrogate pair, which is no character")
    for name, low, high in (("seed", 0, MAX_SEED), ("count", 1, MAX_PICTURES)):
        value = found.get(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            wrong.append(f"{name}: {str(value)[:60]!r} is no whole number from {low} to {high}")
    if wrong:
        return Prompt(""), wrong
    return Prompt(text.strip(), found.get("seed"), negative, found.get("count")), []
