"""`tstitch verify`: measures a plan's row again, and tells whether the plan still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from tstitch_cli.denoisers import Family
    from tstitch_cli.measuring.verdicts import Verdict
    from tstitch_cli.schema import Plan

WIDTH = 200


@guarded
def verify(
    plan_file: Annotated[
        Path, typer.Argument(metavar="PLAN", help="The lookup table that `tstitch plan` wrote.")
    ] = Path("plan.yaml"),
    rows: Annotated[
        list[int] | None, typer.Option("--row", help="Rows to measure instead of the chosen one; may be given again.")
    ] = None,
    calls: Annotated[int, typer.Option(help="Calls of each row.", min=3)] = 20,
    max_time: Annotated[
        str, typer.Option(help="Begin no round that would end after this time, once there are 3.")
    ] = "1min",
    seed: Annotated[int, typer.Option(help="Seed of the noise and the order of the calls.", min=0)] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Measure although the plan was made elsewhere or with other weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Measure a plan's row again, against what was predicted and against the budget.

    Ends with status 8 where the plan no longer holds, 5 where it was made for another machine, other versions or
    weights, 0 where it holds. Nothing is kept of what is drawn, so a plan made with random weights will do.
    """
    from tstitch_cli.documents import read_plan
    from tstitch_cli.fetching import hub
    from tstitch_cli.measuring import machine_load, steadiness
    from tstitch_cli.measuring.verdicts import verdict
    from tstitch_cli.quantities import parse_duration

    most_s = parse_duration(max_time)
    if offline:
        hub.go_offline()
    plan = read_plan(plan_file)
    indices = list(dict.fromkeys(rows or [plan.chosen]))
    for index in indices:
        if not 0 <= index < len(plan.rows):
            raise UsageError(f"the plan has no row {index}", hint=f"its rows are 0 to {len(plan.rows) - 1}")
    read = machine_load.reader_for(plan.setting.device)
    with steps_bar() as bar:
        family = _load(plan, bar, allow_stale=allow_stale)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.verify import measure

        before = read()
        seconds = measure(
            family,
            plan,
            indices,
            clock_for(family.device),
            calls=calls,
            max_time_s=most_s,
            seed=seed,
            progress=bar,
        )
        disturbed = steadiness.reasons([before, read()], plan.setting.device)
    verdicts = [verdict(plan, index, seconds[index]) for index in indices]
    if as_json:
        import json

        typer.echo(json.dumps(_plain(plan, verdicts, disturbed), indent=2))
    else:
        _show(verdicts)
    _say(verdicts, disturbed)
    if not all(each.holds for each in verdicts):
        raise typer.Exit(ExitStatus.VERIFICATION)


def _load(plan: Plan, bar: Any, *, allow_stale: bool) -> Family:
    """The plan's denoisers; what can be refused is refused before they are loaded."""
    from tstitch_cli.sample import entries_of, recorded_control
    from tstitch_cli.zoo.registry import Zoo, control_of

    random = plan.fingerprint is not None and plan.fingerprint.random
    weights = plan.fingerprint.weights if plan.fingerprint else {}
    bar("loading " + ", ".join(denoiser.name for denoiser in plan.denoisers), 0.0)
    from tstitch_cli.denoisers import load
    from tstitch_cli.devices import resolve_device
    from tstitch_cli.verify import check_machine

    if random:
        zoo = Zoo.load()
        entries = [zoo.planned(denoiser) for denoiser in plan.denoisers]
        net = control_of(plan.setting, entries)
    else:
        entries = entries_of(plan.denoisers)
    resolve_device(plan.setting.device)
    if not random:
        net = recorded_control(plan.setting, weights, entries)
    if not allow_stale:
        check_machine(plan, entries, net)
    if not random:
        entries, net = fetch_missing(entries, plan.setting.dtype, bar, net, plan.setting.embeddings)
    return load(entries, plan.setting, control=net, random_weights=random)


def _show(verdicts: list[Verdict]) -> None:
    from tstitch_cli.commands.terminal import SafeConsole

    # A table wider than the terminal runs on into the next line rather than losing its figures.
    SafeConsole(width=max(out.width, WIDTH), highlight=False).print(_table(verdicts))


def _table(verdicts: list[Verdict]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from tstitch_cli.quantities import shown_s

    quantile = verdicts[0].quantile
    bound = "mean" if quantile is None else f"p{quantile * 100:g}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ("row", "steps", "predicted", "measured", "error", f"{bound} predicted", "measured", "limit", "within")
    for heading in (*headings, "verdict"):
        table.add_column(heading, justify="left" if heading == "steps" else "right", no_wrap=True)
    for each in verdicts:
        kept = len(each.seconds) - each.missed
        table.add_row(
            str(each.row),
            escape(", ".join(f"{name} {steps}" for name, steps in each.allocation)),
            shown_s(each.predicted.mean),
            shown_s(each.mean_s),
            f"{each.error:+.1%}",
            shown_s(each.predicted.within),
            shown_s(each.within_s),
            shown_s(each.limit_s),
            f"{kept} of {len(each.seconds)}",
            "holds" if each.holds else "does not hold",
            style="green" if each.holds else "red",
        )
    return table


def _say(verdicts: list[Verdict], disturbed: tuple[str, ...]) -> None:
    """What follows, on stderr."""
    if disturbed:
        talk.print(f"[yellow]the machine was unsteady meanwhile: {'; '.join(disturbed)}[/]")
    again = "`tstitch profile` and `tstitch plan` make one for the machine as it is"
    if not all(each.holds for each in verdicts):
        talk.print(f"[bold red]the plan no longer holds[/]; {again}")
    elif any(each.drifted for each in verdicts):
        talk.print(f"[yellow]the plan holds, but its times are off by more than 5 %[/]; {again}")
    else:
        talk.print("[bold green]the plan holds[/]")


def _plain(plan: Plan, verdicts: list[Verdict], disturbed: tuple[str, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "holds": all(each.holds for each in verdicts),
        "budget": asdict(plan.budget),
        "unsteady": list(disturbed),
        "rows": [
            {
                **asdict(each),
                "mean_s": each.mean_s,
                "within_s": each.within_s,
                "error": each.error,
                "drifted": each.drifted,
                "missed": each.missed,
                "holds": each.holds,
            }
            for each in verdicts
        ],
    }
