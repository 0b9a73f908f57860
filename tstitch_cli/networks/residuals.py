"""Hands denoisers with fewer blocks what a ControlNet adds to the blocks that they kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.zoo import controls
from tstitch_cli.zoo.encoders import Kept, encoder_of

_MAPS, _MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"
_BLOCKS = ("num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim", "n_layers", "dim")
"""By which transformers of diffusers tell how many blocks they have, and how wide."""


def kept_by_each(net: Any, denoisers: Mapping[str, nn.Module], control: str = "of the pipeline") -> dict[str, Kept]:
    """What each of `denoisers` has of the way down that `net`, a pipeline's ControlNet or several, adds to.

    Those that have all of it are left out: they take the pipeline's arguments as they are. To which blocks of another
    transformer a ControlNet of one would add is not known, so those have to be alike. `control` names the ControlNet.

    Raises UsageError where the ControlNet does not fit a denoiser.
    """
    configs: dict[str, Any] = {name: getattr(denoiser, "config", {}) for name, denoiser in denoisers.items()}
    found: dict[str, Kept] = {}
    for one in getattr(net, "nets", [net]):
        theirs = getattr(one, "config", {})
        if "block_out_channels" not in theirs:
            _alike(type(one).__name__, configs)
            continue
        encoder = encoder_of(theirs)
        for name, config in configs.items():
            kept = controls.fit(control, encoder, name, config)
            if found.setdefault(name, kept) != kept:
                raise UsageError(
                    "the pipeline's ControlNets were trained on denoisers with different blocks",
                    hint="their contributions are added up, so all have to be of one denoiser",
                )
    return {name: kept for name, kept in found.items() if not kept.whole}


def left(kept: Kept, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments `given` of a call without those residuals of a ControlNet that are not for the denoiser."""
    maps, middle = given.get(_MAPS), given.get(_MIDDLE)
    if maps is None or middle is None:
        return given
    # Nothing is not None: without a residual of the middle, diffusers takes the others for an adapter's.
    middle = middle if kept.middle else middle.new_zeros(())
    return given | {_MAPS: tuple(maps[place] for place in kept.maps), _MIDDLE: middle}


def _alike(net: str, configs: Mapping[str, Any]) -> None:
    host, first = next(iter(configs.items()))
    for name, config in configs.items():
        for key in _BLOCKS:
            if (own := config.get(key)) != (other := first.get(key)):
                raise UsageError(
                    f"{host} and {name} have different blocks ({key} {other} and {own}), and which of a {net}'s "
                    "contributions are for which is not known",
                    hint="leave the ControlNet out, or stitch denoisers that are built alike",
                )
