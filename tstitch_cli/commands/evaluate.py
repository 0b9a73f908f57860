"""`tstitch evaluate`: measures how good the pictures of a plan's rows are, into the plan."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, steps_bar, talk
from tstitch_cli.commands.evaluate_checks import (
    refuse_mixing,
    refuse_other_weights,
    refuse_unknown_features,
    refuse_what_cannot_be_drawn,
)
from tstitch_cli.commands.evaluate_inputs import captions_of, instruments, prompts_of, tell_left_out, warn_of_few
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.stopping import Stopping, finishing_first, stopped_by, typed
from tstitch_cli.errors import ExitStatus, StaleError, UsageError
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import MAX_SEED, Plan

if TYPE_CHECKING:
    from tstitch_cli.evaluate import Evaluated
    from tstitch_cli.jobs.shards import Shard

Progress = Callable[[str, float], None]
MEASURING = "measuring"
"""How what runs after all pictures are there begins to be told."""
SEED = 1
"""Another than that of the pictures by which `tstitch profile` compares predictions."""
_RANGE = re.compile(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?")


@guarded
def evaluate(
    plan_file: Annotated[
        Path, typer.Option("--plan", help="The lookup table, whose measured columns are filled in place.")
    ] = Path("plan.yaml"),
    rows: Annotated[
        str, typer.Option(help="all, pareto, chosen, numbers such as 0,3,7-9, or several of these: chosen,0.")
    ] = "all",
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
        typer.Option(help="Network to compare by: inception, or a bundled family's classifier: fashion, tiny-sd."),
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
        refuse_unknown_features(features)
    plan, digest = documents.read_plan(plan_file), documents.digest(plan_file)
    files.refuse_existing(plan_file, overwrite=True)
    numbers = _rows(plan, rows)
    refuse_what_cannot_be_drawn(plan)
    folder = work or _cache()
    share = WHOLE if shard is None else parse(shard)
    with _going_on(folder) as finished, finishing_first() as stopping, steps_bar() as bar:
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
            finished=finished,
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
    files.clear_halfway(plan_file.parent, [plan_file.name])
    documents.write_plan(filled, plan_file, overwrite=True)
    if as_json:
        import json

        from tstitch_cli.schema import PLAN_SCHEMA

        typer.echo(json.dumps({"schema": PLAN_SCHEMA, **documents.plain(filled)}, indent=2))
    else:
        from tstitch_cli.commands.measured_table import show

        show(filled, numbers)
    talk.print(_drawn(found))
    talk.print(f"wrote the measured columns into {plan_file}", markup=False)


class _Finished:
    """Whether a part of the work is finished, which stays."""

    def __init__(self) -> None:
        self.some = False

    def seen(self, tell: Progress) -> Progress:
        """`tell`, which is told what is begun and which share of the work is done by then."""

        def told(doing: str, share: float) -> None:
            self.some |= share > 0.0 or doing.startswith(MEASURING)
            tell(doing, share)

        return told


@contextmanager
def _going_on(work: Path) -> Iterator[_Finished]:
    """Tells how to go on after Ctrl-C, and after a failure where a part was finished: that is a PartialError then."""
    finished, kept = _Finished(), f"what was found out so far is kept in {work}"
    try:
        yield finished
    except KeyboardInterrupt:
        talk.print(f"interrupted: {kept}; the same command goes on from there:\n  {typed()}", markup=False)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    except Exception as error:
        if not finished.some or (told := stopped_by(error, kept, typed())) is None:
            raise
        raise told from error


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
    finished: _Finished,
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
    refuse_other_weights(plan, entries)
    extractor, scorer, compared = instruments(plan, entries[0], features, wanted, place, captions, work, device, bar)
    from tstitch_cli import evaluate as stage

    in_turn = stage.in_turn(prompts, count)
    # The scorer is loaded where its metric is wanted, and could be where another one is.
    asked = stage.asked_for(wanted, stage.measurable(entries[0], in_turn, extractor, compared, scored=True))
    if "fid" in asked and compared is not None:
        warn_of_few(count, len(compared.gaussian.mean))
    if extractor is not None:
        tell_left_out(extractor.judge.asking(entries[0], in_turn), wanted, asked, count)
    evaluation = stage.evaluation_of(extractor, compared, prompts, seed=seed, count=count)
    refuse_mixing(plan, numbers, evaluation, remeasure=remeasure)
    from tstitch_cli.quality.kept_pictures import jobs_of, keeping, refuse_others

    works = {str(number): work_of(plan, plan.rows[number]) for number in numbers}
    size = batch_size or stage.batch_size_for(plan.setting)
    kept = None if keep is None else jobs_of(works, keep, in_turn, seed=seed, batch_size=size, shard=share)
    refuse_others(kept or {})
    entries, control = fetch_missing(entries, plan.setting.dtype, bar, control, plan.setting.embeddings)
    bar("loading " + ", ".join(d.name for d in plan.denoisers), 0.0)
    from tstitch_cli.denoisers import load

    family = load(entries, plan.setting, control=control)
    with nullcontext() if kept is None else keeping(family, kept, bar) as keeper:
        return stage.evaluate(
            family,
            {name: each.allocation for name, each in works.items()},
            prompts,
            seed=seed,
            count=count,
            batch_size=size,
            counts=plan.evaluations_per_step(),
            extractor=extractor,
            scorer=scorer,
            reference=compared,
            metrics=wanted,
            work=work,
            keeper=keeper,
            shard=share,
            progress=stopping.between(
                finished.seen(
                    lambda doing, share: bar(doing if doing.startswith(MEASURING) else f"drawing {doing}", share)
                )
            ),
        )


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    for name in names:
        if name not in METRICS:
            raise UsageError(f"{name[:40]!r} is no metric", hint=f"there are {', '.join(METRICS)}")
    return names


def _rows(plan: Plan, text: str) -> list[int]:
    """The numbers of the rows that `text` means; those that must not be drawn only where they are named."""
    drawable = [number for number, row in enumerate(plan.rows) if row.refused is None]
    words = {
        "all": drawable,
        "pareto": [number for number in drawable if plan.rows[number].pareto],
        "chosen": [plan.chosen],
    }
    numbers: set[int] = set()
    for part in map(str.strip, text.lower().split(",")):
        numbers.update(words[part] if part in words else _numbered(plan, part, text))
    return sorted(numbers)


def _numbered(plan: Plan, part: str, text: str) -> range:
    """The numbers that a `part` of `text` such as `3` or `7-9` names."""
    if (found := _RANGE.fullmatch(part)) is None:
        raise UsageError(f"{text[:40]!r} are no rows", hint="give all, pareto, chosen, or numbers such as 0,3,7-9")
    least, most = int(found[1]), int(found[2] or found[1])
    if not least <= most < len(plan.rows):
        raise UsageError(f"the plan has no rows {part}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
    for number in range(least, most + 1):
        if (why := plan.rows[number].refused) is not None:
            raise UsageError(f"row {number} must not be drawn: {why}", hint="leave it out")
    return range(least, most + 1)


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
