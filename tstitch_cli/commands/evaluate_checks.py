"""What `tstitch evaluate` refuses to measure, each in one message, before the denoisers are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.schema import Evaluation, Plan

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Entry


def refuse_unknown_features(name: str) -> None:
    """Raises UsageError unless `name` is a network to compare by."""
    from tstitch_cli.quality import features as networks

    if name not in networks.names():
        raise UsageError(f"there are no features called {name[:40]!r}", hint=f"there are {', '.join(networks.names())}")


def refuse_what_cannot_be_drawn(plan: Plan) -> None:
    """Raises StaleError for random weights, UsageError for what has no usual reference, as videos."""
    setting = plan.setting
    if plan.fingerprint is not None and plan.fingerprint.random:
        raise StaleError(
            "the plan was made with random weights: it tells how long calls take and has nothing to draw with",
            hint="profile without --random-weights and plan again",
        )
    if setting.strength is not None or setting.inpaint or setting.control is not None or setting.frames is not None:
        raise UsageError(
            "what is drawn from pictures, and videos, are not measured: there is no usual reference for them",
            hint="measure a plan for the same denoisers from noise",
        )


def refuse_other_weights(plan: Plan, entries: Sequence[Entry]) -> None:
    """Raises StaleError unless the weights are the plan's; the machine may be another, for it changes no picture."""
    from tstitch_cli import components
    from tstitch_cli.measuring import fingerprint

    if plan.fingerprint is None:
        return
    here = {entry.name: components.digest_of(entry) for entry in entries}
    try:
        fingerprint.require_same_weights(plan.fingerprint.weights, here, "what the plan is for")
    except StaleError as error:
        raise StaleError(error.message, hint="profile and plan again with the weights that are here") from None


def refuse_mixing(plan: Plan, numbers: Sequence[int], now: Evaluation, *, remeasure: bool) -> None:
    """Raises UsageError where rows would stand beside each other that were measured in different ways."""
    others = [number for number, row in enumerate(plan.rows) if row.measured and number not in numbers]
    if plan.evaluation in (None, now) or remeasure or not others:
        return
    from tstitch_cli.commands.measured_words import in_words

    some = ", ".join(map(str, others[:8])) + (" ..." if len(others) > 8 else "")
    raise UsageError(
        f"rows {some} were measured in another way ({in_words(plan.evaluation)}), which cannot be compared with this "
        f"one ({in_words(now)})",
        hint="measure in the same way, add those rows to --rows, or let --remeasure drop what was measured of them",
    )
