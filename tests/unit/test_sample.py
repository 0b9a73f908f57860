"""Drawing by a plan's row: files, batches, provenance, and the same picture again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.toys import FakeClock, family
from tstitch_cli import provenance
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.sample import Drawn, Work, draw, entries_of, jobs, redraw, sweep, warm_up
from tstitch_cli.schema import PlannedDenoiser
from tstitch_cli.trajectory import Batch

COSTS = {"small": 1.0, "large": 10.0}


def work_for(toy: Family) -> Work:
    planned = tuple(PlannedDenoiser(entry.name, entry.source, None) for entry in toy.entries)
    return Work(planned, toy.setting, ((1, 10),), (("small", 4), ("large", 6)))


def draw_all(toy: Family, clock: FakeClock, folder: Path, *, count: int, overwrite: bool = False) -> list[Drawn]:
    pictures = jobs(["bag", "dress"], count)
    return list(
        draw(toy, work_for(toy), pictures, clock, seed=3, negative_prompt=None, folder=folder, overwrite=overwrite)
    )


def test_pictures_are_named_by_index_and_drawn_in_batches(tmp_path: Path) -> None:
    clock = FakeClock()
    drawn = draw_all(family(clock, COSTS), clock, tmp_path, count=3)
    assert [len(call.images) for call in drawn] == [2, 2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i:06d}.png" for i in range(6)]
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
    images = [image for call in draw_all(toy, clock, tmp_path, count=2) for image in call.images]
    for index, image in enumerate(images):
        made = provenance.read(tmp_path / f"{index:06d}.png")
        assert (made.index, made.seed, made.position) == (index, 3, index % 2)
        assert made.prompt == ("bag" if index < 2 else "dress")
        assert made.allocation == (("small", 4), ("large", 6))
        (again,) = redraw(toy, made, clock)
        assert again.tobytes() == image.tobytes()


def test_an_existing_picture_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    draw_all(toy, clock, tmp_path, count=1)
    with pytest.raises(BadFileError, match="exists already"):
        draw_all(toy, clock, tmp_path, count=1)
    draw_all(toy, clock, tmp_path, count=1, overwrite=True)


def test_warm_up_calls_who_takes_part_and_no_one_else() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 1.0, "middle": 3.0, "large": 10.0})
    warm_up(toy, work_for(toy), Batch(("bag",), (0,)), clock)
    assert clock.now == pytest.approx(2 * 1.0 + 2 * 10.0)


def test_indices_of_jobs() -> None:
    assert jobs(["a", "b"], 2) == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]


def test_a_name_with_a_time_cannot_draw() -> None:
    with pytest.raises(UsageError, match="dit-s is only a name with a time"):
        entries_of([PlannedDenoiser("dit-s", "", None)])


def test_a_sweep_goes_from_the_large_denoiser_alone_to_the_small_one_alone() -> None:
    clock = FakeClock()
    toy = family(clock, COSTS)
    columns = list(sweep(toy, work_for(toy), ["bag", "dress", "coat"], clock, seed=0, negative_prompt=None))
    assert [column.fraction for column in columns] == [tenth / 10 for tenth in range(11)]
    assert [column.seconds for column in columns] == pytest.approx([2 * (100 - 9 * tenth) for tenth in range(11)])
    assert {len(column.images) for column in columns} == {3}
    assert columns[0].images[0].tobytes() != columns[-1].images[0].tobytes()
