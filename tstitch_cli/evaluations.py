"""How many evaluations of a denoiser each sampling step takes under each kind of scheduler."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from tstitch_cli.errors import UsageError


def per_step(scheduler: Any, steps: int, evaluations: int) -> tuple[int, ...]:
    """Evaluations of each of `steps` steps, noisiest first; they sum to `evaluations`.

    `scheduler` is a diffusers scheduler after `set_timesteps`, `evaluations` how often it will be stepped. PNDM
    repeats its second timestep to start its linear multistep formula (or takes three Runge-Kutta steps of four);
    second-order schedulers such as Heun evaluate twice in every step but the last.

    Raises UsageError for a scheduler that spends its evaluations in a way that fits none of these.
    """
    if evaluations == steps:
        return (1,) * steps
    if type(scheduler).__name__ == "PNDMScheduler":
        if evaluations == steps + 1:
            return (2,) + (1,) * (steps - 1)
        if evaluations == steps + 9:
            return (4, 4, 4) + (1,) * (steps - 3)
    if getattr(scheduler, "order", 1) == 2 and evaluations == 2 * steps - 1:
        return (2,) * (steps - 1) + (1,)
    raise UsageError(
        f"{type(scheduler).__name__} makes {evaluations} evaluations in {steps} steps; which is whose is not known",
        hint="choose another scheduler or another number of steps",
    )


def words(scheduler: Any, steps: int, evaluations: int, which: int) -> str:
    """How people are told of evaluation `which`, from 0: "step 7 of 20", and which evaluation where that is another.

    The other arguments are those of `per_step`.
    """
    evaluation = f"evaluation {which + 1} of {evaluations}"
    try:
        counts = per_step(scheduler, steps, evaluations)
    except UsageError:
        return evaluation
    step = next(number for number, end in enumerate(accumulate(counts), 1) if which < end)
    return f"step {step} of {steps}" + (f" ({evaluation})" if evaluations != steps else "")


def run_lengths(counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(2, 1, 1, 1) -> ((2, 1), (1, 3)): pairs of (evaluations, consecutive steps)."""
    pairs: list[tuple[int, int]] = []
    for count in counts:
        if pairs and pairs[-1][0] == count:
            pairs[-1] = (count, pairs[-1][1] + 1)
        else:
            pairs.append((count, 1))
    return tuple(pairs)
