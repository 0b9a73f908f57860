"""`tstitch demo`: the main job in one command, on the bundled text family: profile, plan, sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, talk

DENOISERS = ("tiny-sd-small", "tiny-sd")
PROMPTS = (
    "a red sneaker on a yellow background",
    "two green bags",
    "an orange dress on blue",
    "a pair of black trousers on a pink background",
)
PICTURES = 8
"""Of all prompts together, as far as each gets one."""
TENTHS = (0, 2, 4, 6, 8, 10)
"""Shares of the small model's steps in the sweep: fewer than `tstitch sample --sweep` draws take half the time."""
PROFILE_SECONDS = 15.0


@guarded
def demo(
    prompt: Annotated[
        list[str] | None, typer.Option(help='What to draw, such as "a red sneaker"; may be given again and again.')
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for all that the demo writes.")] = Path("tstitch-demo"),
    budget: Annotated[str, typer.Option(help="Time a call may take, as `tstitch plan` takes it.")] = "50%",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier demo wrote.")] = False,
) -> None:
    """Measure the bundled models, plan for half the large one's time, and draw: under a minute on two cores.

    They are a miniature of Stable Diffusion and draw one or two garments in a colour, on a coloured background. Leaves
    profile.yaml, plan.yaml, pareto.png, pictures/ with grid.png, and sweep.png, the same noise at growing fractions of
    the small model.
    """
    from dataclasses import replace

    from tstitch_cli.commands.drawing import SWEEP, draw_plan
    from tstitch_cli.commands.plan import show as show_plan
    from tstitch_cli.commands.profile import measure_and_save, smallest_first
    from tstitch_cli.commands.stopping import typed
    from tstitch_cli.commands.sweeping import draw_sweep
    from tstitch_cli.documents import digest, write_plan
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.jobs.manifest import path_of
    from tstitch_cli.jobs.prompts import Prompt
    from tstitch_cli.jobs.request import SHEET, Request, paths_of
    from tstitch_cli.plan import make_plan
    from tstitch_cli.planning.orders import SMALL_TO_LARGE
    from tstitch_cli.planning.refined_row import with_refined
    from tstitch_cli.plotting.plots import pareto_png
    from tstitch_cli.provenance import refuse_untellable
    from tstitch_cli.quantities import parse_budget
    from tstitch_cli.schema import Setting
    from tstitch_cli.zoo import words
    from tstitch_cli.zoo.registry import Zoo

    profile_file, plan_file, plot = folder / "profile.yaml", folder / "plan.yaml", folder / "pareto.png"
    asked = tuple(map(Prompt, prompt or PROMPTS))
    count = max(1, PICTURES // len(asked))
    request = Request(asked, folder / "pictures", count=count, grid=True, overwrite=overwrite)
    drawn = [path for picture in request.pictures for path in paths_of(request.folder, picture.index, None)]
    for path in (profile_file, plan_file, plot, folder / SWEEP, path_of(request), request.folder / SHEET, *drawn):
        refuse_existing(path, overwrite=overwrite)
    limit = parse_budget(budget)
    zoo = Zoo.load()
    entries = smallest_first([zoo.resolve(name) for name in DENOISERS])
    # What is wrong with the prompts is told before anything is measured.
    refuse_untellable(request.texts)
    if told := words.remark(entries[-1], request.texts):
        talk.print(told, style="yellow", markup=False)

    talk.print(f"[bold]1. profile[/]: what does a step of {', '.join(DENOISERS)} cost on this machine?")
    from tstitch_cli.devices import resolve_device, resolve_dtype

    defaults, device = entries[-1].defaults, resolve_device("auto")
    setting = Setting(
        steps=defaults.steps,
        scheduler=defaults.scheduler,
        guidance=defaults.guidance,
        batch_size=defaults.batch_size,
        size=defaults.size,
        dtype=resolve_dtype(None, defaults.dtype, device),
        device=device,
    )
    profile = measure_and_save(entries, setting, 0, 0.01, PROFILE_SECONDS, profile_file, overwrite=overwrite)

    talk.print(f"\n[bold]2. plan[/]: which of them takes which steps, so that a call stays within {budget}?")
    plan = make_plan(profile, budget=limit, profile_path="profile.yaml", digest=digest(profile_file))
    plan = with_refined(plan, profile, budget=limit, objective=None, order=SMALL_TO_LARGE)
    write_plan(plan, plan_file, overwrite=overwrite)
    show_plan(plan)
    pareto_png(plan, plot, overwrite=overwrite)

    talk.print("\n[bold]3. sample[/]: draw by the plan, and once more at growing fractions of the small model")
    row = plan.rows[plan.chosen]
    # What is there by then is in the way of the same command.
    draw_plan(plan, row, request, again=typed("--overwrite"))
    draw_sweep(plan, row, replace(request, folder=folder, count=1, grid=False), tenths=TENTHS)
    for path in (profile_file, plan_file, plot):
        out.print(str(path), markup=False)
