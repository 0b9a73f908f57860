"""`tstitch fetch`: fetches what denoisers need from the hub, ahead of the commands that load them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import DTYPES

if TYPE_CHECKING:
    from tstitch_cli.zoo.controls import Control
    from tstitch_cli.zoo.entry import Entry


@guarded
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="DENOISER...", help="Names of the zoo or hub ids, as `tstitch profile` takes them."),
    ],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; what `tstitch profile` takes on this machine by default."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Also a ControlNet: canny, depth ..., or a hub id, as profile takes it.")
    ] = None,
    embeddings: Annotated[
        str, typer.Option(help="`own` also fetches every denoiser's text encoder, as profile's option needs it.")
    ] = "large",
) -> None:
    """Fetch denoisers from the hub, so that profile and sample need no network (--offline).

    Of every denoiser its config and safetensors weights are fetched, of the largest also the other parts of its
    pipeline: the variant for the dtype where there is one, and nothing that is there already. The dtype is the one
    that `tstitch profile` takes on this machine: float32 on a CPU, the family's own elsewhere.
    """
    from rich.markup import escape

    from tstitch_cli.fetching import hub
    from tstitch_cli.zoo.registry import Zoo

    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'", hint=f"there are {', '.join(DTYPES)}")
    if embeddings not in ("large", "own"):
        raise UsageError(f"unknown embeddings '{embeddings}'", hint="give large or own")
    zoo = Zoo.load()
    with steps_bar() as bar:
        bar("asking the hub", 0.0)
        entries = zoo.resolve_all(names)
        net = None if control is None else zoo.control(control, entries)
        own = None if embeddings == "large" else embeddings
        entries, net = fetch_missing(entries, dtype or _dtype_of_profile(entries), bar, net, own)
    fetched: list[Entry | Control] = [*entries, *([] if net is None else [net])]
    for each in fetched:
        revision = f" at {each.revision}" if hub.place(each.source) else ""
        out.print(f"{escape(each.name)}  {escape(each.source)}{revision}")


def fetch_missing(
    entries: Sequence[Entry],
    dtype: str,
    bar: Callable[[str, float], None],
    control: Control | None = None,
    embeddings: str | None = None,
) -> tuple[list[Entry], Control | None]:
    """Tells and fetches what `entries`, the pipeline of the largest and `control` need; returns them at their commits.

    `embeddings` are a setting's. Raises BadFileError where something is to be converted first (before the hub is
    asked), may not be fetched or cannot be, and UsageError where it may not be read or loaded.
    """
    from functools import partial

    from rich.filesize import decimal

    from tstitch_cli.fetching import downloads, hub
    from tstitch_cli.fetching.fetch_command import fetch_command
    from tstitch_cli.fetching.hub_errors import advising, all_of
    from tstitch_cli.zoo import converted
    from tstitch_cli.zoo.entry import largest

    converted.require(entries)
    with advising(partial(fetch_command, entries, dtype, control, embeddings)):
        entries = all_of(entries, hub.pinned)
        control = control and hub.pinned_control(control)
        missing = hub.missing(entries, largest(entries), dtype, control=control, embeddings=embeddings)
    for each in missing:
        talk.print(f"{each.name}: {decimal(each.size)} to fetch into {hub.cache()}", markup=False)
    downloads.fetch(missing, hub.cache(), bar)
    return entries, control


def _dtype_of_profile(entries: Sequence[Entry]) -> str:
    from tstitch_cli.devices import resolve_device, resolve_dtype
    from tstitch_cli.zoo.entry import largest

    return resolve_dtype(None, largest(entries).defaults.dtype, resolve_device("auto"))
