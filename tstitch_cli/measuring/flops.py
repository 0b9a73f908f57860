"""Floating-point operations of one evaluation, counted without running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def last_arguments(denoiser: nn.Module) -> Iterator[dict[str, Any]]:
    """Keeps the arguments of `denoiser`'s last call, as {"args": ..., "kwargs": ...}."""
    kept: dict[str, Any] = {}
    if denoiser._compiled_call_impl is not None:
        # What is compiled while a hook hangs on it keeps the hook: this call is made uncompiled.
        with torch.compiler.set_stance("force_eager"):
            yield from _hooked(denoiser, kept)
    else:
        yield from _hooked(denoiser, kept)


def _hooked(denoiser: nn.Module, kept: dict[str, Any]) -> Iterator[dict[str, Any]]:
    hook = denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: kept.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    try:
        yield kept
    finally:
        hook.remove()


def count(denoiser: Any, arguments: dict[str, Any]) -> float | None:
    """FLOPs (two a multiply-accumulate) of `denoiser` called with `arguments`, from its config on the meta device.

    Counted there because on CPU tensors the counter does not see fused attention. None where the architecture
    cannot be run without data.
    """

    def to_meta(value: Any) -> Any:
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    try:
        with torch.device("meta"):
            twin = type(denoiser).from_config(denoiser.config).to(denoiser.dtype).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(*tree_map(to_meta, arguments["args"]), **tree_map(to_meta, arguments["kwargs"]))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
    return float(counter.get_total_flops())
