"""What `tstitch plan` says of its choice: what was sought, how sure it is, and what could be run instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from tstitch_cli.commands.edge import talk
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.quantities import shown_s

if TYPE_CHECKING:
    from tstitch_cli.planning.joint import Joint
    from tstitch_cli.schema import Plan, Rival, Row


def sought(made: Plan) -> str:
    """What the choice was made by: `least loss`, `best fid, measured on 5,000 pictures`, `most compute`."""
    if made.objective not in METRICS:
        return escape(made.objective.replace("_", " "))
    on = f", measured on {made.evaluation.pictures:,} pictures" if made.evaluation is not None else ""
    return f"best {made.objective}{on}"


def sureness(made: Plan) -> None:
    """Says what the chosen row is judged by, with its interval, and whether the next best is really worse."""
    row = made.rows[made.chosen]
    if (said := _judged(made, row)) is None:
        return
    words = f"its {said}"
    if made.runner_up is not None:
        index = made.runner_up.row
        verdict = "within the noise" if made.runner_up.within_noise else "surely worse"
        words += f"; next best is row {index} with {_judged(made, made.rows[index], brief=True)}: {verdict}"
    talk.print(words)
    if made.total is not None:
        talk.print(f"with what the setting loses by itself, it is {made.total:.4f} from the reference")
    if made.least_loss is not None:
        talk.print(
            f"of all assignments of denoisers to steps within the budget, none has a predicted loss below "
            f"{made.least_loss:.4f}"
        )
    if made.objective in METRICS:
        fit = [each for each in made.rows if each.feasible]
        lacking = sum(made.objective not in each.measured for each in fit)
        if lacking:
            talk.print(
                f"[yellow]{lacking} of {len(fit)} rows within the budget have no {made.objective} and could not be "
                "chosen; `tstitch evaluate` fills it in[/]"
            )


def rivals(made: Plan) -> None:
    """Lists what is simpler than the choice, or of another setting, and says where one of them wins."""
    if not made.rivals:
        return
    talk.print("instead one could run:")
    for rival in made.rivals:
        loss = f"loss {rival.loss:.4f}" if rival.loss is not None else "loss not measured"
        if rival.loss is None and rival.setting.steps != made.setting.steps:
            loss += f" (profile with --steps {rival.setting.steps},{made.setting.steps} to compare)"
        wins = f" [bold yellow]which is better: {escape(_command(made, rival))}[/]" if rival.wins else ""
        talk.print(f"  {_described(made, rival)}: {shown_s(rival.time_s.within)}, {loss}{wins}")


def compared(joint: Joint) -> None:
    """Says how many settings were compared, what a share is of, and which were left out, and why."""
    settings = 1 + sum(rival.kind == "other setting" for rival in joint.plan.rivals)
    standard = joint.standard.profile
    of = ""
    if joint.plan.budget.asked.endswith(("%", "x", "×")):
        of = f"; {joint.plan.budget.asked} is of {standard.denoisers[-1].name} alone in {standard.setting.words}"
    talk.print(escape(f"the best of {settings} setting{'s' * (settings > 1)}{of}"))
    for found, why in joint.left_out:
        talk.print(f"[dim]left out: {escape(found.path.name)}: {escape(why)}[/]")


def _judged(made: Plan, row: Row, *, brief: bool = False) -> str | None:
    """Such as `predicted loss is 0.0310 (0.0280 to 0.0350)`; brief, `0.0310 (...)`; None where nothing is known."""
    if made.objective in METRICS:
        value = row.measured[made.objective]
        figures = f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})"
        return figures if brief else f"{made.objective} is {figures}"
    if row.loss is None:
        return None
    ends = f" ({row.loss_within[0]:.4f} to {row.loss_within[1]:.4f})" if row.loss_within is not None else ""
    return f"{row.loss:.4f}{ends}" if brief else f"predicted loss is {row.loss:.4f}{ends}"


def _described(made: Plan, rival: Rival) -> str:
    runs = ", then ".join(f"{steps} steps of {escape(name)}" for name, steps in rival.allocation[:4])
    if len(rival.allocation) > 4:
        runs += " ..."
    setting, mine = rival.setting, made.setting
    other = [setting.scheduler] if setting.scheduler != mine.scheduler else []
    other += [f"with {escape(', '.join(setting.accelerate))}"] if setting.accelerate != mine.accelerate else []
    if mine.accelerate and not setting.accelerate:
        other[-1] = "with nothing cached"
    return " ".join([runs, *other]) + (" (not profiled)" if rival.profile is None else "")


def _command(made: Plan, rival: Rival) -> str:
    """What plans for `rival`."""
    if rival.kind == "smallest alone":
        return f"tstitch sample --row {next(i for i, r in enumerate(made.rows) if r.allocation == rival.allocation)}"
    budget = shown_s(made.budget.seconds).replace(" ", "")
    return f"tstitch plan --profile {rival.profile} --budget {budget}"
