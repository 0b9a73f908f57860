"""Puts accelerations into the denoisers of a stitched one, and starts their caches anew at every switch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.savings.accelerations import ACCELERATIONS, options, unsupported
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import StitchedDenoiser

Reset = Callable[[], None]
TOME_SEED = 0
"""Of the choice of tokens to merge into, so that a picture is the same whenever it is drawn."""
_BLOCKS = ("transformer_blocks", "single_transformer_blocks", "visual_transformer_blocks", "blocks")


def accelerate(stitched: StitchedDenoiser, denoisers: Mapping[str, nn.Module], setting: Setting) -> None:
    """Applies the setting's accelerations to every one of `denoisers`, which `stitched` calls.

    Whenever a denoiser takes over, the first of a trajectory included, all caches are emptied: its first evaluation
    is a full one, and the one that left holds no memory.

    Raises:
        UsageError: a denoiser is of a class that an acceleration does not know, or too small for it.
    """
    resets: list[Reset] = []
    # Merging replaces the blocks' class, so it comes before what wraps single blocks.
    for spec in sorted(setting.accelerate, key=lambda spec: ACCELERATIONS[options(spec)[0]].cache):
        name, given = options(spec)
        for called, denoiser in denoisers.items():
            if (model := type(denoiser).__name__) not in ACCELERATIONS[name].classes:
                raise unsupported(name, called, model)
            resets.append(_APPLY[name](denoiser, given, stitched))

    def start_anew(name: str) -> None:
        for reset in resets:
            reset()

    if resets:
        stitched.entering.append(start_anew)


class _NoMiddle(nn.Module):
    """In the place of a middle block that a U-Net does not have: what comes in goes out."""

    def forward(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns `sample` (B, C, h, w)."""
        return sample


def _deepcache(unet: Any, given: Mapping[str, float], stitched: StitchedDenoiser) -> Reset:
    from DeepCache import DeepCacheSDHelper

    if unet.mid_block is None:
        unet.mid_block = _NoMiddle()  # DeepCache wraps a middle block, whether there is one or not
    helper = DeepCacheSDHelper(pipe=SimpleNamespace(unet=unet))
    # It would look the timestep up in the scheduler's list, where PNDM and Heun have some twice; the evaluation is
    # known here.
    helper.wrap_unet_forward = lambda: None
    helper.set_params(cache_interval=int(given["interval"]), cache_branch_id=int(given["branch"]))
    helper.enable()

    def tell(module: nn.Module, args: Any) -> None:
        helper.cur_timestep = stitched.clock.evaluation

    def reset() -> None:
        helper.start_timestep, helper.cached_output = None, {}

    unet.register_forward_pre_hook(tell)
    return reset


def _tome(denoiser: Any, given: Mapping[str, float], stitched: StitchedDenoiser) -> Reset:
    import tomesd

    # A transformer's tokens are patches, which counts as downsampling by their side.
    tomesd.apply_patch(denoiser, ratio=given["ratio"], max_downsample=getattr(denoiser.config, "patch_size", None) or 1)

    def reset() -> None:
        # It would fork torch's global generator, whose state is anybody's.
        device = next(denoiser.parameters()).device
        kind = device if device.type in ("cpu", "cuda") else torch.device("cpu")
        denoiser._tome_info["args"]["generator"] = torch.Generator(kind).manual_seed(TOME_SEED)

    return reset


def _fbcache(transformer: Any, given: Mapping[str, float], stitched: StitchedDenoiser) -> Reset:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    count = sum(len(getattr(transformer, name, ())) for name in _BLOCKS)
    if count < 2:
        raise UsageError(
            f"--accelerate fbcache needs two blocks or more, a {type(transformer).__name__} here has {count}",
            hint="leave --accelerate out",
        )
    apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold=given["threshold"]))
    return _hooked(transformer, stitched)


def _taylorseer(transformer: Any, given: Mapping[str, float], stitched: StitchedDenoiser) -> Reset:
    from diffusers.hooks import TaylorSeerCacheConfig, apply_taylorseer_cache

    apply_taylorseer_cache(
        transformer,
        TaylorSeerCacheConfig(
            cache_interval=int(given["interval"]),
            disable_cache_before_step=int(given["warm"]),
            max_order=int(given["order"]),
            taylor_factors_dtype=transformer.dtype,
            cache_identifiers=[rf"{name}\.\d+" for name in _BLOCKS],
        ),
    )
    return _hooked(transformer, stitched)


def _pab(transformer: Any, given: Mapping[str, float], stitched: StitchedDenoiser) -> Reset:
    from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
    from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastHook as Hook
    from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastState as State

    kept: dict[str, list[State]] = {}
    place = 0

    # What diffusers takes for timesteps are evaluations here, counted from the switch: the rhythm begins with them.
    interval, late = int(given["interval"]), (int(given["warm"]) - 1, sys.maxsize)
    apply_pyramid_attention_broadcast(
        transformer,
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=interval,
            cross_attention_block_skip_range=interval,
            spatial_attention_timestep_skip_range=late,
            cross_attention_timestep_skip_range=late,
            current_timestep_callback=lambda: place,
        ),
    )
    registries = (getattr(module, "_diffusers_hook", None) for module in transformer.modules())
    hooks = [hook for each in registries if each for hook in each.hooks.values() if isinstance(hook, Hook)]

    def enter(module: nn.Module, args: Any) -> None:
        # diffusers keeps one output an attention; with calls of their own for prompt and guidance, the one would be
        # given the other's.
        nonlocal place
        states = kept.setdefault(stitched.part, [State() for _ in hooks])
        place = states[0].iteration
        for hook, state in zip(hooks, states, strict=True):
            hook.state = state

    def reset() -> None:
        kept.clear()
        for hook in hooks:
            hook.state = State()

    transformer.register_forward_pre_hook(enter)
    return reset


def _hooked(transformer: Any, stitched: StitchedDenoiser) -> Reset:
    """Runs a denoiser in a cache context for each part of guidance, whether or not its class knows of contexts."""
    from diffusers import CacheMixin
    from diffusers.hooks import HookRegistry

    plain = transformer.forward

    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with CacheMixin.cache_context(transformer, stitched.part):
            return plain(*args, **kwargs)

    transformer.forward = forward
    return HookRegistry.check_if_exists_or_initialize(transformer).reset_stateful_hooks


_APPLY: dict[str, Callable[[Any, Mapping[str, float], StitchedDenoiser], Reset]] = {
    "deepcache": _deepcache,
    "tome": _tome,
    "fbcache": _fbcache,
    "taylorseer": _taylorseer,
    "pab": _pab,
}
