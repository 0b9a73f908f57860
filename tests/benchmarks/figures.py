"""The README's pictures and tables, from the bundled families and from the reports of the other benchmarks.

    python -m tests.benchmarks.figures

figures/sweep.png is what `tstitch sample --sweep` draws: five prompts down, the share of the steps that tiny-sd-small
takes before tiny-sd across. Prompts and seed were chosen by eye, as for any cover: much other noise is drawn less well.
figures/quality.png has Frechet distance against time, from results/quality.json; its bars are one standard deviation,
over disjoint subsets and over calls. The tables for the README are printed, as far as the reports are there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.benchmarks import prediction, quality
from tests.benchmarks.common import LARGE, RESULTS, SMALL, Sample, start
from tstitch_cli import files, schedulers
from tstitch_cli.commands.edge import talk
from tstitch_cli.commands.sweeping import draw_sweep
from tstitch_cli.evaluations import per_step, run_lengths
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Plan, PlannedDenoiser, Setting
from tstitch_cli.zoo.registry import Zoo

FIGURES = Path(__file__).parent / "figures"


@dataclass(frozen=True)
class Sheet:
    """What sweep.png shows."""

    small: str
    large: str
    prompts: tuple[str, ...]
    """Drawn in one call."""
    seed: int
    """Of the noise."""
    tenths: tuple[int, ...]
    """Shares of the steps that the small denoiser takes."""
    scale: int
    """Of the picture, which the README shows at the width of its text."""


OPENING = Sheet(
    "tiny-sd-small",
    "tiny-sd",
    (
        "a green t-shirt on a white background",
        "an orange pullover on a purple background",
        "a pink dress on a blue background",
        "two black ankle boots on an orange background",
        "a red sneaker on a yellow background",
    ),
    seed=1,
    tenths=(0, 2, 4, 6, 8, 10),
    scale=2,
)
"""What the README opens with."""
BLUE, GREY, GREEN = "#2b6cb0", "#6b7280", "#1a7f4b"


def sweep(folder: Path, sheet: Sheet) -> None:
    """Draws sweep.png into `folder`."""
    plan = sweep_plan(sheet)
    request = Request(tuple(map(Prompt, sheet.prompts)), folder, seed=sheet.seed, overwrite=True)
    chosen = plan.rows[plan.chosen]
    draw_sweep(plan, chosen, request, allow_stale=True, tenths=sheet.tenths, scale=sheet.scale)


def sweep_plan(sheet: Sheet) -> Plan:
    """A plan of the sheet's denoisers in their default setting, for its denoisers; its times mean nothing."""
    zoo = Zoo.load()
    entries = [zoo.resolve(name) for name in (sheet.small, sheet.large)]
    host = entries[-1]
    defaults = host.defaults
    count = defaults.steps
    scheduler = schedulers.build(defaults.scheduler, schedulers.noise_config(host.noise))
    scheduler.set_timesteps(count)
    made = run_lengths(per_step(scheduler, count, len(scheduler.timesteps)))
    times = from_times({sheet.small: 1.0, sheet.large: 2.0}, count, evaluations=made)
    plan = make_plan(times, budget=parse_budget("75%"), quantile=None)
    setting = Setting(
        count, defaults.scheduler, defaults.guidance, len(sheet.prompts), defaults.size, defaults.dtype, device="cpu"
    )
    planned = tuple(PlannedDenoiser(entry.name, entry.source, entry.revision) for entry in entries)
    return replace(plan, family=host.latent_space.name, setting=setting, denoisers=planned)


def quality_png(report: dict[str, Any], path: Path) -> None:
    """Draws Frechet distance against time a picture, 1600 x 1000 pixels, in place of an older one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines, floors = _lines(report)
    batch = report["protocol"]["timed_batch"]
    figure = Figure(figsize=(8, 5), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    mixed = sorted((line for line in lines if line.fraction is not None), key=lambda line: line.fraction or 0.0)
    alone = [line for line in lines if line.fraction is None]
    for group, color, form, label in (
        (mixed, BLUE, "o-", f"{SMALL} for a share of the first steps, then {LARGE}"),
        (alone, GREEN, "s", ", ".join(line.name for line in alone)),
    ):
        if not group:
            continue
        times = [_picture_ms(line, batch) for line in group]
        axes.errorbar(
            [time.mean for time in times],
            [line.frechet for line in group],
            xerr=[time.std for time in times],
            yerr=[line.subsets.std for line in group],
            fmt=form,
            color=color,
            markersize=5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2.5,
            label=label,
        )
    for line in lines:
        axes.annotate(
            _label(line),
            (_picture_ms(line, batch).mean, line.frechet),
            xytext=(7, 7),
            textcoords="offset points",
            fontsize=9,
        )
    for floor, style in zip(floors, (":", "--"), strict=False):
        axes.axhline(floor.frechet, color=GREY, linewidth=1.1, linestyle=style, label=floor.name.strip("()"))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    setting = report["protocol"]["setting"]
    axes.set_xlabel(f"milliseconds a picture (calls of {batch}, {report['machine']['fingerprint']['device']})")
    axes.set_ylabel(f"Fréchet distance, {report['protocol']['pictures']:,} pictures (lower is better)")
    axes.set_title(f"{setting['steps']} steps of {setting['scheduler']}, guidance {setting['guidance']:g}", fontsize=11)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=True, framealpha=0.9)
    content = BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    files.write(path, content.getvalue(), overwrite=True)


def quality_snippet(report: dict[str, Any]) -> str:
    """The quality table of a report, with what it was measured on."""
    lines, floors = _lines(report)
    facts, protocol = report["machine"]["fingerprint"], report["protocol"]
    return "\n".join(
        (
            quality.table([*lines, *floors]),
            "",
            f"{protocol['pictures']:,} pictures of each row against {protocol['against']}; ± one standard deviation "
            f"over {protocol['subsets']} disjoint subsets. Times: calls of {protocol['timed_batch']} on "
            f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}.",
            "",
            *quality.verdicts(lines),
        )
    )


def prediction_snippet(report: dict[str, Any]) -> str:
    """The table of predicted against measured times of a report."""
    checked = [
        prediction.Checked(
            row=each["row"],
            allocation=tuple((name, steps) for name, steps in each["allocation"]),
            predicted_s=each["predicted_s"],
            p95_s=each["p95_s"],
            measured_s=Sample(**each["measured_s"]),
        )
        for each in report["results"]["rows"]
    ]
    return "\n".join((prediction.table(checked), "", *prediction.verdicts(checked)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with quality.json and prediction.json")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder for the pictures")
    parser.add_argument("--no-sweep", action="store_true", help="leave sweep.png as it is")
    given = parser.parse_args()
    if not given.no_sweep:
        sweep(given.out, OPENING)
    if (report := _report(given.results / "quality.json")) is not None:
        quality_png(report, given.out / "quality.png")
        print(quality_snippet(report), "", sep="\n")
    if (report := _report(given.results / "prediction.json")) is not None:
        print(prediction_snippet(report))


def _report(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        talk.print(f"{path} is not there, so nothing is made from it")
        return None
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _lines(report: dict[str, Any]) -> tuple[Sequence[quality.Line], Sequence[quality.Line]]:
    results = report["results"]
    return [quality.Line.read(line) for line in results["lines"]], [quality.Line.read(f) for f in results["floors"]]


def _picture_ms(line: quality.Line, batch: int) -> Sample:
    assert line.call_s is not None
    return Sample.of(seconds / batch * 1e3 for seconds in line.call_s.values)


def _label(line: quality.Line) -> str:
    """A denoiser alone by its name, a stitched row by its share."""
    return line.name if line.fraction is None or line.fraction in (0.0, 1.0) else f"{line.fraction * 100:.0f} %"


if __name__ == "__main__":
    start(main)
