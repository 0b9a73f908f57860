"""The samplers that `--scheduler` names, and how each is made from a pipeline's own noise schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tstitch_cli.errors import UsageError

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Noise

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
}

FLOW_SCHEDULERS = ("flow-euler",)
"""Those for denoisers trained by flow matching, which no other scheduler fits."""


def known(name: str) -> str:
    """`name` where it is a scheduler's; raises UsageError with the near and all names otherwise."""
    if name in SCHEDULERS:
        return name
    import difflib

    near = difflib.get_close_matches(name, SCHEDULERS, n=1)
    raise UsageError(
        f"unknown scheduler '{name}'",
        hint=(f"did you mean '{near[0]}'? " if near else "") + f"there are {', '.join(SCHEDULERS)}",
    )


def plain() -> Any:
    """The scheduler of a folder that has none yet: DDIM, without clipping, which means nothing to latents."""
    import diffusers

    return diffusers.DDIMScheduler(clip_sample=False)


def trained_on(noise: Noise, scheduler: Any) -> Any:
    """`scheduler`, a diffusers one, with the noise schedule that `noise` states in place of its own.

    For a denoiser whose other parts are another model's: that model's scheduler has the betas of its own training.
    """
    if noise.beta_schedule is None:
        return scheduler
    betas = {"beta_schedule": noise.beta_schedule, "beta_start": noise.beta_start, "beta_end": noise.beta_end}
    trained = {"num_train_timesteps": noise.train_steps, "prediction_type": noise.prediction}
    return type(scheduler).from_config(scheduler.config, **betas, **trained)


def build(name: str, config: Any) -> Any:
    """The named diffusers scheduler with the noise schedule of `config`, a scheduler's config."""
    import diffusers

    class_name, changes = SCHEDULERS[known(name)]
    return getattr(diffusers, class_name).from_config(config, **changes)
