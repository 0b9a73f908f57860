"""YAML text to a tree of nodes that know their positions, without aliases, tags or YAML's guesses at types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

Place = tuple[str | int, ...]
"""A path into a document, such as ("rows", 3, "steps")."""
MAX_DEPTH = 24
MAX_VALUES = 2_000_000

# libyaml's parser where PyYAML was built with it: the same events, an order of magnitude faster.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = {"", "~", "null", "Null", "NULL"}


@dataclass(slots=True)
class Node:
    """One YAML value and where it stands; `value` is a scalar's text, a sequence's items or a mapping's pairs."""

    line: int
    column: int
    kind: Literal["scalar", "sequence", "mapping"]
    value: Any
    plain: bool = False
    typed: bool = False
    """Whether it is a number, a truth value or null of JSON, and so no text."""

    @property
    def is_null(self) -> bool:
        """Whether it is an unquoted null or nothing at all."""
        return self.kind == "scalar" and self.plain and self.value in _NULLS

    def described(self) -> str:
        """What was found, for a message."""
        if self.kind != "scalar":
            return "a list" if self.kind == "sequence" else "keys and values"
        if self.is_null:
            return "nothing" if not self.value else self.value
        return short(self.value) if self.plain else f'the text "{short(self.value)}"'


def short(text: str) -> str:
    """The beginning of a foreign file's `text`; its control characters have no business on the terminal."""
    cut = text if len(text) <= 40 else text[:37] + "..."
    return "".join(each if each.isprintable() else "?" for each in cut)


class NotYamlError(Exception):
    """Not YAML, or YAML that documents here may not use; says (line, column, what)."""


def compose(text: str) -> Node | None:
    """The document's tree; None for an empty one. Iterative, so that no nesting can exhaust the stack."""
    root: Node | None = None
    open_nodes: list[Node] = []
    count = 0
    try:
        event: Any
        for event in yaml.parse(text, Loader=_LOADER):
            kind: Any = type(event)
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                open_nodes.pop()
                continue
            if kind is yaml.DocumentStartEvent:
                if root is not None:
                    raise NotYamlError(*_position(event), "a second document begins here, only one is allowed")
                continue
            if kind is yaml.AliasEvent:
                raise NotYamlError(
                    *_position(event), f"*{short(event.anchor)}: aliases are not allowed, write the value out"
                )
            if kind not in (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent):
                continue
            node = _node(event, kind)
            count += 1
            if count > MAX_VALUES:
                raise NotYamlError(node.line, node.column, "has too many values")
            if open_nodes:
                _append(open_nodes[-1], node)
            else:
                root = node
            if node.kind != "scalar":
                open_nodes.append(node)
                if len(open_nodes) > MAX_DEPTH:
                    raise NotYamlError(node.line, node.column, f"is nested deeper than {MAX_DEPTH} levels")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise NotYamlError(line, column, f"is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise NotYamlError(1, 1, f"is not text: {getattr(error, 'reason', None) or error}") from None
    except (UnicodeError, ValueError) as error:
        raise NotYamlError(1, 1, f"is not text: {error}") from None
    # A document of nothing but comments has one empty scalar.
    return None if root is None or (root.is_null and not root.value) else root


def _node(event: Any, kind: type) -> Node:
    line, column = _position(event)
    if event.anchor:
        raise NotYamlError(line, column, f"&{short(event.anchor)}: anchors are not allowed, write the value out")
    if event.tag:
        raise NotYamlError(line, column, f"{short(event.tag)}: tags are not allowed, types follow from the keys")
    if kind is yaml.ScalarEvent:
        return Node(line, column, "scalar", event.value, plain=not event.style)
    return Node(line, column, "sequence" if kind is yaml.SequenceStartEvent else "mapping", [])


def _append(parent: Node, node: Node) -> None:
    """Adds an item to a sequence, or a key or the value of the last key to a mapping."""
    if parent.kind == "sequence":
        parent.value.append(node)
    elif not parent.value or len(parent.value[-1]) == 2:
        if node.kind != "scalar":
            raise NotYamlError(node.line, node.column, "a key must be a single word or text")
        parent.value.append([node])
    else:
        parent.value[-1].append(node)


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def node_at(root: Node, place: Place) -> Node:
    """The node at `place`, or the nearest one above it."""
    node = root
    for part in place:
        if isinstance(part, int):
            inner = node.value[part] if node.kind == "sequence" and part < len(node.value) else None
        else:
            inner = next((v for k, v in node.value if k.value == part), None) if node.kind == "mapping" else None
        if inner is None:
            break
        node = inner
    return node
