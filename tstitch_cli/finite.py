"""Pictures that are not finite: noticed once they are drawn, at no cost to the steps, then traced to where it began."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._pytree import tree_leaves

from tstitch_cli import evaluations
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import DeviceError
from tstitch_cli.stitching import StitchedDenoiser

Pixels = npt.NDArray[np.float32]
_INPUTS = ("sample", "hidden_states")
"""What diffusers' denoisers call x."""
_HINTS = {
    "float16": "float16 ends at 65504: profile and plan with --dtype bfloat16 or float32",
    "bfloat16": "profile and plan with --dtype float32; where that is no better, the weights are damaged",
}
_DAMAGED = "the weights may be damaged: fetch, convert or train them again"


class _Found(Exception):  # noqa: N818 - no error, but the end of a search
    """Says where numbers were first not finite."""


def everywhere(answer: Any, pixels: Pixels) -> bool:
    """Whether a trajectory stayed finite, by a denoiser's last `answer` and the `pixels` (B, F, H, W, C).

    What is not finite once stays so through every later step, so the last answer speaks for all. The pixels alone
    would not do: an autoencoder with a code book (VQModel) makes numbers of anything.
    """
    return _finite(answer) and bool(np.isfinite(pixels).all())


def searched(
    family: Family, indices: Sequence[int], steps: int, draw: Callable[[], Pixels], pixels: Pixels
) -> DeviceError:
    """What to raise: `draw` draws the same pictures again, and every call on the way is looked at.

    That the calls are looked at only then is why a trajectory without fault takes no longer, nor waits for the device.
    """
    stitched, setting = family.stitched, family.setting
    bad = [str(i) for i, each in zip(indices, pixels, strict=True) if not np.isfinite(each).all()]
    which = f"picture{'s' if len(bad) > 1 else ''} {', '.join(bad[:8])}{' ...' if len(bad) > 8 else ''}" if bad else ""
    try:
        with _looking(stitched):
            again = draw()
    except _Found as found:
        step = evaluations.words(family.pipeline.scheduler, steps, stitched.planned, stitched.clock.evaluation)
        what = f"{found} in {step}"
    else:
        if np.isfinite(again).all():
            return DeviceError(
                f"{which or 'a picture'} came out with numbers that are not finite, and did not when drawn again",
                hint=f"run the same command again; where it comes back, {setting.device} or its memory is faulty",
            )
        what = "the autoencoder makes numbers that are not finite (NaN) of finite latents"
    return DeviceError(
        f"{what}, on {setting.device} in {setting.dtype}" + (f"; {which} not saved" if which else ""),
        hint=_HINTS.get(setting.dtype, _DAMAGED),
    )


def require(family: Family, name: str, answer: Any) -> None:
    """Raises DeviceError where what the denoiser `name` answers in the evaluation that is being made is not finite."""
    if not _finite(answer):
        setting, stitched = family.setting, family.stitched
        step = evaluations.words(family.pipeline.scheduler, setting.taken, stitched.planned, stitched.clock.evaluation)
        raise DeviceError(
            f"{name} answers with numbers that are not finite (NaN) in {step}, on {setting.device} in {setting.dtype}",
            hint=_HINTS.get(setting.dtype, _DAMAGED),
        )


@contextmanager
def _looking(stitched: StitchedDenoiser) -> Iterator[None]:
    """Ends the trajectory by _Found at the first call that is given or answers what is not finite."""

    def look(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        name, given = stitched.turn, dict(kwargs)
        x = args[0] if args else next((given.pop(key) for key in _INPUTS if key in given), None)
        if not _finite(x):
            before = "the scheduler" if stitched.clock.evaluation else "the noise, or the picture that is started from,"
            raise _Found(f"{before} gives {name} numbers that are not finite (NaN)")
        for key, value in given.items():
            if "mask" not in key and not _finite(value):  # masks may hold infinity, which hides a token
                raise _Found(f"{name} is given numbers that are not finite (NaN) as {key}")
        if not _finite(output):
            raise _Found(f"{name} answers with numbers that are not finite (NaN)")

    before, stitched.answered = stitched.answered, look
    try:
        yield
    finally:
        stitched.answered = before


def _finite(values: Any) -> bool:
    """Whether all floating-point numbers in `values`, tensors in any nesting, are finite."""
    tensors = [each for each in tree_leaves(values) if isinstance(each, torch.Tensor) and each.is_floating_point()]
    return all(bool(torch.isfinite(each).all()) for each in tensors)
