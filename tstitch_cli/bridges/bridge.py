"""A denoiser in the place of another that differs from it: it is called as the host is and answers as the host would.

What lies between the two is linear in x and in the prediction (see `matching`), so that a call costs a few elementwise
operations; the numbers for a timestep are worked out when it is first shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from tstitch_cli.bridges.matching import Match, Step
from tstitch_cli.errors import UsageError

_PRIVATE_HOOKS = frozenset({"_hf_hook", "_old_forward", "_diffusers_hook", "_compiled_call_impl", "_orig_mod"})
"""State that other libraries hang on one module, and that must not be seen on the one around it."""
_POSITIONS = "image_rotary_emb"


@dataclass(frozen=True)
class Form:
    """How a denoiser is called and answers, besides noise."""

    time_unit: float = 1.0
    """A timestep of the schedule, times this, is what it is shown (Flux: 1/1000)."""
    learned_variance: bool = False
    """Its output has twice the channels."""
    guidance: str | None = None
    """The argument in which it takes the guidance scale, if it was distilled to take one."""
    rotary: bool = False
    """It is told where its tokens are by an argument (CogVideoX 5B), instead of adding that itself (2B)."""


@dataclass(frozen=True)
class Guidance:
    """What a guest that takes the guidance scale is given where the host does not take it."""

    value: Callable[[int], torch.Tensor]
    """The argument for a batch of a given size."""
    halves: bool
    """The batch holds the unconditional half, then the conditional one, which alone the guest needs."""


class Bridge(nn.Module):
    """Calls `denoiser`, the guest, with what the host is given, and answers in the host's form.

    Whatever else is asked of it, its config, class, dtype or methods, are the guest's.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        name: str,
        match: Match,
        *,
        host: Form = Form(),
        guest: Form = Form(),
        guidance: Guidance | None = None,
        arguments: Sequence[str] = (),
        timesteps: Callable[[], torch.Tensor | None] = lambda: None,
    ) -> None:
        """`arguments` are the names of the host's positional ones, the guest's own unless given.

        `timesteps` are the running scheduler's: a view into them, which is what most pipelines show, is read without
        waiting for the device.
        """
        super().__init__()
        self.denoiser = denoiser
        self.name, self.match, self.host, self.guest, self.guidance = name, match, host, guest, guidance
        self.strict = True
        """Whether a noise level that the guest does not know is refused; for timing alone it need not be."""
        self.embeddings: dict[str, Any] = {}
        """Arguments in place of the host's: the guest's own text embeddings, or what finds them by the host's."""
        own = list(inspect.signature(type(denoiser).forward).parameters)[1:]
        self._arguments, self._own, self._x = tuple(arguments) or tuple(own), frozenset(own), own[0]
        self._not_for_guest = {host.guidance} if host.guidance and host.guidance != guest.guidance else set()
        self._not_for_guest |= {_POSITIONS} if host.rotary and not guest.rotary else set()
        self._other_time = not match.same_levels or host.time_unit != guest.time_unit
        self._timesteps = timesteps
        self._seen: torch.Tensor | None = None
        self._values: list[float] = []
        self._steps: dict[float, Step] = {}
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The host's prediction for the host's arguments, worked out by the guest.

        Raises UsageError where the guest does not know the noise level, unless `strict` is off.
        """
        kwargs.update(zip(self._arguments, args, strict=False))
        for name, value in self.embeddings.items():
            if callable(value):
                kwargs[name] = value(kwargs[name])
            else:
                kwargs[name] = {**kwargs[name], **value} if isinstance(value, dict) else value
        x = kwargs.pop(self._arguments[0])
        for name in self._not_for_guest:
            kwargs.pop(name, None)
        kwargs = {name: value for name, value in kwargs.items() if value is not None or name in self._own}
        halves = self.guidance is not None and self.guidance.halves
        if halves:
            batch = len(x)
            x, kwargs = tree_map_only(torch.Tensor, lambda value: _second_half(value, batch), (x, kwargs))
        if self.guidance is not None and self.guest.guidance is not None:
            kwargs[self.guest.guidance] = self.guidance.value(len(x)).to(x)
        step = self._step(kwargs["timestep"])
        if self._other_time:
            kwargs["timestep"] = _like(kwargs["timestep"], step.timestep * self.guest.time_unit)
        kwargs[self._x] = x if step.x == 1.0 else x * step.x
        result = self.denoiser(**kwargs)
        answer = self._answer(result[0] if isinstance(result, tuple) else result.sample, x, step)
        if halves:
            answer = torch.cat([answer, answer])
        if isinstance(result, tuple):
            return (answer, *result[1:])
        result.sample = answer
        return result

    def _answer(self, predicted: torch.Tensor, x: torch.Tensor, step: Step) -> torch.Tensor:
        """The guest's prediction (B, C or 2 C, ...) as the host's, at the host's x (B, C, ...)."""
        variance = None
        if self.guest.learned_variance:
            predicted, variance = predicted.chunk(2, dim=1)
        if step.from_prediction != 1.0:
            predicted = predicted * step.from_prediction
        if step.from_x:
            predicted = predicted.add(x, alpha=step.from_x)
        if not self.host.learned_variance:
            return predicted
        # A guest without one says nothing of the variance: 0 is midway between its bounds (Nichol & Dhariwal, 2021).
        return torch.cat([predicted, torch.zeros_like(predicted) if variance is None else variance], dim=1)

    def _step(self, shown: Any) -> Step:
        value = self._value(shown)
        step = self._steps.get(value)
        if step is None:
            step = self._steps[value] = self.match.step(value)
        if self.strict and not step.known:
            raise UsageError(
                f"{self.name} does not know the noise at timestep {value:g}, which lies outside the schedule it was "
                "trained on",
                hint="give that step to another denoiser: plan again, or take another row",
            )
        return step

    def _value(self, shown: Any) -> float:
        """The timestep, in the host's training steps, that `shown` stands for; all of a batch stand at one."""
        if not isinstance(shown, torch.Tensor):
            return float(shown) / self.host.time_unit
        if shown.device.type != "cpu":
            # Reading a value would wait for all that the device has yet to do. Most pipelines show a view into the
            # scheduler's timesteps, of which it is enough to know the place.
            timesteps = self._timesteps()
            if timesteps is not None and timesteps.untyped_storage().data_ptr() == shown.untyped_storage().data_ptr():
                if timesteps is not self._seen:
                    self._seen, self._values = timesteps, timesteps.tolist()
                place = shown.storage_offset() - timesteps.storage_offset()
                if 0 <= place < len(self._values):
                    return self._values[place]
        first = shown if shown.dim() == 0 else shown[0]
        return float(first.item()) / self.host.time_unit

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the guest; what is done around it depends on the step and would be compiled again at each."""
        self.denoiser.compile(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _PRIVATE_HOOKS or name == "denoiser":
                raise
            return getattr(self.denoiser, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        denoiser = self.__dict__.get("_modules", {}).get("denoiser")
        return type(self) if denoiser is None else type(denoiser)


def _second_half(value: torch.Tensor, batch: int) -> torch.Tensor:
    return value[batch // 2 :] if value.dim() and len(value) == batch else value


def _like(shown: Any, value: float) -> Any:
    """`value` in the shape of `shown`: in single precision, for it need not be whole."""
    if isinstance(shown, torch.Tensor):
        return torch.full(shown.shape, value, dtype=torch.float32, device=shown.device)
    return value
