"""What training goes on from: only what rested on the same parts and data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tstitch_cli.training.loop import Progress, Schedule
from tstitch_cli.training.workshop import RECORD, Workshop

QUIET: Progress = lambda done, total, loss: None  # noqa: E731


class Line:
    """Fits a line to a constant, and counts its batches."""

    name, examples = "line", 10

    def __init__(self, batches: int = 4) -> None:
        self.schedule = Schedule(batches, 2, 1e-2, warmup=1)
        torch.manual_seed(0)
        self.model, self.seen = torch.nn.Linear(1, 1), 0

    def compile(self) -> None:
        """Nothing to do."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        self.seen += 1
        return self.model(torch.ones(len(indices), 1)).square().mean()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path / "out", tmp_path / "work", False, "ten numbers", lambda part: [tmp_path / "out" / "base"])
    record(made, "losses: [1.5]\n")
    return made


def record(shop: Workshop, text: str) -> None:
    folder = shop.out / "base"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(f"name: base\n{text}")


def trained(shop: Workshop, batches: int = 4) -> int:
    """Batches that were made."""
    line = Line(batches)
    shop.run(line, QUIET)
    return line.seen


def test_a_checkpoint_is_gone_on_from_while_what_it_rests_on_stays(shop: Workshop) -> None:
    assert [trained(shop), trained(shop), trained(shop, 6)] == [4, 0, 2]
    record(shop, "losses: [2.5]\n")
    assert [trained(shop), trained(shop)] == [4, 0]
    record(shop, "losses: [1.5]\n")
    assert trained(shop) == 4


def test_a_record_that_is_written_again_is_the_same(shop: Workshop) -> None:
    assert trained(shop) == 4
    record(shop, "losses: [1.5]\nseconds: 99.9\nmachine: another, 2 threads\ntest_accuracy: 0.5\n")
    assert trained(shop) == 0


def test_other_data_are_another_training(shop: Workshop) -> None:
    other = Workshop(shop.out, shop.work, False, "twenty numbers", shop.foundation)
    assert [trained(shop), trained(other), trained(other)] == [4, 4, 0]


def test_a_part_that_was_trained_further_for_itself_is_the_same_to_others(shop: Workshop) -> None:
    assert trained(shop) == 4
    record(shop, "seconds: 9\nbefore: {name: base, losses: [1.5]}\n")
    assert trained(shop) == 0


def test_what_was_made_with_a_part_is_kept_while_that_stays(shop: Workshop) -> None:
    made: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"x": torch.full((2,), float(len(made)))}

    base = shop.out / "base"
    assert [shop.kept("latents", base, make)["x"][0].item() for _ in range(2)] == [1.0, 1.0]
    record(shop, "losses: [2.5]\n")
    assert [shop.kept("latents", base, make)["x"][0].item() for _ in range(2)] == [2.0, 2.0]
    other = Workshop(shop.out, shop.work, False, "twenty numbers", shop.foundation)
    assert other.kept("latents", base, make)["x"][0].item() == 3.0
    assert sorted(path.name for path in shop.work.iterdir()) == ["latents.safetensors"]
