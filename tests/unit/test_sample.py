"""Drawing by a plan's row: files, batches, provenance, and the same picture again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.toys import FakeClock, family
from tstitch_cli import provenance
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import UsageError
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.sample import Drawn, Work, batch_of, draw, entries_of, redraw, sweep, warm_up
from tstitch_cli.schema import PlannedDenoiser
from tstitch_cli.trajectory import Batch

COSTS = {"small": 1.0, "large": 10.0}


def work_for(toy: Family) -> Work:
    planned = tuple(PlannedDenoiser(entry.name, entry.source, None) for entry in toy.entries)
    return Work(planned, toy.setting, ((1, 10),), (("small", 4), ("large", 6)))


def asked(folder: Path, *, count: int = 1, overwrite: bool = False) -> Request:
    return Request((Prompt("bag"), Prompt("dress")), folder, count=count, seed=3, overwrite=overwrite)


def draw_all(toy: Family, clock: FakeClock, folder: Path, *, count: int, overwrite: bool = False) -> list[Drawn]:
    return list(draw(toy, work_for(toy), asked(folder, count=count, overwrite=overwrite), clock))


def test_pictures_are_named_by_index_and_drawn_in_batches(tmp_path: Path) -> None:
    clock = FakeClock()
    drawn = draw_all(family(clock, COSTS), clock, tmp_path, count=3)
    assert [call.pictures for call in drawn] == [2, 2, 2]
    names = [f"{i:06d}.png" for i in range(6)]
    assert [path.name for call in drawn for path in call.paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "manifest.jsonl"]
    assert all(call.realised == ("small",) * 4 + ("large",) * 6 for call in drawn)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    clock = FakeClock()
    for folder in ("a", "b"):
        draw_all(family(clock, COSTS), clock, tmp_path / folder, count=2)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_picture_tells_how_it_was_made_and_is_drawn_again_exactly(tmp_path: Path) -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    draw_all(toy, clock, tmp_path, count=2)
    for index in range(4):
        image = Image.open(tmp_path / f"{index:06d}.png")
        made = provenance.read(tmp_path / f"{index:06d}.png")
        assert (made.index, made.seed, made.position) == (index, 3, index % 2)
        assert made.prompt == ("bag" if index < 2 else "dress")
        assert made.allocation == (("small", 4), ("large", 6))
        (again,) = redraw(toy, made, clock)
        assert again.tobytes() == image.tobytes()


def test_a_prompt_may_have_its_own_count_seed_and_noise(tmp_path: Path) -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    prompts = (Prompt("bag", count=1), Prompt("dress", seed=9), Prompt("coat"))
    for folder, seed in (("mixed", 3), ("nine", 9)):
        given = prompts if folder == "mixed" else tuple(replace(prompt, seed=None) for prompt in prompts)
        list(draw(toy, work_for(toy), Request(given, tmp_path / folder, count=2, seed=seed), clock))
    mixed = [provenance.read(tmp_path / "mixed" / f"{i:06d}.png") for i in range(5)]
    assert [(made.prompt, made.seed) for made in mixed] == [("bag", 3)] + [("dress", 9)] * 2 + [("coat", 3)] * 2
    same = [
        (tmp_path / "mixed" / f"{i:06d}.png").read_bytes() == (tmp_path / "nine" / f"{i:06d}.png").read_bytes()
        for i in range(5)
    ]
    assert same == [False, True, True, False, False]


def test_pictures_with_and_without_a_negative_prompt_are_never_in_one_call() -> None:
    prompts = (Prompt("a"), Prompt("b", negative_prompt="x"), Prompt("c"), Prompt("d", negative_prompt=""))
    cut = Request(prompts, Path(), count=1).batches(3)
    assert [[picture.prompt for picture in pictures] for pictures in cut] == [["a", "c"], ["b", "d"]]
    assert batch_of(cut[0]).negative_prompts is None
    assert batch_of(cut[1]).negative_prompts == ("x", "")


def test_warm_up_calls_who_takes_part_and_no_one_else() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 1.0, "middle": 3.0, "large": 10.0})
    warm_up(toy, work_for(toy), Batch(("bag",), (0,)), clock)
    assert clock.now == pytest.approx(2 * 1.0 + 2 * 10.0)


def test_indices_count_through_the_prompts() -> None:
    pictures = Request((Prompt("a"), Prompt("b", count=1)), Path(), count=2).pictures
    assert [(picture.index, picture.prompt) for picture in pictures] == [(0, "a"), (1, "a"), (2, "b")]


def test_a_name_with_a_time_cannot_draw() -> None:
    with pytest.raises(UsageError, match="dit-s is only a name with a time"):
        entries_of([PlannedDenoiser("dit-s", "", None)])


def test_a_sweep_goes_from_the_large_denoiser_alone_to_the_small_one_alone() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    request = Request((Prompt("bag"), Prompt("dress"), Prompt("coat")), Path())
    columns = list(sweep(toy, work_for(toy), request.batches(2), clock))
    assert [column.fraction for column in columns] == [tenth / 10 for tenth in range(11)]
    assert [column.seconds for column in columns] == pytest.approx([2 * (100 - 9 * tenth) for tenth in range(11)])
    assert {len(column.images) for column in columns} == {3}
    assert columns[0].images[0].tobytes() != columns[-1].images[0].tobytes()


def test_a_sweep_may_have_fewer_columns() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    pictures = Request((Prompt("bag"),), Path()).batches(2)
    some = list(sweep(toy, work_for(toy), pictures, clock, tenths=(0, 7)))
    whole = list(sweep(toy, work_for(toy), pictures, clock))
    assert [column.fraction for column in some] == [0.0, 0.7]
    assert [c.images[0].tobytes() for c in some] == [whole[tenth].images[0].tobytes() for tenth in (0, 7)]
