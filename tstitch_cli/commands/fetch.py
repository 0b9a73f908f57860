"""`tstitch fetch`: fetches what denoisers need from the hub, ahead of the commands that load them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import DTYPES

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Entry


@guarded
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="DENOISER...", help="Names of the zoo or hub ids, as `tstitch profile` takes them."),
    ],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; the family's own by default, as on a GPU."),
    ] = None,
) -> None:
    """Fetch denoisers from the hub, so that profile and sample need no network (--offline).

    Of every denoiser its config and safetensors weights are fetched, of the largest also the other parts of its
    pipeline: the variant for the dtype where there is one, and nothing that is there already.
    """
    from rich.markup import escape

    from tstitch_cli import hub
    from tstitch_cli.zoo.registry import Zoo

    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'", hint=f"there are {', '.join(DTYPES)}")
    zoo = Zoo.load()
    with steps_bar() as bar:
        bar("asking the hub", 0.0)
        entries = [zoo.resolve(name) for name in names]
        entries = fetch_missing(entries, dtype or entries[-1].defaults.dtype, bar)
    for entry in entries:
        revision = f" at {entry.revision}" if hub.place(entry.source) else ""
        out.print(f"{escape(entry.name)}  {escape(entry.source)}{revision}")


def fetch_missing(entries: Sequence[Entry], dtype: str, bar: Callable[[str, float], None]) -> list[Entry]:
    """Tells and fetches what `entries` and the pipeline of the largest need; returns them at their commits."""
    from rich.filesize import decimal

    from tstitch_cli import hub
    from tstitch_cli.zoo.entry import largest

    entries = [hub.pinned(entry) for entry in entries]
    missing = hub.missing(entries, largest(entries), dtype)
    for each in missing:
        talk.print(f"{each.name}: {decimal(each.size)} to fetch into {hub.cache()}", markup=False)
    hub.fetch(missing, bar)
    return entries
