"""Nodes of a document to values of the wanted types, every fault noted with its position."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tstitch_cli.errors import BadFileError
from tstitch_cli.formats.yaml_nodes import Node, Place, short

FAULTS_SHOWN = 20
FAULTS_KEPT = 1000
"""Of a file that is wrong everywhere; the others are only counted."""
LONGEST_MEANT = 100
"""Characters above which a word is no misspelling of another, and comparing it would take long."""
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
MAX_INTEGER = 2**63 - 1
"""What a seed may be, and what numpy and torch can hold."""
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|nan|infinity)", re.IGNORECASE)


class Faults:
    """Collects what is wrong with one document, with positions."""

    def __init__(self, name: str, hint: str | None = None) -> None:
        self.name, self.hint = name, hint
        self.found: list[tuple[int, int, str]] = []
        self.count = 0

    def add(self, node: Node, place: Place, what: str) -> None:
        """Notes a fault of the value at `place`, which stands at `node`."""
        self.count += 1
        if len(self.found) < FAULTS_KEPT:
            where = _shown(place)
            self.found.append((node.line, node.column, f"{where}: {what}" if where else what))

    def raise_if_any(self) -> None:
        """Raises BadFileError with every fault found so far, in the order of the file, and with the hint."""
        if not self.found:
            return
        lines = [
            f"{self.name}:{f'{line}:{column}' if line else ''} {what}" for line, column, what in sorted(self.found)
        ]
        if self.count > FAULTS_SHOWN:
            lines[FAULTS_SHOWN:] = [f"... and {self.count - FAULTS_SHOWN} more"]
        raise BadFileError("\n".join(lines), hint=self.hint)


def _shown(place: Place) -> str:
    shown = ""
    for part in place:
        shown += f"[{part}]" if isinstance(part, int) else f".{short(part)}" if shown else short(part)
    return shown


def near(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` probably means."""
    if len(word) > LONGEST_MEANT:
        return None
    return next(iter(get_close_matches(word, [each for each in known if len(each) <= LONGEST_MEANT], 1)), None)


class _Absent:
    """Its one instance stands for a value that had a fault, which has been noted."""


ABSENT: Any = _Absent()


@cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(node: Node, wanted: Any, place: Place, faults: Faults) -> Any:
    """`node` as the wanted type, or ABSENT after noting why not."""
    reader = _SCALARS.get(wanted)
    if reader is not None:
        return reader(node, place, faults)
    if wanted is Any:
        return _anything(node, place, faults)
    origin = get_origin(wanted)
    if origin is tuple:
        return _tuple(node, get_args(wanted), place, faults)
    if origin is dict or origin is Mapping:
        return _dict(node, get_args(wanted)[1], place, faults)
    if origin is Union or origin is types.UnionType:
        return _union(node, get_args(wanted), place, faults)
    if origin is Literal:
        return _literal(node, get_args(wanted), place, faults)
    if is_dataclass(wanted):
        return dataclass_of(node, wanted, place, faults)
    raise TypeError(f"{_shown(place)}: documents cannot hold {wanted}")


def dataclass_of(node: Node, cls: Any, place: Place, faults: Faults) -> Any:
    """`node` as the dataclass `cls`, or ABSENT after noting in `faults` why not."""
    known = {field.name: field for field in fields(cls)}
    pairs = _pairs(node, place, faults)
    if pairs is None:
        return ABSENT
    values: dict[str, Any] = {}
    for key, (key_node, inner) in pairs.items():
        if key in known:
            values[key] = _value(inner, _types(cls)[key], (*place, key), faults)
        else:
            meant = None if faults.count >= FAULTS_KEPT else near(key, known)
            faults.add(key_node, (*place, key), "unknown key" + (f", did you mean {meant}?" if meant else ""))
    for name, field in known.items():
        if name not in pairs and field.default is MISSING and field.default_factory is MISSING:
            faults.add(node, (*place, name), "is missing")
            values[name] = ABSENT
    return ABSENT if any(value is ABSENT for value in values.values()) else cls(**values)


def _pairs(node: Node, place: Place, faults: Faults) -> dict[str, tuple[Node, Node]] | None:
    if node.kind != "mapping":
        faults.add(node, place, f"expected keys and values, found {node.described()}")
        return None
    pairs: dict[str, tuple[Node, Node]] = {}
    for key, inner in node.value:
        if key.value in pairs:
            faults.add(key, (*place, key.value), "stands here a second time")
        else:
            pairs[key.value] = (key, inner)
    return pairs


def _dict(node: Node, wanted: Any, place: Place, faults: Faults) -> Any:
    pairs = _pairs(node, place, faults)
    if pairs is None:
        return ABSENT
    values = {key: _value(inner, wanted, (*place, key), faults) for key, (_, inner) in pairs.items()}
    return ABSENT if any(value is ABSENT for value in values.values()) else values


def _tuple(node: Node, wanted: tuple[Any, ...], place: Place, faults: Faults) -> Any:
    if node.kind != "sequence":
        faults.add(node, place, f"expected a list, found {node.described()}")
        return ABSENT
    if len(wanted) == 2 and wanted[1] is Ellipsis:
        wanted = (wanted[0],) * len(node.value)
    elif len(wanted) != len(node.value):
        faults.add(node, place, f"expected {len(wanted)} values, found {len(node.value)}")
        return ABSENT
    values = tuple(
        _value(inner, each, (*place, index), faults)
        for index, (inner, each) in enumerate(zip(node.value, wanted, strict=True))
    )
    return ABSENT if any(value is ABSENT for value in values) else values


def _union(node: Node, wanted: tuple[Any, ...], place: Place, faults: Faults) -> Any:
    if types.NoneType in wanted and node.is_null:
        return None
    kinds = [each for each in wanted if each is not types.NoneType]
    if len(kinds) == 1:
        return _value(node, kinds[0], place, faults)
    # Text takes any scalar, so it is tried last.
    for each in sorted(kinds, key=lambda kind: kind is str):
        attempt = Faults(faults.name)
        value = _value(node, each, place, attempt)
        if value is not ABSENT:
            return value
    names = " or ".join(getattr(each, "__name__", str(each)) for each in kinds)
    faults.add(node, place, f"expected {names}, found {node.described()}")
    return ABSENT


def _literal(node: Node, allowed: tuple[Any, ...], place: Place, faults: Faults) -> Any:
    for each in allowed:
        if _value(node, type(each), place, Faults(faults.name)) == each:
            return each
    meant = near(node.value, map(str, allowed)) if node.kind == "scalar" else None
    shown = f"did you mean {meant}?" if meant else f"expected one of {', '.join(map(str, allowed))}"
    faults.add(node, place, f"{node.described()} is not known, {shown}")
    return ABSENT


# A scalar is read by the type its place wants, never by YAML 1.1's guesses: there `1e-3` is text, `no` is false and
# `12:30` is 750.


def _text(node: Node, place: Place, faults: Faults) -> Any:
    if node.kind == "scalar" and not node.is_null and not node.typed:
        return node.value
    faults.add(node, place, f"expected text, found {node.described()}")
    return ABSENT


def _integer(node: Node, place: Place, faults: Faults) -> Any:
    if node.kind == "scalar" and node.plain and _INTEGER.fullmatch(node.value):
        value = int(node.value)
        if abs(value) <= MAX_INTEGER:
            return value
    faults.add(node, place, f"expected a whole number, found {node.described()}")
    return ABSENT


def _number(node: Node, place: Place, faults: Faults) -> Any:
    if node.kind == "scalar" and node.plain:
        if _NUMBER.fullmatch(node.value):
            value = float(node.value)
            if math.isfinite(value):
                return value
        elif not _NOT_FINITE.fullmatch(node.value):
            faults.add(node, place, f"expected a number, found {node.described()}")
            return ABSENT
        faults.add(node, place, f"expected a finite number, found {node.described()}")
        return ABSENT
    faults.add(node, place, f"expected a number, found {node.described()}")
    return ABSENT


def _boolean(node: Node, place: Place, faults: Faults) -> Any:
    if node.kind == "scalar" and node.plain and node.value in ("true", "false"):
        return node.value == "true"
    faults.add(node, place, f"expected true or false, found {node.described()}")
    return ABSENT


def _nothing(node: Node, place: Place, faults: Faults) -> Any:
    if node.is_null:
        return None
    faults.add(node, place, f"expected null, found {node.described()}")
    return ABSENT


def _anything(node: Node, place: Place, faults: Faults) -> Any:
    """Lists, mappings and scalars, the latter read as what JSON has, else as text: a model's config."""
    if node.kind == "sequence":
        values = _tuple(node, (Any, ...), place, faults)
        return values if values is ABSENT else list(values)
    if node.kind == "mapping":
        return _dict(node, Any, place, faults)
    for reader in (_nothing, _boolean, _integer, _number):
        value = reader(node, place, Faults(faults.name))
        if value is not ABSENT:
            return value
    return _text(node, place, faults)


_SCALARS: dict[Any, Callable[[Node, Place, Faults], Any]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    type(None): _nothing,
}
