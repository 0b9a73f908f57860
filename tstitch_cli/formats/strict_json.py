"""Reads JSON that somebody else wrote: small, finite, unambiguous, or refused as a bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from tstitch_cli.errors import BadFileError

LIMIT_BYTES = 1 << 20
"""Far above any configuration or provenance; what is larger is no such file."""


def parse(text: str | bytes, name: str) -> dict[str, Any]:
    """The JSON object in `text`; `name` is what messages call it.

    Raises:
        BadFileError: not UTF-8, not JSON, not an object, over LIMIT_BYTES, nested too deeply, a key twice, or NaN.
    """
    if len(text) > LIMIT_BYTES:
        raise BadFileError(f"{name}: larger than {LIMIT_BYTES >> 20} MiB, which nothing of its kind is")
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_not_finite)
    except RecursionError:
        raise BadFileError(f"{name}: nested too deeply") from None
    except ValueError as error:
        raise BadFileError(f"{name}: not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadFileError(f"{name}: an object was expected, not {type(found).__name__}")
    return found


def read(path: Path, name: str | None = None) -> dict[str, Any]:
    """The JSON object in the file at `path`, called `name` in messages, or by its path.

    Raises what `parse` raises, and BadFileError where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise BadFileError(f"{name or path}: cannot be read: {error.strerror or error}") from error
    return parse(content, name or str(path))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} stands twice")
        found[key] = value
    return found


def _not_finite(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number that JSON has")
