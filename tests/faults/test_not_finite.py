"""NaN and infinity: named by denoiser and step, nothing is drawn of them, and nothing is paid for looking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.toys import FakeClock, family
from tstitch_cli import finite
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import DeviceError, ExitStatus
from tstitch_cli.measuring import agreement
from tstitch_cli.trajectory import Batch, Trajectory, run

COSTS = {"small": 1.0, "large": 10.0}
BATCH = Batch(("bag", "dress"), (4, 5))
Poison = Callable[[torch.Tensor], Any]


def everything(value: float) -> Poison:
    return lambda x: x.fill_(value)


def toy(scheduler: str = "ddim", steps: int = 6) -> Family:
    return family(FakeClock(), COSTS, scheduler=scheduler, steps=steps)


def poison(one: Family, name: str, evaluation: int, how: Poison, times: int = 1000) -> None:
    """Has the denoiser `name` answer as `how` leaves its answer, in the evaluation of this number, from 0."""
    left = [times]

    def answer(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if one.stitched.clock.evaluation == evaluation and left[0]:
            left[0] -= 1
            how(output[0])

    one.denoisers[name].register_forward_hook(answer, with_kwargs=True)


def drawn(one: Family, small: int, batch: Batch = BATCH, evaluations: int | None = None) -> Trajectory:
    total = evaluations or one.setting.steps
    return run(one, batch, ("small",) * small + ("large",) * (total - small), FakeClock())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("evaluation", "name"), [(0, "small"), (2, "small"), (3, "large"), (5, "large")])
def test_nan_in_a_latent_at_step_k(evaluation: int, name: str, value: float) -> None:
    one = toy()
    poison(one, name, evaluation, everything(value))
    with pytest.raises(DeviceError) as caught:
        drawn(one, 3)
    assert caught.value.status == ExitStatus.DEVICE
    told = f"{name} answers with numbers that are not finite (NaN) in step {evaluation + 1} of 6, on cpu in float32"
    assert caught.value.message.startswith(told)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("scheduler", "steps", "evaluations", "where"),
    [
        ("pndm", 6, 7, "step 4 of 6 (evaluation 5 of 7)"),
        ("heun", 6, 11, "step 3 of 6 (evaluation 5 of 11)"),
        ("euler-a", 6, 6, "step 5 of 6,"),
        ("dpm++", 6, 6, "step 5 of 6,"),
    ],
)
def test_the_step_is_named_where_steps_and_evaluations_differ(
    scheduler: str, steps: int, evaluations: int, where: str
) -> None:
    one = toy(scheduler, steps)
    poison(one, "large", 4, everything(float("nan")))
    with pytest.raises(DeviceError) as caught:
        drawn(one, 1, evaluations=evaluations)
    assert f"large answers with numbers that are not finite (NaN) in {where}" in caught.value.message


def test_the_pictures_that_are_not_saved_are_named() -> None:
    one = toy()
    # Of the batch and its unconditional half: the second picture alone.
    poison(one, "small", 1, lambda x: x[1].fill_(float("nan")))
    with pytest.raises(DeviceError, match=r"step 2 of 6.*; picture 5 not saved"):
        drawn(one, 3)


def test_an_autoencoder_that_overflows() -> None:
    one = toy()
    one.pipeline.vae.decoder.register_forward_hook(lambda module, args, output: output.fill_(float("nan")))
    with pytest.raises(
        DeviceError, match=r"the autoencoder makes numbers that are not finite.*pictures 4, 5 not saved"
    ):
        drawn(one, 3)


def test_an_autoencoder_that_makes_pictures_of_anything() -> None:
    """A code book (VQModel) finds a code for NaN too, so the pictures look as sound as any."""
    one = toy()
    poison(one, "large", 3, everything(float("nan")))
    one.pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: (torch.nan_to_num(args[0]),))
    with pytest.raises(DeviceError, match=r"large answers with .* in step 4 of 6"):
        drawn(one, 3)


def test_what_the_scheduler_makes_is_not_blamed_on_a_denoiser() -> None:
    one = toy()
    plain = one.pipeline.scheduler.step

    def step(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        if one.stitched.clock.evaluation == 3:
            result.prev_sample.fill_(float("nan"))
        return result

    one.pipeline.scheduler.step = step
    with pytest.raises(DeviceError, match=r"the scheduler gives large numbers .* in step 4 of 6"):
        drawn(one, 3)


def test_what_comes_up_once_is_told_as_such() -> None:
    one = toy()
    poison(one, "small", 1, everything(float("nan")), times=1)
    with pytest.raises(DeviceError, match=r"pictures 4, 5 came out .* and did not when drawn again"):
        drawn(one, 3)


@pytest.mark.parametrize(("dtype", "advised"), [("float16", "bfloat16"), ("bfloat16", "float32"), ("float32", "fetch")])
def test_the_hint_fits_the_dtype(dtype: str, advised: str) -> None:
    one = toy()
    one = replace(one, setting=replace(one.setting, dtype=dtype))
    poison(one, "small", 1, everything(float("nan")))
    with pytest.raises(DeviceError) as caught:
        drawn(one, 3)
    assert advised in str(caught.value.hint)


def test_the_family_draws_as_before_afterwards() -> None:
    one = toy()
    before = drawn(one, 3).images
    stumbles = [True]

    def stumble(module: Any, args: Any, output: Any) -> None:
        if stumbles[0]:
            output[0].fill_(float("nan"))

    handle = one.denoisers["small"].register_forward_hook(stumble)
    with pytest.raises(DeviceError):
        drawn(one, 3)
    handle.remove()
    after = drawn(one, 3).images
    assert [image.tobytes() for image in before] == [image.tobytes() for image in after]
    assert one.stitched.answered is None


def test_agreement_is_not_measured_of_nan() -> None:
    one = toy()
    poison(one, "small", 2, everything(float("nan")))
    with pytest.raises(DeviceError, match=r"small answers with numbers that are not finite .* in step 3 of 6"):
        agreement.measure(one, [BATCH], (1,) * 6)


def test_a_trajectory_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps it has, so that the device is never waited for between two of them."""
    looked = []
    plain = finite.everywhere

    def count(answer: Any, pixels: finite.Pixels) -> bool:
        looked.append(pixels.shape)
        return plain(answer, pixels)

    monkeypatch.setattr(finite, "everywhere", count)
    monkeypatch.setattr(finite, "searched", lambda *given: pytest.fail("there is nothing to search for"))
    drawn(toy(), 3)
    assert looked == [(2, 1, 16, 16, 1)]
