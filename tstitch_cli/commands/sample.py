"""`tstitch sample`: draws pictures by a plan, or one picture again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import MAX_SEED, GivenFile, Plan, Row

if TYPE_CHECKING:
    from PIL.Image import Image

    from tstitch_cli.denoisers import Family
    from tstitch_cli.inputs import Given
    from tstitch_cli.sample import Work
    from tstitch_cli.zoo.entry import Entry


@guarded
def sample(
    plan_file: Annotated[Path, typer.Option("--plan", help="The lookup table that `tstitch plan` wrote.")] = Path(
        "plan.yaml"
    ),
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be given again and again.")] = None,
    prompts_file: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
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
    row: Annotated[int | None, typer.Option(help="Run this row of the table instead of the chosen one.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, a contact sheet of the pictures.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Draw the same noise at every fraction 0 ... 1 into sweep.png instead.")
    ] = False,
    again: Annotated[Path | None, typer.Option("--from", help="Draw the picture in this PNG again.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drawn and how long it takes.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing pictures.")] = False,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Draw although the plan was measured elsewhere or with other weights.")
    ] = False,
) -> None:
    """Draw pictures by a plan, and tell predicted against actual time.

    Pictures are named by their index, 000000.png and so on; `tstitch show` tells how one was made.
    """
    if offline:
        from tstitch_cli import hub

        hub.go_offline()
    if again is not None:
        if any((prompt, prompts_file, grid, sweep, dry_run, row is not None, image, mask, control, lora)):
            raise UsageError("--from draws one picture as it was made", hint="give it with --out, --overwrite alone")
        _again(again, folder, overwrite=overwrite, allow_stale=allow_stale)
        return
    from tstitch_cli.documents import read_plan

    plan = read_plan(plan_file)
    prompts = _prompts(prompt or [], prompts_file)
    chosen = _row(plan, row)
    if sweep and (grid or count > 1):
        raise UsageError("--sweep draws one sheet and no pictures", hint="leave --grid and --count out")
    from tstitch_cli import inputs
    from tstitch_cli.lora import read as read_loras

    given, loras = inputs.read(plan.setting, image, mask, control), read_loras(lora or [])
    targets = targets_of(prompts, count, folder, grid=grid, sweep=sweep, frames=plan.setting.frames)
    if dry_run:
        _refuse(plan, chosen, prompts, negative_prompt, targets, sweep=sweep, overwrite=overwrite)
        _announce(plan, chosen, 11 if sweep else 1, len(prompts) * count)
        return
    draw_plan(
        plan,
        chosen,
        prompts,
        count=count,
        seed=seed,
        negative_prompt=negative_prompt,
        folder=folder,
        grid=grid,
        sweep=sweep,
        overwrite=overwrite,
        allow_stale=allow_stale,
        given=given,
        loras=loras,
    )


def draw_plan(
    plan: Plan,
    row: Row,
    prompts: list[str],
    *,
    count: int,
    seed: int,
    negative_prompt: str | None,
    folder: Path,
    grid: bool,
    sweep: bool,
    overwrite: bool,
    allow_stale: bool,
    given: Given | None = None,
    loras: tuple[GivenFile, ...] = (),
) -> None:
    """Loads what `plan` needs, draws and reports; everything that can be refused is refused before loading."""
    from dataclasses import replace

    from tstitch_cli.inputs import NOTHING
    from tstitch_cli.sample import check_fingerprint, jobs, recorded_control, warm_up, work_of

    work, pictures, given = work_of(plan, row), jobs(prompts, count), given or NOTHING
    targets = targets_of(prompts, count, folder, grid=grid, sweep=sweep, frames=plan.setting.frames)
    entries = _refuse(plan, row, prompts, negative_prompt, targets, sweep=sweep, overwrite=overwrite)
    with steps_bar() as bar:
        bar("loading " + ", ".join(d.name for d in plan.denoisers), 0.0)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.denoisers import load
        from tstitch_cli.devices import resolve_device
        from tstitch_cli.lora import merge
        from tstitch_cli.trajectory import Batch

        resolve_device(plan.setting.device)
        net = recorded_control(plan.setting, plan.fingerprint.weights if plan.fingerprint else {}, entries)
        if not allow_stale:
            check_fingerprint(plan, entries, net, plan.setting.device)
        entries, net = fetch_missing(entries, plan.setting.dtype, bar, net, plan.setting.embeddings)
        family = merge(load(entries, plan.setting, control=net), loras)
        clock = clock_for(family.device)
        first = pictures[: plan.setting.batch_size]
        batch = Batch(tuple(p for _, p in first), tuple(i for i, _ in first), seed, negative_prompt, given)
        doing = "compiling and warming up" if plan.setting.compiled else "warming up"
        bar(doing, 0.0)
        ends = ((plan.denoisers[0].name, 1), (plan.denoisers[-1].name, 1))
        warm_s = warm_up(family, replace(work, allocation=ends) if sweep else work, batch, clock)
    compiled = " with compiling" if plan.setting.compiled else ""
    talk.print(f"warm-up{compiled} {warm_s:.2f} s, not in the times below")
    if sweep:
        _sweep(plan, work, family, prompts, seed, negative_prompt, folder, given, overwrite=overwrite)
        return
    _draw(
        plan, row, work, family, prompts, pictures, seed, negative_prompt, folder, given, grid=grid, overwrite=overwrite
    )


def _draw(
    plan: Plan,
    row: Row,
    work: Work,
    family: Family,
    prompts: list[str],
    pictures: list[tuple[int, str]],
    seed: int,
    negative_prompt: str | None,
    folder: Path,
    given: Given,
    *,
    grid: bool,
    overwrite: bool,
) -> None:
    from tstitch_cli.clocks import clock_for
    from tstitch_cli.sample import draw

    full = plan.setting.batch_size
    images: list[Image] = []
    times: list[float] = []
    with steps_bar() as bar:
        bar(f"drawing {len(pictures)}", 0.0)
        for drawn in draw(
            family,
            work,
            pictures,
            clock_for(family.device),
            seed=seed,
            negative_prompt=negative_prompt,
            folder=folder,
            overwrite=overwrite,
            given=given,
        ):
            images += drawn.images
            if len(drawn.images) == full:
                times.append(drawn.actual_s)
            bar(f"drawing {len(pictures)}", len(images) / len(pictures))
            for path in drawn.paths:
                out.print(str(path), markup=False)
    if grid:
        count = len(pictures) // len(prompts)
        rows = [images[i : i + count] for i in range(0, len(images), count)]
        path = _sheet(folder / "grid.png", rows, prompts, [""] * count, None, overwrite=overwrite)
        out.print(str(path), markup=False)
    talk.print(f"drew {len(images)} with {_words(row.allocation)} steps", markup=False)
    _report(plan, row, times, len(images))


def _report(plan: Plan, row: Row, times: list[float], drawn: int) -> None:
    """Predicted against actual, and by how much the budget was missed where it was."""
    from statistics import fmean

    from tstitch_cli.drift import warning

    if not times:
        full = plan.setting.batch_size
        talk.print(f"the plan's times are for batches of {full}; this batch of {drawn} is not compared with them")
        return
    actual = fmean(times)
    talk.print(
        f"a call took {actual:.3f} s, predicted {row.time_s.mean:.3f} s ({actual / row.time_s.mean - 1.0:+.1%}), "
        f"budget {plan.budget.seconds:.3f} s"
        + (f"; {len(times)} calls, {min(times):.3f} to {max(times):.3f} s" if len(times) > 1 else "")
    )
    missed = [t for t in times if t > plan.budget.seconds]
    if missed:
        worst = max(missed) - plan.budget.seconds
        talk.print(f"[yellow]{len(missed)} of {len(times)} calls missed the budget, the worst by {worst:.3f} s[/]")
    if drifted := warning(row.time_s, times):
        talk.print(f"[yellow]{drifted}[/]")


def _sweep(
    plan: Plan,
    work: Work,
    family: Family,
    prompts: list[str],
    seed: int,
    negative_prompt: str | None,
    folder: Path,
    given: Given,
    *,
    overwrite: bool,
) -> None:
    """The paper's figure: prompts down, fraction of the small denoiser across, the same noise in every column."""
    from tstitch_cli.clocks import clock_for
    from tstitch_cli.sample import sweep

    small, large = plan.denoisers[0].name, plan.denoisers[-1].name
    columns: list[tuple[Image, ...]] = []
    labels, seconds = [], []
    with steps_bar() as bar:
        bar(f"{small} for the first 0 %", 0.0)
        for column in sweep(
            family, work, prompts, clock_for(family.device), seed=seed, negative_prompt=negative_prompt, given=given
        ):
            columns.append(column.images)
            labels.append(f"{column.fraction:.0%}")
            seconds.append(f"{column.seconds:.2f} s")
            bar(f"{small} for the first {column.fraction:.0%}", len(columns) / 11)
    rows = [[column[p] for column in columns] for p in range(len(prompts))]
    title = f"{small}, then {large}: share of the first steps that {small} takes, and the time of the call"
    path = _sheet(folder / "sweep.png", rows, prompts, labels, seconds, title=title, overwrite=overwrite)
    out.print(str(path), markup=False)


def _again(png: Path, folder: Path, *, overwrite: bool, allow_stale: bool) -> None:
    from tstitch_cli import inputs, provenance
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.images import save_picture
    from tstitch_cli.lora import again as loras_again
    from tstitch_cli.lora import merge
    from tstitch_cli.sample import entries_of, paths_of, recorded_control

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
        from tstitch_cli.fingerprint import require_same_weights
        from tstitch_cli.sample import redraw

        resolve_device(made.setting.device)
        family = merge(load(entries, made.setting, control=net), loras)
        if not allow_stale:
            require_same_weights(made.weights, family.weights, str(png))
        bar("drawing", 0.5)
        frames = redraw(family, made, clock_for(family.device), given)
    for target, image in zip(targets, frames, strict=True):
        save_picture(target, image, made, overwrite=overwrite)
        out.print(str(target), markup=False)


def _prompts(given: list[str], file: Path | None) -> list[str]:
    """Prompts of the options, then of the file."""
    prompts = list(given)
    if file is not None:
        from tstitch_cli.errors import BadFileError

        try:
            prompts += [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise BadFileError(f"{file}: is not UTF-8 text", hint="give a text file, one prompt a line") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise BadFileError(f"{file}: cannot be read: {why}", hint="give a text file, one prompt a line") from error
    if not prompts:
        raise UsageError("nothing to draw", hint='give --prompt "..." or --prompts-file FILE')
    return prompts


def _row(plan: Plan, row: int | None) -> Row:
    if row is None:
        return plan.rows[plan.chosen]
    if not 0 <= row < len(plan.rows):
        raise UsageError(f"the plan has no row {row}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
    return plan.rows[row]


def _announce(plan: Plan, row: Row, columns: int, pictures: int) -> None:
    calls = columns * -(-pictures // plan.setting.batch_size)
    if columns > 1:
        out.print(f"one sheet of {columns} x {pictures} pictures, calls: {calls}")
        return
    out.print(f"pictures: {pictures}, calls: {calls}, steps: {_words(row.allocation)}", markup=False)
    out.print(f"predicted: {row.time_s.mean:.3f} s a call, 95 % of calls within {row.time_s.p95:.3f} s")


def targets_of(
    prompts: list[str], count: int, folder: Path, *, grid: bool, sweep: bool, frames: int | None = None
) -> list[Path]:
    """Every file that drawing writes."""
    from tstitch_cli.sample import jobs, paths_of

    if sweep:
        return [folder / "sweep.png"]
    pictures = [path for index, _ in jobs(prompts, count) for path in paths_of(folder, index, frames)]
    return pictures + [folder / "grid.png"] * grid


def _refuse(
    plan: Plan,
    row: Row,
    prompts: list[str],
    negative_prompt: str | None,
    targets: list[Path],
    *,
    sweep: bool,
    overwrite: bool,
) -> list[Entry]:
    """The entries that the plan stands for; raises what can be known to be wrong before anything is loaded."""
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.provenance import refuse_untellable
    from tstitch_cli.sample import entries_of, refuse_unknown_noise

    refuse_untellable((*prompts, negative_prompt or ""))
    for path in targets:
        refuse_existing(path, overwrite=overwrite)
    refuse_unknown_noise(plan, row, sweep=sweep)
    entries = entries_of(plan.denoisers)
    if entries[0].conditioning.kind == "class":
        from tstitch_cli.zoo.entry import class_numbers

        class_numbers(entries[0], prompts)
        if negative_prompt is not None:
            raise UsageError(
                f"{plan.family} is class-conditional and takes no negative prompt", hint="leave --negative-prompt out"
            )
    if negative_prompt is not None and entries[-1].pipeline == "FluxPipeline":
        raise UsageError(
            f"{plan.family} takes no negative prompt: the guidance scale is an input of its denoisers",
            hint="leave --negative-prompt out",
        )
    return entries


def _sheet(
    path: Path,
    rows: list[list[Image]],
    row_labels: list[str],
    column_labels: list[str],
    times: list[str] | None,
    *,
    title: str | None = None,
    overwrite: bool,
) -> Path:
    from tstitch_cli.images import contact_sheet, save_sheet

    save_sheet(path, contact_sheet(rows, row_labels, column_labels, times, title), overwrite=overwrite)
    return path


def _words(allocation: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{name} {steps}" for name, steps in allocation)
