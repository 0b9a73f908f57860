"""Denoisers of a plan as they are typed again: by name, by folder seen from here, by hub id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import planned
from tstitch_cli.schema import PlannedDenoiser
from tstitch_cli.zoo.registry import Zoo
from tstitch_cli.zoo.typed import as_typed


def denoiser(name: str, source: str, revision: str | None = None) -> PlannedDenoiser:
    return replace(planned().denoisers[0], name=name, source=source, revision=revision)


@pytest.mark.parametrize(
    ("name", "source", "typed"),
    [
        ("tiny-sd", "bundled:tiny-sd/tiny-sd", "tiny-sd"),
        ("sd14", "hub:CompVis/stable-diffusion-v1-4", "sd14"),
        ("sd14", "hub:somebody/sd14", "somebody/sd14"),
        ("small", "times", "small"),
    ],
)
def test_by_name_where_the_zoo_has_it_from_there(name: str, source: str, typed: str) -> None:
    assert as_typed([denoiser("fashion-s", "bundled:fashion/fashion-s"), denoiser(name, source)]) == [
        "fashion-s",
        typed,
    ]


def test_a_commit_is_told() -> None:
    assert as_typed([denoiser("net", "hub:somebody/net", "0123abc")]) == ["somebody/net@0123abc"]


def test_a_folder_is_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "tiny-sd" / "tiny-sd-lcm", Path(tmp_path.anchor) / "models" / "net"
    found = as_typed([denoiser("tiny-sd-lcm", f"folder:{inside}"), denoiser("net", f"folder:{outside}")])
    assert found == ["./tiny-sd/tiny-sd-lcm", str(outside)]
    # Not the zoo's denoiser of that name.
    assert as_typed([denoiser("tiny-sd", f"folder:{tmp_path / 'tiny-sd'}")]) == ["./tiny-sd"]


def test_what_is_typed_is_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(Zoo.shipped().resolve("tiny-sd-small").source.replace("bundled:", "tstitch_cli/zoo/bundled/"))
    monkeypatch.chdir(Path(__file__).parents[2])
    given = Zoo.shipped().resolve(str(folder))
    (typed,) = as_typed([denoiser(given.name, given.source)])
    assert Zoo.shipped().resolve(typed).source == given.source == f"folder:{folder.resolve()}"
