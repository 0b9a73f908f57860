"""The device and the dtype that models run in, and how running out of its memory is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tstitch_cli.errors import DeviceError, UsageError
from tstitch_cli.schema import DTYPES, Setting


def resolve_device(asked: str) -> str:
    """`auto` becomes the best device torch has here: CUDA (or ROCm), XPU, MPS, else the CPU.

    Raises DeviceError where a device was asked for that is not there.
    """
    if asked == "auto":
        return _accelerator() or "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise DeviceError(f"'{asked}' is no device", hint="give cpu, cuda, cuda:1, mps or xpu") from error
    if device.type != "cpu":
        kind = _accelerator()
        count = torch.accelerator.device_count() if kind else 0
        if device.type != kind or (device.index or 0) >= count:
            raise DeviceError(
                f"there is no {asked} here", hint=f"this machine has {kind or 'cpu'}; leave --device out to use it"
            )
    return asked


def use_local(device: str, number: int | None) -> None:
    """Makes `device` without a number of its own mean number `number` of this machine, where there are several.

    Raises DeviceError where there are not that many.
    """
    meant = torch.device(device)
    if not number or meant.type == "cpu" or meant.index is not None:
        return
    count = torch.accelerator.device_count()
    if number >= count:
        raise DeviceError(
            f"this is process {number + 1} of its machine (LOCAL_RANK={number}), which has {count} of {device}",
            hint="start as many processes on a machine as it has devices",
        )
    torch.get_device_module(meant).set_device(number)


def resolve_dtype(asked: str | None, default: str, device: str) -> str:
    """The dtype asked for; else the entry's own, but float32 on a CPU, where half precision is no faster to trust."""
    if asked is None:
        return "float32" if device == "cpu" else default
    if asked not in DTYPES:
        raise UsageError(f"unknown dtype '{asked}'", hint=f"there are {', '.join(DTYPES)}")
    return asked


_NO_MEMORY = (
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "out_of_device_memory",
    "out_of_host_memory",
    "alloc_failed",
    "memoryallocation",
    "allocate memory",
    "not enough memory",
)
"""Signs that memory ran out, in lower case, in what CUDA, cuDNN, cuBLAS, HIP, MPS, XPU and the host say."""
_BROKEN = (
    "cuda error",
    "cudnn error",
    "cudnn_status",
    "cublas_status",
    "cusolver_status",
    "cufft_status",
    "hip error",
    "hiperror",
    "mps backend",
    "ur_result_error",
)
"""Signs that a device, or the library that drives it, gave up."""


@contextmanager
def out_of_memory(setting: Setting) -> Iterator[None]:
    """Turns every form in which memory runs out, or the device itself fails, into DeviceError.

    What was noted on the exception (`add_note`), such as the step it came in, stands in the message.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if _lacks_memory(error):
            raise _too_small(setting, error) from error
        if _is_broken(error):
            raise _broken(setting, error) from error
        raise


def failed(error: Exception) -> bool:
    """Whether `error` is one that `out_of_memory` turns into DeviceError."""
    return _lacks_memory(error) or _is_broken(error)


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _NO_MEMORY)


def _is_broken(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _BROKEN)


@contextmanager
def compiling(setting: Setting) -> Iterator[None]:
    """Turns the failures of a compiler into DeviceError where `setting` has the denoisers compiled."""
    if not setting.compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[0][:200]
        raise DeviceError(
            f"the denoisers cannot be compiled for {setting.device}: {first}",
            hint="profile and plan without --compile, or install what torch.compile needs (a C++ compiler, Triton)",
        ) from error


def _too_small(setting: Setting, error: Exception) -> DeviceError:
    return DeviceError(
        f"{setting.device} ran out of memory at batch size {setting.batch_size}, {setting.size} px, {setting.dtype}"
        f"{_noted(error)}",
        hint="profile and plan for a smaller --batch-size, a smaller --size, with --dtype float16 or --offload",
    )


def _broken(setting: Setting, error: Exception) -> DeviceError:
    return DeviceError(
        f"{setting.device} failed{_noted(error)}: {next(iter(str(error).strip().splitlines()), '')[:200]}",
        hint="run the same command again; where it fails again, the driver or the device is at fault, or it is too hot",
    )


def _noted(error: Exception) -> str:
    """Where it happened, as it was noted on the exception."""
    return "".join(f", {note}" for note in getattr(error, "__notes__", ()))


def _accelerator() -> str | None:
    device = torch.accelerator.current_accelerator(check_available=True)
    return device.type if device is not None else None
