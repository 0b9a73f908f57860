"""Whose noise schedule a trajectory runs on, and the bridges that the other denoisers then need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tstitch_cli import schedulers
from tstitch_cli.bridges.bridge import Bridge, Form, Guidance
from tstitch_cli.bridges.matching import Frame, Match, frame, known_steps, running
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry

_THOUSANDTHS = ("FluxPipeline", "Flux2KleinPipeline")
"""Pipelines that show t / 1000 to their denoisers."""


def choose(entries: Sequence[Entry], host: Entry, setting: Setting, config: Mapping[str, Any]) -> Entry:
    """The entry whose noise schedule the trajectory runs on: where least is lost, of equals the pipeline's own.

    `host` is the pipeline's entry, `config` its scheduler's. What the setting names is taken: a plan runs on what it
    was profiled on.

    Raises:
        UsageError: the setting names none of `entries`.
        BadFileError: the pipeline's scheduler has another schedule than its entry says.
    """
    if all(Match(frame(host, 1.0), frame(entry, 1.0)).identical for entry in entries):
        return host
    if (wrong := schedulers.disagreement(config, host.noise)) is not None:
        raise BadFileError(
            f"{host.name}: its scheduler's {wrong}", hint="correct the noise section of its entry in the zoo file"
        )
    by_name = {entry.name: entry for entry in entries}
    if setting.schedule is not None:
        if setting.schedule not in by_name:
            raise UsageError(
                f"the trajectory is to run on the noise schedule of {setting.schedule}, which is not among "
                f"{', '.join(by_name)}",
                hint="profile and plan again",
            )
        return by_name[setting.schedule]

    def timesteps(entry: Entry) -> list[float]:
        # A shift that depends on the picture's size moves flow's timesteps, all of which every flow denoiser knows.
        told = schedulers.with_noise(config, entry.noise) | {"use_dynamic_shifting": False}
        scheduler = schedulers.build(setting.scheduler, told)
        scheduler.set_timesteps(setting.steps)
        return [float(t) for t in scheduler.timesteps]

    candidates = [
        entry
        for entry in (*(entry for entry in entries if entry is not host), host)
        if schedulers.fits(setting.scheduler, entry.noise) and entry.noise.train_steps >= setting.steps
    ]
    return running(candidates, entries, _scale(host), timesteps) if candidates else host


def bridges(
    entries: Sequence[Entry],
    loaded: Mapping[str, nn.Module],
    pipeline: Any,
    host: Entry,
    schedule: Entry,
    setting: Setting,
) -> dict[str, Bridge]:
    """A bridge for every denoiser that needs one in `pipeline`, made for `host`, on the noise schedule of `schedule`.

    With `embeddings: own`, a denoiser that is not the host gets one in any case.

    Raises UsageError where a denoiser needs what the pipeline does not give it.
    """
    scale = _scale(host)
    arguments = _arguments(loaded[host.name])
    host_form = form_of(host, loaded[host.name])
    made: dict[str, Bridge] = {}
    for entry in entries:
        match = Match(Frame(schedule.noise, scale), frame(entry, scale))
        form = form_of(entry, loaded[entry.name])
        own = setting.embeddings is not None and entry is not host
        if match.identical and form == host_form and not own:
            continue
        if form.rotary and not host_form.rotary:
            raise UsageError(
                f"{entry.name} has to be told where its tokens are, which the pipeline of {host.name} does not tell",
                hint="give a larger denoiser that is told as well",
            )
        made[entry.name] = Bridge(
            loaded[entry.name],
            entry.name,
            match,
            host=host_form,
            guest=form,
            guidance=_guidance(pipeline, loaded[entry.name], form, host_form, setting),
            arguments=arguments,
            timesteps=lambda: getattr(pipeline.scheduler, "timesteps", None),
        )
    return made


def known(bridge: Bridge, timesteps: Sequence[float], evaluations: Sequence[int]) -> tuple[int, int] | None:
    """The first and last step whose noise the bridge's denoiser knows, counted from 1; None for all of them.

    Raises UsageError where it knows none.
    """
    found = known_steps(bridge.match, timesteps, evaluations)
    if found is None:
        raise UsageError(
            f"{bridge.name} knows none of the noise levels of this trajectory", hint="give another --scheduler"
        )
    return None if found == (1, len(evaluations)) else found


def _scale(host: Entry) -> float:
    """The factor on the trajectory's latents; where it has not been read, all parts are the same and any will do."""
    return host.latent_space.scaling_factor or 1.0


def _arguments(denoiser: nn.Module) -> tuple[str, ...]:
    import inspect

    return tuple(inspect.signature(type(denoiser).forward).parameters)[1:]


def form_of(entry: Entry, denoiser: nn.Module) -> Form:
    """How the denoiser of `entry` is called in its own pipeline, from its config."""
    config: Any = getattr(denoiser, "config", {})
    channels = config.get("out_channels")
    return Form(
        time_unit=1e-3 if entry.pipeline in _THOUSANDTHS else float(config.get("timestep_scale") or 1.0),
        learned_variance=channels is not None and channels == 2 * config.get("in_channels", 0),
        guidance="timestep_cond"
        if config.get("time_cond_proj_dim")
        else "guidance"
        if config.get("guidance_embeds")
        else None,
        rotary=bool(config.get("use_rotary_positional_embeddings")),
    )


def _guidance(pipeline: Any, denoiser: Any, guest: Form, host: Form, setting: Setting) -> Guidance | None:
    """What a guest distilled to take the guidance scale is given by a host that was not."""
    if guest.guidance == host.guidance or guest.guidance is None:
        return None
    if guest.guidance == "guidance":
        return Guidance(lambda count: torch.full((count,), setting.guidance), halves=False)

    def embedding(count: int) -> torch.Tensor:
        # As the pipelines of such denoisers do: guidance 1 is none, which was embedded as 0 (Luo et al., 2023).
        scale = torch.full((count,), setting.guidance - 1)
        return pipeline.get_guidance_scale_embedding(scale, embedding_dim=denoiser.config.time_cond_proj_dim)

    return Guidance(embedding, halves=setting.guidance > 1)
