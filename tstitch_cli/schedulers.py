"""The samplers that `--scheduler` names, and how each is made from a pipeline's own noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tstitch_cli.errors import UsageError
from tstitch_cli.zoo.entry import Noise

_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
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
    "cogvideox-ddim": ("CogVideoXDDIMScheduler", {}),
    "cogvideox-dpm++": ("CogVideoXDPMScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "flow-dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **_FLOW}),
    "flow-unipc": ("UniPCMultistepScheduler", _FLOW),
    "scm": ("SCMScheduler", {}),
}

FLOW_SCHEDULERS = ("flow-euler", "flow-heun", "flow-dpm++", "flow-unipc")
"""Those for denoisers trained by flow matching, which no other scheduler fits."""
SHIFTING_SCHEDULERS = ("cogvideox-ddim", "cogvideox-dpm++")
"""Those that shift the signal-to-noise ratios of their schedule, as CogVideoX was trained."""
TRIGFLOW_SCHEDULERS = ("scm",)
"""Those that count in the angles of TrigFlow (Lu & Song, 2024), which the pipeline makes of what a flow predicts."""
DISTILLED = ("lcm", "scm")
"""Those for denoisers distilled to a few steps."""
STOCHASTIC = ("ddpm", "euler-a", "lcm", "scm")
"""Those that add noise in every step, so that one noise to begin with does not decide where they end."""


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


def for_flow(name: str) -> bool:
    """Whether the named scheduler is for denoisers trained by flow matching."""
    return name in FLOW_SCHEDULERS or name in TRIGFLOW_SCHEDULERS


def fits(name: str, noise: Noise) -> bool:
    """Whether the named scheduler is of the kind that a denoiser trained on `noise` can be run with."""
    if for_flow(name) != (noise.prediction == "flow"):
        return False
    return noise.snr_shift is not None if name in SHIFTING_SCHEDULERS else noise.snr_shift in (None, 1.0)


def noise_config(noise: Noise) -> dict[str, Any]:
    """`noise` as the keys of a diffusers scheduler's config."""
    told: dict[str, Any] = {"num_train_timesteps": noise.train_steps}
    if noise.prediction == "flow":
        return told
    told |= {} if noise.snr_shift is None else {"snr_shift_scale": noise.snr_shift}
    return told | {
        "beta_schedule": noise.beta_schedule,
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "trained_betas": None,
        "prediction_type": noise.prediction,
        "rescale_betas_zero_snr": noise.zero_terminal_snr,
        "use_flow_sigmas": False,
    }


def with_noise(config: Mapping[str, Any], noise: Noise) -> dict[str, Any]:
    """A scheduler's config with another noise schedule and everything else as it was."""
    return {**config, **noise_config(noise)}


def disagreement(config: Mapping[str, Any], noise: Noise) -> str | None:
    """How a scheduler's config contradicts `noise`, told as `key is this, the entry says that`; None where it does not.

    Betas are compared only where the schedule is made from them.
    """
    for key, said in noise_config(noise).items():
        found = config.get(key, said)
        if key.startswith("beta_") and noise.beta_schedule == "squaredcos_cap_v2" and key != "beta_schedule":
            continue
        if (found or None) != (said or None):
            return f"{key} is {found}, the entry says {said}"
    return None


def build(name: str, config: Any) -> Any:
    """The named diffusers scheduler with the noise schedule of `config`, a scheduler's config.

    Predictions are clipped to [-1, 1] where `config` asks for it alone: latents are wider, and some schedulers clip by
    default while the config of another kind does not tell of it.
    """
    import diffusers

    class_name, changes = SCHEDULERS[known(name)]
    kind = getattr(diffusers, class_name)
    if "clip_sample" in inspect.signature(kind.__init__).parameters:
        changes = changes | {"clip_sample": config.get("clip_sample", False)}
    # The same shift of the noise levels (Esser et al., 2024, section 5.3.2) has a name in each kind of scheduler.
    shift = config.get("flow_shift", config.get("shift"))
    if name in FLOW_SCHEDULERS and shift is not None:
        changes = changes | {"flow_shift" if "use_flow_sigmas" in changes else "shift": shift}
    return kind.from_config(config, **changes)
