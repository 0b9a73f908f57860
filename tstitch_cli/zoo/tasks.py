"""What can be drawn besides a picture from noise: from a picture, within a mask, under control, or a video."""

from __future__ import annotations

from tstitch_cli.errors import UsageError
from tstitch_cli.schedulers import TRIGFLOW_SCHEDULERS
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry

FROM_PICTURES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)
"""Pipelines of which diffusers has an image-to-image and an inpainting form."""
VIDEO = {"CogVideoXPipeline": (49, 8), "Kandinsky5T2VPipeline": (121, 4), "WanPipeline": (81, 4)}
"""Pipeline -> frames unless told otherwise, and of how many there may be a multiple, besides the first."""
_NOISED = ("flow-euler", "flow-heun")
"""The flow schedulers that can noise a picture."""
BY_TWO = (
    "CogVideoXPipeline",
    "Flux2KleinPipeline",
    "FluxPipeline",
    "Kandinsky5T2VPipeline",
    "StableDiffusion3Pipeline",
    "WanPipeline",
)
"""Pipelines whose denoisers see 2 x 2 latent pixels as one, so that pictures are of an even number of them a side."""
WITHOUT_NEGATIVE = (
    "Flux2KleinPipeline",
    "FluxPipeline",
    "LatentConsistencyModelPipeline",
    "SanaSprintPipeline",
)
"""Pipelines that are given no negative prompt."""
_TAKES = {
    "FluxPipeline": (("flow-euler", "flow-unipc"), "sets its noise levels itself"),
    "Flux2KleinPipeline": (("flow-euler", "flow-unipc"), "sets its noise levels itself"),
    "Kandinsky5T2VPipeline": (("flow-euler", "flow-dpm++"), "overwrites the latents that this sampler goes back to"),
    "SanaSprintPipeline": (TRIGFLOW_SCHEDULERS, "counts in the angles of TrigFlow"),
}
"""Pipelines that do not take every scheduler for their noise: those they take, and why not the others."""


def frames(host: Entry, asked: int | None) -> int | None:
    """The frames of a setting: those asked for, else the usual of a video family; None for stills."""
    usual = VIDEO.get(host.pipeline)
    return asked if asked is not None or usual is None else usual[0]


def check_task(host: Entry, setting: Setting) -> None:
    """Returns where the pipeline of `host` can do what `setting` asks for; whether a ControlNet fits is told elsewhere.

    Raises:
        UsageError: it cannot, with the reason.
    """
    if setting.strength is not None:
        _check_strength(host, setting, setting.strength)
    elif setting.inpaint:
        raise UsageError(
            "inpainting needs a strength", hint="give --strength 1 to draw what is masked from noise alone"
        )
    _check_scheduler(host, setting)
    video = VIDEO.get(host.pipeline)
    if video is None and setting.frames is not None:
        raise UsageError(f"{host.name} draws stills, it has no frames", hint="leave --frames out")
    if video is not None and setting.frames is not None and setting.frames % video[1] != 1:
        below = max(setting.frames - 1, 0) // video[1] * video[1] + 1
        raise UsageError(
            f"{host.name} cannot draw {setting.frames} frames: it takes a multiple of {video[1]} and one more",
            hint=f"give --frames {below} or --frames {below + video[1]}",
        )


def _check_scheduler(host: Entry, setting: Setting) -> None:
    if host.pipeline in _TAKES:
        taken, why = _TAKES[host.pipeline]
        if setting.strength is not None:
            taken = tuple(name for name in taken if name in _NOISED)
        if setting.scheduler not in taken:
            raise UsageError(
                f"{setting.scheduler} cannot run {host.name}, whose pipeline {why}",
                hint=f"give --scheduler {taken[0]}",
            )
    elif setting.scheduler in TRIGFLOW_SCHEDULERS:
        raise UsageError(
            f"{setting.scheduler} cannot run {host.name}, whose pipeline knows no TrigFlow",
            hint=f"give --scheduler {host.defaults.scheduler}",
        )


def _check_strength(host: Entry, setting: Setting, strength: float) -> None:
    if host.pipeline not in FROM_PICTURES:
        raise UsageError(
            f"{host.name} draws from noise alone: diffusers has no image-to-image form of {host.pipeline}",
            hint="leave --strength and --inpaint out",
        )
    if not 0 < strength <= 1:
        raise UsageError(f"a strength is above 0 and 1 at most, not {strength:g}", hint="try --strength 0.6")
    if setting.taken < 1:
        raise UsageError(
            f"strength {strength:g} leaves none of {setting.steps} steps", hint="give more --steps or --strength"
        )
    if host.noise.prediction == "flow" and setting.scheduler not in _NOISED:
        raise UsageError(
            f"{setting.scheduler} cannot start from a picture", hint=f"give --scheduler {' or '.join(_NOISED)}"
        )
