"""Draws a request by a plan and tells of it: what sample and demo share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import typer

from tstitch_cli.commands.edge import out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.stopping import Stopping, finishing_first, stopped_by, typed
from tstitch_cli.errors import ExitStatus, UsageError
from tstitch_cli.jobs import sheet
from tstitch_cli.jobs.manifest import Manifest, Progress, claimed, path_of, refuse_other
from tstitch_cli.jobs.request import SHEET, Pictures, Request
from tstitch_cli.measuring import drift
from tstitch_cli.schema import Plan, Row
from tstitch_cli.zoo.tasks import WITHOUT_NEGATIVE

if TYPE_CHECKING:
    from tstitch_cli.clocks import Clock
    from tstitch_cli.denoisers import Family
    from tstitch_cli.sample import Drawn, Identity, Order
    from tstitch_cli.zoo.entry import Entry

SWEEP = "sweep.png"
MOST_REMARKS = 5
"""On prompts that are too long."""

Drawing = Callable[["Iterable[Pictures]"], "Iterator[Drawn]"]
"""Draws batches and writes nothing."""


class Engine(Protocol):
    """Where pictures are drawn: in this process, or on a cluster."""

    def identify(self, plan: Plan, order: Order, *, allow_stale: bool) -> Identity:
        """What is there to draw with; raises as `sample.identify`."""

    def ready(self, order: Order, first: Pictures, bar: Progress) -> AbstractContextManager[Drawing]:
        """Loads, warms up with the batch `first`, and is ready to draw until it is left."""


class Here:
    """The engine that draws in this process."""

    def identify(self, plan: Plan, order: Order, *, allow_stale: bool) -> Identity:
        """What is here; under a launcher, this process takes the device of its local rank."""
        from tstitch_cli import devices, sample
        from tstitch_cli.jobs.shards import local_rank

        devices.use_local(devices.resolve_device(plan.setting.device), local_rank())
        return sample.identify(plan, order, allow_stale=allow_stale)

    @contextmanager
    def ready(self, order: Order, first: Pictures, bar: Progress) -> Iterator[Drawing]:
        """Loads and warms up."""
        from tstitch_cli.sample import draw_each

        family, clock = loaded(order, first, bar)
        yield partial(draw_each, family, order.work, given=order.given, clock=clock)


HERE = Here()


def draw_plan(
    plan: Plan,
    row: Row,
    request: Request,
    *,
    allow_stale: bool = False,
    engine: Engine = HERE,
    again: str | None = None,
) -> None:
    """Draws what `request` asks for and is not there yet, and reports; what can be refused is, before loading.

    `again` is the command to go on with where it is cut, the one that is running unless given.

    Raises PartialError where something goes wrong after pictures were finished; ends with ExitStatus.INTERRUPTED after
    Ctrl-C.
    """
    again = again or typed()
    with _going_on(again), finishing_first() as stopping:
        from tstitch_cli.sample import job

        entries = refuse(plan, row, request, allow_stale=allow_stale)
        times: list[float] = []
        with steps_bar() as bar:
            bar("loading " + ", ".join(d.name for d in plan.denoisers), 0.0)
            order = order_of(plan, row, request, entries)
            identity = engine.identify(plan, order, allow_stale=allow_stale)
            with claimed(job(order.work, request, identity), request, bar) as manifest, _going_on(again, manifest):
                before, missing = manifest.finished, manifest.missing
                if missing:
                    with engine.ready(order, missing[0], bar) as drawing:
                        times = _draw(drawing, manifest, plan, row, bar, stopping)
                if request.grid and (path := sheet.save(request, plan.setting.frames)) is not None:
                    out.print(str(path), markup=False)
    if not manifest.pictures:
        talk.print(f"share {request.shard} has no pictures: there are fewer batches than shares")
        return
    if not missing:
        talk.print(f"complete: {before} pictures are in {request.folder} as they were drawn", markup=False)
        return
    drawn, there = manifest.finished - before, f"; {before} were there" if before else ""
    talk.print(f"drew {drawn} with {words(row.allocation)} steps{there}", markup=False)
    for line in report(plan, row, times, drawn):
        talk.print(line)


def refuse(plan: Plan, row: Row, request: Request, *, sweep: bool = False, allow_stale: bool = False) -> list[Entry]:
    """The entries that the plan stands for; raises what can be known to be wrong before anything is loaded."""
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.measuring.fingerprint import refuse_random
    from tstitch_cli.provenance import refuse_untellable
    from tstitch_cli.sample import entries_of, job, refuse_unknown_noise, work_of

    refuse_untellable(request.texts)
    if request.grid and request.shard.of > 1:
        raise UsageError("a shard has no contact sheet of all pictures", hint="leave --grid out of sharded runs")
    if request.grid:
        sheet.refuse_many(request)
    # Before the folder is looked at: a plan that cannot be drawn fits into none.
    if not allow_stale:
        refuse_random(plan.fingerprint, "the plan")
    refuse_unknown_noise(plan, row, sweep=sweep)
    entries = entries_of(plan.denoisers)
    if sweep:
        refuse_existing(request.folder / SWEEP, overwrite=request.overwrite)
    else:
        refuse_other(job(work_of(plan, row), request), request)
        if request.grid and not path_of(request).exists():
            refuse_existing(request.folder / SHEET, overwrite=request.overwrite)
    negative = any(picture.negative_prompt is not None for picture in request.pictures)
    if entries[0].conditioning.kind == "class":
        from tstitch_cli.zoo.entry import class_numbers

        class_numbers(entries[0], list(dict.fromkeys(prompt.text for prompt in request.prompts)))
        if negative:
            raise UsageError(
                f"{plan.family} is class-conditional and takes no negative prompt", hint="leave --negative-prompt out"
            )
    if negative and entries[-1].pipeline in WITHOUT_NEGATIVE:
        raise UsageError(
            f"{plan.family} takes no negative prompt: its pipeline has no place for one",
            hint="leave --negative-prompt out",
        )
    return entries


def order_of(plan: Plan, row: Row, request: Request, entries: Sequence[Entry]) -> Order:
    """What is to be loaded to draw `request` by a row of `plan`."""
    from tstitch_cli.sample import Order, recorded_control, work_of

    net = recorded_control(plan.setting, plan.fingerprint.weights if plan.fingerprint else {}, entries)
    return Order(work_of(plan, row), tuple(entries), net, request.given, request.loras)


def loaded(order: Order, first: Pictures, bar: Progress) -> tuple[Family, Clock]:
    """The denoisers of `order`, fetched where they are missing, and warmed up with the batch `first`."""
    from tstitch_cli.clocks import clock_for
    from tstitch_cli.sample import batch_of, warm_up

    setting = order.work.setting
    entries, net = fetch_missing(order.entries, setting.dtype, bar, order.control, setting.embeddings)
    family = replace(order, entries=tuple(entries), control=net).load()
    clock = clock_for(family.device)
    bar("compiling and warming up" if setting.compiled else "warming up", 0.0)
    warm_s = warm_up(family, order.work, batch_of(first, order.given), clock)
    talk.print(f"warm-up{' with compiling' * setting.compiled} {warm_s:.2f} s, not in the times below")
    return family, clock


def _draw(drawing: Drawing, manifest: Manifest, plan: Plan, row: Row, bar: Progress, stopping: Stopping) -> list[float]:
    """Draws what is missing, writes it and prints its paths; returns the seconds of the calls of a full batch."""
    times: list[float] = []
    told: set[str] = set()
    finished, missing = manifest.finished, manifest.missing
    doing = f"drawing {manifest.pictures}"
    bar(doing, finished / manifest.pictures)
    for drawn in drawing(stopping.until_asked(missing)):
        began = perf_counter()
        paths = manifest.record(drawn.files)
        if drawn.pictures == plan.setting.batch_size:
            times.append(drawn.actual_s + perf_counter() - began)
            if len(times) == drift.FIRST:  # a long job's rest need not be waited for to be told
                for line in _drift(row, times):
                    talk.print(line)
        finished += drawn.pictures
        bar(doing, min(finished / manifest.pictures, 1.0))
        for path in paths:
            out.print(str(path), markup=False)
        for remark in drawn.remarks:
            if remark not in told and len(told) < MOST_REMARKS:
                talk.print(remark, style="yellow", markup=False)
            told.add(remark)
    if len(told) > MOST_REMARKS:
        talk.print(f"[yellow]and {len(told) - MOST_REMARKS} more prompts are too long[/]")
    if stopping.asked and manifest.missing:
        raise KeyboardInterrupt
    return times


@contextmanager
def _going_on(again: str, manifest: Manifest | None = None) -> Iterator[None]:
    """Tells the command `again`, which goes on with the job of `manifest`; without one, with a job that was not begun.

    Turns a failure into PartialError where pictures were finished, and Ctrl-C into ExitStatus.INTERRUPTED.
    """
    try:
        yield
    except KeyboardInterrupt:
        so_far = f": {_finished(manifest)}" if manifest is not None else ""
        talk.print(f"[yellow]interrupted[/]{so_far}; go on with")
        talk.print(f"  {again}", markup=False)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    except Exception as error:
        if manifest is None or not manifest.finished or (told := stopped_by(error, _finished(manifest), again)) is None:
            raise
        raise told from error


def _finished(manifest: Manifest) -> str:
    return f"{manifest.finished} of {manifest.pictures} pictures are finished"


def report(plan: Plan, row: Row, times: Sequence[float], drawn: int) -> list[str]:
    """Predicted against actual, by how much the budget was missed where it was, and a drift; rich markup."""
    if not times:
        full = plan.setting.batch_size
        return [f"the plan's times are for batches of {full}; this batch of {drawn} is not compared with them"]
    actual = fmean(times)
    lines = [
        f"a call took {actual:.3f} s, predicted {row.time_s.mean:.3f} s ({actual / row.time_s.mean - 1.0:+.1%}), "
        f"budget {plan.budget.seconds:.3f} s"
        + (f"; {len(times)} calls, {min(times):.3f} to {max(times):.3f} s" if len(times) > 1 else "")
    ]
    missed = [t for t in times if t > plan.budget.seconds]
    if missed:
        worst = max(missed) - plan.budget.seconds
        lines.append(f"[yellow]{len(missed)} of {len(times)} calls missed the budget, the worst by {worst:.3f} s[/]")
    return lines + (_drift(row, times) if len(times) < drift.FIRST else [])


def _drift(row: Row, times: Sequence[float]) -> list[str]:
    drifted = drift.warning(row.time_s, times)
    return [f"[yellow]{drifted}[/]"] if drifted else []


def words(allocation: tuple[tuple[str, int], ...]) -> str:
    """An allocation to read: `fashion-s 12, fashion-xl 8`."""
    return ", ".join(f"{name} {steps}" for name, steps in allocation)
