"""Refuses, before anything is loaded, denoisers that cannot be stitched; each refusal in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tstitch_cli.errors import UsageError
from tstitch_cli.schedulers import FLOW_SCHEDULERS, known
from tstitch_cli.schema import DTYPES, Setting
from tstitch_cli.zoo.entry import Entry, LatentSpace, Noise
from tstitch_cli.zoo.tasks import check_task

_HINT = "`tstitch zoo` shows which denoisers belong to one family"


def check(entries: Sequence[Entry]) -> None:
    """Returns where `entries` can be stitched: two or more, different, of one latent space and one parametrisation.

    Raises:
        UsageError: they cannot, with the two that differ and both values.
    """
    if len(entries) < 2:
        raise UsageError("one denoiser cannot be stitched: give two or more", hint=_HINT)
    first = entries[0]
    for i, entry in enumerate(entries):
        for earlier in entries[:i]:
            _different(earlier, entry)
        _same_latent_space(first, entry)
        _same(first, entry, "pipeline", first.pipeline, entry.pipeline)
        _same(first, entry, "component", first.component, entry.component)
        _same_conditioning(first, entry)
        _same_noise(first, entry)


def check_setting(entries: Sequence[Entry], setting: Setting) -> None:
    """Returns where `entries` can be run in `setting`.

    Raises:
        UsageError: they cannot: another picture size, more steps than were trained, or a scheduler of another kind.
    """
    host = entries[-1]
    known(setting.scheduler)
    if setting.dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{setting.dtype}'", hint=f"there are {', '.join(DTYPES)}")
    if setting.steps > host.noise.train_steps:
        raise UsageError(
            f"{setting.steps} steps are more than the {host.noise.train_steps} that {host.name} was trained on",
            hint="use fewer --steps",
        )
    if (setting.scheduler in FLOW_SCHEDULERS) != (host.noise.prediction == "flow"):
        raise UsageError(
            f"the scheduler {setting.scheduler} does not fit {host.name}, which predicts {host.noise.prediction}",
            hint=f"{', '.join(FLOW_SCHEDULERS)} is for flow matching, the others are not",
        )
    if host.conditioning.kind == "class" and setting.size != host.defaults.size:
        raise UsageError(
            f"{host.name} draws {host.defaults.size} px pictures and no others, {setting.size} px were asked for",
            hint="leave --size out",
        )
    check_task(host, setting)
    if setting.size % host.latent_space.downscale:
        raise UsageError(
            f"{setting.size} px is not a multiple of {host.latent_space.downscale}, the size of a latent pixel",
            hint="choose another --size",
        )


def _different(a: Entry, b: Entry) -> None:
    if a.name == b.name:
        raise UsageError(
            f"{a.name} is given twice" if a.source == b.source else f"two denoisers are called {a.name}",
            hint="give different denoisers" if a.source == b.source else "name one of them in your zoo file",
        )
    if (a.source, a.subfolder, a.revision) == (b.source, b.subfolder, b.revision):
        raise UsageError(f"{a.name} and {b.name} are the same denoiser, {a.source}", hint="give different denoisers")


def _same_latent_space(a: Entry, b: Entry) -> None:
    one, other = a.latent_space, b.latent_space
    same_scale = a.parts == b.parts or (
        one.scaling_factor is not None
        and (one.scaling_factor, one.shift_factor) == (other.scaling_factor, other.shift_factor)
    )
    if (one.channels, one.downscale) != (other.channels, other.downscale) or not same_scale:
        raise UsageError(
            f"{a.name} and {b.name} share no latent space: {_describe(one)} against {_describe(other)}", hint=_HINT
        )


def _describe(space: LatentSpace) -> str:
    scale = "not known" if space.scaling_factor is None else f"{space.scaling_factor:g}"
    shift = f" and shift {space.shift_factor:g}" if space.shift_factor else ""
    return f"{space.autoencoder} ({space.channels} channels, 1/{space.downscale} size, scaling {scale}{shift})"


def _same_conditioning(a: Entry, b: Entry) -> None:
    one, other = a.conditioning, b.conditioning
    _same(a, b, "conditioning", one.kind, other.kind)
    _same(a, b, "cross-attention width", one.width, other.width)
    _same(a, b, "guidance embedding", one.guidance_embedding, other.guidance_embedding)
    if one.labels != other.labels:
        raise UsageError(
            f"{a.name} and {b.name} know different classes ({len(one.labels)} and {len(other.labels)} labels)",
            hint=_HINT,
        )


def _same_noise(a: Entry, b: Entry) -> None:
    _same(a, b, "prediction type", a.noise.prediction, b.noise.prediction)
    _same(a, b, "noise schedule", _schedule(a.noise), _schedule(b.noise))
    _same(a, b, "learned variance", a.noise.learned_variance, b.noise.learned_variance)


def _schedule(noise: Noise) -> str:
    if noise.beta_schedule is None:
        return f"{noise.train_steps} steps without betas"
    return f"{noise.train_steps} steps, {noise.beta_schedule} betas {noise.beta_start:g} to {noise.beta_end:g}"


def _same(a: Entry, b: Entry, what: str, one: object, other: object) -> None:
    if one != other:
        raise UsageError(f"{a.name} and {b.name} differ in {what}: {_say(one)} against {_say(other)}", hint=_HINT)


def _say(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no" if value is False else "none"
    return str(value)
