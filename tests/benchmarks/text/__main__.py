"""Rebuilds the text report: the paper's text-to-image experiments on the bundled miniature of Stable Diffusion.

    python -m tests.benchmarks.text --out profiles/text-report

About an hour on a core for the models that come with the package; --quick takes fewer pictures and steps. Each table is
a part of its own: `--only few` draws that alone and keeps the others of the page as they were, if they were made at the
same scale, in the same setting and here. What was drawn is kept in --work, so a run that was cut goes on where it was
when the same command is given again. The models of few steps and the ControlNet do not come with the package: they are
read from the folder that `tstitch train` wrote, and parts whose models are not there are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.common import machine, start
from tests.benchmarks.report import building
from tests.benchmarks.report.engine import Studio
from tests.benchmarks.report.figure import FREE, Figure
from tests.benchmarks.report.page import About
from tests.benchmarks.text import caches, compose, few, fractions, guidance, outlines, samplers, stylised
from tests.benchmarks.text.bench import BASE, INK, INKED, LARGE, SMALL, Bench
from tests.benchmarks.text.rules import MARGIN
from tests.benchmarks.text.scale import FULL, QUICK, Scale
from tests.benchmarks.text.weights import FAMILY, Weights, not_installed
from tstitch_cli import components
from tstitch_cli.commands.edge import talk
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.jobs import prompts
from tstitch_cli.quality import clip_score, references
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.schema import Setting
from tstitch_cli.training import fashion_mnist
from tstitch_cli.training.captioned import SEEN, UNSEEN, Captioned

ABOUT = About(
    f"""# The paper's text-to-image experiments in miniature

Tables and figures of T-Stitch (arXiv 2402.14167) that are of Stable Diffusion, drawn with the bundled miniature of it:
U-Nets of three sizes, the smaller ones distilled from the large one as BK-SDM is, one finetuned on ink drawings, and
what `tstitch train` makes besides. They draw tinted garments of Fashion-MNIST on coloured grounds, 64 pixels a side, so
numbers cannot be the paper's; what can be compared is their course. This page is made by the command at its end: the
numbers, the pictures, and what is said to hold and what not, by rules that stand in `tests/benchmarks/text`.

The Fréchet distance is that of `tstitch evaluate`: from captioned pictures of garments never trained on, in the
features of the family's classifier; lower is better. The same classifier tells whether a picture shows the garment,
colour, background and number that its caption asks for; alignment is all of these together. The CLIP score is by the
small CLIP of the family, and compares with no other. Intervals are 95 % (jackknife over ten subsets; of times, the
bootstrap over rounds). Rows of one figure draw the same captions from the same noise and are compared picture by
picture, so differences of rows are surer than each of them. "Costs nothing" is a distance of at most {FREE:.2f} times
the large model's; of a share, a loss of less than {100 * MARGIN:.0f} points.""",
    "Pictures are of seed {seed}.",
)


@dataclass(frozen=True)
class Part:
    """A part of the report, and what it takes."""

    figures: Callable[[Bench], list[Figure]]
    models: tuple[str, ...]
    packages: tuple[str, ...] = ()


PARTS = {
    "fractions": Part(fractions.figures, (SMALL, LARGE)),
    "stylised": Part(stylised.figures, (SMALL, LARGE, INK)),
    "few": Part(few.figures, few.PAIR),
    "caches": Part(caches.figures, (SMALL, LARGE), caches.PACKAGES),
    "outlines": Part(outlines.figures, (SMALL, BASE, LARGE, outlines.CONTROL)),
    "compose": Part(compose.figures, (SMALL, BASE, LARGE, INK)),
    "guidance": Part(guidance.figures, (SMALL, LARGE)),
    "samplers": Part(samplers.figures, (SMALL, LARGE)),
}


def build(bench: Bench, parts: Sequence[str], facts: dict[str, Any]) -> list[Figure]:
    """Makes `parts` of the report; see `building.build`."""
    makers = {name: partial(part.figures, bench) for name, part in PARTS.items()}
    return building.build(makers, parts, bench.out, bench.studio.stopwatch, facts, ABOUT)


def possible(weights: Weights, parts: Sequence[str]) -> list[str]:
    """Those of `parts` whose models and packages are here; says of the others how to get what they take.

    Raises UsageError where none is possible.
    """
    found = []
    for name in parts:
        if missing := weights.missing(PARTS[name].models):
            talk.print(f"{name} is left out: {_listed(missing)} not here; {weights.training(missing)}", markup=False)
        elif packages := not_installed(PARTS[name].packages):
            hint = 'pip install -c constraints.txt ".[accelerate]"'
            talk.print(f"{name} is left out: {_listed(packages)} not here; {hint}", markup=False)
        else:
            found.append(name)
    if not found:
        raise UsageError("nothing can be drawn with what is here", hint="train what is named above")
    return found


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def bundled(weights: Weights, scale: Scale, out: Path, work: Path, data: Path, device: str, dtype: str) -> Bench:
    """The bench of the bundled family; raises UsageError or BadFileError where it is not complete."""
    host = weights.entry(LARGE)
    defaults = host.defaults
    timing = Setting(
        steps=scale.steps,
        scheduler=defaults.scheduler,
        guidance=defaults.guidance,
        batch_size=defaults.batch_size,
        size=defaults.size,
        dtype=defaults.dtype,
        device=device,
    )
    extractor = ClassifierFeatures(FAMILY, device)
    found = {name: references.bundled(FAMILY, name) for name in (None, UNSEEN, INKED)}
    files = prompts.bundled(FAMILY)
    if None in found.values() or not {SEEN, UNSEEN} <= files.keys():
        raise BadFileError(
            f"the captions and statistics of {FAMILY} are not bundled",
            hint="tstitch train tiny-sd-classifier makes them",
        )
    read = {name or SEEN: references.read(file, extractor, work) for name, file in found.items() if file is not None}
    captions = {name: [prompt.text for prompt in prompts.read(files[name])] for name in (SEEN, UNSEEN)}
    folder = clip_score.bundled(FAMILY)
    scorer = None if folder is None else clip_score.ClipScore(device, folder)
    return Bench(
        studio=Studio(weights.load, extractor, read[SEEN], work, scale.at_once, scorer),
        scale=scale,
        setting=Setting(**asdict(timing) | {"dtype": dtype}),
        timing=timing,
        host=host,
        captions=captions,
        references=read,
        pictures=lambda combinations, inked, count: Captioned(
            data, "test", count, combinations=combinations, inked=inked
        ),
        out=out,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("profiles/text-report"), help="folder of the page")
    parser.add_argument("--work", type=Path, default=Path("build/text-report"), help="where what was drawn is kept")
    parser.add_argument("--trained", type=Path, default=Path(FAMILY), help="folder that `tstitch train` wrote")
    parser.add_argument("--quick", action="store_true", help="few pictures, few steps")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part; may be given again")
    parser.add_argument("--data", help="folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--device", default="cpu", help="where to draw (default: cpu)")
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (default) or float32; calls are timed in float32")
    given = parser.parse_args()
    weights, scale = Weights(given.trained), QUICK if given.quick else FULL
    parts = possible(weights, given.only or list(PARTS))
    data = fashion_mnist.find(given.data)
    bench = bundled(weights, scale, given.out, given.work, data, given.device, given.dtype)
    options = " --quick" * given.quick
    if given.trained != parser.get_default("trained"):
        options += f" --trained {building.from_here(given.trained)}"
    for name in ("device", "dtype"):
        if (asked := getattr(given, name)) != parser.get_default(name):
            options += f" --{name} {asked}"
    facts = {
        "command": building.command("tests.benchmarks.text", given.out, options),
        "machine": _machine(bench, weights),
        "setting": f"{given.dtype} on {given.device}",
        "scale": asdict(scale),
    }
    build(bench, parts, facts)
    talk.print(f"wrote {given.out / 'README.md'}")


def _machine(bench: Bench, weights: Weights) -> dict[str, Any]:
    """The machine's facts, with the digests of all weights that are here."""
    names = dict.fromkeys(name for part in PARTS.values() for name in part.models)
    here = [name for name in names if name not in weights.missing([name])]
    control = weights.control(outlines.CONTROL, bench.host) if outlines.CONTROL in here else None
    digests = {name: components.digest_of(weights.entry(name)) for name in here if name != outlines.CONTROL}
    if control is not None:
        digests[outlines.CONTROL] = components.digest_of(control)
    facts = machine(weights.load((SMALL, LARGE), bench.setting))
    facts["fingerprint"]["weights"] = digests
    return facts


if __name__ == "__main__":
    start(main)
