"""What the shipped weights of tiny-sd draw, looked at by the judge that ships with them: noise would not pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tstitch_cli import denoisers
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.jobs import prompts
from tstitch_cli.measuring.flops import count, last_arguments
from tstitch_cli.quality.drawing import pixels
from tstitch_cli.quality.features import ClassifierFeatures, Features
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.registry import Zoo

SMALL, LARGE, INK = "tiny-sd-small", "tiny-sd", "tiny-sd-ink"
HALF = 8
"""Captions of combinations that training showed, and as many of held-out ones."""
CAPTIONS = tuple(
    prompt.text for name in ("seen", "unseen") for prompt in prompts.read(prompts.bundled("tiny-sd")[name])[:HALF]
)
ROLLED = (*CAPTIONS[1:], CAPTIONS[0])

Draw = Callable[[str, int], Features]


@pytest.fixture(scope="module")
def family() -> Family:
    setting = Setting(10, "ddim", 3.0, len(CAPTIONS), 64, "float32", "cpu")
    return denoisers.load([Zoo.shipped().resolve(name) for name in (SMALL, LARGE, INK)], setting)


@pytest.fixture(scope="module")
def judge() -> ClassifierFeatures:
    return ClassifierFeatures("tiny-sd")


@pytest.fixture(scope="module")
def draw(family: Family, judge: ClassifierFeatures) -> Draw:
    """What the judge sees in the first so many pictures of CAPTIONS that one denoiser draws."""

    def seen(name: str, pictures: int) -> Features:
        batch = Batch(CAPTIONS[:pictures], tuple(range(pictures)))
        return judge(pixels(run(family, batch, name, HostClock()).images))

    return seen


@pytest.fixture(scope="module")
def by_large(draw: Draw) -> Features:
    return draw(LARGE, len(CAPTIONS))


def hits(judge: ClassifierFeatures, metric: str, captions: tuple[str, ...], seen: Features) -> torch.Tensor:
    """(B,): 1 where a picture shows what its caption asks for as far as `metric` looks, else 0."""
    entry = Zoo.shipped().resolve(LARGE)
    return judge.judge.hits(entry, captions, seen.answers)[:, list(judge.judge.metrics).index(metric)]


def test_the_large_one_draws_what_it_is_told_even_of_what_training_never_showed(
    judge: ClassifierFeatures, by_large: Features
) -> None:
    aligned = hits(judge, "alignment", CAPTIONS, by_large)
    assert aligned.sum() >= 13
    assert aligned[HALF:].sum() >= 5
    # The judge is no yes-man: of other captions it finds the same pictures wrong.
    assert hits(judge, "alignment", ROLLED, by_large).sum() <= 3


def test_the_small_one_alone_draws_most_of_what_it_is_told(judge: ClassifierFeatures, draw: Draw) -> None:
    assert hits(judge, "alignment", CAPTIONS, draw(SMALL, len(CAPTIONS))).sum() >= 8


def test_ink_is_drawn_by_the_one_that_learnt_it_alone(
    judge: ClassifierFeatures, draw: Draw, by_large: Features
) -> None:
    assert hits(judge, "style", CAPTIONS[:4], draw(INK, 4)).tolist() == [1, 1, 1, 1]
    assert hits(judge, "style", CAPTIONS, by_large).sum() == 0


def test_an_evaluation_of_the_small_one_costs_at_most_a_third(family: Family) -> None:
    flops = {}
    for name in (SMALL, LARGE):
        with last_arguments(family.denoisers[name]) as arguments:
            run(family, Batch(CAPTIONS[:1], (0,)), name, HostClock())
        flops[name] = count(family.denoisers[name], arguments)
    small, large = flops[SMALL], flops[LARGE]
    assert small is not None
    assert large is not None
    assert small <= large / 3
