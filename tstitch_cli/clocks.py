"""Clocks that mark moments of a trajectory without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks moments now, tells the seconds between them later."""

    def mark(self) -> Any:
        """A moment on the device's own time line; never waits for the device."""

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Seconds between consecutive marks, len(marks) - 1 of them; waits until the device has reached the last."""


class HostClock:
    """The host's monotonic clock, for devices that work in step with it."""

    def mark(self) -> float:
        """Now, in seconds."""
        return time.perf_counter()

    def seconds(self, marks: Sequence[float]) -> list[float]:
        """Differences of the marks."""
        return [b - a for a, b in pairwise(marks)]


class EventClock:
    """Timing events recorded into the device's stream (CUDA, ROCm, MPS, XPU)."""

    def __init__(self, device: torch.device) -> None:
        self._module = torch.get_device_module(device)
        # Events go to the current device's stream unless another is made current; MPS has only one.
        self._current = self._module.device(device) if hasattr(self._module, "device") else nullcontext()

    def mark(self) -> Any:
        """An event at the end of what the device has been given so far."""
        event = self._module.Event(enable_timing=True)
        with self._current:
            event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Device time between the events."""
        with self._current:
            self._module.synchronize()
        return [a.elapsed_time(b) / 1000.0 for a, b in pairwise(marks)]


def clock_for(device: torch.device) -> Clock:
    """The clock that belongs to `device`."""
    return HostClock() if device.type == "cpu" else EventClock(device)
