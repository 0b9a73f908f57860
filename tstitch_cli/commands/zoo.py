"""`tstitch zoo`: the denoisers that have names, and which of them are here."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tstitch_cli.commands.edge import guarded, out, talk

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Entry


@guarded
def zoo(
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known of every denoiser as JSON.")] = False,
) -> None:
    """List the denoisers that have names: family, size, licence, source, and whether they are here.

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
    by_family = sorted(found.entries.values(), key=_family)
    for (family, licence), entries in groupby(by_family, key=_family):
        out.print(f"[bold]{escape(family)}[/]  {escape(licence)}")
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column("name", min_width=width, no_wrap=True)
        table.add_column("size", min_width=7, justify="right", no_wrap=True)
        table.add_column("here", min_width=8, no_wrap=True)
        table.add_column("source", overflow="fold")
        for entry in entries:
            here = "[green]here[/]" if is_here(entry) else "not here"
            table.add_row(escape(entry.name), _millions(entry.parameters), here, escape(entry.source))
        out.print(Padding(table, (0, 0, 1, 2)))


def _family(entry: Entry) -> tuple[str, str]:
    return entry.latent_space.name, entry.licence


def _millions(parameters: int | None) -> str:
    if parameters is None:
        return "?"
    millions = parameters / 1e6
    return f"{millions:.1f} M" if millions < 100 else f"{millions:.0f} M"
