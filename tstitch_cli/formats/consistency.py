"""What must hold within a profile and within a plan beyond the types of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from tstitch_cli.allocation import units_of
from tstitch_cli.errors import UsageError
from tstitch_cli.formats.typed_values import near
from tstitch_cli.formats.yaml_lines import MAX_KEY
from tstitch_cli.formats.yaml_nodes import Place, short
from tstitch_cli.planning.orders import EXACT, ORDERS
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.savings import accelerations
from tstitch_cli.schema import QUANTILES, Agreement, Fingerprint, Measure, Plan, Profile, Row, Setting
from tstitch_cli.zoo.controls import weights_name

Faults = Iterator[tuple[Place, str]]

ORIGINS = ("measured", "imported", "reference")
MAX_STEPS = 10_000
MAX_FRAMES = 10_000
MAX_DENOISERS = 100
TIED = 1.05
"""Denoisers whose costs are within this ratio may stand in either order."""


def faults_of_profile(profile: Profile) -> Faults:
    """Yields every (place, fault) of a profile."""
    if profile.origin not in ORIGINS:
        yield ("origin",), f"expected one of {', '.join(ORIGINS)}, found {profile.origin}"
    try:
        datetime.fromisoformat(profile.created)
    except ValueError:
        yield ("created",), f"expected a time such as 2025-01-31T12:00:00+00:00, found {profile.created}"
    names = [denoiser.name for denoiser in profile.denoisers]
    yield from _setting(profile.setting, names)
    yield from _evaluations(profile.evaluations, profile.setting.taken)
    yield from _names(names)
    for index, denoiser in enumerate(profile.denoisers):
        place: Place = ("denoisers", index)
        yield from _knows(denoiser.knows, profile.setting.taken, (*place, "knows"))
        for part in ("first_s", "steady_s", "last_s"):
            yield from _measure(getattr(denoiser, part), (*place, part), positive=True)
        yield from _measure(denoiser.switch_s, (*place, "switch_s"))
        if denoiser.cached_s is not None:
            yield from _measure(denoiser.cached_s, (*place, "cached_s"), positive=True)
        if (course := denoiser.course_s) and len(course) != (made := sum(n * t for n, t in profile.evaluations)):
            yield (*place, "course_s"), f"must have a time for each of the {made} evaluations, has {len(course)}"
        if any(seconds <= 0 for seconds in course):
            yield (*place, "course_s"), f"must be above 0, has {min(course):g}"
        for part in ("parameters", "flops", "peak_memory_bytes"):
            if (value := getattr(denoiser, part)) is not None and value <= 0:
                yield (*place, part), f"must be above 0, is {value:g}"
        if index and profile.denoisers[index - 1].steady_s.mean > TIED * denoiser.steady_s.mean:
            yield (*place, "steady_s"), f"is cheaper than {names[index - 1]} before it: cheapest first"
    for part in ("encode_s", "decode_s", "write_s"):
        yield from _measure(getattr(profile.fixed, part), ("fixed", part))
    yield from _spread(profile.spread)
    if profile.agreement is not None:
        yield from _agreement(profile.agreement, names, profile.setting.taken)
    if profile.coarseness is not None:
        if not profile.coarseness.distance:
            yield ("coarseness", "distance"), "expected a value for every picture"
        if any(value < 0 for value in profile.coarseness.distance):
            yield ("coarseness", "distance"), "must not be negative"
        yield from _known(profile.coarseness.reference.denoiser, names, ("coarseness", "reference", "denoiser"))
    if profile.rounds < 0:
        yield ("rounds",), f"must be at least 0, is {profile.rounds}"
    if profile.confidence < 0:
        yield ("confidence",), f"must be at least 0, is {profile.confidence:g}"
    if not 0 <= profile.drift < 1:
        yield ("drift",), f"must be at least 0 and below 1, is {profile.drift:g}"
    if profile.steady and profile.unsteady:
        yield ("unsteady",), "gives reasons, so `steady` must be false"
    yield from _fingerprint(profile.fingerprint, names, profile.setting)
    for index, validation in enumerate(profile.validation):
        yield from _allocation(validation.allocation, names, profile.setting.taken, ("validation", index, "allocation"))
        if validation.predicted_s <= 0:
            yield ("validation", index, "predicted_s"), f"must be above 0, is {validation.predicted_s:g}"
        yield from _measure(validation.measured_s, ("validation", index, "measured_s"), positive=True)


def _agreement(agreement: Agreement, names: Sequence[str], steps: int) -> Faults:
    place: Place = ("agreement",)
    others = [name for name in names if name != agreement.largest]
    if len(others) == len(names):
        yield (*place, "largest"), f"is no denoiser of the profile: {agreement.largest}"
    if sorted(agreement.denoisers) != sorted(others):
        yield (*place, "denoisers"), f"expected {', '.join(others)}, found {', '.join(agreement.denoisers)}"
    columns: list[tuple[Place, Sequence[float]]] = [((*place, "weights"), agreement.weights)]
    pictures = {len(close.rms) for close in agreement.denoisers.values()}
    for name, close in agreement.denoisers.items():
        at = (*place, "denoisers", name)
        columns += [((*at, "cosine"), close.cosine), ((*at, "cosine_std"), close.cosine_std)]
        columns += [((*at, "rms", index), row) for index, row in enumerate(close.rms)]
        if pictures != {len(close.rms)} or not close.rms:
            yield (*at, "rms"), "expected a row for every picture, as many for every denoiser"
    for at, column in columns:
        if len(column) != steps:
            yield at, f"expected a value for each of the {steps} steps, found {len(column)}"
        if at[-1] != "cosine" and any(value < 0 for value in column):
            yield at, "must not be negative"


def faults_of_plan(plan: Plan) -> Faults:
    """Yields every (place, fault) of a plan."""
    names = [denoiser.name for denoiser in plan.denoisers]
    yield from _setting(plan.setting, names)
    yield from _evaluations(plan.evaluations, plan.setting.taken)
    yield from _names(names)
    for index, denoiser in enumerate(plan.denoisers):
        yield from _knows(denoiser.knows, plan.setting.taken, ("denoisers", index, "knows"))
    yield from _fingerprint(plan.fingerprint, names, plan.setting)
    if plan.budget.seconds <= 0:
        yield ("budget", "seconds"), f"must be above 0, is {plan.budget.seconds:g}"
    if plan.budget.quantile is not None and not 0 < plan.budget.quantile < 1:
        yield ("budget", "quantile"), f"must be between 0 and 1, is {plan.budget.quantile:g}"
    if not 0 <= plan.budget.margin <= 1:
        yield ("budget", "margin"), f"must be from 0 to 1, is {plan.budget.margin:g}"
    try:
        units_of(plan.increment)
    except UsageError as error:
        yield ("increment",), error.message
    # What is exact or measured stands in the table whether it was enumerated or not.
    if plan.combinations < sum(row.order != EXACT and not row.measured for row in plan.rows):
        yield ("combinations",), f"is {plan.combinations}, but there are {len(plan.rows)} rows"
    if not plan.rows:
        yield ("rows",), "must have at least one row"
    for index, row in enumerate(plan.rows):
        yield from _row(row, names, plan.setting.taken, ("rows", index))
    yield from _measured(plan)
    yield from _choices(plan)
    if plan.compared is not None and plan.compared < 1:
        yield ("compared",), f"must be at least 1, is {plan.compared}"
    for index, rival in enumerate(plan.rivals):
        place: Place = ("rivals", index)
        yield from _allocation(rival.allocation, names, rival.setting.taken, (*place, "allocation"))
        if rival.time_s.within <= 0:
            yield (*place, "time_s", "within"), f"must be above 0, is {rival.time_s.within:g}"


def _measured(plan: Plan) -> Faults:
    for index, row in enumerate(plan.rows):
        for name, found in row.measured.items():
            place = ("rows", index, "measured", name)
            if name not in METRICS:
                yield place, f"is no metric, there are {', '.join(METRICS)}"
            if not found.low <= found.value <= found.high:
                yield place, f"must lie within its interval, is {found.value:g} in {found.low:g} to {found.high:g}"
    if plan.evaluation is None and any(row.measured for row in plan.rows):
        yield ("rows",), "have measured metrics, but there is no `evaluation` to say what they hold for"
    if plan.evaluation is not None and plan.evaluation.pictures < 1:
        yield ("evaluation", "pictures"), f"must be at least 1, is {plan.evaluation.pictures}"


def _choices(plan: Plan) -> Faults:
    last = len(plan.rows) - 1
    places: list[tuple[Place, int]] = [(("chosen",), plan.chosen)]
    places += [(("alternatives", index), row) for index, row in enumerate(plan.alternatives)]
    for place, row in places:
        if not 0 <= row <= last:
            yield place, f"is {row}, but the rows are 0 to {last}"
    if plan.alternatives[:1] != (plan.chosen,):
        yield ("alternatives",), f"must begin with the chosen row, {plan.chosen}"
    if plan.runner_up is not None and not 0 <= plan.runner_up.row <= last:
        yield ("runner_up", "row"), f"is {plan.runner_up.row}, but the rows are 0 to {last}"
    if len(set(plan.alternatives)) < len(plan.alternatives):
        yield ("alternatives",), "name a row twice"


def _row(row: Row, names: Sequence[str], steps: int, place: Place) -> Faults:
    for part in ("fractions", "steps"):
        shares: dict[str, float] = getattr(row, part)
        for name, share in shares.items():
            yield from _known(name, names, (*place, part, name))
            if share < 0:
                yield (*place, part, name), f"must be at least 0, is {share:g}"
    # 1e-5 forgives fractions written with a few digits, such as 0.333333.
    if abs(sum(row.fractions.values()) - 1) > 1e-5:
        yield (*place, "fractions"), f"must sum to 1, sum to {sum(row.fractions.values()):g}"
    if sum(row.steps.values()) != steps:
        yield (*place, "steps"), f"must sum to the {steps} steps, sum to {sum(row.steps.values())}"
    yield from _allocation(row.allocation, names, steps, (*place, "allocation"))
    taken: dict[str, int] = {}
    for name, count in row.allocation:
        taken[name] = taken.get(name, 0) + count
    if taken != {name: count for name, count in row.steps.items() if count}:
        yield (*place, "allocation"), "does not give each denoiser the number of steps that `steps` says"
    for part in ("mean", "p95", "within"):
        if (value := getattr(row.time_s, part)) <= 0:
            yield (*place, "time_s", part), f"must be above 0, is {value:g}"
    if row.refused is not None and (row.feasible or row.pareto):
        yield (*place, "refused"), "is given, so the row can be neither feasible nor on the Pareto front"
    if row.order is not None and row.order not in (*ORDERS, EXACT):
        yield (*place, "order"), f"expected one of {', '.join((*ORDERS, EXACT))}, found {row.order}"
    if row.loss_within is not None and not 0 <= row.loss_within[0] <= row.loss_within[1]:
        yield (*place, "loss_within"), f"must be the lower and the upper end, is {list(row.loss_within)}"
    if row.compute < 0:
        yield (*place, "compute"), f"must be at least 0, is {row.compute:g}"


def _setting(setting: Setting, names: Sequence[str]) -> Faults:
    for part, least, most in (
        ("steps", 1, MAX_STEPS),
        ("batch_size", 1, 1_000_000),
        ("size", 0, 1_000_000),
        ("guidance", 0, 1_000_000),
    ):
        if not least <= (value := getattr(setting, part)) <= most:
            yield ("setting", part), f"must be from {least} to {most}, is {value:g}"
    if setting.strength is not None and not (0 < setting.strength <= 1 and setting.taken):
        yield (
            ("setting", "strength"),
            f"must leave a step of the {setting.steps} and be 1 at most, is {setting.strength:g}",
        )
    if setting.frames is not None and not 1 <= setting.frames <= MAX_FRAMES:
        yield ("setting", "frames"), f"must be from 1 to {MAX_FRAMES}, is {setting.frames}"
    for part in ("schedule", "host"):
        if (name := getattr(setting, part)) is not None:
            yield from _known(name, names, ("setting", part))
    if setting.embeddings not in (None, "own"):
        yield ("setting", "embeddings"), f"must be own or nothing, is {setting.embeddings}"
    try:
        accelerations.check_written(setting.accelerate)
    except UsageError as error:
        yield ("setting", "accelerate"), error.message


def _evaluations(evaluations: tuple[tuple[int, int], ...], steps: int) -> Faults:
    for index, run in enumerate(evaluations):
        if run[0] < 1 or not 1 <= run[1] <= MAX_STEPS:
            yield ("evaluations", index), f"needs at least 1 evaluation and 1 step, is {list(run)}"
    if sum(run[1] for run in evaluations) != steps:
        yield ("evaluations",), f"must cover the {steps} steps, cover {sum(run[1] for run in evaluations)}"


def _names(names: Sequence[str]) -> Faults:
    if not 2 <= len(names) <= MAX_DENOISERS:
        yield ("denoisers",), f"must be 2 to {MAX_DENOISERS}, there are {len(names)}"
    for index, name in enumerate(names[: MAX_DENOISERS + 1]):
        if not name.strip():
            yield ("denoisers", index, "name"), "must not be empty"
        if len(name) > MAX_KEY:
            yield ("denoisers", index, "name"), f"is longer than {MAX_KEY} characters"
        if name in names[:index]:
            yield ("denoisers", index, "name"), f"{short(name)} stands here a second time"


def _knows(knows: tuple[int, int] | None, steps: int, place: Place) -> Faults:
    if knows is not None and not 1 <= knows[0] <= knows[1] <= steps:
        yield place, f"must be the first and the last of the {steps} steps that it knows, is {list(knows)}"


def _measure(measure: Measure, place: Place, *, positive: bool = False) -> Faults:
    if measure.mean < 0 or (positive and measure.mean == 0):
        yield (*place, "mean"), f"must be {'above' if positive else 'at least'} 0, is {measure.mean:g}"
    if measure.std < 0:
        yield (*place, "std"), f"must be at least 0, is {measure.std:g}"
    if measure.count < 0:
        yield (*place, "count"), f"must be at least 0, is {measure.count}"


def _spread(spread: dict[str, float]) -> Faults:
    wanted = [f"p{quantile * 100:g}" for quantile in QUANTILES]
    if sorted(spread) != sorted(wanted):
        yield ("spread",), f"must have {', '.join(wanted)}, has {', '.join(spread) or 'nothing'}"
        return
    for before, name in zip([None, *wanted], wanted, strict=False):
        if spread[name] <= 0:
            yield ("spread", name), f"must be above 0, is {spread[name]:g}"
        if before and spread[name] < spread[before]:
            yield ("spread", name), f"is less than {before}"


def _fingerprint(fingerprint: Fingerprint | None, names: Sequence[str], setting: Setting) -> Faults:
    if fingerprint is None:
        return
    known = [*names, *([weights_name(setting.control)] if setting.control else [])]
    for name in fingerprint.weights:
        yield from _known(name, known, ("fingerprint", "weights", name))


def _allocation(allocation: tuple[tuple[str, int], ...], names: Sequence[str], steps: int, place: Place) -> Faults:
    for index, (name, count) in enumerate(allocation):
        yield from _known(name, names, (*place, index))
        if not 1 <= count <= MAX_STEPS:
            yield (*place, index), f"{name} must take at least 1 step, takes {count}"
    if sum(count for _, count in allocation) != steps:
        yield place, f"must cover the {steps} steps, covers {sum(count for _, count in allocation)}"


def _known(name: str, names: Sequence[str], place: Place) -> Faults:
    if name not in names:
        meant = near(name, names)
        yield place, f"{short(name)} is none of the denoisers" + (f", did you mean {meant}?" if meant else "")
