"""Which denoisers the page offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.quick import QUICK, SLOW, profile_of, zoo_file
from tstitch_cli.documents import write_profile
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.ui.choices import offered, usual
from tstitch_cli.zoo.registry import Zoo

FASHION = "fashion: fashion-s, fashion-b, fashion-xl"
TINY = "tiny-sd: tiny-sd-small, tiny-sd-base, tiny-sd"


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    monkeypatch.setenv("TSTITCH_ZOO", str(zoo_file(tmp_path / "zoo.yaml")))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return Zoo.load()


def test_the_families_on_this_disk_are_offered_the_bundled_ones_first_and_the_one_for_sentences(zoo: Zoo) -> None:
    assert [choice.label for choice in offered(zoo)] == [TINY, FASHION, QUICK, SLOW]


def test_what_was_named_comes_first_and_once(zoo: Zoo) -> None:
    labels = [choice.label for choice in offered(zoo, ["quick-xl", "quick-s"])]
    assert labels == [QUICK, TINY, FASHION, SLOW]
    assert offered(zoo, ["fashion-xl", "fashion-s"])[0].label == "fashion: fashion-s, fashion-xl"


def test_what_cannot_be_stitched_is_refused_as_profile_refuses_it(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"share no latent space|differ"):
        offered(zoo, ["fashion-s", "sd14"])
    with pytest.raises(UsageError, match="one denoiser cannot be stitched"):
        offered(zoo, ["fashion-s"])
    with pytest.raises(UsageError, match="there is no denoiser 'fashion-xs'"):
        offered(zoo, ["fashion-xs", "fashion-s"])


def test_a_profile_brings_its_denoisers(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write_profile(profile_of("slow"), path, overwrite=False)
    first, *others = offered(zoo, profile=str(path))
    assert (first.label, first.profile) == (SLOW, path)
    assert [choice.label for choice in others] == [TINY, FASHION, QUICK]
    with pytest.raises(UsageError, match="a profile has its own denoisers"):
        offered(zoo, ["quick-s", "quick-xl"], str(path))


def test_a_profile_of_drawings_that_start_from_a_picture_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    path, made = tmp_path / "mine.yaml", profile_of("slow")
    setting = replace(made.setting, strength=1.0)
    write_profile(replace(made, setting=setting), path, overwrite=False)
    with pytest.raises(UsageError, match="the page draws from prompts alone"):
        offered(zoo, profile=str(path))
    with pytest.raises(BadFileError):
        offered(zoo, profile=str(tmp_path / "none.yaml"))


def test_of_a_family_one_of_each_size_in_the_commonest_setting_is_usual() -> None:
    small, base, large = (Zoo.shipped().entries[name] for name in ("fashion-s", "fashion-b", "fashion-xl"))
    styled = replace(large, name="styled")
    faster = replace(small, name="faster", parameters=1, defaults=replace(small.defaults, steps=4))
    assert usual([large, styled, faster, base, small]) == [large, base, small]


def test_the_setting_is_the_largest_ones_own(zoo: Zoo) -> None:
    defaults = zoo.entries["quick-xl"].defaults
    setting = offered(zoo, ["quick-s", "quick-xl"])[0].setting("cpu")
    assert (setting.steps, setting.batch_size, setting.size) == (defaults.steps, defaults.batch_size, defaults.size)
    assert (setting.device, setting.dtype, setting.guidance) == ("cpu", "float32", defaults.guidance)
