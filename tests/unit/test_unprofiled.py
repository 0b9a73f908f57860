"""What a plan could not be held against, and the command that measures it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import planned
from tstitch_cli.planning.unprofiled import caches, command
from tstitch_cli.schema import Plan, Setting
from tstitch_cli.zoo.registry import Zoo

SETTING = Setting(20, "ddim", 1.25, 8, 32, "float32", "cpu")


def plan(*names: str, setting: Setting = SETTING) -> Plan:
    """A plan whose denoisers are those of the zoo."""
    zoo, made = Zoo.shipped().entries, planned()
    denoisers = tuple(replace(made.denoisers[0], name=name, source=zoo[name].source) for name in names)
    return replace(made, denoisers=denoisers, setting=setting)


def test_what_works_on_all_denoisers_and_was_not_profiled_is_named() -> None:
    fashion = plan("fashion-s", "fashion-xl")
    assert caches(fashion, []) == ("fbcache", "taylorseer", "pab")
    profiled = replace(SETTING, accelerate=("fbcache:threshold=0.05",))
    assert caches(fashion, [SETTING, profiled]) == ("taylorseer", "pab")
    assert caches(fashion, [replace(profiled, steps=10)]) == ("fbcache", "taylorseer", "pab")


@pytest.mark.parametrize(
    "made",
    [
        plan("fashion-s", "fashion-xl", setting=replace(SETTING, accelerate=("fbcache:threshold=0.05",))),
        plan("fashion-s", "fashion-xl", setting=replace(SETTING, steps=4)),
        plan("fashion-s", "fashion-xl", setting=replace(SETTING, scheduler="lcm")),
        planned(),
    ],
    ids=["accelerated", "too few steps", "distilled", "unknown to the zoo"],
)
def test_what_does_not_work_is_not_offered(made: Plan) -> None:
    assert caches(made, []) == ()


def test_a_denoiser_of_ones_own_zoo_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zoo.yaml").write_text(
        "schema: tstitch/zoo/1\ndenoisers:\n  mine: {family: fashion, source: 'folder:/elsewhere'}\n"
    )
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "zoo.yaml"))
    fashion = plan("fashion-s", "fashion-xl")
    mine = replace(fashion.denoisers[1], name="mine", source="folder:/elsewhere")
    assert caches(replace(fashion, denoisers=(fashion.denoisers[0], mine)), []) == ("fbcache", "taylorseer", "pab")
    assert caches(replace(fashion, denoisers=(replace(mine, name="yours"), mine)), []) == ()


def test_the_command_profiles_the_same_setting_and_what_is_asked_beside_it() -> None:
    made = plan("fashion-s", "fashion-xl")
    usual = "--scheduler ddim --guidance 1.25 --batch-size 8 --size 32 --dtype float32 --device cpu"
    assert command(made, steps=[9]) == f"tstitch profile fashion-s fashion-xl --steps 9,20 {usual} --overwrite"
    both = command(made, accelerate=["fbcache"])
    assert both.endswith(f"--steps 20 {usual} --accelerate none --accelerate fbcache --overwrite")
    other = replace(SETTING, strength=0.6, control="a folder/net", inpaint=True, compiled=True, embeddings="own")
    words = shlex.split(command(replace(made, setting=other)))
    assert {"--inpaint", "--compile"} <= set(words)
    assert [words[words.index(each) + 1] for each in ("--strength", "--control", "--embeddings")] == [
        "0.6",
        "a folder/net",
        "own",
    ]
    assert "--offload" not in words
