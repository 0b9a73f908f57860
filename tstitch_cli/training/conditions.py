"""What a denoiser is told of each picture, besides x and the timestep: found by asking its own pipeline.

The pipeline is called with the caption and stopped where it first calls the denoiser: whatever it passes then, text
embeddings, pooled ones, sizes, position numbers or a class label, is what the denoiser is trained with, so that nothing
here need know which pipeline passes what.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry, class_numbers

KEPT = 1024
"""Captions whose conditions are kept in memory; of more than these, the ones used last."""


class _AskedError(Exception):
    """Ends the pipeline's call where the denoiser would be called."""


@dataclass(frozen=True)
class Asked:
    """A call that a pipeline was about to make, of its first evaluation."""

    x: torch.Tensor
    """(1 or 2, C, h, w), or packed as the pipeline packs it."""
    arguments: dict[str, Any]
    """All other arguments but the timestep."""
    timesteps: tuple[float, ...]
    """The scheduler's, of every evaluation of the trajectory that would follow."""


class Interview:
    """Asks the pipeline of one denoiser how it would call it in a setting."""

    def __init__(self, entry: Entry, pipeline: Any, denoiser: nn.Module, setting: Setting) -> None:
        self.entry, self.pipeline, self.denoiser, self.setting = entry, pipeline, denoiser, setting
        self._names = list(inspect.signature(type(denoiser).forward).parameters)[1:]
        self.of_classes = entry.conditioning.kind == "class"
        self.takes_guidance = entry.conditioning.guidance_embedding

    @property
    def x_name(self) -> str:
        """What the denoiser calls its x."""
        return self._names[0]

    def ask(self, caption: str) -> Asked:
        """How the denoiser is called for `caption`, without guidance unless that is an input of it.

        Raises UsageError where the caption is no class of a class-conditional denoiser.
        """
        told = {"class_labels": class_numbers(self.entry, [caption])} if self.of_classes else {"prompt": [caption]}
        return self._call(told, self.setting.guidance if self.takes_guidance else 1.0)

    def ask_for_nothing(self) -> Asked:
        """How the denoiser is called for the half of guidance that knows nothing of the picture."""
        if self.of_classes:
            return self._call({"class_labels": [len(self.entry.conditioning.labels)]}, 1.0)
        if self.takes_guidance:
            return self.ask("")
        both = self._call({"prompt": [""]}, 2.0)
        # Where guidance is one call, its first half is the one that knows nothing.
        return Asked(both.x[:1], _map(both.arguments, lambda t: t[:1] if len(t) == 2 else t), both.timesteps)

    def _call(self, told: dict[str, Any], guidance: float) -> Asked:
        seen: dict[str, Any] = {}

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.update(dict(zip(self._names, args, strict=False)) | kwargs)
            raise _AskedError

        given = told | {
            "num_inference_steps": self.setting.steps,
            "guidance_scale": guidance,
            "height": self.setting.size,
            "width": self.setting.size,
            "generator": torch.Generator("cpu").manual_seed(0),
        }
        accepted = inspect.signature(self.pipeline.__call__).parameters
        handle = self.denoiser.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.pipeline(**{name: value for name, value in given.items() if name in accepted})
        except _AskedError:
            pass
        finally:
            handle.remove()
        x = seen.pop(self.x_name)
        left = {name: value for name, value in seen.items() if name not in ("timestep", "return_dict")}
        return Asked(x, left, tuple(float(t) for t in self.pipeline.scheduler.timesteps))


class Conditions:
    """The arguments that tell a denoiser what each picture of a data set shows."""

    def __init__(self, interview: Interview, captions: Sequence[str]) -> None:
        """Raises UsageError where a caption is no class of a class-conditional denoiser."""
        self.captions = captions
        if interview.of_classes:
            class_numbers(interview.entry, list(dict.fromkeys(captions)))
        self._of = lru_cache(KEPT)(lambda caption: interview.ask(caption).arguments)
        self._nothing = interview.ask_for_nothing().arguments
        self.drops = not interview.takes_guidance
        """Whether captions are to be dropped, which a denoiser that was distilled from guidance has no use for."""

    def of(self, indices: torch.Tensor, dropped: torch.Tensor) -> dict[str, Any]:
        """The arguments for the pictures at `indices` (B,); those that are `dropped` (B,) are not told."""
        chosen = [
            self._nothing if drop and self.drops else self._of(self.captions[index])
            for index, drop in zip(indices.tolist(), dropped.tolist(), strict=True)
        ]
        return _together(chosen)


def _together(each: list[Any]) -> Any:
    """The arguments of single calls as those of one: what has an entry for the picture is joined, the rest shared."""
    first = each[0]
    if isinstance(first, dict):
        return {name: _together([one[name] for one in each]) for name in first}
    if isinstance(first, list | tuple):
        return type(first)(_together(list(inner)) for inner in zip(*each, strict=True))
    if isinstance(first, torch.Tensor) and first.dim() and len(first) == 1:
        return torch.cat(each)
    return first


def _map(arguments: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    return tree_map(
        lambda value: change(value) if isinstance(value, torch.Tensor) and value.dim() else value, arguments
    )
