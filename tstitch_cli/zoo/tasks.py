"""What can be drawn besides a picture from noise: from a picture, within a mask, under control, or a video."""

from __future__ import annotations

from tstitch_cli.errors import UsageError
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry

FROM_PICTURES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)
"""Pipelines of which diffusers has an image-to-image and an inpainting form."""
VIDEO = {"CogVideoXPipeline": (49, 8), "WanPipeline": (81, 4)}
"""Pipeline -> frames unless told otherwise, and of how many there may be a multiple, besides the first."""
_NOISED = ("flow-euler", "flow-heun")
"""The flow schedulers that can noise a picture."""
_FLUX = ("flow-euler", "flow-unipc")
"""Those that take the noise levels that FluxPipeline gives them."""


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
    if host.pipeline == "FluxPipeline" and setting.scheduler not in (_FLUX if setting.strength is None else _FLUX[:1]):
        raise UsageError(
            f"{setting.scheduler} cannot run {host.name}, whose pipeline sets its noise levels itself",
            hint=f"give --scheduler {_FLUX[0]}",
        )
    video = VIDEO.get(host.pipeline)
    if video is None and setting.frames is not None:
        raise UsageError(f"{host.name} draws stills, it has no frames", hint="leave --frames out")
    if video is not None and setting.frames is not None and setting.frames % video[1] != 1:
        below = max(setting.frames - 1, 0) // video[1] * video[1] + 1
        raise UsageError(
            f"{host.name} cannot draw {setting.frames} frames: it takes a multiple of {video[1]} and one more",
            hint=f"give --frames {below} or --frames {below + video[1]}",
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
