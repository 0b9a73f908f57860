"""Peak memory of a stretch of work, on the device where it has its own memory, else of the process."""

from __future__ import annotations

from pathlib import Path

import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Resets the peak when made, tells it when asked."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            try:
                _CLEAR_REFS.write_text("5")  # Linux: forget the high-water mark of the resident set
            except OSError:
                self._known = False

    def bytes(self) -> int | None:
        """Peak since made, in bytes; None where the system does not tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if not self._known:
            return None
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None
