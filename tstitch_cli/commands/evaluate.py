"""`tstitch evaluate`: measures how good the pictures of a plan's rows are, into the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.measuring_with import captions_of, instruments, prompts_of, tell_left_out, warn_of_few
from tstitch_cli.commands.stopping import Stopping, finishing_first, typed
from tstitch_cli.errors import ExitStatus, StaleError, UsageError
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import MAX_SEED, Evaluation, Plan

if TYPE_CHECKING:
    from tstitch_cli.evaluate import Evaluated
    from tstitch_cli.jobs.shards import Shard
    from tstitch_cli.zoo.entry import Entry

Progress = Callable[[str, float], None]
SEED = 1
"""Another than that of the pictures by which `tstitch profile` compares predictions."""


@guarded
def evaluate(
    plan_file: Annotated[
        Path, typer.Option("--plan", help="The lookup table, whose measured columns are filled in place.")
    ] = Path("plan.yaml"),
    rows: Annotated[str, typer.Option(help="all, pareto, chosen, or numbers of rows: 0,3,7-9.")] = "all",
    count: Annotated[int, typer.Option(help="Pictures of each row.", min=1)] = 1000,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            help="One prompt a line, drawn in turn, or the name of captions that the family ships with, such as "
            "unseen; the classes, or the family's own captions, by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Noise comes from it and the index alone.", min=0, max=MAX_SEED)] = SEED,
    metrics: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join(METRICS)}; all that can be measured by default.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A folder of pictures or statistics (.npz) to compare with, or the name of one that the family ships "
            "with, such as ink; the family's own by default."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Network to compare by: inception, or a bundled family's classifier, such as fashion."),
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the pictures in folders row-000 ... of this one.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures drawn at once; by their size.", min=1)] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for what is found out; a cache of the user's by default.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only draw and describe share I of N of the batches into --work.")
    ] = None,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Drop what was measured in another way than this one.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Measure how good the pictures of a plan's rows are, and write it into the plan.

    Every row draws the same pictures from the same noise; what rows have in common at the beginning of the trajectory
    is computed once. Work that was cut goes on where it was when the same command is given again.
    """
    if offline:
        from tstitch_cli.fetching import hub

        hub.go_offline()
    from tstitch_cli import documents, files
    from tstitch_cli.jobs.shards import WHOLE, parse

    wanted = None if metrics is None else _metrics(metrics)
    if features is not None:
        _refuse_unknown_features(features)
    plan, digest = documents.read_plan(plan_file), documents.digest(plan_file)
    files.refuse_existing(plan_file, overwrite=True)
    numbers = _rows(plan, rows)
    _refuse_what_cannot_be_drawn(plan)
    folder = work or _cache()
    share = WHOLE if shard is None else parse(shard)
    with _going_on(folder), finishing_first() as stopping, steps_bar() as bar:
        found = _measure(
            plan,
            numbers,
            prompts_file,
            count=count,
            seed=seed,
            wanted=wanted,
            place=reference,
            features=features,
            keep=keep,
            batch_size=batch_size,
            work=folder,
            remeasure=remeasure,
            bar=_with_time_left(bar),
            stopping=stopping,
            share=share,
        )
    if share.of > 1:
        talk.print(
            f"share {share}: {found.drawn:,} pictures drawn; what was found out about them is in {folder}: after "
            "all shares, the same command without --shard measures",
            markup=False,
        )
        return
    if documents.digest(plan_file) != digest:
        raise StaleError(
            f"{plan_file} was changed while its rows were measured, so nothing was written into it",
            hint="give the same command again: what was found out is kept, and is not drawn again",
        )
    filled = _filled(plan, numbers, found)
    documents.write_plan(filled, plan_file, overwrite=True)
    if as_json:
        import json

        from tstitch_cli.schema import PLAN_SCHEMA

        typer.echo(json.dumps({"schema": PLAN_SCHEMA, **documents.plain(filled)}, indent=2))
    else:
        show(filled, numbers)
    talk.print(_drawn(found))
    talk.print(f"wrote the measured columns into {plan_file}", markup=False)


def show(plan: Plan, numbers: Sequence[int]) -> None:
    """Prints what was measured of rows on stdout, and on stderr what it holds for."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tstitch_cli.commands.measured_words import cell, heading, in_words, present
    from tstitch_cli.commands.plan import WIDTH
    from tstitch_cli.planning.orders import SMALL_TO_LARGE
    from tstitch_cli.quantities import shown_s

    names, columns = [denoiser.name for denoiser in plan.denoisers], present(plan.rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    ordered = any(row.order for row in plan.rows)
    for title in ("row", *map(escape, names), "mean", *map(heading, columns), *["order"] * ordered):
        table.add_column(title, justify="right", no_wrap=True)
    for number in numbers:
        row, chosen = plan.rows[number], number == plan.chosen
        cells = [f"{'> ' if chosen else ''}{number}"]
        cells += [str(row.steps.get(name, 0) or "-") for name in names]
        cells += [shown_s(row.time_s.mean), *(cell(name, row.measured.get(name)) for name in columns)]
        cells += [row.order or SMALL_TO_LARGE] * ordered
        table.add_row(*cells, style="bold green" if chosen else "")
    Console(width=max(out.width, WIDTH), highlight=False).print(table)
    if plan.evaluation is not None:
        talk.print(f"{in_words(plan.evaluation)}; ± is half of the 95 % interval", markup=False)


@contextmanager
def _going_on(work: Path) -> Iterator[None]:
    """Tells after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        talk.print(
            f"interrupted: what was found out so far is kept in {work}; the same command goes on from there:\n"
            f"  {typed()}",
            markup=False,
        )
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


def _drawn(found: Evaluated) -> str:
    """What was drawn just now, and what rows that begin alike saved of it."""
    if not found.drawn:
        return "no picture had to be drawn: all of them were known from before"
    said = f"{found.drawn:,} pictures drawn"
    if not found.saved:
        return f"{said}; no rows had steps in common"
    share = found.saved / (found.made + found.saved)
    return (
        f"{said}; steps with which several rows begin were run once for all of them, which saved {share:.0%} of the "
        "evaluations"
    )


def _measure(
    plan: Plan,
    numbers: Sequence[int],
    prompts_file: Path | None,
    *,
    count: int,
    seed: int,
    wanted: Sequence[str] | None,
    place: Path | None,
    features: str | None,
    keep: Path | None,
    batch_size: int | None,
    work: Path,
    remeasure: bool,
    bar: Progress,
    stopping: Stopping,
    share: Shard,
) -> Evaluated:
    """Measures rows of `plan`; what can be refused is refused before the denoisers are loaded."""
    from tstitch_cli.sample import entries_of, recorded_control, work_of
    from tstitch_cli.zoo import words

    bar("looking for what is needed", 0.0)
    entries = entries_of(plan.denoisers)
    control = recorded_control(plan.setting, plan.fingerprint.weights if plan.fingerprint else {}, entries)
    captions = captions_of(plan, prompts_file)
    prompts = prompts_of(plan, entries[0], prompts_file, captions)
    if told := words.remark_on(plan, prompts):
        talk.print(told, style="yellow", markup=False)
    if entries[0].conditioning.kind == "class" and count % len(prompts):
        talk.print(f"[yellow]{count:,} pictures are not as many of each of the {len(prompts):,} classes[/]")
    from tstitch_cli.devices import resolve_device

    device = resolve_device(plan.setting.device)
    _refuse_other_weights(plan, entries)
    extractor, scorer, compared = instruments(plan, entries[0], features, wanted, place, captions, work, device, bar)
    from tstitch_cli import evaluate as stage

    in_turn = stage.in_turn(prompts, count)
    asked = stage.asked_for(wanted, stage.measurable(entries[0], in_turn, extractor, compared, scorer))
    if "fid" in asked and compared is not None:
        warn_of_few(count, len(compared.gaussian.mean))
    if extractor is not None:
        tell_left_out(extractor.judge.asking(entries[0], in_turn), wanted, asked, count)
    evaluation = stage.evaluation_of(extractor, compared, prompts, seed=seed, count=count)
    _refuse_mixing(plan, numbers, evaluation, remeasure=remeasure)
    entries, control = fetch_missing(entries, plan.setting.dtype, bar, control, plan.setting.embeddings)
    bar("loading " + ", ".join(d.name for d in plan.denoisers), 0.0)
    from tstitch_cli.denoisers import load
    from tstitch_cli.quality.kept_pictures import KeptPictures

    family = load(entries, plan.setting, control=control)
    works = {str(number): work_of(plan, plan.rows[number]) for number in numbers}
    return stage.evaluate(
        family,
        {name: each.allocation for name, each in works.items()},
        prompts,
        seed=seed,
        count=count,
        batch_size=batch_size,
        counts=plan.evaluations_per_step(),
        extractor=extractor,
        scorer=scorer,
        reference=compared,
        metrics=wanted,
        work=work,
        keeper=None if keep is None else KeptPictures(family, works, keep),
        shard=share,
        progress=stopping.between(
            lambda doing, share: bar(doing if doing.startswith("measuring") else f"drawing {doing}", share)
        ),
    )


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    for name in names:
        if name not in METRICS:
            raise UsageError(f"{name[:40]!r} is no metric", hint=f"there are {', '.join(METRICS)}")
    return names


def _refuse_unknown_features(name: str) -> None:
    from tstitch_cli.quality import features as networks

    if name not in networks.names():
        raise UsageError(f"there are no features called {name[:40]!r}", hint=f"there are {', '.join(networks.names())}")


def _rows(plan: Plan, text: str) -> list[int]:
    """The numbers of the rows that `text` means; those that must not be drawn only where they are named."""
    asked = text.strip().lower()
    drawable = [number for number, row in enumerate(plan.rows) if row.refused is None]
    if asked == "chosen":
        return [plan.chosen]
    if asked in ("all", "pareto"):
        return [number for number in drawable if asked == "all" or plan.rows[number].pareto]
    numbers: list[int] = []
    for part in asked.split(","):
        first, dash, last = (end.strip() for end in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"{text[:40]!r} are no rows", hint="give all, pareto, chosen, or numbers such as 0,3,7-9")
        ends = int(first), int(last or first)
        if not ends[0] <= ends[1] < len(plan.rows):
            raise UsageError(f"the plan has no rows {part.strip()}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
        numbers += range(ends[0], ends[1] + 1)
    for number in numbers:
        if (why := plan.rows[number].refused) is not None:
            raise UsageError(f"row {number} must not be drawn: {why}", hint="leave it out")
    return sorted(set(numbers))


def _refuse_what_cannot_be_drawn(plan: Plan) -> None:
    setting = plan.setting
    if plan.fingerprint is not None and plan.fingerprint.random:
        raise StaleError(
            "the plan was made with random weights: it tells how long calls take and has nothing to draw with",
            hint="profile without --random-weights and plan again",
        )
    if setting.strength is not None or setting.inpaint or setting.control is not None or setting.frames is not None:
        raise UsageError(
            "what is drawn from pictures, and videos, are not measured: there is no usual reference for them",
            hint="measure a plan for the same denoisers from noise",
        )


def _refuse_other_weights(plan: Plan, entries: Sequence[Entry]) -> None:
    """How good pictures are depends on the weights, not on the machine, so only those must be the plan's."""
    from tstitch_cli import components
    from tstitch_cli.measuring import fingerprint

    if plan.fingerprint is None:
        return
    here = {entry.name: components.digest_of(entry) for entry in entries}
    try:
        fingerprint.require_same_weights(plan.fingerprint.weights, here, "what the plan is for")
    except StaleError as error:
        raise StaleError(error.message, hint="profile and plan again with the weights that are here") from None


def _refuse_mixing(plan: Plan, numbers: Sequence[int], now: Evaluation, *, remeasure: bool) -> None:
    """Raises UsageError where rows would stand beside each other that were measured in different ways."""
    others = [number for number, row in enumerate(plan.rows) if row.measured and number not in numbers]
    if plan.evaluation in (None, now) or remeasure or not others:
        return
    from tstitch_cli.commands.measured_words import in_words

    some = ", ".join(map(str, others[:8])) + (" ..." if len(others) > 8 else "")
    raise UsageError(
        f"rows {some} were measured in another way ({in_words(plan.evaluation)}), which cannot be compared with this "
        f"one ({in_words(now)})",
        hint="measure in the same way, add those rows to --rows, or let --remeasure drop what was measured of them",
    )


def _filled(plan: Plan, numbers: Sequence[int], found: Evaluated) -> Plan:
    """`plan` with what was measured; what was measured in another way is left out."""
    from dataclasses import replace

    same = plan.evaluation == found.evaluation
    rows = list(plan.rows if same else (replace(row, measured={}) for row in plan.rows))
    for number in numbers:
        rows[number] = replace(rows[number], measured=rows[number].measured | found.measured[str(number)])
    return replace(plan, rows=tuple(rows), evaluation=found.evaluation)


def _with_time_left(bar: Progress) -> Progress:
    """Says beside what runs how long that goes on, by the time that the share that is done took."""
    began = time.monotonic()

    def tell(doing: str, share: float) -> None:
        nonlocal began
        if share <= 0.0:
            began = time.monotonic()
            bar(doing, share)
        else:
            bar(f"{doing}, {_roughly((time.monotonic() - began) * (1.0 - share) / share)} left", share)

    return tell


def _roughly(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"


def _cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("tstitch")) / "evaluate"
