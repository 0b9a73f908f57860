"""Rebuilds every figure of the report on the bundled family, and its page.

    python -m tests.benchmarks.report --out profiles/report

Under 3 hours on 2 cores; --quick takes fewer pictures and steps and is done in 10 minutes. What was drawn is kept in
--work, so a run that was cut goes on where it was when the same command is given again. --only draws some of the parts
and keeps the others of the page as they were, if they were made at the same scale, in the same setting and here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.common import LARGE, machine, start
from tests.benchmarks.report import draw, early, fractions, page, precision, rivals, rows, trajectories
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import SEED, Load, Studio
from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.studies import ALL, FULL, QUICK, Scale
from tstitch_cli import files
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
Test = Callable[[], tuple[Described, torch.Tensor]]


def build(bench: Bench, parts: Sequence[str], facts: dict[str, Any]) -> list[Figure]:
    """Makes the figures of `parts`, draws them, and writes report.json and README.md, a part at a time.

    Figures of other parts that an earlier report has are kept. `facts` are the machine's and the command's. Raises
    UsageError, before anything is drawn, where those parts were made in another way.
    """
    kept, stopwatch = _kept(bench.out / "report.json", parts, facts), bench.studio.stopwatch
    for name in parts:
        stopwatch.start(name)
        kept[name] = PARTS[name](bench)
        for figure in kept[name]:
            if figure.lines and not figure.pictures:
                draw.png(figure, bench.out / f"{figure.name}.png")
        talk.print(f"{name}: done, {stopwatch.lap():.0f} s of processor time in all runs")
        figures = [figure for part in PARTS for figure in kept.get(part, [])]
        told = facts | {"seconds": stopwatch.seconds(), "seed": SEED}
        report = {**told, "parts": {part: [asdict(each) for each in found] for part, found in kept.items()}}
        files.write(bench.out / "report.json", (json.dumps(report, indent=1) + "\n").encode(), overwrite=True)
        files.write(bench.out / "README.md", page.page(figures, told).encode(), overwrite=True)
    return [figure for part in PARTS for figure in kept.get(part, [])]


def _kept(path: Path, parts: Sequence[str], facts: dict[str, Any]) -> dict[str, list[Figure]]:
    """The parts of an earlier report, none where there is none.

    What was made in another way does not stand under these `facts`: raises UsageError where that is more than `parts`,
    which are drawn anew.
    """
    if not path.is_file():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    if apart := _apart(report, json.loads(json.dumps(facts))):
        if others := [name for name in report["parts"] if name not in parts]:
            raise UsageError(
                f"{path}: the {' and '.join(apart)} of its parts {', '.join(others)} would be said to be this run's",
                hint="give another --out, or leave out --only, so that all parts are drawn alike",
            )
        return {}
    return {name: [_figure(each) for each in found] for name, found in report["parts"].items()}


def _apart(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two runs differ that the page says of all its parts."""

    def told(facts: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in facts["machine"]["fingerprint"].items() if name != "weights"}

    def weights(facts: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = facts["machine"]["fingerprint"].get("weights", {})
        return found

    same = {
        "scale": then.get("scale") == now.get("scale"),
        "setting": then["setting"] == now["setting"],
        "machine": told(then) == told(now),
        "weights": all(weights(now).get(name, digest) == digest for name, digest in weights(then).items()),
    }
    return [name for name, alike in same.items() if not alike]


def _figure(told: dict[str, Any]) -> Figure:
    def lines(found: list[dict[str, Any]]) -> tuple[Line, ...]:
        return tuple(Line(**each | {"points": tuple(Point(**point) for point in each["points"])}) for each in found)

    return Figure(
        **told
        | {
            "lines": lines(told["lines"]),
            "paper": lines(told["paper"]),
            "verdicts": tuple(Verdict(**each) for each in told["verdicts"]),
            "table": tuple(map(tuple, told["table"])),
            "pictures": tuple(told["pictures"]),
        }
    )


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
    out = given.out.resolve()
    out = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else Path(out.name)
    facts = {
        "command": f"python -m tests.benchmarks.report --out {out.as_posix()}{options}",
        "machine": machine(bench.studio.load(ALL, bench.setting)),
        "setting": f"{given.dtype} on {given.device}",
        "scale": asdict(scale),
    }
    build(bench, given.only or list(PARTS), facts)
    talk.print(f"wrote {given.out / 'README.md'}")


if __name__ == "__main__":
    start(main)
