"""Whether finetuning each denoiser on its own steps alone (appendix A.12 of the paper) makes better pictures.

    python -m tests.benchmarks.finetune --out tests/benchmarks/results/finetune.json

The bundled family stitched as in the paper's appendix, fashion-s, -b and -xl for 50, 30 and 20 % of the steps. Three
rows: as they are; each denoiser finetuned on the timesteps that its steps cover; and each finetuned on all timesteps,
for just as many batches of the same pictures and noise, so that the two differ in the timesteps alone.

Protocol: 600, 400 and 250 batches of 256 for fashion-s, -b and -xl at rates of 1e-4, 3e-5 and 3e-5 that fall along a
cosine, EMA, bfloat16 autocast; Fashion-MNIST's training pictures, encoded once. The pictures of each row are 5,000 in
the family's default setting (DDIM, 20 steps, guidance 1.25), the same classes and noise for all; against the 10,000
test pictures, in the features of the bundled classifier.
Intervals are the bootstrap's over pictures, the same ones for all rows, so that what differs is told from chance.
Beside it stands the loss of each denoiser on test pictures, at the timesteps of its own steps.

All that is finished is kept in the folder --work, and a run that was cut goes on where it was. --shorten 0.01
--pictures 50 is a quick try.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.benchmarks import frechet
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
from tstitch_cli.allocation import Allocation, expand, runs, whole_steps
from tstitch_cli.clocks import clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.training import fashion_mnist
from tstitch_cli.training.conditions import Conditions
from tstitch_cli.training.datasets import Dataset, find, of_fashion_mnist
from tstitch_cli.training.finetune import Options, Student
from tstitch_cli.training.loop import train
from tstitch_cli.training.spans import Spans, everything
from tstitch_cli.trajectory import Batch, run

SHARES = (0.5, 0.3, 0.2)
TRAINING = {
    SMALL: Options(batches=600, batch_size=256, rate=1e-4),
    BASE: Options(batches=400, batch_size=256, rate=3e-5),
    LARGE: Options(batches=250, batch_size=256, rate=3e-5),
}
"""In tries of 40 batches, a rate of 1e-4 raised the loss of fashion-b on its own steps."""
NONE, OWN, ALL = "as they are", "finetuned on their own steps", "finetuned on all timesteps"
SEED = 1000
"""Of the pictures; none of the choices made in training has seen it."""
RESAMPLES = 500
JUDGED = 2048
"""Test pictures on which the loss is measured."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    frechet: Estimate
    against: Estimate | None
    """How much farther than the pictures of the denoisers as they are; None for those themselves."""
    accuracy: float
    losses: dict[str, float]
    """Of each denoiser on test pictures, at the timesteps of its own steps."""


@dataclass(frozen=True)
class Trained:
    """The denoisers of one line, and their losses."""

    weights: dict[str, dict[str, torch.Tensor]]
    losses: dict[str, float]


def trained(
    family: Family,
    line: str,
    allocation: Allocation,
    data: Dataset,
    test: Dataset,
    training: dict[str, Options],
    work: Path,
) -> Trained:
    """The denoisers of `line`, trained where they have not been, each loaded, trained and let go in turn."""
    weights, losses = {}, {}
    counts = (1,) * family.setting.steps
    for name, _ in allocation:
        student = Student(family.entries, family.setting, name, torch.float32)
        own = student.spans(allocation, counts)
        model: nn.Module = student.denoiser
        if line != NONE:
            options = training[name]
            spans = own if line == OWN else everything(student.entry.noise)
            conditions = Conditions(student.interview, data.captions)
            latents = student.latents(data, work, lambda done, of: _tell("encoding", done, of))
            recipe = student.recipe(spans, latents, conditions, options.schedule)
            checkpoint = work / f"{name}-{_key(line, options)}.pt"
            model, _ = train(
                recipe,
                checkpoint,
                seed=options.seed,
                fast=options.fast,
                progress=partial(_trained_so_far, f"{name} {line}"),
            )
        losses[name] = held_out(student, model, own, test, work)
        talk.print(f"{name} {line}: loss {losses[name]:.5f} on test pictures, on its own steps", markup=False)
        weights[name] = deepcopy(model.state_dict())
    return Trained(weights, losses)


@torch.no_grad()
def held_out(student: Student, model: nn.Module, spans: Spans, test: Dataset, work: Path) -> float:
    """The mean loss of `model` over test pictures at the timesteps of `spans`, the same draws for every model."""
    conditions = Conditions(student.interview, test.captions)
    latents = student.latents(test, work, lambda done, of: None)
    state = deepcopy(student.denoiser.state_dict())
    student.denoiser.load_state_dict(model.state_dict())
    recipe = student.recipe(spans, latents, conditions, Options().schedule)
    draw = torch.Generator().manual_seed(SEED)
    losses = [recipe.loss(each, draw).item() for each in torch.arange(len(latents)).split(256)]
    student.denoiser.load_state_dict(state)
    return float(np.mean(losses))


def described(
    family: Family,
    made: Trained,
    line: str,
    allocation: Allocation,
    count: int,
    training: dict[str, Options],
    work: Path,
) -> frechet.Described:
    """The pictures of `line`, those that have not been are drawn and described."""
    for name, state in made.weights.items():
        family.denoisers[name].load_state_dict(state)
    prompts, turns = family.example_prompts(count), expand(allocation)
    extractor, clock = ClassifierFeatures(family.latent_space), clock_for(family.device)
    decides = (family.weights, family.setting, allocation, {} if line == NONE else training)

    def draw(numbers: tuple[int, ...]) -> frechet.Described:
        batch = Batch(tuple(prompts[i] for i in numbers), numbers, SEED)
        images = run(family, batch, turns, clock).images
        talk.print(f"drawing {line}: {numbers[-1] + 1} of {count}", markup=False)
        return frechet.describe(extractor, frechet.pixels_of(images))

    parts = [
        frechet.kept(work / f"{_key(line, decides, numbers)}.npz", partial(draw, numbers))
        for indices in torch.arange(count).split(family.setting.batch_size)
        if (numbers := tuple(indices.tolist()))
    ]
    return frechet.Described(
        torch.cat([part.features for part in parts]), torch.cat([part.predicted for part in parts])
    )


def compared(real: torch.Tensor, drawn: dict[str, frechet.Described]) -> dict[str, tuple[Estimate, Estimate | None]]:
    """The distance of every line, and what it is more than the first line's, with 95 % intervals."""
    first = next(iter(drawn))
    values = {name: frechet.distance(real, each.features) for name, each in drawn.items()}
    to_real = _Distance(real.numpy())
    draw = np.random.default_rng(0)
    count = len(drawn[first].features)
    sampled: dict[str, list[float]] = {name: [] for name in drawn}
    for _ in range(RESAMPLES):
        chosen = draw.integers(count, size=count)
        for name, each in drawn.items():
            sampled[name].append(to_real(each.features.numpy()[chosen]))
    many = {name: np.asarray(each) for name, each in sampled.items()}
    found: dict[str, tuple[Estimate, Estimate | None]] = {}
    for name in drawn:
        # A resample has fewer different pictures, which moves every distance up; about its own mean it is as wide.
        spread = many[name] - many[name].mean()
        more = None if name == first else _about(values[name] - values[first], many[name] - many[first])
        found[name] = (_about(values[name], spread + values[name]), more)
    return found


def _about(value: float, sampled: Floats) -> Estimate:
    low, high = np.quantile(sampled, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


class _Distance:
    """The Frechet distance from one set of features (N, F), its moments taken once for many comparisons."""

    def __init__(self, real: Floats) -> None:
        self.mean, self.covariance = real.mean(0), np.cov(real, rowvar=False)
        values, vectors = np.linalg.eigh(self.covariance)
        self.root = (vectors * np.sqrt(values.clip(0))) @ vectors.T

    def __call__(self, drawn: Floats) -> float:
        covariance = np.cov(drawn, rowvar=False)
        # trace (S_1 S_2)^(1/2) from the eigenvalues of the symmetric S_1^(1/2) S_2 S_1^(1/2), which are the same.
        both = np.linalg.eigvalsh(self.root @ covariance @ self.root).clip(0)
        shift = self.mean - drawn.mean(0)
        return float(shift @ shift + np.trace(self.covariance) + np.trace(covariance) - 2 * np.sqrt(both).sum())


def table(lines: Sequence[Line]) -> str:
    """The lines in Markdown."""
    return markdown(
        ("denoisers", "Fréchet distance", "against none", "class accuracy", *(f"loss of {n}" for n in lines[0].losses)),
        [
            (
                line.name,
                _interval(line.frechet, ".2f"),
                "" if line.against is None else _interval(line.against, "+.2f"),
                f"{line.accuracy:.1%}",
                *(f"{loss:.5f}" for loss in line.losses.values()),
            )
            for line in lines
        ],
    )


def verdicts(lines: Sequence[Line], own_against_all: Estimate) -> list[str]:
    """Whether it improved, and whether it beat training on all timesteps, as far as the intervals tell."""
    own = next(line.against for line in lines if line.name == OWN)
    assert own is not None
    return [
        f"finetuning on the own steps {_moved(own)} the distance: {_interval(own, '+.2f')} (goal: below 0)",
        f"against finetuning on all timesteps it {_moved(own_against_all)} it: {_interval(own_against_all, '+.2f')} "
        "(goal: below 0)",
    ]


def _moved(change: Estimate) -> str:
    return "lowered" if change.high < 0 else "raised" if change.low > 0 else "did not measurably change"


def _interval(found: Estimate, form: str) -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _key(line: str, *decides: object) -> str:
    text = repr((line, *decides))
    return f"{'-'.join(line.split())}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _trained_so_far(what: str, done: int, of: int, loss: float) -> None:
    _tell(f"{what}, loss {loss:.4f}", done, of)


def _tell(doing: str, done: int, of: int) -> None:
    """About twenty times in all; `done` grows by one or by some hundreds."""
    if done == of or done % max(1, of // 20) < min(256, of // 50 + 1):
        talk.print(f"{doing}: {done} of {of}", markup=False)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shorten", type=float, default=1.0, help="share of the batches to train for")
    parser.add_argument("--pictures", type=positive, default=5000, help="pictures of every row, a multiple of 10")
    parser.add_argument("--work", type=Path, default=Path("build/finetune"), help="where finished parts are kept")
    parser.add_argument("--data", type=Path, help="folder with Fashion-MNIST's four .gz files")
    given = parser.parse_args()
    training = {
        name: replace(each, batches=max(2, round(each.batches * given.shorten))) for name, each in TRAINING.items()
    }
    family = load_family((SMALL, BASE, LARGE), batch_size=min(250, given.pictures))
    facts = machine(family)
    allocation = runs((SMALL, BASE, LARGE), whole_steps(SHARES, family.setting.steps))
    data = find(given.data, family.entries[0].conditioning.labels)
    pictures = fashion_mnist.load(fashion_mnist.find(None if given.data is None else str(given.data)), "test")
    judged = _test(pictures, min(JUDGED, len(pictures)))
    drawn: dict[str, frechet.Described] = {}
    losses: dict[str, dict[str, float]] = {}
    for line in (NONE, OWN, ALL):
        made = trained(family, line, allocation, data, judged, training, given.work)
        losses[line] = made.losses
        drawn[line] = described(family, made, line, allocation, given.pictures, training, given.work)
    real = frechet.kept(
        given.work / f"{_key('test', judged.digest)}.npz",
        lambda: frechet.describe(ClassifierFeatures(family.latent_space), pictures.pixels),
    ).features
    found = compared(real, drawn)
    lines = [
        Line(name, *found[name], accuracy=frechet.accuracy(each), losses=losses[name]) for name, each in drawn.items()
    ]
    own_against_all = compared(real, {ALL: drawn[ALL], OWN: drawn[OWN]})[OWN][1]
    assert own_against_all is not None
    print(table(lines), "", *verdicts(lines, own_against_all), sep="\n")
    protocol: dict[str, Any] = {
        "allocation": allocation,
        "setting": asdict(family.setting),
        "training": {name: asdict(each) for name, each in training.items()},
        "pictures": given.pictures,
        "seed": SEED,
        "against": f"{len(pictures):,} test pictures of Fashion-MNIST",
        "judged": len(judged),
        "resamples": RESAMPLES,
        "data": data.words,
    }
    results = {"lines": [asdict(line) for line in lines], "own_against_all": asdict(own_against_all)}
    save(given.out, "finetune", facts, protocol, results)


def _test(pictures: fashion_mnist.Pictures, count: int) -> Dataset:
    some = fashion_mnist.Pictures(pictures.pixels[:count], pictures.labels[:count])
    return of_fashion_mnist(some, f"{count} test pictures of Fashion-MNIST")


if __name__ == "__main__":
    start(main)
