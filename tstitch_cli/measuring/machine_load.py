"""Reads how busy the machine is beside this process: processor time, throttling and, through NVML, the GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tstitch_cli.measuring.steadiness import GpuReading, Reading

Reader = Callable[[], Reading]
_BUSY = ("user", "nice", "system", "irq", "softirq")
_SLOWED = "cpu[0-9]*/thermal_throttle/core_throttle_count"
_CORES, _LIMIT = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup/cpu.stat")
_WAITS = Path("/proc/self/schedstat")


def reader_for(device: str) -> Reader:
    """What reads this machine, and the GPU where `device` is one of CUDA's and nvidia-ml-py is installed."""
    gpu = Nvml.of(device) if device.startswith("cuda") else None
    return lambda: read(gpu.read() if gpu else None)


def read(gpu: GpuReading | None = None) -> Reading:
    """The machine now."""
    times = psutil.cpu_times(percpu=True)
    allowed = _allowed()
    ours = [each for core, each in enumerate(times) if core in allowed] or times
    own = os.times()
    return Reading(
        at_s=time.monotonic(),
        busy_s=sum(getattr(core, part, 0.0) for core in ours for part in _BUSY),
        own_s=own.user + own.system + own.children_user + own.children_system,
        stolen_s=sum(getattr(core, "steal", 0.0) for core in ours),
        cores=len(ours),
        slowed=sum(_number(path.read_text) for path in _CORES.glob(_SLOWED)),
        held_back_s=_held_back_s(),
        waited_s=_waited_s(),
        gpu=gpu,
    )


def _allowed() -> frozenset[int]:
    """Numbers of the cores that this process may use; none where the system does not tell."""
    with suppress(AttributeError, OSError):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


def _held_back_s() -> float:
    """Seconds that Linux's control group has throttled this container, 0 where there is no limit."""
    with suppress(OSError, ValueError):
        for line in _LIMIT.read_text().splitlines():
            if line.startswith("throttled_usec "):
                return int(line.split()[1]) / 1e6
    return 0.0


def _waited_s() -> float:
    """Seconds that Linux's scheduler let the main thread wait for a core, 0 where it does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(_WAITS.read_text().split()[1]) / 1e9
    return 0.0


def _number(text: Callable[[], str]) -> int:
    with suppress(OSError, ValueError):
        return int(text())
    return 0


class Nvml:
    """One GPU as NVIDIA's management library sees it."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        self._seen = 0
        causes = ((0x20, "heat"), (0x40, "heat"), (0x80, "power"), (0x08, "heat or power"))
        self._causes = causes  # nvmlClocksThrottleReason: SwThermal, HwThermal, HwPowerBrake, HwSlowdown

    @classmethod
    def of(cls, device: str) -> Nvml | None:
        """The GPU that torch calls `device`; None where nvidia-ml-py or the driver's library is not there."""
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(torch.device(device)).uuid}"
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
        except Exception:  # whatever a driver's library answers, measuring goes on without it
            return None

    def read(self) -> GpuReading | None:
        """The GPU now; None where the library does not answer."""
        try:
            running = {each.pid for each in self._library.nvmlDeviceGetComputeRunningProcesses(self._handle)}
            mask = self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except self._library.NVMLError:
            return None
        slowed = next((cause for bit, cause in self._causes if mask & bit), None)
        # In a container the numbers are the host's, and this process is one of those that are not known by number.
        others = len(running) - 1 if running else 0
        return GpuReading(others, self._others_use(), slowed)

    def _others_use(self) -> float | None:
        """Share of the multiprocessors' time that others have had since this was asked last."""
        try:
            samples = self._library.nvmlDeviceGetProcessUtilization(self._handle, self._seen)
        except self._library.NVMLError_NotFound:
            return 0.0  # nothing ran since
        except self._library.NVMLError:
            return None
        self._seen = max([self._seen, *(sample.timeStamp for sample in samples)])
        used: dict[int, float] = {}
        for sample in samples:
            used[sample.pid] = max(used.get(sample.pid, 0.0), sample.smUtil / 100)
        # Where this process is not known by its number, it is the busiest: it is measuring.
        own = os.getpid() if os.getpid() in used else max(used, key=lambda pid: used[pid], default=None)
        return sum(use for pid, use in used.items() if pid != own)
