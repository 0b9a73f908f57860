"""A setting that a family cannot be run in is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tstitch_cli.errors import UsageError
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.preflight import check_setting
from tstitch_cli.zoo.registry import Zoo

ENTRIES = Zoo.load().entries
FASHION = [ENTRIES["fashion-s"], ENTRIES["fashion-xl"]]
SD = [ENTRIES["bk-sdm-tiny"], ENTRIES["sd14"]]
SETTING = Setting(20, "ddim", 1.5, 8, 32, "float32", "cpu")


def test_a_fitting_setting_passes() -> None:
    check_setting(FASHION, SETTING)
    check_setting(SD, replace(SETTING, scheduler="pndm", size=512))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 1001}, "1001 steps are more than the 1000"),
        ({"scheduler": "flow-euler"}, "flow-euler does not fit"),
        ({"scheduler": "dddim"}, "unknown scheduler"),
        ({"dtype": "float64"}, "unknown dtype 'float64'"),
        ({"size": 64}, "draws 32 px pictures and no others"),
    ],
)
def test_each_misfit_is_told(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_setting(FASHION, replace(SETTING, **change))  # type: ignore[arg-type]


OTHERWISE: dict[str, object] = {
    "steps": 25,
    "scheduler": "pndm",
    "guidance": 3.0,
    "batch_size": 2,
    "size": 64,
    "dtype": "bfloat16",
    "device": "cuda:1",
    "schedule": "fashion-s",
    "embeddings": "own",
    "accelerate": ("tome:ratio=0.5",),
    "offload": True,
    "strength": 0.6,
    "inpaint": True,
    "control": "canny",
    "frames": 9,
    "host": "fashion-xl",
    "compiled": True,
}
"""Every field of a setting, as it is not in SETTING."""


def test_the_words_say_every_field() -> None:
    assert list(OTHERWISE) == [field.name for field in fields(Setting)]
    plain = SETTING.words
    assert plain == "20 steps of ddim, guidance 1.5, batch of 8, 32 x 32 px, float32 on cpu"
    each = {replace(SETTING, **{name: value}).words for name, value in OTHERWISE.items()}  # type: ignore[arg-type]
    assert len(each | {plain}) == len(OTHERWISE) + 1
    assert Setting(**OTHERWISE).words == (  # type: ignore[arg-type]
        "15 of 25 steps of pndm (strength 0.6), guidance 3, batch of 2, 64 x 64 px, 9 frames, bfloat16 on cuda:1, "
        "inpainting, ControlNet canny, noise schedule of fashion-s, pipeline of fashion-xl, "
        "text embeddings: own, tome (ratio 0.5), parts in turn, compiled"
    )


def test_a_size_between_latent_pixels_is_told() -> None:
    with pytest.raises(UsageError, match="509 px is not a multiple of 8"):
        check_setting(SD, replace(SETTING, scheduler="pndm", size=509))


@pytest.mark.parametrize(
    ("small", "large", "scheduler"),
    [("wan-1.3b", "wan-14b", "flow-unipc"), ("sd35-medium", "sd35-large", "flow-euler")],
)
def test_a_size_between_what_is_one_to_the_denoiser_is_told(small: str, large: str, scheduler: str) -> None:
    entries = [Zoo.load().entries[name] for name in (small, large)]
    with pytest.raises(UsageError, match="488 px is not a multiple of 16, the size of two latent pixels") as caught:
        check_setting(entries, replace(SETTING, scheduler=scheduler, size=488))
    assert caught.value.hint == "give --size 480 or --size 496"
    check_setting(entries, replace(SETTING, scheduler=scheduler, size=496))
