"""What a measurement holds for: this machine, these versions, these weights; and how another one differs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import diffusers
import torch

from tstitch_cli.errors import StaleError
from tstitch_cli.schema import Fingerprint


def take(device: torch.device, weights: Mapping[str, str]) -> Fingerprint:
    """The fingerprint of this machine and of `weights`, denoiser name -> digest."""
    return Fingerprint(
        device=device_name(device),
        driver=driver(device),
        torch=str(torch.__version__),
        diffusers=str(diffusers.__version__),
        threads=torch.get_num_threads(),
        weights=dict(weights),
    )


def require_same(measured: Fingerprint | None, here: Fingerprint, what: str, *, to_draw: bool = True) -> None:
    """Raises StaleError naming everything in which `here` differs from where `what` was measured.

    So it does where it was measured with random weights, unless nothing is `to_draw`.
    """
    if measured is None:
        raise StaleError(
            f"{what} was not measured on this machine but made from given times",
            hint="measure with `tstitch profile` and plan again, or add --allow-stale to go on all the same",
        )
    if to_draw:
        refuse_random(measured, what)
    differences = [
        f"{name} was {then}, is {now}"
        for name in ("device", "driver", "torch", "diffusers", "threads")
        if (then := getattr(measured, name)) != (now := getattr(here, name))
    ]
    differences += _other_weights(measured.weights, here.weights)
    if differences:
        raise StaleError(
            f"{what} does not hold here: " + "; ".join(differences),
            hint="run `tstitch profile` and `tstitch plan` again, or add --allow-stale to go on all the same",
        )


def refuse_random(measured: Fingerprint | None, what: str) -> None:
    """Raises StaleError where `what` was measured with random weights, so that there is nothing to draw with."""
    if measured is not None and measured.random:
        raise StaleError(
            f"{what} was measured with random weights: it tells how long calls take and has nothing to draw with",
            hint="profile without --random-weights and plan again, or add --allow-stale to draw with the real weights",
        )


def require_same_weights(then: Mapping[str, str], now: Mapping[str, str], what: str) -> None:
    """Raises StaleError where `what` was made with other weights, so that it cannot be made again."""
    if differences := _other_weights(then, now):
        raise StaleError(
            f"{what} cannot be drawn again: " + "; ".join(differences),
            hint="add --allow-stale to draw it with the weights that are here",
        )


def _other_weights(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"weights of {name} were {then.get(name, 'unknown')}, are {digest}"
        for name, digest in now.items()
        if then.get(name) != digest
    ]


def versions() -> dict[str, str]:
    """The versions that decide a picture's last bits."""
    return {"torch": str(torch.__version__), "diffusers": str(diffusers.__version__)}


def other_versions(then: Mapping[str, str]) -> list[str]:
    """Which of `versions` are others than `then`, in words; nothing of those that are not known."""
    return [f"{name} was {then[name]}, is {now}" for name, now in versions().items() if then.get(name, now) != now]


def device_name(device: torch.device) -> str:
    """The processor's own name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "xpu":
        return str(torch.xpu.get_device_name(device))
    name = _linux_processor() or platform.processor() or platform.machine()
    return f"{name} (MPS)" if device.type == "mps" else name


def driver(device: torch.device) -> str:
    """What the device is driven by: CUDA or ROCm with its version, else the system."""
    if device.type == "cuda":
        return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"{platform.system()} {platform.machine()}"


def _linux_processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
