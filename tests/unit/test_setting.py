"""A setting that a family cannot be run in is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

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


def test_a_size_between_latent_pixels_is_told() -> None:
    with pytest.raises(UsageError, match="509 px is not a multiple of 8"):
        check_setting(SD, replace(SETTING, scheduler="pndm", size=509))
