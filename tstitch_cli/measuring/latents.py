"""The final latent of a trajectory, before it is decoded, and how far two of them are apart."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.trajectory import Batch, run


def final(family: Family, batch: Batch, allocation: Sequence[str] | str) -> torch.Tensor:
    """(B, C, ...) float64 on the host: what the scheduler's last step of `batch` came to.

    `allocation` is the denoiser of every evaluation, or one name for all. Raises what `trajectory.run` raises.
    """
    scheduler = family.pipeline.scheduler
    plain: Callable[..., Any] = scheduler.step
    last: list[torch.Tensor] = []

    @functools.wraps(plain)
    def step(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        last[:] = [result[0] if isinstance(result, tuple) else result.prev_sample]
        return result

    scheduler.step = step
    try:
        run(family, batch, allocation, HostClock(), strict=False)
    finally:
        del scheduler.step
    return last[0].detach().double().cpu()


def distance(one: torch.Tensor, other: torch.Tensor) -> npt.NDArray[np.float64]:
    """(B,): root of the mean squared difference of two batches of latents (B, C, ...), picture by picture.

    Latents are scaled by their autoencoder's factor, so that the unit is a standard deviation of theirs, as it is of
    the predicted loss.
    """
    apart: npt.NDArray[np.float64] = (one - other).flatten(1).square().mean(dim=1).sqrt().numpy()
    return apart
