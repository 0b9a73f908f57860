"""How good the bundled family's pictures are, and what they cost: Frechet distance, class accuracy, time.

    python -m tests.benchmarks.quality --out tests/benchmarks/results/quality.json

Rows: each denoiser alone, and fashion-s for the first 20, 40, 60, 80 % of the steps, then fashion-xl (0 and 100 % are
the two alone).

Protocol: 5,000 pictures, 500 a class: picture i is of class i % 10, its noise from (seed 0, index i), in the family's
default setting (DDIM, 20 steps, guidance 1.25), drawn in batches of 250. They are the 8-bit pictures that would be
saved, against the 10,000 test pictures of Fashion-MNIST, in the 64 features of the bundled classifier; the distance
is that of `tstitch evaluate`, in double precision. Two floors stand beside it: 5,000 real training pictures, the first
500 of each class, and what the autoencoder makes of them, which is the best that any denoiser can reach. (The
classifier was trained on the training pictures, so its accuracy on them says little.)

The spread is the standard deviation over 5 disjoint subsets of 1,000 pictures. The subsets' mean is not the headline:
smaller samples are biased upward.

Time is measured apart, in calls of 8 pictures, decoding included, 5 of each row in randomly ordered rounds.

What each row's pictures are like is kept in the folder --work, by a digest of all that decides it, so a run that was
cut goes on where it was. --pictures 500 is a quick try; --time-ratio measures only the steps of fashion-s and
fashion-xl against each other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import frechet
from tests.benchmarks.common import (
    BASE,
    LARGE,
    SMALL,
    Estimate,
    Sample,
    arguments,
    estimate,
    interleaved,
    load_family,
    machine,
    markdown,
    positive,
    ratio_of_means,
    save,
    start,
)
from tstitch_cli.allocation import Allocation, expand, runs, whole_steps
from tstitch_cli.clocks import clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.components import digest_of
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import UsageError
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.training import fashion_mnist
from tstitch_cli.trajectory import Batch, run

SEED = 0
TENTHS = (2, 4, 6, 8)
SUBSETS = 5
TIMED_BATCH, TIMED_ROUNDS = 8, 5
RATIO_ROUNDS = 20


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    fraction: float | None
    """Share of the steps that fashion-s takes before fashion-xl; None where it is something else."""
    frechet: float
    subsets: Sample
    """Frechet distances of the disjoint subsets."""
    accuracy: float
    call_s: Sample | None
    """Seconds of calls of 8 pictures; None for pictures that no denoiser drew."""

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Line:
        """The line of a report."""
        call_s = plain["call_s"]
        return cls(**plain | {"subsets": Sample(**plain["subsets"]), "call_s": Sample(**call_s) if call_s else None})


def rows(steps: int) -> dict[str, tuple[float | None, Allocation]]:
    """Name -> (fraction of fashion-s, allocation) of every row, as the table lists them."""
    found: dict[str, tuple[float | None, Allocation]] = {
        SMALL: (1.0, ((SMALL, steps),)),
        BASE: (None, ((BASE, steps),)),
        LARGE: (0.0, ((LARGE, steps),)),
    }
    for tenths in TENTHS:
        allocation = runs((SMALL, LARGE), whole_steps((tenths, 10 - tenths), steps))
        found[f"{SMALL} {tenths * 10} %, then {LARGE}"] = (tenths / 10, allocation)
    return found


def table(lines: Sequence[Line]) -> str:
    """The lines in Markdown, the time of a picture in ms and as a share of fashion-xl's."""
    largest = next((line.call_s.mean for line in lines if line.name == LARGE and line.call_s), None)
    return markdown(
        ("pictures by", "Fréchet distance", "class accuracy", "ms a picture", f"of {LARGE}"),
        [
            (
                line.name,
                f"{line.frechet:.2f} ± {line.subsets.std:.2f}",
                f"{line.accuracy:.1%}",
                f"{line.call_s.mean / TIMED_BATCH * 1e3:.1f} ± {line.call_s.std / TIMED_BATCH * 1e3:.1f}"
                if line.call_s
                else "",
                f"{line.call_s.mean / largest:.0%}" if line.call_s and largest else "",
            )
            for line in lines
        ],
    )


def verdicts(lines: Sequence[Line]) -> list[str]:
    """Whether the three sizes are as far apart as they should be."""
    by_name = {line.name: line.frechet for line in lines}
    small, base, large = by_name[SMALL], by_name[BASE], by_name[LARGE]
    between = "lies between them" if large < base < small else "does not lie between them"
    return [
        f"{SMALL} is {small / large:.2f} times as far from the test pictures as {LARGE} (goal at least 2 times)",
        f"{BASE} {between} ({LARGE} {large:.2f}, {BASE} {base:.2f}, {SMALL} {small:.2f})",
    ]


class _Study:
    """The pictures of every row and of the floors, described; those of earlier runs are read from `work`."""

    def __init__(self, family: Family, data: Path, work: Path, count: int, batch_size: int) -> None:
        self.family, self.data, self.work = family, data, work
        self.count, self.batch_size = count, batch_size
        self.classifier = ClassifierFeatures("fashion")
        host = family.entries[-1]
        self.digests = {
            part: digest_of(replace(host, source=host.parts, subfolder=part)) for part in ("classifier", "vae")
        }

    def test(self) -> frechet.Described:
        """All test pictures."""
        return self._kept("test", {}, lambda: fashion_mnist.load(self.data, "test").pixels)

    def training(self) -> frechet.Described:
        """Real training pictures."""
        return self._kept("training", {"count": self.count}, self._training_pixels)

    def reconstructions(self) -> frechet.Described:
        """The same pictures, encoded and decoded, in the 8 bits of saved pictures."""
        decides = {"count": self.count, "vae": self.digests["vae"], "batch_size": self.batch_size}
        return self._kept("reconstructions", decides, self._reconstructed)

    def drawn(self, name: str, allocation: Allocation) -> frechet.Described:
        """The pictures of a row."""
        taking_part = {denoiser for denoiser, _ in allocation}
        decides = {
            "allocation": allocation,
            "setting": asdict(self.family.setting),
            "seed": SEED,
            "count": self.count,
            "vae": self.digests["vae"],
            "weights": {denoiser: self.family.weights[denoiser] for denoiser in sorted(taking_part)},
        }
        return self._kept(name, decides, lambda: self._draw(name, allocation))

    def _kept(self, name: str, decides: dict[str, Any], pixels: Callable[[], torch.Tensor]) -> frechet.Described:
        """`decides` is all that the pictures depend on; the classifier is added."""
        text = json.dumps(decides | {"classifier": self.digests["classifier"]}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        stem = "-".join("".join(c if c.isalnum() else " " for c in name).split())
        return frechet.kept(self.work / f"{stem}-{key}.npz", lambda: frechet.describe(self.classifier, pixels()))

    def _training_pixels(self) -> torch.Tensor:
        pictures = fashion_mnist.load(self.data, "train")
        return pictures.pixels[frechet.in_turn(pictures.labels, self.count)]

    @torch.inference_mode()
    def _reconstructed(self) -> torch.Tensor:
        pipeline, found = self.family.pipeline, []
        pixels = self._training_pixels()
        for first in range(0, self.count, self.batch_size):
            some = pixels[first : first + self.batch_size].to(self.family.device)
            pictures = (some / 127.5 - 1.0).to(pipeline.vae.dtype)
            again = pipeline.vae.decode(pipeline.vae.encode(pictures).latent_dist.mode()).sample
            found.append(frechet.pixels_of(pipeline.image_processor.postprocess(again, output_type="pil")))
        return torch.cat(found)

    def _draw(self, name: str, allocation: Allocation) -> torch.Tensor:
        clock, turns = clock_for(self.family.device), expand(allocation)
        prompts, began, found = self.family.example_prompts(self.count), time.perf_counter(), []
        for first in range(0, self.count, self.batch_size):
            indices = tuple(range(first, min(first + self.batch_size, self.count)))
            batch = Batch(tuple(prompts[i] for i in indices), indices, SEED)
            found.append(frechet.pixels_of(run(self.family, batch, turns, clock).images))
            talk.print(f"{name}: {indices[-1] + 1} of {self.count}, {time.perf_counter() - began:.0f} s")
        return torch.cat(found)


def call_seconds(family: Family, allocations: dict[str, Allocation], rounds: int) -> dict[str, Sample]:
    """Seconds of calls of 8 pictures of every row, interleaved, after a short call of every denoiser."""
    batch = Batch(family.example_prompts(TIMED_BATCH), tuple(range(TIMED_BATCH)), SEED)
    clock, seconds = clock_for(family.device), {name: list[float]() for name in allocations}
    for denoiser in family.denoisers:
        run(family, batch, denoiser, clock, steps=2)
    for name in interleaved(list(allocations), rounds, SEED):
        seconds[name].append(run(family, batch, expand(allocations[name]), clock).total_s)
    return {name: Sample.of(values) for name, values in seconds.items()}


def step_ratio(family: Family, rounds: int) -> tuple[dict[str, Sample], Estimate]:
    """Seconds of a step of fashion-s and of fashion-xl, one value a call of 8 pictures, and how many times longer
    the second takes.
    """
    batch = Batch(family.example_prompts(TIMED_BATCH), tuple(range(TIMED_BATCH)), SEED)
    clock, seconds = clock_for(family.device), {SMALL: list[float](), LARGE: list[float]()}
    for name in seconds:
        run(family, batch, name, clock)
    for name in interleaved(list(seconds), rounds, SEED):
        seconds[name].append(sum(run(family, batch, name, clock).evaluations_s) / family.setting.steps)
    samples = {name: Sample.of(values) for name, values in seconds.items()}
    return samples, estimate(ratio_of_means, seconds[LARGE], seconds[SMALL])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=positive, default=5000, help="pictures of every row, a multiple of 50")
    parser.add_argument("--batch-size", type=positive, default=250, help="pictures drawn at once")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="where finished rows are kept")
    parser.add_argument("--data", help="folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--device", default="cpu", help="where to draw (default: cpu)")
    parser.add_argument("--time-ratio", action="store_true", help="measure only the steps of S and XL")
    parser.add_argument("--rounds", type=positive, help="timed calls of each row (5; 20 with --time-ratio)")
    given = parser.parse_args()
    if given.pictures % (SUBSETS * frechet.CLASSES) or given.pictures > 50_000:
        raise UsageError(f"{given.pictures} pictures", hint="give a multiple of 50, at most 50,000")
    family = load_family((SMALL, BASE, LARGE), device=given.device, batch_size=given.batch_size)
    if given.time_ratio:
        _report_ratio(family, given.rounds or RATIO_ROUNDS, given.out)
    else:
        data = fashion_mnist.find(given.data)
        study = _Study(family, data, given.work, given.pictures, given.batch_size)
        _report_quality(study, given.rounds or TIMED_ROUNDS, given.out)


def _report_quality(study: _Study, rounds: int, out: Path | None) -> None:
    facts = machine(study.family)
    test, wanted = study.test(), rows(study.family.setting.steps)
    times = call_seconds(study.family, {name: allocation for name, (_, allocation) in wanted.items()}, rounds)

    def line(name: str, fraction: float | None, described: frechet.Described, call_s: Sample | None) -> Line:
        return Line(
            name=name,
            fraction=fraction,
            frechet=frechet.distance(test.features, described.features),
            subsets=Sample.of(frechet.subset_distances(test.features, described.features, SUBSETS)),
            accuracy=frechet.accuracy(described),
            call_s=call_s,
        )

    lines = [
        line(name, fraction, study.drawn(name, allocation), times[name])
        for name, (fraction, allocation) in wanted.items()
    ]
    floors = [
        line("(real training pictures)", None, study.training(), None),
        line("(their reconstructions)", None, study.reconstructions(), None),
    ]
    print(table([*lines, *floors]), "", *verdicts(lines), sep="\n")
    protocol = {
        "pictures": study.count,
        "batch_size": study.batch_size,
        "seed": SEED,
        "subsets": SUBSETS,
        "against": f"{len(test.predicted):,} test pictures of Fashion-MNIST",
        "setting": asdict(study.family.setting),
        "timed_batch": TIMED_BATCH,
        "timed_rounds": rounds,
        "digests": study.digests,
    }
    results = {"lines": [asdict(line) for line in lines], "floors": [asdict(line) for line in floors]}
    save(out, "quality", facts, protocol, results)


def _report_ratio(family: Family, rounds: int, out: Path | None) -> None:
    facts = machine(family)
    samples, ratio = step_ratio(family, rounds)
    lines = [(name, f"{s.mean * 1e3:.2f} ± {s.std * 1e3:.2f}") for name, s in samples.items()]
    print(markdown(("denoiser", f"ms a step, {TIMED_BATCH} pictures"), lines), "", sep="\n")
    interval = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
    print(f"time per step 1 : {ratio.value:.2f} ({interval}; goal at least 1 : 6)")
    protocol = {"seed": SEED, "rounds": rounds, "batch_size": TIMED_BATCH, "setting": asdict(family.setting)}
    results = {"step_s": {name: asdict(s) for name, s in samples.items()}, "ratio": asdict(ratio)}
    save(out, "time ratio", facts, protocol, results)


if __name__ == "__main__":
    start(main)
