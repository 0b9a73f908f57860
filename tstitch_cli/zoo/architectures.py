"""Architectures in zoo files: a class with its config, or what differs from another denoiser's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tstitch_cli.zoo.entry import Component

LONGEST_CHAIN = 20
"""Denoisers that are each like the next."""


@dataclass(frozen=True)
class ArchitectureFacts:
    """What a zoo file says of a denoiser's architecture: its `model`, or the denoiser it is `like`; one of the two."""

    model: str | None = None
    """Name of the class."""
    like: str | None = None
    """A denoiser, of the same file or shipped with tstitch, whose architecture it is but for `config`."""
    config: dict[str, Any] = field(default_factory=dict)


def resolve(
    name: str, given: Mapping[str, ArchitectureFacts | None], shipped: Mapping[str, Component | None]
) -> Component | str | None:
    """The whole architecture of the denoiser `name`, None where nothing is said of it, or what is wrong with it.

    `given` are those of one file, by denoiser; names it leaves open are looked up in `shipped`.
    """
    if given.get(name) is None:
        return None
    config: dict[str, Any] = {}
    visited: list[str] = []
    while (facts := given.get(name)) is not None:
        if name in visited:
            return f"comes back to {name}: {', like '.join([*visited, name])}"
        visited.append(name)
        if len(visited) > LONGEST_CHAIN:
            return f"is like a denoiser that is like another, more than {LONGEST_CHAIN} times over"
        config = facts.config | config
        if (facts.model is None) == (facts.like is None):
            return f"expected model or like in the architecture of {name}, and not both"
        if facts.model is not None:
            return Component(facts.model, config)
        name = facts.like or ""
    found = shipped.get(name)
    return (
        f"no architecture of a denoiser {name!r} is known"
        if found is None
        else Component(found.model, found.config | config)
    )
