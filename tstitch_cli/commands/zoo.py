"""`tstitch zoo`: the denoisers that have names, and which of them are here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tstitch_cli.commands.edge import guarded, out, talk

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Entry


@guarded
def zoo(
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known of every denoiser as JSON.")] = False,
) -> None:
    """List the denoisers that have names by family: size, whether they are here, source, licence.

    A denoiser of your own needs no name here: give a hub id (owner/name) or a local diffusers folder instead of one.
    Entries in your zoo.yaml (or in the file that $TSTITCH_ZOO names) are listed too.
    """
    from tstitch_cli.zoo.registry import Zoo, is_here

    found = Zoo.load()
    for remark in found.remarks:
        talk.print(f"[yellow]remark:[/] {escape(remark)}")
    if as_json:
        typer.echo(
            json.dumps([{**asdict(entry), "here": is_here(entry)} for entry in found.entries.values()], indent=2)
        )
        return
    width = max(map(len, found.entries), default=0)
    for family, members in by_family(found.entries.values()):
        out.print(f"[bold]{escape(family)}[/]  {escape(in_words(members))}")
        sources = max(len(entry.source) for entry in members)
        for entry in members:
            here = "[green]here    [/]" if is_here(entry) else "not here"
            name, size = escape(entry.name.ljust(width)), parameters_in_words(entry.parameters).rjust(7)
            out.print(f"  {name} {size}  {here}  {escape(entry.source.ljust(sources))}  {escape(entry.licence)}")
        out.print()


def by_family(entries: Iterable[Entry]) -> list[tuple[str, list[Entry]]]:
    """Families by name, the members of each from the largest to the smallest."""
    ordered = sorted(entries, key=lambda entry: (entry.family or "", -(entry.parameters or 0)))
    return [(family, list(members)) for family, members in groupby(ordered, key=lambda entry: entry.family or "")]


def in_words(members: list[Entry]) -> str:
    """What the most members of a family have in common: autoencoder and usual setting."""
    said = Counter(
        f"{e.latent_space.autoencoder}, {e.defaults.size} px, {e.defaults.steps} steps of {e.defaults.scheduler}"
        for e in members
    )
    return said.most_common(1)[0][0]


def parameters_in_words(parameters: int | None) -> str:
    """Such as 13.3 M, 860 M or 2.57 B."""
    if parameters is None:
        return "?"
    millions = parameters / 1e6
    if millions >= 1000:
        return f"{millions / 1000:.2f} B"
    return f"{millions:.1f} M" if millions < 100 else f"{millions:.0f} M"
