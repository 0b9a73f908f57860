"""The spread that a profile records: what the call to come stays within."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tstitch_cli.confidence import quantile_of_t
from tstitch_cli.measuring.spread import spread
from tstitch_cli.schema import QUANTILES


@pytest.mark.parametrize("count", [6, 9, 15, 30, 100])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.95])
def test_the_next_call_is_within_as_often_as_is_said(count: int, q: float) -> None:
    drawn = np.random.default_rng(count).normal(1.0, 0.05, size=(1500, count + 1))
    within = np.mean([row[-1] <= spread(row[:-1].tolist(), (q,))[f"p{q * 100:g}"] for row in drawn])
    # The plain empirical quantile of 6 calls would be kept by 83 % instead of 95 %.
    assert within == pytest.approx(q, abs=0.02 if q > 0.5 else 0.04)


def test_quantiles_rise_and_one_call_is_all_there_is() -> None:
    for calls in ([1.2], [1.0, 1.1], [1.0] * 7, np.random.default_rng(0).gamma(20, 0.05, 17).tolist()):
        found = list(spread(calls, QUANTILES).values())
        assert found == sorted(found)
    assert set(spread([1.2], QUANTILES).values()) == {1.2}
    assert list(spread([1.2], QUANTILES)) == ["p50", "p75", "p90", "p95", "p99"]


@pytest.mark.parametrize("q", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("v", [5, 8, 17, 50])
def test_students_t(q: float, v: int) -> None:
    assert quantile_of_t(q, v) == pytest.approx(stats.t.ppf(q, v), rel=0.025)
