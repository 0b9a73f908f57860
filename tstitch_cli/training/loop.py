"""The one training loop: resumable at any batch, with an averaged model, progress and a record."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW with linear warm-up, the full rate, then a cosine to zero; EMA of the weights."""

    batches: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.9995
    hold: float = 0.0
    """Share of the batches after which the cosine begins; until then a run can be lengthened without harm."""

    def rate(self, batch: int) -> float:
        """Learning rate at `batch` (0-based)."""
        if batch < self.warmup:
            return self.learning_rate * (batch + 1) / self.warmup
        begin = max(self.warmup, round(self.hold * self.batches))
        done = (batch - begin) / max(1, self.batches - begin)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, done))))

    def ema(self, batch: int) -> float:
        """Decay of the averaged weights at `batch`: short memory first, so that the start is forgotten."""
        return min(self.ema_decay, (1 + batch) / (10 + batch))


class Recipe(Protocol):
    """One thing to train: a model, its schedule and its loss."""

    name: str
    schedule: Schedule
    examples: int

    @property
    def model(self) -> nn.Module:
        """What is trained, in place."""

    def compile(self) -> None:
        """Runs the model in `loss` through torch.compile from now on."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Mean loss of the examples at `indices` (B,); every random number comes from `draw`."""


@dataclass(frozen=True)
class Record:
    """What is kept beside the weights about how they came to be."""

    name: str
    parameters: int
    schedule: dict[str, Any]
    seconds: float
    final_loss: float
    losses: list[float]


Progress = Callable[[int, int, float], None]
"""Called as (batches done, batches in all, running loss)."""


def train(
    recipe: Recipe,
    checkpoint: Path,
    *,
    seed: int = 0,
    fast: bool = False,
    progress: Progress = lambda done, total, loss: None,
    basis: str = "",
) -> tuple[nn.Module, Record]:
    """Trains `recipe.model`, going on from `checkpoint` where it exists, and returns the averaged model.

    Batch i is drawn from (seed, i) alone, so a run that was cut and resumed sees the same batches as one that
    was not. `fast` is bfloat16 autocast. `basis` tells all else that the training rests on: a checkpoint of another one
    is not gone on from.
    """
    plan = recipe.schedule
    model, averaged = recipe.model, deepcopy(recipe.model).requires_grad_(False)
    device = next(model.parameters()).device.type
    optimizer = torch.optim.AdamW(
        model.parameters(), plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, fused=True
    )
    state = _load(checkpoint, basis, model, averaged, optimizer)
    done, seconds, losses = state["done"], state["seconds"], state["losses"]
    running = losses[-1] if losses else float("nan")
    started = saved = time.monotonic()

    def save() -> None:
        now = time.monotonic()
        _save(
            checkpoint,
            {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "done": done,
                "seconds": seconds + now - started,
                "losses": losses,
                "basis": basis,
            },
        )

    with _attention_for_short_sequences() if device == "cpu" else nullcontext():
        while done < plan.batches:
            indices, draw = _begun(plan, recipe.examples, seed, done)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(done)
            with torch.autocast(device, torch.bfloat16, enabled=fast):
                loss = recipe.loss(indices, draw)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _average(averaged, model, plan.ema(done))
            value = loss.item()
            running = value if math.isnan(running) else 0.99 * running + 0.01 * value
            done += 1
            if done % max(1, plan.batches // 100) == 0:
                losses.append(round(running, 5))
            progress(done, plan.batches, running)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
    save()
    record = Record(
        name=recipe.name,
        parameters=sum(p.numel() for p in model.parameters()),
        schedule=asdict(plan),
        seconds=round(seconds + time.monotonic() - started, 1),
        final_loss=losses[-1],
        losses=losses,
    )
    return averaged.eval(), record


def examples_drawn(schedule: Schedule, examples: int, seed: int) -> torch.Tensor:
    """(D,) int64, ascending: which of `examples` the batches of `train` draw, each once."""
    seen = torch.zeros(examples, dtype=torch.bool)
    for batch in range(schedule.batches):
        seen[_begun(schedule, examples, seed, batch)[0]] = True
    return seen.nonzero()[:, 0]


def _begun(schedule: Schedule, examples: int, seed: int, batch: int) -> tuple[torch.Tensor, torch.Generator]:
    """The examples (B,) of a batch, and what draws all else that is random in it."""
    draw = torch.Generator().manual_seed((seed << 32) + batch)
    return torch.randint(examples, (schedule.batch_size,), generator=draw), draw


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """EMA step: averaged = decay x averaged + (1 - decay) x model; buffers are copied."""
    targets: list[torch.Tensor] = list(averaged.parameters())
    sources: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(targets, sources, 1.0 - decay)
    for target, source in zip(averaged.buffers(), model.buffers(), strict=True):
        target.copy_(source)


def _load(
    path: Path, basis: str, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
    if state.get("basis") != basis:
        return {"done": 0, "seconds": 0.0, "losses": []}
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def _save(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: a killed run leaves the previous checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


@contextmanager
def _attention_for_short_sequences() -> Iterator[None]:
    """Plain attention: over 16 tokens the fused CPU kernel's backward pass takes a third of the whole step."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
