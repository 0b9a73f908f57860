"""The noise levels that a diffusers scheduler passes through: alpha and sigma of x_t = alpha x_0 + sigma noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tstitch_cli.errors import UsageError

Levels = npt.NDArray[np.float64]


def of_trajectory(scheduler: Any) -> Levels:
    """(E + 1, 2): alpha and sigma at each of the E evaluations of a scheduler after `set_timesteps`, and at the end.

    Sigmas of diffusion samplers are ratios sigma / alpha and are told in the variance-preserving form; those of flow
    matching are s in x_t = (1 - s) x_0 + s noise. Raises UsageError for a scheduler that has neither sigmas nor betas.
    """
    timesteps = np.asarray([float(t) for t in scheduler.timesteps])
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) >= len(timesteps):
        found = np.asarray([float(s) for s in sigmas])[: len(timesteps) + 1]
        if len(found) == len(timesteps):
            found = np.append(found, 0.0)
        if is_flow(scheduler):
            return np.stack([1.0 - found, found], axis=1)
        alpha = 1.0 / np.sqrt(1.0 + found**2)
        return np.stack([alpha, found * alpha], axis=1)
    if is_trigflow(scheduler):
        return np.stack([np.cos(timesteps), np.sin(timesteps)], axis=1)  # whose last timestep, 0, is the end
    products = getattr(scheduler, "alphas_cumprod", None)
    if products is None:
        raise UsageError(
            f"{type(scheduler).__name__} does not tell its noise levels", hint="choose another --scheduler"
        )
    table = np.asarray([float(a) for a in products])
    last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    squared = np.append(np.interp(timesteps, np.arange(len(table)), table), last)
    return np.stack([np.sqrt(squared), np.sqrt(1.0 - squared)], axis=1)


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler runs a flow, x_t = (1 - s) x_0 + s noise."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or config.get("use_flow_sigmas") is True
        or config.get("prediction_type") == "flow_prediction"
    )


def is_trigflow(scheduler: Any) -> bool:
    """Whether the scheduler counts in angles, x_t = cos(t) x_0 + sin(t) noise (Lu & Song, 2024, section 3)."""
    return scheduler.config.get("prediction_type") == "trigflow"
