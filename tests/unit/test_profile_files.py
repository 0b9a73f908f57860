"""How profiles are found, and the ones that come with tstitch."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import measured
from tstitch_cli import profile_files
from tstitch_cli.documents import read_profile, render, write_profile
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import PROFILE_SCHEMA, Setting

MEASURED = sorted((Path(__file__).parents[2] / "profiles" / "measured").glob("*.yaml"))
SHIPPED = sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, created: str, origin: str = "measured") -> Path:
    path = Path("profiles") / name
    write_profile(replace(measured(created=created), origin=origin), path, overwrite=True)
    return path


def test_the_newest_is_by_its_date_not_by_its_name() -> None:
    put("a.yaml", "2025-03-01T00:00:00+00:00")
    newest = put("b.yaml", "2025-03-01T00:30:00+02:00")
    newest = put("c.yaml", "2025-03-01T02:00:00+00:00")
    put("d.yaml", "2025-03-01T03:00:00+02:00")
    assert profile_files.newest() == newest


def test_references_and_foreign_files_do_not_count() -> None:
    mine = put("mine.yaml", "2020-01-01T00:00:00Z", "imported")
    put("reference.yaml", "2030-01-01T00:00:00Z", "reference")
    folder = Path("profiles")
    (folder / "broken.yaml").write_text("schema: [\ncreated: 2031-01-01")
    (folder / "binary.yaml").write_bytes(b"\xff\x00" * 9000)
    (folder / "plan.yaml").write_text("schema: tstitch/plan/1\norigin: measured\ncreated: 2031-01-01T00:00:00Z\n")
    (folder / "undated.yaml").write_text(f"schema: {PROFILE_SCHEMA}\norigin: measured\ncreated: never\n")
    (folder / "folder.yaml").mkdir()
    (folder / "notes.txt").write_text(render(measured(created="2032-01-01T00:00:00Z"), PROFILE_SCHEMA))
    assert profile_files.newest() == mine


def test_none_at_all_says_how_to_get_one() -> None:
    with pytest.raises(BadFileError) as caught:
        profile_files.newest()
    assert "tstitch profile" in str(caught.value.hint)
    assert "rtx3090" in str(caught.value.hint)


def test_found_by_path_by_name_and_among_the_shipped(elsewhere: Path) -> None:
    mine = put("mine.yaml", "2020-01-01T00:00:00Z")
    assert profile_files.find("mine") == profile_files.find("mine.yaml") == mine
    assert profile_files.find(str(elsewhere / mine)) == elsewhere / mine
    assert profile_files.find("rtx3090-dit-ddim100").name == "rtx3090-dit-ddim100.yaml"


def test_a_miss_gets_the_near_names() -> None:
    put("mine.yaml", "2020-01-01T00:00:00Z")
    for name, near in (("mien", "mine"), ("rtx3090-dit-ddim10", "rtx3090-dit-ddim100")):
        with pytest.raises(UsageError) as caught:
            profile_files.find(name)
        assert near in str(caught.value.hint)
    for path in ("profiles/mien.yaml", "x" * 5000 + ".yaml", "a/\x00"):
        with pytest.raises(BadFileError):
            profile_files.find(path)


@pytest.mark.parametrize(
    ("family", "denoisers", "setting", "name"),
    [
        (
            "fashion",
            ("fashion-s", "fashion-xl"),
            Setting(20, "ddim", 1.25, 8, 32, "float32", "cpu"),
            "cpu-fashion-s-xl-ddim20-b8-f32.yaml",
        ),
        (
            "stable-diffusion",
            ("bk-sdm-tiny", "CompVis/stable-diffusion-v1-4"),
            Setting(
                50,
                "pndm",
                7.5,
                1,
                512,
                "float16",
                "cuda",
                accelerate=("deepcache:interval=3:branch=0", "tome:ratio=0.5"),
                offload=True,
            ),
            "cuda-stable-diffusion-bk-sdm-tiny-compvis-stable-diffusion-v1-4-pndm50-b1-f16-deepcache-tome-offload.yaml",
        ),
        (
            "sd",
            (),
            Setting(50, "PNDM", 7.5, 1, 512, "bfloat16", "NVIDIA H100"),
            "nvidia-h100-sd-pndm50-b1-bf16-512px-g7.5.yaml",
        ),
        (
            "imported",
            ("dit-s", "dit-xl"),
            Setting(100, "unknown", 1, 1, 0, "unknown", "imported"),
            "imported-dit-s-dit-xl-100steps-b1.yaml",
        ),
        ("../ü\x00", ("../..", "\n"), Setting(4, "/", 0, 1, 0, "", "a b:0"), "a-b-0-4-b1-g0.yaml"),
    ],
)
def test_file_names_are_safe(family: str, denoisers: tuple[str, ...], setting: Setting, name: str) -> None:
    assert profile_files.file_name(family, denoisers, setting) == name


def test_every_choice_of_denoisers_has_its_own_file() -> None:
    setting = Setting(50, "euler", 5.0, 1, 1024, "float16", "cuda")
    long = "terminusresearch/pixart-900m-1024-ft-v0."
    choices: list[tuple[str, ...]] = [
        ("ssd-1b", "sdxl"),
        ("segmind-vega", "sdxl"),
        ("segmind-vega", "ssd-1b"),
        ("segmind-vega", "ssd-1b", "sdxl"),
        ("me/sdxl", "sdxl"),
        (f"{long}6", "sdxl"),
        (f"{long}7", "sdxl"),
    ]
    assert len({profile_files.file_name("sdxl", each, setting) for each in choices}) == len(choices)


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_measured_profiles_are_whole_and_can_be_planned_with(path: Path) -> None:
    profile = read_profile(path)
    assert profile.origin == "measured"
    assert profile.fingerprint is not None
    assert profile.fingerprint.random
    assert render(profile, PROFILE_SCHEMA) == path.read_text(encoding="utf-8")
    assert make_plan(profile, budget=parse_budget("70%")).rows


def test_every_setting_that_one_may_choose_has_its_own_file() -> None:
    usual = Setting(50, "pndm", 7.5, 1, 512, "float16", "cuda")
    changes: list[dict[str, Any]] = [
        {},
        {"steps": 25},
        {"scheduler": "ddim"},
        {"guidance": 5.0},
        {"guidance": 7.0},
        {"batch_size": 2},
        {"size": 768},
        {"dtype": "bfloat16"},
        {"device": "cpu"},
        {"embeddings": "own"},
        {"accelerate": ("deepcache:interval=3:branch=0",)},
        {"accelerate": ("deepcache:interval=2:branch=0",)},
        {"accelerate": ("deepcache:interval=3:branch=2",)},
        {"offload": True},
        {"strength": 0.6},
        {"strength": 0.6, "inpaint": True},
        {"strength": 0.6, "inpaint": True, "control": "inpaint"},
        {"control": "canny"},
        {"frames": 9},
        {"compiled": True},
    ]
    # The schedule and the host follow from the denoisers and the rest: nobody chooses them.
    assert {name for change in changes for name in change} == {f.name for f in fields(Setting)} - {"schedule", "host"}
    pair = ("bk-sdm-tiny", "sd14")
    names = {profile_files.file_name("stable-diffusion", pair, replace(usual, **change)) for change in changes}
    assert len(names) == len(changes)
    deep = replace(usual, accelerate=("deepcache:interval=2:branch=0",), embeddings="own", size=768)
    assert profile_files.file_name("stable-diffusion", pair, deep) == (
        "cuda-stable-diffusion-bk-sdm-tiny-sd14-pndm50-b1-f16-768px-embeddings-own-deepcache-interval2.yaml"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_is_valid_and_canonical(path: Path) -> None:
    profile = read_profile(path)
    assert path.read_text("utf-8") == render(profile, PROFILE_SCHEMA)
    if profile.origin == "reference":
        assert "arXiv" in profile.notes
        model = CostModel(profile)
        for each in profile.validation:
            assert each.predicted_s == pytest.approx(model.mean_s(each.allocation))
            # The published figures themselves are off the straight line between their ends by up to 7.1 %.
            assert each.predicted_s == pytest.approx(each.measured_s.mean, rel=0.072)


@pytest.mark.parametrize(
    ("name", "alone_s"),
    [
        ("rtx3090-dit-ddim100", {"dit-s": 1.6, "dit-b": 4.0, "dit-xl": 16.5}),
        ("rtx3090-ldm-ddim100", {"ldm-s": 2.9, "ldm": 7.1}),
        ("rtx3090-stylised-sd-pndm50", {"small-sd": 1.9, "stylised-sd": 3.1}),
        ("rtx3090-sdxl-euler50", {"ssd-1b": 8.8, "sdxl": 13.6}),
        ("rtx3090-sdxl-canny-euler50", {"ssd-1b": 14.8, "sdxl": 19.7}),
        ("rtx3090-lcm-sdxl-lcm4", {"lcm-ssd-1b": 0.823, "lcm-sdxl": 1.029}),
    ],
)
def test_the_papers_times_are_those_of_each_denoiser_alone(name: str, alone_s: dict[str, float]) -> None:
    profile = read_profile(profile_files.find(name))
    model = CostModel(profile)
    found = {d.name: model.mean_s(((d.name, profile.setting.steps),)) for d in profile.denoisers}
    assert found == pytest.approx(alone_s)


def test_every_reference_profile_is_shipped() -> None:
    project = tomllib.loads((SHIPPED[0].parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    references = {path.name for path in SHIPPED if read_profile(path).origin == "reference"}
    assert included == {f"profiles/{name}": f"tstitch_cli/reference/{name}" for name in references}


def test_the_papers_dit_at_half() -> None:
    profile = read_profile(profile_files.find("rtx3090-dit-ddim100"))
    model = CostModel(profile)
    half = model.mean_s((("dit-s", 50), ("dit-xl", 50)))
    assert model.largest_alone_s(None) / half == pytest.approx(1.76, rel=0.041)
    plan = make_plan(profile, budget=parse_budget("10s"))
    assert plan.rows[plan.chosen].time_s.mean == pytest.approx(10, rel=0.03)
    assert model.largest_alone_s(None) / plan.rows[plan.chosen].time_s.mean == pytest.approx(1.7, rel=0.03)


def test_an_imported_profile_is_found() -> None:
    write_profile(from_times({"a": 1.0, "b": 2.0}, 5), Path("profiles/i.yaml"), overwrite=False)
    assert profile_files.newest() == Path("profiles/i.yaml")
