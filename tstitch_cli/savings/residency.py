"""Whether all parts of a family stay on the device or take turns there: `--offload`, `--vram`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tstitch_cli.errors import DeviceError, UsageError
from tstitch_cli.quantities import shown_bytes
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.entry import Entry

if TYPE_CHECKING:
    from tstitch_cli.denoisers import Family

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_HINT = "give smaller denoisers, --dtype float16, a smaller --batch-size or --size, or more --vram"


def check(setting: Setting, vram_bytes: int | None = None) -> None:
    """Raises UsageError where parts cannot take turns, or there is no way to hold memory against `vram_bytes`."""
    kind = setting.device.partition(":")[0]
    if kind == "cpu" and (setting.offload or vram_bytes is not None):
        asked = "--offload" if setting.offload else "--vram"
        raise UsageError(
            f"{asked} means nothing on the CPU, where every part is in host memory already", hint="leave it out"
        )
    if kind != "cuda" and vram_bytes is not None:
        raise UsageError(f"--vram cannot be held: torch does not count the memory of {kind}", hint="give --offload")


def before_loading(entries: Sequence[Entry], setting: Setting, limit_bytes: int) -> Setting:
    """`setting`, offloaded where the denoisers' weights alone are more than `limit_bytes`.

    Raises:
        DeviceError: not even the largest denoiser's weights fit.
        UsageError: they do not fit together, and cannot take turns.
    """
    weights = [entry.parameters * _ITEM_BYTES[setting.dtype] for entry in entries if entry.parameters is not None]
    if weights and max(weights) > limit_bytes:
        largest = max(entries, key=lambda entry: entry.parameters or 0)
        raise DeviceError(
            f"the weights of {largest.name} alone take {shown_bytes(max(weights))} in {setting.dtype}, "
            f"--vram is {shown_bytes(limit_bytes)}",
            hint=_HINT,
        )
    held = replace(setting, offload=setting.offload or sum(weights) > limit_bytes)
    check(held, limit_bytes)
    return held


def load_within(
    entries: Sequence[Entry],
    setting: Setting,
    limit_bytes: int,
    load: Callable[[Sequence[Entry], Setting], Family],
    peak_of: Callable[[Family], int],
) -> tuple[Family, int]:
    """Loads a family that stays within `limit_bytes`: resident where it does, else offloaded; with its peak in bytes.

    `peak_of` draws with a family and tells the device's peak.

    Raises:
        DeviceError: one part in its turn, with what it computes, is already more.
    """
    if not setting.offload:
        with suppress(DeviceError):
            family = load(entries, setting)
            if (peak := peak_of(family)) <= limit_bytes:
                return family, peak
            del family  # the device must be empty before the other way is tried
    family = load(entries, replace(setting, offload=True))
    if (peak := peak_of(family)) <= limit_bytes:
        return family, peak
    raise DeviceError(
        f"one part at a time still takes {shown_bytes(peak)}, --vram is {shown_bytes(limit_bytes)}", hint=_HINT
    )


def peak_of(family: Family) -> int:
    """The device's peak in bytes over a two-step call of a batch with every denoiser of `family`.

    Every one takes both steps, also those whose noise it does not know: nobody looks at the pictures.
    """
    import torch

    from tstitch_cli.clocks import clock_for
    from tstitch_cli.inputs import blank
    from tstitch_cli.measuring.memory import PeakMemory
    from tstitch_cli.trajectory import Batch, run

    count = family.setting.batch_size
    batch = Batch(family.example_prompts(count), tuple(range(count)), given=blank(family.setting))
    torch.cuda.empty_cache()
    peak = PeakMemory(family.device)
    for entry in family.entries:
        run(family, batch, entry.name, clock_for(family.device), steps=2, strict=False)
    return peak.bytes() or 0
