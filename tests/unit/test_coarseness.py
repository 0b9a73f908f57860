"""Coarseness: several settings of one loaded family against one reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.toys import FakeClock, family
from tstitch_cli.denoisers import Family, load, reset, resettable
from tstitch_cli.measuring import coarseness, latents
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch
from tstitch_cli.zoo.registry import Zoo

SETTING = Setting(4, "ddim", 1.5, batch_size=2, size=32, dtype="float32", device="cpu")
BATCH = Batch(("0", "1"), (0, 1), seed=3)


@pytest.fixture(scope="module")
def bundled() -> Family:
    zoo = Zoo.load()
    return load([zoo.resolve(name) for name in ("fashion-s", "fashion-b")], SETTING)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++-karras", "euler"])
def test_a_family_that_is_set_anew_draws_what_a_loaded_one_draws(bundled: Family, scheduler: str) -> None:
    setting = replace(SETTING, scheduler=scheduler, steps=3)
    # Through another scheduler first, of which nothing may be left.
    again = reset(reset(bundled, replace(SETTING, scheduler="dpm++-karras")), setting)
    assert again.setting == setting
    fresh = load(bundled.entries, setting)
    taken = ["fashion-s", "fashion-s", "fashion-b"]
    assert (latents.final(again, BATCH, taken) == latents.final(fresh, BATCH, taken)).all()
    assert all(again.denoisers[name] is bundled.denoisers[name] for name in bundled.denoisers)


def test_only_steps_and_sampler_can_be_set_anew(bundled: Family) -> None:
    assert resettable(bundled, replace(SETTING, steps=7, scheduler="heun"))
    assert not resettable(bundled, replace(SETTING, guidance=2.0))
    assert not resettable(bundled, replace(SETTING, accelerate=("tome:ratio=0.5",)))
    cached = replace(bundled, setting=replace(SETTING, accelerate=("tome:ratio=0.5",)))
    assert not resettable(cached, replace(SETTING, accelerate=("tome:ratio=0.5",), steps=7))


def test_the_finer_the_nearer_to_the_reference(bundled: Family) -> None:
    settings = [replace(SETTING, steps=steps) for steps in (2, 6)]
    wanted = coarseness.reference_setting(settings, 1000)
    assert wanted == replace(SETTING, steps=24)
    course = coarseness.follow(reset(bundled, wanted), BATCH)
    assert (course.reference.denoiser, course.reference.steps) == ("fashion-b", 24)
    assert [batch.indices for batch in course.batches] == [(0, 1), (2, 3)]
    found = [coarseness.measure(reset(bundled, setting), course) for setting in settings]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].reference == found[1].reference == course.reference
    coarse, fine = (np.array(each.distance) for each in found if each is not None)
    assert coarse.shape == fine.shape == (4,)
    assert (fine < 0.6 * coarse).all()
    assert (fine > 0).all()
    itself = coarseness.measure(reset(bundled, wanted), course)
    assert itself is not None
    assert max(itself.distance) < 1e-5


def test_the_digest_is_that_of_all_that_the_reference_depends_on(bundled: Family) -> None:
    def digest(given: Family, batch: Batch = BATCH) -> str:
        return coarseness.follow(given, batch).reference.digest

    once = digest(reset(bundled, SETTING))
    assert digest(reset(bundled, SETTING)) == once
    others = [
        digest(reset(bundled, replace(SETTING, steps=5))),
        digest(reset(bundled, SETTING), replace(BATCH, seed=4)),
        digest(replace(reset(bundled, SETTING), weights={"fashion-s": "x", "fashion-b": "y"})),
    ]
    assert len({once, *others}) == 4


def test_samplers_that_add_noise_are_held_against_nothing() -> None:
    noisy = [replace(SETTING, scheduler=name) for name in ("ddpm", "euler-a")]
    assert coarseness.reference_setting(noisy, 1000) is None
    both = [*noisy, replace(SETTING, scheduler="heun", steps=300, accelerate=("tome:ratio=0.5",))]
    assert coarseness.reference_setting(both, 1000) == replace(SETTING, scheduler="heun", steps=1000)
    toy = family(FakeClock(), {"small": 0.01, "large": 0.1}, steps=4)
    course = coarseness.follow(toy, Batch(("bag", "dress"), (0, 1)))
    noise = replace(toy, setting=replace(toy.setting, scheduler="ddpm"))
    assert coarseness.measure(noise, course) is None
