"""The one canonical YAML form of dicts, lists and scalars, so that equal values give equal bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from tstitch_cli.errors import BadFileError

LINE = 116
"""Columns within which a collection is written on one line."""
MAX_KEY = 500
_PLAIN_TEXT = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+@-]*( [A-Za-z0-9_./+@-]+)*")
_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def block(value: Any) -> Iterator[str]:
    """The lines of a mapping or list, each entry on one line where it fits."""
    entries = value.items() if isinstance(value, dict) else ((None, inner) for inner in value)
    for key, inner in entries:
        lead = "- " if key is None else f"{_key(key)}:"
        line = f"{lead}{'' if key is None else ' '}{_inline(inner)}"
        if len(line) <= LINE or not isinstance(inner, dict | list):
            yield line
        elif key is None:
            yield from (f"{'  ' if index else lead}{each}" for index, each in enumerate(block(inner)))
        else:
            yield lead
            yield from (f"  {each}" for each in block(inner))


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float(value)
    return _quoted(value)


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written: documents hold finite numbers only")
    shown = float.__repr__(value)
    # YAML 1.1 readers take 1e-05 for text; 1.0e-05 is a number to every reader.
    return shown.replace("e", ".0e") if "e" in shown and "." not in shown else shown


def _key(text: str) -> str:
    if len(text) > MAX_KEY:
        raise BadFileError(f"the name {text[:40]}... is longer than {MAX_KEY} characters", hint="use a shorter name")
    return _quoted(text)


def _quoted(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable() or "\ud800" <= character <= "\udfff":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
