"""Shares the computation of trajectories that begin alike: allocations of one batch are a tree of their turns.

A pipeline is deterministic: the noise of a picture comes from (seed, index) alone, and a stochastic scheduler draws it
from the same generators in the same order whatever the denoisers answer. So what the denoisers are asked at
evaluation k, and answer, depends on who took the evaluations 0 ... k and on nothing else. Allocations of T evaluations
are paths in a tree whose nodes are those prefixes; drawn in depth-first order, every node is evaluated once, and the
answers along the current path, T of them, are all that has to be kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tstitch_cli.stitching import StitchedDenoiser


class SharedPrefixes:
    """The answers along the path of the last trajectory, from which the next one takes those that they share."""

    def __init__(self) -> None:
        self.made = 0
        """Evaluations that a denoiser really made."""
        self.saved = 0
        """Evaluations that were answered from the path."""
        self._path: list[tuple[str, list[Any]]] = []
        self._evaluation, self._calls = -1, 0

    def forget(self) -> None:
        """Another batch begins, with which nothing is shared."""
        self._path = []

    @contextmanager
    def trajectory(self, stitched: StitchedDenoiser) -> Iterator[None]:
        """Inside, one trajectory of the batch is run."""
        self._evaluation = -1
        stitched.around = self._answer
        try:
            yield
        finally:
            stitched.around = None

    def _answer(self, evaluation: int, name: str, call: Callable[[], Any]) -> Any:
        """The kept output of this call, or that of `call`. An evaluation may be several calls, which come in order."""
        if evaluation != self._evaluation:
            self._evaluation, self._calls = evaluation, 0
        number, self._calls = self._calls, self._calls + 1
        if evaluation < len(self._path) and self._path[evaluation][0] != name:
            del self._path[evaluation:]
        if evaluation == len(self._path):
            self._path.append((name, []))
        outputs = self._path[evaluation][1]
        known = number < len(outputs)
        if number == 0:
            self.made += not known
            self.saved += known
        # Copies, for a pipeline or scheduler may change what it is given in place.
        if known:
            return copy.deepcopy(outputs[number])
        output = call()
        outputs.append(copy.deepcopy(output))
        return output


def depth_first(turns: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of `turns` (name -> denoiser of every evaluation) in an order in which prefixes are shared."""
    return sorted(turns, key=lambda name: (*turns[name],))


def nodes(turns: Iterable[Sequence[str]]) -> set[tuple[str, ...]]:
    """The distinct prefixes of `turns`, the evaluations that have to be made, each by the turns up to it."""
    return {tuple(path[: end + 1]) for path in turns for end in range(len(path))}
