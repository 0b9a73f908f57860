"""The only place that touches YAML: strict reading into frozen dataclasses, canonical atomic writing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from tstitch_cli import files
from tstitch_cli.errors import BadFileError
from tstitch_cli.formats.consistency import faults_of_plan, faults_of_profile
from tstitch_cli.formats.typed_values import Faults, dataclass_of
from tstitch_cli.formats.yaml_lines import block
from tstitch_cli.formats.yaml_nodes import Node, NotYamlError, Place, compose, node_at
from tstitch_cli.schema import PLAN_SCHEMA, PROFILE_SCHEMA, Plan, Profile

T = TypeVar("T")
Check = Callable[[T], Iterable[tuple[Place, str]]]
"""What must hold beyond the types: every (place, fault) of a value."""
MAX_BYTES = 16_000_000


def read(
    path: Path,
    cls: type[T],
    schema: str | None,
    check: Check[T] | None = None,
    *,
    missing: str = "check the name and the folder",
) -> T:
    """Reads a YAML file into `cls`; `missing` is the hint where there is none.

    Raises:
        BadFileError: the file cannot be read or is not exactly what `cls` and `check` ask for; lists every fault.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadFileError(f"{path}: there is no such file", hint=missing) from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadFileError(f"{path}: cannot be read: {why}", hint="name a YAML file that you may read") from error
    if len(content) > MAX_BYTES:
        raise BadFileError(f"{path}: is larger than {MAX_BYTES // 1_000_000} MB", hint="is it really a YAML file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFileError(f"{path}:{line}: is not UTF-8 text", hint="is it really a YAML file?") from None
    return parse(text, str(path), cls, schema, check)


def parse(text: str, name: str, cls: type[T], schema: str | None, check: Check[T] | None = None) -> T:
    """Reads YAML text into `cls`; `name` stands for the file in messages. With no `schema`, no such key is expected.

    Raises:
        BadFileError: the text is not exactly what `cls` and `check` ask for; lists every fault.
    """
    faults = Faults(name)
    try:
        root = compose(text)
    except NotYamlError as error:
        line, column, what = error.args
        raise BadFileError(f"{name}:{line}:{column} {what}") from None
    if root is None:
        raise BadFileError(f"{name}: is empty", hint=f"it should begin with `schema: {schema}`" if schema else None)
    if schema is not None:
        _take_schema(root, schema, faults)
        # Anything else that a document of another kind lacks or has would be noise.
        faults.raise_if_any()
    value = dataclass_of(root, cls, (), faults)
    faults.raise_if_any()
    for place, what in check(value) if check else ():
        faults.add(node_at(root, place), place, what)
    faults.raise_if_any()
    return value


def read_profile(path: Path) -> Profile:
    """Reads and checks a profile; raises BadFileError with every fault."""
    return read(path, Profile, PROFILE_SCHEMA, faults_of_profile)


def read_plan(path: Path) -> Plan:
    """Reads and checks a plan; raises BadFileError with every fault."""
    missing = "check the name, or make one: `tstitch profile tiny-sd tiny-sd-small`, then `tstitch plan --budget 60%`"
    return read(path, Plan, PLAN_SCHEMA, faults_of_plan, missing=missing)


def digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def plain(value: Any) -> Any:
    """A dataclass as dicts, lists and scalars under the document's keys.

    What is nothing (None, False, empty) and is so by default is left out.
    """
    if is_dataclass(value):
        return {
            field.name: plain(inner)
            for field in fields(value)
            if (inner := getattr(value, field.name)) or inner != field.default
        }
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value


def render(value: Any, schema: str) -> str:
    """The canonical YAML of a dataclass: schema first, fields as declared, short collections on one line."""
    return "".join(f"{line}\n" for line in (f"schema: {schema}", *block(plain(value))))


def write(path: Path, value: Any, schema: str, *, overwrite: bool) -> None:
    """Writes the canonical YAML of a dataclass, whole or not at all; raises BadFileError where that cannot be."""
    try:
        content = render(value, schema).encode("utf-8")
    except UnicodeEncodeError:
        raise BadFileError(f"{path}: a name in it is not Unicode text, so it cannot be written") from None
    files.write(path, content, overwrite=overwrite)


def write_profile(profile: Profile, path: Path, *, overwrite: bool) -> None:
    """Writes a profile; raises BadFileError where that cannot be, or where it could not be read again."""
    _readable(path, faults_of_profile(profile))
    write(path, profile, PROFILE_SCHEMA, overwrite=overwrite)


def write_plan(plan: Plan, path: Path, *, overwrite: bool) -> None:
    """Writes a plan; raises BadFileError where that cannot be, or where it could not be read again."""
    _readable(path, faults_of_plan(plan))
    write(path, plan, PLAN_SCHEMA, overwrite=overwrite)


def _readable(path: Path, faults: Iterable[tuple[Place, str]]) -> None:
    found = [f"{'.'.join(map(str, place))}: {what}" for place, what in faults]
    if found:
        raise BadFileError(f"{path}: is not written, for it could not be read again: {'; '.join(found)}")


def _take_schema(root: Node, schema: str, faults: Faults) -> None:
    """Removes the `schema` key from the root, which must be there once and say `schema`."""
    if root.kind != "mapping":
        faults.add(root, (), f"expected keys and values beginning with `schema: {schema}`, found {root.described()}")
        return
    found = [pair for pair in root.value if pair[0].value == "schema"]
    if not found:
        faults.add(root, (), f"has no `schema: {schema}`, so it is not such a document")
    elif len(found) > 1:
        faults.add(found[1][0], ("schema",), "stands here a second time")
    elif found[0][1].value != schema:
        faults.add(found[0][1], ("schema",), f"expected {schema}, found {found[0][1].described()}")
    root.value = [pair for pair in root.value if pair[0].value != "schema"]
