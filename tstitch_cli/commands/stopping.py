"""Ctrl-C once: finish the batch and stop; twice: stop at once. And how to go on."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tstitch_cli.commands.edge import talk

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A cluster's scheduler sends SIGTERM before it takes the machine away."""


@contextmanager
def finishing_first() -> Iterator[Callable[[], bool]]:
    """While inside, the first Ctrl-C (or SIGTERM) is only remembered: what it yields tells whether there was one.

    The second one raises KeyboardInterrupt.
    """
    asked = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for each in _SIGNALS:
            signal.signal(each, signal.default_int_handler)
        talk.print("[yellow]stopping when this batch is finished; Ctrl-C again stops at once[/]")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {each: signal.signal(each, first) for each in _SIGNALS}
    try:
        yield lambda: asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def typed() -> str:
    """The command that is running, to be given again."""
    return shlex.join(["tstitch", *sys.argv[1:]])
