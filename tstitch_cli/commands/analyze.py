"""`tstitch analyze`: how alike denoisers predict along a trajectory, and which frequencies come when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import MAX_SEED

if TYPE_CHECKING:
    from tstitch_cli.analyze import Analysis
    from tstitch_cli.schema import Agreement, Plan, Setting
    from tstitch_cli.zoo.controls import Control
    from tstitch_cli.zoo.entry import Entry

SCHEMA = "tstitch/analysis/1"


@guarded
def analyze(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DENOISER]...",
            help="Two or more, to look at in their family's setting; without any, those of a plan.",
        ),
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="The plan whose denoisers and setting to look at.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="With names: sampling steps.", min=2)] = None,
    scheduler: Annotated[str | None, typer.Option(help="With names: the sampler.")] = None,
    guidance: Annotated[float | None, typer.Option(help="With names: the guidance scale.", min=0.0)] = None,
    device: Annotated[str, typer.Option(help="With names: where to run.")] = "auto",
    pictures: Annotated[int, typer.Option(help="How many each denoiser draws.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the noise.", min=0, max=MAX_SEED)] = 0,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the pictures and numbers.")] = Path("analysis"),
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier analysis wrote.")] = False,
) -> None:
    """Look at two models before stitching them: where they predict alike, and which frequencies come when.

    Writes similarity.png (cosine similarity with the largest denoiser's predictions, step by step; taken from the
    plan's profile where it was measured), frequencies.png (the frequencies of the latents along every denoiser's own
    trajectory) and analysis.json with the numbers.
    """
    import json

    from tstitch_cli import documents, files

    targets = [folder / name for name in ("analysis.json", "similarity.png", "frequencies.png")]
    for path in targets:
        files.refuse_existing(path, overwrite=overwrite)
    if offline:
        from tstitch_cli.fetching import hub

        hub.go_offline()
    known: Agreement | None = None
    if names:
        if plan_file is not None:
            raise UsageError("names and --plan say two things", hint="give the denoisers' names, or --plan")
        entries, setting = _named(names, steps, scheduler, guidance, device)
        net = None
    else:
        own = {"--steps": steps, "--scheduler": scheduler, "--guidance": guidance}
        if given := [option for option, value in own.items() if value is not None]:
            raise UsageError(f"the plan's setting stands, {', '.join(given)} mean nothing", hint="leave them out")
        source = plan_file or Path("plan.yaml")
        plan = documents.read_plan(source)
        entries, setting, net = _planned(plan)
        known = _agreement(plan, source.parent)
    with steps_bar() as bar:
        entries, net = fetch_missing(entries, setting.dtype, bar, net, setting.embeddings)
        bar("loading " + ", ".join(entry.name for entry in entries), 0.0)
        from tstitch_cli import analyze as stage
        from tstitch_cli.denoisers import load
        from tstitch_cli.plotting.analysis_plots import frequencies_png, similarity_png

        family = load(entries, setting, control=net)
        found = stage.analyze(family, pictures, seed, known, progress=bar)
    numbers = json.dumps({"schema": SCHEMA, **documents.plain(found)}, indent=2)
    files.write(targets[0], f"{numbers}\n".encode(), overwrite=overwrite)
    written = targets[:1]
    if found.agreement is not None:
        similarity_png(found.agreement, setting.words, targets[1], overwrite=overwrite)
        written.append(targets[1])
    frequencies_png(found, targets[2], overwrite=overwrite)
    if as_json:
        typer.echo(numbers)
    else:
        _show(found)
    talk.print("wrote " + ", ".join(str(path) for path in [*written, targets[2]]), markup=False)


def _named(
    names: list[str], steps: int | None, scheduler: str | None, guidance: float | None, device: str
) -> tuple[list[Entry], Setting]:
    """Denoisers by name, smallest first, in their family's own setting but for what was asked."""
    from tstitch_cli.commands.profile import smallest_first
    from tstitch_cli.schedulers import known
    from tstitch_cli.schema import Setting
    from tstitch_cli.zoo.preflight import check, check_setting
    from tstitch_cli.zoo.registry import Zoo
    from tstitch_cli.zoo.tasks import frames

    if scheduler is not None:
        known(scheduler)
    zoo = Zoo.load()
    entries = smallest_first([zoo.resolve(name) for name in names])
    check(entries)
    from tstitch_cli.devices import resolve_device, resolve_dtype

    here, defaults = resolve_device(device), entries[-1].defaults
    setting = Setting(
        steps=steps or defaults.steps,
        scheduler=scheduler or defaults.scheduler,
        guidance=defaults.guidance if guidance is None else guidance,
        batch_size=defaults.batch_size,
        size=defaults.size,
        dtype=resolve_dtype(None, defaults.dtype, here),
        device=here,
        frames=frames(entries[-1], None),
    )
    check_setting(entries, setting)
    return entries, setting


def _planned(plan: Plan) -> tuple[list[Entry], Setting, Control | None]:
    """The denoisers of a plan in its setting; raises UsageError where they were never more than times."""
    from tstitch_cli.sample import entries_of, recorded_control

    weights = plan.fingerprint.weights if plan.fingerprint else {}
    if plan.fingerprint is not None and plan.fingerprint.random:
        raise UsageError(
            "the plan's denoisers were timed with random weights, so there is nothing to look at",
            hint="give the denoisers' names instead of the plan",
        )
    entries = entries_of(plan.denoisers)
    return entries, plan.setting, recorded_control(plan.setting, weights, entries)


def _agreement(plan: Plan, beside: Path) -> Agreement | None:
    """What the plan's profile says of agreement, where that profile is still there as it was."""
    from tstitch_cli import documents

    source = beside / plan.profile
    if not plan.profile or not source.is_file() or documents.digest(source) != plan.profile_digest:
        return None
    return documents.read_profile(source).agreement


def _concluded(agreement: Agreement) -> list[str]:
    """What the similarity of each denoiser says of the steps that it may take."""
    from tstitch_cli.analyze import ALIKE, alike_for

    said = []
    for name, closeness in agreement.denoisers.items():
        first, steps = alike_for(closeness), len(closeness.cosine)
        if first:
            places = "all" if first == steps else f"the first {first} of"
            words = f"for {places} {steps} steps: about {first / steps:.0%} are {name}'s to take"
        else:
            words = "not even in the first step: nothing here speaks for giving it any"
        said.append(f"{name} and {agreement.largest} predict alike (cosine of at least {ALIKE:g}) {words}")
    return said


def _show(found: Analysis) -> None:
    """Similarity at five places of the trajectory, what follows from it, and when every frequency is settled."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    if found.agreement is None:
        talk.print("[yellow]guidance is not linear here, so predictions were not compared[/]")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"similarity with {escape(found.agreement.largest)}")
        table.add_column("step", justify="right")
        for name in found.agreement.denoisers:
            table.add_column(escape(name), justify="right")
        count = len(next(iter(found.agreement.denoisers.values())).cosine)
        for step in sorted({round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1)}):
            told = [f"{c.cosine[step]:.4f} ± {c.cosine_std[step]:.4f}" for c in found.agreement.denoisers.values()]
            table.add_row(str(step + 1), *told)
        out.print(table)
        for line in _concluded(found.agreement):
            out.print(line, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="step after which a frequency is settled")
    table.add_column("cycles per pixel", justify="right")
    for name in found.spectra:
        table.add_column(escape(name), justify="right")
    settled = [spectrum.settled() for spectrum in found.spectra.values()]
    for ring, frequency in enumerate(found.frequencies):
        table.add_row(f"{frequency:.3f}", *(str(each[ring]) for each in settled))
    out.print(table)
