"""`tstitch plan`: a profile and a budget to the lookup table, plan.yaml and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, talk
from tstitch_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tstitch_cli.schema import Plan, Profile, Row

RUNS_SAID = 6
"""Stretches up to which an allocation is spelled out."""
WIDTH = 240


@guarded
def plan(
    budget: Annotated[
        str,
        typer.Option(
            help="Time of one call: 2.5s, 800ms, 1m30s, 60% (of the largest denoiser alone) or 1.5x (times faster)."
        ),
    ],
    profile: Annotated[
        str | None,
        typer.Option(help="Profile file, or a profile's name; the newest one in ./profiles by default."),
    ] = None,
    increment: Annotated[
        float | None,
        typer.Option(help="Step between fractions; must divide 1. By default 0.1, and the best row to the step."),
    ] = None,
    quantile: Annotated[
        str, typer.Option(help="Share of the calls that stay within the budget, 0.5 to 0.99, or 'mean'.")
    ] = "0.95",
    maximize: Annotated[
        str | None,
        typer.Option(
            help="What the best row has: agreement (least predicted loss), compute, or a measured metric: fid, is, "
            "precision, recall, clip, accuracy; the best that is known."
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(help="Take measured metrics from this plan; from the one at --out if it is of the same profile."),
    ] = None,
    order: Annotated[
        str,
        typer.Option(help="Order of the denoisers: small-to-large, large-to-small, interleaved, decreasing, or any."),
    ] = "small-to-large",
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Look beyond the table: the least predicted loss of all orders and switches."),
    ] = False,
    steps: Annotated[
        str | None, typer.Option(help="Choose among profiled numbers of steps as well: 10..50, 10,20 or any.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Choose among profiled samplers as well: ddim,dpm++ or any.")
    ] = None,
    accelerate: Annotated[
        str | None, typer.Option(help="Choose among profiled accelerations as well: deepcache, none or any.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best rows to keep.")] = 1,
    out_file: Annotated[Path, typer.Option("--out", help="Where the plan goes.")] = Path("plan.yaml"),
    plot: Annotated[Path | None, typer.Option(help="Plot time against objective into this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing plan and plot.")] = False,
) -> None:
    """Choose which denoiser takes which steps, so that one call stays within the budget.

    Every combination of fractions is enumerated into a lookup table, small denoisers first unless --order says
    otherwise; the best row within the budget is chosen, and the table is written to plan.yaml for `tstitch sample`.

    With --steps, --scheduler or --accelerate, the profiles beside this one that were measured together with it
    (`tstitch profile --steps 10,20,50`) are looked at as well, and the best setting is planned for.
    """
    from tstitch_cli import documents, files
    from tstitch_cli.commands import plan_words
    from tstitch_cli.plan import make_plan
    from tstitch_cli.planning import measurements, siblings
    from tstitch_cli.planning.joint import choose
    from tstitch_cli.planning.objectives import least_loss, named
    from tstitch_cli.planning.rivals import with_rivals
    from tstitch_cli.planning.siblings import Found
    from tstitch_cli.profile_files import find, newest
    from tstitch_cli.quantities import Quantity, parse_budget

    asked = parse_budget(budget)
    bound = _quantile(quantile)
    objective = None if maximize is None else named(maximize)
    for path in (out_file, plot):
        if path is not None:
            files.refuse_existing(path, overwrite=overwrite)
    source = find(profile) if profile else newest()
    paths = [path.absolute().resolve() for path in (source, out_file, plot) if path is not None]
    if len(set(paths)) < len(paths):
        raise UsageError("the profile, --out and --plot must be different files", hint="name another file")
    base = Found(source, documents.read_profile(source))
    several = any(option is not None for option in (steps, scheduler, accelerate))
    if several and (measured is not None or (objective is not None and objective is not least_loss)):
        raise UsageError(
            "settings are held against each other by predicted loss alone", hint="leave --maximize and --measured out"
        )
    if exact or several:
        objective = objective or least_loss
    given = None if measured is None else measurements.named(measured, base.profile)
    standing = measurements.left_at(out_file)

    def planned(found: Found, within: Quantity) -> Plan:
        sought = None if found.profile.agreement is None and objective is least_loss else objective
        digest, earlier = documents.digest(found.path), given
        if earlier is None and standing is not None and measurements.holds(standing, found.profile, digest):
            earlier = standing
        made = make_plan(
            found.profile,
            budget=within,
            quantile=bound,
            increment=0.1 if increment is None else increment,
            objective=sought,
            top=top,
            order=order,
            measured=earlier,
            profile_path=_from(out_file, found.path),
            digest=digest,
        )
        if increment is None:
            from tstitch_cli.planning.refined_row import with_refined

            made = with_refined(made, found.profile, budget=within, objective=sought, order=order)
        if exact:
            from tstitch_cli.planning.exact_row import with_optimum

            made = with_optimum(made, found.profile)
        return made

    family = siblings.of(base)
    if several:
        fits = siblings.wanted(base.profile.setting, steps, scheduler, accelerate)
        joint = choose([each for each in family if fits(each.profile.setting)], asked, bound, planned)
        made, base = joint.plan, joint.winner
        plan_words.compared(joint)
    else:
        made = planned(base, asked)
    read, source = base.profile, base.path
    made = with_rivals(made, base, family, lambda found: _from(out_file, found.path))
    if standing is not None and (gone := measurements.lost(standing, made)):
        which = f"{plan_words.counted(gone, 'measured row')} of the plan that stood at {_safe(out_file)}"
        talk.print(f"[yellow]{which} {'is' if gone == 1 else 'are'} not in this one[/]")
    documents.write_plan(made, out_file, overwrite=overwrite)
    if plot is not None:
        from tstitch_cli.plotting.plots import pareto_png

        pareto_png(made, plot, overwrite=overwrite)
    talk.print(f"profile: [bold]{_safe(source)}[/] ({_origin(read)}, {_safe(read.created)})")
    if as_json:
        import json

        from tstitch_cli.schema import PLAN_SCHEMA

        typer.echo(json.dumps({"schema": PLAN_SCHEMA, **documents.plain(made)}, indent=2))
    else:
        from tstitch_cli.planning.unprofiled import caches

        # Times that one already knew are of denoisers that nobody can say anything about.
        known = base.profile.origin == "measured"
        show(made, caches(made, [each.profile.setting for each in family]) if known else ())
        if maximize is None:
            plan_words.overlooked(made, out_file, exact=exact, several=several)
    written = " and ".join(f"[bold]{_safe(path)}[/]" for path in (out_file, plot) if path)
    talk.print(f"wrote {written}{_next(made, out_file)}")


def show(made: Plan, caches: Sequence[str] = ()) -> None:
    """Prints the lookup table on stdout, and on stderr what was chosen and what the budget means.

    `caches` are those that work with the plan's denoisers and were not profiled.
    """
    from tstitch_cli.commands import plan_words
    from tstitch_cli.commands.plan_table import lookup_table, shown_rows
    from tstitch_cli.commands.terminal import SafeConsole
    from tstitch_cli.quantities import shown_s

    talk.print(
        f"{_safe(made.family)}: {_safe(made.setting.words)}; "
        f"{plan_words.counted(made.combinations, 'combination')}, {plan_words.counted(len(made.rows), 'row')} kept; "
        f"sought: {plan_words.sought(made)}"
    )
    if spoken := embeddings_in_words(made):
        talk.print(spoken)
    # A table wider than the terminal runs on into the next line rather than losing its figures.
    SafeConsole(width=max(out.width, WIDTH), highlight=False).print(lookup_table(made))
    shown = len(shown_rows(made))
    if shown < len(made.rows):
        talk.print(f"[dim]shown are {shown} of {len(made.rows):,} rows, the Pareto ones near the budget[/]")
    refused = [each.refused for each in made.rows if each.refused is not None]
    if refused:
        rows = "1 row is" if len(refused) == 1 else f"{len(refused):,} rows are"
        talk.print(f"[yellow]{rows} refused whatever the budget, such as: {_safe(refused[0])}[/]")
    talk.print(f"[bold green]chosen:[/] {chosen_in_words(made)}")
    for line in (*plan_words.budget(made), *plan_words.sureness(made)):
        talk.print(line)
    for index in made.alternatives[1:]:
        other = made.rows[index]
        how = f" ({other.order})" if other.order else ""
        talk.print(f"  or row {index}, {in_words(other)}{how}: {shown_s(other.time_s.within)}")
    plan_words.rivals(made)
    plan_words.unprofiled(made, caches)
    talk.print(
        "[dim]The budget covers one call for one batch: text encoding, all steps, switching, decoding and writing. "
        "Loading and warm-up are not in it.[/]"
    )


def embeddings_in_words(made: Plan) -> str:
    """Whose text encoder each denoiser's prompts go through; empty where there is no text."""
    whose = {d.name: d.embedding for d in made.denoisers if d.embedding is not None}
    if not whose:
        return ""
    if len(set(whose.values())) == 1:
        return f"prompts: all denoisers get the text embeddings of {_safe(next(iter(whose.values())))}"
    told = (f"{_safe(name)} {'its own' if name == of else f'those of {_safe(of)}'}" for name, of in whose.items())
    return f"prompts: each denoiser gets text embeddings: {', '.join(told)}"


def chosen_in_words(made: Plan) -> str:
    """The chosen row: who takes which steps, and how long a call takes; rich markup."""
    from tstitch_cli.commands.plan_table import bound_words
    from tstitch_cli.quantities import shown_s

    row = made.rows[made.chosen]
    times = f"{shown_s(row.time_s.mean)} on average"
    if made.budget.quantile is not None:
        times = f"{shown_s(row.time_s.within)} ({bound_words(made)}), {times}"
    return f"row {made.chosen}, {in_words(row)}{f' ({row.order})' if row.order else ''}: {times}"


def in_words(row: Row) -> str:
    """An allocation for people: `10 steps of dit-s, then 10 of dit-xl`."""
    from tstitch_cli.commands.plan_words import counted

    if len(row.allocation) > RUNS_SAID:
        shares = ", ".join(f"{counted(n, 'step')} of {_safe(name)}" for name, n in row.steps.items() if n)
        return f"{shares}, in {len(row.allocation)} stretches"
    first, *rest = row.allocation
    words = [f"{counted(first[1], 'step')} of {_safe(first[0])}"]
    return ", then ".join(words + [f"{steps} of {_safe(name)}" for name, steps in rest])


def _quantile(text: str) -> float | None:
    if text.strip().lower() == "mean":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is not a quantile", hint="use 0.5 to 0.99, or mean") from None


def _from(plan_file: Path, source: Path) -> str:
    """Where the profile is, seen from the plan's folder if both are below the working folder."""
    import os

    here, folder, target = Path.cwd(), plan_file.parent.resolve(), source.resolve()
    if folder.is_relative_to(here) and target.is_relative_to(here):
        return Path(os.path.relpath(target, folder)).as_posix()
    return str(target)


def _next(made: Plan, plan_file: Path) -> str:
    """How to go on: not at all where denoisers are only names, without pictures where their weights are random."""
    if not all(denoiser.source for denoiser in made.denoisers):
        return ""
    file = _safe(_quoted(plan_file))
    if made.fingerprint is not None and made.fingerprint.random:
        return f"; next: [bold]tstitch verify {file}[/]"
    return f"; next: [bold]tstitch sample --plan {file} --prompt ...[/]"


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _safe(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))


def _origin(profile: Profile) -> str:
    random = profile.fingerprint is not None and profile.fingerprint.random
    return f"{profile.origin} with random weights" if random else profile.origin
