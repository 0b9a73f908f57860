"""Builds a report part by part: its figures, their pictures, report.json and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.report import draw, page
from tests.benchmarks.report.engine import SEED
from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.page import About
from tests.benchmarks.report.stopwatch import Stopwatch
from tstitch_cli import files
from tstitch_cli.commands.edge import talk
from tstitch_cli.errors import UsageError

Make = Callable[[], list[Figure]]


def build(
    makers: Mapping[str, Make],
    parts: Sequence[str],
    out: Path,
    stopwatch: Stopwatch,
    facts: dict[str, Any],
    about: About,
) -> list[Figure]:
    """Makes the figures of `parts`, draws them, and writes report.json and README.md into `out`, a part at a time.

    Figures of the other `makers`, which are in the page's order, are kept where an earlier report has them. `facts`
    are the machine's and the command's. Raises UsageError, before anything is drawn, where those were made in another
    way.
    """
    earlier = _earlier(out / "report.json", parts, facts)
    kept = {name: [_figure(each) for each in found] for name, found in earlier.get("parts", {}).items()}
    facts = _united(facts, earlier)
    for name in parts:
        stopwatch.start(name)
        kept[name] = makers[name]()
        for figure in kept[name]:
            if figure.lines and not figure.pictures:
                draw.png(figure, out / f"{figure.name}.png")
        talk.print(f"{name}: done, {stopwatch.lap():.0f} s of processor time in all runs")
        figures = [figure for part in makers for figure in kept.get(part, [])]
        told = facts | {"seconds": stopwatch.seconds(), "seed": SEED}
        report = {**told, "parts": {part: [asdict(each) for each in found] for part, found in kept.items()}}
        files.write(out / "report.json", (json.dumps(report, indent=1) + "\n").encode(), overwrite=True)
        files.write(out / "README.md", page.page(figures, told, about).encode(), overwrite=True)
    return [figure for part in makers for figure in kept.get(part, [])]


def _earlier(path: Path, parts: Sequence[str], facts: dict[str, Any]) -> dict[str, Any]:
    """The earlier report, whose parts are kept, empty where there is none.

    What was made in another way does not stand under these `facts`: raises UsageError where that is more than `parts`,
    which are drawn anew.
    """
    if not path.is_file():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if apart := _apart(report, json.loads(json.dumps(facts))):
        if others := [name for name in report["parts"] if name not in parts]:
            raise UsageError(
                f"{path}: the {' and '.join(apart)} of its parts {', '.join(others)} would be said to be this run's",
                hint="give another --out, or draw all of these parts in one run, so that they are drawn alike",
            )
        return {}
    return report


def _united(facts: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """`facts` with the weights of the earlier report too, which its parts were drawn with."""
    if not earlier:
        return facts
    weights = _weights(earlier) | _weights(facts)
    machine = facts["machine"]
    return facts | {"machine": machine | {"fingerprint": machine["fingerprint"] | {"weights": weights}}}


def _apart(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two runs differ that the page says of all its parts."""

    def told(facts: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in facts["machine"]["fingerprint"].items() if name != "weights"}

    same = {
        "scale": then.get("scale") == now.get("scale"),
        "setting": then["setting"] == now["setting"],
        "machine": told(then) == told(now),
        "weights": all(_weights(now).get(name, digest) == digest for name, digest in _weights(then).items()),
    }
    return [name for name, alike in same.items() if not alike]


def _weights(facts: dict[str, Any]) -> dict[str, str]:
    """The digest of each denoiser's."""
    found: dict[str, str] = facts["machine"]["fingerprint"].get("weights", {})
    return found


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


def command(module: str, out: Path, options: str) -> str:
    """How the report is made again."""
    return f"python -m {module} --out {from_here(out)}{options}"


def from_here(path: Path) -> str:
    """A path as a page may tell it: from this folder where it is within, else its name alone."""
    path = path.resolve()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name
