"""What `tstitch profile` says of what it measured: the table, how far it can be trusted, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.markup import escape

from tstitch_cli.commands.edge import out, talk
from tstitch_cli.commands.plan_words import counted

if TYPE_CHECKING:
    from tstitch_cli.schema import Profile

WIDTH = 160


def show(made: Profile) -> None:
    """Prints a profile as a table, then how far it can be trusted."""
    from rich import box
    from rich.table import Table

    from tstitch_cli.commands.terminal import SafeConsole
    from tstitch_cli.measuring.steadiness import margin
    from tstitch_cli.planning.costs import CostModel

    setting = made.setting
    machine = f" ({made.fingerprint.device})" if made.fingerprint else ""
    talk.print(f"{escape(made.family)}: {escape(setting.words + machine)}")
    table = Table(box=box.SIMPLE_HEAD)
    times = ["ms a step (std)", *["cached"] * any(d.cached_s for d in made.denoisers), "first", "last", "switch"]
    for column in ("denoiser", "parameters", "GFLOPs", *times, "memory", "alone"):
        table.add_column(column, justify="left" if column == "denoiser" else "right", no_wrap=True)
    model = CostModel(made)
    for d in made.denoisers:
        table.add_row(
            escape(d.name),
            f"{d.parameters / 1e6:.2f} M" if d.parameters else "-",
            f"{d.flops / 1e9:.2f}" if d.flops else "-",
            f"{d.steady_s.mean * 1e3:.2f} ({d.steady_s.std * 1e3:.2f})",
            *[f"{d.cached_s.mean * 1e3:.2f}" if d.cached_s else "-"] * ("cached" in times),
            f"{d.first_s.mean * 1e3:.2f}",
            f"{d.last_s.mean * 1e3:.2f}",
            f"+{d.switch_s.mean * 1e3:.2f}",
            f"{d.peak_memory_bytes / 2**20:.0f} MB" if d.peak_memory_bytes else "-",
            f"{model.mean_s(((d.name, setting.taken),)):.3f} s",
        )
    # A table wider than the terminal runs on into the next line rather than losing its figures.
    SafeConsole(width=max(out.width, WIDTH), highlight=False).print(table)
    fixed = made.fixed
    talk.print(
        f"besides the steps, a call takes {fixed.encode_s.mean * 1e3:.1f} ms to encode, "
        f"{fixed.decode_s.mean * 1e3:.1f} ms to decode and {fixed.write_s.mean * 1e3:.1f} ms to write"
    )
    _differences(made)
    if made.origin != "measured":
        return
    if made.fingerprint is not None and made.fingerprint.random:
        talk.print("measured with random weights: these times hold for the real ones, and nothing can be drawn by them")
    if made.notes:
        talk.print(escape(made.notes))
    if setting.device == "cpu":
        talk.print("measured on the CPU: torch sees no accelerator here, or was told not to use it")
    talk.print(
        f"{made.rounds} rounds, 95 % confidence interval ± {made.confidence:.1%}"
        + ("" if made.stopped == "tight" else " when the time was up (--max-time)")
    )
    if not made.steady:
        why = "; ".join(made.unsteady) or "its speed drifted"
        talk.print(f"[yellow]the machine was unsteady while measuring: {escape(why)}[/]")
        talk.print(
            f"[yellow]plans from this profile keep a margin of {margin(made):.0%}; close other programs and profile "
            "again for one without[/]"
        )
    _agreement(made)
    for check in made.validation:
        predicted, measured = check.predicted_s, check.measured_s.mean
        shares = escape(", ".join(f"{name} {count}" for name, count in check.allocation))
        off = f"{measured / predicted - 1:+.1%}"
        talk.print(f"held out: {shares}: predicted {predicted:.3f} s, measured {measured:.3f} s ({off})")


def _differences(made: Profile) -> None:
    """Where denoisers differ in noise or text encoder: what follows for who may do what."""
    from tstitch_cli.planning.known_steps import said

    if made.setting.schedule is not None:
        talk.print(f"the steps are those of {escape(made.setting.schedule)}'s noise schedule")
    for denoiser in made.denoisers:
        if denoiser.knows is not None:
            talk.print(f"{escape(denoiser.name)} knows the noise of {said(denoiser.knows)} alone, so it may take those")


def _agreement(made: Profile) -> None:
    """How near the denoisers are to the largest one, and which is not worth its time."""
    from tstitch_cli.planning.objectives import loss_of, not_worth_their_time

    if made.agreement is None:
        return
    steps = made.setting.taken
    shown = [0, steps // 4, steps // 2, 3 * steps // 4, steps - 1]
    for name, close in made.agreement.denoisers.items():
        cosines = ", ".join(f"{close.cosine[t]:.4f}" for t in dict.fromkeys(shown))
        talk.print(
            f"agreement of {escape(name)} with {escape(made.agreement.largest)}, from the first step to the last: "
            f"{cosines}; predicted loss {_mean(loss_of(made.agreement, ((name, steps),)))}"
        )
    if made.coarseness is not None:
        reference, distance = made.coarseness.reference, np.asarray(made.coarseness.distance)
        talk.print(
            f"coarseness: {escape(made.agreement.largest)} alone ends {_mean(distance)} from itself in "
            f"{reference.steps} steps of {escape(reference.scheduler)}"
        )
    for dearer, cheaper in not_worth_their_time(made).items():
        talk.print(
            f"[yellow]{escape(dearer)} is not worth its time: {escape(cheaper)} is cheaper and agrees with "
            f"{escape(made.agreement.largest)} no worse[/]"
        )


def _mean(values: npt.NDArray[np.float64]) -> str:
    """The mean of `values` (P,) of as many pictures, with its 95 % interval where that is known."""
    from tstitch_cli.planning.sureness import interval

    ends, of = interval(values[None]), counted(len(values), "picture")
    if ends is None:
        return f"{values.mean():.3f}, measured on {of}: how surely is not known"
    low, high = np.maximum(ends[0], 0.0)
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f}, measured on {of})"
