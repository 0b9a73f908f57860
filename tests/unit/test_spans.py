"""Which training timesteps a plan gives a denoiser."""

from __future__ import annotations

import pytest
import torch

from tests import toys
from tstitch_cli import schedulers
from tstitch_cli.bridges.matching import Frame, Match
from tstitch_cli.errors import UsageError
from tstitch_cli.training.spans import Spans, everything, spans_of
from tstitch_cli.zoo.entry import Noise

LINEAR = Noise("epsilon", "linear", 1e-4, 0.02)
FLOW = Noise("flow")
SAME = Match(Frame(LINEAR), Frame(LINEAR))
ONCE = (1,) * 20


def timesteps(name: str, steps: int = 20) -> list[float]:
    scheduler = schedulers.build(name, toys.noise().config)
    scheduler.set_timesteps(steps)
    return [float(t) for t in scheduler.timesteps]


def test_spans_of_one_plan_are_disjoint_and_cover_the_trajectory() -> None:
    allocation = (("s", 10), ("b", 6), ("xl", 4))
    spans = {name: spans_of(name, allocation, timesteps("ddim"), ONCE, SAME) for name in ("s", "b", "xl")}
    # DDIM's twenty timesteps are 950, 900 ... 0: the first ten end at 500, after which comes 450.
    assert spans["s"].each == ((450, 950),)
    assert spans["b"].each == ((150, 450),)
    assert spans["xl"].each == ((-1, 150),)
    together = torch.cat([each.whole() for each in spans.values()])
    assert sorted(together.tolist()) == list(range(951))
    assert spans["xl"].words == "0 to 150"


def test_a_denoiser_with_several_runs_has_several_spans() -> None:
    spans = spans_of("s", (("s", 2), ("xl", 16), ("s", 2)), timesteps("ddim"), ONCE, SAME)
    assert spans.each == ((850, 950), (-1, 50))
    drawn = spans.draw(4000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {*range(51), *range(851, 951)}
    # Each timestep is as likely as any other: 100 of the 151 are in the first span.
    assert (drawn > 100).float().mean().item() == pytest.approx(100 / 151, abs=0.03)
    assert spans.words == "0 to 50, 851 to 950"


def test_second_order_pairs_belong_to_their_step() -> None:
    scheduler = schedulers.build("heun", toys.noise().config)
    scheduler.set_timesteps(4)
    found = [float(t) for t in scheduler.timesteps]
    spans = spans_of("late", (("early", 2), ("late", 2)), found, (2, 2, 2, 1), SAME)
    assert spans.each[0][1] == found[4]
    assert spans_of("early", (("early", 2), ("late", 2)), found, (2, 2, 2, 1), SAME).each == ((found[4], found[0]),)


def test_another_schedule_is_matched_at_equal_noise() -> None:
    other = Noise("epsilon", "scaled_linear", 0.00085, 0.012)
    match = Match(Frame(LINEAR), Frame(other))
    spans = spans_of("xl", (("s", 16), ("xl", 4)), timesteps("ddim"), ONCE, match)
    ((after, upto),) = spans.each
    assert after == -1
    assert Frame(other).level(upto) == pytest.approx(Frame(LINEAR).level(150))


def test_a_flow_has_all_times_between() -> None:
    match = Match(Frame(FLOW), Frame(FLOW))
    spans = spans_of("large", (("small", 1), ("large", 1)), [1000.0, 400.0], (1, 1), match)
    assert spans.each == ((0.0, 400.0),)
    drawn = spans.draw(2000, torch.Generator().manual_seed(0))
    assert drawn.min() > 0.0
    assert drawn.max() <= 400.0
    assert drawn.mean().item() == pytest.approx(200.0, abs=10.0)
    both = Spans(((600.0, 1000.0), (0.0, 100.0)), continuous=True).draw(2000, torch.Generator().manual_seed(0))
    assert not ((both > 100.0) & (both <= 600.0)).any()
    assert (both > 600.0).float().mean().item() == pytest.approx(0.8, abs=0.04)


def test_steps_closer_than_timesteps_still_have_one() -> None:
    assert Spans(((3.2, 3.4),), continuous=False).whole().tolist() == [3]


def test_all_timesteps() -> None:
    assert everything(LINEAR).whole().tolist() == list(range(1000))
    assert everything(FLOW).each == ((0.0, 1000.0),)


def test_no_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="gives xl no steps"):
        spans_of("xl", (("s", 20),), timesteps("ddim"), ONCE, SAME)
