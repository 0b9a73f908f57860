"""`tstitch finetune`: trains a denoiser only on the timesteps that a plan gives it, and puts it into the user's zoo."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.plan import in_words
from tstitch_cli.errors import TstitchError, UsageError
from tstitch_cli.zoo.entry import largest
from tstitch_cli.zoo.typed import as_typed

if TYPE_CHECKING:
    from tstitch_cli.schema import Plan, Row
    from tstitch_cli.training.finetune import Done, Options
    from tstitch_cli.zoo.finetuned import Comparison

MAX_SEED = 2**31 - 1
RATE, RATE_OF_LORA = 3e-5, 1e-4


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
    rate: Annotated[
        float | None, typer.Option(help="The learning rate at its height; 3e-5 by default, 1e-4 for a LoRA.")
    ] = None,
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
    pictures: Annotated[
        int, typer.Option(help="Pictures drawn before and after to compare by the metrics; 0 for none.", min=0)
    ] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was finetuned under this name before.")
    ] = False,
) -> None:
    """Train a denoiser only on the timesteps that a plan gives it (interval finetuning), into a new denoiser.

    A run that was interrupted goes on where it was when the same command is given again. The result joins your zoo:
    `tstitch profile` takes it by its name.
    """
    from tstitch_cli import documents
    from tstitch_cli.training import adapters
    from tstitch_cli.training.finetune import Options, refuse
    from tstitch_cli.zoo import finetuned
    from tstitch_cli.zoo.registry import Zoo

    if rate is None:
        rate = RATE if lora is None else RATE_OF_LORA
    if not 0 < rate < 1:
        raise UsageError(f"a rate of {rate:g} is absurd", hint="give --rate between 0 and 1, such as 3e-5")
    plan = documents.read_plan(plan_file)
    chosen = _row(plan, row)
    refuse(plan, denoiser, chosen.allocation)
    called = name or finetuned.default_name(denoiser, chosen.allocation)
    finetuned.refuse_taken(called, Zoo.load().entries, overwrite=overwrite)
    if lora is not None:
        adapters.require_peft()
    options = Options(batches, batch_size, rate, constant, seed, lora, fast)
    done = _trained(plan, documents.digest(plan_file), chosen, denoiser, called, data, options, device, work)
    out.print(str(done.folder), markup=False)
    talk.print(
        f"{called} is in your zoo: {denoiser} after {batches} batches on timesteps {done.spans.words}; "
        f"loss {done.record.first_loss:.4f} to {done.record.last_loss:.4f}",
        markup=False,
    )
    if done.lora is not None:
        talk.print(f"as a LoRA: {done.lora}", markup=False)
    if pictures and (compared := _compare(plan, chosen, denoiser, called, data, device, pictures, work)) is not None:
        record = replace(done.record, compared=compared)
        documents.write(done.folder / finetuned.RECORD, record, finetuned.SCHEMA, overwrite=True)
    others = as_typed([each for each in plan.denoisers if chosen.steps.get(each.name) and each.name != denoiser])
    talk.print(f"next: [bold]tstitch profile {escape(shlex.join([*others, called]))}[/]")


def _trained(
    plan: Plan,
    plan_digest: str,
    row: Row,
    denoiser: str,
    called: str,
    data: Path | None,
    options: Options,
    device: str,
    work: Path,
) -> Done:
    with steps_bar() as bar:
        bar(f"loading {denoiser}", 0.0)
        import torch

        from tstitch_cli.devices import out_of_memory, resolve_device
        from tstitch_cli.sample import entries_of
        from tstitch_cli.training.datasets import find
        from tstitch_cli.training.finetune import Student, finetune, require_same_weights

        where = torch.device(resolve_device(device))
        entries = entries_of(plan.denoisers)
        own = next(entry for entry in entries if entry.name == denoiser)
        # A LoRA leaves the denoiser's own weights as they are, so that those need no more precision than they have.
        dtype = "float32" if options.lora is None else plan.setting.dtype
        found, _ = fetch_missing([own], dtype, bar)
        if plan.setting.embeddings is None:
            found += fetch_missing(
                [host for host in entries if host is largest(entries, plan.setting.host)], dtype, bar
            )[0]
        entries = [next((each for each in found if each.name == entry.name), entry) for entry in entries]
        require_same_weights(plan, denoiser, entries)
        learnt = find(data, own.conditioning.labels)
        with out_of_memory(plan.setting):
            student = Student(entries, plan.setting, denoiser, getattr(torch, dtype))
            student.to(where)
            return finetune(student, plan, plan_digest, row.allocation, learnt, options, called, work, bar)


def _compare(
    plan: Plan, row: Row, denoiser: str, called: str, data: Path | None, device: str, pictures: int, work: Path
) -> Comparison | None:
    """Prints the metrics of the row's pictures with the old and the new weights; None where they are not measured."""
    from rich.table import Table

    with steps_bar() as bar:
        bar("loading", 0.0)
        from tstitch_cli.training.comparison import compare

        try:
            compared = compare(plan, row.allocation, denoiser, called, data, device, pictures, work, bar)
        except TstitchError as error:
            # The denoiser is trained and kept; that its pictures cannot be measured here does not undo that.
            hint = f"; {error.hint}" if error.hint else ""
            talk.print(f"[yellow]its pictures were not measured:[/] {escape(error.message + hint)}")
            return None
    before, after = compared.before, compared.after
    table = Table(box=None)
    for head in ("metric", "before", "after"):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for metric in before:
        table.add_row(
            metric, *(f"{m[metric].value:.3f} ({m[metric].low:.3f} to {m[metric].high:.3f})" for m in (before, after))
        )
    out.print(table)
    talk.print(
        f"{pictures} pictures of the row {in_words(row)}, before and after; the same noise for both", markup=False
    )
    return compared


def _row(plan: Plan, asked: int | None) -> Row:
    index = plan.chosen if asked is None else asked
    if not 0 <= index < len(plan.rows):
        raise UsageError(f"the plan has no row {index}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
    return plan.rows[index]
