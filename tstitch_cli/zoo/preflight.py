"""Refuses, before anything is loaded, denoisers that cannot be stitched; each refusal in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tstitch_cli.errors import UsageError
from tstitch_cli.savings import accelerations, residency
from tstitch_cli.schedulers import FLOW_SCHEDULERS, SHIFTING_SCHEDULERS, TRIGFLOW_SCHEDULERS, fits, known
from tstitch_cli.schema import DTYPES, Setting
from tstitch_cli.zoo.entry import Entry, LatentSpace
from tstitch_cli.zoo.tasks import BY_TWO, check_task

_HINT = "`tstitch zoo` shows which denoisers belong to one family"


_INTERCHANGEABLE = (
    frozenset({"StableDiffusionPipeline", "LatentConsistencyModelPipeline"}),
    frozenset({"DiTPipeline", "ClassConditionalPipeline"}),
)
"""Pipelines of one kind of conditioning, any of which runs the denoisers of the others."""
_OWN_EMBEDDINGS = ("StableDiffusion", "LatentConsistencyModel", "Flux2Klein")
"""What the names of pipelines begin with whose denoisers can each have their own text embeddings."""


def check(entries: Sequence[Entry], embeddings: str | None = None) -> None:
    """Returns where `entries` can be stitched: two or more, different, of one latent space, told what to draw alike.

    What they predict, on which noise schedule and from which scale of latents may differ: that is matched.
    `embeddings` are the setting's.

    Raises:
        UsageError: they cannot, with the two that differ and both values.
    """
    if len(entries) < 2:
        raise UsageError("one denoiser cannot be stitched: give two or more", hint=_HINT)
    if embeddings not in (None, "own"):
        raise UsageError(f"unknown embeddings '{embeddings}'", hint="give large or own")
    first = entries[0]
    for i, entry in enumerate(entries):
        for earlier in entries[:i]:
            _different(earlier, entry)
        _same_latent_space(first, entry)
        _same_pipeline(first, entry)
        _same(first, entry, "component", first.component, entry.component)
        _same_conditioning(first, entry, embeddings)
    if embeddings is not None:
        for entry in entries:
            if entry.conditioning.kind != "text" or not entry.pipeline.startswith(_OWN_EMBEDDINGS):
                raise UsageError(
                    f"{entry.name} cannot be given text embeddings of its own in {entry.pipeline}",
                    hint="leave --embeddings out; Stable Diffusion and FLUX.2 can",
                )


def check_setting(entries: Sequence[Entry], setting: Setting) -> None:
    """Returns where `entries` can be run in `setting`.

    Raises:
        UsageError: they cannot: another picture size, more steps than were trained, a scheduler of another kind, or an
            acceleration or offloading that does not work there.
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
    if not any(fits(setting.scheduler, entry.noise) for entry in entries):
        raise UsageError(
            f"the scheduler {setting.scheduler} does not fit {host.name}, which predicts {host.noise.prediction}"
            + ("" if host.noise.snr_shift is None else " with shifted signal-to-noise ratios"),
            hint=f"give --scheduler {host.defaults.scheduler}; {', '.join(FLOW_SCHEDULERS)} are for flow matching, "
            f"{' and '.join(SHIFTING_SCHEDULERS)} for CogVideoX, {', '.join(TRIGFLOW_SCHEDULERS)} for Sana-Sprint, the "
            "others for none of these",
        )
    if host.conditioning.kind == "class" and setting.size != host.defaults.size:
        raise UsageError(
            f"{host.name} draws {host.defaults.size} px pictures and no others, {setting.size} px were asked for",
            hint="leave --size out",
        )
    check_task(host, setting)
    token = host.latent_space.downscale * (2 if host.pipeline in BY_TWO else 1)
    if setting.size % token:
        what = "two latent pixels, which are one to its denoiser" if host.pipeline in BY_TWO else "a latent pixel"
        below = max(setting.size // token, 1) * token
        raise UsageError(
            f"{setting.size} px is not a multiple of {token}, the size of {what}",
            hint=f"give --size {below} or --size {below + token}",
        )
    residency.check(setting)
    accelerations.check(entries, setting)


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
    if (one.channels, one.downscale) == (other.channels, other.downscale):
        if a.parts == b.parts:
            return
        known = None not in (one.scaling_factor, other.scaling_factor) and one.shift_factor == other.shift_factor
        kinds_agree = one.autoencoder.split()[:1] == other.autoencoder.split()[:1]
        # Latents scaled alike are those of one autoencoder, whatever people call it; those scaled otherwise are only
        # where the zoo calls both by one name. What a folder's config tells, such as KL-f8, names none.
        if known and kinds_agree and one.scaling_factor == other.scaling_factor:
            return
        if known and one.autoencoder == other.autoencoder and " " in one.autoencoder:
            return
        why = "their autoencoders differ"
        if not known or one.autoencoder == other.autoencoder:
            why = "nothing says that their autoencoders are the same"
        raise UsageError(
            f"{a.name} and {b.name} share no latent space, for {why}: {_describe(one)} against {_describe(other)}",
            hint=_HINT,
        )
    raise UsageError(
        f"{a.name} and {b.name} share no latent space: {_describe(one)} against {_describe(other)}", hint=_HINT
    )


def _same_pipeline(a: Entry, b: Entry) -> None:
    if not any({a.pipeline, b.pipeline} <= alike for alike in _INTERCHANGEABLE):
        _same(a, b, "pipeline", a.pipeline, b.pipeline)


def _describe(space: LatentSpace) -> str:
    scale = "not known" if space.scaling_factor is None else f"{space.scaling_factor:g}"
    shift = f" and shift {space.shift_factor:g}" if space.shift_factor else ""
    return f"{space.autoencoder} ({space.channels} channels, 1/{space.downscale} size, scaling {scale}{shift})"


def _same_conditioning(a: Entry, b: Entry, embeddings: str | None) -> None:
    one, other = a.conditioning, b.conditioning
    _same(a, b, "conditioning", one.kind, other.kind)
    if one.width != other.width and embeddings is None:
        raise UsageError(
            f"{a.name} and {b.name} differ in cross-attention width: {_say(one.width)} against {_say(other.width)}, "
            "so one text embedding does not serve both",
            hint="--embeddings own gives each its own, where the pipeline can",
        )
    if one.labels != other.labels:
        raise UsageError(
            f"{a.name} and {b.name} know different classes ({len(one.labels)} and {len(other.labels)} labels)",
            hint=_HINT,
        )


def _same(a: Entry, b: Entry, what: str, one: object, other: object) -> None:
    if one != other:
        raise UsageError(f"{a.name} and {b.name} differ in {what}: {_say(one)} against {_say(other)}", hint=_HINT)


def _say(value: object) -> str:
    return "none" if value is None else str(value)
