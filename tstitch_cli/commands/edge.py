"""What every subcommand shares at its edge: the two consoles, and how a failure is told and ends."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import typer
from rich.markup import escape

from tstitch_cli.commands.terminal import SafeConsole
from tstitch_cli.errors import ExitStatus, TstitchError, of_the_machine

P = ParamSpec("P")
R = TypeVar("R")

out = SafeConsole(soft_wrap=True, highlight=False)
"""Results."""
talk = SafeConsole(stderr=True, soft_wrap=True, highlight=False)
"""Progress, remarks and errors."""
OUR_FAULT = "This is a fault of tstitch. TSTITCH_TRACEBACK=1 shows where it came from."


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turns every failure of `command` into one message on stderr and its exit status, never a traceback.

    SIGTERM, which schedulers and `timeout` send, ends it as Ctrl-C does.

    TSTITCH_TRACEBACK=1 lets the exception through, for whoever looks for a bug of ours.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _sigterm_as_ctrl_c():
                return command(*args, **kwargs)
        except TstitchError as error:
            tell(error)
            raise typer.Exit(error.status) from None
        except KeyboardInterrupt:
            talk.print("\n[yellow]interrupted[/]")
            raise typer.Exit(ExitStatus.INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("TSTITCH_TRACEBACK"):
                raise
            if (told := of_the_machine(error)) is not None:
                tell(told)
                raise typer.Exit(told.status) from None
            talk.print(f"[bold red]bug:[/] {escape(bug_in_words(error))}")
            talk.print(f"  {OUR_FAULT}")
            raise typer.Exit(ExitStatus.BUG) from None

    return run


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def bug_in_words(error: Exception) -> str:
    """A failure that nobody but tstitch can have caused, and where it happened as far as that was noted."""
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{where}"


def tell(error: TstitchError) -> None:
    """Prints what is wrong and how to mend it."""
    talk.print(f"[bold red]error:[/] {escape(error.message)}")
    if error.hint:
        talk.print(f"  [cyan]hint:[/] {escape(error.hint)}")


@contextmanager
def steps_bar() -> Iterator[Callable[[str, float], None]]:
    """A live bar on stderr; what it yields is told what runs now and which share of all is done."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    shown = TextColumn("{task.description}")
    columns = (SpinnerColumn(), shown, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda doing, share: progress.update(task, description=escape(doing), completed=share)
