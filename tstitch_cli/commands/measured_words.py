"""Measured metrics for people: a value and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable

from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Evaluation, Measured, Row


def present(rows: Iterable[Row]) -> list[str]:
    """The metrics that some of `rows` have, in the order of METRICS."""
    found = {name for row in rows for name in row.measured}
    return [name for name in METRICS if name in found]


def heading(name: str) -> str:
    """The column's heading: the metric, and which way is better."""
    return f"{name} {'↑' if METRICS[name].higher_is_better else '↓'}"


def cell(name: str, measured: Measured | None) -> str:
    """`5.12 ± 0.21`, `71.0 ± 1.2 %`; a dash where it was not measured. The wider half of the interval is said."""
    if measured is None:
        return "-"
    half = max(measured.high - measured.value, measured.value - measured.low)
    if METRICS[name].share:
        return f"{measured.value * 100:.1f} ± {half * 100:.1f} %"
    decimals = 2 if measured.value < 100 else 1
    return f"{measured.value:.{decimals}f} ± {half:.{decimals}f}"


def in_words(evaluation: Evaluation) -> str:
    """What measured values hold for."""
    return (
        f"{evaluation.pictures:,} pictures of seed {evaluation.seed}, features: {evaluation.features}, "
        f"reference {evaluation.reference}, prompts {evaluation.prompts}"
    )
