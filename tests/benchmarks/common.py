"""What the benchmarks share: the machine's facts, the bundled family, interleaving, intervals and reports."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tstitch_cli import files
from tstitch_cli.allocation import Allocation
from tstitch_cli.commands.edge import talk, tell
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device, resolve_dtype
from tstitch_cli.errors import TstitchError
from tstitch_cli.measuring import fingerprint
from tstitch_cli.schema import Setting
from tstitch_cli.zoo.registry import Zoo

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
SMALL, BASE, LARGE = "fashion-s", "fashion-b", "fashion-xl"
RESULTS = Path(__file__).parent / "results"
"""Where the reports that the README quotes are kept."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one thing, with their mean and standard deviation."""

    values: tuple[float, ...]
    mean: float
    std: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """The sample of one value or more."""
        found = tuple(values)
        return cls(found, fmean(found), stdev(found) if len(found) > 1 else 0.0)


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def estimate(statistic: Callable[..., Floats], *columns: Sequence[float]) -> Estimate:
    """`statistic` of columns (N,) that were measured in the same N rounds, by the bootstrap over rounds.

    `statistic` takes arrays (..., N) and reduces their last axis. Whole rounds are drawn, so a speed that drifts from
    round to round but not within one does not widen the interval of a ratio.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    rounds = len(arrays[0])
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    low, high = np.quantile(statistic(*(array[drawn] for array in arrays)), [0.025, 0.975])
    return Estimate(float(statistic(*arrays)), float(low), float(high))


def ratio_of_means(over: Floats, under: Floats) -> Floats:
    """The statistic `mean(over) / mean(under)`."""
    quotient: Floats = over.mean(-1) / under.mean(-1)
    return quotient


def interleaved(items: Sequence[T], rounds: int, seed: int = 0) -> Iterator[T]:
    """Every item once a round, each round in another random order, so that a machine's drift falls on all alike."""
    order = random.Random(seed)
    for _ in range(rounds):
        yield from order.sample(items, len(items))


def load_family(names: Sequence[str], *, device: str = "cpu", batch_size: int | None = None) -> Family:
    """Denoisers of the zoo, smallest first, in their default setting; raises what `denoisers.load` raises."""
    zoo = Zoo.load()
    entries = [zoo.resolve(name) for name in names]
    defaults, here = entries[-1].defaults, resolve_device(device)
    setting = Setting(
        steps=defaults.steps,
        scheduler=defaults.scheduler,
        guidance=defaults.guidance,
        batch_size=batch_size or defaults.batch_size,
        size=defaults.size,
        dtype=resolve_dtype(None, defaults.dtype, here),
        device=here,
    )
    return load(entries, setting)


def machine(family: Family) -> dict[str, Any]:
    """What the numbers hold for; the load average tells whether the machine was quiet when they were taken."""
    return {
        "fingerprint": asdict(fingerprint.take(family.device, family.weights)),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version()} | {"numpy": version("numpy")},
    }


def words(allocation: Allocation) -> str:
    """An allocation to read: `fashion-s 12, fashion-xl 8`."""
    return ", ".join(f"{name} {steps}" for name, steps in allocation)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the raw numbers there")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def save(path: Path | None, benchmark: str, facts: dict[str, Any], protocol: dict[str, Any], results: Any) -> None:
    """Writes the report of a run as JSON where a path was given, in place of an older one."""
    if path is None:
        return
    created = datetime.now(UTC).isoformat(timespec="seconds")
    report = {"benchmark": benchmark, "created": created, "machine": facts, "protocol": protocol, "results": results}
    files.write(path, (json.dumps(report, indent=2) + "\n").encode(), overwrite=True)
    talk.print(f"wrote {path}")


def start(main: Callable[[], None]) -> None:
    """Runs a script; what a person can mend is told in a sentence, with the exit status of `tstitch`."""
    try:
        main()
    except TstitchError as error:
        tell(error)
        sys.exit(error.status)
