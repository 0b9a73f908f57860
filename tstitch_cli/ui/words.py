"""What the page says, in HTML: the words are the command line's own."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from tstitch_cli.commands import plan_words
from tstitch_cli.commands.edge import OUR_FAULT, bug_in_words
from tstitch_cli.commands.plan import chosen_in_words
from tstitch_cli.commands.terminal import printable
from tstitch_cli.errors import TstitchError, of_the_machine

if TYPE_CHECKING:
    from tstitch_cli.schema import Plan
    from tstitch_cli.ui.session import Known


def row(plan: Plan) -> str:
    """The chosen row: its denoisers and steps, its predicted time and loss, and how sure those are."""
    first, *rest = [chosen_in_words(plan), *plan_words.sureness(plan), *plan_words.budget(plan)]
    return _paragraphs([first], "chosen") + _paragraphs(rest, "aside")


def measured(known: Known) -> str:
    """What a profile is of, where it is kept, and since when."""
    profile = known.profile
    machine = f" ({profile.fingerprint.device})" if profile.fingerprint is not None else ""
    lines = [f"{profile.setting.words}{machine}", f"{known.path}: {profile.origin} {profile.created}"]
    return "".join(f'<p class="aside">{_safe(line)}</p>' for line in lines)


def said(lines: Iterable[str]) -> str:
    """Lines in rich's markup."""
    return _paragraphs(lines, "said")


def stopped(anything: bool) -> str:
    """What is said after Stop."""
    return f'<p class="said">{"stopped" if anything else "there was nothing to stop"}</p>'


def failure(error: Exception) -> str:
    """What is wrong and how to mend it; a bug's traceback goes to the terminal where TSTITCH_TRACEBACK asks for it."""
    told = error if isinstance(error, TstitchError) else of_the_machine(error)
    if told is None:
        if os.environ.get("TSTITCH_TRACEBACK"):
            traceback.print_exception(error)
        return _failure("bug", bug_in_words(error), OUR_FAULT)
    return _failure("error", told.message, told.hint and f"hint: {told.hint}")


def _failure(kind: str, message: str, hint: str | None) -> str:
    lines = "".join(f"<p>{_safe(line)}</p>" for line in (f"{kind}: {message}", *([hint] if hint else [])))
    return f'<div class="failure" role="alert">{lines}</div>'


def _paragraphs(lines: Iterable[str], kind: str) -> str:
    return "".join(f'<p class="{kind}">{_safe(Text.from_markup(line).plain)}</p>' for line in lines)


def _safe(text: str) -> str:
    """Text that others may have written, for a page."""
    return escape(printable(text, "\n")).replace("\n", "<br>")
