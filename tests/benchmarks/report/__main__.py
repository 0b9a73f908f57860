"""Rebuilds every figure of the report on the bundled family, and its page.

    python -m tests.benchmarks.report --out profiles/report

Under 3 hours on 2 cores; --quick takes fewer pictures and steps and is done in 10 minutes. What was drawn is kept in
--work, so a run that was cut goes on where it was when the same command is given again. --only draws some of the parts
and keeps the others of the page as they were, if they were made at the same scale, in the same setting and here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.common import LARGE, machine, start
from tests.benchmarks.report import building, early, fractions, precision, rivals, rows, trajectories
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Load, Studio
from tests.benchmarks.report.figure import FREE, Figure
from tests.benchmarks.report.page import About
from tests.benchmarks.report.studies import ALL, FULL, QUICK, Scale
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family, load
from tstitch_cli.errors import UsageError
from tstitch_cli.quality import references
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.quality.records import Records, key
from tstitch_cli.quality.statistics import Described, joined
from tstitch_cli.schema import Setting
from tstitch_cli.training import fashion_mnist
from tstitch_cli.zoo.registry import Zoo

PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "rows": rows.figures,
    "fractions": fractions.figures,
    "rivals": rivals.figures,
    "trajectories": trajectories.figures,
    "precision": precision.figures,
}
FAMILY = "fashion"
ABOUT = About(
    f"""# The paper in miniature

Every figure of T-Stitch (arXiv 2402.14167) that can be drawn with the bundled family, and whether tstitch chooses
rightly with it. The family are three class-conditional diffusion transformers of Fashion-MNIST, so numbers cannot be
the paper's; what can be compared is their course. This page is made by the command at its end: the numbers, the
pictures, and what is said to hold and what not, by rules that stand in `tests/benchmarks/report`.

The Fréchet distance is that of `tstitch evaluate`: from the test pictures of Fashion-MNIST, in the features of the
family's classifier; lower is better. Intervals are 95 % (jackknife over ten subsets). Rows of one figure draw the same
pictures from the same noise, so ratios of rows are surer than each of them. "Costs nothing" is a distance of at most
{FREE:.2f} times the large model's; the paper calls 9.03 free where the large model has 9.20, and 10.06 not.""",
    "Pictures are of seed {seed}; profiles and predictions of seed 0.",
)
Test = Callable[[], tuple[Described, torch.Tensor]]


def build(bench: Bench, parts: Sequence[str], facts: dict[str, Any]) -> list[Figure]:
    """Makes `parts` of the report; see `building.build`."""
    makers = {name: partial(make, bench) for name, make in PARTS.items()}
    return building.build(makers, parts, bench.out, bench.studio.stopwatch, facts, ABOUT)


def loader(early_folder: Path) -> Load:
    """Loads the bundled denoisers, and the one that was trained into `early_folder`."""

    def loaded(names: tuple[str, ...], setting: Setting) -> Family:
        zoo = Zoo.load()
        return load([early.entry(early_folder) if name == early.NAME else zoo.resolve(name) for name in names], setting)

    return loaded


def described_test(data: Path, extractor: ClassifierFeatures, work: Path) -> Test:
    """Fashion-MNIST's test pictures, described once, and their classes."""

    @cache
    def described() -> tuple[Described, torch.Tensor]:
        test = fashion_mnist.load(data, "test")
        records, blocks = Records(work / "records"), []
        for number, block in enumerate(test.pixels.split(AT_ONCE)):

            def describe(block: torch.Tensor = block) -> Described:
                made, none = extractor(block.expand(-1, 3, -1, -1)), torch.zeros(len(block), 0)
                return Described(made.features.float(), none, none, none)

            name = key({"test": number, "extractor": extractor.digest})
            blocks.append(records.kept(name, describe))
        return joined(blocks), test.labels

    return described


AT_ONCE = 500


def bundled(scale: Scale, out: Path, work: Path, data: Path, device: str, dtype: str) -> Bench:
    """The bench of the bundled family."""
    defaults = Zoo.load().resolve(LARGE).defaults
    setting = Setting(
        steps=scale.base_steps,
        scheduler=defaults.scheduler,
        guidance=defaults.guidance,
        batch_size=defaults.batch_size,
        size=defaults.size,
        dtype=dtype,
        device=device,
    )
    extractor = ClassifierFeatures(FAMILY)
    file = references.bundled(FAMILY)
    assert file is not None
    reference = references.read(file, extractor, work)
    folder = work / f"early-{scale.early:g}"

    def trained() -> str:
        early.train(data, folder, scale.early, scale.early_pictures)
        return early.NAME

    studio = Studio(loader(folder), extractor, reference, work, scale.at_once)
    return Bench(studio, scale, setting, out, described_test(data, extractor, work), trained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("profiles/report"), help="folder of the page and its pictures")
    parser.add_argument("--work", type=Path, default=Path("build/report"), help="where what was drawn is kept")
    parser.add_argument("--quick", action="store_true", help="few pictures, few steps")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part; may be given again")
    parser.add_argument("--pictures", type=int, help="of every row, a multiple of 200")
    parser.add_argument("--data", help="folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--device", default="cpu", help="where to draw (default: cpu)")
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (default) or float32")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    if given.pictures is not None:
        if given.pictures < 200 or given.pictures % 200:
            raise UsageError(f"{given.pictures} pictures", hint="give a multiple of 200")
        scale = replace(scale, pictures=given.pictures, rows_pictures=given.pictures)
    bench = bundled(scale, given.out, given.work, fashion_mnist.find(given.data), given.device, given.dtype)
    options = "".join((" --quick" * given.quick, f" --pictures {given.pictures}" if given.pictures else ""))
    for name in ("device", "dtype"):
        if (asked := getattr(given, name)) != parser.get_default(name):
            options += f" --{name} {asked}"
    facts = {
        "command": building.command("tests.benchmarks.report", given.out, options),
        "machine": machine(bench.studio.load(ALL, bench.setting)),
        "setting": f"{given.dtype} on {given.device}",
        "scale": asdict(scale),
    }
    build(bench, given.only or list(PARTS), facts)
    talk.print(f"wrote {given.out / 'README.md'}")


if __name__ == "__main__":
    start(main)
