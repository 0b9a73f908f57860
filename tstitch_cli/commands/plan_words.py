"""What `tstitch plan` says of its choice: what was sought, how sure it is, and what could be run instead."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from rich.markup import escape

from tstitch_cli.commands.edge import talk
from tstitch_cli.commands.plan_table import bound_words
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.quantities import parse_budget, shown_s

if TYPE_CHECKING:
    from pathlib import Path

    from tstitch_cli.planning.joint import Joint
    from tstitch_cli.schema import Measured, Plan, Rival, Row


SAME = 1e-9
"""Relative difference of losses that were added up in two ways."""
_VERDICTS = {True: "within the noise", False: "surely worse", None: "how surely is not known"}


def counted(count: int, what: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def sought(made: Plan) -> str:
    """What the choice was made by: `least loss`, `best fid, measured on 5,000 pictures`, `most compute`."""
    if made.objective not in METRICS:
        return escape(made.objective.replace("_", " "))
    on = f", measured on {made.evaluation.pictures:,} pictures" if made.evaluation is not None else ""
    return f"best {made.objective}{on}"


def budget(made: Plan) -> list[str]:
    """What the budget comes to, how, and what is left of it for predictions where a margin is kept; rich markup."""
    asked, seconds = made.budget, shown_s(made.budget.seconds)
    told, margin = _share_of_largest(made), f"{1 + asked.margin:.3g} for the margin"
    if not asked.margin:
        return [f"the budget is {f'{told} = ' if told else ''}{seconds}{_asked(made)}"]
    plannable = shown_s(asked.plannable_s)
    return [
        f"the budget is {f'{told} = {plannable}, x {margin} = ' if told else ''}{seconds}{_asked(made)}",
        f"[yellow]the machine was unsteady while it was profiled, so a margin of {asked.margin:.0%} is kept: what is "
        f"predicted may come to {plannable}, a call to {seconds}[/]",
    ]


def _asked(made: Plan) -> str:
    """The budget as it was typed, where that is no time and is not spelled out anyway."""
    relative = parse_budget(made.budget.asked).kind != "seconds" and _share_of_largest(made) is None
    return f" ({escape(made.budget.asked)})" if relative else ""


def _share_of_largest(made: Plan) -> str | None:
    """Such as `60% of fashion-b alone (523.7 ms p95)`; None of a time, and of a share of another setting's largest."""
    asked = parse_budget(made.budget.asked)
    if asked.kind == "seconds" or any(rival.kind == "other setting" for rival in made.rivals):
        return None
    share = asked.seconds(1.0)
    alone = f"{escape(made.denoisers[-1].name)} alone ({shown_s(made.budget.plannable_s / share)} {bound_words(made)})"
    return f"{asked.asked} of {alone}" if asked.kind == "share" else f"{alone} / {asked.value:g}"


def sureness(made: Plan) -> list[str]:
    """What the chosen row is judged by, with its interval, and whether the next best is really worse; rich markup."""
    row = made.rows[made.chosen]
    if (said := _judged(made, row)) is None:
        return []
    words = f"its {said}"
    by_loss = made.objective not in METRICS and made.compared is not None
    if by_loss:
        words += f", measured on {counted(made.compared or 0, 'picture')}"
    if made.runner_up is not None:
        index = made.runner_up.row
        words += f"; next best is row {index} with {_judged(made, made.rows[index], brief=True)}: "
        words += _VERDICTS[made.runner_up.within_noise]
    lines = [words]
    if made.total is not None:
        lines.append(f"with what the setting loses by itself, it is {made.total:.4f} from the reference")
    if made.least_loss is not None:
        lines.append(
            f"of all assignments of denoisers to steps within the budget, none has a predicted loss below "
            f"{made.least_loss:.4f}{_from_optimum(row.loss or 0.0, made.least_loss)}"
        )
    if made.objective in METRICS:
        fit = [each for each in made.rows if each.feasible]
        lacking = sum(made.objective not in each.measured for each in fit)
        if lacking:
            lines.append(
                f"[yellow]{lacking} of {len(fit)} rows within the budget have no {made.objective} and could not be "
                "chosen; `tstitch evaluate` fills it in[/]"
            )
    return lines


def overlooked(made: Plan, path: Path, *, exact: bool, several: bool) -> None:
    """Says so where a metric is measured of rows within the budget and the choice was made by something else."""
    fit = [index for index, row in enumerate(made.rows) if row.feasible]
    known = {metric: [index for index in fit if metric in made.rows[index].measured] for metric in METRICS}
    metric = max(known, key=lambda each: len(known[each]))
    if made.objective in METRICS or not known[metric]:
        return
    words = f"{metric} is known of {len(known[metric])} of {counted(len(fit), 'row')} within the budget, "
    if exact or several:
        why = "--exact seeks" if exact else "settings are held against each other by"
        words += f"but {why} the {sought(made)}; leave that out to plan on {metric}"
    else:
        lacking = _ranges([index for index in fit if index not in known[metric]])
        fill = shlex.join(["tstitch", "evaluate", "--plan", str(path), "--rows", lacking])
        words += f"so the {sought(made)} decides; fill it in with `{escape(fill)}`, or choose among what is measured "
        words += f"with `--maximize {metric}`"
    talk.print(f"[yellow]{words}[/]")


def _from_optimum(loss: float, bound: float) -> str:
    """How far a loss is from `bound`, below which there is none, in per cent, rounded up to two significant digits."""
    if loss <= bound * (1 + SAME):
        return ": this is the optimum"
    if not bound:
        return ""
    off = (loss / bound - 1) * 100
    digits = 1 - floor(log10(off))
    return f": this is within {ceil(off * 10**digits) / 10**digits:g} % of the optimum"


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending row numbers as `evaluate --rows` takes them: `3,5-7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def rivals(made: Plan) -> None:
    """Lists what is simpler than the choice, or of another setting, and says where one of them wins."""
    if not made.rivals:
        return
    talk.print("instead one could run:")
    for rival in made.rivals:
        wins = f" [bold yellow]which is better: {escape(_command(made, rival))}[/]" if rival.wins else ""
        talk.print(f"  {_described(made, rival)}: {shown_s(rival.time_s.within)}, {_quality(made, rival)}{wins}")


def unprofiled(made: Plan, caches: Sequence[str]) -> None:
    """Lists the caches that work here and were not profiled, and says by which command what is missing is measured."""
    from tstitch_cli.planning.unprofiled import command

    largest = counted(made.setting.taken, "step") + f" of {escape(made.denoisers[-1].name)}"
    if caches:
        either = " or ".join([*([", ".join(caches[:-1])] if caches[1:] else []), caches[-1]])
        talk.print(f"  {largest} with {either}: not profiled (`{escape(command(made, accelerate=caches))}`)")
    fewer = sorted({r.setting.steps for r in made.rivals if r.kind == "largest alone" and r.loss is None})
    if made.compared is not None and fewer:
        talk.print(
            "whether fewer steps of the largest lose less than the choice does is not measured: profile them together "
            f"(`{escape(command(made, steps=fewer))}`)"
        )


def compared(joint: Joint) -> None:
    """Says how many settings were compared, what a share is of, and which were left out, and why."""
    settings = 1 + sum(rival.kind == "other setting" for rival in joint.plan.rivals)
    standard = joint.standard.profile
    of = ""
    if joint.plan.budget.asked.endswith(("%", "x", "×")):
        of = f"; {joint.plan.budget.asked} is of {standard.denoisers[-1].name} alone in {standard.setting.words}"
    talk.print(escape(f"the best of {counted(settings, 'setting')}{of}"))
    for found, why in joint.left_out:
        talk.print(f"[dim]left out: {escape(found.path.name)}: {escape(why)}[/]")


def _judged(made: Plan, row: Row, *, brief: bool = False) -> str | None:
    """Such as `predicted loss is 0.0310 (0.0280 to 0.0350)`; brief, `0.0310 (...)`; None where nothing is known."""
    if made.objective in METRICS:
        figures = _figures(row.measured[made.objective])
        return figures if brief else f"{made.objective} is {figures}"
    if row.loss is None:
        return None
    ends = f" ({row.loss_within[0]:.4f} to {row.loss_within[1]:.4f})" if row.loss_within is not None else ""
    return f"{row.loss:.4f}{ends}" if brief else f"predicted loss is {row.loss:.4f}{ends}"


def _quality(made: Plan, rival: Rival) -> str:
    """What a rival is judged by, as far as it is known, and its loss where that is."""
    words = []
    if made.objective in METRICS:
        value = rival.measured.get(made.objective)
        words.append(f"{made.objective} {_figures(value)}" if value is not None else f"{made.objective} not measured")
    if rival.loss is not None:
        words.append(f"loss {rival.loss:.4f}")
    return ", ".join(words) or "loss not measured"


def _figures(value: Measured) -> str:
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})"


def _described(made: Plan, rival: Rival) -> str:
    runs = ", then ".join(f"{counted(steps, 'step')} of {escape(name)}" for name, steps in rival.allocation[:4])
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
