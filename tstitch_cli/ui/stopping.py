"""Work that one visitor of the page asked for, one piece at a time, and how it is stopped between two steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tstitch_cli.clocks import Clock

Passing = Callable[[], None]
"""Called wherever work may be stopped; raises StoppedError where somebody asked."""


class StoppedError(Exception):
    """Somebody asked to stop, and it was done."""


class Turns:
    """The machine does one thing at a time, for whoever asked first."""

    def __init__(self) -> None:
        self._at_work = threading.Lock()
        self._asked: list[tuple[str, threading.Event]] = []

    @contextmanager
    def mine(self, owner: str) -> Iterator[Passing]:
        """Waits for `owner`'s turn; raises StoppedError where it was stopped while it waited."""
        stop = threading.Event()
        mine = (owner, stop)

        def passing() -> None:
            if stop.is_set():
                raise StoppedError

        self._asked.append(mine)
        try:
            with self._at_work:
                passing()
                yield passing
        finally:
            self._asked.remove(mine)

    def stop(self, owner: str | None = None) -> bool:
        """Stops all that `owner` asked for, or everybody without one; returns whether there was anything."""
        found = [stop for each, stop in list(self._asked) if owner in (None, each)]
        for stop in found:
            stop.set()
        return bool(found)


@dataclass(frozen=True)
class PassingClock:
    """A clock that tells `passing` of every moment that is marked: before a call, after each of its evaluations."""

    clock: Clock
    passing: Passing

    def mark(self) -> Any:
        """As the clock does; raises what `passing` raises, so that the call ends between two evaluations."""
        self.passing()
        return self.clock.mark()

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """As the clock does."""
        return self.clock.seconds(marks)
