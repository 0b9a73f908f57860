"""`tstitch sample`: draws pictures by a plan, or one picture again."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import MAX_SEED, Plan, Row

if TYPE_CHECKING:
    from tstitch_cli.jobs.request import Request
    from tstitch_cli.jobs.shards import Shard


@guarded
def sample(
    plan_file: Annotated[Path, typer.Option("--plan", help="The lookup table that `tstitch plan` wrote.")] = Path(
        "plan.yaml"
    ),
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be given again and again.")] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(help="One prompt a line; .csv and .jsonl may also have seed, negative_prompt, count."),
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures of each prompt.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Noise comes from it and the index alone.", min=0, max=MAX_SEED)] = 0,
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep out (text families).")] = None,
    image: Annotated[Path | None, typer.Option(help="The picture to start from (a plan made with --strength).")] = None,
    mask: Annotated[Path | None, typer.Option(help="White where to draw (a plan made with --inpaint).")] = None,
    control: Annotated[
        str | None, typer.Option(metavar="NAME=FILE", help="The control image (a plan made with --control NAME).")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[:SCALE]", help="Merge a LoRA into the largest denoiser; may be given again."),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path("pictures"),
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Draw share I of N, as 3/8; by rank under torchrun.")
    ] = None,
    row: Annotated[int | None, typer.Option(help="Run this row of the table instead of the chosen one.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, a contact sheet of the pictures.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Draw the same noise at every fraction 0 ... 1 into sweep.png instead.")
    ] = False,
    again: Annotated[Path | None, typer.Option("--from", help="Draw the picture in this PNG again.")] = None,
    engine: Annotated[str, typer.Option(help="Where to draw: local, or ray (the extra of that name).")] = "local",
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster's; a cluster of this machine alone unless given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="On Ray; as many as there is room for unless given.", min=1, max=10_000)
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drawn and how long it takes.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing pictures.")] = False,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Draw although the plan was measured elsewhere or with other weights.")
    ] = False,
) -> None:
    """Draw pictures by a plan, and tell predicted against actual time.

    Pictures are named by their index, 000000.png and so on; `tstitch show` tells how one was made. Beside them,
    manifest.jsonl has what decides their bytes and which are finished: interrupted, even by kill -9, the same command
    draws the rest, and on a finished folder it draws nothing.
    """
    if offline:
        from tstitch_cli.fetching import hub

        hub.go_offline()
    if again is not None:
        others = (prompt, prompts_file, grid, sweep, dry_run, row is not None, image, mask, control, lora)
        if any((*others, shard, engine != "local", address, workers)):
            raise UsageError("--from draws one picture as it was made", hint="give it with --out, --overwrite alone")
        _again(again, folder, overwrite=overwrite, allow_stale=allow_stale)
        return
    from tstitch_cli import inputs
    from tstitch_cli.commands.drawing import draw_plan, refuse
    from tstitch_cli.commands.sweeping import draw_sweep
    from tstitch_cli.documents import read_plan
    from tstitch_cli.jobs import prompts
    from tstitch_cli.jobs.request import Request
    from tstitch_cli.lora import read as read_loras
    from tstitch_cli.zoo import words

    plan = read_plan(plan_file)
    chosen = _row(plan, row)
    asked = [prompts.Prompt(text) for text in prompt or []]
    asked += prompts.read(prompts_file) if prompts_file else ()
    if not asked:
        raise UsageError("nothing to draw", hint='give --prompt "..." or --prompts-file FILE')
    request = Request(
        prompts=tuple(asked),
        folder=folder,
        count=count,
        seed=seed,
        negative_prompt=negative_prompt,
        given=inputs.read(plan.setting, image, mask, control),
        loras=read_loras(lora or []),
        shard=_shard(shard),
        grid=grid,
        overwrite=overwrite,
    )
    if sweep and (grid or shard or len(request.pictures) > len(asked)):
        raise UsageError("--sweep draws one sheet and no pictures", hint="leave --grid, --count and --shard out")
    for sheet in ["--sweep"] * sweep + ["--grid"] * grid:
        if request.shard.of > 1 and not shard:
            raise UsageError(
                f"RANK and WORLD_SIZE make this process number {request.shard.number} of {request.shard.of}, and "
                f"{sheet} draws one sheet in one process",
                hint=f"start {sheet} without torchrun or accelerate launch, or unset the two",
            )
    if engine not in ("local", "ray"):
        raise UsageError(f"unknown engine '{engine}'", hint="give local or ray")
    if engine == "local" and (address or workers):
        raise UsageError("--address and --workers are for --engine ray", hint="add --engine ray, or leave them out")
    if sweep and engine == "ray":
        raise UsageError("--sweep draws in one process", hint="leave --engine out")
    if told := words.remark_on(plan, request.texts):
        talk.print(told, style="yellow", markup=False)
    if dry_run:
        refuse(plan, chosen, request, sweep=sweep, allow_stale=allow_stale)
        _announce(plan, chosen, 11 if sweep else 1, request)
    elif sweep:
        draw_sweep(plan, chosen, request, allow_stale=allow_stale)
    elif engine == "local":
        draw_plan(plan, chosen, request, allow_stale=allow_stale)
    else:
        from tstitch_cli.jobs.ray_engine import Cluster

        with closing(Cluster(address, workers, talk.print)) as cluster:
            draw_plan(plan, chosen, request, allow_stale=allow_stale, engine=cluster)


def _again(png: Path, folder: Path, *, overwrite: bool, allow_stale: bool) -> None:
    from tstitch_cli import inputs, provenance
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.images import save_picture
    from tstitch_cli.jobs.request import paths_of
    from tstitch_cli.lora import again as loras_again
    from tstitch_cli.lora import merge
    from tstitch_cli.sample import entries_of, recorded_control

    made = provenance.read(png)
    targets = paths_of(folder, made.index, made.setting.frames)
    for target in targets:
        refuse_existing(target, overwrite=overwrite)
    given, loras = inputs.again(made.setting, made.files, str(png)), loras_again(made.files, str(png))
    entries = entries_of(made.denoisers)
    with steps_bar() as bar:
        net = recorded_control(made.setting, made.weights, entries)
        entries, net = fetch_missing(entries, made.setting.dtype, bar, net, made.setting.embeddings)
        bar("loading " + ", ".join(d.name for d in made.denoisers), 0.0)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.denoisers import load
        from tstitch_cli.devices import resolve_device
        from tstitch_cli.measuring.fingerprint import other_versions, require_same_weights, versions
        from tstitch_cli.sample import redraw

        resolve_device(made.setting.device)
        family = merge(load(entries, made.setting, control=net), loras)
        if not allow_stale:
            require_same_weights(made.weights, family.weights, str(png))
        if others := other_versions(made.versions):
            talk.print(f"[yellow]it may not come out bit for bit the same:[/] {escape(', '.join(others))}")
        bar("drawing", 0.5)
        frames = redraw(family, made, clock_for(family.device), given)
    made = replace(made, weights=family.weights, versions=versions())
    for target, image in zip(targets, frames, strict=True):
        save_picture(target, image, made, overwrite=overwrite)
        out.print(str(target), markup=False)


def _shard(text: str | None) -> Shard:
    from tstitch_cli.jobs import shards

    shard = shards.of_rank() if text is None else shards.parse(text)
    if shard.of > 1:
        talk.print(f"drawing share {shard}")
    return shard


def _row(plan: Plan, row: int | None) -> Row:
    if row is None:
        return plan.rows[plan.chosen]
    if not 0 <= row < len(plan.rows):
        raise UsageError(f"the plan has no row {row}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
    return plan.rows[row]


def _announce(plan: Plan, row: Row, columns: int, request: Request) -> None:
    from tstitch_cli.commands.drawing import words

    batches = request.batches(plan.setting.batch_size)
    pictures, calls = sum(map(len, batches)), columns * len(batches)
    if columns > 1:
        out.print(f"one sheet of {columns} x {pictures} pictures, calls: {calls}")
        return
    out.print(f"pictures: {pictures}, calls: {calls}, steps: {words(row.allocation)}", markup=False)
    out.print(f"predicted: {row.time_s.mean:.3f} s a call, 95 % of calls within {row.time_s.p95:.3f} s")
