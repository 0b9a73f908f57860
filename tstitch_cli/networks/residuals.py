"""Hands a U-Net with blocks removed what a ControlNet adds to the blocks that it kept."""

from __future__ import annotations

from typing import Any

from torch import nn

from tstitch_cli.zoo.encoders import Kept


def leave_out(denoiser: nn.Module, kept: Kept) -> None:
    """From now on `denoiser` leaves out, of a ControlNet's residuals, what is not for it; the others pass unchanged.

    It hangs on the denoiser itself, so that it holds whoever calls it: the pipeline, a bridge or a measurement.
    """
    if kept.whole:
        return

    def choose(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        maps, middle = given.get("down_block_additional_residuals"), given.get("mid_block_additional_residual")
        if maps is None or middle is None:
            return None
        # Nothing is not None: without a residual of the middle, diffusers takes the others for an adapter's.
        middle = middle if kept.middle else middle.new_zeros(())
        chosen = {"down_block_additional_residuals": tuple(maps[i] for i in kept.maps)}
        return args, given | chosen | {"mid_block_additional_residual": middle}

    denoiser.register_forward_pre_hook(choose, with_kwargs=True)
