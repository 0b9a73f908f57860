"""What `--accelerate` takes: which acceleration works on which denoisers, its parameters, and when it is refused.

An acceleration makes evaluations of a denoiser cheaper, either by reusing what an earlier evaluation computed (a
cache) or by computing less in each. How each is put into a loaded denoiser stands in caches.py.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from tstitch_cli.errors import UsageError
from tstitch_cli.schedulers import DISTILLED
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry

FEWEST_STEPS = 8
"""A shorter trajectory has steps too far apart for one to stand in for the next, or too few to gain by it."""
_HINT = "leave --accelerate out"


@dataclass(frozen=True)
class Parameter:
    """A number that an acceleration is tuned by."""

    default: float
    least: float
    most: float
    whole: bool = False


@dataclass(frozen=True)
class Acceleration:
    """One way to make evaluations cheaper."""

    classes: tuple[str, ...]
    """The diffusers classes of denoisers on which it was seen to work."""
    parameters: Mapping[str, Parameter]
    cache: bool
    """Whether it reuses what earlier evaluations computed, so that it starts anew at a switch."""
    package: str | None = None
    """The package that does it, where diffusers does not."""
    combines: tuple[str, ...] = ()
    watches: bool = False
    """Whether the cache decides by what it sees, so that nobody knows beforehand which evaluations are full."""
    compiles: bool = True
    """Whether it works on a denoiser compiled by torch.compile."""


_UNET, _DIT = "UNet2DConditionModel", "DiTTransformer2DModel"
_FLUX, _WAN = "FluxTransformer2DModel", "WanTransformer3DModel"
_FLUX2 = "Flux2Transformer2DModel"
_PIXART, _COGVIDEOX = "PixArtTransformer2DModel", "CogVideoXTransformer3DModel"
_SANA, _SD3 = "SanaTransformer2DModel", "SD3Transformer2DModel"
_KANDINSKY = "Kandinsky5Transformer3DModel"
ACCELERATIONS: dict[str, Acceleration] = {
    # Ma et al., 2024: every interval-th evaluation is a full one, the others run the outermost `branch` blocks only.
    "deepcache": Acceleration(
        (_UNET,),
        {"interval": Parameter(3, 2, 100, whole=True), "branch": Parameter(0, 0, 20, whole=True)},
        cache=True,
        package="DeepCache",
        combines=("tome",),
        compiles=False,
    ),
    # Bolya & Hoffman, 2023: that share of the tokens is merged before attention.
    "tome": Acceleration(
        (_UNET, _DIT), {"ratio": Parameter(0.5, 0.01, 0.75)}, cache=False, package="tomesd", combines=("deepcache",)
    ),
    # Where the first block's residual changed by less than the threshold, the other blocks' is that of before.
    "fbcache": Acceleration(
        (_DIT, _FLUX, _WAN, _PIXART, _COGVIDEOX),
        {"threshold": Parameter(0.05, 0.0, 10.0)},
        cache=True,
        watches=True,
    ),
    # Liu et al., 2025: the blocks' outputs are extrapolated, `order` terms of the series, between full evaluations;
    # the first `warm` are all full.
    "taylorseer": Acceleration(
        (_DIT, _FLUX, _WAN, _PIXART, _COGVIDEOX, _SANA, _KANDINSKY, _FLUX2),
        {
            "interval": Parameter(3, 2, 100, whole=True),
            "warm": Parameter(3, 1, 100, whole=True),
            "order": Parameter(1, 0, 4, whole=True),
        },
        cache=True,
    ),
    # Zhao et al., 2024: every interval-th evaluation computes attention, the others are given its output of before;
    # the first `warm` all compute it.
    "pab": Acceleration(
        (_DIT, _FLUX, _WAN, _PIXART, _COGVIDEOX, _SANA, _SD3, _KANDINSKY, _FLUX2),
        {"interval": Parameter(2, 2, 100, whole=True), "warm": Parameter(3, 1, 100, whole=True)},
        cache=True,
        compiles=False,
    ),
}


def parse(asked: str) -> tuple[str, ...]:
    """`deepcache:interval=2,tome` with every parameter filled in, as Setting.accelerate holds them.

    Raises:
        UsageError: an acceleration or a parameter is not known, out of its range, or two do not combine.
    """
    specs: dict[str, str] = {}
    for part in asked.split(","):
        name, *given = part.strip().split(":")
        acceleration = _known(name)
        if name in specs:
            raise UsageError(f"--accelerate: {name} is given twice", hint="give each acceleration once")
        values = {key: parameter.default for key, parameter in acceleration.parameters.items()}
        for pair in given:
            key, _, text = pair.partition("=")
            values[key] = _value(name, key, text, acceleration.parameters.get(key))
        for other in specs:
            if other not in acceleration.combines:
                raise UsageError(
                    f"--accelerate: {other} and {name} do not combine: both change the same blocks",
                    hint="these combine: deepcache,tome",
                )
        specs[name] = ":".join([name, *(f"{key}={value:g}" for key, value in values.items())])
    return tuple(specs.values())


def check_written(specs: tuple[str, ...]) -> None:
    """Returns where `specs`, read from a file, are what `parse` makes; raises UsageError where they are not."""
    if specs and (known := parse(",".join(specs))) != specs:
        raise UsageError(f"accelerations are written as {', '.join(known)}, found {', '.join(specs)[:200]}")


def options(spec: str) -> tuple[str, dict[str, float]]:
    """The name and the parameters in one element of Setting.accelerate, which `parse` made."""
    name, *pairs = spec.split(":")
    return name, {key: float(text) for key, _, text in (pair.partition("=") for pair in pairs)}


def names(setting: Setting) -> tuple[str, ...]:
    """The names of a setting's accelerations."""
    return tuple(options(spec)[0] for spec in setting.accelerate)


def short(spec: str) -> str:
    """One element of Setting.accelerate with those parameters alone that are not the default: `deepcache-interval2`."""
    name, given = options(spec)
    usual = ACCELERATIONS[name].parameters
    return "-".join([name, *(f"{key}{value:g}" for key, value in given.items() if value != usual[key].default)])


def watches(setting: Setting) -> bool:
    """Whether a cache decides by what it sees."""
    return any(ACCELERATIONS[name].watches for name in names(setting))


def is_full(setting: Setting, place: int) -> bool:
    """Whether a denoiser's evaluation is a full one, `place` evaluations after it took over.

    True always where nothing is cached, and where the cache `watches`, so that nobody knows.
    """
    for spec in setting.accelerate:
        name, given = options(spec)
        if name == "deepcache":
            return place % given["interval"] == 0
        if name == "taylorseer":
            return place < given["warm"] or (place - given["warm"] - 1) % given["interval"] == 0
        if name == "pab":
            return place < given["warm"] or place % given["interval"] == 0
    return True


def check(entries: Sequence[Entry], setting: Setting) -> None:
    """Returns where the setting's accelerations work on `entries`.

    Raises:
        UsageError: one of them does not, or its package is not installed.
    """
    from tstitch_cli.zoo import folders  # which planning, that only reads the table, has no use for

    check_written(setting.accelerate)
    for name in names(setting):
        acceleration = ACCELERATIONS[name]
        if acceleration.package and find_spec(acceleration.package) is None:
            raise UsageError(
                f"--accelerate {name} needs the package {acceleration.package}, which is not installed",
                hint='in the clone of tstitch: pip install -c constraints.txt ".[accelerate]"',
            )
        for entry in entries:
            possible = (entry.architecture.model,) if entry.architecture else folders.denoiser_classes(entry.pipeline)
            if possible and not set(possible) & set(acceleration.classes):
                raise unsupported(name, entry.name, possible[0])
        if acceleration.cache:
            _check_trajectory(name, entries, setting)
        if setting.control is not None and acceleration.cache:
            raise UsageError(
                f"--accelerate {name} does not work with a ControlNet: what it adds at each step would be left out",
                hint=_HINT,
            )
        if setting.compiled and not acceleration.compiles:
            raise UsageError(
                f"--accelerate {name} does not work with --compile: what is computed changes from step to step",
                hint="give one of the two",
            )


def unsupported(name: str, denoiser: str, model: str) -> UsageError:
    """The refusal of an acceleration that does not know a denoiser's class."""
    fitting = [other for other, each in ACCELERATIONS.items() if model in each.classes]
    return UsageError(
        f"--accelerate {name} does not work on {denoiser}, a {model}",
        hint=f"what does: {', '.join(fitting)}" if fitting else _HINT,
    )


def _check_trajectory(name: str, entries: Sequence[Entry], setting: Setting) -> None:
    """Step-distilled models leave a cache nothing to reuse."""
    distilled = [e.name for e in entries if e.conditioning.guidance_embedding and e.component == "unet"]
    if setting.scheduler in DISTILLED or distilled:
        who = distilled[0] if distilled else f"the scheduler {setting.scheduler}"
        raise UsageError(
            f"--accelerate {name} does not work on step-distilled models ({who}): every step differs too much",
            hint=_HINT,
        )
    if setting.taken < FEWEST_STEPS:
        raise UsageError(
            f"--accelerate {name} needs {FEWEST_STEPS} steps or more, {setting.taken} leave too little to reuse",
            hint=_HINT,
        )


def _known(name: str) -> Acceleration:
    if name in ACCELERATIONS:
        return ACCELERATIONS[name]
    near = difflib.get_close_matches(name, ACCELERATIONS, n=1)
    raise UsageError(
        f"--accelerate: {name[:40]!r} is not known",
        hint=(f"did you mean {near[0]}? " if near else "") + f"there are {', '.join(ACCELERATIONS)}",
    )


def _value(name: str, key: str, text: str, parameter: Parameter | None) -> float:
    if parameter is None:
        wanted = ", ".join(f"{each}={p.default:g}" for each, p in ACCELERATIONS[name].parameters.items())
        raise UsageError(f"--accelerate: {name} has no parameter {key[:40]!r}", hint=f"it has {wanted}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # What is not a number fails both comparisons.
    if not parameter.least <= value <= parameter.most or (parameter.whole and value != int(value)):
        kind = "a whole number" if parameter.whole else "a number"
        raise UsageError(
            f"--accelerate: {key} of {name} is {text[:40]!r}",
            hint=f"give {kind} from {parameter.least:g} to {parameter.most:g}",
        )
    return value
