"""One call of a family: who drew, where the seconds went, and where the noise came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.toys import FakeClock, family
from tstitch_cli.devices import out_of_memory
from tstitch_cli.errors import DeviceError, UsageError
from tstitch_cli.trajectory import Batch, noise_generator, run

COSTS = {"small": 1.0, "large": 10.0}


def test_every_second_has_its_place() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS, steps=4)
    toy.pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: clock.advance(3.0))
    turns = ("small", "small", "large", "large")
    made = run(toy, Batch(("bag",), (0,)), turns, clock)
    assert made.realised == turns
    assert made.evaluations_s == pytest.approx((1.0, 1.0, 10.0, 10.0))
    assert made.decode_s == pytest.approx(3.0)
    assert made.total_s == pytest.approx(25.0)
    assert [image.size for image in made.images] == [(16, 16)]


@pytest.mark.parametrize("indices", [(0,), (3, 4)])
def test_pictures_are_those_of_the_pipeline_bit_for_bit(indices: tuple[int, ...]) -> None:
    toy = family(FakeClock(), COSTS, steps=3)
    prompts = ("bag", "dress")[: len(indices)]
    drawn = run(toy, Batch(prompts, indices), "large", FakeClock()).images
    given = toy.call_arguments(prompts, None, 3)
    plain = toy.pipeline(**given, generator=[noise_generator(0, index) for index in indices], output_type="pil").images
    assert [(image.mode, image.tobytes()) for image in drawn] == [(image.mode, image.tobytes()) for image in plain]


def test_noise_does_not_depend_on_the_batch() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS, steps=3, scheduler="euler-a")
    together = run(toy, Batch(("bag", "dress", "coat"), (0, 1, 2), seed=5), "large", clock).images
    alone = run(toy, Batch(("coat",), (2,), seed=5), "large", clock).images[0]
    difference = np.abs(np.asarray(together[2], int) - np.asarray(alone, int))
    assert difference.max() <= 1
    other = run(toy, Batch(("coat",), (2,), seed=6), "large", clock).images[0]
    assert np.abs(np.asarray(other, int) - np.asarray(alone, int)).max() > 1


def test_noise_of_other_indices_and_seeds_differs() -> None:
    drawn = {
        (seed, index): torch.randn(4, generator=noise_generator(seed, index)).tolist()
        for seed in (0, 1, 2**40)
        for index in (0, 1, 50_000)
    }
    assert len({tuple(values) for values in drawn.values()}) == len(drawn)


def test_an_unknown_class_is_refused_with_the_near_one() -> None:
    clock = FakeClock()
    with pytest.raises(UsageError, match="no class 'ankel boot'") as caught:
        run(family(clock, COSTS), Batch(("ankel boot",), (0,)), "large", clock)
    assert "ankle boot" in str(caught.value.hint)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_every_form_of_running_out_of_memory_is_one_error(error: Exception) -> None:
    toy = family(FakeClock(), COSTS)
    with pytest.raises(DeviceError, match="ran out of memory at batch size 2"), out_of_memory(toy.setting):
        raise error


def test_other_runtime_errors_pass() -> None:
    toy = family(FakeClock(), COSTS)
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(toy.setting):
        raise RuntimeError("shapes do not match")
