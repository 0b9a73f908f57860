"""Parts that wait in host memory and are on the device in their turn: text encoders, each denoiser, the autoencoder.

Weights are only read, so the copy in host memory stays and leaving the device is free; coming in is one copy, made
where the part is called. A denoiser's transfer thus lies in the evaluation at which it takes over, where the profile
measures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import nn

from tstitch_cli.stitching import StitchedDenoiser


class Mover(Protocol):
    """What moves a part's weights."""

    device: torch.device
    """Where parts run."""

    def bring(self, part: nn.Module) -> None:
        """Moves `part` onto the device."""

    def release(self, part: nn.Module) -> None:
        """Frees the device's memory of `part`."""


class Transfers:
    """Moves weights between host memory, pinned where the device is CUDA's or ROCm's, and the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._host: dict[int, torch.Tensor] = {}

    def bring(self, part: nn.Module) -> None:
        """Copies what waits in host memory, in the order of the device's own work and without waiting for it."""
        # Weights made in inference mode could never be used outside of it again.
        with torch.inference_mode(False):
            for tensor in _tensors(part):
                if id(tensor) not in self._host:
                    self._host[id(tensor)] = self._waiting(tensor.data)
                tensor.data = self._host[id(tensor)].to(self.device, non_blocking=True, copy=True)

    def release(self, part: nn.Module) -> None:
        """Lets the copies on the device go."""
        with torch.inference_mode(False):
            for tensor in _tensors(part):
                tensor.data = self._host[id(tensor)]

    def _waiting(self, data: torch.Tensor) -> torch.Tensor:
        return data.cpu().pin_memory() if self.device.type == "cuda" else data.cpu()


class Turns:
    """Which parts are on the device now."""

    def __init__(self, mover: Mover) -> None:
        self._mover, self.device = mover, mover.device
        self._here: list[nn.Module] = []

    def enter(self, part: nn.Module, beside: Sequence[nn.Module] = ()) -> None:
        """It is the turn of `part`: what is neither it nor `beside` it leaves first."""
        stay = {id(part), *map(id, beside)}
        for other in self._here:
            if id(other) not in stay:
                self._mover.release(other)
        self._here = [other for other in self._here if id(other) in stay]
        if all(other is not part for other in self._here):
            self._mover.bring(part)
            self._here.append(part)


class _Turn(ModelHook):
    """Before its module runs it is the module's turn; diffusers finds the device to run on here."""

    def __init__(self, turns: Turns, device: torch.device, beside: Sequence[nn.Module]) -> None:
        self.execution_device = device
        self._turns, self._beside = turns, beside

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Brings `module` in, and its arguments with it."""
        self._turns.enter(module, self._beside)
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)


class _Elsewhere(ModelHook):
    """On the stitched denoiser, whose denoisers have turns of their own."""

    def __init__(self, device: torch.device) -> None:
        self.execution_device = device


def install(pipeline: Any, stitched: StitchedDenoiser, denoisers: Mapping[str, nn.Module], mover: Mover) -> Turns:
    """Gives every part of `pipeline` and every one of `denoisers` its turn on the device of `mover`.

    A part that the pipeline's own order of turns (model_cpu_offload_seq) leaves out runs between the denoisers'
    evaluations, as a ControlNet does, and stays beside them.
    """
    turns = Turns(mover)
    order = (getattr(pipeline, "model_cpu_offload_seq", None) or "").split("->")
    parts = {n: part for n, part in pipeline.components.items() if isinstance(part, nn.Module) and part is not stitched}
    beside = [part for name, part in parts.items() if name not in order]
    together = [*denoisers.values(), *beside]
    for name, part in parts.items():
        add_hook_to_module(part, _Turn(turns, mover.device, () if name in order else together))
    add_hook_to_module(stitched, _Elsewhere(mover.device))
    stitched.entering.append(lambda name: turns.enter(denoisers[name], beside))
    return turns


def join(turns: Turns, other: Any) -> None:
    """Gives every part of another pipeline, such as the text encoders of a denoiser of its own, its turn as well."""
    for part in other.components.values():
        if isinstance(part, nn.Module):
            add_hook_to_module(part, _Turn(turns, turns.device, ()))


def _tensors(part: nn.Module) -> Iterator[torch.Tensor]:
    return chain(part.parameters(), part.buffers())
