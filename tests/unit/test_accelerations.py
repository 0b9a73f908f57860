"""What `--accelerate` takes and what it refuses, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tstitch_cli.errors import UsageError
from tstitch_cli.savings import accelerations
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.preflight import check_setting
from tstitch_cli.zoo.registry import Zoo

ENTRIES = Zoo.load().entries
FASHION = [ENTRIES["fashion-s"], ENTRIES["fashion-xl"]]
SD = [ENTRIES["bk-sdm-tiny"], ENTRIES["sd14"]]
SETTING = Setting(20, "ddim", 1.5, 8, 32, "float32", "cpu")
SD_SETTING = replace(SETTING, scheduler="pndm", size=512)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("deepcache", ("deepcache:interval=3:branch=0",)),
        ("deepcache:interval=2", ("deepcache:interval=2:branch=0",)),
        ("tome:ratio=.25, deepcache", ("tome:ratio=0.25", "deepcache:interval=3:branch=0")),
        ("fbcache", ("fbcache:threshold=0.05",)),
        ("taylorseer:warm=1:interval=2", ("taylorseer:interval=2:warm=1:order=1",)),
    ],
)
def test_every_parameter_is_filled_in(asked: str, expected: tuple[str, ...]) -> None:
    assert accelerations.parse(asked) == expected
    assert accelerations.parse(",".join(expected)) == expected


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("", "'' is not known"),
        ("deepcach", "'deepcach' is not known"),
        ("deepcache,deepcache", "given twice"),
        ("fbcache,tome", "do not combine"),
        ("deepcache,fbcache", "do not combine"),
        ("deepcache:depth=1", "no parameter 'depth'"),
        ("deepcache:interval", "interval of deepcache is ''"),
        ("deepcache:interval=2.5", "interval of deepcache is '2.5'"),
        ("deepcache:interval=1", "interval of deepcache is '1'"),
        ("tome:ratio=nan", "ratio of tome is 'nan'"),
        ("tome:ratio=0.9", "ratio of tome is '0.9'"),
    ],
)
def test_nonsense_is_refused(asked: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        accelerations.parse(asked)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("asked", "full"),
    [
        ("deepcache", [0, 3, 6, 9]),
        ("deepcache:interval=2,tome", [0, 2, 4, 6, 8]),
        ("tome", list(range(10))),
        ("fbcache", list(range(10))),
        ("taylorseer:warm=3:interval=3", [0, 1, 2, 4, 7]),
    ],
)
def test_the_rhythm_of_full_evaluations(asked: str, full: list[int]) -> None:
    setting = replace(SETTING, accelerate=accelerations.parse(asked))
    assert [place for place in range(10) if accelerations.is_full(setting, place)] == full


@pytest.mark.parametrize("written", [("deepcache",), ("deepcache:interval=x:branch=0",), ("magic",), ("",)])
def test_what_stands_in_a_file_is_held_to_the_same_form(written: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        accelerations.check_written(written)
    with pytest.raises(UsageError):
        accelerations.check(SD, replace(SD_SETTING, accelerate=written))


def test_what_fits_passes() -> None:
    for asked in ("fbcache", "tome", "taylorseer"):
        check_setting(FASHION, replace(SETTING, accelerate=accelerations.parse(asked)))
    check_setting(SD, replace(SD_SETTING, accelerate=accelerations.parse("deepcache,tome")))


def test_the_architecture_must_be_known_to_it() -> None:
    with pytest.raises(UsageError, match="deepcache does not work on fashion-s, a DiTTransformer2DModel") as caught:
        check_setting(FASHION, replace(SETTING, accelerate=accelerations.parse("deepcache")))
    assert caught.value.hint == "what does: tome, fbcache, taylorseer"
    with pytest.raises(UsageError, match="fbcache does not work on bk-sdm-tiny, a UNet2DConditionModel"):
        check_setting(SD, replace(SD_SETTING, accelerate=accelerations.parse("fbcache")))


def test_step_distilled_models_leave_nothing_to_cache() -> None:
    cached = replace(SD_SETTING, accelerate=accelerations.parse("deepcache"))
    with pytest.raises(UsageError, match=r"step-distilled models \(the scheduler lcm\)"):
        check_setting(SD, replace(cached, scheduler="lcm"))
    distilled = [replace(entry, conditioning=replace(entry.conditioning, guidance_embedding=True)) for entry in SD]
    with pytest.raises(UsageError, match=r"step-distilled models \(bk-sdm-tiny\)"):
        check_setting(distilled, cached)
    with pytest.raises(UsageError, match="needs 8 steps or more, 4 leave too little to reuse"):
        check_setting(SD, replace(cached, steps=4))
    with pytest.raises(UsageError, match="needs 8 steps or more, 2 leave too little to reuse"):
        check_setting(SD, replace(cached, steps=10, strength=0.2))
    check_setting(SD, replace(cached, steps=10, strength=0.8))
    # Merging tokens reuses nothing.
    check_setting(SD, replace(SD_SETTING, scheduler="lcm", steps=4, accelerate=accelerations.parse("tome")))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("control", "canny", "deepcache does not work with a ControlNet"),
        ("compiled", True, "deepcache does not work with --compile"),
    ],
)
def test_a_cache_goes_with_neither_controlnet_nor_compile(field: str, value: object, why: str) -> None:
    for asked in ("deepcache", "tome"):
        setting = replace(SD_SETTING, accelerate=accelerations.parse(asked))
        object.__setattr__(setting, field, value)
        if asked == "tome":
            accelerations.check(SD, setting)
        else:
            with pytest.raises(UsageError, match=why):
                accelerations.check(SD, setting)


def test_a_package_that_is_missing_is_told_how_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerations, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package tomesd") as caught:
        check_setting(FASHION, replace(SETTING, accelerate=accelerations.parse("tome")))
    assert caught.value.hint == 'in the clone of tstitch: pip install -c constraints.txt ".[accelerate]"'
