"""`tstitch train`: trains the bundled family again, from the data to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.errors import UsageError


@guarded
def train(
    parts: Annotated[
        list[str] | None,
        typer.Argument(help="classifier, autoencoder, fashion-s, fashion-b, fashion-xl; all of them by default."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with Fashion-MNIST's four IDX files.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the weights and checkpoints.")] = Path("fashion"),
    shorten: Annotated[
        float, typer.Option(help="Share of the full schedules to run; small values try the command out.", min=0, max=1)
    ] = 1.0,
    fast: Annotated[
        bool, typer.Option(help="bfloat16 and torch.compile (needs a C++ compiler); --no-fast is plain float32.")
    ] = True,
) -> None:
    """Train the bundled Fashion-MNIST family: classifier, autoencoder, then the three denoisers.

    A run that was interrupted goes on where it was when the same command is given again. How each part was trained is
    written beside its weights as training.yaml.
    """
    with steps_bar() as bar:
        bar("loading", 0.0)
        from tstitch_cli.training import fashion_mnist
        from tstitch_cli.training.family import SCHEDULES, Family
        from tstitch_cli.training.loop import Progress

        chosen = parts or list(SCHEDULES)
        for part in chosen:
            if part not in SCHEDULES:
                raise UsageError(f"there is no part '{part}' to train", hint=f"there are {', '.join(SCHEDULES)}")
        family = Family(fashion_mnist.find(data), folder, folder / "work", fast=fast, shorten=shorten)

        def progress(part: str) -> Progress:
            return lambda done, total, loss: bar(f"{part}: batch {done} of {total}, loss {loss:.4f}", done / total)

        for part in chosen:
            family.train([part], progress)
            out.print(str(family.folder_of(part)), markup=False)
    talk.print(f"checkpoints are in {folder / 'work'} and may be deleted")
