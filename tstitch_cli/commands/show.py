"""`tstitch show`: how a picture was made, and the command that draws it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tstitch_cli.commands.edge import guarded, out
from tstitch_cli.commands.terminal import printable

if TYPE_CHECKING:
    from tstitch_cli.provenance import Provenance


@guarded
def show(
    image: Annotated[Path, typer.Argument(help="A PNG that `tstitch sample` wrote.", metavar="IMAGE.png")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the picture's provenance as JSON.")] = False,
) -> None:
    """Tell how a picture was made: prompt, seed, denoisers and their steps, setting, versions."""
    from tstitch_cli import provenance
    from tstitch_cli.errors import UsageError
    from tstitch_cli.zoo.registry import Zoo

    if not image.exists() and str(image) in Zoo.shipped().entries:
        raise UsageError(f"{image} is a denoiser, and no picture", hint="`tstitch zoo` tells of denoisers")
    made = provenance.read(image)
    if as_json:
        typer.echo(json.dumps(json.loads(provenance.to_json(made)), indent=2))
        return
    for label, value in _facts(made):
        out.print(f"[bold]{label:<16}[/]{escape(printable(value))}")
    # Into another folder: in the one where pictures go by default, this one is in the way.
    again = f"tstitch sample --from {shlex.quote(str(image))} --out again"
    out.print(f"\ndraw it again:  [cyan]{escape(printable(again))}[/]")


def _facts(made: Provenance) -> list[tuple[str, str]]:
    """Label and value of every line."""
    sources = {d.name: f"{d.source}@{d.revision[:12]}" if d.revision else d.source for d in made.denoisers}
    facts = [("prompt", made.prompt)]
    if made.negative_prompt:
        facts.append(("negative prompt", made.negative_prompt))
    facts += [
        ("seed", str(made.seed)),
        ("index", f"{made.index} (number {made.position + 1} in a batch of {made.batch_size})"),
        ("family", made.family),
    ]
    first = 1
    for i, (name, steps) in enumerate(made.allocation):
        which = f"step {first}" if steps == 1 else f"steps {first} to {first + steps - 1}"
        facts.append(("" if i else "denoisers", f"{name}: {which}, from {sources[name]}"))
        first += steps
    facts += [
        ("setting", made.setting.words),
        *(("" if i else "files", file.words) for i, file in enumerate(made.files)),
        ("versions", ", ".join(f"{package} {version}" for package, version in made.versions.items()) or "not known"),
    ]
    return facts
