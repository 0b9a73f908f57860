"""`tstitch finetune`: trains a denoiser only on the timesteps that a plan gives it, and puts it into the user's zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import StaleError, UsageError

if TYPE_CHECKING:
    from tstitch_cli.schema import Plan, Row
    from tstitch_cli.zoo.entry import Entry

MAX_SEED = 2**31 - 1


@guarded
def finetune(
    denoiser: Annotated[str, typer.Argument(help="A denoiser of the plan.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="The lookup table that `tstitch plan` wrote.")] = Path(
        "plan.yaml"
    ),
    row: Annotated[int | None, typer.Option(help="Take the steps of this row instead of the chosen one.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="What to learn from: a folder of pictures with captions or classes, a webdataset's .tar, or "
            "Fashion-MNIST's folder, which the bundled family looks for by itself."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the result in the zoo; DENOISER-early, -middle or -late by default.")
    ] = None,
    batches: Annotated[int, typer.Option(help="How long to train.", min=1)] = 500,
    batch_size: Annotated[int, typer.Option(help="Pictures of a batch.", min=1)] = 64,
    rate: Annotated[float, typer.Option(help="The learning rate at its height.")] = 1e-4,
    constant: Annotated[
        bool, typer.Option("--constant", help="Keep the rate; otherwise it falls along a cosine.")
    ] = False,
    seed: Annotated[int, typer.Option(help="All that is drawn comes from it.", min=0, max=MAX_SEED)] = 0,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", help="Train a LoRA of this rank, for large denoisers.", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")] = "auto",
    fast: Annotated[bool, typer.Option(help="bfloat16 autocast; --no-fast is plain float32.")] = True,
    work: Annotated[
        Path, typer.Option(help="Folder for checkpoints and encoded pictures; may be deleted afterwards.")
    ] = Path("finetune-work"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was finetuned under this name before.")
    ] = False,
) -> None:
    """Train a denoiser only on the timesteps that a plan gives it (interval finetuning), into a new denoiser.

    A run that was interrupted goes on where it was when the same command is given again. The result joins your zoo:
    `tstitch profile` takes it by its name.
    """
    from tstitch_cli import documents
    from tstitch_cli.sample import entries_of
    from tstitch_cli.training import adapters
    from tstitch_cli.training.datasets import find
    from tstitch_cli.training.finetune import Options, refuse
    from tstitch_cli.zoo import finetuned
    from tstitch_cli.zoo.registry import Zoo

    if not 0 < rate < 1:
        raise UsageError(f"a rate of {rate:g} is absurd", hint="give --rate between 0 and 1, such as 1e-4")
    plan = documents.read_plan(plan_file)
    chosen = _row(plan, row)
    refuse(plan, denoiser, chosen.allocation)
    called = name or finetuned.default_name(denoiser, chosen.allocation)
    finetuned.refuse_taken(called, Zoo.load().entries, overwrite=overwrite)
    if lora is not None:
        adapters.require_peft()
    options = Options(batches, batch_size, rate, constant, seed, lora, fast)
    with steps_bar() as bar:
        bar(f"loading {denoiser}", 0.0)
        from tstitch_cli.devices import resolve_device

        entries = entries_of(plan.denoisers)
        where = resolve_device(device)
        _require_same_weights(plan, denoiser, entries)
        learnt = find(data, next(entry for entry in entries if entry.name == denoiser).conditioning.labels)
        _train(plan, documents.digest(plan_file), chosen, denoiser, called, entries, learnt, options, where, work, bar)


def _row(plan: Plan, asked: int | None) -> Row:
    index = plan.chosen if asked is None else asked
    if not 0 <= index < len(plan.rows):
        raise UsageError(f"the plan has no row {index}", hint=f"it has rows 0 to {len(plan.rows) - 1}")
    return plan.rows[index]
