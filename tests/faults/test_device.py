"""Memory that runs out, a device that gives up and a denoiser that raises: told with the step it came in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.toys import FakeClock, family
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import DeviceError, ExitStatus, UsageError
from tstitch_cli.trajectory import Batch, run

COSTS = {"small": 1.0, "large": 10.0}
BATCH = Batch(("bag",), (0,))
TURNS = ("small",) * 3 + ("large",) * 3
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]
BROKEN = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
]


def failing(error: BaseException, *, evaluation: int, name: str = "large") -> Family:
    """A family of which the denoiser `name` raises `error` in the evaluation of this number, from 0."""
    one = family(FakeClock(), COSTS, steps=6)

    def fail(module: Any, args: Any) -> None:
        if one.stitched.clock.evaluation == evaluation:
            raise error

    one.denoisers[name].register_forward_pre_hook(fail)
    return one


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:24]}")
def test_out_of_memory_at_step_k(error: Exception) -> None:
    one = failing(error, evaluation=4)
    with pytest.raises(DeviceError) as caught:
        run(one, BATCH, TURNS, FakeClock())
    assert caught.value.message == (
        "cpu ran out of memory at batch size 2, 16 px, float32, in step 5 of 6, which large takes"
    )
    assert caught.value.status == ExitStatus.DEVICE
    assert "--batch-size" in str(caught.value.hint)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_a_device_that_gives_up(error: Exception) -> None:
    with pytest.raises(DeviceError, match=r"cpu failed, in step 2 of 6, which small takes: (?i:cu)") as caught:
        run(failing(error, evaluation=1, name="small"), BATCH, TURNS, FakeClock())
    assert "again" in str(caught.value.hint)


def test_out_of_memory_in_decoding_and_before_the_first_step() -> None:
    one = family(FakeClock(), COSTS, steps=6)
    run(one, BATCH, TURNS, FakeClock())  # what an earlier call left must not be told of this one

    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    handle = one.pipeline.vae.decoder.register_forward_pre_hook(fail)
    with pytest.raises(DeviceError, match=r"float32, after the last step$"):
        run(one, BATCH, TURNS, FakeClock())
    handle.remove()
    one.pipeline.scheduler.set_timesteps = fail
    with pytest.raises(DeviceError, match=r"float32, before the first step$"):
        run(one, BATCH, TURNS, FakeClock())


def test_a_denoiser_that_raises_is_named_with_its_step() -> None:
    one = failing(ValueError("heads do not divide"), evaluation=3)
    with pytest.raises(ValueError, match="heads do not divide") as caught:
        run(one, BATCH, TURNS, FakeClock())
    assert caught.value.__notes__ == ["in step 4 of 6, which large takes"]


@pytest.mark.parametrize("error", [UsageError("no such class"), KeyboardInterrupt()], ids=["ours", "Ctrl-C"])
def test_what_is_told_otherwise_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        run(failing(error, evaluation=3), BATCH, TURNS, FakeClock())
    assert caught.value is error


def test_after_a_failure_the_family_draws_as_before() -> None:
    one = family(FakeClock(), COSTS, steps=6)
    before = run(one, BATCH, TURNS, FakeClock())
    fails = iter([False, False, True])
    handle = one.denoisers["small"].register_forward_pre_hook(lambda *args: 1 / 0 if next(fails, False) else None)
    with pytest.raises(ZeroDivisionError):
        run(one, BATCH, TURNS, FakeClock())
    handle.remove()
    after = run(one, BATCH, TURNS, FakeClock())
    assert after.realised == before.realised == TURNS
    assert after.images[0].tobytes() == before.images[0].tobytes()
