"""Which way of adding up the differences predicts best how far an allocation moves the final latent.

    python -m tests.benchmarks.loss --out tests/benchmarks/results/loss.json

Rows: all 66 fractions of fashion-s, fashion-b and fashion-xl in steps of 0.1, small to large, and those in steps of
0.2 in the other orders of `tstitch plan --order any`, DDIM, 10 steps, the family's own guidance. Predictions are made
from agreement along the trajectories of 16 pictures of seed 0, as `tstitch profile` measures it; what they are held
against is the root-mean-square distance of the final latents of 16 pictures of seed 1 from those of fashion-xl alone.

Ways: a step's difference is weighed by how far an error moves the final latent, the shrinking factor taken at the
step's end or at its start, or not at all; the weighed differences are added, or their squares.

Judged by Spearman's rank correlation over the rows, its 95 % interval by the bootstrap over both sets of pictures, and
by how far the prediction is off in size: the standard deviation of the logarithm of measured over predicted.

Then the same for several settings on one scale: the distance from a reference (fashion-xl, DDIM, 100 steps) of rows
of fashion-s and fashion-xl in 5, 10 and 20 steps of DDIM and of DPM-Solver++, predicted from the setting's coarseness
(the distance of fashion-xl alone, seed 0) and the row's loss, added or as the root of the sum of their squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tests.benchmarks.common import (
    BASE,
    LARGE,
    SMALL,
    Estimate,
    Floats,
    arguments,
    load_family,
    machine,
    markdown,
    positive,
    save,
    start,
)
from tstitch_cli.bridges import noise_levels
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import reset
from tstitch_cli.measuring import agreement, latents
from tstitch_cli.planning.combinations import combinations, whole_steps_of_units
from tstitch_cli.planning.orders import ORDERS, SMALL_TO_LARGE, arranged
from tstitch_cli.trajectory import Batch

STEPS, PICTURES, RESAMPLES = 10, 16, 2000
REFERENCE_STEPS = 100
SETTINGS = tuple((scheduler, steps) for scheduler in ("ddim", "dpm++") for steps in (5, 10, 20))
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Way:
    """A way of adding up, and how well it did."""

    name: str
    rank: Estimate
    """Spearman's rank correlation with the measured distance, over the rows."""
    log_std: Estimate
    """Standard deviation of log(measured / predicted) over the rows."""
    scale: float
    """Geometric mean of measured / predicted."""


def spearman(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation of two columns (N,), equal values sharing their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def judged(name: str, predict: Callable[[Floats], Floats], predictors: int, measured: Floats) -> Way:
    """`predict` turns weights of the `predictors` pictures (P,) into predictions (N,); `measured` is (P', N).

    Rows that are measured as nothing have no logarithm, and are left out of what needs one.
    """

    def both(weights: Floats, seen: Floats) -> tuple[float, float, float]:
        predicted, found = predict(weights), seen @ measured
        some = (found > 0) & (predicted > 0)
        logs = np.log(found[some] / predicted[some])
        return spearman(predicted, found), float(logs.std()), float(np.exp(logs.mean()))

    rank, off, scale = both(_even(predictors), _even(len(measured)))
    random = np.random.default_rng(0)
    drawn = np.array([both(_drawn(random, predictors), _drawn(random, len(measured)))[:2] for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Way(name, Estimate(rank, low[0], high[0]), Estimate(off, low[1], high[1]), scale)


def ways_of_adding(taken: Floats, rms: Floats, weights: dict[str, Floats], measured: Floats) -> list[Way]:
    """Every way over the rows `taken` (N, T) of denoisers, of differences `rms` (K, P, T)."""
    found = []
    onehot = [(taken == k).astype(float) for k in range(len(rms))]
    for name, weight in weights.items():
        losses = rms * weight
        per_picture = np.stack([each @ loss.T for each, loss in zip(onehot, losses, strict=True)]).sum(axis=0)
        squares = np.stack([each @ (loss**2).T for each, loss in zip(onehot, losses, strict=True)]).sum(axis=0)
        found += [
            judged(f"sum, {name}", per_picture.__matmul__, rms.shape[1], measured),
            judged(f"root of squares, {name}", partial(_root, squares), rms.shape[1], measured),
        ]
    return found


def table(ways: Sequence[Way]) -> str:
    """The ways in Markdown, the best rank first."""
    ordered = sorted(ways, key=lambda way: -way.rank.value)
    return markdown(
        ("prediction", "rank correlation", "95 % interval", "off in size (log)", "measured / predicted"),
        [
            (
                way.name,
                f"{way.rank.value:.4f}",
                f"{way.rank.low:.4f} to {way.rank.high:.4f}",
                f"{way.log_std.value:.3f} ({way.log_std.low:.3f} to {way.log_std.high:.3f})",
                f"{way.scale:.2f}",
            )
            for way in ordered
        ],
    )


class _Study:
    def __init__(self, pictures: int) -> None:
        self.family = load_family((SMALL, BASE, LARGE))
        self.names = tuple(self.family.denoisers)
        self.pictures = pictures

    def set(self, scheduler: str, steps: int) -> None:
        """From now on, this many steps of this scheduler."""
        self.family = reset(self.family, replace(self.family.setting, scheduler=scheduler, steps=steps))

    def batch(self, seed: int) -> Batch:
        """The pictures of a seed, classes in turn."""
        return Batch(self.family.example_prompts(self.pictures), tuple(range(self.pictures)), seed)

    def final(self, seed: int, taken: Sequence[str] | str) -> Any:
        """(B, C, h, w) final latents."""
        return latents.final(self.family, self.batch(seed), taken)

    def agreement(self, steps: int) -> tuple[Floats, Floats]:
        """rms (K, P, T) of every denoiser, the largest's zero, and the weights (T,), of seed 0."""
        found = agreement.measure(self.family, [self.batch(0)], (1,) * steps)
        assert found is not None
        none = np.zeros((self.pictures, steps))
        rms = [np.array(found.denoisers[n].rms) if n in found.denoisers else none for n in self.names]
        return np.stack(rms), np.array(found.weights)

    def rows(self) -> tuple[Floats, list[str]]:
        """(N, T) denoisers of the rows, and the order of each, equal rows left out."""
        seen: dict[bytes, tuple[Any, str]] = {}
        for order in ORDERS:
            increment = 0.1 if order == SMALL_TO_LARGE else 0.2
            steps = whole_steps_of_units(combinations(len(self.names), increment), STEPS)
            for taken in arranged(order, steps):
                seen.setdefault(taken.tobytes(), (taken, order))
        return np.stack([taken for taken, _ in seen.values()]), [order for _, order in seen.values()]

    def adding(self) -> dict[str, list[Way]]:
        """Every way, over the rows small to large and over those of all orders."""
        self.set("ddim", STEPS)
        rms, end = self.agreement(STEPS)
        levels = noise_levels.of_trajectory(self.family.pipeline.scheduler)
        s = levels[:, 1] / levels[:, 0]
        weights = {
            "weight of the step's end": end,
            "weight of its start": np.abs(np.diff(s)) / np.hypot(1.0, s[:-1]),
            "no weight": np.ones(STEPS),
        }
        taken, orders = self.rows()
        alone = self.final(1, LARGE)
        measured = []
        for done, row in enumerate(taken, 1):
            measured.append(latents.distance(self.final(1, [self.names[k] for k in row]), alone))
            if done % 20 == 0:
                talk.print(f"{done} of {len(taken)} rows")
        apart = np.stack(measured, axis=1)
        usual = np.array([order == SMALL_TO_LARGE for order in orders])
        return {
            "small to large": ways_of_adding(taken[usual], rms, weights, apart[:, usual]),
            "all orders": ways_of_adding(taken, rms, weights, apart),
        }

    def settings(self) -> list[Way]:
        """The ways of putting a setting's coarseness and a row's loss together."""
        self.set("ddim", REFERENCE_STEPS)
        reference = {seed: self.final(seed, LARGE) for seed in (0, 1)}
        coarse, sums, squares, measured = [], [], [], []
        for scheduler, steps in SETTINGS:
            self.set(scheduler, steps)
            coarseness = latents.distance(self.final(0, LARGE), reference[0])
            rms, weights = self.agreement(steps)
            loss = rms[0] * weights
            for share in SHARES:
                count = round(share * steps)
                taken = [SMALL] * count + [LARGE] * (steps - count)
                measured.append(latents.distance(self.final(1, taken), reference[1]))
                coarse.append(coarseness)
                sums.append(loss[:, :count].sum(axis=1))
                squares.append((loss[:, :count] ** 2).sum(axis=1))
            talk.print(f"{steps} steps of {scheduler}")
        c, a, q, apart = np.stack(coarse), np.stack(sums), np.stack(squares), np.stack(measured, axis=1)
        ways: dict[str, Callable[[Floats], Floats]] = {
            "coarseness + sum": lambda seen: (c + a) @ seen,
            "root of squares of coarseness and sum": lambda seen: np.hypot(c @ seen, a @ seen),
            "coarseness + root of squares": lambda seen: c @ seen + _root(q, seen),
            "root of squares of both": lambda seen: np.hypot(c @ seen, _root(q, seen)),
            "sum alone": lambda seen: a @ seen,
        }
        return [judged(name, way, self.pictures, apart) for name, way in ways.items()]


def _root(squares: Floats, seen: Floats) -> Floats:
    found: Floats = np.sqrt(squares @ seen)
    return found


def _even(count: int) -> Floats:
    return np.full(count, 1.0 / count)


def _drawn(random: np.random.Generator, count: int) -> Floats:
    """Weights of as many pictures, drawn with replacement."""
    return np.bincount(random.integers(count, size=count), minlength=count) / count


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=positive, default=PICTURES, help="pictures of either seed")
    given = parser.parse_args()
    study = _Study(given.pictures)
    facts = machine(study.family)
    found = study.adding() | {"several settings": study.settings()}
    for title, ways in found.items():
        print(f"{title}:", table(ways), "", sep="\n")
    protocol = {"pictures": given.pictures, "steps": STEPS, "settings": SETTINGS, "reference_steps": REFERENCE_STEPS}
    save(given.out, "loss", facts, protocol, {title: [asdict(w) for w in ways] for title, ways in found.items()})


if __name__ == "__main__":
    start(main)
