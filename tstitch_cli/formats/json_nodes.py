"""Parsed JSON as the tree of nodes that typed values are read from, where a number is a number and never text."""

from __future__ import annotations

import json
from typing import Any

from tstitch_cli.errors import BadFileError
from tstitch_cli.formats.yaml_nodes import MAX_DEPTH, Node


def tree(value: Any, name: str, depth: int = 0) -> Node:
    """The tree of what `strict_json.parse` found; its nodes have no position, so they stand at line 0.

    Raises:
        BadFileError: `value`, called `name`, is nested deeper than MAX_DEPTH levels.
    """
    if depth > MAX_DEPTH:
        raise BadFileError(f"{name}: is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return Node(0, 0, "mapping", [[_scalar(key), tree(each, name, depth + 1)] for key, each in value.items()])
    if isinstance(value, list):
        return Node(0, 0, "sequence", [tree(each, name, depth + 1) for each in value])
    return _scalar(value)


def _scalar(value: str | float | bool | None) -> Node:
    if isinstance(value, str):
        return Node(0, 0, "scalar", value)
    return Node(0, 0, "scalar", json.dumps(value), plain=True, typed=True)
