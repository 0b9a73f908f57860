"""The best of all assignments of denoisers to steps, in any order and with any number of switches.

With a loss l[k, t] and a time c[k, t] for denoiser k at step t, and w[k] for switching to it, the assignment a is
sought that minimises L = sum l[a(t), t] subject to S = sum c[a(t), t] + sum w[a(t)] over switches <= budget.

Step by step, for every denoiser that may have taken the last step, the front of (S, L) pairs that no other pair beats
is carried on: of two ways to the same denoiser, the slower and worse can never become the better. The fronts are kept
short by Lagrange's relaxation: for a price p on a second, the least L + p S of what is still to come is a small
recursion without a budget, so that L so far + that least - p (budget - S so far) bounds from below all that a pair
can come to. A pair whose bound lies above an assignment already in hand is dropped, and none that matters is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import Allocation, collapse

WORK = 3_000_000
"""Pairs carried in all, T x K x front: about a second and 100 MB."""
PRICES, NEAR = 64, 8
"""Prices that are tried at once, and how many of them, around the best, bound the pairs."""
SLACK = 1e-9
"""Relative room for sums that were added up in another order."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Optimum:
    """The best assignment within the time, its loss and its seconds.

    `proven` unless fronts had to be thinned; then no assignment has a loss below `bound`.
    """

    allocation: Allocation
    loss: float
    seconds: float
    bound: float
    proven: bool


@dataclass(frozen=True)
class _Problem:
    loss: Floats
    """(K, T)"""
    step_s: Floats
    """(K, T)"""
    switch_s: Floats
    """(K,)"""
    limit_s: float

    def enter_s(self) -> Floats:
        """(K, K): seconds of going from the first denoiser to the second."""
        return np.where(np.eye(len(self.switch_s), dtype=bool), 0.0, self.switch_s)


@dataclass(frozen=True)
class _Relaxed:
    """For P prices, the best assignments without a budget."""

    prices: Floats
    """(P,)"""
    to_come: Floats
    """(T, P, K): least L + p S of all steps after t, where K took step t."""
    bounds: Floats
    """(P,): no assignment within the budget has a loss below."""
    taken: Integers
    """(P, T)"""


@dataclass(frozen=True)
class _Front:
    """Pairs that none other beats, fastest first, each with the denoiser and the pair that it goes on from."""

    seconds: Floats
    loss: Floats
    denoiser: Integers
    before: Integers


def optimum(
    names: tuple[str, ...], loss: Floats, step_s: Floats, switch_s: Floats, limit_s: float, *, work: int = WORK
) -> Optimum | None:
    """The assignment of `names` (K,) to steps with the least loss within `limit_s` seconds; None where none fits.

    `loss` and `step_s` are (K, T), `switch_s` (K,) is the price of taking over. Pairs carried are at most `work`.
    """
    problem = _Problem(loss, step_s, switch_s, limit_s * (1 + SLACK))
    relaxed = _priced(problem)
    hand = _in_hand(problem, relaxed)
    bound = float(relaxed.bounds.max())
    if hand is not None and _price(problem, hand)[0] <= bound + SLACK * abs(bound):
        return _optimum(names, problem, hand, bound, proven=True)
    taken, whole = _carried(problem, relaxed, np.inf if hand is None else _price(problem, hand)[0], work)
    found = min(
        (each for each in (taken, hand) if each is not None), key=lambda each: _price(problem, each), default=None
    )
    return None if found is None else _optimum(names, problem, found, bound, proven=whole)


def _optimum(names: tuple[str, ...], problem: _Problem, taken: Integers, bound: float, *, proven: bool) -> Optimum:
    loss, seconds = _price(problem, taken)
    return Optimum(collapse(names[k] for k in taken), loss, seconds, loss if proven else min(bound, loss), proven)


def _price(problem: _Problem, taken: Integers) -> tuple[float, float]:
    """Loss and seconds of an assignment (T,)."""
    steps = np.arange(len(taken))
    entered = taken[1:][taken[1:] != taken[:-1]]
    seconds = problem.step_s[taken, steps].sum() + problem.switch_s[entered].sum()
    return float(problem.loss[taken, steps].sum()), float(seconds)


def _priced(problem: _Problem) -> _Relaxed:
    """The relaxation around the price that bounds best: the bound is concave in the price, so it is closed in on."""
    scale = (np.ptp(problem.loss) or 1.0) / (np.ptp(problem.step_s) or 1.0)
    relaxed = _relax(problem, np.append(0.0, scale * np.geomspace(1e-5, 1e5, PRICES - 1)))
    for _ in range(3):
        best = int(relaxed.bounds.argmax())
        low, high = relaxed.prices[max(0, best - 1)], relaxed.prices[min(PRICES - 1, best + 1)]
        relaxed = _relax(problem, np.linspace(low, high, PRICES))
    return relaxed


def _relax(problem: _Problem, prices: Floats) -> _Relaxed:
    count, steps = problem.loss.shape
    to_come = np.zeros((steps, len(prices), count))
    choice = np.zeros((steps, len(prices), count), dtype=np.int32)
    enter = prices[:, None, None] * problem.enter_s()
    for t in range(steps - 1, 0, -1):
        here = problem.loss[:, t] + prices[:, None] * problem.step_s[:, t] + to_come[t]
        on = enter + here[:, None, :]
        choice[t] = on.argmin(axis=2)
        to_come[t - 1] = np.take_along_axis(on, choice[t][:, :, None], axis=2)[:, :, 0]
    first = problem.loss[:, 0] + prices[:, None] * problem.step_s[:, 0] + to_come[0]
    taken = np.empty((len(prices), steps), dtype=np.int32)
    taken[:, 0] = first.argmin(axis=1)
    for t in range(1, steps):
        taken[:, t] = choice[t][np.arange(len(prices)), taken[:, t - 1]]
    return _Relaxed(prices, to_come, first.min(axis=1) - prices * problem.limit_s, taken)


def _in_hand(problem: _Problem, relaxed: _Relaxed) -> Integers | None:
    """The best of the relaxed assignments that keep to the budget."""
    fit = [taken for taken in np.unique(relaxed.taken, axis=0) if _price(problem, taken)[1] <= problem.limit_s]
    return min(fit, key=lambda taken: _price(problem, taken), default=None)


def _carried(problem: _Problem, relaxed: _Relaxed, least: float, work: int) -> tuple[Integers | None, bool]:
    """The best assignment with a loss of at most `least`, and whether no front was thinned on the way."""
    count, steps = problem.loss.shape
    longest = max(200, work // (count * steps))
    order = np.argsort(relaxed.bounds)[-NEAR:]
    prices, to_come = relaxed.prices[order], relaxed.to_come[:, order]
    enter_s, start = problem.enter_s(), np.full(1, -1, dtype=np.int32)

    def promising(front: _Front, t: int, k: int) -> _Front:
        left_s = problem.limit_s - front.seconds
        bound = front.loss + (to_come[t, :, k, None] - prices[:, None] * left_s).max(axis=0)
        return _take(front, np.flatnonzero((left_s >= 0) & (bound <= least + SLACK * abs(least))))

    fronts = [promising(_Front(problem.step_s[k, :1], problem.loss[k, :1], start, start), 0, k) for k in range(count)]
    history, whole = [fronts], True
    for t in range(1, steps):
        ways = np.concatenate([np.full(len(f.loss), j, dtype=np.int32) for j, f in enumerate(fronts)])
        pairs = np.concatenate([np.arange(len(f.loss), dtype=np.int32) for f in fronts])
        seconds, losses = (np.concatenate([getattr(f, part) for f in fronts]) for part in ("seconds", "loss"))
        carried = []
        for k in range(count):
            spent = seconds + enter_s[ways, k] + problem.step_s[k, t]
            front = _unbeaten(promising(_Front(spent, losses + problem.loss[k, t], ways, pairs), t, k))
            if len(front.loss) > longest:
                front, whole = _thinned(front, longest), False
            carried.append(front)
        fronts = carried
        history.append(fronts)
    return _followed(history), whole


def _unbeaten(front: _Front) -> _Front:
    order = np.lexsort((front.loss, front.seconds))
    ordered = front.loss[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(ordered)[:-1]))
    return _take(front, order[ordered < best_before])


def _thinned(front: _Front, longest: int) -> _Front:
    """Evenly in time, the last of each stretch, which is its best; the fastest is kept as well."""
    edges = np.linspace(front.seconds[0], front.seconds[-1], longest)
    kept = np.searchsorted(front.seconds, edges, side="right") - 1
    return _take(front, np.unique(np.append(kept, 0)))


def _take(front: _Front, indices: npt.NDArray[np.intp]) -> _Front:
    return _Front(front.seconds[indices], front.loss[indices], front.denoiser[indices], front.before[indices])


def _followed(history: list[list[_Front]]) -> Integers | None:
    """The assignment that ends in the best of the last pairs, followed back to the first step."""
    ends = [(f.loss[-1], f.seconds[-1], k) for k, f in enumerate(history[-1]) if len(f.loss)]
    if not ends:
        return None
    k = min(ends)[2]
    at, taken = len(history[-1][k].loss) - 1, []
    for fronts in reversed(history):
        taken.append(k)
        k, at = int(fronts[k].denoiser[at]), int(fronts[k].before[at])
    return np.array(taken[::-1], dtype=np.int32)
