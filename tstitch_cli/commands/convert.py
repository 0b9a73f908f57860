"""`tstitch convert`: makes a denoiser of the zoo from its original checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, talk


@guarded
def convert(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A denoiser of the zoo whose source begins with converted:.")
    ],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The original checkpoint: .pt, .pth, .ckpt or .safetensors.")
    ],
    autoencoder: Annotated[
        Path | None, typer.Option(help="The autoencoder's checkpoint, where the denoiser's does not hold it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what was converted before.")] = False,
) -> None:
    """Make a denoiser of the zoo from its original checkpoint, so that from then on its name is enough.

    The tensors are read without running anything that a pickle may hold, and written as a diffusers folder with
    safetensors into the user's data folder, which is printed.
    """
    from tstitch_cli.zoo.registry import Zoo

    entry = Zoo.load().resolve(name)
    with talk.status("converting"):
        from tstitch_cli.networks.convert import convert as make

        folder = make(entry, checkpoint, autoencoder=autoencoder, overwrite=overwrite)
    out.print(str(folder), markup=False)
