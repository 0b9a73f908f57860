"""Training: a run that was cut and resumed equals one that was not; the whole command in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from tests.garments import fashion_mnist_of_noise
from tstitch_cli.errors import UsageError
from tstitch_cli.training import fashion_mnist
from tstitch_cli.training.family import SCHEDULES, SIZES, Family
from tstitch_cli.training.loop import Schedule, examples_drawn, train


class Regression:
    """A recipe in a line: fit y = x with a linear layer."""

    name = "regression"
    schedule = Schedule(batches=40, batch_size=8, learning_rate=0.05, warmup=4)
    examples = 100

    def __init__(self, stop_after: int | None = None) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(3, 3)
        self.left = stop_after

    def compile(self) -> None:
        raise AssertionError("not asked for")

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        x = torch.randn(len(indices), 3, generator=draw)
        error: torch.Tensor = self.model(x) - x
        return error.square().mean()


def test_a_cut_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tstitch_cli.training.loop.CHECKPOINT_SECONDS", -1.0)
    whole, record = train(Regression(), tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train(Regression(stop_after=17), tmp_path / "cut.pt")
    resumed, _ = train(Regression(), tmp_path / "cut.pt")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert record.final_loss < record.losses[0]
    assert record.parameters == 12


def test_a_held_rate_falls_only_at_the_end() -> None:
    schedule = Schedule(batches=100, batch_size=1, learning_rate=1.0, warmup=10, hold=0.7)
    assert {schedule.rate(i) for i in range(10, 70)} == {1.0}
    assert schedule.rate(71) < 1.0
    assert schedule.rate(99) < 0.01


def test_rates_warm_up_and_fall_to_zero() -> None:
    schedule = Schedule(batches=1000, batch_size=1, learning_rate=1.0, warmup=100)
    assert schedule.rate(0) == pytest.approx(0.01)
    assert schedule.rate(99) == pytest.approx(1.0)
    assert schedule.rate(999) < 1e-4
    assert all(schedule.rate(i) >= schedule.rate(i + 1) for i in range(100, 999))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return fashion_mnist_of_noise(tmp_path / "data")


def test_pictures_are_padded_and_scaled(data: Path) -> None:
    pictures = fashion_mnist.load(data, "train")
    assert pictures.pixels.shape == (40, 1, 32, 32)
    assert pictures.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    batch = pictures.batch(torch.tensor([3]))
    assert batch[0, 0, 0, 0] == -1.0
    assert -1.0 <= batch.min() <= batch.max() <= 1.0


def test_missing_data_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Fashion-MNIST") as caught:
        fashion_mnist.find(str(tmp_path))
    assert "dataset-fashion-mnist" in str(caught.value.hint)


@pytest.mark.slow
def test_the_whole_family_trains_in_miniature(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: Schedule(2, 4, s.learning_rate) for name, s in SCHEDULES.items()}
    monkeypatch.setattr("tstitch_cli.training.family.SCHEDULES", small)
    family = Family(data, tmp_path / "out", tmp_path / "work", fast=False)
    family.train(SCHEDULES, lambda part: lambda done, total, loss: None)
    from tstitch_cli.networks.class_conditional import ClassConditionalPipeline

    for name in SIZES:
        record = yaml.safe_load((tmp_path / "out" / name / "training.yaml").read_text())
        assert record["schedule"]["batches"] == 2
        assert record["parameters"] > 0
    from diffusers import AutoModel

    transformer = AutoModel.from_pretrained(str(tmp_path / "out" / "fashion-s"), subfolder="transformer")
    pipeline = ClassConditionalPipeline.from_pretrained(tmp_path / "out", transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline([0, 9], num_inference_steps=2).images[1].size == (32, 32)


class Seen:
    """Trains one number, and remembers which examples it was shown."""

    name, examples = "seen", 1000

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.model = schedule, torch.nn.Linear(1, 1)
        self.indices: list[int] = []

    def compile(self) -> None:
        """Nothing to do."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        self.indices += indices.tolist()
        return self.model(torch.randn(4, 1, generator=draw)).square().mean()


def test_what_the_batches_draw_is_known_before(tmp_path: Path) -> None:
    recipe = Seen(Schedule(3, 8, 1e-3, warmup=1))
    train(recipe, tmp_path / "x.pt", seed=7)
    assert examples_drawn(recipe.schedule, recipe.examples, 7).tolist() == sorted(set(recipe.indices))
    assert examples_drawn(Schedule(500, 64, 1e-3), 50, 0).tolist() == list(range(50))
