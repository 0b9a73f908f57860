"""`tstitch train`: trains the bundled families again, from the data to the weights."""

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
        typer.Argument(
            help="Of Fashion-MNIST: classifier, autoencoder, fashion-s, fashion-b, fashion-xl, all of these by "
            "default. Of the tiny Stable Diffusion: tiny-sd-classifier and tiny-sd-clip (what measures it), "
            "tiny-sd-autoencoder, tiny-sd-sharper, tiny-sd, tiny-sd-base, tiny-sd-small, tiny-sd-ink (stylised), "
            "tiny-sd-lcm and tiny-sd-small-lcm (of few steps), tiny-sd-outline (a ControlNet)."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with Fashion-MNIST's four IDX files.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the weights and checkpoints; `fashion` or `tiny-sd` by default."),
    ] = None,
    shorten: Annotated[
        float, typer.Option(help="Share of the full schedules to run; small values try the command out.", min=0, max=1)
    ] = 1.0,
    fast: Annotated[
        bool, typer.Option(help="bfloat16 and torch.compile (needs a C++ compiler); --no-fast is plain float32.")
    ] = True,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Only draw pictures of the tiny Stable Diffusion's data."),
    ] = None,
) -> None:
    """Train the bundled families again: classifier, autoencoder, then the denoisers.

    A run that was interrupted goes on where it was when the same command is given again. What a part rests on and is
    not in the folder yet is copied there from the package. How each part was trained is written beside its weights as
    training.yaml.
    """
    with steps_bar() as bar:
        bar("loading", 0.0)
        from tstitch_cli import libraries

        libraries.hush()
        from tstitch_cli.training import family, fashion_mnist, foundation, tiny_sd
        from tstitch_cli.training.loop import Progress
        from tstitch_cli.training.workshop import WORK
        from tstitch_cli.zoo.registry import BUNDLED

        source = fashion_mnist.find(data)
        if sheet is not None:
            tiny_sd.draw_sheet(source, sheet)
            out.print(str(sheet), markup=False)
            return
        chosen = parts or list(family.SCHEDULES)
        known = {**dict.fromkeys(family.SCHEDULES, family.Family), **dict.fromkeys(tiny_sd.SCHEDULES, tiny_sd.TinySD)}
        for part in chosen:
            if part not in known:
                raise UsageError(f"there is no part '{part}' to train", hint=f"there are {', '.join(known)}")

        if folder is not None and len({known[part] for part in chosen}) > 1:
            raise UsageError("these parts are of two families", hint="give each a folder, or none: they have their own")

        def progress(part: str) -> Progress:
            return lambda done, total, loss: bar(f"{part}: batch {done} of {total}, loss {loss:.4f}", done / total)

        used = []
        for kind, name, module in ((family.Family, "fashion", family), (tiny_sd.TinySD, "tiny-sd", tiny_sd)):
            own = [part for part in chosen if known[part] is kind]
            if not own:
                continue
            place = folder or Path(name)
            made = kind(source, place, place / WORK, fast=fast, shorten=shorten)
            bundled = BUNDLED / name
            if laid := foundation.lay(own, module.RESTS_ON, made.folder_of, place, bundled, module.MADE_WITH):
                talk.print(f"took from the package what this rests on: {', '.join(laid)}", markup=False)
            for part in own:
                made.train([part], progress)
                out.print(str(made.folder_of(part)), markup=False)
            used.append(str(place / WORK))
    talk.print(f"checkpoints are in {' and '.join(dict.fromkeys(used))} and may be deleted")
