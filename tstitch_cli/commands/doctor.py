"""`tstitch doctor`: looks at what tstitch needs here, and says what is wrong and what mends it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk

COLOURS = {"ok": "green", "remark": "yellow", "fault": "bold red"}


@guarded
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Look at versions, device, memory, disk, cache and zoo, and draw for two seconds with a bundled family.

    What is wrong is told with the command that mends it, and decides the exit status. There is no token, user name,
    host name or home folder in what is printed, so it can be pasted into a bug report.
    """
    from tstitch_cli.doctor import all_findings, status

    with steps_bar() as bar:
        found = all_findings(bar)
    if as_json:
        told = [{**asdict(each), "status": int(each.status)} for each in found]
        typer.echo(json.dumps({"status": int(status(found)), "findings": told}, indent=2))
    else:
        from rich.markup import escape

        for each in found:
            colour = COLOURS[each.verdict]
            out.print(f"{each.name:<9} [{colour}]{each.verdict:<6}[/]  {escape(each.detail)}")
            if each.cure is not None:
                out.print(f"{'':<17}  [cyan]mend:[/] {escape(each.cure)}")
    faults = [each.name for each in found if each.verdict == "fault"]
    talk.print(f"[red]at fault: {', '.join(faults)}[/]" if faults else "[green]all is well[/]")
    if faults:
        raise typer.Exit(status(found))
