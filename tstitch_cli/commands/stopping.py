"""Ctrl-C once: finish what is at hand and stop; twice: stop at once. And how to go on, after a failure too."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

from tstitch_cli.commands.edge import talk
from tstitch_cli.errors import PartialError, TstitchError, of_the_machine

P = ParamSpec("P")
T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A cluster's scheduler sends SIGTERM before it takes the machine away."""


class Stopping:
    """Whether somebody asked to stop, and whether there is something at hand that is to be finished first."""

    def __init__(self) -> None:
        self.asked = False
        self._at_hand = False

    def until_asked(self, items: Iterable[T]) -> Iterator[T]:
        """`items` until somebody asks to stop; from the first one on there is something at hand."""
        for item in items:
            if self.asked:
                return
            self._at_hand = True
            yield item

    def between(self, tell: Callable[P, None]) -> Callable[P, None]:
        """`tell`, which is told what is at hand before it is begun; raises KeyboardInterrupt where somebody asked."""

        def told(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self._at_hand = True
            tell(*args, **kwargs)

        return told

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the first signal; raises KeyboardInterrupt where nothing is at hand."""
        self.asked = True
        for each in _SIGNALS:
            signal.signal(each, signal.default_int_handler)
        if not self._at_hand:
            raise KeyboardInterrupt
        talk.print("[yellow]stopping when this batch is finished; Ctrl-C again stops at once[/]")


@contextmanager
def finishing_first() -> Iterator[Stopping]:
    """While inside, the first Ctrl-C (or SIGTERM) is only remembered if something is at hand: see `Stopping`.

    Any other one raises KeyboardInterrupt.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {each: signal.signal(each, stopping.hear) for each in _SIGNALS}
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def typed(*also: str) -> str:
    """The command that is running, to be given again, with those of the options `also` that it lacks."""
    given = sys.argv[1:]
    return shlex.join(["tstitch", *given, *(option for option in also if option not in given)])


def stopped_by(error: Exception, finished: str, again: str) -> PartialError | None:
    """What to tell of `error` after a part was `finished`, and the command `again` that goes on; None of a bug."""
    told = error if isinstance(error, TstitchError) else of_the_machine(error)
    if told is None:
        return None
    mended = f"{told.hint}; then go on with" if told.hint else "go on with"
    return PartialError(f"{told.message}; {finished}", hint=f"{mended}: {again}")
